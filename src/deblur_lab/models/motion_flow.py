"""UFPNet's prior of motion kernels: a normalizing flow over the entries of a kernel.

UFPNet is of Fang et al. 2023, "Self-supervised non-uniform kernel estimation with flow-based motion prior for
blind image deblurring"; the masked affine couplings and batch norms are those of RealNVP (Dinh et al. 2017,
"Density estimation using Real NVP"). The names of the parts are those of the published checkpoint.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.channel_attention import full_precision
from deblur_lab.ranges import Count, OpenShare

PIXELS_AT_ONCE = {"cpu": 4096}
"""By kind of device, of how many pixels kernels are decoded at once; of others `MANY_PIXELS_AT_ONCE`.

On a CPU what is in work stays in the cache; elsewhere the number keeps temporary tensors under 100 MB each.
"""
MANY_PIXELS_AT_ONCE = 2**16

Affine = tuple[Tensor, Tensor]
"""What is multiplied by, and what is then added."""


def pixels_at_once(device: torch.device) -> int:
    """Of how many pixels kernels are decoded at once."""
    return PIXELS_AT_ONCE.get(device.type, MANY_PIXELS_AT_ONCE)


class MotionFlow(nn.Module):
    """An invertible map between kernels and codes that are to be normally distributed.

    `encode` is the direction of training by likelihood, `decode` its inverse. At the defaults it has 194,470
    parameters. Everything is computed in float32 (in float64 if the weights are), under autocast too.

    Assumes:
        - The inverse takes the running statistics of the batch norms in training mode as well.
        - In training the norms divide by the biased variance of the batch and keep the unbiased one, as
          PyTorch's do; their log-determinant takes the statistics for constants, as RealNVP does.

    Deviates:
        - The last layers of all nets start at zero, so that a new flow only squashes to [0, 1].

    Args:
        kernel_size_px: side K of the square kernels.
        couplings: affine couplings, each with a batch norm behind it.
        hidden: width of the nets that give scale and shift.
        momentum: share of the newest batch in the running statistics.

    Raises:
        ConfigurationError: if a setting is out of range.
    """

    kernel_size: Tensor
    alpha: Tensor
    normalization: Tensor
    base_dist_mean: Tensor
    base_dist_var: Tensor

    def __init__(
        self,
        kernel_size_px: Count = 19,
        couplings: Count = 5,
        hidden: Count = 25,
        momentum: OpenShare = 0.1,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("kernel_size_px", kernel_size_px, 2),
            ("couplings", couplings, 1),
            ("hidden", hidden, 1),
        ):
            if value < least:
                raise ConfigurationError(f"{name} is {value}: give at least {least}")
        if not 0 < momentum < 1:
            raise ConfigurationError(f"momentum is {momentum}: give a number between 0 and 1")
        entries = kernel_size_px**2
        # Of these five, which the published checkpoint has, alpha alone is used: others are what they are.
        self.register_buffer("kernel_size", torch.tensor([float(kernel_size_px)]))
        self.register_buffer("alpha", torch.tensor([1e-6]))
        self.register_buffer("normalization", torch.ones(1))
        self.register_buffer("base_dist_mean", torch.zeros(entries))
        self.register_buffer("base_dist_var", torch.ones(entries))
        self.entries = entries
        self.net = nn.ModuleList()
        for index in range(couplings):
            self.net.append(AffineCoupling(entries, hidden, index % 2))
            self.net.append(FlowBatchNorm(entries, momentum))
        self._folded: tuple[tuple[object, ...], FoldedFlow] | None = None

    def encode(self, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels to codes.

        In training mode the batch norms take the statistics of these kernels, and update the running ones.

        Args:
            kernels: (N, K*K) in [0, 1], or outside by as little as what `decode` returns can be.

        Returns:
            code: (N, K*K).
            log_determinant: (N,), the logarithm of the Jacobian's absolute determinant, in nats.

        Raises:
            ValueError: if there is only one kernel in training mode, which has no statistics.
        """
        with full_precision(kernels.device):
            kernels = kernels.to(self.alpha.dtype)
            span = 1 - 2 * self.alpha
            # Both distances from the ends, so that neither loses digits near its end.
            # What `decode` returns can lie outside of the range by as much as alpha.
            least = self.alpha / 1000
            log_low = (self.alpha + span * kernels).clamp(least).log()
            log_high = (self.alpha + span * (1 - kernels)).clamp(least).log()
            code = log_low - log_high
            determinant = (span.log() - log_low - log_high).sum(1)
            for layer in self.net:
                code, added = layer(code)
                determinant = determinant + added
            return code, determinant

    def log_likelihood(self, kernels: Tensor) -> Tensor:
        """The logarithm of the kernels' density, in nats: standard normal codes, and the determinant.

        Args:
            kernels: (N, K*K) in [0, 1].

        Returns:
            (N,).
        """
        code, determinant = self.encode(kernels)
        return determinant - 0.5 * (code.square().sum(1) + self.entries * math.log(2 * math.pi))

    def decode(self, code: Tensor) -> Tensor:
        """Codes to kernels.

        In eval mode, where no gradient to the flow is wanted, folded weights are used (`FoldedFlow`), some
        pixels at a time; gradients to the code pass through them.

        Args:
            code: (N, K*K).

        Returns:
            (N, K*K) in [0, 1], to within `alpha`, 1e-6: a logistic function's values, stretched.
        """
        with full_precision(code.device):
            code = code.to(self.alpha.dtype if self.alpha.dtype == torch.float64 else torch.float32)
            if not self.folds:
                return self.decode_plainly(code)
            folded = self.folded()
            at_once = pixels_at_once(code.device)
            parts = torch.split(code, at_once)
            if torch.is_grad_enabled() and code.requires_grad:
                return torch.cat([folded.decode(part) for part in parts])
            kernels = torch.empty_like(code)
            for part, result in zip(parts, torch.split(kernels, at_once), strict=True):
                folded.decode_into(part, result)
            return kernels

    def decode_plainly(self, code: Tensor) -> Tensor:
        """As `decode`, one layer after the other."""
        with full_precision(code.device):
            values = code.to(self.alpha.dtype)
            for layer in reversed(self.net):
                assert isinstance(layer, AffineCoupling | FlowBatchNorm)
                values = layer.inverse(values)
            return (values.sigmoid() - self.alpha) / (1 - 2 * self.alpha)

    @property
    def folds(self) -> bool:
        """Whether `decode` uses folded weights."""
        if self.training:
            return False
        return not (torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters()))

    def folded(self) -> "FoldedFlow":
        """Weights for `decode`, made anew where the flow's have changed since; in no state dict."""
        tensors = [*self.parameters(), *self.buffers()]
        if any(tensor.is_inference() for tensor in tensors):
            return _fold(self)  # of which PyTorch does not tell changes
        state = tuple((id(tensor), tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)
        if self._folded is None or self._folded[0] != state:
            self._folded = (state, _fold(self))
        return self._folded[1]

    def __getstate__(self) -> dict[str, object]:
        """What is copied and pickled: all but the folded weights."""
        return {**self.__dict__, "_folded": None}


class AffineCoupling(nn.Module):
    """One half of the entries tells by how much the other half is scaled and shifted.

    Args:
        entries: of a kernel.
        hidden: width of the nets that give the logarithm of the scale (tanh) and the shift (ReLU).
        first: 0 or 1: the first of the entries that are changed, every second from there.
    """

    mask: Tensor

    def __init__(self, entries: int, hidden: int, first: int) -> None:
        super().__init__()
        self.register_buffer("mask", ((torch.arange(entries) + first) % 2).float())
        self.first = first
        self.s_net = _net(entries, hidden, nn.Tanh)
        self.t_net = _net(entries, hidden, nn.ReLU)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale towards the code: (N, K*K) to the same and the log-determinants, (N,)."""
        log_scale, shift = self._of(values)
        changed = (values - shift) * torch.exp(-log_scale)
        return torch.where(self.mask > 0, values, changed), -log_scale.sum(1)

    def inverse(self, values: Tensor) -> Tensor:
        """Scale and shift towards the kernel: (N, K*K) to the same."""
        log_scale, shift = self._of(values)
        return values * torch.exp(log_scale) + shift

    def _of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the scale, and shift; 0 where the mask is 1."""
        kept = values * self.mask
        return self.s_net(kept) * (1 - self.mask), self.t_net(kept) * (1 - self.mask)


class FlowBatchNorm(nn.Module):
    """Normalise each entry over the batch, then scale by the exponential of `log_gamma` and shift by `beta`.

    Args:
        entries: of a kernel.
        momentum: share of the newest batch in the running statistics.
        eps: added to variances.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, entries: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.log_gamma = nn.Parameter(torch.zeros(entries))
        self.beta = nn.Parameter(torch.zeros(entries))
        self.register_buffer("running_mean", torch.zeros(entries))
        self.register_buffer("running_var", torch.ones(entries))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise: (N, K*K) to the same and the log-determinant, (1,)."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            count = len(values)
            if count < 2:
                raise ValueError("one kernel has no variance: give at least two at a time in training")
            variance, mean = torch.var_mean(values, 0, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        variance = variance + self.eps
        normed = (values - mean) * (self.log_gamma.exp() / variance.sqrt()) + self.beta
        return normed, (self.log_gamma - 0.5 * variance.log()).sum(0, keepdim=True)

    def inverse(self, values: Tensor) -> Tensor:
        """Undo it, by the running statistics: (N, K*K) to the same."""
        scale = torch.exp(-self.log_gamma) * (self.running_var + self.eps).sqrt()
        return (values - self.beta) * scale + self.running_mean


class FoldedCoupling(NamedTuple):
    """The inverse of a coupling on the halves themselves, with the batch norms around it in its weights.

    Attributes:
        first: 0 or 1: which half is changed, that of the even or that of the odd entries.
        enter: (kept, 2 * hidden) weights of both nets' first layers, and (2 * hidden,) biases.
        scale_middle, shift_middle: (hidden, hidden) and (hidden,), of each net's second layer.
        scale_leave, shift_leave: (hidden, changed) and (changed,), of each net's last layer.
    """

    first: int
    enter: Affine
    scale_middle: Affine
    shift_middle: Affine
    scale_leave: Affine
    shift_leave: Affine

    def to(self, device: torch.device, dtype: torch.dtype) -> "FoldedCoupling":
        """The same elsewhere, or of another type."""
        pairs = (
            (weight.to(device, dtype).contiguous(), bias.to(device, dtype).contiguous())
            for weight, bias in self[1:]
        )
        return FoldedCoupling(self.first, *pairs)

    def scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """What the changed half, (N, changed), is multiplied by and then has added."""
        hidden = len(self.scale_middle[1])
        mixed = torch.addmm(self.enter[1], kept, self.enter[0])
        scale = torch.addmm(
            self.scale_middle[1], mixed[:, :hidden].contiguous().tanh_(), self.scale_middle[0]
        ).tanh_()
        shift = torch.addmm(self.shift_middle[1], mixed[:, hidden:].relu(), self.shift_middle[0]).relu_()
        scale = torch.addmm(self.scale_leave[1], scale, self.scale_leave[0]).exp_()
        return scale, torch.addmm(self.shift_leave[1], shift, self.shift_leave[0])


class FoldedFlow(NamedTuple):
    """The inverse flow with nothing computed in vain.

    Each half of the entries is kept apart, so that no masked half is multiplied by zero; the first layers of
    both nets of a coupling are one; the batch norms are in the weights, but for those that come before a half
    is first changed; no log-determinant.

    Attributes:
        scales, shifts: the even and the odd entries are first multiplied by and have added these, (1, half).
        couplings: in the order in which they are undone.
        stretch, offset: what the logistic function's values are multiplied by and then have added.
    """

    scales: tuple[Tensor, Tensor]
    shifts: tuple[Tensor, Tensor]
    couplings: tuple[FoldedCoupling, ...]
    stretch: float
    offset: float

    def to(self, device: torch.device, dtype: torch.dtype) -> "FoldedFlow":
        """The same elsewhere, or of another type."""
        scales, shifts = (
            (even.to(device, dtype).contiguous(), odd.to(device, dtype).contiguous())
            for even, odd in (self.scales, self.shifts)
        )
        couplings = tuple(coupling.to(device, dtype) for coupling in self.couplings)
        return self._replace(scales=scales, shifts=shifts, couplings=couplings)

    def decode(self, code: Tensor) -> Tensor:
        """(N, K*K) to a new tensor of the same shape; gradients pass."""
        halves = self._start(code)
        for coupling in self.couplings:
            scale, shift = coupling.scale_and_shift(halves[1 - coupling.first])
            halves[coupling.first] = torch.addcmul(shift, halves[coupling.first], scale)
        kernels = torch.empty_like(code)
        for first, half in enumerate(halves):
            kernels[:, first::2] = half.sigmoid() * self.stretch + self.offset
        return kernels

    def decode_into(self, code: Tensor, kernels: Tensor) -> None:
        """(N, K*K) to a tensor of the same shape that is there already, even the code's own; no gradients."""
        halves = self._start(code)
        for coupling in self.couplings:
            scale, shift = coupling.scale_and_shift(halves[1 - coupling.first])
            halves[coupling.first] = shift.addcmul_(halves[coupling.first], scale)
        for first, half in enumerate(halves):
            kernels[:, first::2] = half.sigmoid_().mul_(self.stretch).add_(self.offset)

    def _start(self, code: Tensor) -> list[Tensor]:
        return [torch.addcmul(self.shifts[first], code[:, first::2], self.scales[first]) for first in (0, 1)]


def _net(entries: int, hidden: int, activation: type[nn.Module]) -> nn.Sequential:
    last = nn.Linear(hidden, entries)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(entries, hidden), activation(), nn.Linear(hidden, hidden), activation(), last
    )


