"""Lines, arrows, colours and words, on canvases that are uint8 RGB, (height, width, 3)."""

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Number = TypeVar("Number", bound=np.generic)
Run = tuple[str, Colour]  # words of one colour

BACKGROUND: Colour = (22, 23, 27)
TEXT: Colour = (238, 239, 242)
QUIET_TEXT: Colour = (158, 162, 172)

_SUBPIXEL_BITS = 4  # OpenCV takes fractions of a pixel as integers


def stroke_px(height: int, width: int) -> float:
    """The unit in which lines, heads and gaps on a canvas are measured: they look alike on all sizes."""
    return max(1.0, max(height, width) / 500)


def enlarged(pixels: NDArray[Number], factor: int) -> NDArray[Number]:
    """Each pixel as a square; what is not enlarged is not copied."""
    if factor == 1:
        return pixels
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def faded(picture: Picture, brightness: float) -> Picture:
    """Gray for the most part, and darker, so that colours drawn on it stand out."""
    gray = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(gray, 0.8 * brightness, picture, 0.2 * brightness, 0).astype(np.uint8, copy=False)


def blend(canvas: Picture, colours: NDArray[Number], strength: NDArray[np.float32] | float) -> None:
    """Lay colours, (H, W, 3) or (3,), over a canvas, in place, as strongly as (H, W) in [0, 1] says."""
    band = max(1, 2**20 // canvas.shape[1])
    for top in range(0, len(canvas), band):  # floating point of a large photo would take gigabytes
        rows = slice(top, top + band)
        over = (colours[rows] if colours.ndim == 3 else colours).astype(np.float32)
        here = strength if isinstance(strength, float) else strength[rows, :, None]
        canvas[rows] = (canvas[rows] * (1 - here) + over * here).round()


def outline(canvas: Picture, likelihood: NDArray[np.float32], lines: Sequence[tuple[Colour, float]]) -> None:
    """Draw lines around where a map, (H, W), is over 0.5; none along the edge of the canvas."""
    margin = 2 + round(max(width_px for _, width_px in lines))
    inside = cv2.copyMakeBorder(
        (likelihood > 0.5).astype(np.uint8), margin, margin, margin, margin, cv2.BORDER_REPLICATE
    )
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for colour, width_px in lines:
        thickness = max(1, round(width_px))
        cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA, offset=(-margin, -margin))


def arrow(
    canvas: Picture,
    path: NDArray[np.float64],
    colour: Colour,
    width_px: float,
    head_px: float,
    casing_px: float,
) -> None:
    """Draw a line through a path, (N, 2) in px of the canvas, with a head at its end, in a dark casing.

    The head is not longer than half of the path.
    """
    away = np.linalg.norm(path - path[-1], axis=1)
    head_px = min(head_px, 0.5 * float(away.max()))
    # The head points as the path's last stretch of its own length does.
    far = np.flatnonzero(away >= 0.9 * head_px)
    along = path[-1] - path[far[-1] if len(far) else 0]
    along = along / max(1e-9, float(np.linalg.norm(along)))
    across = np.array((-along[1], along[0]))
    tip, base = path[-1], path[-1] - head_px * along
    head = np.stack((tip, base + 0.45 * head_px * across, base - 0.45 * head_px * across))
    # The line ends within the head, whose tip would be blunt otherwise.
    inside = away < 0.6 * head_px
    line = np.concatenate((path[~inside], (tip - 0.6 * head_px * along)[None]))
    for shade, more_px in ((BACKGROUND, 2 * casing_px), (colour, 0.0)):
        thickness = max(1, round(width_px + more_px))
        cv2.polylines(canvas, [_fixed(line)], False, shade, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        if more_px:
            rim = max(1, round(more_px))
            cv2.polylines(canvas, [_fixed(head)], True, shade, rim, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillConvexPoly(canvas, _fixed(head), shade, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points as OpenCV takes fractions of a pixel; its pixels have their centres at whole numbers."""
    fixed: NDArray[np.int32] = ((points - 0.5) * 2**_SUBPIXEL_BITS).clip(-(2**24), 2**24).astype(np.int32)
    return fixed


def motion_colours(
    x: NDArray[np.floating], y: NDArray[np.floating], strength: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The colours of displacements: hue is the direction, saturation how long the motion is.

    Right is red, and hues follow the clock: down, left, up. What stands still is white (Baker et al. 2011,
    "A Database and Evaluation Methodology for Optical Flow", figure 7 likewise).

    Args:
        x: Displacements to the right, of any shape.
        y: Displacements downwards, of the same shape.
        strength: Length of the motion, 1 = the most saturated; longer ones are clamped.

    Returns:
        The shape, and (3,): RGB from 0 to 255.
    """
    hue = np.degrees(np.arctan2(y, x)) % 360
    hsv = np.stack((hue, 0.9 * np.sqrt(np.clip(strength, 0, 1)), np.ones_like(hue)), axis=-1).astype(
        np.float32
    )
    if not hsv.size:  # which OpenCV refuses
        return hsv
    rgb = cv2.cvtColor(hsv.reshape(1, -1, 3), cv2.COLOR_HSV2RGB).astype(np.float32) * 255
    return rgb.reshape(hsv.shape)


def font(size_px: float) -> ImageFont.FreeTypeFont:
    """Pillow's own, at a size."""
    made = ImageFont.load_default(max(1, round(size_px)))
    assert isinstance(made, ImageFont.FreeTypeFont), "Pillow's wheels come with FreeType"
    return made


def draw_runs(
    draw: ImageDraw.ImageDraw, left: float, top: float, runs: Sequence[Run], face: ImageFont.FreeTypeFont
) -> None:
    """Write words of several colours on one line."""
    for words, colour in runs:
        draw.text((left, top), words, colour, face)
        left += face.getlength(words) + 0.5 * face.size


def shortened(text: str, face: ImageFont.FreeTypeFont, width_px: float) -> str:
    """The text on one line, with its middle left out where it is too long: names differ at their ends."""
    text = " ".join(text.split())
    shown = text
    kept = min(len(text), round(len(text) * width_px / max(1.0, face.getlength(text))) + 3)
    while face.getlength(shown) > width_px and kept > 2:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return shown


def wrapped(text: str, face: ImageFont.FreeTypeFont, width_px: float) -> list[str]:
    """The text in lines of no more than a width, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
