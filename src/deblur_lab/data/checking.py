"""What keeps the files of datasets from being used: all of it, before anything is trained or scored."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deblur_lab.data.layouts import Pair
from deblur_lab.errors import DataError
from deblur_lab.images import ImageError, check_picture, quoted

_SHOWN = 20
LIST_NAME = "picture-problems.txt"


def find_problems(
    pairs: Sequence[Pair], num_workers: int = 4, *, full: bool = False, smallest_px: int = 1
) -> list[str]:
    """Everything that keeps pairs from being used, each in one line.

    Looked for are files that are missing, empty, cut off or otherwise unreadable (`images.check_picture` says
    what is seen in which format), pictures and masks whose size is not that of their partner, and
    pictures that are too small.

    Args:
        pairs: The pairs.
        num_workers: How many threads read files.
        full: Decode every file, which finds damage anywhere in it.
        smallest_px: The smallest width and height allowed.
    """
    with ThreadPoolExecutor(max_workers=max(num_workers, 1)) as pool:
        found = pool.map(lambda pair: problems_of(pair, full, smallest_px), pairs)
        return [problem for problems in found for problem in problems]


def refuse(problems: Sequence[str], closing: str = "", *, advice: str = "mend or remove these files") -> None:
    """Raise what `find_problems` and `Listing.faults` hold, if anything.

    Args:
        problems: What they hold.
        closing: A last line, on what follows from it.
        advice: What to do; empty where the problems say it.

    Raises:
        DataError: Of several lines: how many problems there are, and the first of them; all stand in a file
            then, in the folder that the command was started in.
    """
    if not problems:
        return
    lines = [
        f"{len(problems)} problem(s) with the pictures{advice and f'; {advice}'}:",
        *problems[:_SHOWN],
    ]
    if len(problems) > _SHOWN:
        written = _written_list(problems)
        where = f"; all of them are in {quoted(written)}" if written else ""
        lines.append(f"and {len(problems) - _SHOWN} more{where}")
    raise DataError("\n  ".join([*lines, *([closing] if closing else [])]))


def _written_list(problems: Sequence[str]) -> Path | None:
    """The file that holds a list of problems, one a line; None where none can be written."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        path = folder / LIST_NAME
        # Each of a run's processes writes the same.
        unfinished = folder / f".{path.name}.{os.getpid()}.tmp"
        try:
            with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{problem}\n" for problem in problems)
            os.replace(unfinished, path)
        except OSError:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        else:
            return path
    return None


def problems_of(pair: Pair, full: bool = False, smallest_px: int = 1) -> list[str]:
    """What keeps a pair from being used; see `find_problems`."""
    problems: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for path in (pair.blurry, pair.sharp, pair.mask):
        if path is None:
            continue
        try:
            sizes[path] = check_picture(path, full=full, as_mask=path == pair.mask)
        except ImageError as error:
            known = path == pair.mask and path.is_file() and path.stat().st_size == 0
            hint = "; ReLoBlur's first release of masks is known for this (train/s09): take the later one"
            problems.append(f"{error}{hint if known else ''}")
    for path in (pair.sharp, pair.mask):
        if path is not None and path in sizes and pair.blurry in sizes and sizes[path] != sizes[pair.blurry]:
            problems.append(f"{_with_size(pair.blurry, sizes)} but {_with_size(path, sizes)}: sizes differ")
    if pair.blurry in sizes and min(sizes[pair.blurry]) < smallest_px:
        problems.append(
            f"{_with_size(pair.blurry, sizes)}, smaller than data.patch_size={smallest_px}: "
            f"data.patch_size={min(sizes[pair.blurry])} at most would fit"
        )
    return problems


def _with_size(path: Path, sizes: dict[Path, tuple[int, int]]) -> str:
    width, height = sizes[path]
    return f"{quoted(path)} is {width} x {height}"


class Stamps:
    """The sizes and times of files, by which it is seen that one was changed while a run goes on."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    def take(self, pairs: Iterable[Pair], num_threads: int) -> None:
        """Keep in mind how the files of pairs are now."""
        files = [path for pair in pairs for path in (pair.blurry, pair.sharp, pair.mask) if path is not None]
        with ThreadPoolExecutor(max_workers=max(num_threads, 1)) as pool:
            for path, stamp in zip(files, pool.map(stamp_of, files), strict=True):
                if stamp is not None:
                    self._known[path] = stamp

    def require_unchanged(self, path: Path) -> None:
        """See that a file is as it was; nothing is known of one that was not stamped.

        Raises:
            DataError: It is not; names it. What became of one that is gone, reading it will tell.
        """
        known = self._known.get(path)
        if known is not None and stamp_of(path) not in (known, None):
            raise DataError(
                f"{quoted(path)} was changed while the run went on, so that it would train or score on two "
                "versions of it: put the old one back and go on, or start anew"
            )


def stamp_of(path: Path) -> tuple[int, int] | None:
    """The size in bytes and the time of the last change, in nanoseconds; None if there is no such file."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns
