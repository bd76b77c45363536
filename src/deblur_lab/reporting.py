"""Runs, gathered: Markdown tables and one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from deblur_lab.command_line import folder_for
from deblur_lab.comparison import Comparison
from deblur_lab.config import plain
from deblur_lab.console import print_cells, say
from deblur_lab.errors import DataError
from deblur_lab.finished_runs import Run, dataset_of, find_runs
from deblur_lab.leaderboard import Leaderboard, tables_across
from deblur_lab.logs import built_dashboards, dashboards, recorded
from deblur_lab.model_differences import WHAT_IT_MEANS, ModelDifference
from deblur_lab.model_tables import (
    comparison_table,
    difference_table,
    leaderboard_table,
    narrowed,
    overview_table,
)
from deblur_lab.overview import Overview, overviews
from deblur_lab.report_dashboard import DashboardTable, picture_tables, show, tables_of
from deblur_lab.report_page import page
from deblur_lab.report_page.subjects import subjects_of
from deblur_lab.report_tables import (
    Table,
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
# Of more tables, the others are not printed.
_SHOWN = 4


def report(config: DictConfig) -> None:
    """Write ``report.html`` and ``report.md``.

    Args:
        config: ``conf/report.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: a logger cannot show a report.
        DataError: there is no run to report, or what one left is damaged.
        MachineError: a file cannot be written, or W&B not reached where it must be.
    """
    settings = plain(config)
    root = Path(settings["runs"])
    runs = find_runs(root)
    for run in runs:
        _require_whole(run)
    boards, comparisons = tables_across(runs)
    over = overviews(runs, boards)
    folder = folder_for(settings["output"] or str(root), "")
    config.output = str(folder)  # where loggers write, too
    loggers = built_dashboards(plain(config)["logger"], (), "a report")
    told = dashboards(loggers)
    texts = {
        "report.md": markdown(runs, comparisons, boards, over),
        "report.html": page(runs, comparisons, settings["pictures"], boards, over),
    }
    tables, left_out = _for_dashboards(runs, boards, comparisons, settings["pictures"]) if told else ([], [])
    about = _about(settings, runs) if told else {}
    with recorded(loggers, about, work="report", of_runs=[run.folder for run in runs]):
        for name, text in texts.items():
            with replacing(folder / name) as file:
                file.write(text)
        show(told, tables, [folder / name for name in texts], runs)
    for line in left_out:
        say(line)
    _print_tables(boards, comparisons)
    say(f"{len(runs)} run(s) in {folder / 'report.html'} and {folder / 'report.md'}")
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    say(f"from {root}: {', '.join(run.name for run in runs[:_NAMED])}{more}")


def _about(settings: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """What a dashboard is told of a report."""
    # It loads PyTorch, which nothing else here needs.
    from deblur_lab.provenance import provenance

    return {**settings, "names": [run.name for run in runs], "provenance": provenance("cpu")}


def _for_dashboards(
    runs: Sequence[Run], boards: Sequence[Leaderboard], comparisons: Sequence[Comparison], pictures: int
) -> tuple[list[DashboardTable], list[str]]:
    """The report's tables for dashboards, and what is to be said of them."""
    shown, left_out = picture_tables(subjects_of(runs, boards, comparisons), pictures)
    return [*tables_of(runs, boards, comparisons), *shown], left_out


def _print_tables(boards: Sequence[Leaderboard], comparisons: Sequence[Comparison]) -> None:
    """The main tables, as far as a screen has room; of many the first ones."""
    tables = [leaderboard_table(board, ranked=True) for board in boards]
    tables = tables or [comparison_table(comparison) for comparison in comparisons]
    for table in map(narrowed, tables[:_SHOWN]):
        styles = dict.fromkeys(table.bold, "bold") | dict.fromkeys(table.underlined, "underline")
        print_cells(table.title, table.heading, table.rows, table.words, styles)
    if len(tables) > _SHOWN:
        say(f"{len(tables) - _SHOWN} more table(s) are in report.md")


def _require_whole(run: Run) -> None:
    """Say whose scores lack what a report needs, before anything is written."""
    try:
        markdown([run], [])
        for result in run.scores["results"]:
            threshold_points(result)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        path = run.folder / "scores.json"
        raise DataError(f"{path} was not written by deblur_lab: its results lack {error}") from error


def markdown(
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    boards: Sequence[Leaderboard] = (),
    over: Sequence[Overview] = (),
) -> str:
    """The tables as Markdown, those across runs first: models side by side, then settings of one.

    Args:
        runs: each is told of with each dataset that it was scored on.
        comparisons: tables of ways of setting one model.
        boards: tables of models, a dataset each.
        over: tables of models over several datasets.

    Raises:
        DataError: the scores of a run's images cannot be read.
    """
    lines = ["# Models", ""] if boards else []
    for overview in over:
        table = overview_table(overview)
        lines += [f"## {table.title}", "", *table_lines(table), ""]
        lines += [line for note in overview.notes for line in (note, "")]
    for board in boards:
        table = leaderboard_table(board)
        lines += [f"## {table.title}", "", *table_lines(table), ""]
        lines += [line for note in board.notes for line in (note, "")]
        lines += _difference_lines(board.differences)
    lines += ["# Across runs", ""] if comparisons else []
    for comparison in comparisons:
        table, printed = comparison_table(comparison), published_table(comparison)
        lines += [f"## {table.title}", "", *table_lines(table), "", comparison.origin, ""]
        lines += _difference_lines(comparison.differences)
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


def _difference_lines(differences: Sequence[ModelDifference]) -> list[str]:
    """How models differ, and what the intervals mean; or why that is not known."""
    table = difference_table(differences)
    if table is not None:
        return [f"**{table.title}**", "", *table_lines(table), "", WHAT_IT_MEANS, ""]
    reasons = list(dict.fromkeys(pair.why_not for pair in differences))
    return [f"No differences by image: {'; '.join(reasons)}.", ""] if reasons else []


def table_lines(table: Table) -> list[str]:
    """A table as Markdown, without its title."""
    rules = ["---" if table.is_word(column) else "---:" for column in range(len(table.heading))]
    rows = [
        [_marked(table, at, column, cell) for column, cell in enumerate(row)]
        for at, row in enumerate(table.rows)
    ]
    return [_line(row) for row in (table.full_heading, rules, *rows)]


def _marked(table: Table, at: int, column: int, cell: str) -> str:
    if (at, column) in table.bold:
        return f"**{cell}**"
    return f"<u>{cell}</u>" if (at, column) in table.underlined else cell


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
