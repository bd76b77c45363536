"""Models side by side, as the papers' main tables have them: all that was scored on the same pictures.

A row is a model, whatever experiment it was trained by; its runs differ in their seeds alone. What was
published of the same dataset stands with them, held against them only where it is of the same protocol.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deblur_lab.comparison import REPEATED, Comparison, compare, origin_of, together
from deblur_lab.config import configuration_root
from deblur_lab.data.published_sets import PUBLISHED
from deblur_lab.finished_runs import Run, dataset_of, is_made_up
from deblur_lab.model_differences import SCORES, Candidate, ModelDifference, model_differences
from deblur_lab.published_scores import NOT_TOLD, PublishedRow, read_rows
from deblur_lab.report_measures import MEASURES, Spread, measure_of, over_seeds, places, spread_of
from deblur_lab.scored_results import (
    Scored,
    by_pictures,
    evaluated_run,
    images_of,
    in_place_of,
    is_partial,
    mixed,
    model_of,
    repeated_run,
    scored_by,
    seed_of,
    training_sets,
)
from deblur_lab.setting_differences import UNSET, differing, shortened, typed
from deblur_lab.stages import in_its_stage

# Where the tables of whole models stand; those of ablations are of variants.
_TABLES = ("published/*.csv", "m2aenet/table1.csv", "aibnet/table1.csv")
# What the tables cost, by the file of whose rows they are.
_COSTS = {"m2aenet/table1.csv": "m2aenet/table2.csv"}
# Of more settings than these, a row names its experiment instead.
_SETTINGS = 3
_OWN_SCENES = re.compile(r"data\.sources\[\d+\]\.seed")
REFERENCE = "NAFNet"
"""The model that others are held against, where it is among them."""


@dataclass(frozen=True)
class Entry:
    """A row: a model of ours over its seeds, an evaluation, or a row that somebody printed.

    Attributes:
        model: its name, as the papers have it.
        details: what tells it from others of that name; may be empty.
        trained_on: the training sets.
        protocol: that it was scored by, as `scored_by` has it, or as it is told.
        cells: by the names in the leaderboard's columns; of what was printed, with no deviation.
        seeds: of its runs, each once; none of an evaluation and of what was printed.
        parameters: of the net; None where it is not known.
        multiply_adds: of one picture; None where it is not known.
        size_px: width and height of that picture.
        published: what was printed; None of ours.
        ranked: whether it is among those that best and second are found of.
        members: its runs, each with its result.
        repeats: the run in the leaderboard whose net it scores again, of such an evaluation; no model of its
            own, and not ranked.
    """

    model: str
    details: str
    trained_on: str
    protocol: str
    cells: Mapping[str, Spread | None]
    seeds: tuple[str, ...] = ()
    parameters: int | None = None
    multiply_adds: int | None = None
    size_px: tuple[int, int] | None = None
    published: PublishedRow | None = None
    ranked: bool = True
    members: Sequence[Scored] = field(default=(), repr=False, compare=False)
    repeats: str = ""

    @property
    def label(self) -> str:
        """What it is called where only words stand."""
        return f"{self.model} ({self.details})" if self.details else self.model


@dataclass(frozen=True)
class Leaderboard:
    """All models that were scored on the same pictures by the same protocol.

    Attributes:
        title: the dataset, and how many pictures.
        dataset: its name, as in ``scores.json``, without a mark.
        columns: names, as `measure_of` takes them, of what some row has.
        entries: ours, the best by the first column first.
        published: of the same dataset; none beside made-up data or a part of a test split.
        blurry: the scores of the blurry input, by column; empty where test pictures differ.
        protocol: that the blurry input was scored by.
        notes: what must stand beside the numbers for them to mean anything, by the line.
        made_up: whether the data are.
    """

    title: str
    dataset: str
    columns: tuple[str, ...]
    entries: Sequence[Entry]
    published: Sequence[Entry]
    blurry: Mapping[str, Spread | None]
    protocol: str
    notes: Sequence[str]
    made_up: bool

    def place(self, entry: Entry, column: str) -> int | None:
        """1 for the best entry by a measure, 2 for the second, else None; as `places` has it.

        Entries that are not ranked have no place, and take none.
        """
        return self._places[column].get(id(entry))

    @cached_property
    def _places(self) -> Mapping[str, Mapping[int, int | None]]:
        ranked = [entry for entry in (*self.entries, *self.published) if entry.ranked]
        found = {}
        for column in self.columns:
            means = [None if (cell := entry.cells.get(column)) is None else cell.mean for entry in ranked]
            found[column] = dict(zip(map(id, ranked), places(means, measure_of(column)), strict=True))
        return found

    @property
    def models(self) -> Sequence[Entry]:
        """The entries but for those that score a run's net again."""
        return [entry for entry in self.entries if not entry.repeats]

    @cached_property
    def differences(self) -> Sequence[ModelDifference]:
        """Of our models, pair by pair, and to the blurry input.

        Raises:
            DataError: the scores of a run's images cannot be read.
        """
        candidates = [Candidate(entry.label, entry.members) for entry in self.models]
        plain = next((entry.label for entry in self.models if entry.model == REFERENCE), "")
        return model_differences(candidates, self.models[0].label, plain)

    @property
    def runs(self) -> frozenset[Path]:
        """The folders of all runs and evaluations in it."""
        return frozenset(run.folder for entry in self.entries for run, _ in entry.members)


