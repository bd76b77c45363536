"""A report on dashboards: its tables in numbers, its pictures, its page.

The tables are those of ``report.md``, but long ones rather than many, and with each number in a column of its
own, so that they can be sorted, filtered and drawn there: a mean, its deviation over seeds, its place.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deblur_lab.comparison import Comparison
from deblur_lab.dashboard_values import cost_values
from deblur_lab.finished_runs import Run, dataset_of
from deblur_lab.leaderboard import Entry, Leaderboard
from deblur_lab.logs import Dashboard
from deblur_lab.model_differences import BLURRY
from deblur_lab.published_scores import PublishedRow
from deblur_lab.report_measures import Spread, measure_of
from deblur_lab.report_page.gallery import Shot, shots_of
from deblur_lab.report_page.subjects import Subject
from deblur_lab.run_groups import kept_id
from deblur_lab.scored_results import model_of, scored_by, training_sets

LARGEST_BYTES = 200_000_000
"""Of all pictures together: what goes beyond is left out, and said."""

_OVERLAYS = ("mask", "trajectories")


@dataclass(frozen=True)
class DashboardTable:
    """A table for a dashboard.

    Attributes:
        name: of it.
        columns: their names.
        rows: as long as the columns: numbers, words, None, and the paths of pictures.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


_Row = Mapping[str, Any]


def show(
    dashboards: Iterable[Dashboard],
    tables: Sequence[DashboardTable],
    files: Sequence[Path],
    runs: Sequence[Run],
) -> None:
    """Show a report on dashboards that have begun.

    Args:
        dashboards: nothing is done without any.
        tables: as `tables_of` and `picture_tables` make them.
        files: what the report wrote.
        runs: that it is of.
    """
    for dashboard in dashboards:
        for table in tables:
            dashboard.log_table(f"report/{table.name}", table.columns, table.rows, 0)
        dashboard.log_files("report/page", files)
        dashboard.log_values({"report/run_count": len(runs)})


def tables_of(
    runs: Sequence[Run], boards: Sequence[Leaderboard], comparisons: Sequence[Comparison]
) -> list[DashboardTable]:
    """``models``, ``settings``, ``differences`` and ``runs``, as far as there is something in them.

    Raises:
        DataError: the scores of a run's images cannot be read.
    """
    across: list[Leaderboard | Comparison] = [*boards, *comparisons]
    return [
        *_table("models", [row for board in boards for row in _board(board)]),
        *_table("settings", [row for comparison in comparisons for row in _comparison(comparison)]),
        *_table("differences", [row for table in across for row in _differences(table)]),
        *_table("runs", [row for run in runs for row in _run(run)]),
    ]


def picture_tables(subjects: Sequence[Subject], count: int) -> tuple[list[DashboardTable], list[str]]:
    """The pictures that the page shows, as large as they are kept: a row an image, a column a model.

    Args:
        subjects: the parts of the page.
        count: of the images of each that are chosen without regard to how well they were restored; 0: no
            pictures at all.

    Returns:
        A table for each subject that has pictures, and what is to be said of those left out, by the line.

    Raises:
        DataError: an exhibit is damaged.
    """
    tables: list[DashboardTable] = []
    left_out, left_bytes = 0, LARGEST_BYTES
    taken: set[Path] = set()
    for subject in subjects if count else ():
        folders = {run.folder for model in subject.models for run, _ in model.members}
        if folders <= taken:
            continue  # as on the page, what one part shows is not shown twice
        taken |= folders
        rows: list[_Row] = []
        for shot in shots_of(subject, count):
            row = _picture_row(shot, several=len(subject.models) > 1)
            size = sum(value.stat().st_size for value in row.values() if isinstance(value, Path))
            if size > left_bytes:
                left_out += 1
                continue
            left_bytes -= size
            rows.append(row)
        tables += _table(f"pictures/{subject.anchor}", rows)
    if not left_out:
        return tables, []
    count_told = "1 image is" if left_out == 1 else f"{left_out} images are"
    limit = f"{LARGEST_BYTES / 1e6:.0f} MB"
    return tables, [f"{count_told} left out of the dashboard's pictures, which would be over {limit}"]


def _table(name: str, rows: Sequence[_Row]) -> list[DashboardTable]:
    """One table, with all columns that have a value in some row; none of no rows."""
    found = dict.fromkeys(column for row in rows for column in row)
    columns = [column for column in found if any(row.get(column) is not None for row in rows)]
    cells = [[row.get(column) for column in columns] for row in rows]
    return [DashboardTable(name, columns, cells)] if rows else []


