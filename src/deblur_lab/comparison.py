"""Runs side by side: a row for each way of setting them, over seeds, and what a paper printed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from deblur_lab.finished_runs import Run, dataset_of, is_made_up
from deblur_lab.model_differences import Candidate, ModelDifference, model_differences
from deblur_lab.published_scores import NUMBERS, PublishedRow, published
from deblur_lab.report_measures import MEASURES, Spread, measure_of, over_seeds, place_of, spread_of
from deblur_lab.scored_results import (
    Scored,
    by_pictures,
    images_of,
    is_partial,
    known_model,
    mixed,
    repeated_run,
    same_pictures,
    scored_by,
    seed_of,
    steps_of,
    training_sets,
)
from deblur_lab.setting_differences import UNSET, differing, shortened, typed
from deblur_lab.stages import in_its_stage

SETTINGS_TOLD = 4
"""Of more settings than these, a table has one column for all."""
REPEATED = "† scores a net again that has a row: it is neither ranked nor compared with others."
"""What stands beside a table in which evaluations of its own runs are."""


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
        members: its runs, each with its result.
        repeats: the run in the table whose net it scores again, of such an evaluation; it is not ranked.
    """

    settings: tuple[str, ...]
    seeds: tuple[str, ...]
    runs: int
    cells: Mapping[str, Spread | None]
    trained_on: str
    protocol: str
    evaluated: str = ""
    names: tuple[str, ...] = ()
    members: Sequence[Scored] = field(default=(), repr=False, compare=False)
    repeats: str = ""


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

    @cached_property
    def differences(self) -> Sequence[ModelDifference]:
        """Of its rows, pair by pair, and to the blurry input.

        Raises:
            DataError: the scores of a run's images cannot be read.
        """
        candidates = [Candidate(self.label(row), row.members) for row in self.rows if not row.repeats]
        first = self.columns[0] if self.columns else ""
        best = next((self.label(row) for row in self.rows if first and self.is_best(row, first)), "")
        return model_differences(candidates, best, self.label(self.rows[0]))

    @cached_property
    def model(self) -> str:
        """The name of the model that all runs are of; empty if they are of several, or it is not known."""
        names = {known_model(run) for row in self.rows if not row.evaluated for run, _ in row.members}
        return names.pop() if len(names) == 1 else ""

    def label(self, row: Row) -> str:
        """What tells a row from the others, in words: its settings, or its runs where those are many.

        A row that nothing tells from others is called as its model.
        """
        if row.evaluated:
            return row.evaluated
        if len(self.settings) > SETTINGS_TOLD:
            return ", ".join(row.names)
        pairs = zip(self.headings, row.settings, strict=True)
        told = [f"{name}={value}" for name, value in pairs if value != UNSET]
        if len({one.trained_on for one in self.rows if not one.evaluated}) > 1:
            told.append(f"trained on {row.trained_on}")
        return ", ".join(told) or self.model or ", ".join(row.names)

    @property
    def runs(self) -> frozenset[Path]:
        """The folders of all runs and evaluations in it."""
        return frozenset(run.folder for row in self.rows for run, _ in row.members)

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
        return self.place(row, column) == 1

    def place(self, row: Row, column: str) -> int | None:
        """1 for the best row by a measure, 2 for the second, else None; as `places` has it."""

        def mean(one: Row) -> float | None:
            cell = one.cells[column]
            return None if cell is None or one.repeats else cell.mean

        return place_of(row, self.rows, mean, measure_of(column))


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """The tables across runs: one for each experiment, dataset and protocol that several runs have.

    An evaluation, of which no experiment is known, stands in each of those of its dataset and protocol whose
    pictures are the same, made-up ones apart from others; if there is none, in one of evaluations alone.

    Args:
        runs: as found, evaluations among them.
    """
    trained: dict[tuple[Any, ...], list[Scored]] = {}
    evaluations: dict[tuple[Any, ...], list[Scored]] = {}
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
        beside = [one for one in others if any(same_pictures(one[1], result) for _, result in members)]
        # Another evaluation of a run's own net is no model to compare it with.
        runs_here = [run for run, _ in members]
        rivals = [run for run, _ in beside if not repeated_run(run, runs_here)]
        if len(members) + len(rivals) > 1:
            placed |= {id(result) for _, result in beside}
            tables.append(_compared(members, beside))
    for found in evaluations.values():
        alone = [one for one in found if id(one[1]) not in placed]
        tables += [_compared([], group) for group in by_pictures(alone) if len(group) > 1]
    return tables


