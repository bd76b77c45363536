"""Files that are written whole or not at all, and what is said where the machine refuses to."""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from deblur_lab.errors import MachineError
from deblur_lab.images import quoted

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What a machine refuses that no setting and no picture is to blame for.
_OF_THE_MACHINE = (*_FULL, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


def free_bytes(folder: Path) -> int:
    """What may still be written to a folder's file system, or to its parent's if there is no folder yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(path: Path, needed_bytes: int, purpose: str) -> None:
    """See that a file system has room, before anything is written.

    Args:
        path: the folder to write to.
        needed_bytes: how much.
        purpose: what for, in the plural.

    Raises:
        MachineError: it has less; says both numbers.
    """
    have = free_bytes(path)
    if have < needed_bytes:
        raise MachineError(
            f"{quoted(path)} has too little space: {purpose} need {amount(needed_bytes)} and {amount(have)} "
            "are free"
        )


def amount(count: float) -> str:
    """A number of bytes, rounded to what one can grasp.

    >>> amount(310_400_000)
    '310 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def unwritable(path: Path, error: OSError, needed_bytes: int | None = None) -> MachineError:
    """What is said of a file that the machine did not let us write.

    Args:
        path: the file.
        error: what the machine said.
        needed_bytes: how large it was to be, if that is known.
    """
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        need = "" if needed_bytes is None else f"it needs {amount(needed_bytes)} and "
        have = free_bytes(path.parent)
        quota = " (a quota may allow less)" if have > (needed_bytes or 0) else ""
        reason = f"{reason}: {need}{amount(have)} are free{quota}"
    return MachineError(f"{quoted(path)} cannot be written: {reason}")


@contextlib.contextmanager
def writing(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns the machine's refusal to write a file into one line.

    Raises:
        MachineError: as `unwritable`.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, needed_bytes) from error


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w", **how: Any) -> Iterator[IO[Any]]:  # noqa: ANN401 - as `open` takes
    """A file to write that takes its name when it is whole: at any moment the old one is there, or the new.

    Args:
        path: of the file.
        mode: ``w`` or ``wb``.
        how: as `open` takes it; text is UTF-8.

    Raises:
        MachineError: it cannot be written; the old one stays, and nothing else.
    """
    temporary = temporary_of(path)
    if "b" not in mode:
        how.setdefault("encoding", "utf-8")
    try:
        with writing(path):
            with temporary.open(mode, **how) as file:
                yield file
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null, which JSON can hold."""
    text = json.dumps(_finite(contents), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as file:
        file.write(text)


def temporary_of(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.tmp")


def refusal(error: OSError) -> str | None:
    """An error that nobody caught, in one line, if it is the machine's: a full or read-only disk, say."""
    if error.errno not in _OF_THE_MACHINE:
        return None
    where = f"{error.filename}: " if error.filename else ""
    full = error.errno in _FULL
    return f"{where}{error.strerror or error}{'; free some space, and go on with resume=' if full else ''}"


def flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut; file systems that cannot, do without."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
