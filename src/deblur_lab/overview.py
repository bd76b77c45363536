"""One table over several datasets, as the papers' main tables have them: the scores of each side by side.

It gathers what stands in the leaderboards, one a dataset: models that were trained once and scored on
several, by their own test and by evaluations of what they left, and published rows of one source.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deblur_lab.finished_runs import Run, dataset_of
from deblur_lab.leaderboard import Entry, Leaderboard
from deblur_lab.model_differences import SCORES
from deblur_lab.report_measures import measure_of, over_seeds, place_of
from deblur_lab.scored_results import Scored, evaluated_run, model_of, scored_by, seed_of

_BELOW = (
    "Models that were scored on several datasets. Each dataset has a table of its own below, with all that "
    "was scored on it and printed of it, with steps, hardware and commits, and with differences by image."
)
_EVALUATED = "Evaluations of runs stand in the rows of the runs."
_AGAIN = (
    "Of several evaluations of one net on a dataset that whose folder comes first stands here, not the best."
)
_UNRANKED = "† is not ranked: on one of the datasets at least it is not, and the table of that one says why."
_MADE_UP = "The pictures are made up: no published number is comparable with these."


@dataclass(frozen=True)
class DatasetColumns:
    """What a dataset has in the table.

    Attributes:
        name: of the dataset; where it stands more than once, with what tells it apart.
        board: its leaderboard.
        columns: names, as `measure_of` takes them.
    """

    name: str
    board: Leaderboard
    columns: tuple[str, ...]


@dataclass(frozen=True)
class OverviewRow:
    """A model, or what was printed of one.

    Attributes:
        entry: what it is, with the protocols of all its datasets; ranked if it is on each of them.
        scored: what it reached, by the number of the dataset; two at least.
    """

    entry: Entry
    scored: Mapping[int, Entry]

    def mean(self, dataset: int, column: str) -> float | None:
        """What it reached on a dataset by a measure; None where that is not known."""
        cell = self.scored[dataset].cells.get(column) if dataset in self.scored else None
        return None if cell is None else cell.mean


@dataclass(frozen=True)
class Overview:
    """Models on several datasets.

    Attributes:
        title: the datasets.
        datasets: two at least.
        rows: ours, the best on the first dataset first, and then those that were printed.
        notes: what must be said beside the numbers, by the line.
    """

    title: str
    datasets: Sequence[DatasetColumns]
    rows: Sequence[OverviewRow]
    notes: Sequence[str]

    def place(self, row: OverviewRow, dataset: int, column: str) -> int | None:
        """1 for the best row of a dataset by a measure, 2 for the second, else None; as `places` has it."""

        def mean(one: OverviewRow) -> float | None:
            return one.mean(dataset, column) if one.entry.ranked else None

        return place_of(row, self.rows, mean, measure_of(column))


def overviews(runs: Sequence[Run], boards: Sequence[Leaderboard]) -> list[Overview]:
    """One of real datasets and one of made-up ones, each if one of our models was scored on several.

    Args:
        runs: as found, evaluations among them.
        boards: of these runs, as `leaderboards` has them.
    """
    kinds = [[board for board in boards if board.made_up == made_up] for made_up in (False, True)]
    return [overview for of_kind in kinds for overview in _overview(of_kind, runs)]


def _overview(boards: Sequence[Leaderboard], runs: Sequence[Run]) -> list[Overview]:
    """One, or none."""
    gathered = _Gathered.of(boards, runs)
    ours = gathered.rows()
    kept = sorted({number for row in ours for number in row.scored})
    if not kept:
        return []
    boards = [boards[number] for number in kept]
    names = _names(boards)
    datasets = [
        DatasetColumns(name, board, tuple(column for column in SCORES if column in board.columns))
        for name, board in zip(names, boards, strict=True)
    ]
    first = datasets[0].columns[:1]
    ours = [
        replace(row, scored={kept.index(number): entry for number, entry in row.scored.items()})
        for row in ours
    ]
    ours.sort(key=lambda row: _order(row, first))
    rows = [*ours, *_printed(boards)]
    said = {
        _EVALUATED: gathered.evaluated,
        _AGAIN: gathered.again,
        _UNRANKED: not all(row.entry.ranked for row in rows),
        _MADE_UP: boards[0].made_up,
    }
    notes = [_BELOW, *(note for note, holds in said.items() if holds)]
    return [Overview(f"{len(names)} datasets: {', '.join(names)}", datasets, rows, notes)]


@dataclass
class _Gathered:
    """Results by the net that reached them.

    Attributes:
        entries: what each net is, by the row that it stands in.
        found: of each row the entries that have it and its results, by the number of the leaderboard. An
            evaluation of a run is a result of the run.
        evaluated: whether there are such.
        again: whether several are of one net and dataset.
    """

    entries: dict[Hashable, Entry] = field(default_factory=dict)
    found: dict[Hashable, dict[int, list[tuple[Entry, Scored]]]] = field(default_factory=dict)
    evaluated: bool = False
    again: bool = False

    @classmethod
    def of(cls, boards: Sequence[Leaderboard], runs: Sequence[Run]) -> "_Gathered":
        """The results in leaderboards, by row.

        Args:
            boards: leaderboards.
            runs: all that were found, in the order in which they are taken.
        """
        self, rows, seen = cls(), _rows_of_runs(boards), set()
        trained = [run for run in runs if not run.evaluated]
        order = {run.folder: at for at, run in enumerate(runs)}
        for number, board in enumerate(boards):
            # A board's own order is by score: of several evaluations of a net the best would be taken.
            members = [(entry, run, result) for entry in board.models for run, result in entry.members]
            for entry, run, result in sorted(members, key=lambda member: order[member[1].folder]):
                own = evaluated_run(run, result, trained) if run.evaluated else run
                net: Hashable = _told(run) if own is None else _net(own)
                if (number, net) in seen:
                    self.again = True
                    continue
                seen.add((number, net))
                self.evaluated |= own is not None and (own is not run or own.training is not None)
                row, named = rows.get(net, (net, _named(entry, own, run)))
                self.entries.setdefault(row, named)
                there = self.found.setdefault(row, {}).setdefault(number, [])
                there.append((entry, (own or run, result)))
        return self

    def rows(self) -> list[OverviewRow]:
        """Those of several leaderboards."""
        return [_row(self.entries[row], scored) for row, scored in self.found.items() if len(scored) > 1]


def _rows_of_runs(boards: Sequence[Leaderboard]) -> dict[Hashable, tuple[Hashable, Entry]]:
    """The row that each trained run stands in, by its folder: where it was tested, or else evaluated."""
    rows: dict[Hashable, tuple[Hashable, Entry]] = {}
    for tested in (True, False):
        for number, board in enumerate(boards):
            for at, entry in enumerate(board.models):
                for run, _ in entry.members:
                    if not run.evaluated and (run.training is None) == tested:
                        rows.setdefault(_net(run), ((number, at), entry))
    return rows


def _net(run: Run) -> Path:
    """The folder of the training that a net is of."""
    return run.training or run.folder


def _told(evaluation: Run) -> Hashable:
    """What tells the net of an evaluation that is of no known run: its checkpoint, or nothing else has it."""
    checkpoint = evaluation.scores.get("checkpoint")
    return evaluation.folder if not checkpoint else Path(str(checkpoint)).absolute().resolve()


def _named(entry: Entry, own: Run | None, evaluation: Run) -> Entry:
    """An entry of an evaluation, called by the net: the name of the evaluation is of one dataset."""
    if own is None:
        return replace(entry, details=str(evaluation.scores.get("checkpoint") or entry.details))
    return replace(entry, model=model_of(own), details=own.name)


def _row(entry: Entry, found: Mapping[int, Sequence[tuple[Entry, Scored]]]) -> OverviewRow:
    members = [member for parts in found.values() for _, member in parts]
    seeds = tuple(dict.fromkeys(seed_of(run) for run, _ in members if not run.evaluated))
    scored = {
        number: replace(
            parts[0][0],
            cells={name: over_seeds(name, [one for _, one in parts]) for name in parts[0][0].cells},
            seeds=seeds,
            ranked=all(own.ranked for own, _ in parts),
        )
        for number, parts in found.items()
    }
    whole = replace(
        entry,
        protocol="; ".join(dict.fromkeys(scored_by(result) for _, result in members)),
        seeds=seeds,
        ranked=all(own.ranked for own in scored.values()),
    )
    return OverviewRow(whole, scored)


def _printed(boards: Sequence[Leaderboard]) -> list[OverviewRow]:
    """Published rows that one source has of several datasets."""
    found: dict[Hashable, dict[int, Entry]] = {}
    for number, board in enumerate(boards):
        for entry in board.published:
            row = entry.published
            if row is not None:
                key = (row.label, row.trained_on, row.tlc, row.reported, row.source)
                found.setdefault(key, {}).setdefault(number, entry)
    rows = []
    for scored in found.values():
        if len(scored) > 1:
            first, *_ = scored.values()
            protocol = "; ".join(dict.fromkeys(one.protocol for one in scored.values()))
            ranked = all(one.ranked for one in scored.values())
            rows.append(OverviewRow(replace(first, protocol=protocol, ranked=ranked), scored))
    return rows


def _order(row: OverviewRow, first: Sequence[str]) -> float:
    """The best on the first dataset first, what has no score there last."""
    mean = row.mean(0, first[0]) if first else None
    return float("inf") if mean is None else -measure_of(first[0]).better * mean


def _names(boards: Sequence[Leaderboard]) -> list[str]:
    """The names of datasets; what stands more than once with its protocol, or with all that tells it."""
    names = [dataset_of(board.entries[0].members[0][1]) for board in boards]
    by_protocol = [f"{name} by {board.protocol}" for name, board in zip(names, boards, strict=True)]
    whole = [f"{board.title} by {board.protocol}" for board in boards]
    told = []
    for at, name in enumerate(names):
        ways = [way[at] for way in (names, by_protocol, whole) if way.count(way[at]) == 1]
        told.append(ways[0] if ways else f"{name} ({names[: at + 1].count(name)})")
    return told