def _compared(members: Sequence[Scored], evaluations: Sequence[Scored]) -> Comparison:
    """A table of runs, and of evaluations beside them; one of both may be empty."""
    every = [*members, *evaluations]
    settings, roots = _compared_settings(members)
    names = dict.fromkeys([*MEASURES, *(name for _, result in every for name in result["scores"])])
    columns = tuple(
        name for name in names if any(measure_of(name).of(result) is not None for _, result in every)
    )
    rows: dict[tuple[tuple[str, ...], str], list[Scored]] = {}
    for run, result in members:
        values = tuple(typed(run.settings.get(key, UNSET)) for key in settings)
        rows.setdefault((values, training_sets(run)), []).append((run, result))
    # Rows may differ in their data, such as in the patch size, and be scored on the same pictures.
    other_data = any(key.startswith("data.") for key in settings) and len(by_pictures(every)) > 1
    experiments = members[0][0].experiments if members else ()
    of = "evaluations" if not members else ", ".join(experiments) or "runs"
    repeats = {id(run): repeated_run(run, [run for run, _ in members]) for run, _ in evaluations}
    ranked = [*members, *(one for one in evaluations if not repeats[id(one[0])])]
    notes = [roots, mixed(ranked), REPEATED if any(repeats.values()) else ""]
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
                    tuple(dict.fromkeys(seed_of(run) for run, _ in alike)),
                    len(alike),
                    {name: over_seeds(name, alike) for name in columns},
                    trained_on,
                    together(scored_by(result) for _, result in alike),
                    names=tuple(run.name for run, _ in alike),
                    members=alike,
                )
                for (values, trained_on), alike in rows.items()
            ),
            *(
                Row(
                    ("-",) * len(settings),
                    (),
                    1,
                    {name: spread_of(name, [result]) for name in columns},
                    training_sets(run),
                    scored_by(result),
                    run.evaluated,
                    members=[(run, result)],
                    repeats=repeats[id(run)],
                )
                for run, result in evaluations
            ),
        ],
        {} if other_data else _blurry(every, columns),
        f"{first['protocol']['name']}{part}",
        " ".join([origin_of(members, evaluations), *filter(None, notes)]),
        is_made_up(first),
        is_partial(first),
        tuple(row for name in experiments for row in published(name)),
    )


def _compared_settings(members: Sequence[Scored]) -> tuple[tuple[str, ...], str]:
    """What runs differ in; and what there is to say of folders of data, which are places and no settings.

    They stay where runs were scored on different pictures, as those are then of different data.
    """
    found = differing([run.settings for run, _ in members])
    roots = [key for key in found if in_its_stage(key).startswith("data.") and key.endswith("root")]
    if not roots or len(by_pictures(members)) > 1:
        return found, ""
    told = f"The runs' {together(map(shortened, roots))} differ, and the test pictures are the same."
    return tuple(key for key in found if key not in roots), told


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def together(texts: Iterable[str]) -> str:
    """Different texts, each once."""
    return " or ".join(dict.fromkeys(texts))


def _blurry(members: Sequence[Scored], columns: Sequence[str]) -> dict[str, Spread | None]:
    """The scores of the input, once for each set of test pictures."""
    inputs = [{"scores": group[0][1]["blurry_scores"]} for group in by_pictures(members)]
    return {name: spread_of(name, inputs) for name in columns}


def origin_of(members: Sequence[Scored], evaluations: Sequence[Scored]) -> str:
    """What must stand beside the numbers of several runs for them to mean anything.

    Args:
        members: of trainings.
        evaluations: beside them; one of both may be empty.
    """
    every = [*members, *evaluations]
    runs, results = [run for run, _ in members], [result for _, result in every]
    parts = []
    if members:
        parts.append(f"Mean ± sample standard deviation over seeds; {_counted(len(runs), 'run')}")
    if evaluations:
        parts.append(_counted(len(evaluations), "evaluation"))
    for key, what in {"steps": "steps", "precision": "", "hardware": "", "commit": "commit"}.items():
        found = [steps_of(run) if key == "steps" else run.scores.get(key) for run, _ in every]
        text = together(str(value) for value in found if value is not None)
        if text:
            parts.append(f"{what} {text}" if what == "commit" else f"{text} {what}".strip())
    images = together(images_of(result).removesuffix(" images") for result in results)
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
