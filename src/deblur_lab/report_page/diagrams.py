"""The diagrams of a subject: curves of training, scores of images, cost against quality."""

from collections.abc import Sequence

from deblur_lab.charts import (
    Dot,
    Interval,
    Line,
    Strip,
    cut,
    dot_chart,
    interval_chart,
    line_chart,
    strip_chart,
)
from deblur_lab.leaderboard import Entry, Leaderboard
from deblur_lab.model_differences import BLURRY, ModelDifference
from deblur_lab.report_measures import measure_of
from deblur_lab.report_page.markup import escaped, notes, titled
from deblur_lab.report_page.subjects import Model, Subject
from deblur_lab.report_tables import threshold_points

MOST_MODELS = 12
"""More models in one diagram cannot be told apart: the first ones are drawn."""

_CURVES = (
    ("train/loss", "training loss (running mean)"),
    ("val/psnr_db", "validation PSNR (dB)"),
    ("val/weighted_psnr_db", "validation weighted PSNR (dB)"),
)
_MOST_PAIRS = 16
_SCORES = ("psnr_db", "weighted_psnr_db")


def short_names(models: Sequence[Model], most: int = 34) -> dict[str, str]:
    """By the labels of models, what they are called where there is little room; no two the same."""
    names: dict[str, str] = {}
    for model in models:
        name = cut(model.label, most)
        again = 2
        while name in names.values():
            name = f"{cut(model.label, most - 3)} #{again}"
            again += 1
        names[model.label] = name
    return names


def legend(models: Sequence[Model]) -> str:
    """Which colour is whose; nothing of a single model."""
    if len(models) < 2:
        return ""
    names = short_names(models)
    items = "".join(
        f'<li class="c{model.colour % 8}"{titled(model.label, names[model.label])}>'
        f"<span class=swatch></span>{escaped(names[model.label])}</li>"
        for model in models
    )
    return f"<ul class=legend>{items}</ul>"


def curves(subject: Subject) -> str:
    """Of all runs over each other, those of one model in one colour; nothing where none was logged.

    The stages of a training follow each other, their steps added up.
    """
    models = subject.models[:MOST_MODELS]
    charts: list[str] = []
    seen: set[str] = set()
    for name, title in _CURVES:
        lines = _losses(models) if name == "train/loss" else {"": _validations(models, name)}
        # Losses of different parts are different quantities: each kind has a chart of its own.
        for whose, drawn_lines in lines.items():
            chart = line_chart(f"training loss: {whose}" if len(lines) > 1 else title, drawn_lines, "step")
            if chart:
                charts.append(chart)
                seen |= {line.label for line in drawn_lines}
    if not charts:
        return ""
    shown = [model for model in models if any(model.label_of(run) in seen for run, _ in model.members)]
    drawn = "".join(charts)
    return f"{legend(shown)}<div class=charts>{drawn}</div>{notes(_stages(shown))}{_left_out(subject)}"


def _losses(models: Sequence[Model]) -> dict[str, list[Line]]:
    """Curves of the loss, those of one kind together, by what has them: models, or stages of one."""
    lines: dict[frozenset[str], list[Line]] = {}
    whose: dict[frozenset[str], dict[str, None]] = {}
    names = short_names(models)
    for model in models:
        for run, _ in model.members:
            for part in run.parts:
                points = part.curves.get("train/loss", [])
                if not points:
                    continue
                kind = frozenset(name for name in part.curves if name.startswith("train/loss"))
                moved = [(step + part.first_step, value) for step, value in points]
                lines.setdefault(kind, []).append(Line(model.label_of(run), model.colour, moved))
                called = f"{names[model.label]} ({part.name})" if part.name else names[model.label]
                whose.setdefault(kind, {})[called] = None
    return {", ".join(whose[kind]): lines[kind] for kind in lines}


def _validations(models: Sequence[Model], name: str) -> list[Line]:
    """Curves of a measure, a line a run: whatever is trained, it is a measure of what the net restores."""
    lines = []
    for model in models:
        for run, _ in model.members:
            points = [
                (step + part.first_step, value)
                for part in run.parts
                for step, value in part.curves.get(name, [])
            ]
            if points:
                lines.append(Line(model.label_of(run), model.colour, points))
    return lines


def _stages(models: Sequence[Model]) -> list[str]:
    """Of each model that was trained in stages, where they begin."""
    told = []
    for model in models:
        parts = model.members[0][0].parts
        if len(parts) > 1:
            named = ", then ".join(f"{part.name} ({part.steps} steps)" for part in parts)
            told.append(f"{model.label} was trained in stages, which follow each other here: {named}.")
    return told


