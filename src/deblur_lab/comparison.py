"""Runs side by side: a row for each way of setting them, over seeds, and what a paper printed."""

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deblur_lab.finished_runs import Run, dataset_of, is_made_up
from deblur_lab.published_scores import NOT_TOLD, NUMBERS, PublishedRow, published
from deblur_lab.run_folders import CHANGEABLE_ON_RESUME
from deblur_lab.stages import in_its_stage

# Where and by whom a run is done, and what is made of other settings: not what is compared.
_NOT_COMPARED = (
    "datamodule",
    "experiment",
    "output",
    "resume",
    "seed",
    *(key for key in CHANGEABLE_ON_RESUME if not key.endswith("root")),
)
# The task and the loss follow from the net where they differ with it.
_FOLLOW_THE_NET = ("model._target_", "model.loss._target_")
_GROUPS = ("model.net.", "model.", "data.", "trainer.")
UNSET = "not set"
"""The value of a setting that a run does not have."""
# Scores of the same pictures, computed on two machines, differ by less.
_AGREEING = 0.005
# A run, and its result on one dataset.
_Scored = tuple[Run, Mapping[str, Any]]


@dataclass(frozen=True)
class Measure:
    """A number that runs are compared by.

    Attributes:
        title: with its unit.
        digits: behind the point.
        better: 1 where more is better, -1 where less is, 0 where it is no merit.
        of: finds it in a result of ``scores.json``; None where it is not there.
    """

    title: str
    digits: int
    better: int
    of: Callable[[Mapping[str, Any]], float | None]


def _inside(*keys: str) -> Callable[[Mapping[str, Any]], float | None]:
    def find(result: Mapping[str, Any]) -> float | None:
        node: Any = result
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node if isinstance(node, int | float) else None

    return find


# In the order of a table's columns. Three digits of PSNR, as the papers have.
MEASURES: Mapping[str, Measure] = {
    "psnr_db": Measure("PSNR (dB)", 3, 1, _inside("scores", "psnr_db")),
    "ssim": Measure("SSIM", 4, 1, _inside("scores", "ssim")),
    "weighted_psnr_db": Measure("weighted PSNR (dB)", 3, 1, _inside("scores", "weighted_psnr_db")),
    "weighted_ssim": Measure("weighted SSIM", 4, 1, _inside("scores", "weighted_ssim")),
    "blur_iou": Measure("blur IoU", 3, 1, _inside("blur_detection", "iou")),
    "blur_f1": Measure("blur F1", 3, 1, _inside("blur_detection", "f1")),
    "epe_px": Measure("motion error (px)", 3, -1, _inside("motion", "epe_px")),
    "zero_epe_px": Measure("error of no motion (px)", 3, 0, _inside("motion", "zero_epe_px")),
    "orientation_error_deg": Measure(
        "orientation error (°)", 1, -1, _inside("motion", "orientation_error_deg")
    ),
}


def measure_of(name: str) -> Measure:
    """One of `MEASURES`, or a score of somebody's own protocol, of which we do not know what is better."""
    own = Measure(name, 3 if name.endswith("_db") else 4, 0, _inside("scores", name))
    return MEASURES.get(name, own)


