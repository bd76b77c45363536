"""What a page shows together: models that were scored on the same pictures."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deblur_lab.comparison import Comparison
from deblur_lab.finished_runs import Run, dataset_of
from deblur_lab.leaderboard import Leaderboard
from deblur_lab.scored_results import Scored, seed_of


@dataclass(frozen=True)
class Model:
    """One model of a subject, or one way of setting it.

    Attributes:
        label: what it is called there.
        colour: its number.
        members: its runs, each with its result; more than one are seeds.
    """

    label: str
    colour: int
    members: Sequence[Scored]

    def label_of(self, run: Run) -> str:
        """What one of its runs is called, with the seed if there are several; its name where seeds repeat."""
        if len(self.members) < 2:
            return self.label
        alike = sum(seed_of(one) == seed_of(run) for one, _ in self.members)
        return f"{self.label}, seed {seed_of(run)}{f' ({run.name})' if alike > 1 else ''}"

    def image_scores(self, score: str) -> tuple[dict[str, float], dict[str, float]]:
        """By the names of the images: the restored picture's score and the blurry input's.

        Those that all its runs have and that are finite, each the mean over seeds, runs of one seed
        together; the input's where all have the same.
        """
        restored: dict[str, list[tuple[str, float]]] = {}
        blurry: dict[str, list[float]] = {}
        for run, result in self.members:
            for image in run.images:
                if image.dataset == result["dataset"] and score in image.restored:
                    restored.setdefault(image.name, []).append((seed_of(run), image.restored[score]))
                    blurry.setdefault(image.name, []).append(image.blurry.get(score, float("nan")))
        whole = {
            name: values
            for name, values in restored.items()
            if len(values) == len(self.members)
            and all(map(math.isfinite, (*(value for _, value in values), *blurry[name])))
        }
        # Images of one name are others where each seed has scenes of its own.
        same = all(max(blurry[name]) - min(blurry[name]) < 0.01 for name in whole)
        if not same:
            return {}, {}
        means = {name: _over_seeds(values) for name, values in whole.items()}
        return means, {name: blurry[name][0] for name in whole}


def _over_seeds(values: Sequence[tuple[str, float]]) -> float:
    """The mean of (seed, value) pairs over seeds, as in the tables: several of a seed are one, their mean."""
    seeds: dict[str, list[float]] = {}
    for seed, value in values:
        seeds.setdefault(seed, []).append(value)
    return statistics.fmean(statistics.fmean(same) for same in seeds.values())


@dataclass(frozen=True)
class Subject:
    """What one part of the page is about.

    Attributes:
        title: of the part.
        anchor: its address in the page.
        models: at least one.
        table: side by side; None of a single run.
    """

    title: str
    anchor: str
    models: Sequence[Model]
    table: Leaderboard | Comparison | None = None

    @property
    def result(self) -> Mapping[str, Any]:
        """That of one of its runs."""
        return self.models[0].members[0][1]


def subjects_of(
    runs: Sequence[Run], boards: Sequence[Leaderboard], comparisons: Sequence[Comparison]
) -> list[Subject]:
    """The parts of a page: tables across runs, then those results that stand in none."""
    found = []
    for number, board in enumerate(boards):
        # Of an evaluation of a run's own net there is a part of its own.
        models = [
            Model(entry.label, at, entry.members)
            for at, entry in enumerate(board.entries)
            if not entry.repeats
        ]
        found.append(Subject(f"Models on {board.title}", f"models-{number + 1}", models, board))
    for number, comparison in enumerate(comparisons):
        models = [
            Model(comparison.label(row), at, row.members)
            for at, row in enumerate(comparison.rows)
            if not row.repeats
        ]
        found.append(Subject(f"Across runs: {comparison.title}", f"runs-{number + 1}", models, comparison))
    shown = {id(result) for one in found for model in one.models for _, result in model.members}
    for run in runs:
        for number, result in enumerate(run.scores["results"]):
            if id(result) not in shown:
                title = f"{run.name} on {dataset_of(result)}"
                model = Model(run.name, 0, [(run, result)])
                found.append(Subject(title, f"alone-{len(found)}-{number}", [model]))
    return found
