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
from deblur_lab.data.verifying.listings import named
from deblur_lab.data.verifying.pictures import SAME_THING
from deblur_lab.images import quoted

# Fewer pairs, or a blur that changes values by less than this on average, say nothing of how it was made.
_FEWEST_PAIRS = 5
_SMALLEST_EFFECT = 0.02
# Of one sequence, whose spread is held against that of all others as well.
_FEWEST_OF_SEQUENCE = 4
# A standard error above this says that pairs do not agree: those of a whole set are far below it.
_LARGEST_ERROR = 0.1
# The same picture averaged in light is brighter, whatever is in it; what is rounded may differ by so much.
_ROUNDING = 0.01
# Means that are computed in two ways differ by less, if the pictures are the same.
_EQUAL = 1e-6
# Standard errors from one half on which a single sequence is a fault, or a warning.
_CERTAIN, _LIKELY = 3.0, 2.0
# Mean stored values of sharp pictures, in the median: RealBlur-R is darker than the one, J brighter than the
# other. Between them, brightness does not tell.
_BRIGHTEST_R = 60.0
_DARKEST_J = 36.0
# RealBlur has dark scenes and bright ones: one of the other kind is far off the median of the others too.
_FAR_OFF = 3.0

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


def average_of(
    facts: Iterable[PairFacts], expected: ExpectedSet, fewest: int = _FEWEST_PAIRS
) -> Average | None:
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
    if len(measured) < fewest or measured[:, 1].mean() < _SMALLEST_EFFECT:
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


def averaging_findings(
    facts: Sequence[PairFacts], expected: ExpectedSet, split: Split, layout: str = "raw"
) -> Iterator[Finding]:
    """Whether the blur of a split, or of some of its pairs, is of another kind of average than meant.

    Where the same picture averaged in the other way lies beside one, the two are compared: an average of
    light is the brighter one, wherever something moves. Of all others a split and its sequences are judged.

    Args:
        facts: The pairs of the split.
        expected: What the dataset is made of.
        split: The split.
        layout: The name of its layout, which decides what can be done.
    """
    if expected.blurred is None:
        return
    compared = [pair for pair in facts if pair.other_mean is not None and pair.blurry is not None]
    yield from _compared_findings(compared, expected, split)
    others = [pair for pair in facts if pair.other_mean is None]
    average = average_of(others, expected)
    if average is None:
        return
    meant = expected.blurred
    if average.kind not in (None, meant):
        keeps = "stored values" if average.kind == "stored" else "light"
        how = f"blurry pictures keep the mean of {keeps} ({_position(average)})"
        yield _of_averaging(others, split, meant, layout, "", how)
        return
    strange = list(_strange_sequences(others, expected, split, layout))
    yield from strange
    if not strange and (average.kind is None or average.error > _LARGEST_ERROR):
        yield Finding(
            "averaging",
            f"{split}: it is not certain what was averaged in all pairs: {_position(average)}",
            _MEANINGS[meant],
            split,
            _blurry_files(others),
            is_fault=False,
            advice="look where the copy is from: some of its sequences may be averaged in the other way",
        )


def _compared_findings(
    compared: Sequence[PairFacts], expected: ExpectedSet, split: Split
) -> Iterator[Finding]:
    """What pairs show that can be compared with the same picture of the other folder."""
    meant = expected.blurred
    rises = [(pair, _rise(pair)) for pair in compared]
    sign = 1 if meant == "stored" else -1
    wrong = [pair for pair, rise in rises if sign * rise < -_ROUNDING]
    if wrong:
        assert meant is not None, "or nothing would be asked"
        told = sum(abs(rise) > _ROUNDING for _, rise in rises)
        some = "" if len(wrong) == told else f"{len(wrong)} of {told} pairs ({_sequences(wrong, expected)}): "
        how = f"they are {'brighter' if meant == 'stored' else 'darker'} than those of the other folder"
        yield _of_averaging(wrong, split, meant, "both", some, how)
    same = [
        name
        for name, of_sequence in _by_sequence(compared, expected).items()
        if all(abs(_rise(pair)) < _EQUAL for pair in of_sequence)
        and average_of(of_sequence, expected, fewest=2) is not None
    ]
    files = _blurry_files(pair for pair in compared if expected.sequence_of(pair.name) in same)
    if rises and all(abs(rise) < _EQUAL for _, rise in rises):
        same, files = [], _blurry_files(compared)
    if files:
        of_some = f"{split}: in {named(same)} " if same else ""
        yield Finding(
            "averaging",
            f"{of_some}blur and blur_gamma hold the same pictures: {quoted(files[0])}, say",
            "blur_gamma brighter than blur",
            split,
            files,
            advice="take both folders as published",
        )


def _rise(pair: PairFacts) -> float:
    """By how much the same picture of the other folder is brighter; 0 where that is not known."""
    if pair.other_mean is None or pair.blurry is None:
        return 0.0
    return pair.other_mean - pair.blurry.mean


