"""What every training has, whatever it trains: an optimizer and its schedule, frozen parts, a finite loss."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deblur_lab.checkpoints import load_weights, read_checkpoint
from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Natural
from deblur_lab.tasks.divergence import Divergence

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]
Batch = dict[str, Any]
Given = TypeVar("Given")
Made = TypeVar("Made")


class TrainingTask(L.LightningModule):
    """Trains a network, or a part of it; subclasses say by which loss.

    Args:
        net: what is trained.
        optimizer: makes the optimizer from the parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        compile_blocks: compile the network's repeated blocks (``torch.compile``, one graph for each kind).
        max_skipped_steps: how many steps in a row may be left out because a gradient overflows in
            ``precision=16-mixed``, as happens while its scale is found; one more counts as diverged.

    Attributes:
        restores: whether it is pictures that are restored, and can be scored by their datasets' protocols.
        monitor: by which logged value the best checkpoint is found, and whether more or less of it is better.
        needs: what of the network must have been trained before; None: nothing.
    """

    restores: ClassVar[bool] = False
    monitor: ClassVar[tuple[str, Literal["max", "min"]]]
    needs: ClassVar[str | None] = None

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__()
        self.net = net
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.divergence = Divergence(max_skipped_steps)
        for part in self.frozen_parts():
            part.requires_grad_(False).eval()
        if compile_blocks:
            # Blocks share their code, and each size of picture and of channels is a variant of it.
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            for module in net.modules():
                if getattr(module, "repeated", False):
                    # With sizes left open, PyTorch 2.14 fails to compile a layer norm before a convolution.
                    module.compile(dynamic=False)

    @property
    def evaluated_net(self) -> nn.Module:
        """The network that is scored and saved for use."""
        return self.net

    def frozen_parts(self) -> Sequence[nn.Module]:
        """The parts of the network that are not trained: without gradients, always in eval mode."""
        return ()

    def train(self, mode: bool = True) -> "TrainingTask":
        """PyTorch's; what is frozen stays in eval mode, so that no statistics of its norms move either."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def losses(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What is minimised on a training batch, and what it is made of, by name, unweighted."""
        raise NotImplementedError

    def check_patch(self, height_px: int, width_px: int) -> None:
        """Whether patches of a size can be trained on.

        Raises:
            ConfigurationError: they cannot.
        """

    def check_start(self, init_from: str | None) -> None:
        """Whether a new training has all that it must start from; nothing is read.

        Args:
            init_from: the checkpoint whose weights it is to start from, if there is one.

        Raises:
            ConfigurationError: it has not.
        """
        if self.needs is not None and init_from is None:
            raise ConfigurationError(
                f"init_from is not set: name a checkpoint of a {type(self.net).__name__} whose {self.needs} "
                "was trained, in the stage before this one"
            )

    def start(self, init_from: Path | None) -> list[str]:
        """Fill the network with what a new training starts from.

        Args:
            init_from: the checkpoint whose weights it starts from, if there is one.

        Returns:
            What is to be said of it, a line each.

        Raises:
            CheckpointError: a checkpoint cannot be read or does not fit.
            ConfigurationError: something that it must start from was not given, or a part that is frozen
                would stay untrained.
        """
        self.check_start(None if init_from is None else str(init_from))
        if init_from is None:
            return []
        fresh = load_weights(self.net, read_checkpoint(init_from), init_from, in_part=True)
        tensors = self.net.state_dict(keep_vars=True)
        frozen = {
            id(kept) for part in self.frozen_parts() for kept in part.state_dict(keep_vars=True).values()
        }
        lost = [name for name in fresh if id(tensors[name]) in frozen]
        if lost:
            raise ConfigurationError(
                f"init_from={init_from} lacks {len(lost)} tensors of what is frozen "
                f"({', '.join(lost[:3])}, ...), which would stay untrained: a stage before this was left out"
            )
        anew = f"; {len(fresh)} tensors that it lacks start anew" if fresh else ""
        return [f"starting from {init_from}{anew}"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Lightning's; the loss of a batch, its parts logged as ``train/loss_<part>``."""
        loss, parts = self.losses(batch)
        count = _samples(batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        self.log_dict({f"train/loss_{name}": part.detach() for name, part in parts.items()}, batch_size=count)
        return self.divergence.noted(loss, parts, batch.get("name", ()))

    def on_validation_start(self) -> None:
        """Lightning's; all processes score with the first one's statistics of norms, which are saved."""
        self._share_buffers()

    def on_test_start(self) -> None:
        """Lightning's; as `on_validation_start`."""
        self._share_buffers()

    def _share_buffers(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, src=0)

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

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's many forms
        """Lightning's; the optimizer of what is trained and its schedule, stepped once an optimizer step.

        Raises:
            ConfigurationError: one of them refuses its settings.
        """
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        optimizer = _made("model.optimizer", self.optimizer_factory, trained)
        scheduler = _made("model.scheduler", self.scheduler_factory, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _samples(batch: Batch) -> int:
    """How many samples a batch holds: the length of the first tensor in it."""
    return next(len(value) for value in batch.values() if isinstance(value, Tensor))


def _made(key: str, factory: Callable[[Given], Made], given: Given) -> Made:
    """What a factory of the configuration makes, which is only then known to take its settings."""
    try:
        return factory(given)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{key}: {error}") from error
