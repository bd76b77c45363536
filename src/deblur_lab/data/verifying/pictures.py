"""What single files show: damage, sizes, formats, masks, and pairs that are none."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from deblur_lab.data.published_sets import ExpectedSet
from deblur_lab.data.samples import Split
from deblur_lab.data.verifying.findings import Finding
from deblur_lab.data.verifying.inspection import MaskFacts, PairFacts, PictureFacts
from deblur_lab.images import quoted

_LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000", "GIF", "HEIF"})
# What is said of a file that cannot be used, by the kind of finding that it is.
_DAMAGES = (("is empty (0 bytes)", "empty_file"), ("wrong checksum", "checksum"), ("runcated", "truncated"))
# How the squared gradient of a blurry picture is to its partner's: motion blur makes it a fraction.
_SEEMS_SHARPER = 1.1
_IS_SHARPER = 2.0
# Of a mask's blurred pixels, so many may have other values than the rest before scores can tell.
_STRAY_VALUES = 0.01
# Motion blur keeps the mean value, by a few percent; of RealBlur's two kinds one is several times the other.
_SAME_BRIGHTNESS = 1.5
# Values that are added to both means, or those of black pictures would differ by any factor.
_BLACK = 2.0
# A mask that marks most of its picture, and so many times as much as half of the masks do, may be inverted.
_MOST_BLURRED = 0.5
_FAR_MORE = 3.0
_FEWEST_MASKS = 5
# Two pictures of one thing correlate by far more than this when they are looked at from afar.
SAME_THING = 0.3


def file_findings(facts: Iterable[PairFacts], expected: ExpectedSet) -> Iterator[Finding]:
    """Files that cannot be used, or are stored otherwise than published."""
    for pair in facts:
        for path, line in pair.errors:
            kind = next((kind for text, kind in _DAMAGES if text in line), "unreadable")
            yield Finding(kind, line, "a whole picture", pair.split, (path,))
        for picture in (pair.blurry, pair.sharp):
            if picture is not None:
                yield from _storage(pair, picture, expected)
        if pair.mask is not None and pair.mask.format in _LOSSY:
            yield _lossy(pair, pair.mask)


def _storage(pair: PairFacts, picture: PictureFacts, expected: ExpectedSet) -> Iterator[Finding]:
    if expected.lossless and picture.format in _LOSSY:
        yield _lossy(pair, picture)
    if picture.mode != "RGB":
        yield Finding(
            "not_rgb",
            f"{quoted(picture.path)} is stored as {picture.mode}",
            "RGB of 8 bits",
            pair.split,
            (picture.path,),
            is_fault=False,
        )


def _lossy(pair: PairFacts, file: PictureFacts | MaskFacts) -> Finding:
    return Finding("lossy", f"{quoted(file.path)} is a {file.format}", "PNG", pair.split, (file.path,))


def size_findings(facts: Sequence[PairFacts], expected: ExpectedSet) -> Iterator[Finding]:
    """Pictures that differ in size from their partners, or from the published size."""
    strange: dict[tuple[Split, tuple[int, int]], list[Path]] = {}
    for pair in facts:
        files = [file for file in (pair.blurry, pair.sharp, pair.mask) if file is not None]
        sizes = {file.size_px for file in files}
        if len(sizes) > 1:
            told = ", ".join(f"{quoted(file.path)} is {_size(file.size_px)}" for file in files)
            yield Finding("sizes_differ", told, "one size", pair.split, tuple(file.path for file in files))
        elif sizes and expected.size_px is not None and sizes != {expected.size_px}:
            strange.setdefault((pair.split, files[0].size_px), []).append(files[0].path)
    for (split, size_px), paths in strange.items():
        assert expected.size_px is not None, "or none would be strange"
        more = f" and {len(paths) - 1} more pairs are" if len(paths) > 1 else " is"
        what = f"{quoted(paths[0])}{more} {_size(size_px)}"
        yield Finding("wrong_size", what, _size(expected.size_px), split, tuple(paths))


def _size(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]} x {size_px[1]}"


def mask_findings(facts: Sequence[PairFacts], expected: ExpectedSet) -> Iterator[Finding]:
    """Masks that are empty, cover everything, mark far more than others, or have many values."""
    shares = [pair.mask.share for pair in facts if pair.mask is not None]
    usual = statistics.median(shares) if len(shares) >= _FEWEST_MASKS else 1.0
    for pair in facts:
        mask = pair.mask
        if mask is None:
            continue
        name, split, files = quoted(mask.path), pair.split, (mask.path,)
        # In a dataset of one's own, a picture may well be sharp, or blurred all over.
        is_fault = expected.all_blurred_somewhere
        if mask.share == 0:
            yield Finding("mask_empty", f"{name} is zero all over", "blurred pixels", split, files, is_fault)
        elif mask.share == 1:
            yield Finding(
                "mask_full", f"{name} is nowhere zero", "pixels not blurred", split, files, is_fault
            )
        elif len(mask.values) > 2:
            values = ", ".join(map(str, mask.values[:5]))
            more = ", ..." if len(mask.values) > 5 else ""
            told = f"{name} has the values {values}{more} ({mask.between:.2%} of what is not zero are strays)"
            is_fault = mask.between > _STRAY_VALUES
            yield Finding("mask_values", told, "two values", split, files, is_fault)
        if max(_MOST_BLURRED, _FAR_MORE * usual) < mask.share < 1:
            told = f"{name} marks {mask.share:.0%} of its picture"
            yield Finding("mask_large", told, f"{usual:.0%}, as in the median", split, files, is_fault=False)


def pair_findings(facts: Sequence[PairFacts]) -> Iterator[Finding]:
    """Pairs of one picture twice, of two different things, or whose blurry picture is the sharper one.

    Where most blurry pictures of a split are the sharper ones it is told once, of all of them.
    """
    for split in dict.fromkeys(pair.split for pair in facts):
        compared: list[tuple[PairFacts, float]] = []
        for pair in facts:
            if pair.split != split or pair.blurry is None or pair.sharp is None or pair.psnr_db is None:
                continue
            if pair.blurry.digest == pair.sharp.digest:
                yield _of_pair("identical", pair, "are the same picture", "a blurry and a sharp one")
            elif pair.likeness is not None and pair.likeness < SAME_THING:
                shown = f"show different things ({pair.psnr_db:.1f} dB)"
                yield _of_pair("mismatched", pair, shown, "two pictures of one scene")
            else:
                compared.append((pair, sharper(pair)))
        yield from _swaps(compared)
        yield from _brightness([pair for pair, _ in compared])


def sharper(pair: PairFacts) -> float:
    """The squared gradient of a pair's blurry picture, divided by that of the sharp one."""
    assert pair.blurry is not None
    assert pair.sharp is not None
    if pair.sharp.sharpness == 0:
        return math.inf if pair.blurry.sharpness else 1.0
    return pair.blurry.sharpness / pair.sharp.sharpness