def tables_across(runs: Sequence[Run]) -> tuple[list[Leaderboard], list[Comparison]]:
    """The tables across runs: models side by side, and ways of setting one model.

    What would show the same runs twice is left out: a comparison of different models that a leaderboard
    holds, and a leaderboard of the very runs of a comparison of one model.

    Args:
        runs: as found, evaluations among them.

    Raises:
        DataError: a file of published numbers is damaged.
    """
    boards, comparisons = leaderboards(runs), compare(runs)
    settings = [
        one
        for one in comparisons
        if not (_of_models(one) and any(one.runs <= board.runs for board in boards))
    ]
    kept = {one.runs for one in settings}
    return [board for board in boards if board.published or board.runs not in kept], settings


def _of_models(comparison: Comparison) -> bool:
    """Whether a comparison's rows are of several models, or of none that is known."""
    runs = [run for row in comparison.rows for run, _ in row.members]
    return len({model_of(run) for run in runs if not run.evaluated}) != 1


def leaderboards(runs: Sequence[Run]) -> list[Leaderboard]:
    """One for each dataset, protocol and set of test pictures that several models were scored on.

    A single model has one if there are published rows to stand beside it.

    Args:
        runs: as found, evaluations among them.

    Raises:
        DataError: a file of published numbers is damaged.
    """
    alike: dict[tuple[Any, ...], list[Scored]] = {}
    for run in runs:
        for result in run.scores["results"]:
            part = images_of(result) if is_partial(result) else ""
            key = (dataset_of(result), result["split"], result["protocol"]["name"], part)
            alike.setdefault(key, []).append((run, result))
    trained = [run for run in runs if not run.evaluated]
    boards = [
        _leaderboard(_for_trainings(group, trained)) for same in alike.values() for group in _groups(same)
    ]
    # What models were tested on when they were trained comes before what they were evaluated on later.
    boards.sort(key=lambda board: not any(map(_tested, board.entries)))
    return [board for board in boards if len(board.models) + len(board.published) > 1]


def _tested(entry: Entry) -> bool:
    """Whether an entry is of a test that ended a training."""
    return any(not run.evaluated and run.training is None for run, _ in entry.members)


def _groups(scored: Sequence[Scored]) -> list[list[Scored]]:
    """Those of the same pictures, and those whose seeds have scenes of their own, made by the same rule."""
    groups: dict[Any, list[Scored]] = {}
    for number, group in enumerate(by_pictures(scored)):
        rules = [rule for run, _ in group if (rule := _rule_of_scenes(run))]
        groups.setdefault(rules[0] if rules else number, []).extend(group)
    order = {id(run): at for at, (run, _) in enumerate(scored)}
    return [sorted(group, key=lambda one: order[id(one[0])]) for group in groups.values()]


