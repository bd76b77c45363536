"""How models that were scored on the same images differ, pair by pair, each difference with an interval."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deblur_lab.data.published_sets import PUBLISHED
from deblur_lab.finished_runs import ImageScores
from deblur_lab.report_measures import MEASURES
from deblur_lab.scored_results import AGREEING, Scored, seed_of
from deblur_lab.significance import PairedDifference, paired_over_seeds

BLURRY = "blurry input"
SCORES = ("psnr_db", "ssim", "weighted_psnr_db", "weighted_ssim")
"""Those that differences are told of; of each image, more is better."""
# Of more models, not all pairs are told.
_ALL_PAIRS = 4

WHAT_IT_MEANS = (
    "Differences are means over the images that both have, the first one's score less the second's, image "
    "by image. In brackets is the 95 % interval of that mean, over images, or whole sequences where those "
    "are known: of one training each the bootstrap's; where a side has several seeds Student's, which "
    "counts their spread and is wide where two or three seeds differ, as so few tell their spread badly; "
    "the bootstrap's over images stands in a column of its own, and speaks of these very trainings alone. "
    "Bold ones exclude 0; of the others it is not known which is better. It speaks of other images like "
    "these, and of other trainings only of a side that has several seeds; not of other data, sizes or "
    "longer training. Of fewer than about twenty images or sequences the bootstrap's is too narrow. It is "
    "not widened for the number of pairs: of twenty pairs of equals, one excludes 0."
)
"""What an interval does and does not mean."""

# The scores of the images of one training, by their names.
_Images = Mapping[str, ImageScores]


@dataclass(frozen=True)
class Candidate:
    """A model to be held against others.

    Attributes:
        label: what it is called, each by another name.
        members: its runs, each with its result on the dataset; runs of one seed are averaged.
    """

    label: str
    members: Sequence[Scored]


@dataclass(frozen=True)
class ModelDifference:
    """One model against another.

    Attributes:
        first: its label.
        second: the other's label, or `BLURRY`.
        scores: the first one's less the second's, by the names in `SCORES` that both have; empty if they
            cannot be compared.
        why_not: in words, if they cannot.
    """

    first: str
    second: str
    scores: Mapping[str, PairedDifference] = field(default_factory=dict)
    why_not: str = ""


def model_differences(
    candidates: Sequence[Candidate], best: str = "", reference: str = ""
) -> list[ModelDifference]:
    """Pairs of models, and each against the blurry input.

    Up to four models are compared in all pairs; of more, each is held against the best and the reference.

    Args:
        candidates: in the order in which the first of a pair stands before the second.
        best: the label of the best; without it the first candidate's.
        reference: the label of one that all are measured by.

    Raises:
        DataError: the scores of a run's images cannot be read.
    """
    seeds = {one.label: _by_seed(one.members) for one in candidates}
    infinite = {one.label: _infinite(one.members) for one in candidates}
    labels = list(seeds)
    pairs = [(first, second) for at, first in enumerate(labels) for second in labels[at + 1 :]]
    if len(labels) > _ALL_PAIRS:
        anchors = {best or labels[0], reference}
        pairs = [pair for pair in pairs if anchors & set(pair)]
    found = []
    for first, second in [*pairs, *((label, BLURRY) for label in labels)]:
        why_not = infinite[first] or infinite.get(second, "")
        if why_not:
            found.append(ModelDifference(first, second, why_not=why_not))
        else:
            found.append(_difference(first, second, seeds[first], seeds.get(second)))
    return found


def _infinite(members: Iterable[Scored]) -> str:
    """In words, which image has an infinite score, as one equal to the truth has; it has no difference."""
    for run, result in members:
        for image in run.images:
            kinds = (image.restored, image.blurry) if image.dataset == result["dataset"] else ()
            for score in SCORES:
                if any(math.isinf(kind.get(score, 0.0)) for kind in kinds):
                    return f"{run.folder / 'scores.csv'} has an infinite {score} of {image.name}"
    return ""


def _by_seed(members: Iterable[Scored]) -> list[list[_Images]]:
    """The images of each run, runs of one seed together."""
    seeds: dict[str, list[_Images]] = {}
    for run, result in members:
        own = {image.name: image for image in run.images if image.dataset == result["dataset"]}
        seeds.setdefault(seed_of(run), []).append(own)
    return list(seeds.values())


def _difference(
    first: str, second: str, one: Sequence[Sequence[_Images]], other: Sequence[Sequence[_Images]] | None
) -> ModelDifference:
    """One pair; without the other side, against the blurry input."""
    runs = [run for side in (one, other or ()) for alike in side for run in alike]
    if not all(runs):
        return ModelDifference(first, second, why_not="a run has no scores of its images (scores.csv)")
    names = [name for name in runs[0] if all(name in run for run in runs[1:])]
    if any(not _same_picture([run[name] for run in runs]) for name in names):
        return ModelDifference(
            first,
            second,
            why_not="their test pictures differ from run to run",
        )
    dataset = next((image.dataset for run in runs for image in run.values()), "")
    scores = {}
    for score in SCORES:
        kept = [name for name in names if all(score in run[name].restored for run in runs)]
        if other is None:
            kept = [name for name in kept if score in runs[0][name].blurry]
        if len(kept) < 2:
            continue
        theirs = (
            [[runs[0][name].blurry[score] for name in kept]] if other is None else _matrix(other, kept, score)
        )
        scores[score] = paired_over_seeds(_matrix(one, kept, score), theirs, groups=_sequences(dataset, kept))
    return ModelDifference(first, second, scores, "" if scores else "fewer than two images have both scores")


def _sequences(dataset: str, names: Sequence[str]) -> list[str] | None:
    """The sequence of each image of a published dataset; None where they are not known, or all of one."""
    known = PUBLISHED.get(dataset)
    found = [] if known is None else [known.sequence_of(name) for name in names]
    return found if all(found) and len(set(found)) > 1 else None


def _matrix(seeds: Sequence[Sequence[_Images]], names: Sequence[str], score: str) -> list[list[float]]:
    """(seeds, images): of the runs of one seed the mean."""
    return [
        [statistics.fmean(run[name].restored[score] for run in alike) for name in names] for alike in seeds
    ]


def _same_picture(images: Sequence[ImageScores]) -> bool:
    """Whether images of one name are of one picture: the scores of their blurry inputs agree."""
    first = images[0].blurry
    return all(
        abs(value - image.blurry.get(score, value)) < AGREEING
        for image in images[1:]
        for score, value in first.items()
    )


def shown_difference(score: str, found: PairedDifference) -> str:
    """A difference with its interval, in the score's digits.

    >>> shown_difference("psnr_db", PairedDifference(0.1234, -0.05, 0.3, 24, 0.5))
    '+0.123 [-0.050, +0.300]'
    """
    return f"{found.mean:+.{MEASURES[score].digits}f} {shown_interval(score, found.low, found.high)}"


def shown_interval(score: str, low: float, high: float) -> str:
    """An interval in the score's digits.

    >>> shown_interval("psnr_db", -0.05, 0.3)
    '[-0.050, +0.300]'
    """
    digits = MEASURES[score].digits
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]"