def _swaps(compared: Sequence[tuple[PairFacts, float]]) -> Iterator[Finding]:
    reversed_pairs = [(pair, ratio) for pair, ratio in compared if ratio > _SEEMS_SHARPER]
    if len(reversed_pairs) > 1 and 2 * len(reversed_pairs) > len(compared):
        pair = reversed_pairs[0][0]
        files = tuple(path for pair, _ in reversed_pairs for path in _paths(pair))
        what = f"{len(reversed_pairs)} of {len(compared)} blurry pictures are sharper than their partners, "
        yield Finding(
            "swapped",
            f"{what}{quoted(files[0])} among them",
            "blurry pictures less sharp than sharp ones",
            pair.split,
            files,
            advice="the folders are swapped: exchange them",
        )
        return
    for pair, ratio in reversed_pairs:
        shown = f"seem swapped: the first is the sharper one (squared gradients {ratio:.2g} to 1)"
        kind = "swapped" if ratio >= _IS_SHARPER else "hardly_blurred"
        expected = "a blurry picture less sharp than its partner"
        yield _of_pair(kind, pair, shown, expected, is_fault=kind == "swapped")


def _brightness(compared: Sequence[PairFacts]) -> Iterator[Finding]:
    """Pairs whose pictures differ in their mean value; told once where most of a split do."""
    differing = [pair for pair in compared if _brightness_ratio(pair) > _SAME_BRIGHTNESS]
    if len(differing) > 1 and 2 * len(differing) > len(compared):
        files = tuple(path for pair in differing for path in _paths(pair))
        ratio = statistics.median(map(_brightness_ratio, differing))
        yield Finding(
            "brightness_differs",
            f"the pictures of {len(differing)} of {len(compared)} pairs differ in brightness, {ratio:.1f} "
            f"times in the median: {quoted(files[0])} and {quoted(files[1])}, say",
            "one mean value in a pair",
            differing[0].split,
            files,
        )
        return
    for pair in differing:
        assert pair.blurry is not None
        assert pair.sharp is not None
        shown = f"have the mean values {pair.blurry.mean:.0f} and {pair.sharp.mean:.0f} of 255"
        yield _of_pair("brightness_differs", pair, shown, "one mean value in a pair", is_fault=False)


def _brightness_ratio(pair: PairFacts) -> float:
    """How many times as bright as the other the brighter picture of a pair is."""
    assert pair.blurry is not None
    assert pair.sharp is not None
    darker, brighter = sorted((pair.blurry.mean + _BLACK, pair.sharp.mean + _BLACK))
    return brighter / darker


def _of_pair(kind: str, pair: PairFacts, what: str, expected: str, *, is_fault: bool = True) -> Finding:
    blurry, sharp = _paths(pair)
    return Finding(
        kind,
        f"{quoted(blurry)} and {quoted(sharp)} {what}",
        expected,
        pair.split,
        (blurry, sharp),
        is_fault,
    )


def _paths(pair: PairFacts) -> tuple[Path, Path]:
    assert pair.blurry is not None
    assert pair.sharp is not None
    return pair.blurry.path, pair.sharp.path
