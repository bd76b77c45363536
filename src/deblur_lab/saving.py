"""Checkpoints written: so that a kill never tears them, a full disk keeps the old one, and two are kept."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, cast

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from deblur_lab.checkpoint_names import BEST, LAST, PREVIOUS
from deblur_lab.checkpoints import foreign_globals, read_checkpoint
from deblur_lab.errors import CheckpointError, MachineError
from deblur_lab.images import quoted
from deblur_lab.writing import amount, flush_folder, free_bytes, require_space, temporary_of, unwritable

# What a checkpoint holds beside tensors: names, the configuration, counters.
_SMALL_BYTES = 256 * 1024


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, flushes it to the disk, and only then renames it.

    What was ``last.ckpt`` becomes ``previous.ckpt``, to go back to should the last one be damaged.

    Lightning's own writing goes through ``$TMPDIR``, which on another file system makes its last move a
    copy that a kill can tear, and drops a refused permission in silence.

    Args:
        may_write: called before each writing; raises if the folder is no longer this run's.
    """

    def __init__(self, may_write: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._may_write = may_write

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401 - Lightning's signature
    ) -> None:
        """Save atomically: at any moment, `path` is the old file or the new one, whole.

        Raises:
            MachineError: the file cannot be written (no space, no permission); the old one stays.
            CheckpointError: it could not be read again, for what it holds; the old one stays.
        """
        final = Path(path)
        self._may_write()
        needed = bytes_in(checkpoint) + _SMALL_BYTES
        temporary = temporary_of(final)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            have = free_bytes(final.parent)
            if have < needed:
                raise MachineError(
                    f"{quoted(final)} cannot be written: it needs {amount(needed)} and {amount(have)} are "
                    f"free; {_what_stays(final)}"
                )
            with temporary.open("wb") as file:
                _write(checkpoint, file)
            foreign = foreign_globals(temporary)
            if foreign:
                raise CheckpointError(
                    f"checkpoint {quoted(final)} is not written: it could not be read again, for it would "
                    f"hold {', '.join(foreign)}: only plain containers, strings, numbers and tensors are kept"
                )
            if final.name == LAST:
                _keep_previous(final)
            temporary.replace(final)
            flush_folder(final.parent)
        except OSError as error:
            # What was written of it takes space no more when the rest is said.
            _remove(temporary)
            raise MachineError(f"{unwritable(final, error, needed)}; {_what_stays(final)}") from error
        finally:
            _remove(temporary)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,  # noqa: ANN401 - Lightning's signature
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load with ``weights_only=True``, whatever is asked for."""
        return read_checkpoint(Path(path))


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``: the weights of the best validation.

    Lightning's forgets the best score when a run is resumed by another path, or was moved, and would then
    replace the best weights by worse ones.

    Args:
        folder: of the checkpoints.
        monitor: the logged value that it is the best by.
        mode: whether more of it is better, or less.
    """

    def __init__(self, folder: Path, monitor: str, mode: Literal["max", "min"]) -> None:
        super().__init__(
            folder,
            filename=BEST.removesuffix(".ckpt"),
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's; what lay in the run's folder, lies in it wherever that is now."""

        def here(path: str) -> str:
            return os.path.join(str(self.dirpath), os.path.basename(path)) if path else path

        moved = dict(state_dict)
        moved["dirpath"] = self.dirpath
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[name] = here(moved[name])
        moved["best_k_models"] = {here(path): score for path, score in moved["best_k_models"].items()}
        super().load_state_dict(moved)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: every so many optimizer steps, when training ends, and when it is told to stop.

    Where a validation follows a step, it is waited for: a run that goes on from the checkpoint then knows its
    scores. Put it after Lightning's ``ModelCheckpoint``, whose best score it saves as well.

    Args:
        path: of the file, which each saving replaces.
        every_steps: optimizer steps between two savings.

    Raises:
        ValueError: `every_steps` is below 1.
    """

    def __init__(self, path: Path, every_steps: int) -> None:
        if every_steps < 1:
            raise ValueError(f"checkpoint_every_steps={every_steps}: at least 1 is expected")
        self.path = path
        self.every_steps = every_steps
        self._saved_step = -1
        self._to_stop = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Lightning's."""
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self._is_due(trainer) and batches % cast(int, trainer.val_check_batch) != 0:
            self._save(trainer)
        # Lightning stops after any batch; one that is not the last of its step shall not be the last of all.
        self._to_stop |= trainer.received_sigterm
        trainer._signal_connector.received_sigterm = self._to_stop and self._between_steps(trainer)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's; counts the batches of the run so far as this run's devices would have taken them."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        shift = checkpoint["global_step"] * trainer.accumulate_grad_batches - progress["current"]["ready"]
        for counts in (progress["current"], progress["total"]):
            for name in counts:
                counts[name] += shift

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        if self._is_due(trainer) or self._to_stop or trainer.received_sigterm:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._save(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Lightning's; saves where SIGTERM stopped the run, which is between two optimizer steps."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if isinstance(exception, SIGTERMException) and progress.ready == progress.completed:
            self._save(trainer)

    def _is_due(self, trainer: L.Trainer) -> bool:
        return trainer.global_step % self.every_steps == 0

    def _between_steps(self, trainer: L.Trainer) -> bool:
        """Whether no part of an accumulated batch would be lost, and the order of samples with it."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return done == trainer.global_step * trainer.accumulate_grad_batches

    def _save(self, trainer: L.Trainer) -> None:
        if self._between_steps(trainer) and trainer.global_step != self._saved_step:
            trainer.save_checkpoint(self.path)
            self._saved_step = trainer.global_step


def bytes_in(checkpoint: Any) -> int:  # noqa: ANN401 - any nest of containers
    """The bytes of the tensors in nested containers, each storage counted once, as they are written."""
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in _tensors(checkpoint)}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def bytes_of_one(task: nn.Module) -> int:
    """About how large a checkpoint of a training will be.

    Args:
        task: what is trained, before its first step: its optimizer is taken to keep two numbers for each that
            is trained, as Adam does.
    """
    trained = sum(p.numel() * p.element_size() for p in task.parameters() if p.requires_grad)
    return bytes_in(task.state_dict()) + 2 * trained + _SMALL_BYTES


def require_room(folder: Path, task: nn.Module) -> None:
    """See that the checkpoints of a run have room, before its first step.

    Args:
        folder: of the checkpoints; what a run that goes on has there already, is replaced.
        task: as in `bytes_of_one`.

    Raises:
        MachineError: they have not; says what they need and what is free.
    """
    one = bytes_of_one(task)
    kept = (LAST, PREVIOUS, BEST)
    there = sum((folder / name).stat().st_size for name in kept if (folder / name).exists())
    require_space(
        folder,
        max((len(kept) + 1) * one - there, one),
        f"{', '.join(kept)} and the one being written ({amount(one)} each)",
    )


def _tensors(node: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _tensors(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _tensors(value)


def _write(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    noted = _Noting(file)
    try:
        torch.save(checkpoint, cast(IO[bytes], noted))
    except RuntimeError as error:
        # Its zip writer hides what the machine said.
        raise noted.refused or OSError(None, str(error).splitlines()[0]) from error
    file.flush()
    os.fsync(file.fileno())


class _Noting:
    """A file that keeps in mind why it could not be written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.refused: OSError | None = None

    def write(self, data: bytes) -> int:
        """As a file's."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        """As a file's."""
        self._file.flush()


def _keep_previous(last: Path) -> None:
    """Give what is the last checkpoint the name of the previous one as well, by a link and no copy."""
    if not last.exists():
        return
    previous = last.with_name(PREVIOUS)
    linked = temporary_of(previous)
    linked.unlink(missing_ok=True)
    try:
        os.link(last, linked)
    except OSError:
        # A file system without links: for a moment there is a previous one and no last one.
        os.replace(last, previous)
        return
    os.replace(linked, previous)
    # Renaming one name of a file to another of the same file leaves both.
    linked.unlink(missing_ok=True)


def _what_stays(final: Path) -> str:
    return f"the older {final.name} stays" if final.exists() else "no checkpoint is lost"


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