def _fold(flow: MotionFlow) -> FoldedFlow:
    """Fold a flow, in float64; the result has float32, or float64 if the flow has."""
    dtype = torch.float64 if flow.alpha.dtype == torch.float64 else torch.float32
    if flow.alpha.is_meta:  # without numbers, as what costs are counted of: by a new flow's shapes
        first = cast(AffineCoupling, flow.net[0])
        hidden = cast(nn.Linear, first.s_net[0]).out_features
        with torch.device("cpu"):
            new = MotionFlow(math.isqrt(flow.entries), len(flow.net) // 2, hidden)
            return _fold(new).to(torch.device("meta"), dtype)
    # In inference mode, too, make ordinary tensors: the next pass may want gradients to the code.
    with torch.inference_mode(False), torch.no_grad():
        layers = list(reversed(flow.net))
        norms = [_affine(layer) for layer in layers if isinstance(layer, FlowBatchNorm)]
        couplings = [layer for layer in layers if isinstance(layer, AffineCoupling)]
        # From one coupling that changes a half to the next that does, the half passes two norms. Both are
        # done where it is changed, and the coupling in between, which is to see it after the first of them
        # alone, undoes the second. What comes before a half's first change stands by itself.
        early, late = _chain(norms[:1]), _chain(norms[:2])
        start = [early if couplings[0].first == half else late for half in (0, 1)]
        folded = FoldedFlow(
            (start[0][0][None, 0::2], start[1][0][None, 1::2]),
            (start[0][1][None, 0::2], start[1][1][None, 1::2]),
            tuple(
                _fold_coupling(coupling, norms[index + 1 : index + 3])
                for index, coupling in enumerate(couplings)
            ),
            1 / (1 - 2 * float(flow.alpha)),
            -float(flow.alpha) / (1 - 2 * float(flow.alpha)),
        )
        return folded.to(flow.alpha.device, dtype)


def _fold_coupling(coupling: AffineCoupling, following: list[Affine]) -> FoldedCoupling:
    """Fold a coupling, with the (at most two) norms that are undone after it and before the next but one."""
    changed, kept = slice(coupling.first, None, 2), slice(1 - coupling.first, None, 2)
    expected = (torch.arange(len(coupling.mask)) + coupling.first) % 2
    if not torch.equal(coupling.mask.cpu(), expected.to(coupling.mask.dtype)):
        raise ValueError("the masks of this flow do not alternate as the published ones do")
    scale_net, shift_net = (
        [_weights(net[index]) for index in (0, 2, 4)] for net in (coupling.s_net, coupling.t_net)
    )
    enter = torch.cat([scale_net[0][0], shift_net[0][0]], 1)[kept]
    enter_bias = torch.cat([scale_net[0][1], shift_net[0][1]])
    if following:
        scale, shift = following[0]
        enter = enter / scale[kept, None]
        enter_bias = enter_bias - shift[kept] @ enter
    scale, shift = _chain(following) if following else (torch.ones(()), torch.zeros(()))
    scale, shift = (value.expand(len(coupling.mask))[changed] for value in (scale, shift))
    return FoldedCoupling(
        coupling.first,
        (enter, enter_bias),
        scale_net[1],
        shift_net[1],
        (scale_net[2][0][:, changed], scale_net[2][1][changed] + scale.log()),
        (shift_net[2][0][:, changed] * scale, shift_net[2][1][changed] * scale + shift),
    )


def _affine(norm: FlowBatchNorm) -> Affine:
    """What a norm's inverse multiplies by and adds, in float64."""
    variance = norm.running_var.cpu().double() + norm.eps
    scale = torch.exp(-norm.log_gamma.cpu().double()) * variance.sqrt()
    return scale, norm.running_mean.cpu().double() - norm.beta.cpu().double() * scale


def _chain(affines: list[Affine]) -> Affine:
    """One after the other."""
    scale, shift = affines[0]
    for next_scale, next_shift in affines[1:]:
        scale, shift = scale * next_scale, shift * next_scale + next_shift
    return scale, shift


def _weights(layer: nn.Module) -> Affine:
    """Of a linear layer, (in, out) weights and biases in float64."""
    assert isinstance(layer, nn.Linear)
    return layer.weight.cpu().double().T, layer.bias.cpu().double()
