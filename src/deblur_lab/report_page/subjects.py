"""What a page shows together: models that were scored on the same pictures."""

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
        """What one of its runs is called, with the seed if there are several."""
        return f"{self.label}, seed {seed_of(run)}" if len(self.members) > 1 else self.label

    def image_scores(self, score: str) -> tuple[dict[str, float], dict[str, float]]:
        """By the names of the images: the restored picture's score and the blurry input's.

        Those that all its runs have, each the mean over them; the input's where all have the same.
        """
        restored: dict[str, list[float]] = {}
        blurry: dict[str, list[float]] = {}
        for run, result in self.members:
            for image in run.images:
                if image.dataset == result["dataset"] and score in image.restored:
                    restored.setdefault(image.name, []).append(image.restored[score])
                    blurry.setdefault(image.name, []).append(image.blurry.get(score, float("nan")))
        whole = {name: values for name, values in restored.items() if len(values) == len(self.members)}
        # Images of one name are others where each seed has scenes of its own.
        same = all(max(blurry[name]) - min(blurry[name]) < 0.01 for name in whole)
        if not same:
            return {}, {}
        means = {name: statistics.fmean(values) for name, values in whole.items()}
        return means, {name: blurry[name][0] for name in whole}


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
        models = [Model(entry.label, at, entry.members) for at, entry in enumerate(board.entries)]
        found.append(Subject(f"Models on {board.title}", f"models-{number + 1}", models, board))
    for number, comparison in enumerate(comparisons):
        models = [Model(comparison.label(row), at, row.members) for at, row in enumerate(comparison.rows)]
        found.append(Subject(f"Across runs: {comparison.title}", f"runs-{number + 1}", models, comparison))
    shown = {id(result) for one in found for model in one.models for _, result in model.members}
    for run in runs:
        for number, result in enumerate(run.scores["results"]):
            if id(result) not in shown:
                title = f"{run.name} on {dataset_of(result)}"
                model = Model(run.name, 0, [(run, result)])
                found.append(Subject(title, f"alone-{len(found)}-{number}", [model]))
    return found
