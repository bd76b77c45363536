"""What synthetic scenes are cut from: photographs inside scikit-image's wheel, and dead leaves."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image

from deblur_lab.data.samples import Split
from deblur_lab.errors import MachineError

# No photograph and no subject is in two splits: both views of the motorcycle are in one. Each split has
# colour and gray, fine and coarse content. Left out are drawings, test patterns and what is blurred or empty.
PHOTOGRAPHS: Mapping[Split, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "astronaut.png",
            "brick.png",
            "camera.png",
            "coins.png",
            "grass.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "page.png",
        ),
        "val": ("rocket.jpg",),
        "test": ("chelsea.png", "coffee.png", "gravel.png", "text.png"),
    }
)
# About one scene in three is made of textures: they have edges at all scales and nothing to recognise.
TEXTURES: Mapping[Split, int] = MappingProxyType({"train": 4, "val": 2, "test": 2})
TEXTURE_SIZE_PX = 512

_TEXTURE_SEEDS: Mapping[Split, int] = MappingProxyType({"train": 101, "val": 102, "test": 103})
_SMALLEST_LEVEL_PX = 96
_SUPERSAMPLING = 2
_SHIFT_BITS = 4  # OpenCV's drawing functions take coordinates in sixteenths of a pixel


@dataclass(frozen=True)
class Picture:
    """A picture at several sizes, ready to be cut.

    Attributes:
        name: Where it comes from.
        levels: (H, W, 3) uint8 RGB, each about half as large as the one before.
        detail: (h + 1, w + 1) float64, the integral over the last level of its gradient's magnitude.
    """

    name: str
    levels: tuple[NDArray[np.uint8], ...]
    detail: NDArray[np.float64]

    @classmethod
    def of(cls, name: str, pixels: NDArray[np.uint8]) -> "Picture":
        """Prepare a picture, (H, W, 3) uint8 RGB."""
        levels = [pixels]
        while min(levels[-1].shape[:2]) >= 2 * _SMALLEST_LEVEL_PX:
            height, width = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        gray = levels[-1].mean(axis=2, dtype=np.float32)
        gradient = np.hypot(*np.gradient(gray))
        return cls(name, tuple(levels), cv2.integral(gradient.astype(np.float32)).astype(np.float64))

    def cut(
        self,
        rng: np.random.Generator,
        width_px: int,
        height_px: int,
        *,
        scales: tuple[float, float] = (0.5, 1.0),
        largest_scale: float = 1.5,
        tilt_degrees: float = 10.0,
    ) -> NDArray[np.uint8]:
        """Cut a piece at a random place, size and tilt, perhaps mirrored, in slightly changed colours.

        Of three random places the one with the most detail is taken. A piece that is larger than the picture
        is magnified, at most by `largest_scale`, and mirrored at the picture's borders beyond that.

        Args:
            rng: Draws everything.
            width_px: Width of the piece.
            height_px: Height of the piece.
            scales: Range of the magnification, piece to picture.
            largest_scale: What the magnification may reach for a picture that is smaller than the piece.
            tilt_degrees: Largest tilt either way.

        Returns:
            (height_px, width_px, 3) uint8 RGB.
        """
        height, width = self.levels[0].shape[:2]
        needed = max(width_px / width, height_px / height)
        lower, upper = (min(max(scale, needed), max(largest_scale, scale)) for scale in scales)
        scale = float(np.exp(rng.uniform(np.log(lower), np.log(upper))))
        tilt = np.deg2rad(rng.uniform(-tilt_degrees, tilt_degrees))
        mirrored = rng.random() < 0.5
        centre_x, centre_y = self._detailed_place(rng, width_px / scale, height_px / scale)

        # The level whose pixels are at least as fine as the piece's: reading between its pixels by bilinear
        # interpolation then neither blurs nor aliases much.
        level = min(max(int(np.floor(-np.log2(scale) + 1e-6)), 0), len(self.levels) - 1)
        source = self.levels[level]
        shrink_x, shrink_y = source.shape[1] / width, source.shape[0] / height
        across = -1.0 if mirrored else 1.0
        cosine, sine = np.cos(tilt) / scale, np.sin(tilt) / scale
        to_source = np.array([[cosine * across, -sine, 0.0], [sine * across, cosine, 0.0]])
        middle = np.array([(width_px - 1) / 2, (height_px - 1) / 2])
        to_source[:, 2] = np.array([centre_x, centre_y]) - to_source[:, :2] @ middle
        to_source *= np.array([[shrink_x], [shrink_y]])
        piece = cv2.warpAffine(
            source,
            to_source,
            (width_px, height_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return np.asarray(cv2.LUT(piece, _colour_change(rng)), np.uint8)

    def _detailed_place(self, rng: np.random.Generator, width: float, height: float) -> tuple[float, float]:
        """The centre of a window of this size, in pixels of the first level."""
        full_height, full_width = self.levels[0].shape[:2]
        rows, columns = self.detail.shape[0] - 1, self.detail.shape[1] - 1
        free_x, free_y = max(full_width - width, 0.0), max(full_height - height, 0.0)
        best, place = -1.0, (full_width / 2, full_height / 2)
        for across, down in rng.random((3, 2)):
            left, top = across * free_x, down * free_y
            x0, x1 = (round(x / full_width * columns) for x in (left, min(left + width, full_width)))
            y0, y1 = (round(y / full_height * rows) for y in (top, min(top + height, full_height)))
            total = self.detail[y1, x1] - self.detail[y0, x1] - self.detail[y1, x0] + self.detail[y0, x0]
            if total > best:
                best = float(total)
                place = (min(left + width / 2, full_width - 0.5), min(top + height / 2, full_height - 0.5))
        if free_x == 0.0:
            place = (full_width / 2, place[1])
        if free_y == 0.0:
            place = (place[0], full_height / 2)
        return place


def pictures(split: Split) -> tuple[Picture, ...]:
    """All pictures of a split: its photographs, then its dead leaves.

    Read and drawn on first use in a process, then kept (about 10 MB a split). Nothing is downloaded.

    Raises:
        MachineError: scikit-image's installation lacks a photograph; names the file.
    """
    return _pictures(split)


@functools.cache
def _pictures(split: Split) -> tuple[Picture, ...]:
    photographs = tuple(Picture.of(Path(name).stem, read_photograph(name)) for name in PHOTOGRAPHS[split])
    palette = np.concatenate([picture.levels[-1].reshape(-1, 3) for picture in photographs])
    textures = (
        Picture.of(
            f"leaves{number}",
            dead_leaves(np.random.default_rng([_TEXTURE_SEEDS[split], number]), palette, TEXTURE_SIZE_PX),
        )
        for number in range(TEXTURES[split])
    )
    return photographs + tuple(textures)


def read_photograph(name: str) -> NDArray[np.uint8]:
    """One photograph of scikit-image's wheel, (H, W, 3) uint8 RGB.

    Raises:
        MachineError: the installation lacks it.
    """
    path = Path(skimage.__file__).parent / "data" / name
    try:
        with Image.open(path) as photograph:
            return np.asarray(photograph.convert("RGB"))
    except OSError as error:
        raise MachineError(
            f"{path} cannot be read, and synthetic scenes are cut from it: reinstall scikit-image ({error})"
        ) from error


def dead_leaves(
    rng: np.random.Generator,
    palette: NDArray[np.uint8],
    size_px: int,
    *,
    smallest_px: float = 2.0,
    largest_px: float = 90.0,
    leaves: int = 4000,
) -> NDArray[np.uint8]:
    """A square texture of ellipses that hide each other, as leaves on the ground do.

    With radii r distributed as r**-3 such pictures share with photographs the scale-free statistics of their
    edges and spectra (Lee, Mumford and Huang, Occlusion Models for Natural Images, IJCV 2001).

    Args:
        rng: Draws everything.
        palette: (N, 3) uint8 RGB, the colours to draw from.
        size_px: Side of the square.
        smallest_px: Smallest radius.
        largest_px: Largest radius.
        leaves: How many ellipses are drawn, back to front.

    Returns:
        (size_px, size_px, 3) uint8 RGB.
    """
    side = size_px * _SUPERSAMPLING
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = palette[rng.integers(len(palette))]
    # Inverse of the distribution function of a density that falls as r**-3 between the two radii.
    share = rng.random(leaves)
    radii = 1 / np.sqrt(smallest_px**-2 - share * (smallest_px**-2 - largest_px**-2))
    # The largest lie at the back, or they would hide all others; a little disorder keeps them in view.
    radii = radii[np.argsort(-radii * np.exp(rng.normal(0.0, 0.7, leaves)))]
    centres = rng.uniform(0.0, side, (leaves, 2))
    flattening = rng.uniform(0.4, 1.0, leaves)
    turns = rng.uniform(0.0, 180.0, leaves)
    colours = palette[rng.integers(len(palette), size=leaves)].astype(np.float64)
    colours *= np.exp(rng.normal(0.0, 0.15, (leaves, 1)))
    unit = 1 << _SHIFT_BITS
    for radius, centre, flat, turn, colour in zip(radii, centres, flattening, turns, colours, strict=True):
        across = radius * _SUPERSAMPLING * unit
        cv2.ellipse(
            canvas,
            (int(centre[0] * unit), int(centre[1] * unit)),
            (int(across), int(across * flat)),
            turn,
            0.0,
            360.0,
            tuple(np.clip(colour, 0, 255).tolist()),
            cv2.FILLED,
            cv2.LINE_8,
            _SHIFT_BITS,
        )
    texture = cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    # Leaves are not evenly lit: shade slowly over the picture, and give each pixel a grain.
    shade = rng.normal(0.0, 1.0, (8, 8)).astype(np.float32)
    texture *= np.exp(0.12 * cv2.resize(shade, (size_px, size_px), interpolation=cv2.INTER_CUBIC))[..., None]
    texture *= np.exp(rng.normal(0.0, 0.03, (size_px, size_px, 1)))
    return np.clip(np.rint(texture), 0, 255).astype(np.uint8)


def _colour_change(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A table, (1, 256, 3) uint8, that changes contrast and white balance a little."""
    contrast = np.exp(rng.normal(0.0, 0.15))
    gains = np.exp(rng.normal(0.0, 0.12) + rng.normal(0.0, 0.06, 3))
    levels = (np.arange(256) / 255) ** contrast
    return np.asarray(np.rint(np.clip(levels[:, None] * gains, 0, 1) * 255), np.uint8)[None]
