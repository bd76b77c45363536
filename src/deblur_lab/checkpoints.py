"""Checkpoints read: so that they can run nothing, and that damage is seen and named."""

import io
import json
import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from deblur_lab.config import build
from deblur_lab.errors import CheckpointError
from deblur_lab.images import quoted
from deblur_lab.models.published import describe_misfits, looks_like, misfits, net_of, weights_of

RECORD_KEY = "deblur_lab"

_SHOWN = 10

# What pickled weights are made of.
_PLAIN = re.compile(
    r"collections\.OrderedDict|torch\.(\w+Storage|storage\.\w+|Size|device|_utils\._rebuild_\w+)"
)
# How files begin that are often met under the name of a checkpoint.
_KINDS = (
    (b"version https://git-lfs.github.com/", "is a Git LFS pointer: fetch the file itself by `git lfs pull`"),
    (b"\x1f\x8b", "is a gzip archive: unpack it"),
    (b"BZh", "is a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "is an xz archive: unpack it"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it"),
    (b"Rar!", "is a RAR archive: unpack it"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them: PyTorch's weights are needed"),
    (b"\x93NUMPY", "is a NumPy array: PyTorch's weights are needed"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
)


class RefusedError(CheckpointError):
    """A checkpoint that would run code: somebody made it so, and no other is to be taken in its place."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU; nothing in it is executed.

    What the file is, is found from its contents, whatever its name ends with. PyTorch does not compare the
    checksums that it writes, and so takes a flipped bit for a weight: they are compared here. Formats that
    have none (.safetensors, and PyTorch's before 1.6) cannot be checked.

    Raises:
        RefusedError: it would run code.
        CheckpointError: no such file, empty, cut off, altered, or not a checkpoint.
    """
    try:
        if path.is_dir():
            raise CheckpointError(
                f"checkpoint {quoted(path)} is a folder: name a file, as {path}/checkpoints/last.ckpt"
            )
        with path.open("rb") as file:
            return _read(file, path)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {quoted(path)} does not exist") from error
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {quoted(path)} cannot be read: {error.strerror or error}"
        ) from error


def _read(file: BinaryIO, path: Path) -> dict[str, Any]:
    beginning = file.read(512)
    if not beginning:
        raise CheckpointError(f"checkpoint {quoted(path)} is empty: its download or copy failed")
    start = b"PK\x03\x04"
    if beginning.startswith(start) or start.startswith(beginning) or _ends_as_archive(file):
        _check_archive(file, path)
    elif beginning[8:9] == b"{":
        return _read_safetensors(path)
    else:
        reason = _no_checkpoint(beginning)
        if reason:
            raise CheckpointError(f"checkpoint {quoted(path)} {reason}")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how old a file is
            contents = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to run the file.
        foreign = foreign_globals(path)
        if foreign:
            raise RefusedError(
                f"checkpoint {quoted(path)} is refused: besides plain containers and tensors it holds "
                f"{_listed(foreign)}, and could run code: take a file of weights alone"
            ) from error
        raise _damaged(path, "it is not made as a checkpoint is") from error
    except Exception as error:  # whatever a damaged file may cause
        # PyTorch's first sentence tells what is wrong, those that follow what may have been the cause.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise _damaged(path, reason) from error
    if not isinstance(contents, dict):
        raise CheckpointError(
            f"checkpoint {quoted(path)} holds a {type(contents).__name__}, not a dictionary"
        )
    return contents


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {quoted(path)} cannot be read, it is truncated or damaged ({reason})")


def _ends_as_archive(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        return True  # a damaged one


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Compare the checksums of an archive, and see that it is one of PyTorch's weights."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            torn = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
        reason = "its end is missing" if "not a zip file" in str(error) else str(error)
        raise _damaged(path, reason) from error
    if torn is not None:
        raise _damaged(path, f"wrong checksum of its part {torn}")
    inner = {name.partition("/")[2] for name in names}
    if "data.pkl" in inner and "constants.pkl" not in inner:
        return
    if "constants.pkl" in inner:
        what = "is a TorchScript program, not weights: save its state_dict() and name that"
    elif any(name.endswith(".npy") for name in names):
        what = "is an archive of NumPy arrays: PyTorch's weights are needed"
    else:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        what = f"is a zip archive of {shown or 'nothing'}: unpack it and name the checkpoint in it"
    raise CheckpointError(f"checkpoint {quoted(path)} {what}")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _no_checkpoint(beginning: bytes) -> str | None:
    """What a file is that begins so, if it is surely no checkpoint."""
    for start, what in _KINDS:
        if beginning.startswith(start):
            return what
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "is a web page, not weights: the download failed, open its address in a browser"
    if text.startswith(b"<?xml"):
        return "is an XML message, not weights: the download failed"
    # A pickle without a protocol is text as well, and none of ours.
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in beginning):
        first = beginning.decode("ascii").strip().splitlines()
        return f'is text, not weights; it begins "{first[0][:60] if first else ""}"'
    return None


def foreign_globals(path: Path) -> list[str]:
    """The names that a pickled file would import, beyond those of plain containers and tensors."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it is for archives alone; or whatever a damaged file may cause
        return _globals_of_pickles(path.read_bytes())


def _globals_of_pickles(data: bytes) -> list[str]:
    """The same of pickles in a row, as PyTorch wrote them before 1.6 and other programs write them."""
    found: dict[str, None] = {}
    file = io.BytesIO(data)
    try:
        while file.tell() < len(data):
            strings: list[str] = []
            for code, argument, _ in pickletools.genops(file):
                if code.name == "GLOBAL":
                    found[str(argument).replace(" ", ".")] = None
                elif code.name == "STACK_GLOBAL":
                    found[".".join(strings[-2:])] = None
                elif isinstance(argument, str):
                    strings.append(argument)
    except Exception:  # where the tensors begin, or the damage
        pass
    return sorted(name for name in found if not _PLAIN.fullmatch(name))


def load_net(path: Path, trusted_packages: tuple[str, ...] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint, in eval mode on the CPU, and the record of the run that trained it.

    The average of the weights is taken where the run kept one. Of a file that others published, the net and
    its size are found from its weights, and the record is empty.

    Raises:
        CheckpointError: the file cannot be read, is of an unknown network, or its weights do not fit it.
        MachineError: a library that has its architecture is not installed.
    """
    checkpoint = read_checkpoint(path)
    if RECORD_KEY not in checkpoint:
        return _published(checkpoint, path), {}
    record = checkpoint[RECORD_KEY]
    try:
        node = record["config"]["model"]["net"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {quoted(path)} does not say of which network it is") from error
    if not isinstance(record["config"].get("data", {}), Mapping):
        raise CheckpointError(f"checkpoint {quoted(path)} does not say on which data its network was trained")
    if "${" in json.dumps(node, default=str):
        raise CheckpointError(
            f"checkpoint {quoted(path)} is refused: its configuration refers to what is outside of it"
        )
    net = build(node, trusted_packages, key=f"model.net (of checkpoint {quoted(path)})")
    if not isinstance(net, nn.Module):
        raise CheckpointError(f"checkpoint {quoted(path)} names a {type(net).__name__} as its network")
    load_weights(net, checkpoint, path)
    return net.eval(), record


def _published(checkpoint: Mapping[str, Any], path: Path) -> nn.Module:
    try:
        return net_of(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(
            f"checkpoint {quoted(path)} holds no network that can be built: {error}"
        ) from error


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
    weights = net_weights(checkpoint)
    own = net.state_dict()
    missing, _, _ = misfits(own, weights)
    started = {key: own[key] for key in own if key in weights} if in_part and len(missing) < len(own) else own
    told = describe_misfits(started, weights)
    if told:
        raise CheckpointError(
            f"checkpoint {quoted(path)} does not fit {type(net).__name__}: of {len(own)} tensors, {told}; "
            f"the file {looks_like(weights)}"
        )
    net.load_state_dict(weights, strict=False)
    return missing


def net_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the net in a checkpoint, the average of them where the run kept one.

    Args:
        checkpoint: what `read_checkpoint` returned, of a run of ours or what others published.
    """
    state = checkpoint.get("state_dict")
    state = state if isinstance(state, Mapping) else {}
    of_ours = [p for p in ("ema.module.", "net.") if any(key.startswith(p) for key in state)]
    if not of_ours:
        return weights_of(checkpoint)
    prefix = of_ours[0]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
