"""Pictures for people: what a network was given, what it made of it, where it saw blur and which motion.

Tensors are those of one image, floats with channels first; pictures, taken or returned, are uint8 RGB,
(height, width, 3), ready to be written. Nothing is random: equal inputs give equal pictures.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from deblur_lab.images import to_uint8

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Number = TypeVar("Number", bound=np.generic)

NARROWEST_COLUMN_PX = 400  # the heading of a column has room in this
LARGEST_ENLARGED_PX = 1200  # a picture is not enlarged beyond this
STILL_PX = 0.25  # blur shorter than this cannot be seen

BACKGROUND: Colour = (22, 23, 27)
TEXT: Colour = (238, 239, 242)
QUIET_TEXT: Colour = (158, 162, 172)
BETTER: Colour = (104, 211, 145)
STILL: Colour = (120, 124, 132)
WORSE: Colour = (250, 128, 114)
PREDICTED: Colour = (255, 106, 0)
TRUE_OUTLINE: Colour = (64, 224, 255)

_SUBPIXEL_BITS = 4  # OpenCV takes fractions of a pixel as integers


def comparison_panel(
    blurry: Tensor,
    restored: Tensor,
    sharp: Tensor | None,
    mask: Tensor | None = None,
    probability: Tensor | None = None,
    motion: Tensor | None = None,
    title: str = "",
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> Picture:
    """Lay an image out side by side: blurry, restored, sharp, blur mask, motion.

    Columns of what is not given are absent. Small pictures are enlarged by a whole factor, each pixel a
    square, so that what is seen is what was computed.

    Args:
        blurry: (3, H, W) in [0, 1].
        restored: (3, H, W), clamped to [0, 1].
        sharp: (3, H, W) in [0, 1], or None.
        mask: (1, H, W), 1 = blurred; the true one.
        probability: (1, H, W) in [0, 1], predicted, that a pixel is blurred.
        motion: (N, 2, H, W), displacements in px over the exposure, x then y, from its start to its end.
        title: one line above the columns; shortened if it is too long.
        scores: of the columns "blurry" and "restored", by the names that a scoring protocol gives them;
            gains are printed where both have one, and NaN is not printed.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: the sizes differ, or the restored image holds NaN.
    """
    height, width = blurry.shape[-2:]
    _check_sizes((height, width), restored, sharp, mask, probability, motion)
    factor = enlargement(height, width)
    scores = scores or {}
    before, after = scores.get("blurry", {}), scores.get("restored", {})
    given = to_uint8(blurry)
    columns = [
        _Column("blurry", _enlarged(given, factor), _score_lines(before, {})),
        _Column("restored", _enlarged(to_uint8(restored), factor), _score_lines(after, before)),
    ]
    if sharp is not None:
        columns.append(_Column("sharp", _enlarged(to_uint8(sharp), factor), [[("ground truth", QUIET_TEXT)]]))
    if mask is not None or probability is not None:
        legend = [
            *([("tint: predicted", PREDICTED)] if probability is not None else []),
            *([("outline: true", TRUE_OUTLINE)] if mask is not None else []),
        ]
        columns.append(_Column("blur", mask_overlay(given, probability, mask, enlarge=factor), [legend]))
    if motion is not None:
        trajectories = _trajectories(motion, probability, factor)
        overlay = _draw_trajectories(_enlarged(given, factor), trajectories)
        columns.append(_Column("motion", overlay, [[(trajectories.caption(), QUIET_TEXT)]]))
    return _lay_out(columns, title)


def explained_panel(
    photo: Picture,
    restored: Picture,
    probability: Tensor | None = None,
    motion: Tensor | None = None,
    *,
    reduction: int = 1,
) -> Picture:
    """Lay a photo out side by side with what a network made of it and says of it.

    The columns are the photo, the restored photo, where blur is predicted, and which motion. Those of
    what the network does not say are absent. Small photos are enlarged as in `comparison_panel`.

    Args:
        photo: (H, W, 3) uint8.
        restored: (H, W, 3) uint8.
        probability: (1, H, W) in [0, 1], that a pixel is blurred.
        motion: (N, 2, H, W), displacements over the exposure in px of the photo before it was reduced.
        reduction: the factor by which the photo, and all else here, was reduced.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: the sizes differ.
    """
    _check_sizes(photo.shape[:2], probability, motion)
    factor = enlargement(*photo.shape[:2])
    scale = f"reduced {reduction} times" if reduction > 1 else ""
    columns = [
        _Column("photo", _enlarged(photo, factor), [[(scale, QUIET_TEXT)]]),
        _Column("restored", _enlarged(restored, factor), []),
    ]
    if probability is not None:
        legend = [("tint: predicted", PREDICTED)]
        columns.append(_Column("blur", mask_overlay(photo, probability, enlarge=factor), [legend]))
    if motion is not None:
        trajectories = _trajectories(motion / reduction, probability, factor)
        overlay = _draw_trajectories(_enlarged(photo, factor), trajectories)
        if trajectories.longest_px > STILL_PX:
            trajectories = trajectories._replace(longest_px=trajectories.longest_px * reduction)
        columns.append(_Column("motion", overlay, [[(trajectories.caption(), QUIET_TEXT)]]))
    return _lay_out(columns, "")


def mask_overlay(
    picture: Picture, probability: Tensor | None = None, mask: Tensor | None = None, *, enlarge: int = 1
) -> Picture:
    """Tint a picture where blur is predicted, and outline where it truly is.

    Args:
        picture: (H, W, 3) uint8.
        probability: (1, H, W) in [0, 1]; the stronger the tint, the likelier the blur.
        mask: (1, H, W), 1 = blurred; an outline around it.
        enlarge: whole factor by which what is returned is larger.

    Returns:
        (H * enlarge, W * enlarge, 3) uint8.

    Raises:
        ValueError: the sizes differ.
    """
    _check_sizes(picture.shape[:2], mask, probability)
    canvas = _enlarged(_faded(picture, 0.75), enlarge)
    if probability is not None:
        strength = 0.55 * _enlarged(_likelihood(probability), enlarge)[..., None]
        canvas = (canvas * (1 - strength) + np.array(PREDICTED) * strength).round().astype(np.uint8)
    if mask is not None:
        inside = _enlarged((mask[0] > 0.5).to(torch.uint8).cpu().numpy(), enlarge)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        thickness = max(2, round(max(canvas.shape[:2]) / 300))
        for colour, width_px in ((BACKGROUND, thickness + 2), (TRUE_OUTLINE, thickness)):
            cv2.drawContours(canvas, outlines, -1, colour, width_px, cv2.LINE_AA)
    return canvas


def trajectory_overlay(
    picture: Picture, motion: Tensor, probability: Tensor | None = None, *, enlarge: int = 1
) -> Picture:
    """Draw how pixels move during the exposure, one arrow a grid cell, over a dimmed picture.

    An arrow runs through the displacements of one pixel, from the start of the exposure to its end: the pixel
    at the centre of the cell, or the one that moves farthest if the central one does not move half as far.
    Its colour is its direction, as in the wheel at the lower right, and the brighter the longer; short motion
    is drawn longer than it is, by one whole factor for the picture. Pixels that stand still are dots.

    Args:
        picture: (H, W, 3) uint8.
        motion: (N, 2, H, W) in px of the picture, x then y, at N instants from the start to the end.
        probability: (1, H, W) in [0, 1]; the less likely blur is, the fainter the arrow: in flat regions a
            motion that is not there explains the picture as well as none (M2AENet, appendix C).
        enlarge: whole factor by which what is returned is larger.

    Returns:
        (H * enlarge, W * enlarge, 3) uint8.

    Raises:
        ValueError: the sizes differ.
    """
    _check_sizes(picture.shape[:2], motion, probability)
    return _draw_trajectories(_enlarged(picture, enlarge), _trajectories(motion, probability, enlarge))


class _Trajectories(NamedTuple):
    """Paths on a canvas that shows the enlarged image.

    Attributes:
        paths: (K, N, 2) in px of the canvas, x then y.
        lengths_px: (K,) in px of the image, along the path.
        directions: (K,) in radians from right to down, from the first to the last instant.
        likelihoods: (K,) in [0, 1], that the pixel is blurred.
        longest_px: the longest path of all pixels, in px of the image; `STILL_PX` if none is longer.
        cell_px: the side of a grid cell on the canvas.
        magnification: how many times longer paths are drawn than they are.
    """

    paths: NDArray[np.float64]
    lengths_px: NDArray[np.float64]
    directions: NDArray[np.float64]
    likelihoods: NDArray[np.float64]
    longest_px: float
    cell_px: int
    magnification: int

    def caption(self) -> str:
        if self.longest_px <= STILL_PX:
            return "none"
        scale = f", drawn {self.magnification} times as long" if self.magnification > 1 else ""
        return f"longest {self.longest_px:.1f} px{scale}"


def _trajectories(motion: Tensor, probability: Tensor | None, enlarge: int) -> _Trajectories:
    """Choose grid, pixels and magnification; pixels whose motion is not finite are left out."""
    motion = motion.detach().float().cpu()
    steps = motion.diff(dim=0)
    length = torch.hypot(steps[:, 0], steps[:, 1]).sum(dim=0)
    length = torch.where(length.isfinite(), length, -1)
    longest_px = max(STILL_PX, float(length.max()))
    side_px = max(length.shape) * enlarge
    finest_px = max(18, round(side_px / 30))
    fitting = [factor for factor in (2, 3, 5, 10, 20) if longest_px * enlarge * factor <= 1.25 * finest_px]
    magnification = max(fitting, default=1)
    # Cells are as wide as the longest path needs, within reason.
    needed_px = 0.55 * longest_px * enlarge * magnification
    cell_px = round(max(finest_px, min(needed_px, side_px / 10)))
    y, x = _cell_pixels(length, cell_px / enlarge)
    displacements = motion[:, :, y, x].permute(2, 0, 1).double().numpy()
    centres = torch.stack((x, y), dim=1).double().numpy() + 0.5
    ends = displacements[:, -1] - displacements[:, 0]
    return _Trajectories(
        paths=(centres[:, None] + displacements * magnification) * enlarge,
        lengths_px=length[y, x].double().numpy(),
        directions=np.arctan2(ends[:, 1], ends[:, 0]),
        likelihoods=np.ones(len(y)) if probability is None else _likelihood(probability)[y, x],
        longest_px=longest_px,
        cell_px=cell_px,
        magnification=magnification,
    )


def _cell_pixels(length: Tensor, step_px: float) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels that stand for the cells of a grid, by their (H, W) path lengths."""
    height, width = length.shape
    counts = max(1, int(height // step_px)), max(1, int(width // step_px))
    longest, fastest = F.adaptive_max_pool2d(length[None], counts, return_indices=True)
    rows, columns = (
        ((torch.arange(count) + 0.5) * size / count).long()
        for count, size in zip(counts, length.shape, strict=True)
    )
    central = rows[:, None] * width + columns
    # An object smaller than a cell may well miss its centre.
    chosen = torch.where(length.flatten()[central] < 0.5 * longest[0], fastest[0], central).flatten()
    chosen = chosen[length.flatten()[chosen] >= 0]
    return chosen // width, chosen % width


def _draw_trajectories(picture: Picture, trajectories: _Trajectories) -> Picture:
    canvas = _faded(picture, 0.5)
    paths, lengths_px, directions, likelihoods, longest_px, cell_px, _ = trajectories
    brightness = (0.55 + 0.45 * lengths_px / longest_px) * (0.35 + 0.65 * likelihoods)
    colours = _direction_colours(directions, brightness)
    thickness = max(1, round(cell_px / 12))
    for index in np.argsort(lengths_px, kind="stable"):
        path = paths[index]
        if lengths_px[index] <= STILL_PX:
            middle = path[len(path) // 2].round().astype(int).tolist()
            cv2.circle(canvas, middle, max(1, cell_px // 30), STILL, -1, cv2.LINE_AA)
        else:
            _draw_arrow(canvas, path, BACKGROUND, thickness + 2, 0.34 * cell_px)
            _draw_arrow(canvas, path, colours[index], thickness, 0.3 * cell_px)
    if longest_px > STILL_PX:
        _draw_wheel(canvas, round(max(canvas.shape[:2]) / 20))
    return canvas


def _draw_arrow(
    canvas: Picture, path: NDArray[np.float64], colour: Colour, thickness: int, head_px: float
) -> None:
    """A line through a path with a head at its end, which is not longer than half of the path."""
    _polyline(canvas, path, colour, thickness)
    steps = np.linalg.norm(path - path[-1], axis=1)
    head_px = min(head_px, 0.6 * float(steps.max()))
    # The head points as the path's last stretch of its own length does.
    behind = path[:-1][steps[:-1] >= 0.9 * head_px]
    along = path[-1] - (behind[-1] if len(behind) else path[0])
    along = along / max(1e-9, float(np.linalg.norm(along)))
    across = np.array((-along[1], along[0]))
    tip, base = path[-1] + 0.35 * head_px * along, path[-1] - 0.65 * head_px * along
    head = np.stack((tip, base + 0.6 * head_px * across, base - 0.6 * head_px * across))
    cv2.fillConvexPoly(canvas, _fixed(head), colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _polyline(canvas: Picture, path: NDArray[np.float64], colour: Colour, thickness: int) -> None:
    cv2.polylines(canvas, [_fixed(path)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points as OpenCV takes fractions of a pixel; its pixels have their centres at whole numbers."""
    fixed: NDArray[np.int32] = ((points - 0.5) * 2**_SUBPIXEL_BITS).clip(-(2**24), 2**24).astype(np.int32)
    return fixed


def _draw_wheel(canvas: Picture, radius_px: int) -> None:
    """The colour of every direction, in the lower right corner; not on pictures that it would fill."""
    side, margin = 2 * radius_px + 1, 1 + radius_px // 3
    if radius_px < 5 or min(canvas.shape[:2]) < 4 * side:
        return
    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    colours = np.array(_direction_colours(np.arctan2(y, x).ravel(), np.ones(side * side)), np.float64)
    distance = np.hypot(x, y)[..., None]
    corner = canvas[-side - margin : -margin, -side - margin : -margin]
    disk = (radius_px + 0.5 - distance).clip(0, 1)
    ring = (radius_px - 1.5 - distance).clip(0, 1) * (distance - 0.45 * radius_px).clip(0, 1)
    wheel = np.array(BACKGROUND) * (disk - ring) + colours.reshape(side, side, 3) * ring
    corner[...] = (corner * (1 - disk) + wheel).round().astype(np.uint8)


def _direction_colours(directions: NDArray[np.float64], brightness: NDArray[np.float64]) -> list[Colour]:
    hsv = np.stack((np.degrees(directions) % 360, np.full(len(directions), 0.85), brightness), axis=1)
    if not len(hsv):  # which OpenCV refuses
        return []
    rgb = cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0]
    return [(int(r), int(g), int(b)) for r, g, b in (rgb * 255).round().reshape(-1, 3)]


# Laying out

Run = tuple[str, Colour]  # words of one colour


class _Column(NamedTuple):
    name: str
    picture: Picture
    lines: list[list[Run]]


def _score_lines(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[list[Run]]:
    """Two lines of scores, of the whole image and of its blurred part, with gains over a baseline."""
    whole: list[Run] = []
    blurred: list[Run] = []
    for key, value in scores.items():
        if math.isnan(value):
            continue
        unit, digits = (" dB", 2) if key.endswith("_db") else ("", 3)
        line = blurred if key.startswith("weighted_") else whole
        label = key.removeprefix("weighted_").removesuffix("_db").upper()
        line.append((f"{label} {value:.{digits}f}{unit}", TEXT))
        gain = value - baseline.get(key, math.nan)
        if not math.isnan(gain):
            line.append((f"{gain:+.{digits}f}", BETTER if gain >= 0 else WORSE))
    if blurred:
        blurred.insert(0, ("in blur:", QUIET_TEXT))
    return [line for line in (whole, blurred) if line]


def _lay_out(columns: list[_Column], title: str) -> Picture:
    picture_height, picture_width = columns[0].picture.shape[:2]
    column_px = max(picture_width, NARROWEST_COLUMN_PX)
    text_px = max(17, round(column_px / 28))
    gap_px = max(4, text_px // 2)
    line_px = round(1.4 * text_px)
    heading_font, text_font = _font(1.25 * text_px), _font(text_px)
    lines = max(len(column.lines) for column in columns)
    title_height = round(1.5 * line_px) if title else 0
    name_height = round(1.35 * line_px)
    top = gap_px + title_height + name_height + lines * line_px + gap_px // 2
    width = len(columns) * (column_px + gap_px) + gap_px
    panel = Image.new("RGB", (width, top + picture_height + gap_px), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    if title:
        draw.text((gap_px, gap_px), _shortened(title, heading_font, width - 2 * gap_px), TEXT, heading_font)
    for number, column in enumerate(columns):
        left = gap_px + number * (column_px + gap_px)
        draw.text((left, gap_px + title_height), column.name, TEXT, heading_font)
        for row, runs in enumerate(column.lines):
            _draw_runs(draw, left, gap_px + title_height + name_height + row * line_px, runs, text_font)
        panel.paste(Image.fromarray(column.picture), (left, top))
    return np.asarray(panel)


def _font(size_px: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(round(size_px))
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels come with FreeType"
    return font


def _draw_runs(
    draw: ImageDraw.ImageDraw, left: float, top: float, runs: list[Run], font: ImageFont.FreeTypeFont
) -> None:
    for words, colour in runs:
        draw.text((left, top), words, colour, font)
        left += font.getlength(words) + 0.5 * font.size


def _shortened(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> str:
    """The text on one line, with its middle left out where it is too long: names differ at their ends."""
    text = " ".join(text.split())
    shown = text
    kept = min(len(text), round(len(text) * width_px / max(1.0, font.getlength(text))) + 3)
    while font.getlength(shown) > width_px and kept > 2:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return shown


# Pixels


def enlargement(height: int, width: int) -> int:
    """The whole factor by which a picture of a size in px is enlarged, so that what is drawn on it shows."""
    wanted = math.ceil(NARROWEST_COLUMN_PX / width)
    return max(1, min(wanted, LARGEST_ENLARGED_PX // max(height, width)))


def _enlarged(pixels: NDArray[Number], factor: int) -> NDArray[Number]:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _faded(picture: Picture, brightness: float) -> Picture:
    """Gray for the most part, and darker, so that colours drawn on it stand out."""
    gray = picture.mean(axis=2, keepdims=True)
    faded: Picture = ((0.8 * gray + 0.2 * picture) * brightness).round().astype(np.uint8)
    return faded


def _likelihood(probability: Tensor) -> NDArray[np.float64]:
    """(1, H, W) as (H, W), unknown as 0."""
    likelihood: NDArray[np.float64] = probability[0].detach().cpu().double().clamp(0, 1).nan_to_num().numpy()
    return likelihood


def _check_sizes(size: Sequence[int], *others: Tensor | None) -> None:
    for other in others:
        if other is not None and tuple(other.shape[-2:]) != tuple(size):
            raise ValueError(
                f"what is drawn together must have one size, but there are {tuple(size)} and "
                f"{tuple(other.shape[-2:])} (height, width)"
            )
