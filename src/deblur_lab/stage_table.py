"""What each stage of a training took and reached, as one table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from deblur_lab.writing import duration, replacing, write_json

if TYPE_CHECKING:
    from torch import nn

Row = Mapping[str, Any]
_TOOK = ("stage", "steps", "parameters", "trained_parameters", "peak_memory_bytes", "seconds")
BRIEF = ("stage", "steps", "trained (M)", "GiB", "time", "test")


def row_of(
    stage: str | None,
    steps: int,
    net: "nn.Module",
    peak_memory_bytes: int | None,
    seconds: float,
    results: Mapping[str, float],
) -> dict[str, Any]:
    """What a training took and reached.

    Args:
        stage: its name; None for a training that is none of several.
        steps: optimizer steps.
        net: as it was trained, what is frozen without gradients.
        peak_memory_bytes: of its training steps; None where that cannot be told.
        seconds: of training, validations included.
        results: the test's scores or measures, by name.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in net.parameters()]
    return {
        "stage": stage,
        "steps": steps,
        "parameters": sum(size for size, _ in sizes),
        "trained_parameters": sum(size for size, is_trained in sizes if is_trained),
        "peak_memory_bytes": peak_memory_bytes,
        "seconds": round(seconds, 3),
        "results": dict(results),
    }


def means_of(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The means of a test, by name; with several datasets, the first one's have the plain names.

    Args:
        results: as `deblur_lab.callbacks.Scores` gathers them.
    """
    return {
        f"{'' if number == 0 else result['dataset'] + '_'}{name}": value
        for number, result in enumerate(results)
        for name, value in result["scores"].items()
    }


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The names of the columns: what each training took, then whatever some of them reached."""
    return list(dict.fromkeys([*_TOOK, *(name for row in rows for name in row["results"])]))


def values_of(row: Row, columns: Sequence[str]) -> list[Any]:
    """A row's value in each column; None where it has none."""
    return [row.get(name) if name in _TOOK else row["results"].get(name) for name in columns]


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write ``stages.csv`` and ``stages.json``.

    Raises:
        MachineError: they cannot be written.
    """
    columns = columns_of(rows)
    with replacing(folder / "stages.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if value is None else value for value in values_of(row, columns)])
    write_json(folder / "stages.json", {"stages": list(rows)})


def print_rows(rows: Sequence[Row], title: str) -> None:
    """Print the table, the first results of each stage in one column: stages differ in what they reach.

    Memory is that of the training steps, time that of the training.
    """
    table = Table(title=title)
    for heading in BRIEF:
        right = heading not in ("stage", "test")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "test")
    for row in brief_cells(rows):
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True).print(table)


def brief_cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table as text, under the headings of `BRIEF`."""
    cells = []
    for row in rows:
        sizes = f"{row['trained_parameters'] / 1e6:.3f} of {row['parameters'] / 1e6:.3f}"
        peak = row.get("peak_memory_bytes")
        memory = "-" if peak is None else f"{peak / 2**30:.3f}"
        took = [str(row["steps"]), sizes, memory, duration(row["seconds"])]
        cells.append([str(row["stage"]), *took, _results(row["results"])])
    return cells


def _results(results: Mapping[str, float]) -> str:
    """The first few, a line each."""
    few = list(results.items())[: 2 if "psnr_db" in results else 3]
    return "\n".join(
        f"{name.removesuffix('_db').replace('_', ' ')} {value:.{4 if name == 'ssim' else 2}f}"
        for name, value in few
    )
