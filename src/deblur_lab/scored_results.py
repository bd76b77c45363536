"""What the results of ``scores.json`` mean, and which of them are of the same pictures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deblur_lab.finished_runs import Run
from deblur_lab.model_names import model_name
from deblur_lab.published_scores import NOT_TOLD
from deblur_lab.stages import STAGES

# Scores of the same pictures, computed on two machines, differ by less.
AGREEING = 0.005
Scored = tuple[Run, Mapping[str, Any]]
"""A run, and its result on one dataset."""


def training_sets(run: Run) -> str:
    """What a network was trained on, in words; made-up data are marked."""
    return " + ".join(run.trained_on) or NOT_TOLD


def known_model(run: Run) -> str:
    """The name of a run's model, as the papers have it: its net, AIBNet with its size; empty if not known.

    Of an evaluation it is known if its scores tell the cost of the net.
    """
    last = _last_stage(run)
    last = f"{STAGES}.{last}." if last else ""

    def last_of(key: str) -> Any:  # noqa: ANN401 - any plain value
        return run.settings.get(last + key, run.settings.get(key))

    net = str(last_of("model.net._target_") or (run.scores.get("cost") or {}).get("net") or "")
    return model_name(net, last_of("model.net.sub_decoders"))


def model_of(run: Run) -> str:
    """The name of a run's model, as `known_model` has it; where it is not known, the run's own name."""
    return known_model(run) or run.name


def _last_stage(run: Run) -> str:
    matches = (re.match(rf"{STAGES}\.(\w+)\.", key) for key in run.settings)
    names = [match[1] for match in matches if match is not None]
    return names[-1] if names else ""


def repeated_run(evaluation: Run, trained: Iterable[Run]) -> str:
    """The name of the run whose net an evaluation scores again, as `scored_run`; empty if none of these."""
    run = scored_run(evaluation, trained)
    return "" if run is None else run.name


def scored_run(evaluation: Run, trained: Iterable[Run]) -> Run | None:
    """The run whose net an evaluation scores, from its last stage; None if none of these.

    A checkpoint's path is as it was typed, so it may lead from another folder, or to a machine of which the
    runs were copied: one that leads nowhere is known by the names of its folders and the training sets.
    """
    told = evaluation.scores.get("checkpoint")
    if not told:
        return None
    folder, stage = Path(str(told)).absolute().parent.parent, ""
    if folder.parent.name == STAGES:  # their folders are numbered
        folder, stage = folder.parent.parent, folder.name.partition("-")[2]
    there = folder.resolve() if folder.is_dir() else None
    for run in trained:
        own = run.folder.absolute()
        if there is not None:
            same = there == own.resolve()
        else:
            # The number of a job says nothing without its sweep.
            told_by = 1 + own.name.isdigit()
            alike = folder.parts[-told_by:] == own.parts[-told_by:]
            same = alike and evaluation.trained_on in ((), run.trained_on)
        if same and stage in ("", _last_stage(run)):
            return run
    return None


def evaluated_run(run: Run, result: Mapping[str, Any], trained: Iterable[Run]) -> Run | None:
    """The run that a result of an evaluation is one of: `scored_run`, by the same threshold of its mask.

    Args:
        run: an evaluation, or a training, of which there is none.
        result: of it.
        trained: where to look.
    """
    net = scored_run(run, trained) if run.evaluated else None
    if net is None or any(own.get("threshold") != result.get("threshold") for own in net.scores["results"]):
        return None
    return net


def in_place_of(training: Run, evaluation: Run) -> Run:
    """A training as if an evaluation of its net were its own test: its settings and seed, those scores."""
    of_training = ("seed", "experiment", "max_steps", "budget", "trained_on")
    known = {key: training.scores[key] for key in of_training if key in training.scores}
    return replace(
        evaluation,
        scores={**evaluation.scores, **known},
        settings=training.settings,
        configuration=training.configuration,
        training=training.folder,
    )


def steps_of(run: Run) -> int | None:
    """How many steps a training took, over all its stages where that is known; None if nothing is."""
    used = run.scores.get("budget")
    steps = used.get("steps") if isinstance(used, Mapping) else None
    return run.scores.get("max_steps") if steps is None else int(steps)


def mixed(scored: Sequence[Scored]) -> str:
    """What must be said where best and second are found among rows of several kinds; empty if of one."""
    converters = {on for _, result in scored if (on := result.get("tlc")) is not None}
    parts = [
        *(["scored with TLC on and off"] if len(converters) > 1 else []),
        *(["trained on different data"] if len({training_sets(run) for run, _ in scored}) > 1 else []),
    ]
    told = "Best and second are found among all rows, though they are {}."
    return told.format(" and ".join(parts)) if parts else ""


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
