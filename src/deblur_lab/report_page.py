"""Runs on one HTML page, with its pictures and curves inside; it needs no network."""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deblur_lab.charts import line_chart
from deblur_lab.comparison import Comparison
from deblur_lab.errors import DataError
from deblur_lab.finished_runs import Run, dataset_of
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

# Wider pictures are shrunk for the page, which a browser would do anyway.
_PICTURE_WIDTH_PX = 1600
_CURVES = (
    ("train/loss", "training loss, and its running mean"),
    ("val/psnr_db", "validation PSNR (dB)"),
    ("val/weighted_psnr_db", "validation weighted PSNR (dB)"),
)


def page(runs: Sequence[Run], comparisons: Sequence[Comparison], pictures: int) -> str:
    """The whole page.

    Args:
        runs: each has a section for each dataset that it was scored on.
        comparisons: tables across runs, which come first.
        pictures: how many of a run are shown.

    Raises:
        DataError: a picture cannot be read.
    """
    sections = [_across(comparison) for comparison in comparisons]
    for run in runs:
        sections += _stages(run)
        sections += [_section(run, result, pictures) for result in run.scores["results"]]
    return _PAGE.replace("@BODY@", "\n".join(sections))


def _across(comparison: Comparison) -> str:
    table, printed = comparison_table(comparison), published_table(comparison)
    below = ""
    if printed is not None:
        below = f"<div class=published><p>{html.escape(printed.title)}</p>{_table(printed)}</div>"
    return (
        f"<section><h2>Across runs: {html.escape(table.title)}</h2>{_table(table)}"
        f"<p class=note>{html.escape(comparison.origin)}</p>{below}</section>"
    )


def _stages(run: Run) -> list[str]:
    table = stage_table(run)
    if table is None:
        return []
    return [f"<section><h2>{html.escape(table.title)}</h2>{_table(table)}</section>"]


def _section(run: Run, result: Mapping[str, Any], pictures: int) -> str:
    shown = [path for path in run.pictures if path.name.startswith(f"{result['dataset']}-")][:pictures]
    curves = [
        line_chart(title, points, (f"step {points[0][0]}", str(points[-1][0])))
        for name, title in _CURVES
        if (points := run.curves.get(name))
    ]
    configuration = html.escape(run.configuration)
    return (
        f"<section><h2>{html.escape(run.name)} <small>on {html.escape(dataset_of(result))}</small></h2>"
        f"{_table(score_table(run, result), 'gains')}"
        f"{''.join(_table(table) for table in finding_tables(result))}"
        f"{_protocol(result)}{_notes(remarks(result))}"
        f"<p class=note>{html.escape(origin(run, result))}.</p>"
        f"<div class=curves>{''.join(curves)}{_thresholds(result)}</div>"
        f"{''.join(_figure(path) for path in shown)}"
        + (
            f"<details><summary>configuration</summary><pre>{configuration}</pre></details>"
            if configuration
            else ""
        )
        + "</section>"
    )


def _protocol(result: Mapping[str, Any]) -> str:
    """The protocol's name and description; its parts, which many results share, unfold."""
    first, *parts = protocol_lines(result)
    if not parts:
        return _notes([first])
    return f"<details class=note><summary>{html.escape(first)}</summary>{_notes(parts)}</details>"


def _notes(lines: Sequence[str]) -> str:
    return "".join(f"<p class=note>{html.escape(line)}</p>" for line in lines)


def _table(table: Table, kind: str = "") -> str:
    def cell(at: int, column: int, text: str) -> str:
        tag = "th" if table.is_word(column) else "td"
        inside = html.escape(text)
        if at < 0 or (tag == "th" and kind != "gains"):  # long names of settings and paths break there
            inside = re.sub(r"[_./]", r"\g<0><wbr>", inside)
        mean, plus_minus, deviation = inside.partition(" ± ")
        inside = f"<b>{mean}</b>" if (at, column) in table.bold else mean
        if plus_minus:
            inside += f"<br><small>± {deviation}</small>"
        return f"<{tag}>{inside}</{tag}>"

    def row(at: int, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cell(at, column, text) for column, text in enumerate(cells))}</tr>"

    body = "".join(row(at, cells) for at, cells in enumerate(table.rows))
    return (
        f"<div class=wide><table{kind and f' class={kind}'}><thead>{row(-1, table.heading)}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _thresholds(result: Mapping[str, Any]) -> str:
    """Weighted PSNR against the share of pixels that the mask selects, a point for each threshold."""
    points = threshold_points(result)
    if len(points) < 2:
        return ""
    return line_chart(
        "weighted PSNR (dB) by the share of pixels selected; at thresholds",
        [(share, score) for share, score, _ in points],
        (f"{points[0][0]:.1f} %", f"{points[-1][0]:.1f} %"),
        [label for _, _, label in points],
    )


def _figure(path: Path) -> str:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"{path} cannot be read as a picture ({error}): remove it") from error
    if picture.width > _PICTURE_WIDTH_PX:
        picture = picture.resize(
            (_PICTURE_WIDTH_PX, round(picture.height * _PICTURE_WIDTH_PX / picture.width)),
            Image.Resampling.LANCZOS,
        )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    name = html.escape(path.stem)
    return f'<figure><img src="data:image/jpeg;base64,{encoded}" alt="{name}"></figure>'


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>deblur_lab report</title>
<style>
:root {
  color-scheme: light dark;
  --ink: #1c2127; --soft: #5b6672; --line: #d9dee3; --paper: #fff; --accent: #2060c0;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #39424c; --paper: #14181d; --accent: #6ea8ff; }
}
body { margin: 0 auto; max-width: 1200px; padding: 1.5rem 1rem 4rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
small { color: var(--soft); font-weight: 400; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); font-weight: 400;
}
th { text-align: left; } thead th, thead td { color: var(--soft); font-size: .9rem; vertical-align: bottom; }
tbody th, tbody td { vertical-align: top; } tbody td { white-space: nowrap; } td small { font-size: .85rem; }
tbody th { max-width: 18rem; overflow-wrap: break-word; } tbody th:first-child { min-width: 6rem; }
@media (max-width: 700px) { tbody th { min-width: 5rem; } tbody th:last-child { min-width: 12rem; } }
.gains td:last-child { font-weight: 600; } .wide { overflow-x: auto; margin: .8rem 0; }
.published { border-left: 3px solid var(--line); padding-left: 1rem; margin: 1.2rem 0; }
.published, .published th, .published td { color: var(--soft); } .published p { margin: 0; font-weight: 600; }
.published tbody th { white-space: normal; min-width: 5rem; }
.note { color: var(--soft); font-size: .9rem; margin: .4rem 0; overflow-wrap: anywhere; }
.curves { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; } svg { width: 420px; max-width: 100%; }
svg text { font-size: 12px; fill: var(--soft); } svg .title { fill: var(--ink); font-size: 13px; }
svg .axis { fill: none; stroke: var(--line); }
polyline { fill: none; stroke: var(--accent); stroke-width: 1.6; }
polyline.raw { opacity: .3; stroke-width: 1; } circle { fill: var(--accent); }
figure { margin: 1rem 0; } img { max-width: 100%; border-radius: 4px; display: block; }
pre { overflow-x: auto; font-size: .85rem; } summary { cursor: pointer; color: var(--soft); }
</style>
<h1>deblur_lab report</h1>
@BODY@
</html>
"""
