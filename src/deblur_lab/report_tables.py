"""What runs left behind as tables of text, to be set in Markdown or HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deblur_lab.comparison import SETTINGS_TOLD, Comparison, Row
from deblur_lab.console import SCORE_TITLES, part_title, unlike_published
from deblur_lab.finished_runs import Run
from deblur_lab.leaderboard import Entry, Leaderboard
from deblur_lab.model_differences import BLURRY, SCORES, ModelDifference, shown_difference, shown_interval
from deblur_lab.published_scores import NOT_TOLD, NUMBERS, PublishedRow
from deblur_lab.report_measures import Spread, measure_of
from deblur_lab.scored_results import (
    images_of,
    known_model,
    own_protocol,
    scored_by,
    steps_of,
    training_sets,
)
from deblur_lab.setting_differences import UNSET
from deblur_lab.significance import PairedDifference
from deblur_lab.stage_table import BRIEF, brief_cells

# Of more runs in a row than these, not all are named.
_NAMES = 2
_BLUR = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "iou": "IoU",
    "calibration_error": "calibration error",
}


_ADDS = "multiply_adds"
_PUBLISHED = " (published)"
# Of what best and second are not found of.
_MARK = " †"
_COSTS = {"parameters": "parameters (M)", _ADDS: "multiply-adds (G)"}
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
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    title: str = ""
    bold: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    words_behind: int = 0
    underlined: frozenset[tuple[int, int]] = field(default_factory=frozenset)

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


def comparison_table(comparison: Comparison) -> Table:
    """Runs side by side, the scores of their input above them, and the best in bold.

    Many settings stand behind the scores, in one column.
    """
    columns, headings = comparison.columns, comparison.headings
    few = len(headings) <= SETTINGS_TOLD
    named = not few or any(row.evaluated for row in comparison.rows)
    own = (
        *(("run",) if named else ()),
        *(("model",) if comparison.model else ()),
        *(headings if few else ()),
    )
    heading = (*own, "trained on", "protocol", "seeds")
    behind = () if few else ("settings",)
    above = []
    if any(comparison.blurry.values()):
        cells = [_measured(comparison.blurry[name], name) for name in columns]
        words = ["blurry input", *[""] * (len(heading) - 1)]
        if own:
            words[len(own)] = "-"
        words[len(own) + 1] = comparison.protocol
        above.append([*words, *cells, *("-" for _ in behind)])
    rows = [
        [
            *([_marked(row.evaluated or _named(row.names), bool(row.repeats))] if named else []),
            *([_model(row)] if comparison.model else []),
            *(row.settings if few else []),
            row.trained_on,
            row.protocol,
            _seeds(row),
            *(_measured(row.cells[name], name, len(row.seeds)) for name in columns),
            *([] if few else [_joined(headings, row)]),
        ]
        for row in comparison.rows
    ]
    places = {
        (len(above) + at, len(heading) + number): comparison.place(row, name)
        for at, row in enumerate(comparison.rows)
        for number, name in enumerate(columns)
    }
    titles = (measure_of(name).title for name in columns)
    return Table(
        (*heading, *titles, *behind),
        above + rows,
        len(heading),
        comparison.title,
        _at(places, 1),
        len(behind),
        _at(places, 2),
    )


def leaderboard_table(board: Leaderboard, *, ranked: bool = False) -> Table:
    """Models side by side as the papers have them: scores, parameters, multiply-adds; and what was printed.

    The best is bold and the second underlined. Rows that are not ranked have a mark, which the notes explain.
    Rows that were printed say so, and whose they are.

    Args:
        board: whose entries are the rows.
        ranked: of what was printed, only what best and second are found of.
    """
    entries = [*board.entries, *(entry for entry in board.published if entry.ranked or not ranked)]
    details = any(entry.details for entry in entries)
    costs = [kind for kind in _COSTS if any(getattr(entry, kind) is not None for entry in entries)]
    sizes = {entry.size_px for entry in entries if entry.multiply_adds is not None}
    # Multiply-adds of one size for all stand in the heading, of several in each cell.
    size = sizes.pop() if len(sizes) == 1 else None
    heading = (
        "model",
        *(("what differs",) if details else ()),
        *("trained on", "protocol", "seeds"),
    )
    behind = ("source",) if board.published else ()
    above = []
    if any(board.blurry.values()):
        words = [BLURRY, *[""] * (len(heading) - 1)]
        words[-3:-1] = ["-", board.protocol]
        cells = [_measured(board.blurry[name], name) for name in board.columns]
        above.append([*words, *cells, *("-" for _ in costs), *("-" for _ in behind)])
    rows = [
        [
            f"{_marked(entry.model, not entry.ranked)}{'' if entry.published is None else _PUBLISHED}",
            *((entry.details,) if details else ()),
            *(entry.trained_on, entry.protocol, _seeds_of(entry)),
            *(_entered(entry, name) for name in board.columns),
            *(_cost(entry, kind, size) for kind in costs),
            *((_source(entry),) if behind else ()),
        ]
        for entry in entries
    ]
    places = {
        (len(above) + at, len(heading) + number): board.place(entry, name)
        for at, entry in enumerate(entries)
        for number, name in enumerate(board.columns)
    }
    titles = [measure_of(name).title for name in board.columns]
    of_size = "" if size is None else f" at {size[0]}x{size[1]}"
    return Table(
        (
            *heading,
            *titles,
            *(f"{_COSTS[kind]}{of_size if kind == _ADDS else ''}" for kind in costs),
            *behind,
        ),
        above + rows,
        len(heading),
        board.title,
        _at(places, 1),
        len(behind),
        _at(places, 2),
    )


def narrowed(table: Table) -> Table:
    """A table as far as a screen has room: the main scores, and not where they come from."""
    main = {*SCORE_TITLES.values()}
    kept = [
        column
        for column, title in enumerate(table.heading)
        if (column < table.words and title not in ("trained on", "protocol"))
        or title in main
        or title.startswith(tuple(_COSTS.values()))
    ]
    moved = {column: at for at, column in enumerate(kept)}

    def still(cells: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        return frozenset((row, moved[column]) for row, column in cells if column in moved)

    def short(row: Sequence[str], column: int) -> str:
        text = row[column]
        if table.heading[column] == "seeds":
            return "published" if row[0].endswith(_PUBLISHED) else text.partition(" (")[0]
        if column == 0:
            return text.removesuffix(_PUBLISHED)
        return text.replace(" ± ", "\n± ")

    # Multiply-adds' size, which is no number of the column's, goes to the title, as does what a mark means.
    headings = [table.heading[column] for column in kept]
    sized = next((text for text in headings if text.startswith(f"{_COSTS[_ADDS]} at ")), "")
    unranked = "; † not ranked" if any(_MARK in row[0] for row in table.rows) else ""
    return Table(
        [
            text.partition(" at ")[0].replace("multiply-", "mult.-").replace("parameters", "params")
            for text in headings
        ],
        [[short(row, column) for column in kept] for row in table.rows],
        sum(column < table.words for column in kept),
        f"{table.title}{sized.replace(_COSTS[_ADDS], '; multiply-adds')}{unranked}",
        still(table.bold),
        0,
        still(table.underlined),
    )


def difference_table(differences: Sequence[ModelDifference]) -> Table | None:
    """How models differ, a pair a row; None where there is no pair.

    Pairs that cannot be compared say why, unless none can.
    """
    if not any(pair.scores for pair in differences):
        return None
    scores = [name for name in SCORES if any(name in pair.scores for pair in differences)]
    # Where one training stands against one, the interval is of images alone itself.
    seeds = any(max(found.seeds) > 1 for pair in differences for found in pair.scores.values())
    rows = []
    for pair in differences:
        found = next(iter(pair.scores.values()), None)
        told = ("-", "-") if found is None else (_images(found), _of_seeds(found.seeds, pair.second))
        cells = [shown_difference(name, pair.scores[name]) if name in pair.scores else "-" for name in scores]
        better = pair.why_not if found is None else f"{100 * found.share_better:.0f} %"
        alone = pair.scores.get(scores[0])
        images = ["-" if alone is None else shown_interval(scores[0], *alone.over_images)] if seeds else []
        rows.append((pair.first, pair.second, *told, *cells, *images, better))
    titles = [measure_of(name).title for name in scores]
    titles += [f"{titles[0]}, images alone"] if seeds else []
    first = measure_of(scores[0]).title.partition(" (")[0]
    heading = ("first", "less second", "images", "seeds", *titles, f"images with more {first}")
    clear = {
        (at, 4 + number)
        for at, pair in enumerate(differences)
        for number, name in enumerate(scores)
        if name in pair.scores and pair.scores[name].excludes_zero
    }
    return Table(heading, rows, 2, "differences of the same images, with 95 % intervals", frozenset(clear))


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


def _at(places: Mapping[tuple[int, int], int | None], place: int) -> frozenset[tuple[int, int]]:
    return frozenset(cell for cell, found in places.items() if found == place)


def _seeds_of(entry: Entry) -> str:
    """How many and which, and of how many runs; nothing of an evaluation and of what was printed."""
    return _counted(entry.seeds, len(entry.members)) if entry.seeds else ""


def _entered(entry: Entry, column: str) -> str:
    """A number with its spread; of what was printed, in the digits that it was printed with."""
    if entry.published is not None:
        return entry.published.numbers.get(column, "-")
    return _measured(entry.cells.get(column), column, len(entry.seeds))


def _cost(entry: Entry, kind: str, size: tuple[int, int] | None) -> str:
    number = getattr(entry, kind)
    if number is None:
        return "-"
    if kind != _ADDS:
        return f"{number / 1e6:.2f}"
    own = entry.size_px if size is None else None
    text = f"{number / 1e9:.0f}" if number >= 1e11 else f"{number / 1e9:.3g}"
    return text if own is None else f"{text} at {own[0]}x{own[1]}"


def _source(entry: Entry) -> str:
    if entry.published is None:
        return "ours"
    told = (entry.published.source, entry.published.reported, entry.published.note)
    return "; ".join(text for text in told if text)


def _images(found: PairedDifference) -> str:
    return f"{found.count}" if found.groups is None else f"{found.count} of {found.groups} sequences"


def _of_seeds(seeds: tuple[int, int], second: str) -> str:
    return str(seeds[0]) if second == BLURRY else f"{seeds[0]} and {seeds[1]}"


def _marked(text: str, marked: bool) -> str:
    return f"{text}{_MARK}" if marked else text


def _model(row: Row) -> str:
    return known_model(row.members[0][0]) or "-"


def _seeds(row: Row) -> str:
    """How many and which; how many runs, if some seed has several; nothing of an evaluation."""
    if row.evaluated:
        return ""
    return _counted(row.seeds, row.runs)


def _counted(seeds: Sequence[str], runs: int) -> str:
    text = f"{len(seeds)} ({', '.join(seeds)})"
    return f"{text}, {runs} runs" if runs > len(seeds) else text


def _joined(headings: Sequence[str], row: Row) -> str:
    """The settings that a row has, as they are typed; none of an evaluation."""
    if row.evaluated:
        return "-"
    pairs = zip(headings, row.settings, strict=True)
    return ", ".join(f"{name}={value}" for name, value in pairs if value != UNSET)


def _named(runs: Sequence[str]) -> str:
    more = f" and {len(runs) - _NAMES} more" if len(runs) > _NAMES else ""
    return ", ".join(runs[:_NAMES]) + more


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
