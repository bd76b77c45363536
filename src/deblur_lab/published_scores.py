"""Numbers that were printed elsewhere, as data: one schema for the tables of the papers and of their sources.

The files lie in ``experiments``: a paper's tables in a folder of its own, ``m2aenet`` and ``aibnet``, beside
the experiments that do the same here, and in ``published`` what the sources themselves print, by dataset. A
number is kept with the digits that it is printed with, and with what it means: each row says on which dataset
and by which protocol it was scored, whether the test-time local converter (TLC) was on, on what was trained,
whose number it is, and where it stands.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deblur_lab.config import configuration_root
from deblur_lab.errors import DataError

DATASETS = ("GoPro", "HIDE", "RealBlur-J", "RealBlur-R", "ReLoBlur")

PROTOCOLS = ("gopro", "hide", "realblur", "local")
"""Those of ours. Where it is not known that one of them was used, words say what is."""

NOT_TOLD = "not told"

TLC = ("on", "off", NOT_TOLD)

REPORTED: Mapping[str, str] = {
    "own": "printed by those who made the network, of their own training",
    "retrained": "another's network, trained anew by those who print it",
    "rescored": "another's released weights, scored anew by those who print it",
    "quoted": "another's number, printed again",
}
"""Whose number it is."""

NUMBERS: Mapping[str, str] = {
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "weighted_psnr_db": "weighted PSNR (dB)",
    "weighted_ssim": "weighted SSIM",
    "delta_psnr_db": "difference of PSNR (dB)",
    "parameters_m": "parameters (M)",
    "trained_parameters_m": "trained parameters (M)",
    "delta_parameters_m": "difference of parameters (M)",
    "multiply_adds_t": "multiply-adds (T)",
    "multiply_adds_g": "multiply-adds (G)",
    "gpu_memory_gb": "GPU memory (GB)",
    "seconds": "time (s)",
}
"""The columns that hold numbers, in a table's order, and what they are called."""

_WORDS = ("label", "settings", "dataset", "protocol", "tlc", "trained_on", "reported", "source", "note")
_OPTIONAL = ("size_px",)
_NEEDED = ("label", "dataset", "protocol", "tlc", "trained_on", "reported", "source")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_RANGES: Mapping[str, tuple[float, float]] = {
    "psnr_db": (5, 60),
    "weighted_psnr_db": (5, 60),
    "ssim": (0, 1),
    "weighted_ssim": (0, 1),
}


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table that somebody printed.

    Attributes:
        label: of the row.
        settings: that do the same here; empty if none do.
        dataset: that it was scored on, its test split; one of `DATASETS`.
        protocol: one of `PROTOCOLS`, or in words what is known.
        tlc: whether the test-time local converter was on; one of `TLC`.
        trained_on: the training set, or that it is not told.
        reported: whose number it is; one of `REPORTED`.
        numbers: as they are printed, by the names of `NUMBERS`; those that the row has.
        source: where it was read.
        note: what must be known beside it; may be empty.
        size_px: the size that costs are of, where a table has costs; else empty.
    """

    label: str
    settings: str
    dataset: str
    protocol: str
    tlc: str
    trained_on: str
    reported: str
    numbers: Mapping[str, str]
    source: str
    note: str
    size_px: str = ""

    def value(self, name: str) -> float | None:
        """A number of the row; None if it has none.

        Args:
            name: one of `NUMBERS`.
        """
        printed = self.numbers.get(name)
        return None if printed is None else float(printed)


def read_rows(path: Path) -> list[PublishedRow]:
    """The rows of one file.

    Raises:
        DataError: the file cannot be read or does not follow the schema; names the file, the line and the
            column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            # A field may hold several lines: the reader knows on which one a row ends.
            rows = [_row(f"{path}, line {reader.line_num}", cells) for cells in reader]
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}: mend or remove it") from error
    if not rows:
        raise DataError(f"{path} holds no rows: mend or remove it")
    return rows


def published(experiment: str) -> list[PublishedRow]:
    """What the paper printed where it did what an experiment does; nothing if nothing is known of that.

    Args:
        experiment: its name, as ``m2aenet/table3``: the numbers stand in ``experiments/m2aenet/table3.csv``.

    Raises:
        DataError: the file is damaged.
    """
    path = configuration_root() / "experiments" / f"{experiment}.csv"
    if not re.fullmatch(r"[\w/-]+", experiment) or not path.is_file():
        return []
    return read_rows(path)


def published_files() -> Sequence[Path]:
    """All files of published numbers, in order of their names, numbers by their value.

    What was measured here lies deeper, in folders called ``measured``.
    """
    return sorted((configuration_root() / "experiments").glob("*/*.csv"), key=_by_numbers)


def _by_numbers(path: Path) -> tuple[str, list[str | int]]:
    """Sorts ``table2`` before ``table10``."""
    parts = re.split(r"(\d+)", path.stem)
    return path.parent.name, [int(part) if part.isdigit() else part for part in parts]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise a DataError if a file lacks a column, has one twice or has one that is not known."""
    missing = [name for name in _WORDS if name not in columns]
    unknown = [name for name in columns if name not in (*_WORDS, *_OPTIONAL, *NUMBERS)]
    twice = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    for names, what in ((missing, "lacks"), (unknown, "has the unknown"), (twice, "has twice the")):
        if names:
            raise DataError(f"{path}, line 1: {what} column {', '.join(names)}: mend or remove it")


def _row(place: str, cells: Mapping[str | None, str | list[str] | None]) -> PublishedRow:
    """One row, checked.

    Raises:
        DataError: it does not follow the schema.
    """
    text = {str(name): cell for name, cell in cells.items() if isinstance(cell, str)}
    if len(text) != len(cells):
        raise DataError(f"{place}: a row has as many cells as there are columns: mend it")
    for name in _NEEDED:
        if not text[name].strip():
            raise DataError(f"{place}: {name} is empty; write '{NOT_TOLD}' of what is not known")
    for name, allowed in (("dataset", DATASETS), ("tlc", TLC), ("reported", tuple(REPORTED))):
        if text[name] not in allowed:
            raise DataError(f"{place}: {name} is one of {', '.join(allowed)}, not '{text[name]}'")
    if text["protocol"] not in PROTOCOLS and " " not in text["protocol"]:
        raise DataError(
            f"{place}: protocol is one of {', '.join(PROTOCOLS)}, or several words, not '{text['protocol']}'"
        )
    numbers = {name: text[name] for name in NUMBERS if text.get(name)}
    for name, printed in numbers.items():
        low, high = _RANGES.get(name, (float("-inf"), float("inf")))
        if not _NUMBER.fullmatch(printed) or not low <= float(printed) <= high:
            between = "" if name not in _RANGES else f" from {low:g} to {high:g}"
            raise DataError(f"{place}: {name} is a number{between}, not '{printed}'")
    if not numbers and not text["note"]:
        raise DataError(f"{place}: a row without numbers says why in its note")
    return PublishedRow(
        **{name: text[name] for name in _WORDS}, numbers=numbers, size_px=text.get("size_px", "")
    )