def _strange_sequences(
    facts: Sequence[PairFacts], expected: ExpectedSet, split: Split, layout: str
) -> Iterator[Finding]:
    """Sequences whose blur is of the other kind than that of the split."""
    meant = expected.blurred
    assert meant is not None, "or nothing would be asked"
    groups = _by_sequence(facts, expected)
    averages = {
        name: average
        for name, of_sequence in groups.items()
        if (average := average_of(of_sequence, expected, _FEWEST_OF_SEQUENCE)) is not None
    }
    if len(averages) < 2:
        return
    positions = np.array([average.position for average in averages.values()])
    # Pairs of one sequence are alike: how sequences differ says more than the error of one of them.
    spread = 1.4826 * float(np.median(np.abs(positions - np.median(positions))))
    strange: dict[bool, list[str]] = {True: [], False: []}
    for name, average in averages.items():
        beyond = (average.position - 0.5) * (1 if meant == "stored" else -1)
        errors = beyond / max(average.error, spread, 1e-9)
        if errors > _LIKELY:
            strange[errors > _CERTAIN].append(name)
    for is_fault, names in strange.items():
        if names:
            pairs = [pair for name in names for pair in groups[name]]
            some = f"{len(pairs)} of {len(facts)} pairs ({named(names)}): "
            how = f"by their brightness ({_position(averages[names[0]])})"
            yield _of_averaging(pairs, split, meant, layout, some, how, is_fault=is_fault)


def _of_averaging(
    pairs: Sequence[PairFacts],
    split: Split,
    meant: Averaging,
    layout: str,
    some: str,
    how: str,
    *,
    is_fault: bool = True,
) -> Finding:
    files = _blurry_files(pairs)
    if layout == "both":
        advice = "the folders blur and blur_gamma are exchanged there: exchange them back"
    elif meant == "light":
        advice = "data.blur=blur_gamma needs the folder of that name as published"
    elif layout == "raw":
        advice = ""
    else:
        advice = (
            "papers of today use GoPro's blur, not blur_gamma: take a copy that was made of that; "
            "blur_gamma can be asked for in the published layout alone"
        )
    kind: Averaging = "light" if meant == "stored" else "stored"
    found = f"{split}: {some}{_MEANINGS[kind]}: {how}; {quoted(files[0])}, say"
    return Finding("averaging", found, _MEANINGS[meant], split, files, is_fault, advice)


def _position(average: Average) -> str:
    return f"{average.position:.2f} +- {average.error:.2f}, where 0 is stored values and 1 is light"


def _by_sequence(facts: Iterable[PairFacts], expected: ExpectedSet) -> dict[str, list[PairFacts]]:
    groups: dict[str, list[PairFacts]] = {}
    for pair in facts:
        groups.setdefault(expected.sequence_of(pair.name), []).append(pair)
    return groups


def _sequences(facts: Iterable[PairFacts], expected: ExpectedSet) -> str:
    return named(list(_by_sequence(facts, expected)))


def _blurry_files(facts: Iterable[PairFacts]) -> tuple[Path, ...]:
    return tuple(pair.blurry.path for pair in facts if pair.blurry is not None)


def variant_findings(facts: Sequence[PairFacts], expected: ExpectedSet, split: Split) -> Iterator[Finding]:
    """Whether RealBlur's J is where R is expected, or the other way round, as brightness shows.

    A split is judged as a whole, and then each of its scenes, which are of one kind: one is told, as a
    warning, if all of its pictures look like the other kind and are far off the others of the split.
    """
    brightness = brightness_of(facts)
    if expected.dark is None or brightness is None:
        return
    wanted = "R, dark" if expected.dark else "J, not dark"
    against = [found for pair in facts if (found := _is_darker(pair)) is not None]
    files = tuple(pair.sharp.path for pair in facts if pair.sharp is not None)
    told = f"{split}: sharp pictures have a mean value of {brightness:.0f} of 255: {quoted(files[0])}, say"
    is_dark = expected.dark
    if len(against) >= _FEWEST_PAIRS:
        is_dark = sum(against) > len(against) / 2
        darker = "darker" if is_dark else "brighter"
        told = f"{split}: {quoted(files[0])} and others are {darker} than those of the other"
    elif brightness > _BRIGHTEST_R or brightness < _DARKEST_J:
        is_dark = brightness < _DARKEST_J
    if is_dark != expected.dark:
        yield Finding("wrong_variant", told, wanted, split, files)
        return
    groups = _by_sequence(facts, expected)
    strange = []
    for name, of_scene in groups.items():
        others = brightness_of(pair for other in groups if other != name for pair in groups[other])
        if _is_other_kind(of_scene, expected.dark, others):
            strange.append((name, of_scene))
    if strange:
        names = named([name for name, _ in strange])
        other = "J, not dark" if expected.dark else "R, dark"
        files = tuple(
            pair.sharp.path for _, of_scene in strange for pair in of_scene if pair.sharp is not None
        )
        yield Finding(
            "wrong_variant",
            f"{split}: all pictures of {names} look like {other}: {quoted(files[0])}, say",
            wanted,
            split,
            files,
            is_fault=False,
            advice="look at them: a scene may be dark or bright; else take it from the other archive",
        )


def _is_darker(pair: PairFacts) -> bool | None:
    """Whether a blurry picture is darker than its like in the other folder; None where that is not known."""
    if pair.other_mean is None or pair.blurry is None or pair.other_mean == pair.blurry.mean:
        return None
    return pair.other_mean > pair.blurry.mean


def _is_other_kind(of_scene: Sequence[PairFacts], dark: bool, others: float | None) -> bool:
    """Whether all pictures of a scene look like the other kind of RealBlur, against the median of others."""
    against = [found for pair in of_scene if (found := _is_darker(pair)) is not None]
    if against:
        return all(found != dark for found in against)
    means = [pair.sharp.mean for pair in of_scene if pair.sharp is not None]
    if not means or others is None:
        return False
    if dark:
        return min(means) > max(_BRIGHTEST_R, _FAR_OFF * others)
    return max(means) < min(_DARKEST_J, others / _FAR_OFF)


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
