"""What runs left behind as tables of text, to be set in Markdown or HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deblur_lab.comparison import Comparison, Row, Spread, measure_of
from deblur_lab.console import SCORE_TITLES
from deblur_lab.finished_runs import Run
from deblur_lab.stage_table import BRIEF, brief_cells

# Of more settings than these, a table has one column for all.
_SETTING_COLUMNS = 4
_BLUR = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou": "IoU",
    "calibration_error": "calibration error",
}


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        heading: of the columns.
        rows: as long as the heading.
        words: how many columns, from the left, hold words; the others hold numbers.
        title: what stands above; may be empty.
        bold: (row, column) of the cells that stand out.
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    title: str = ""
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)


def score_table(result: Mapping[str, Any]) -> Table:
    """The scores of the blurry input and of the restored pictures, and the gain."""
    rows = []
    for name, restored in result["scores"].items():
        blurry = result["blurry_scores"].get(name)
        digits = 2 if name.endswith("_db") else 4
        gain = "" if None in (restored, blurry) else f"{restored - blurry:+.{digits}f}"
        rows.append((SCORE_TITLES.get(name, name), _number(blurry, digits), _number(restored, digits), gain))
    return Table(("score", "blurry", "restored", "gain"), rows)


def finding_tables(result: Mapping[str, Any]) -> list[Table]:
    """What a network said of blur and motion, held against the truth, where that is known."""
    tables = []
    blur, motion = result.get("blur_detection"), result.get("motion")
    if blur is not None:
        heading = ("blur mask", *_BLUR.values())
        row = (f"at threshold {blur['threshold']:g}", *(_number(blur[name], 3) for name in _BLUR))
        tables.append(Table(heading, [row]))
    if motion is not None:
        rows = []
        for title, prefix in (("blurred pixels", ""), ("those that move", "moving_")):
            zero, error = motion[f"{prefix}zero_epe_px"], motion[f"{prefix}epe_px"]
            gain = "" if None in (zero, error) else f"{zero - error:+.2f}"
            rows.append((title, _number(zero, 2), _number(error, 2), gain))
        off = motion.get("orientation_error_deg")
        if off is not None:  # which older runs do not have
            rows.append(("orientation (°; chance is 45)", "", f"{off:.0f}", ""))
        tables.append(Table(("end-point error (px)", "no motion", "predicted", "gain"), rows))
    return tables


def threshold_points(result: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    """Share of selected pixels in percent, weighted PSNR in dB, and threshold, by the share."""
    points = [
        (100 * row["selected_share"], row["scores"].get("weighted_psnr_db"), f"{row['threshold']:g}")
        for row in result.get("thresholds") or ()
        if row["selected_share"] is not None
    ]
    return sorted((share, score, label) for share, score, label in points if score is not None)


def origin(run: Run, result: Mapping[str, Any]) -> str:
    """What must stand beside a number for it to mean anything."""
    keys = ("checkpoint", "trained_on", "experiment", "seed", "max_steps", "precision", "hardware", "commit")
    known = {key: run.scores.get(key) for key in keys}
    known["trained_on"] = ", ".join(known["trained_on"] or []) or None
    known["experiment"] = ", ".join(run.experiments) or None
    parts = [f"{key} {value}" for key, value in known.items() if value is not None]
    size_px = result.get("tlc_size_px")
    parts.append(f"test-time local converter {f'on ({size_px} px patches)' if size_px else 'off'}")
    return f"{result['images']} images of the {result['split']} split; " + ", ".join(parts)


def comparison_table(comparison: Comparison) -> Table:
    """Runs side by side, the scores of their input above them, and the best in bold."""
    columns, headings = comparison.columns, comparison.headings
    few = len(headings) <= _SETTING_COLUMNS
    heading = (*(headings if few else ("settings",)), "seeds")
    above = []
    if any(comparison.blurry.values()):
        cells = [_measured(comparison.blurry[name], name) for name in columns]
        above.append(["blurry input", *[""] * (len(heading) - 1), *cells])
    rows = [
        [
            *(row.settings if few else [_joined(headings, row)]),
            _seeds(row),
            *(_measured(row.cells[name], name, len(row.seeds)) for name in columns),
        ]
        for row in comparison.rows
    ]
    bold = {
        (len(above) + at, len(heading) + number)
        for at, row in enumerate(comparison.rows)
        for number, name in enumerate(columns)
        if comparison.is_best(row, name)
    }
    titles = (measure_of(name).title for name in columns)
    return Table((*heading, *titles), above + rows, len(heading), comparison.title, frozenset(bold))


def published_table(comparison: Comparison) -> Table | None:
    """What the paper printed of the same comparison, if it did; never to be taken for a row of ours."""
    if not comparison.published:
        return None
    columns = comparison.published_columns
    datasets = ", ".join(dict.fromkeys(row.dataset for row in comparison.published))
    return Table(
        ("row", "source", *(measure_of(name).title for name in columns)),
        [
            (row.label, row.source, *(row.cells.get(name) or "-" for name in columns))
            for row in comparison.published
        ],
        2,
        f"published, {datasets}, not comparable with the rows above where data differ",
    )


def stage_table(run: Run) -> Table | None:
    """What each stage of a training took and reached; None if it was none in stages."""
    if not run.stages:
        return None
    rows = [[cell.replace("\n", ", ") for cell in row] for row in brief_cells(run.stages)]
    return Table(BRIEF, rows, title=f"stages of {run.name}")


def _seeds(row: Row) -> str:
    """How many and which; how many runs, if some seed has several."""
    text = f"{len(row.seeds)} ({', '.join(row.seeds)})"
    return f"{text}, {row.runs} runs" if row.runs > len(row.seeds) else text


def _joined(headings: Sequence[str], row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(headings, row.settings, strict=True))


def _measured(cell: Spread | None, column: str, seeds: int = 0) -> str:
    """Mean and spread, and of how many seeds, if not all have the number."""
    if cell is None:
        return "-"
    digits = measure_of(column).digits
    text = f"{cell.mean:.{digits}f}"
    if cell.deviation is not None:
        text += f" ± {cell.deviation:.{digits}f}"
    return f"{text} ({cell.count} of {seeds})" if cell.count < seeds else text


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
