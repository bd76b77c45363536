"""What the results of ``scores.json`` mean, and which of them are of the same pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from deblur_lab.finished_runs import Run
from deblur_lab.published_scores import NOT_TOLD

# Scores of the same pictures, computed on two machines, differ by less.
AGREEING = 0.005
Scored = tuple[Run, Mapping[str, Any]]
"""A run, and its result on one dataset."""


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


def same_pictures(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two results of one dataset and protocol are of the same pictures: their blurry scores agree."""
    first, second = one["blurry_scores"], other["blurry_scores"]
    return bool(one["images"] == other["images"]) and all(
        abs(first[name] - second[name]) < AGREEING
        for name in first.keys() & second.keys()
        if None not in (first[name], second[name])
    )


def by_pictures(evaluations: Sequence[Scored]) -> list[list[Scored]]:
    """Scored runs, those of the same pictures together, in the order of each one's first."""
    groups: list[list[Scored]] = []
    for one in evaluations:
        fitting = next((group for group in groups if same_pictures(group[0][1], one[1])), None)
        if fitting is None:
            groups.append([one])
        else:
            fitting.append(one)
    return groups


def seed_of(run: Run) -> str:
    """Of a run, as it is shown."""
    return str(run.scores.get("seed"))
