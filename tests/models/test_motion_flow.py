import copy
import math
import pickle

import pytest
import torch
from torch import nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import MotionFlow, motion_flow
from deblur_lab.models.motion_flow import FlowBatchNorm

from .made_up import fill, image


def made_up_flow(*sizes: int, dtype: torch.dtype = torch.float32) -> MotionFlow:
    """A flow in eval mode, every part of which does something."""
    flow = MotionFlow(*sizes)
    fill(flow)
    for seed, layer in enumerate(flow.net):
        if isinstance(layer, FlowBatchNorm):
            layer.running_var.copy_(0.5 + image(seed, flow.entries))
    return flow.eval().to(dtype)


@pytest.fixture
def tiny() -> MotionFlow:
    return made_up_flow(3, 3, 4, dtype=torch.float64)


@pytest.fixture
def code() -> torch.Tensor:
    return torch.from_numpy(image(1, 50, 361).numpy() * 4 - 2)


def plainly(flow: MotionFlow, code: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return flow.decode_plainly(code)


def test_a_new_flow_is_the_logistic_function_up_to_its_norms():
    flow = MotionFlow(5).eval()
    code = image(1, 7, 25) * 6 - 3
    grown = code * (1 + 1e-5) ** (5 / 2)  # the norms divide by sqrt(1 + eps)
    torch.testing.assert_close(flow.decode(code), grown.sigmoid(), atol=3e-6, rtol=0)


def test_log_determinant_is_that_of_the_jacobian(tiny):
    kernels = image(2, 4, 9).double()
    code, determinant = tiny.encode(kernels)
    for kernel, found in zip(kernels, determinant, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda row: tiny.encode(row[None])[0][0], kernel)
        torch.testing.assert_close(found, jacobian.slogdet().logabsdet)
    expected = torch.distributions.Normal(0, 1).log_prob(code).sum(1) + determinant
    torch.testing.assert_close(tiny.log_likelihood(kernels), expected)


def test_density_integrates_to_one():
    """Over the kernels of four entries, all alike likely to be drawn."""
    flow = made_up_flow(2, 2, 3, dtype=torch.float64)
    torch.manual_seed(0)
    kernels = torch.rand(400_000, 4, dtype=torch.float64)
    assert flow.log_likelihood(kernels).exp().mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("couplings", [1, 2, 3, 5])
def test_encode_and_decode_are_inverse(couplings):
    flow = made_up_flow(3, couplings, 4, dtype=torch.float64)
    code = image(3, 20, 9).double() * 4 - 2
    with torch.no_grad():
        torch.testing.assert_close(flow.encode(flow.decode(code))[0], code, atol=1e-8, rtol=0)
        torch.testing.assert_close(flow.encode(flow.decode_plainly(code))[0], code, atol=1e-8, rtol=0)
        kernels = image(4, 20, 9).double()
        torch.testing.assert_close(flow.decode(flow.encode(kernels)[0]), kernels, atol=1e-10, rtol=0)


@pytest.mark.parametrize("couplings", [1, 2, 3, 5])
def test_folded_is_plain(monkeypatch, code, couplings):
    monkeypatch.setitem(motion_flow.PIXELS_AT_ONCE, "cpu", 16)
    flow = made_up_flow(19, couplings, 25)
    with torch.no_grad():
        torch.testing.assert_close(flow.decode(code), flow.decode_plainly(code), atol=1e-5, rtol=0)
    frozen = flow.requires_grad_(False)
    assert flow.folds
    torch.testing.assert_close(frozen.decode(code), flow.decode_plainly(code), atol=1e-5, rtol=0)


def test_folded_weights_are_used_in_eval_mode_without_gradients_to_the_flow_alone(tiny):
    assert not tiny.folds
    with torch.no_grad():
        assert tiny.folds
        assert tiny.folded() is tiny.folded()
        assert not tiny.train().folds
    assert tiny.eval().requires_grad_(False).folds


def test_gradients_to_the_code_pass_through_the_folded_weights(tiny):
    code = (image(5, 6, 9).double() * 4 - 2).requires_grad_()
    weight = image(6, 6, 9).double()
    (plain,) = torch.autograd.grad((tiny.decode(code) * weight).sum(), code)
    tiny.requires_grad_(False)
    with torch.inference_mode():
        tiny.decode(code)  # from which weights are left that gradients must pass through
    (folded,) = torch.autograd.grad((tiny.decode(code) * weight).sum(), code)
    torch.testing.assert_close(folded, plain)
    assert torch.autograd.gradcheck(tiny.decode, code)


def test_gradients_are_right(tiny):
    code = (image(7, 3, 9).double() * 4 - 2).requires_grad_()
    kernels = image(8, 3, 9).double().requires_grad_()
    weights = tuple(tiny.parameters())
    assert torch.autograd.gradcheck(lambda code, *_: tiny.decode(code), (code, *weights))
    assert torch.autograd.gradcheck(lambda kernels, *_: tiny.log_likelihood(kernels), (kernels, *weights))
    tiny.train()  # with gradients through the statistics of the batch, to the likelihood
    assert torch.autograd.gradcheck(tiny.log_likelihood, kernels)


def load(flow: MotionFlow) -> None:
    flow.load_state_dict(
        {key: 0.5 * value for key, value in flow.state_dict().items() if "mask" not in key}, False
    )


def step(flow: MotionFlow) -> None:
    optimizer = torch.optim.SGD(flow.parameters(), lr=0.1)
    for parameter in flow.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def see_kernels(flow: MotionFlow) -> None:
    flow.train()
    flow.encode(image(9, 20, 361))
    flow.eval()


def change_data(flow: MotionFlow) -> None:
    for parameter in flow.parameters():
        parameter.data = parameter.data * 0.5


@pytest.mark.parametrize("change", [load, step, see_kernels, change_data])
def test_folded_weights_follow_the_flows(change, code):
    flow = made_up_flow(19)
    with torch.no_grad():
        before = flow.decode(code)
    change(flow)
    with torch.no_grad():
        after = flow.decode(code)
    torch.testing.assert_close(after, plainly(flow, code), atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-3


def test_folded_weights_follow_the_type(code):
    flow = made_up_flow(19).requires_grad_(False)
    assert flow.decode(code).dtype == torch.float32
    exact = flow.double().decode(code.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact, flow.decode_plainly(code.double()), atol=1e-12, rtol=0)
    torch.testing.assert_close(flow.float().decode(code).double(), exact, atol=1e-5, rtol=0)
    assert flow.bfloat16().decode(code).dtype == torch.float32


def test_folded_weights_are_in_no_state_and_no_copy(code):
    flow = made_up_flow(19).requires_grad_(False)
    before = list(flow.state_dict())
    expected = flow.decode(code)
    assert list(flow.state_dict()) == before
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert other._folded is None
        assert torch.equal(other.decode(code), expected)


def test_weights_that_are_made_in_inference_mode_are_folded_anew(code):
    with torch.inference_mode():
        flow = made_up_flow(19)
        flow.decode(code)
        flow.net[0].s_net[4].bias += 1
        torch.testing.assert_close(flow.decode(code), flow.decode_plainly(code), atol=1e-5, rtol=0)


def test_other_masks_are_not_folded(tiny):
    tiny.net[0].mask.fill_(1)
    with torch.no_grad(), pytest.raises(ValueError, match="masks"):
        tiny.decode(torch.zeros(1, 9, dtype=torch.float64))


def test_in_training_the_norms_take_the_statistics_of_the_batch():
    flow = made_up_flow(3, 2, 4, dtype=torch.float64)
    flow.train()
    kernels = image(10, 40, 9).double()
    running = [layer.running_mean.clone() for layer in flow.net if isinstance(layer, FlowBatchNorm)]
    code, determinant = flow.encode(kernels)
    last = flow.net[-1]
    torch.testing.assert_close(code.mean(0), last.beta)
    torch.testing.assert_close(code.std(0, correction=0), last.log_gamma.exp(), atol=1e-3, rtol=0)
    # An evaluation by the same statistics gives the same, its determinant included.
    stilled = made_up_flow(3, 2, 4, dtype=torch.float64)
    values = torch.logit(stilled.alpha + (1 - 2 * stilled.alpha) * kernels)
    with torch.no_grad():
        for layer in stilled.net:
            if isinstance(layer, FlowBatchNorm):
                layer.running_mean.copy_(values.mean(0))
                layer.running_var.copy_(values.var(0, correction=0))
            values = layer(values)[0]
    for found, expected in zip((code, determinant), stilled.encode(kernels), strict=True):
        torch.testing.assert_close(found, expected)
    norms = [layer for layer in flow.net if isinstance(layer, FlowBatchNorm)]
    of_batch = [layer for layer in stilled.net if isinstance(layer, FlowBatchNorm)]
    for norm, before, batch in zip(norms, running, of_batch, strict=True):
        torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * batch.running_mean)
    # Its inverse is that of evaluation.
    code = image(11, 5, 9).double()
    with torch.no_grad():
        assert torch.equal(flow.decode(code), flow.decode_plainly(code))


def test_one_kernel_has_no_statistics():
    flow = MotionFlow(3)
    with pytest.raises(ValueError, match="at least two"):
        flow.log_likelihood(torch.rand(1, 9))


def test_the_ends_of_the_range_are_finite():
    flow = made_up_flow(3)
    kernels = torch.tensor([[0.0] * 9, [1.0] * 9, [0.0, 1.0, 0.5] * 3]).requires_grad_()
    likelihood = flow.log_likelihood(kernels)
    likelihood.sum().backward()
    assert likelihood.isfinite().all()
    assert kernels.grad.isfinite().all()


def test_autocast_changes_nothing(code):
    flow = made_up_flow(19)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow.decode(code), flow.decode_plainly(code))
        with torch.no_grad():
            folded = flow.decode(code)
        likelihood = flow.log_likelihood(folded)
    with torch.no_grad():
        assert torch.equal(folded, flow.decode(code))
        assert torch.equal(likelihood, flow.log_likelihood(folded))
    assert likelihood.isfinite().all(), "though some of these kernels lie outside of [0, 1] by a rounding"


def test_likelihood_is_learnt():
    torch.manual_seed(0)
    flow = MotionFlow(3, 2, 8)
    correlated = (torch.randn(256, 1) + 0.2 * torch.randn(256, 9)).sigmoid()
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = -flow.log_likelihood(correlated).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 3
    with torch.no_grad():
        assert -flow.eval().log_likelihood(correlated).mean().item() < losses[0] - 3


def test_every_weight_learns():
    flow = MotionFlow(3)
    for layer in flow.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.3)
    flow.log_likelihood(torch.rand(8, 9)).mean().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kernel_size_px": 1}, "kernel_size_px is 1"),
        ({"couplings": 0}, "couplings is 0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"momentum": 0.0}, r"momentum is 0\.0"),
        ({"momentum": math.nan}, "momentum is nan"),
    ],
)
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        MotionFlow(**settings)