def _for_trainings(group: Sequence[Scored], trained: Sequence[Run]) -> list[Scored]:
    """Results of the same pictures, evaluations of runs in the place of these, as seeds of their models.

    Where a run has a result of its own, several evaluations score its net, or one does by another threshold
    of its mask, those stay what they are.
    """
    own = {run.folder for run, _ in group}
    nets = [evaluated_run(run, result, trained) for run, result in group]
    times = Counter(net.folder for net in nets if net is not None)
    return [
        (run if net is None or net.folder in own or times[net.folder] > 1 else in_place_of(net, run), result)
        for (run, result), net in zip(group, nets, strict=True)
    ]


def _evaluations(runs: Sequence[Run]) -> list[str]:
    """What is to be said where evaluations stand for trainings."""
    told = {Path(str(run.scores["checkpoint"])).name for run in runs if run.training is not None}
    if not told:
        return []
    return [
        f"Evaluations of runs' {together(sorted(told))} stand for the runs: seeds, settings and steps are "
        "those of the trainings, precision, hardware and commits those of the evaluations."
    ]


def _rule_of_scenes(run: Run) -> tuple[tuple[str, str], ...]:
    """How a run's scenes are made, if they follow its seed; else nothing."""
    if not any(_OWN_SCENES.fullmatch(key) and run.settings[key] == "${seed}" for key in run.settings):
        return ()
    sources = sorted((key, typed(value)) for key, value in run.settings.items() if _of_test(key))
    return tuple(sources)


def _of_test(key: str) -> bool:
    made = ("train_scenes", "val_scenes", "fresh_scenes", "cache_mb")
    return key.startswith("data.sources[") and not key.endswith(made)


def _leaderboard(members: Sequence[Scored]) -> Leaderboard:
    first = members[0][1]
    made_up, partial = is_made_up(first), is_partial(first)
    scores = {name: None for _, result in members for name in result["scores"]}
    names = [
        *(name for name in MEASURES if name in scores),
        *(name for name in scores if name not in MEASURES),
    ]
    columns = tuple(
        name for name in names if any(measure_of(name).of(result) is not None for _, result in members)
    )
    pictures = by_pictures(members)
    inputs = [{"scores": group[0][1]["blurry_scores"]} for group in pictures]
    trained = [one for one in members if not one[0].evaluated]
    evaluated = [one for one in members if one[0].evaluated]
    runs = [run for run, _ in trained]
    entries = [
        *_entries(trained, columns),
        *(_entry([one], columns, one[0].evaluated, repeated_run(one[0], runs)) for one in evaluated),
    ]
    entries = _told_apart(sorted(entries, key=lambda entry: _order(entry, columns)))
    notes = [origin_of(trained, evaluated), *_trained_for(entries)]
    notes += _evaluations(runs)
    published: list[Entry] = []
    if made_up or partial or first.get("names_like") is not None:
        known = PUBLISHED.get(first["dataset"])
        if known is not None and not made_up:
            notes.append("Published rows are of the whole test split: none stands beside these.")
    else:
        published = _published(first)
        if any(entry.multiply_adds is not None for entry in published):
            notes.append("Multiply-adds: ours are of a dense pass, published ones as their paper counts.")
    entries, published, said = _ranked(entries, published)
    notes += said
    return Leaderboard(
        f"{dataset_of(first)}, {images_of(first)}",
        str(first["dataset"]),
        columns,
        entries,
        published,
        {name: spread_of(name, inputs) for name in columns} if len(pictures) == 1 or not trained else {},
        str(first["protocol"]["name"]),
        notes,
        made_up,
    )


