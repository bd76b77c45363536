"""What a training says: what is about to happen, how to go on with it, and what to try where it failed."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import lightning as L
from torch.nn.modules.batchnorm import _BatchNorm

from deblur_lab.callbacks import write_json
from deblur_lab.checkpoint_names import LAST
from deblur_lab.console import say
from deblur_lab.errors import DivergedError
from deblur_lab.run_folders import has_saved
from deblur_lab.stages import Stage
from deblur_lab.tasks import TrainingTask

Say = Callable[[str], None]


class TrainingData(Protocol):
    """The data of a training, whatever they are of."""

    batch_size: int

    def describe(self) -> list[str]:
        """What is trained on, in lines to print; finds and checks it."""
        ...

    def files_of(self, name: str) -> list[str]:
        """The files of the samples of a name."""
        ...


class Telling:
    """Says what becomes of a training, by the name of its stage if it is one of several.

    Args:
        folder: the training's.
        stage: which it is; None if it is alone.
        trusted: packages whose classes may be built.
    """

    def __init__(self, folder: Path, stage: Stage | None, trusted: Sequence[str]) -> None:
        self._folder = folder
        self._stage = stage
        self._trusted = trusted
        self.resumable = folder if stage is None else stage.whole

    def say(self, line: str) -> None:
        """Print a line."""
        say(line if self._stage is None else f"{self._stage.title}: {line}")

    def announce(self, trainer: L.Trainer, datamodule: TrainingData, task: TrainingTask) -> None:
        """Say what is about to happen, so that a wrong setting is seen before it has cost a night."""
        parameters = sum(parameter.numel() for parameter in task.net.parameters())
        self.say(f"{type(task.net).__name__}: {parameters / 1e6:.2f} M parameters; folder: {self._folder}")
        for line in datamodule.describe():
            say(line)
        batch = datamodule.batch_size
        micro = batch // (trainer.world_size * trainer.accumulate_grad_batches)
        side_px = getattr(datamodule, "patch_size", None)
        samples = "samples" if side_px is None else f"patches of {side_px} px"
        say(
            f"{trainer.max_steps} steps of {batch} {samples}: {trainer.world_size} "
            f"device(s) ({trainer.strategy.root_device.type}, {trainer.precision}) x {micro} "
            f"x {trainer.accumulate_grad_batches} accumulated"
        )
        every = int(trainer.val_check_interval) // trainer.accumulate_grad_batches
        if every > trainer.max_steps:
            say(f"val_every_steps={every} comes after the last step: there is no validation and no best.ckpt")
        elif not task.restores:
            name, mode = task.monitor
            say(f"best.ckpt is the one of the {'lowest' if mode == 'min' else 'highest'} {name}")

    def way_on(self) -> str:
        """How to go on with a run that was ended; nothing if it has saved nothing yet."""
        own_code = [f"trusted_packages=[{','.join(self._trusted)}]"] if self._trusted else []
        command = shlex.join(["python", "-m", "deblur_lab.train", f"resume={self.resumable}", *own_code])
        last = self._folder / "checkpoints" / LAST
        saved = last.exists() if self._stage is None else has_saved(self.resumable)
        return f"go on with: {command}" if saved else ""

    def written_down(self, error: DivergedError, datamodule: TrainingData) -> DivergedError:
        """The same error, that says where its record is."""
        path = self._folder / "diverged.json"
        names = [
            name
            for process in error.record["processes"]
            for batch in process["batches"]
            for name in batch["samples"]
        ]
        files = {name: datamodule.files_of(name) for name in dict.fromkeys(names)}
        write_json(path, {**error.record, "files": files})
        weights = self._folder / "checkpoints" / LAST
        keys = ("model.optimizer.lr", "trainer.gradient_clip_val")
        if self._stage is None:
            anew = f"start anew from init_from={weights} with" if weights.exists() else "try"
        else:
            anew = "start anew with"
            keys = (self._stage.typed(keys[0]), self._stage.typed(keys[1]))
        return DivergedError(
            f"{error}; all samples of the step are in {path}: look at them, or {anew} a smaller "
            f"{keys[0]} or {keys[1]}"
        )


def remedy(trainer: L.Trainer, datamodule: TrainingData, task: TrainingTask) -> str:
    """What to try where memory runs out, most promising first."""
    # The statistics of a batch norm that is trained are those of what is held at once.
    normed = any(isinstance(part, _BatchNorm) and part.training for part in task.net.modules())
    same = "" if normed else " (which changes no result)"
    recomputes = getattr(task.net, "checkpoint_blocks", None) is False
    micro = datamodule.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
    smaller = max((size for size in range(1, micro) if micro % size == 0), default=None)
    side_px = getattr(datamodule, "patch_size", None)
    return ", ".join(
        [
            *(["model.net.checkpoint_blocks=true (which changes no result)"] if recomputes else []),
            *([f"data.micro_batch_size={smaller}{same}"] if smaller else []),
            *([f"a data.patch_size below {side_px}"] if side_px is not None else []),
            *(["trainer.precision=bf16-mixed"] if trainer.precision == "32-true" else []),
        ]
    )