@dataclass(frozen=True)
class Spread:
    """Several values of one number.

    Attributes:
        mean: of them.
        deviation: their sample standard deviation; None of a single one.
        count: how many there are.
    """

    mean: float
    deviation: float | None
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None of no values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seeds alone, or one evaluation.

    Attributes:
        settings: their values of the settings that the table compares, as they are typed.
        seeds: of the runs, each once; none of an evaluation.
        runs: how many there are; more than seeds where the same was run again.
        cells: what they reached, by the names of `MEASURES`; a value a seed, the mean of its runs.
        trained_on: the training sets, as `training_sets` has them.
        protocol: that they were scored by, as `scored_by` has it.
        evaluated: what an evaluation scored; empty for runs.
        names: of the runs.
    """

    settings: tuple[str, ...]
    seeds: tuple[str, ...]
    runs: int
    cells: Mapping[str, Spread | None]
    trained_on: str
    protocol: str
    evaluated: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A table across runs of the same experiments, scored on the same dataset by the same protocol.

    Attributes:
        title: the experiments, and the dataset.
        settings: what the rows differ in, by dotted keys.
        columns: names, as `measure_of` takes them, of what some row has.
        rows: in the order of the runs, evaluations behind them.
        blurry: the scores of the blurry input, where all rows have the same; by the names of `MEASURES`.
        protocol: that the blurry input was scored by, and of a part of a test split how large it is.
        origin: what must stand beside the numbers for them to mean anything.
        made_up: whether the scores are of made-up data.
        partial: whether they are of another number of pictures than the test split has.
        published: what the paper printed, if the experiments say so.
    """

    title: str
    settings: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[Row]
    blurry: Mapping[str, Spread | None]
    protocol: str
    origin: str
    made_up: bool
    partial: bool = False
    published: Sequence[PublishedRow] = field(default_factory=tuple)

    @property
    def headings(self) -> tuple[str, ...]:
        """Names for the settings, as short as they can be told apart."""
        short = [shortened(key) for key in self.settings]
        return tuple(
            name if short.count(name) == 1 else key for name, key in zip(short, self.settings, strict=True)
        )

    @property
    def published_columns(self) -> tuple[str, ...]:
        """Names in `NUMBERS` that some published row has."""
        return tuple(name for name in NUMBERS if any(name in row.numbers for row in self.published))

    def is_best(self, row: Row, column: str) -> bool:
        """Whether no other row is better by a measure, in the digits that are shown."""
        measure, cell = measure_of(column), row.cells[column]
        others = [other.cells[column] for other in self.rows]
        means = [round(other.mean, measure.digits) for other in others if other is not None]
        if measure.better == 0 or cell is None or len(means) < 2:
            return False
        return round(cell.mean, measure.digits) == (max if measure.better > 0 else min)(means)


def training_sets(run: Run) -> str:
    """What a network was trained on, in words; made-up data are marked."""
    return " + ".join(run.trained_on) or NOT_TOLD


def scored_by(result: Mapping[str, Any]) -> str:
    """The name of the protocol of a result, and what else its numbers go by.

    That is whether the test-time local converter was on, of which nothing is said where another program
    restored the pictures; that the dataset's own protocol is another; and how large a part of a split is.
    """
    name, on = str(result["protocol"]["name"]), result.get("tlc")
    parts = [name, *([] if on is None else [f"TLC {'on' if on else 'off'}"])]
    if own_protocol(result):
        parts.append(f"not {own_protocol(result)}, its own")
    if is_partial(result):
        parts.append(images_of(result))
    return ", ".join(parts)


def images_of(result: Mapping[str, Any]) -> str:
    """How many images a result is of: all of its test split, or which part.

    >>> images_of({"images": 5}), images_of({"images": 3, "missing": 2})
    ('5 images', '3 of 5 images')
    >>> images_of({"images": 6, "published_images": 1111})
    '6 of 1111 images'
    """
    images, published = result["images"], result.get("published_images") or 0
    there = images + _missing(result)
    if 0 < published < there:
        return f"{images} (published: {published}) images"
    whole = max(there, published)
    return f"{images} of {whole} images" if images < whole else f"{images} images"


def is_partial(result: Mapping[str, Any]) -> bool:
    """Whether a result is of another number of images than its dataset's test split has."""
    published = result.get("published_images")
    return _missing(result) > 0 or published not in (None, result["images"])


def own_protocol(result: Mapping[str, Any]) -> str | None:
    """The name of the protocol of a dataset's tables, where a result is by another; else None."""
    own = result.get("own_protocol")
    return None if own in (None, result["protocol"]["name"]) else str(own)


