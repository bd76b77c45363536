"""What is measured of one pair of pictures: every file is checked and decoded once, for all that is asked.

Values are stored ones, 0..255, unless it is said that they are light: light is (value / 255)^2.2, as GoPro's
authors undo the curve of their cameras.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_lab.data.layouts import Pair
from deblur_lab.data.samples import Split
from deblur_lab.images import MAX_PIXELS, ImageError, check_picture, read_rgb
from deblur_lab.images.files import mask_levels, opened

GAMMA = 2.2
_LIGHT = (np.arange(256) / 255) ** GAMMA
# How much light changes with the stored value: in the unit that makes both changes alike.
_SLOPE = GAMMA * (np.arange(256) / 255) ** (GAMMA - 1) / 255
_THUMBNAIL_PX = 48
# Flatter than this (standard deviation of a thumbnail's values), a picture shows nothing to compare.
_FLAT = 2.0
_MANY_VALUES = 8


@dataclass(frozen=True)
class PictureFacts:
    """What one picture is.

    Attributes:
        path: The file.
        size_px: Width and height, as displayed.
        format: As Pillow calls it: PNG, JPEG, ...
        mode: Likewise: RGB, L, ...
        digest: Of the decoded pixels and the size, in hexadecimal: equal pictures have equal ones, however
            they are stored.
        mean: Of the values of all pixels and channels, 0..255.
        light: The mean of their light, 0..1.
        slope: The mean change of light with the value, by which a difference in light is one in values.
        sharpness: The mean squared gradient of its gray values where the mask says that it is blurred, or
            all over; after a little smoothing, so that noise counts less.
    """

    path: Path
    size_px: tuple[int, int]
    format: str
    mode: str
    digest: str
    mean: float
    light: float
    slope: float
    sharpness: float


@dataclass(frozen=True)
class MaskFacts:
    """What one mask is.

    Attributes:
        path: The file.
        size_px: Width and height, as displayed.
        format: As Pillow calls it.
        values: Its different values, at most the `_MANY_VALUES` smallest of them.
        share: How much of it is not zero, 0..1.
        between: How much of that has another value than most of it, 0..1; 0 for a mask of two values.
        digest: Of what is zero and what is not, and of the size, in hexadecimal.
    """

    path: Path
    size_px: tuple[int, int]
    format: str
    values: tuple[int, ...]
    share: float
    between: float
    digest: str


@dataclass(frozen=True)
class PairFacts:
    """What the files of one pair are.

    Attributes:
        split: Of the pair.
        name: As in `layouts.Pair`.
        blurry: None where the file cannot be used.
        sharp: Likewise.
        mask: Likewise, or where there is none.
        errors: What is said of files that cannot be used, by file.
        psnr_db: Of the blurry picture against the sharp one, infinite where they are equal; None where they
            cannot be compared.
        likeness: How alike the two are when looked at from afar, a correlation; None where they cannot be
            compared or show nothing.
        other_mean: The mean value of the same picture in another folder, where both were asked for: of
            GoPro's `blur_gamma` where `blur` is used, and the other way round.
    """

    split: Split
    name: str
    blurry: PictureFacts | None
    sharp: PictureFacts | None
    mask: MaskFacts | None
    errors: tuple[tuple[Path, str], ...] = ()
    psnr_db: float | None = None
    likeness: float | None = None
    other_mean: float | None = None


@dataclass(frozen=True)
class Inspection:
    """One pair to look at: all that a worker needs to know.

    Attributes:
        split: Of the pair.
        pair: Its files.
        other: The same blurry picture averaged in the other way, where there is one.
    """

    split: Split
    pair: Pair
    other: Path | None = None

    def __call__(self) -> PairFacts:
        """Read and measure the files; what is wrong with them is in what is returned, nothing is raised."""
        cv2.setNumThreads(1)  # there is a process a core
        errors: list[tuple[Path, str]] = []
        mask, blurred = self._mask(errors)
        pictures: list[NDArray[np.uint8] | None] = []
        facts: list[PictureFacts | None] = []
        for path in (self.pair.blurry, self.pair.sharp):
            picture, fact = _picture(path, blurred, errors)
            pictures.append(picture)
            facts.append(fact)
        psnr_db = likeness = None
        blurry, sharp = pictures
        if blurry is not None and sharp is not None and blurry.shape == sharp.shape:
            squared_error = cv2.norm(blurry, sharp, cv2.NORM_L2SQR) / blurry.size
            psnr_db = 10 * math.log10(255**2 / squared_error) if squared_error else math.inf
            likeness = _likeness(blurry, sharp)
        return PairFacts(
            self.split,
            self.pair.name,
            facts[0],
            facts[1],
            mask,
            tuple(errors),
            psnr_db,
            likeness,
            None if self.other is None else _mean_of_other(self.other),
        )

    def _mask(self, errors: list[tuple[Path, str]]) -> tuple[MaskFacts | None, NDArray[np.uint8] | None]:
        if self.pair.mask is None:
            return None, None
        try:
            return inspect_mask(self.pair.mask)
        except ImageError as error:
            errors.append((self.pair.mask, str(error)))
            return None, None


def _picture(
    path: Path, blurred: NDArray[np.uint8] | None, errors: list[tuple[Path, str]]
) -> tuple[NDArray[np.uint8] | None, PictureFacts | None]:
    try:
        return inspect_picture(path, blurred)
    except ImageError as error:
        errors.append((path, str(error)))
        return None, None


def inspect_picture(
    path: Path, blurred: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], PictureFacts]:
    """A picture and what it is.

    Args:
        path: The file.
        blurred: (H, W), not zero where its sharpness is looked at; None, empty or of another size: all over.

    Returns:
        (H, W, 3) uint8 RGB, and the facts.

    Raises:
        ImageError: The file cannot be used.
    """
    check_picture(path)
    with opened(path, MAX_PIXELS) as image:
        kind, mode = image.format or "", image.mode
    picture = read_rgb(path)
    height, width = picture.shape[:2]
    counts = sum(
        cv2.calcHist([picture], [channel], None, [256], [0, 256]).ravel().astype(np.float64)
        for channel in range(3)
    )
    shares = counts / picture.size
    where = blurred if blurred is not None and blurred.shape == (height, width) and blurred.any() else None
    return picture, PictureFacts(
        path,
        (width, height),
        kind,
        mode,
        _digest(picture),
        float(shares @ np.arange(256)),
        float(shares @ _LIGHT),
        float(shares @ _SLOPE),
        _sharpness(picture, where),
    )


def inspect_mask(path: Path) -> tuple[MaskFacts, NDArray[np.uint8]]:
    """A mask and what it is; as `images.read_mask` reads it, any pixel that is not zero is blurred.

    Returns:
        The facts, and (H, W) uint8 in {0, 1}.

    Raises:
        ImageError: The file cannot be used.
    """
    check_picture(path, as_mask=True)
    with opened(path, MAX_PIXELS) as image:
        kind = image.format or ""
        levels = mask_levels(image)
    blurred = (levels != 0).astype(np.uint8)
    height, width = blurred.shape
    values, counts = np.unique(levels, return_counts=True)
    of_blurred = counts[values != 0]
    between = 1 - float(of_blurred.max() / of_blurred.sum()) if len(of_blurred) else 0.0
    return MaskFacts(
        path=path,
        size_px=(width, height),
        format=kind,
        values=tuple(int(value) for value in values[:_MANY_VALUES]),
        share=float(np.count_nonzero(blurred) / blurred.size),
        between=between,
        digest=_digest(blurred),
    ), blurred


def _digest(pixels: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _sharpness(picture: NDArray[np.uint8], where: NDArray[np.uint8] | None) -> float:
    gray = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    count = gray.size if where is None else int(np.count_nonzero(where))
    return float(sum(cv2.norm(slope, cv2.NORM_L2SQR, where) for slope in cv2.spatialGradient(gray)) / count)


def _likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float | None:
    seen = []
    for picture in (first, second):
        step = max(min(picture.shape[:2]) // (4 * _THUMBNAIL_PX), 1)
        gray = cv2.cvtColor(np.ascontiguousarray(picture[::step, ::step]), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        values = small.astype(np.float64)
        if values.std() < _FLAT:
            return None
        seen.append((values - values.mean()) / values.std())
    return float((seen[0] * seen[1]).mean())


def _mean_of_other(path: Path) -> float | None:
    """The mean value of a picture that is only looked at for comparison; None where it cannot be."""
    try:
        return float(np.mean(cv2.mean(read_rgb(path))[:3]))
    except ImageError:
        return None
