"""Runs, gathered: Markdown tables and one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from deblur_lab.command_line import folder_for
from deblur_lab.comparison import Comparison, compare
from deblur_lab.config import plain
from deblur_lab.console import say
from deblur_lab.errors import DataError
from deblur_lab.finished_runs import Run, dataset_of, find_runs
from deblur_lab.report_page import page
from deblur_lab.report_tables import (
    Table,
    comparison_table,
    finding_tables,
    origin,
    protocol_lines,
    published_table,
    remarks,
    score_table,
    stage_table,
    threshold_points,
)
from deblur_lab.writing import replacing

_NAMED = 10


def report(config: DictConfig) -> None:
    """Write ``report.html`` and ``report.md``.

    Args:
        config: ``conf/report.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        DataError: there is no run to report, or what one left is damaged.
    """
    settings = plain(config)
    root = Path(settings["runs"])
    runs = find_runs(root)
    for run in runs:
        _require_whole(run)
    comparisons = compare(runs)
    folder = folder_for(settings["output"] or str(root), "")
    texts = {
        "report.md": markdown(runs, comparisons),
        "report.html": page(runs, comparisons, settings["pictures"]),
    }
    for name, text in texts.items():
        with replacing(folder / name) as file:
            file.write(text)
    say(f"{len(runs)} run(s) in {folder / 'report.html'} and {folder / 'report.md'}")
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    say(f"from {root}: {', '.join(run.name for run in runs[:_NAMED])}{more}")


def _require_whole(run: Run) -> None:
    """Say whose scores lack what a report needs, before anything is written."""
    try:
        markdown([run], [])
        for result in run.scores["results"]:
            threshold_points(result)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        path = run.folder / "scores.json"
        raise DataError(f"{path} was not written by deblur_lab: its results lack {error}") from error


def markdown(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> str:
    """The tables as Markdown, those across runs first."""
    lines = ["# Across runs", ""] if comparisons else []
    for comparison in comparisons:
        table, printed = comparison_table(comparison), published_table(comparison)
        lines += [f"## {table.title}", "", *table_lines(table), "", comparison.origin, ""]
        if printed is not None:
            lines += ["---", "", f"**{printed.title}**", "", *table_lines(printed), ""]
    lines += ["# Runs", ""]
    told: set[tuple[str, ...]] = set()
    for run in runs:
        for result in run.scores["results"]:
            lines += [
                f"## {run.name} on {dataset_of(result)}",
                "",
                *table_lines(score_table(run, result)),
                "",
            ]
            for table in finding_tables(result):
                lines += [*table_lines(table), ""]
            protocol = tuple(protocol_lines(result))
            # Its parts once: many results share them.
            for line in [*(protocol[:1] if protocol in told else protocol), *remarks(result)]:
                lines += [line, ""]
            told.add(protocol)
            lines += [f"{origin(run, result)}.", ""]
        stages = stage_table(run)
        if stages is not None:
            lines += [f"## {stages.title}", "", *table_lines(stages), ""]
    return "\n".join(lines)


def table_lines(table: Table) -> list[str]:
    """A table as Markdown, without its title."""
    rules = ["---" if table.is_word(column) else "---:" for column in range(len(table.heading))]
    rows = [
        [f"**{cell}**" if (at, column) in table.bold else cell for column, cell in enumerate(row)]
        for at, row in enumerate(table.rows)
    ]
    return [_line(row) for row in (table.heading, rules, *rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