def _missing(result: Mapping[str, Any]) -> int:
    """How many images of the test split a result leaves out, as they were not there to be scored."""
    return int(result.get("missing") or 0)


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """The tables across runs: one for each experiment, dataset and protocol that several runs have.

    An evaluation, of which no experiment is known, stands in each of those of its dataset and protocol whose
    pictures are the same, made-up ones apart from others; if there is none, in one of evaluations alone.

    Args:
        runs: as found, evaluations among them.
    """
    trained: dict[tuple[Any, ...], list[_Scored]] = {}
    evaluations: dict[tuple[Any, ...], list[_Scored]] = {}
    for run in runs:
        for result in run.scores["results"]:
            # Means over a part of a split are comparable with none over all of it.
            part = images_of(result) if is_partial(result) else ""
            same = (dataset_of(result), result["split"], result["protocol"]["name"], part)
            if run.evaluated:
                evaluations.setdefault(same, []).append((run, result))
            else:
                trained.setdefault((*same, run.experiments), []).append((run, result))
    tables, placed = [], set()
    for key, members in trained.items():
        others = evaluations.get(key[:-1], [])
        beside = [one for one in others if any(_same_pictures(one[1], result) for _, result in members)]
        placed |= {id(result) for _, result in beside}
        if len(members) + len(beside) > 1:
            tables.append(_compared(members, beside))
    for found in evaluations.values():
        alone = [one for one in found if id(one[1]) not in placed]
        tables += [_compared([], group) for group in _by_pictures(alone) if len(group) > 1]
    return tables