def _entries(trained: Sequence[Scored], columns: Sequence[str]) -> list[Entry]:
    """A row for each model and way of setting it."""
    models: dict[str, list[Scored]] = {}
    for run, result in trained:
        models.setdefault(model_of(run), []).append((run, result))
    entries = []
    for same in models.values():
        # Where data lie is a place, as all are scored on the same pictures.
        keys = [
            key
            for key in differing([run.settings for run, _ in same])
            if not (in_its_stage(key).startswith("data.") and key.endswith("root"))
        ]
        rows: dict[tuple[tuple[str, ...], str], list[Scored]] = {}
        for run, result in same:
            values = tuple(typed(run.settings.get(key, UNSET)) for key in keys)
            rows.setdefault((values, training_sets(run)), []).append((run, result))
        entries += [
            _entry(alike, columns, _details(keys, values, alike[0][0])) for (values, _), alike in rows.items()
        ]
    return entries


def _details(keys: Sequence[str], values: Sequence[str], run: Run) -> str:
    """What a model is set to where its runs differ: short, or else the experiment."""
    told = [f"{shortened(key)}={value}" for key, value in zip(keys, values, strict=True) if value != UNSET]
    if len(told) <= _SETTINGS:
        return ", ".join(told)
    named = ", ".join(run.experiments) or ", ".join(told[:_SETTINGS])
    return f"{named} and {len(told) - (0 if run.experiments else _SETTINGS)} settings"


def _ranked(
    entries: Sequence[Entry], published: Sequence[Entry]
) -> tuple[list[Entry], list[Entry], list[str]]:
    """Rows as they are ranked, and what is to be said of that.

    Published rows compete with ours of the same protocol, TLC and training sets only: of several such kinds,
    those that most rows of ours are of. Ours of other kinds then do not. Where no published row is of the
    kind of one of ours, ours compete among themselves.

    Args:
        entries: ours, the best first.
        published: those of another protocol not ranked.
    """
    printed = {kind for entry in published if entry.ranked and (kind := _kind(entry)) is not None}
    kinds = [kind for entry in entries if entry.ranked and (kind := _kind(entry)) in printed]
    kind = max(dict.fromkeys(kinds), key=kinds.count, default=None)
    notes = [REPEATED] if any(entry.repeats for entry in entries) else []
    if kind is None:
        if published:
            notes.append(
                "Best and second are found among ours: of no published row (†) is it known that it has the "
                "protocol, TLC and training sets of one of ours."
            )
        told = mixed([one for entry in entries if entry.ranked for one in entry.members])
        return list(entries), [replace(one, ranked=False) for one in published], notes + [told] * bool(told)
    ours = [replace(one, ranked=one.ranked and _kind(one) == kind) for one in entries]
    theirs = [replace(one, ranked=one.ranked and _kind(one) == kind) for one in published]
    if not all(one.ranked for one in (*ours, *theirs) if not one.repeats):
        protocol = next(one.protocol for one in theirs if one.ranked)
        trained_on = next(one.trained_on for one in theirs if one.ranked)
        notes.append(
            f"Best and second are found among rows of protocol {protocol} and trained on {trained_on}; "
            "those marked † are of another or an untold protocol, TLC or training set."
        )
    return ours, theirs, notes


def _kind(entry: Entry) -> tuple[bool, tuple[str, ...]] | None:
    """Whether the test-time local converter was on, and the training sets; None if one is not known.

    Made-up training sets have a mark, so that they are none of those that were published.
    """
    if entry.published is not None:
        on = {"on": True, "off": False}.get(entry.published.tlc)
    else:
        found = {result.get("tlc") for _, result in entry.members}
        on = found.pop() if len(found) == 1 else None
    if on is None or entry.trained_on == NOT_TOLD:
        return None
    sets = (name.lower().replace("-", "_") for name in entry.trained_on.split(" + "))
    return bool(on), tuple(sorted(sets))


