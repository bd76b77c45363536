"""The diagrams of a subject: curves of training, scores of images, cost against quality."""

from collections.abc import Sequence

from deblur_lab.charts import (
    Dot,
    Interval,
    Line,
    Strip,
    dot_chart,
    interval_chart,
    line_chart,
    strip_chart,
)
from deblur_lab.leaderboard import Entry, Leaderboard
from deblur_lab.model_differences import ModelDifference
from deblur_lab.report_measures import measure_of
from deblur_lab.report_page.markup import escaped, notes
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
_INPUT = "blurry input"


def legend(models: Sequence[Model]) -> str:
    """Which colour is whose; nothing of a single model."""
    if len(models) < 2:
        return ""
    items = "".join(
        f'<li class="c{model.colour % 8}"><span class=swatch></span>{escaped(model.label)}</li>'
        for model in models
    )
    return f"<ul class=legend>{items}</ul>"


def curves(subject: Subject) -> str:
    """Of all runs over each other, those of one model in one colour; nothing where none was logged."""
    models = subject.models[:MOST_MODELS]
    charts = []
    for name, title in _CURVES:
        if name == "train/loss" and len({_loss(model) for model in models}) > 1:
            # Losses of different parts are different quantities: each has a chart of its own.
            charts += [
                line_chart(f"{title}: {model.label}", _lines([model], name), "step") for model in models
            ]
        else:
            charts.append(line_chart(title, _lines(models, name), "step"))
    drawn = "".join(charts)
    if not drawn:
        return ""
    return f"{legend(models)}<div class=charts>{drawn}</div>{_left_out(subject)}"


def _loss(model: Model) -> frozenset[str]:
    """Of what parts its loss is made."""
    return frozenset(name for run, _ in model.members for name in run.curves if name.startswith("train/loss"))


def _lines(models: Sequence[Model], name: str) -> list[Line]:
    return [
        Line(model.label_of(run), model.colour, run.curves[name])
        for model in models
        for run, _ in model.members
        if name in run.curves
    ]


def distributions(subject: Subject) -> str:
    """Scores of the single images, a strip a model; nothing where no run kept them."""
    charts = []
    for score in _SCORES:
        strips: list[Strip] = []
        inputs: dict[str, float] = {}
        for model in subject.models[:MOST_MODELS]:
            restored, blurry = model.image_scores(score)
            inputs = inputs or {name: value for name, value in blurry.items() if value == value}
            strips.append(Strip(model.label, model.colour, list(restored.items())))
        if any(strip.values for strip in strips):
            measure = measure_of(score)
            before = Strip(_INPUT, None, list(inputs.items()))
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
    ours = [(at, entry) for at, entry in enumerate(board.entries) if _known(entry, column)]
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
            Interval(f"{pair.first} - {pair.second}", found.mean, found.low, found.high)
            for pair, found in pairs[:_MOST_PAIRS]
        ]
        title = f"difference of {measure_of(score).title}, 95 % interval"
        charts.append(interval_chart(title, intervals, 2))
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