def distributions(subject: Subject) -> str:
    """Scores of the single images, a strip a model; nothing where no run kept them."""
    charts = []
    names = short_names(subject.models)
    for score in _SCORES:
        strips: list[Strip] = []
        inputs: dict[str, float] = {}
        for model in subject.models[:MOST_MODELS]:
            restored, blurry = model.image_scores(score)
            inputs = inputs or {name: value for name, value in blurry.items() if value == value}
            strips.append(Strip(names[model.label], model.colour, list(restored.items())))
        if any(strip.values for strip in strips):
            measure = measure_of(score)
            before = Strip(BLURRY, None, list(inputs.items()))
            title = f"{measure.title} of each image"
            charts.append(strip_chart(title, [before, *strips], 2, " dB"))
    drawn = "".join(charts)
    if not drawn:
        return ""
    seeds = any(len(model.members) > 1 for model in subject.models)
    told = (
        "A dot is an image; the box holds the middle half of them, the line in it is the median. Names: "
        "point at a dot, or go to a strip and use the arrow keys."
    )
    return (
        f"{notes([told + (' Of several seeds, an image has its mean.' if seeds else '')])}"
        f"<div class=charts>{drawn}</div><output class=said aria-live=polite></output>{_left_out(subject)}"
    )


def cost_against_quality(board: Leaderboard) -> str:
    """PSNR over multiply-adds, the area of a dot by parameters; nothing where fewer than two are known.

    Published rows have their place there if their costs are of pictures of the same size.
    """
    column = "psnr_db"
    ours = [
        (at, entry) for at, entry in enumerate(board.entries) if _known(entry, column) and not entry.repeats
    ]
    sizes = {entry.size_px for _, entry in ours}
    if len(sizes) != 1:
        return ""
    (size_px,) = sizes
    printed = [entry for entry in board.published if _known(entry, column)]
    beside = [entry for entry in printed if entry.size_px == size_px]
    dots = [_dot(entry, column, at) for at, entry in ours] + [_dot(entry, column, None) for entry in beside]
    measure = measure_of(column)
    size = "" if size_px is None else f" for {size_px[0]} x {size_px[1]} px"
    chart = dot_chart(f"{measure.title} by cost", dots, f"multiply-adds{size}", 2)
    if not chart:
        return ""
    told = ["The area of a dot is the number of parameters."]
    if beside:
        told.append("Hollow dots were printed elsewhere; their protocol stands in the table.")
    if len(beside) < len(printed):
        told.append(
            f"{len(printed) - len(beside)} published rows are left out: their costs are of another size."
        )
    return f"<div class=charts>{chart}</div>{notes([' '.join(told)])}"


def _known(entry: Entry, column: str) -> bool:
    return bool(entry.multiply_adds) and entry.cells.get(column) is not None


def _dot(entry: Entry, column: str, colour: int | None) -> Dot:
    cell, cost = entry.cells[column], entry.multiply_adds
    assert cell is not None
    assert cost is not None
    return Dot(entry.label if colour is not None else entry.model, colour, cost, cell.mean, entry.parameters)


def interval_charts(differences: Sequence[ModelDifference]) -> str:
    """Differences in PSNR and weighted PSNR with their intervals, a line a pair."""
    charts = []
    for score in _SCORES:
        pairs = [(pair, pair.scores[score]) for pair in differences if score in pair.scores]
        intervals = [
            Interval(f"{cut(pair.first, 17)} - {cut(pair.second, 17)}", found.mean, found.low, found.high)
            for pair, found in pairs[:_MOST_PAIRS]
        ]
        title = f"difference of {measure_of(score).title}, 95 % interval"
        charts.append(interval_chart(title, intervals, 3))
    drawn = "".join(charts)
    return f"<div class=charts>{drawn}</div>" if drawn else ""


def thresholds(subject: Subject) -> str:
    """Weighted PSNR against the share of pixels that the mask selects, a point for each threshold."""
    charts = []
    for model in subject.models:
        for run, result in model.members:
            points = threshold_points(result)
            if len(points) > 1:
                line = Line(model.label, 0, [(share, score) for share, score, _ in points])
                labels = [label for _, _, label in points]
                title = f"weighted PSNR (dB) at thresholds: {model.label_of(run)}"
                charts.append(line_chart(title, [line], "% of pixels selected", labels))
    return f"<div class=charts>{''.join(charts)}</div>" if charts else ""


def _left_out(subject: Subject) -> str:
    more = len(subject.models) - MOST_MODELS
    return notes([f"Of {len(subject.models)} models the first {MOST_MODELS} are drawn."]) if more > 0 else ""
