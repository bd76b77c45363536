"""Runs on one HTML page, with its pictures, curves and tables inside; it needs no network.

The page can be read without its script, which adds what moves: the slider over two pictures, sorting, the
switch between light and dark.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from deblur_lab.comparison import Comparison
from deblur_lab.finished_runs import Run, dataset_of
from deblur_lab.leaderboard import Leaderboard
from deblur_lab.model_differences import WHAT_IT_MEANS
from deblur_lab.model_tables import comparison_table, difference_table, leaderboard_table, overview_table
from deblur_lab.overview import Overview
from deblur_lab.report_page.diagrams import (
    cost_against_quality,
    curves,
    distributions,
    interval_charts,
    thresholds,
)
from deblur_lab.report_page.embedded import Budget
from deblur_lab.report_page.gallery import Gallery
from deblur_lab.report_page.markup import escaped, notes, table_markup, unfolding
from deblur_lab.report_page.subjects import Subject, subjects_of
from deblur_lab.report_tables import (
    finding_tables,
    origin,
    protocol_lines,
    published_table,
    remarks,
    score_table,
    stage_table,
)

LARGEST_BYTES = 10_000_000
"""No page is larger, whatever the runs left."""

# What is not pictures: beyond this, configurations are left in the runs' folders.
_TEXT_BYTES = 3_000_000
_MARGIN_BYTES = 200_000
# Sheets are large and of little use to most: they come last, and coarse.
_SHEETS_BYTES = 1_000_000
_SHEET_PX = 800
_SHEET_QUALITY = 55


def page(
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    pictures: int,
    boards: Sequence[Leaderboard] = (),
    over: Sequence[Overview] = (),
) -> str:
    """The whole page.

    Args:
        runs: each is told of with each dataset that it was scored on.
        comparisons: tables of ways of setting one model.
        pictures: how many images of a run are shown, beside its worst ones.
        boards: tables of models side by side.
        over: tables of models over several datasets, which come first.

    Raises:
        DataError: a picture, or the scores of a run's images, cannot be read.
    """
    subjects = subjects_of(runs, boards, comparisons)
    texts = [_texts(subject) for subject in subjects]
    details = _configurations(runs)
    heads = _runs(runs)
    over_titles = {f"datasets-{at}": f"Models on {one.title}" for at, one in enumerate(over, 1)}
    body = [
        _section(anchor, title, {"": _overview(one)})
        for (anchor, title), one in zip(over_titles.items(), over, strict=True)
    ]
    parts = (part for text in texts for part in text.values())
    small = sum(map(_size, [*body, *parts, *heads, *details.values()]))
    budget = Budget(LARGEST_BYTES - _MARGIN_BYTES - small - _size(_asset("page.css") + _asset("page.js")))
    gallery = Gallery(subjects, pictures, budget)
    body += [_subject(subject, text, gallery) for subject, text in zip(subjects, texts, strict=True)]
    sheets = Budget(
        min(_SHEETS_BYTES, budget.left_bytes), widest_px=_SHEET_PX, quality=_SHEET_QUALITY, prefix="sheet"
    )
    firsts = {model.members[0][0].folder for subject in subjects for model in subject.models}
    body.append('<section id="each-run"><h2>Each run</h2>')
    for run, head in zip(runs, heads, strict=True):
        shown = _panels(run, pictures, budget)
        sheets.left_bytes = min(sheets.left_bytes, budget.left_bytes)
        if pictures:
            shown += _sheets(run, sheets, first=run.folder in firsts)
        body.append(f"<article>{head}{shown}{details[run.folder]}</article>")
    body.append("</section>")
    links = {**over_titles, **{one.anchor: one.title for one in subjects}, "each-run": "Each run"}
    listed = "".join(f'<li><a href="#{anchor}">{escaped(title)}</a></li>' for anchor, title in links.items())
    filled = {
        "@STYLE@": _asset("page.css"),
        "@SCRIPT@": _asset("page.js"),
        "@LINKS@": listed,
        "@ABOUT@": escaped(f"{len(runs)} run{'' if len(runs) == 1 else 's'}"),
        "@BODY@": "\n".join(body),
    }
    whole = _asset("page.html")
    for name, text in filled.items():
        whole = whole.replace(name, text, 1)
    return whole


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _size(text: str) -> int:
    return len(text.encode("utf-8"))


def _texts(subject: Subject) -> dict[str, str]:
    """The parts of a section that hold no pictures, by their headings; empty ones are left out."""
    table = subject.table
    parts = {"": "", "Cost and quality": "", "Differences": ""}
    if isinstance(table, Leaderboard):
        parts[""] = _board(table)
        parts["Cost and quality"] = cost_against_quality(table)
    elif table is not None:
        parts[""] = _comparison(table)
    if table is not None:
        parts["Differences"] = _differences(table)
    parts["Scores of single images"] = distributions(subject)
    parts["Training"] = curves(subject)
    parts["Thresholds of the mask"] = thresholds(subject)
    return parts


def _overview(overview: Overview) -> str:
    return f"{table_markup(overview_table(overview), sorts=True)}{notes(overview.notes)}"


def _board(board: Leaderboard) -> str:
    return f"{table_markup(leaderboard_table(board), sorts=True)}{notes(board.notes)}"


def _comparison(comparison: Comparison) -> str:
    printed = published_table(comparison)
    below = ""
    if printed is not None:
        below = (
            f"<div class=published><p>{escaped(printed.title)}</p>{table_markup(printed, sorts=True)}</div>"
        )
    return f"{table_markup(comparison_table(comparison), sorts=True)}{notes([comparison.origin])}{below}"


def _differences(table: Leaderboard | Comparison) -> str:
    """How models differ, and what the intervals mean; or why that is not known."""
    found = difference_table(table.differences)
    if found is None:
        reasons = dict.fromkeys(pair.why_not for pair in table.differences)
        return notes([f"No differences by image: {'; '.join(reasons)}."]) if reasons else ""
    chart = interval_charts(table.differences)
    meant = unfolding("what an interval means", notes([WHAT_IT_MEANS]), kind="note")
    return f"{chart}{table_markup(found, sorts=True)}{meant}"


def _subject(subject: Subject, texts: Mapping[str, str], gallery: Gallery) -> str:
    """A part of the page: table, pictures, diagrams; what a reader asks for first comes first."""
    order = {
        "": texts[""],
        "Cost and quality": texts["Cost and quality"],
        "Differences": texts["Differences"],
        "Pictures": gallery.pictures(subject),
        "Worst cases": gallery.worst(subject),
        **{name: texts[name] for name in ("Scores of single images", "Training", "Thresholds of the mask")},
    }
    return _section(subject.anchor, subject.title, order)


def _section(anchor: str, title: str, parts: Mapping[str, str]) -> str:
    """A part of the page, of parts by their headings; empty ones are left out."""
    inside = "".join(
        f"{f'<h3>{escaped(heading)}</h3>' if heading else ''}{text}"
        for heading, text in parts.items()
        if text
    )
    return f'<section id="{anchor}"><h2>{escaped(title)}</h2>{inside}</section>'


def _runs(runs: Sequence[Run]) -> list[str]:
    """The tables of each run, as far as there is room."""
    left, found = _TEXT_BYTES, []
    for run in runs:
        text = _run(run, alone=len(runs) == 1)
        left -= _size(text)
        if left < 0:
            told = f"The page would be too large with its scores, which are in {run.folder / 'scores.json'}."
            text = f"<h3>{escaped(run.name)}</h3>{notes([told])}"
        found.append(text)
    return found


def _run(run: Run, *, alone: bool) -> str:
    """The tables of one run, without pictures."""
    inside = ""
    stages = stage_table(run)
    if stages is not None:
        inside += f"<h4>{escaped(stages.title)}</h4>{table_markup(stages)}"
    for result in run.scores["results"]:
        inside += (
            f"<h4>on {escaped(dataset_of(result))}</h4>{table_markup(score_table(run, result), 'gains')}"
            f"{''.join(table_markup(table) for table in finding_tables(result))}"
            f"{_protocol(result)}{notes(remarks(result))}{notes([f'{origin(run, result)}.'])}"
        )
    return f"<h3>{escaped(run.name)}</h3>{unfolding('scores', inside, opened=alone)}"


def _protocol(result: Mapping[str, Any]) -> str:
    """The protocol's name and description; its parts, which many results share, unfold."""
    first, *parts = protocol_lines(result)
    return unfolding(first, notes(parts), kind="note") if parts else notes([first])