def _same_pictures(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two results of one dataset and protocol are of the same pictures: their blurry scores agree."""
    first, second = one["blurry_scores"], other["blurry_scores"]
    return bool(one["images"] == other["images"]) and all(
        abs(first[name] - second[name]) < _AGREEING
        for name in first.keys() & second.keys()
        if None not in (first[name], second[name])
    )


def _by_pictures(evaluations: Sequence[_Scored]) -> list[list[_Scored]]:
    groups: list[list[_Scored]] = []
    for one in evaluations:
        fitting = next((group for group in groups if _same_pictures(group[0][1], one[1])), None)
        if fitting is None:
            groups.append([one])
        else:
            fitting.append(one)
    return groups


def _compared(members: Sequence[_Scored], evaluations: Sequence[_Scored]) -> Comparison:
    """A table of runs, and of evaluations beside them; one of both may be empty."""
    every = [*members, *evaluations]
    settings, roots = _compared_settings(members)
    names = dict.fromkeys([*MEASURES, *(name for _, result in every for name in result["scores"])])
    columns = tuple(
        name for name in names if any(measure_of(name).of(result) is not None for _, result in every)
    )
    rows: dict[tuple[tuple[str, ...], str], list[_Scored]] = {}
    for run, result in members:
        values = tuple(typed(run.settings.get(key, UNSET)) for key in settings)
        rows.setdefault((values, training_sets(run)), []).append((run, result))
    # Rows may differ in their data, such as in the patch size, and be scored on the same pictures.
    other_data = any(key.startswith("data.") for key in settings) and len(_by_pictures(every)) > 1
    experiments = members[0][0].experiments if members else ()
    of = "evaluations" if not members else ", ".join(experiments) or "runs"
    first = every[0][1]
    part = f", {images_of(first)}" if is_partial(first) else ""
    return Comparison(
        f"{of} on {dataset_of(first)}{part}",
        settings,
        columns,
        [
            *(
                Row(
                    values,
                    tuple(dict.fromkeys(_seed(run) for run, _ in alike)),
                    len(alike),
                    {name: _over_seeds(name, alike) for name in columns},
                    trained_on,
                    _together(scored_by(result) for _, result in alike),
                    names=tuple(run.name for run, _ in alike),
                )
                for (values, trained_on), alike in rows.items()
            ),
            *(
                Row(
                    ("-",) * len(settings),
                    (),
                    1,
                    {name: _spread_of(name, [result]) for name in columns},
                    training_sets(run),
                    scored_by(result),
                    run.evaluated,
                )
                for run, result in evaluations
            ),
        ],
        {} if other_data else _blurry(every, columns),
        f"{first['protocol']['name']}{part}",
        _origin(members, evaluations) + roots,
        is_made_up(first),
        is_partial(first),
        tuple(row for name in experiments for row in published(name)),
    )


def _compared_settings(members: Sequence[_Scored]) -> tuple[tuple[str, ...], str]:
    """What runs differ in; and what there is to say of folders of data, which are places and no settings.

    They stay where runs were scored on different pictures, as those are then of different data.
    """
    found = differing([run.settings for run, _ in members])
    roots = [key for key in found if in_its_stage(key).startswith("data.") and key.endswith("root")]
    if not roots or len(_by_pictures(members)) > 1:
        return found, ""
    told = f" The runs' {_together(map(shortened, roots))} differ, and the test pictures are the same."
    return tuple(key for key in found if key not in roots), told


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _together(texts: Iterable[str]) -> str:
    """Different texts, each once."""
    return " or ".join(dict.fromkeys(texts))


def _seed(run: Run) -> str:
    return str(run.scores.get("seed"))


def _over_seeds(column: str, alike: Sequence[_Scored]) -> Spread | None:
    """Runs of one seed are one value, their mean: repeated they say nothing of the spread over seeds."""
    values: dict[str, list[float]] = {}
    for run, result in alike:
        value = measure_of(column).of(result)
        if value is not None:
            values.setdefault(_seed(run), []).append(value)
    return spread([statistics.fmean(same) for same in values.values()])


def _spread_of(column: str, results: Sequence[Mapping[str, Any]]) -> Spread | None:
    values = [measure_of(column).of(result) for result in results]
    return spread([value for value in values if value is not None])


def _blurry(members: Sequence[_Scored], columns: Sequence[str]) -> dict[str, Spread | None]:
    """The scores of the input, once for each set of test pictures."""
    inputs = [{"scores": group[0][1]["blurry_scores"]} for group in _by_pictures(members)]
    return {name: _spread_of(name, inputs) for name in columns}


def differing(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The dotted keys that several runs do not all have the same value of.

    Seeds are left out, and what says where and by whom a run is done. Of classes that differ, their own
    arguments are left out.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    found = [
        key
        for key in keys
        if not any(f"{in_its_stage(key)}.".startswith(f"{other}.") for other in _NOT_COMPARED)
        if len({typed(one.get(key, UNSET)) for one in settings}) > 1
    ]
    classes = [key.removesuffix("_target_") for key in found if key.endswith("._target_")]
    found = [
        key
        for key in found
        if key.endswith("._target_")
        or all(key in one for one in settings)
        or not any(key.startswith(place) for place in classes)
    ]
    if "model.net._target_" in found:
        found = [key for key in found if key not in _FOLLOW_THE_NET]
    return tuple(found)


def typed(value: Any) -> str:  # noqa: ANN401 - any plain value
    """A value as it is typed; of a class its name.

    >>> typed([1, 2]), typed(True), typed("deblur_lab.models.LinearTrajectory")
    ('[1,2]', 'true', 'LinearTrajectory')
    """
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    is_class = isinstance(value, str) and re.fullmatch(r"(\w+\.)+[A-Z]\w*", value)
    return value.rpartition(".")[2] if is_class else str(value)


def shortened(key: str) -> str:
    """A dotted key without the group that it belongs to; of a class what it is the class of.

    >>> shortened("model.net.trajectory._target_"), shortened("model.loss.mask"), shortened("seed")
    ('trajectory', 'loss.mask', 'seed')
    """
    key = key.removesuffix("._target_")
    group = next((group for group in _GROUPS if key.startswith(group)), "")
    return key.removeprefix(group)


def _origin(members: Sequence[_Scored], evaluations: Sequence[_Scored]) -> str:
    every = [*members, *evaluations]
    runs, results = [run for run, _ in members], [result for _, result in every]
    parts = []
    if members:
        parts.append(f"Mean ± sample standard deviation over seeds; {_counted(len(runs), 'run')}")
    if evaluations:
        parts.append(_counted(len(evaluations), "evaluation"))
    for key, what in {"max_steps": "steps", "precision": "", "hardware": "", "commit": "commit"}.items():
        found = [run.scores.get(key) for run, _ in every]
        text = _together(str(value) for value in found if value is not None)
        if text:
            parts.append(f"{what} {text}" if what == "commit" else f"{text} {what}".strip())
    images = _together(images_of(result).removesuffix(" images") for result in results)
    split, protocol = results[0]["split"], results[0]["protocol"]["name"]
    parts.append(f"{images} images of the {split} split, protocol {protocol}")
    text = ", ".join(parts) + "."
    if is_made_up(results[0]):
        text += " The pictures are made up: no published number is comparable with these."
    seeds = {run.scores.get("seed") for run in runs}
    follows = any(
        re.fullmatch(r"data\.sources\[\d+\]\.seed", key) and run.settings[key] == "${seed}"
        for run in runs
        for key in run.settings
    )
    if follows and len(seeds) > 1:
        text += (
            " Each seed has test scenes of its own, so that the spread is theirs too: data.sources.0.seed=0 "
            "gives all the same."
        )
    return text