def _entry(alike: Sequence[Scored], columns: Sequence[str], details: str, repeats: str = "") -> Entry:
    run = alike[0][0]
    model = model_of(run)
    costs = [cost for one, _ in alike if isinstance(cost := one.scores.get("cost"), Mapping)]
    cost = costs[0] if costs else {}
    size = cost.get("size_px")
    return Entry(
        model,
        details.removeprefix(f"{model}: "),
        training_sets(run),
        together(scored_by(result) for _, result in alike),
        {name: over_seeds(name, alike) for name in columns},
        () if run.evaluated else tuple(dict.fromkeys(seed_of(one) for one, _ in alike)),
        cost.get("parameters"),
        cost.get("multiply_adds"),
        None if size is None else (int(size[0]), int(size[1])),
        ranked=not repeats,
        members=alike,
        repeats=repeats,
    )


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Those of the same label with their runs' names."""
    labels = [entry.label for entry in entries]
    return [
        entry
        if labels.count(entry.label) == 1
        else replace(
            entry,
            details="; ".join(
                [*filter(None, [entry.details]), ", ".join(run.name for run, _ in entry.members)]
            ),
        )
        for entry in entries
    ]


def _order(entry: Entry, columns: Sequence[str]) -> float:
    """The best by the first column first, what has none last."""
    cell = entry.cells.get(columns[0]) if columns else None
    return float("inf") if cell is None else -measure_of(columns[0]).better * cell.mean


def _trained_for(entries: Sequence[Entry]) -> list[str]:
    """What each training used, where it is known, as `budgets` counts it: a line, or none."""
    told: dict[str, str] = {}
    for entry in entries:
        used = [used for run, _ in entry.members if isinstance(used := run.scores.get("budget"), Mapping)]
        if used:
            told[entry.label] = together(_used(one) for one in used)
    if not told:
        return []
    if len(set(told.values())) == 1 and len(told) > 1:
        return [f"Each was trained for {next(iter(told.values()))}."]
    return [f"Trained for: {'; '.join(f'{label} {text}' for label, text in told.items())}."]


def _used(budget: Mapping[str, Any]) -> str:
    parts = [f"{budget[key]:,} {key}" for key in ("steps", "patches") if budget.get(key) is not None]
    if budget.get("multiply_adds") is not None:
        parts.append(f"{budget['multiply_adds'] / 1e12:.3g} T multiply-adds")
    return ", ".join(parts)


def _published(result: Mapping[str, Any]) -> list[Entry]:
    """What was printed of a result's dataset: of whole models, in the order of the files."""
    known = PUBLISHED.get(result["dataset"])
    if known is None:
        return []
    folder = configuration_root() / "experiments"
    found = []
    for path in (path for pattern in _TABLES for path in sorted(folder.glob(pattern))):
        name = path.relative_to(folder).as_posix()
        costs = {row.label: row for row in read_rows(folder / _COSTS[name])} if name in _COSTS else {}
        found += [
            _printed(row, costs.get(row.label), result["protocol"]["name"])
            for row in read_rows(path)
            if _same_dataset(row.dataset, str(result["dataset"])) and "psnr_db" in row.numbers
        ]
    return found


def _same_dataset(printed: str, ours: str) -> bool:
    """Whether a published row's dataset is one of ours.

    >>> _same_dataset("RealBlur-J", "realblur_j"), _same_dataset("GoPro", "hide")
    (True, False)
    """
    return printed.lower().replace("-", "_") == ours.lower().replace("-", "_")


def _printed(row: PublishedRow, cost: PublishedRow | None, protocol: str) -> Entry:
    parameters = None if cost is None else cost.value("parameters_m")
    multiply_adds = None if cost is None else cost.value("multiply_adds_t")
    size = re.fullmatch(r"(\d+) x (\d+)", cost.size_px) if cost is not None else None
    return Entry(
        row.label,
        "",
        row.trained_on,
        row.protocol if row.tlc not in ("on", "off") else f"{row.protocol}, TLC {row.tlc}",
        {name: None if (value := row.value(name)) is None else Spread(value, None, 1) for name in SCORES},
        (),
        None if parameters is None else round(parameters * 1e6),
        None if multiply_adds is None else round(multiply_adds * 1e12),
        None if size is None else (int(size[1]), int(size[2])),
        row,
        ranked=row.protocol == protocol,
    )
