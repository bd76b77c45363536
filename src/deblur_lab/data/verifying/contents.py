"""What whole sets of pictures show: how blur was averaged, which RealBlur it is, what is there twice."""

import hashlib
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from deblur_lab.data.published_sets import Averaging, ExpectedSet
from deblur_lab.data.samples import Split
from deblur_lab.data.verifying.findings import Finding
from deblur_lab.data.verifying.inspection import PairFacts
from deblur_lab.data.verifying.pictures import SAME_THING
from deblur_lab.images import quoted

# Fewer pairs, or a blur that changes values by less than this on average, say nothing of how it was made.
_FEWEST_PAIRS = 5
_SMALLEST_EFFECT = 0.02
# Mean stored values of sharp pictures, in the median: RealBlur-R is darker than the one, J brighter than the
# other. Between them, brightness does not tell.
_BRIGHTEST_R = 60.0
_DARKEST_J = 36.0

_MEANINGS = {"stored": "stored values were averaged (blur)", "light": "light was averaged (blur_gamma)"}


@dataclass(frozen=True)
class Average:
    """How the blur of a set of pairs was averaged, as its brightness shows.

    An average of stored values keeps their mean, and the mean of light falls; an average of light keeps the
    mean of light, and that of stored values rises. What comes into a picture or leaves it during the exposure
    changes both alike, and is noise.

    Attributes:
        position: 0 where stored values keep their mean, 1 where light does.
        error: The standard error of that, from one sequence to another.
        pairs: How many pairs it was measured on.
    """

    position: float
    error: float
    pairs: int

    @property
    def kind(self) -> Averaging | None:
        """Which of the two it is; None where it is neither for certain."""
        if self.position + 2 * self.error < 0.5:
            return "stored"
        return "light" if self.position - 2 * self.error > 0.5 else None


def average_of(facts: Iterable[PairFacts], expected: ExpectedSet) -> Average | None:
    """How blur was averaged; None where too few pairs, or too sharp ones, can tell."""
    rises: dict[str, list[tuple[float, float]]] = {}
    for pair in facts:
        blurry, sharp = pair.blurry, pair.sharp
        if blurry is None or sharp is None or pair.psnr_db is None or blurry.digest == sharp.digest:
            continue
        if pair.likeness is not None and pair.likeness < SAME_THING:
            continue
        rise = blurry.mean - sharp.mean
        # Light in units of the stored value, so that more light changes both alike.
        gap = rise - (blurry.light - sharp.light) / sharp.slope if sharp.slope else 0.0
        rises.setdefault(expected.sequence_of(pair.name), []).append((rise, gap))
    measured = np.array([values for of_sequence in rises.values() for values in of_sequence])
    if len(measured) < _FEWEST_PAIRS or measured[:, 1].mean() < _SMALLEST_EFFECT:
        return None
    total_rise, total_gap = measured.sum(axis=0)
    position = total_rise / total_gap
    # Pairs of one sequence are alike: where there are enough of them, sequences are what varies.
    groups = (
        [np.array(values) for values in rises.values()] if len(rises) >= _FEWEST_PAIRS else measured[:, None]
    )
    residuals = [float((values[:, 0] - position * values[:, 1]).sum()) for values in groups]
    spread = math.sqrt(sum(residual**2 for residual in residuals) * len(groups) / (len(groups) - 1))
    return Average(float(position), spread / float(total_gap), len(measured))


def averaging_findings(facts: Sequence[PairFacts], expected: ExpectedSet, split: Split) -> Iterator[Finding]:
    """Whether the blur of a split is of another kind of average than meant.

    Where the same pictures averaged in the other way lie beside them, the two are compared: an average of
    light is the brighter one, wherever something moves.
    """
    meant = expected.blurred
    if meant is None:
        return
    average = average_of(facts, expected)
    files = tuple(pair.blurry.path for pair in facts if pair.blurry is not None)
    if not files:
        return
    differences = [
        pair.other_mean - pair.blurry.mean
        for pair in facts
        if pair.other_mean is not None and pair.blurry is not None
    ]
    kind: Averaging | None = None
    how = ""
    if differences and not any(differences):
        yield Finding(
            "averaging",
            f"blur and blur_gamma hold the same pictures: {quoted(files[0])}, say",
            "blur_gamma brighter than blur",
            split,
            files,
            advice="take both folders as published",
        )
        return
    if len(differences) >= _FEWEST_PAIRS:
        darker = sum(difference > 0 for difference in differences) / len(differences)
        kind = "stored" if darker > 0.5 else "light"
        how = f"they are {'darker' if kind == 'stored' else 'brighter'} than those of the other folder"
    elif average is not None:
        kind = average.kind
        keeps = "stored values" if kind == "stored" else "light"
        where = f"{average.position:.2f} +- {average.error:.2f}, where 0 is stored values and 1 is light"
        how = f"blurry pictures keep the mean of {keeps} ({where})"
    if kind is not None and kind != meant:
        yield Finding(
            "averaging",
            f"{split}: {_MEANINGS[kind]}: {how}; {quoted(files[0])}, say",
            _MEANINGS[meant],
            split,
            files,
            advice=""
            if meant == "stored"
            else "data.blur=blur_gamma needs the folder of that name as published",
        )