def _picture_row(shot: Shot, *, several: bool) -> dict[str, Any]:
    """An image: the input, the truth, and of each model its first run's, with the scores of each."""
    own = shot.exhibit
    row: dict[str, Any] = {"image": shot.name, "dataset": own.dataset}
    row |= {kind: own.files[kind] for kind in ("blurry", "sharp", "true_mask") if kind in own.files}
    row |= {f"blurry {name}": value for name, value in own.blurry_scores.items()}
    for model, _, exhibit in shot.restored:
        label = model.label if several else "restored"
        if label in row:
            continue
        row[label] = exhibit.files["restored"]
        prefix = f"{label} " if several else ""
        row |= {f"{prefix}{kind}": exhibit.files[kind] for kind in _OVERLAYS if kind in exhibit.files}
        row |= {f"{prefix}{name}": value for name, value in exhibit.restored_scores.items()}
    return row


def _board(board: Leaderboard) -> list[_Row]:
    """A row for the blurry input, and one for each entry, what was printed among them."""
    rows: list[_Row] = []
    if any(board.blurry.values()):
        about = _about(board.title, "model", BLURRY, "input", board.protocol)
        rows.append({**about, **_cells(board.blurry)})
    for entry in (*board.entries, *board.published):
        source = "ours" if entry.published is None else "published"
        about = _about(board.title, "model", entry.model, source, entry.protocol, entry.trained_on)
        about |= {"what differs": entry.details or None, "seeds": len(entry.seeds) or None}
        places = {f"{name} place": board.place(entry, name) for name in board.columns}
        rows.append({**about, **_cells(entry.cells), **places, **_costs(entry), **_whose(entry.published)})
    return rows


def _comparison(comparison: Comparison) -> list[_Row]:
    """A row for the blurry input, one for each way of setting the model, and what was printed."""
    rows: list[_Row] = []
    if any(comparison.blurry.values()):
        about = _about(comparison.title, "row", BLURRY, "input", comparison.protocol)
        rows.append({**about, **_cells(comparison.blurry)})
    for row in comparison.rows:
        label = comparison.label(row)
        about = _about(comparison.title, "row", label, "ours", row.protocol, row.trained_on)
        places = {f"{name} place": comparison.place(row, name) for name in comparison.columns}
        rows.append({**about, "seeds": len(row.seeds) or None, **_cells(row.cells), **places})
    for printed in comparison.published:
        about = _about(
            comparison.title, "row", printed.label, "published", printed.protocol, printed.trained_on
        )
        numbers = {name: printed.value(name) for name in printed.numbers}
        rows.append({**about, **numbers, **_whose(printed)})
    return rows


def _about(
    table: str, what: str, label: str, source: str, protocol: str, trained_on: str | None = None
) -> dict[str, Any]:
    """What tells a row from others; `what` is the column of its label."""
    first = {"table": table, what: label, "what differs": None, "source": source}
    return {**first, "trained_on": trained_on, "protocol": protocol, "seeds": None}


def _whose(row: PublishedRow | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {"whose": row.reported, "printed in": row.source, "note": row.note or None}


def _cells(cells: Mapping[str, Spread | None]) -> dict[str, Any]:
    """Means and deviations."""
    found: dict[str, Any] = {}
    for name, cell in cells.items():
        found[name] = None if cell is None else cell.mean
        found[f"{name} std"] = None if cell is None else cell.deviation
    return found


def _costs(entry: Entry) -> dict[str, Any]:
    size_px = None if entry.size_px is None else "x".join(map(str, entry.size_px))
    return {"parameters": entry.parameters, "multiply_adds": entry.multiply_adds, "size_px": size_px}


def _differences(table: Leaderboard | Comparison) -> list[_Row]:
    """A row for each pair of models and score; of pairs that cannot be compared, one that says why."""
    rows: list[_Row] = []
    for pair in table.differences:
        about = {"table": table.title, "first": pair.first, "less second": pair.second}
        if not pair.scores:
            rows.append({**about, "why not": pair.why_not})
        for name, found in pair.scores.items():
            numbers = {
                "score": measure_of(name).title,
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "excludes 0": found.excludes_zero,
                "share better": found.share_better,
                "images": found.count,
                "sequences": found.groups,
                "seeds of first": found.seeds[0],
                "seeds of second": None if pair.second == BLURRY else found.seeds[1],
            }
            rows.append({**about, **numbers})
    return rows


def _run(run: Run) -> list[_Row]:
    """A row for each dataset that a run was scored on."""
    rows: list[_Row] = []
    costs = cost_values(run.scores)
    for result in run.scores["results"]:
        about = {
            "run": run.name,
            "wandb_id": kept_id(run.folder),
            "model": model_of(run),
            "work": "evaluate" if run.evaluated else "train",
            "seed": run.scores.get("seed"),
            "experiment": ", ".join(run.experiments) or None,
            "trained_on": training_sets(run),
            "dataset": dataset_of(result),
            "images": result["images"],
            "protocol": scored_by(result),
        }
        scores: dict[str, Any] = {}
        for name, value in result["scores"].items():
            blurry = result["blurry_scores"].get(name)
            scores[name] = value
            scores[f"blurry {name}"] = blurry
            scores[f"gain {name}"] = None if None in (value, blurry) else value - blurry
        rows.append({**about, **scores, **costs, "commit": run.scores.get("commit")})
    return rows
