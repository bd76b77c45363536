"""What runs left behind as tables of text, to be set in Markdown or HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deblur_lab.comparison import Comparison
from deblur_lab.console import SCORE_TITLES, part_title, unlike_published
from deblur_lab.finished_runs import Run
from deblur_lab.published_scores import NOT_TOLD, NUMBERS, PublishedRow
from deblur_lab.scored_results import (
    images_of,
    own_protocol,
    scored_by,
    steps_of,
    training_sets,
)
from deblur_lab.stage_table import BRIEF, brief_cells

_BLUR = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou": "IoU",
    "calibration_error": "calibration error",
}

# The parts of a protocol that `describe` of it tells, and older runs do not have.
_PARTS = ("psnr", "ssim", "alignment", "quantisation", "tlc")


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        heading: of the columns.
        rows: as long as the heading.
        words: how many columns, from the left, hold words; the others hold numbers.
        words_behind: how many columns, from the right, hold words as well.
        title: what stands above; may be empty.
        bold: (row, column) of the cells that stand out: the best.
        underlined: (row, column) of the second.
        groups: what stands above each column, the same above those of one group; empty without groups.
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    title: str = ""
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    words_behind: int = 0
    underlined: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    groups: Sequence[str] = ()

    @property
    def full_heading(self) -> Sequence[str]:
        """That of the columns, each with its group, where there is one line for both."""
        if not self.groups:
            return self.heading
        pairs = zip(self.groups, self.heading, strict=True)
        return [f"{group} {title}".strip() for group, title in pairs]

    def is_word(self, column: int) -> bool:
        """Whether a column holds words."""
        return column < self.words or column >= len(self.heading) - self.words_behind


def score_table(run: Run, result: Mapping[str, Any]) -> Table:
    """The scores of the blurry input and of the restored pictures, and the gain."""
    rows = []
    meant = (training_sets(run), scored_by(result))
    for name, restored in result["scores"].items():
        blurry = result["blurry_scores"].get(name)
        digits = 2 if name.endswith("_db") else 4
        gain = "" if None in (restored, blurry) else f"{restored - blurry:+.{digits}f}"
        shown = (_number(blurry, digits), _number(restored, digits), gain)
        rows.append((SCORE_TITLES.get(name, name), *meant, *shown))
    return Table(("score", "trained on", "protocol", "blurry", "restored", "gain"), rows, 3)


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


def protocol_lines(result: Mapping[str, Any]) -> list[str]:
    """What the protocol of a result is, a line for each part that is told: its name is in the first."""
    protocol = result["protocol"]
    lines = [f"Protocol {protocol['name']}: {protocol['description']}"]
    return lines + [f"{part_title(key)}: {protocol[key]}" for key in _PARTS if protocol.get(key)]


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What of a result did not go by the protocol, or keeps it from being compared, by the line."""
    lines = unlike_published(result)
    own = own_protocol(result)
    if own:
        lines.append(f"The dataset has its own protocol, {own}: these are not the numbers of its tables")
    if result.get("missing"):
        lines.append(
            f"{images_of(result)} of the {result['split']} split, {result['missing']} are missing: no "
            "published number is comparable with these"
        )
    if result.get("jpegs"):
        lines.append(
            f"{result['jpegs']} of {result['images']} restored images are JPEGs, which lose detail: "
            "published numbers are those of pictures that do not"
        )
    failures = result.get("alignment_failures")
    if failures:
        lines.append(
            f"{failures} of {result['images']} restored images could not be aligned: scored as they are"
        )
    if result.get("masks"):
        lines.append(f"Masks: {result['masks']}")
    return lines


def origin(run: Run, result: Mapping[str, Any]) -> str:
    """What must stand beside a number for it to mean anything."""
    keys = ("checkpoint", "restored_by", "trained_on", "experiment", "seed", "max_steps", "precision")
    known = {key: run.scores.get(key) for key in (*keys, "hardware", "commit")}
    known["max_steps"] = steps_of(run)
    known["trained_on"] = ", ".join(run.trained_on) or None
    known["experiment"] = ", ".join(run.experiments) or None
    parts = [f"{key.removeprefix('max_')} {value}" for key, value in known.items() if value is not None]
    if result.get("tlc") is not None:
        size_px = result.get("tlc_size_px")
        parts.append(f"test-time local converter {f'on ({size_px} px patches)' if size_px else 'off'}")
    return f"{images_of(result)} of the {result['split']} split; " + ", ".join(parts)


def published_table(comparison: Comparison) -> Table | None:
    """What the paper printed of the same comparison, if it did; never to be taken for a row of ours."""
    if not comparison.published:
        return None
    datasets = ", ".join(dict.fromkeys(row.dataset for row in comparison.published))
    apart = ", not comparable with the rows above where data differ"
    if comparison.partial:
        apart = ": whole test splits, not comparable with the part above"
    if comparison.made_up:
        apart = ": real pictures, not comparable with the made-up ones above"
    return printed_table(comparison.published, f"published, {datasets}{apart}")


def printed_table(rows: Sequence[PublishedRow], title: str = "") -> Table:
    """Rows that somebody printed, each with what its numbers mean.

    A column that no row fills is left out, and datasets where all are of one.

    Args:
        rows: at least one.
        title: what stands above.
    """
    columns = [name for name in NUMBERS if any(name in row.numbers for row in rows)]
    several = len({row.dataset for row in rows}) > 1
    notes = any(row.note for row in rows)
    heading = (
        "row",
        *(("dataset",) if several else ()),
        *("trained on", "protocol", "whose", "source"),
        *(("note",) if notes else ()),
    )
    cells = [
        (
            row.label,
            *((row.dataset,) if several else ()),
            row.trained_on,
            row.protocol if row.tlc == NOT_TOLD else f"{row.protocol}, TLC {row.tlc}",
            row.reported,
            row.source,
            *((row.note,) if notes else ()),
            *(row.numbers.get(name, "-") for name in columns),
        )
        for row in rows
    ]
    return Table((*heading, *(NUMBERS[name] for name in columns)), cells, len(heading), title)


def stage_table(run: Run) -> Table | None:
    """What each stage of a training took and reached; None if it was none in stages."""
    if not run.stages:
        return None
    rows = [[cell.replace("\n", ", ") for cell in row] for row in brief_cells(run.stages)]
    return Table(BRIEF, rows, title=f"stages of {run.name}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