def variant_findings(facts: Sequence[PairFacts], expected: ExpectedSet) -> Iterator[Finding]:
    """Whether RealBlur's J is where R is expected, or the other way round, as brightness shows."""
    brightness = brightness_of(facts)
    if expected.dark is None or brightness is None:
        return
    wanted = "R, dark" if expected.dark else "J, not dark"
    against = [
        pair.other_mean > pair.blurry.mean
        for pair in facts
        if pair.other_mean is not None and pair.blurry is not None and pair.other_mean != pair.blurry.mean
    ]
    files = tuple(pair.sharp.path for pair in facts if pair.sharp is not None)
    told = f"sharp pictures have a mean value of {brightness:.0f} of 255: {quoted(files[0])}, say"
    if len(against) >= _FEWEST_PAIRS:
        is_dark = sum(against) > len(against) / 2
        told = (
            f"{quoted(files[0])} and others are {'darker' if is_dark else 'brighter'} than those of the other"
        )
    elif brightness > _BRIGHTEST_R:
        is_dark = False
    elif brightness < _DARKEST_J:
        is_dark = True
    else:
        return
    if is_dark != expected.dark:
        yield Finding("wrong_variant", told, wanted, None, files)


def brightness_of(facts: Iterable[PairFacts]) -> float | None:
    """The median of the mean values of sharp pictures, 0..255; None where there are none."""
    means = [pair.sharp.mean for pair in facts if pair.sharp is not None]
    return statistics.median(means) if means else None


@dataclass(frozen=True)
class _Place:
    split: Split
    pair: str
    role: Literal["blurry", "sharp"]
    path: Path


def duplicate_findings(facts: Iterable[PairFacts]) -> Iterator[Finding]:
    """Pictures of equal content in different pairs, however their files are stored or called."""
    places: dict[str, list[_Place]] = {}
    for pair in facts:
        roles: tuple[Literal["blurry", "sharp"], ...] = ("blurry", "sharp")
        for role in roles:
            picture = pair.blurry if role == "blurry" else pair.sharp
            if picture is not None:
                place = _Place(pair.split, pair.name, role, picture.path)
                places.setdefault(picture.digest, []).append(place)
    told: set[tuple[tuple[Split, str], ...]] = set()
    for equal in places.values():
        # One file that two splits share on purpose (data.holdout_every=null) is no copy.
        copies = list({place.path: place for place in equal}.values())
        pairs = tuple(dict.fromkeys((place.split, place.pair) for place in copies))
        if len(pairs) < 2 or pairs in told:
            continue
        # Of a pair that is copied whole, the blurry picture says enough.
        told.add(pairs)
        splits = {place.split for place in copies}
        kind = "duplicate" if len(splits) == 1 else "leak"
        if kind == "duplicate" and {place.role for place in copies} == {"sharp"}:
            kind = "same_target"
        names = " and ".join(quoted(place.path) for place in copies[:3])
        more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
        yield Finding(
            kind,
            f"{names}{more} hold the same picture",
            "each picture in one split" if kind == "leak" else "each picture once",
            copies[0].split if len(splits) == 1 else None,
            tuple(place.path for place in copies),
            is_fault=kind != "same_target",
        )


def fingerprint(facts: Iterable[PairFacts]) -> tuple[str, float, int] | None:
    """What tells one release of masks from another: a hash over their contents and names, and more.

    Returns:
        The hash, of 16 hexadecimal digits; the mean share of blurred pixels, 0..1; and how many masks there
        are. None where there are none.
    """
    masks = sorted(
        (pair.split, pair.name, pair.mask.digest, pair.mask.share) for pair in facts if pair.mask is not None
    )
    if not masks:
        return None
    text = "".join(f"{split}/{name} {digest}\n" for split, name, digest, _ in masks)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return digest, statistics.fmean(share for *_, share in masks), len(masks)
