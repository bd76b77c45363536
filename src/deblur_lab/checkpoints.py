"""Checkpoints: written so that a kill never tears them, read so that they can run nothing."""

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from deblur_lab.config import build
from deblur_lab.errors import CheckpointError, MachineError
from deblur_lab.models import NAFNet
from deblur_lab.models.published import misfits, nafnet_of, weights_of

RECORD_KEY = "deblur_lab"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, flushes it to the disk, and only then renames it.

    Lightning's own writing goes through ``$TMPDIR``, which on another file system makes its last move a
    copy that a kill can tear, and drops a refused permission in silence.
    """

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
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(final)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            foreign = get_unsafe_globals_in_checkpoint(temporary)
            if foreign:
                temporary.unlink()
                raise CheckpointError(
                    f"checkpoint {final} is not written: it could not be read again, for it would hold "
                    f"{', '.join(foreign)}: plain containers, strings, numbers and tensors alone are kept"
                )
            temporary.replace(final)
            _flush_folder(final.parent)
        # torch.save reports a full disk as a RuntimeError of its zip writer.
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise MachineError(f"checkpoint {final} cannot be written: {error}") from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,  # noqa: ANN401 - Lightning's signature
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load with ``weights_only=True``, whatever is asked for."""
        return read_checkpoint(Path(path))


def _remove_abandoned(final: Path) -> None:
    """Remove what processes that were killed have left of their writing."""
    for left in final.parent.iterdir():
        pid = left.name.removeprefix(f".{final.name}.").removesuffix(".tmp")
        if left.name == f".{final.name}.{pid}.tmp" and pid.isdecimal():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except OSError:
                pass  # somebody else's, and alive


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; file systems that cannot, do without."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: no such file, torn, not a checkpoint, or one that would execute code.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.is_dir():
        raise CheckpointError(f"checkpoint {path} is a folder: name a file, as {path}/checkpoints/last.ckpt")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read, it is truncated or damaged ({error})"
        ) from error
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to run the file.
        raise CheckpointError(f"checkpoint {path} is refused: {_suspicion(path)}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # PyTorch's first sentence tells what is wrong, those that follow what may have been the cause.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        if reason.isdigit():  # the first byte of what is no pickle
            reason = "it does not begin as a checkpoint does"
        raise CheckpointError(
            f"checkpoint {path} cannot be read, it is truncated or damaged ({reason})"
        ) from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"checkpoint {path} holds a {type(contents).__name__}, not a dictionary")
    return contents


def _suspicion(path: Path) -> str:
    try:
        foreign = get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever a damaged file may cause
        foreign = []
    if foreign:
        return f"besides plain containers and tensors it holds {', '.join(foreign)}"
    return "it is damaged, or not made of plain containers and tensors alone"


def load_net(path: Path, trusted_packages: tuple[str, ...] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint, in eval mode on the CPU, and the record of the run that trained it.

    The average of the weights is taken where the run kept one. Of a file that others published, the net and
    its size are found from its weights, and the record is empty.

    Raises:
        CheckpointError: the file cannot be read, is of an unknown network, or its weights do not fit it.
    """
    checkpoint = read_checkpoint(path)
    if RECORD_KEY not in checkpoint:
        return _published(checkpoint, path), {}
    record = checkpoint[RECORD_KEY]
    try:
        node = record["config"]["model"]["net"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} does not say of which network it is") from error
    if "${" in json.dumps(node, default=str):
        raise CheckpointError(
            f"checkpoint {path} is refused: its configuration refers to what is outside of it"
        )
    net = build(node, trusted_packages, key=f"model.net (of checkpoint {path})")
    if not isinstance(net, nn.Module):
        raise CheckpointError(f"checkpoint {path} names a {type(net).__name__} as its network")
    load_weights(net, checkpoint, path)
    return net.eval(), record


def _published(checkpoint: Mapping[str, Any], path: Path) -> NAFNet:
    try:
        return nafnet_of(weights_of(checkpoint))
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path} is of no network that is known here: {error}") from error


def load_weights(
    net: nn.Module, checkpoint: Mapping[str, Any], path: Path, *, in_part: bool = False
) -> list[str]:
    """Fill a network with a checkpoint's weights, the average of them where the run kept one.

    Args:
        net: of ours.
        checkpoint: what `read_checkpoint` returned.
        path: of the checkpoint; for messages.
        in_part: leave what the checkpoint lacks as it is, so that NAFNet's weights can start an M2AENet.

    Returns:
        The names of the tensors that were left as they were.

    Raises:
        CheckpointError: tensors are missing (all of them, if `in_part`), left over or of another shape; names
            the first five of each.
    """
    state = checkpoint.get("state_dict")
    state = state if isinstance(state, Mapping) else {}
    of_ours = [p for p in ("ema.module.", "net.") if any(key.startswith(p) for key in state)]
    if of_ours:
        prefix = of_ours[0]
        weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    else:
        weights = weights_of(checkpoint)
    own = net.state_dict()
    missing, left, misshapen = misfits(own, weights)
    kinds = {
        "missing": [] if in_part and len(missing) < len(own) else missing,
        "unexpected": left,
        "of another shape": [
            f"{key} {tuple(weights[key].shape)}, not {tuple(own[key].shape)}" for key in misshapen
        ],
    }
    told = [f"{len(keys)} {kind} ({', '.join(keys[:5])})" for kind, keys in kinds.items() if keys]
    if told:
        raise CheckpointError(
            f"checkpoint {path} does not fit {type(net).__name__}: of {len(own)} tensors, {'; '.join(told)}"
        )
    net.load_state_dict(weights, strict=False)
    return missing