def _configurations(runs: Sequence[Run]) -> dict[Path, str]:
    """The configuration and the commit of each run, as far as there is room."""
    left, found = _TEXT_BYTES, {}
    for run in runs:
        commit = run.scores.get("commit")
        told = f"commit {commit}" if commit else "commit not known"
        where = f"{run.folder / 'config.yaml'}"
        inside = notes([told])
        if run.configuration and len(run.configuration) <= left:
            left -= len(run.configuration)
            inside += f"<pre tabindex=0>{escaped(run.configuration)}</pre>"
        elif run.configuration:
            inside += notes([f"The page would be too large with its configuration, which is {where}."])
        else:
            inside += notes(["An evaluation has no configuration of its own."])
        found[run.folder] = unfolding("configuration and commit", inside, kind="configuration")
    return found


def _panels(run: Run, count: int, budget: Budget) -> str:
    """Pictures that a run without exhibits left, which are all that there is of it, if there is room."""
    if run.exhibits or count == 0:
        return ""
    shown: dict[str, str] = {}
    left_out = 0
    for path in run.pictures:
        image = path.stem.partition(".")[0]
        if image not in {name.partition(".")[0] for name in shown} and len(_images(shown)) >= count:
            continue
        drawn = budget.image(path, path.stem)
        if drawn is None:
            left_out += 1
            continue
        shown[path.stem] = f"<figure>{drawn}</figure>"
    told = (
        [f"{left_out} pictures of {run.folder / 'pictures'} are left out: the page would be too large."]
        if left_out
        else []
    )
    if not shown:
        return notes(told)
    return unfolding("pictures of the run", "".join(shown.values()), opened=True) + notes(told)


def _sheets(run: Run, budget: Budget, *, first: bool) -> str:
    """What a run drew of what its net does to an image: of one image, coarse, if there is room."""
    stems = [path.name for path in (run.folder / "pictures" / "exhibits").glob("*")]
    of = {stem: [path for path in run.pictures if path.stem.startswith(f"{stem}.")] for stem in sorted(stems)}
    of = {stem: paths for stem, paths in of.items() if paths}
    if not of:
        return ""
    where = run.folder / "pictures"
    if not first:
        return notes([f"Its sheets, what its net does to each image, are in {where}."])
    stem, paths = next(iter(of.items()))
    drawn = [budget.image(path, path.stem) for path in paths]
    inside = "".join(f"<figure>{image}</figure>" for image in drawn if image)
    more = f"Sheets of {len(of)} images, as large as they were drawn, are in {where}."
    return (unfolding(f"what its net does to {stem}", inside) if inside else "") + notes([more])


def _images(shown: Mapping[str, str]) -> set[str]:
    return {name.partition(".")[0] for name in shown}
