"""What the commands say on the screen, from the first process alone."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deblur_lab.data.made_up import MADE_UP
from deblur_lab.data.published_sets import PUBLISHED
from deblur_lab.ranks import first_only

# Lines of cells that are as long, or shorter, are not broken; others are, where a screen is too narrow.
_SHORT = 10
# Highlighting would colour every number of a path.
_console = Console(highlight=False, soft_wrap=True)

SCORE_TITLES = {
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "weighted_psnr_db": "weighted PSNR (dB)",
    "weighted_ssim": "weighted SSIM",
}

_PART_TITLES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "weighted_psnr": "weighted PSNR",
    "weighted_ssim": "weighted SSIM",
    "tlc": "test-time local converter",
}


@first_only
def say(line: str) -> None:
    """Print one line, taken as it is."""
    _console.print(line, markup=False)


@first_only
def print_scores(results: Sequence[Mapping[str, Any]]) -> None:
    """Print, for each dataset, the means of the blurry input, of the restored pictures, and the gain.

    Below it, where there are such: how well blur is detected and motion told, and the scores by threshold.

    Args:
        results: as `deblur_lab.callbacks.Scores` gathers them.
    """
    for result in results:
        made_up = MADE_UP if result.get("made_up") else ""
        table = Table(
            title=f"{result['dataset']}{made_up}, {result['split']} split, {result['images']} images"
        )
        table.add_column("score")
        for column in ("blurry", "restored", "gain"):
            table.add_column(column, justify="right")
        for name, restored in result["scores"].items():
            blurry = result["blurry_scores"][name]
            digits = 2 if name.endswith("_db") else 4
            numbers = (f"{blurry:.{digits}f}", f"{restored:.{digits}f}", f"{restored - blurry:+.{digits}f}")
            table.add_row(
                SCORE_TITLES.get(name, name),
                *("-" if math.isnan(restored) or math.isnan(blurry) else number for number in numbers),
            )
        _console.print(table)
        _print_protocol(result)
        left_out = {name: count for name, count in result["left_out"].items() if count}
        for name, count in left_out.items():
            why = "no mask, no blurred pixel, or too small"
            say(f"{name}: {count} of {result['images']} images have none ({why}) and are left out")
        _print_what_lacks(result)
        _print_findings(result)
        _print_thresholds(result)
        _print_definitions(result)


def _print_protocol(result: Mapping[str, Any]) -> None:
    """Which protocol it was, each of its parts, and what of it was not as the protocol asks."""
    protocol, tlc = result["protocol"], result["tlc"]
    converter = "off" if tlc is not None else "does not apply"
    if tlc:
        converter = f"on ({result['tlc_size_px']} px patches)"
    say(f"protocol {protocol['name']}: {protocol['description']}; test-time local converter {converter}")
    unsaid = ("name", "description", *(["tlc"] if tlc is None else []))
    parts = {part: words for part, words in protocol.items() if part not in unsaid}
    for part, words in parts.items():
        say(f"  {part_title(part)}: {words}")
    own = result.get("own_protocol")
    if own is not None and own != protocol["name"]:
        say(f"{result['dataset']} has its own protocol, {own}: these are not the numbers of its tables")


def part_title(part: str) -> str:
    """What a part of a protocol, as `ScoringProtocol.describe` has them, is called."""
    return _PART_TITLES.get(part, part.replace("_", " "))


def _print_what_lacks(result: Mapping[str, Any]) -> None:
    """What keeps the scores from being those of a published table."""
    images = result["images"]
    failures = {
        "restored": result.get("alignment_failures"),
        "blurry": result.get("blurry_alignment_failures"),
    }
    if None not in failures.values():
        counts = " and ".join(f"{count} of {images} {kind}" for kind, count in failures.items())
        say(f"alignment: {counts} images could not be aligned, and are scored as they are")
    missing = result.get("missing")
    if missing:
        say(
            f"{missing} of {images + missing} images are missing (subset=true): these are not the scores of "
            "the test split"
        )
    for line in unlike_published(result):
        say(line)
    if result.get("made_up") and result.get("layout") is not None:  # synthetic scenes claim nothing else
        say(f"the pictures are made up: these scores are none of {result['dataset']}'s")


def unlike_published(result: Mapping[str, Any]) -> list[str]:
    """What shows that the test split of a result is not the one that published numbers are of, by the line.

    >>> unlike_published({"dataset": "gopro", "images": 6, "published_images": 1111})[0].partition(";")[0]
    "6 of GoPro's 1111 test pairs: no published number is comparable"
    """
    known = PUBLISHED.get(result["dataset"])
    if known is None:
        return []
    lines = []
    pairs, published = result["images"] + (result.get("missing") or 0), result.get("published_images")
    if published is not None and pairs < published:
        lines.append(f"{pairs} of {known.title}'s {published} test pairs")
    elif published is not None and pairs > published:
        lines.append(f"{pairs} test pairs, where {known.title} has {published}")
    other = PUBLISHED.get(result.get("names_like") or "")
    if other is not None:
        lines.append(f"the pairs have names of {other.title}, not of {known.title}")
    more = "no published number is comparable; python -m deblur_lab.data.verify tells more"
    return [f"{line}: {more}" for line in lines]


def _print_findings(result: Mapping[str, Any]) -> None:
    """What the network said of blur and motion, held against the truth."""
    blur, motion = result.get("blur_detection"), result.get("motion")
    if blur is not None:
        table = Table(title=f"{result['dataset']}: blur mask at threshold {blur['threshold']:g}")
        names = ("precision", "recall", "f1", "iou", "calibration_error")
        for name in names:
            table.add_column({"f1": "F1", "iou": "IoU"}.get(name, name.replace("_", " ")), justify="right")
        table.add_row(*(_number(blur[name], 3) for name in names))
        _console.print(table)
    if motion is not None:
        table = Table(title=f"{result['dataset']}: end-point error (px)")
        table.add_column("pixels")
        for column in ("no motion", "predicted", "gain"):
            table.add_column(column, justify="right")
        for title, prefix in (("blurred", ""), ("blurred and moving", "moving_")):
            zero, error = motion[f"{prefix}zero_epe_px"], motion[f"{prefix}epe_px"]
            table.add_row(title, _number(zero, 2), _number(error, 2), _number(zero - error, 2, "+"))
        _console.print(table)
        off = motion["orientation_error_deg"]
        if not math.isnan(off):
            say(f"orientation of the motion: {off:.0f} degrees off; chance is 45")
    selected, dilated = result.get("selected_share"), result.get("dilated_share")
    if selected is not None and dilated is not None:
        say(
            f"mask at threshold {result['threshold']:g}: {selected:.1%} of the pixels selected, "
            f"{dilated:.1%} dilated by their neighbours"
        )


def _print_thresholds(result: Mapping[str, Any]) -> None:
    """A row a threshold, if several were scored."""
    rows = result.get("thresholds", ())
    if not rows:
        return
    table = Table(title=f"{result['dataset']}: scores by threshold")
    for column in ("threshold", "selected", "dilated"):
        table.add_column(column, justify="right")
    for name in rows[0]["scores"]:
        table.add_column(SCORE_TITLES.get(name, name), justify="right")
    for row in rows:
        table.add_row(
            f"{row['threshold']:g}",
            *(f"{row[name]:.1%}" for name in ("selected_share", "dilated_share")),
            *(_number(value, 2 if name.endswith("_db") else 4) for name, value in row["scores"].items()),
        )
    _console.print(table)


def _print_definitions(result: Mapping[str, Any]) -> None:
    """Every definition of PSNR, SSIM and the like side by side, if they were asked for."""
    definitions = result.get("definitions")
    if not definitions:
        return
    table = Table(title=f"{result['dataset']}: one result by every definition")
    table.add_column("definition")
    for column in ("blurry", "restored"):
        table.add_column(column, justify="right")
    table.add_column("used by")
    own = list(zip(result["blurry_scores"].values(), result["scores"].values(), strict=True))
    for key, one in definitions.items():
        values = (_number(one[kind], one["digits"]) for kind in ("blurry", "restored"))
        mark = " *" if (one["blurry"], one["restored"]) in own else ""
        table.add_row(f"{key}{mark}", *values, one["used_by"])
    _console.print(table)
    say(f"* as protocol {result['protocol']['name']} scores here; docs/protocols.md says what each is")
    for key, one in definitions.items():
        if one["unavailable"] is not None:
            say(f"{key}: {one['unavailable']}")
        elif one["left_out"] == result["images"]:
            say(f"{key}: no image has it (no mask, no blurred pixel, or too small)")
        elif one["left_out"]:
            say(f"{key}: {one['left_out']} of {result['images']} images have none and are left out")


@first_only
def print_measures(measures: Mapping[str, float]) -> None:
    """Print what a task measured that restores no pictures.

    Args:
        measures: of the test, by name.
    """
    table = Table(title="measures of the test split")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in measures.items():
        table.add_row(name, _number(value, 2 if name.endswith("_db") else 4))
    _console.print(table)


@first_only
def print_cells(
    title: str,
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: int,
    styles: Mapping[tuple[int, int], str],
) -> None:
    """Print a table of text.

    Args:
        title: what stands above.
        heading: of the columns.
        rows: as long as the heading.
        words: how many columns, from the left, hold words; the others hold numbers.
        styles: Rich's (``bold``, ``underline``), by row and column.
    """
    table = Table(title=escape(title), box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column, name in enumerate(heading):
        justify: JustifyMethod = "left" if column < words else "right"
        lines = [*name.split(), *(line for row in rows for line in row[column].split("\n"))]
        longest = max(map(len, lines), default=0)
        table.add_column(escape(name), justify=justify, overflow="fold", min_width=min(longest, _SHORT))
    for at, row in enumerate(rows):
        table.add_row(*(Text(cell, styles.get((at, column), "")) for column, cell in enumerate(row)))
    _console.print(table)


def _number(value: float, digits: int, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def quieten() -> None:
    """Leave out what Lightning says on every run and nobody can act on here."""
    for message in (
        # Our samplers start where the run stopped, so that an ordinary loader is as good as a resumable one.
        ".*your dataloader is not resumable.*",
        # On two cores, workers cost more than they give.
        ".*does not have many workers.*",
        # PyTorch's tree utilities, called by Lightning.
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*Checkpoint directory .* exists and is not empty.*",
        # Gradients of depth-wise convolutions come in channels_last; DDP copies them, which is quick.
        ".*Grad strides do not match bucket view strides.*",
        # So it is where the first step overflows in half precision, and is left out.
        ".*Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`.*",
        # Which is what is frozen.
        ".*module\\(s\\) in eval mode at the start of training.*",
        # A training is one long epoch, counted in steps.
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
