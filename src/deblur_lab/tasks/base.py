"""What every restoration network is trained with: losses logged by part, EMA, compilation, restoring."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deblur_lab.errors import ConfigurationError
from deblur_lab.kinds import shown
from deblur_lab.ranges import Natural, OpenShare
from deblur_lab.tasks.divergence import Divergence

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]
Batch = dict[str, Any]
Given = TypeVar("Given")
Made = TypeVar("Made")


class Restoration(NamedTuple):
    """What a network says of a batch of pictures.

    Attributes:
        restored: (B, 3, H, W), not clamped.
        probability: (B, 1, H, W) in [0, 1], that a pixel is blurred; None for networks that do not say.
        motion: (B, N, 2, H, W), displacements over the exposure in px, x then y; None likewise.
        selected_share: (B,) float32 in [0, 1], the share of the pixels that the network's mask selects, of
            those that it decides about; None for networks without masks.
        dilated_share: (B,) float32, the same of the selected pixels with their eight neighbours.
    """

    restored: Tensor
    probability: Tensor | None = None
    motion: Tensor | None = None
    selected_share: Tensor | None = None
    dilated_share: Tensor | None = None


Explained = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@runtime_checkable
class Explaining(Protocol):
    """A network that can say where it sees blur and which motion."""

    def explain(self, blurry: Tensor, instants: int = 9) -> Explained:
        """Restored pictures, and what the network says of them: the fields of `Restoration`, in their order.

        Args:
            blurry: (B, 3, H, W) in [0, 1].
            instants: N, of the motion.
        """
        ...


class RestorationLoss(Protocol):
    """A loss made of parts that are logged, and weighted, one by one."""

    def __call__(self, restored: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        """The parts, unweighted, by name."""
        ...

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        ...


def restore(net: nn.Module, blurry: Tensor, instants: int = 9) -> Restoration:
    """Restore pictures, with what the network can tell of blur and motion.

    Args:
        net: in eval mode; images in, restored images out.
        blurry: (B, 3, H, W) in [0, 1].
        instants: of the motion, if the network tells it; each takes 8 bytes a pixel.
    """
    if isinstance(net, Explaining):
        return Restoration(*net.explain(blurry, instants))
    return Restoration(net(blurry))


def mask_threshold(net: nn.Module) -> float | None:
    """The probability of blur above which a network's own mask selects a pixel; None: it has no masks."""
    return getattr(net, "threshold", None) if getattr(net, "mask_predictors", None) else None


def require_masks(net: nn.Module, origin: str, **wanted: object) -> None:
    """Refuse settings of a network's masks, by name, where it has none; those that are None are not set.

    Args:
        net: any.
        origin: where it comes from, as a person named it.
        wanted: the settings.

    Raises:
        ConfigurationError: one is set, and the network has nothing to set.
    """
    if mask_threshold(net) is not None:
        return
    for key, value in wanted.items():
        if value is not None:
            raise ConfigurationError(
                f"{key}={shown(value)}: the {type(net).__name__} of {origin} predicts no mask of the blur: "
                f"leave {key} out"
            )


class RestorationTask(L.LightningModule):
    """Trains a network that maps blurry images to restored ones.

    Args:
        net: images in, restored images out.
        loss: of (restored, sharp), by parts.
        optimizer: makes the optimizer from the parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        ema_decay: validation and prediction use an exponential moving average of the weights with this
            decay an optimizer step, in (0, 1); None: the weights themselves.
        compile_blocks: compile the network's repeated blocks (``torch.compile``, one graph for each kind).
        max_skipped_steps: how many steps in a row may be left out because a gradient overflows in
            ``precision=16-mixed``, as happens while its scale is found; one more counts as diverged.

    Raises:
        ValueError: `ema_decay` is out of range.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        ema_decay: OpenShare | None = None,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__()
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"ema_decay={ema_decay}: a number between 0 and 1 is expected, or null")
        self.net = net
        self.loss = loss
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.divergence = Divergence(max_skipped_steps)
        # Its first update copies the weights, so that it is never an average of nothing.
        self.ema = (
            AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)  # type: ignore[no-untyped-call]
            if ema_decay is not None
            else None
        )
        if self.ema is not None:
            # It is not trained; and DDP waits for the gradients of all that is.
            self.ema.requires_grad_(False)
        if compile_blocks:
            # Blocks share their code, and each size of picture and of channels is a variant of it.
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            for module in net.modules():
                if getattr(module, "repeated", False):
                    # With sizes left open, PyTorch 2.14 fails to compile a layer norm before a convolution.
                    module.compile(dynamic=False)

    @property
    def evaluated_net(self) -> nn.Module:
        """The network that is scored and saved for use: the average if there is one."""
        return self.ema.module if self.ema is not None else self.net

    def loss_parts(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss on a training batch, unweighted."""
        return cast(dict[str, Tensor], self.loss(self.net(batch["blurry"]), batch["sharp"]))

    def check_patch(self, height_px: int, width_px: int) -> None:
        """Whether patches of a size can be trained on.

        Raises:
            ConfigurationError: they cannot.
        """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Lightning's; the loss of a batch, its parts logged as ``train/loss_<part>``."""
        parts = self.loss_parts(batch)
        loss = cast(RestorationLoss, self.loss).total(parts)
        count = len(batch["blurry"])
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/loss_{name}": part.detach() for name, part in parts.items()}, batch_size=count)
        return self.divergence.noted(loss, parts, batch.get("name", ()))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning's; before gradients are clipped and the weights change. Logs the step's learning rate.

        Raises:
            DivergedError: the loss or the gradient is not finite.
        """
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self.divergence.check(gradients, self.global_step, may_overflow=scaled)
        if scaled:
            self.log("train/skipped_steps", float(self.divergence.skipped))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Lightning's; then the average follows the weights, once an optimizer step that was taken."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None and not self.divergence.skipped_last:
            self.ema.update_parameters(self.net)

    def validation_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns."""
        return Restoration(self.evaluated_net(batch["blurry"]))

    def test_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns. Motion is told at both ends of the exposure."""
        return restore(self.evaluated_net, batch["blurry"], instants=2)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's many forms
        """Lightning's; the optimizer and its schedule, stepped once an optimizer step.

        Raises:
            ConfigurationError: one of them refuses its settings.
        """
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        optimizer = _made("model.optimizer", self.optimizer_factory, trained)
        scheduler = _made("model.scheduler", self.scheduler_factory, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's; nothing of an EMA that is off may stand in the way of its weights."""
        if self.ema is None:
            state = checkpoint["state_dict"]
            for key in [key for key in state if key.startswith("ema.")]:
                del state[key]


def _made(key: str, factory: Callable[[Given], Made], given: Given) -> Made:
    """What a factory of the configuration makes, which is only then known to take its settings."""
    try:
        return factory(given)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{key}: {error}") from error


class EvaluationTask(L.LightningModule):
    """Scores a network that is not trained here.

    Args:
        net: images in, restored images out.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def test_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns. Motion is told at both ends of the exposure."""
        return restore(self.net, batch["blurry"], instants=2)

    @property
    def evaluated_net(self) -> nn.Module:
        """The network that is scored."""
        return self.net
