"""Figures of what is seen in one picture: where it is blurred, and how that moved, with their legends.

Overlays are drawn over the picture and have its size; figures have a legend below it as well.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from deblur_lab.pictures.drawing import (
    BACKGROUND,
    QUIET_TEXT,
    TEXT,
    Colour,
    Picture,
    Run,
    arrow,
    blend,
    draw_runs,
    enlarged,
    faded,
    font,
    motion_colours,
    outline,
    shortened,
    stroke_px,
)
from deblur_lab.pictures.objects import (
    Map,
    SeenMotion,
    Spread,
    blur_likelihood,
    regions,
    seen_motion,
    spread_paths,
)

PREDICTED: Colour = (255, 106, 0)
TRUE_OUTLINE: Colour = (64, 224, 255)
OBJECT_OUTLINE: Colour = (238, 239, 242)

TINT = 0.45  # the strongest

MOST_BADGES = 8

FIGURE_PX = 1000  # small pictures are enlarged for a figure, to about this on the longer side


def mask_overlay(
    picture: Picture,
    probability: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    enlarge: int = 1,
    threshold: float = 0.5,
) -> Picture:
    """Tint a picture where blur is predicted, and outline where it truly is.

    Where blur is likelier than the threshold, the tint has an outline of its colour; specks have none.

    Args:
        picture: (H, W, 3) uint8.
        probability: (1, H, W) in [0, 1]; the stronger the tint, the likelier the blur.
        mask: (1, H, W), 1 = blurred; an outline around it.
        enlarge: whole factor by which what is returned is larger.
        threshold: of the probability.

    Returns:
        (H * enlarge, W * enlarge, 3) uint8.

    Raises:
        ValueError: the sizes differ.
    """
    check_sizes(picture.shape[:2], mask, probability)
    return draw_blur(enlarged(picture, enlarge), probability, mask, step_px=enlarge, threshold=threshold)


def trajectory_overlay(
    picture: Picture,
    motion: Tensor,
    probability: Tensor | None = None,
    *,
    enlarge: int = 1,
    scale_px: float | None = None,
    threshold: float = 0.5,
) -> Picture:
    """Draw how blurred objects move during the exposure, over a quiet picture.

    Each connected region of blur is outlined and tinted, trajectories of some of its pixels run through it,
    from the start of the exposure to its end, and a badge beside it says how it moves as a whole: which way,
    and how far in px. Hue is the direction (right is red, and hues follow the clock: down, left, up),
    saturation the length. Short motion is drawn longer than it is, by one whole factor for the picture.

    Args:
        picture: (H, W, 3) uint8.
        motion: (N, 2, H, W) in px of the picture, x then y, at N instants from the start to the end; of two,
            the path between them is a parabola that passes through zero at mid-exposure.
        probability: (1, H, W) in [0, 1], that a pixel is blurred; what is not is not drawn: in flat regions a
            motion that is not there explains the picture as well as none (M2AENet, appendix C). None: the
            regions are those that move farthest.
        enlarge: whole factor by which what is returned is larger.
        scale_px: the length of the most saturated colour; None: that of the longest path, rounded up.
        threshold: of the probability.

    Returns:
        (H * enlarge, W * enlarge, 3) uint8.

    Raises:
        ValueError: the sizes differ.
    """
    check_sizes(picture.shape[:2], motion, probability)
    seen = seen_motion(motion, probability, threshold)
    return draw_motion(
        enlarged(picture, enlarge), seen, step_px=enlarge, scale=enlarge, scale_px=scale_px or seen.scale_px
    )[0]


def blur_figure(
    picture: Picture,
    probability: Tensor | None,
    mask: Tensor | None = None,
    *,
    reduction: int = 1,
    threshold: float = 0.5,
) -> Picture:
    """`mask_overlay` as a figure of its own: small pictures are enlarged, and a legend stands below it.

    Args:
        picture: (H, W, 3) uint8.
        probability: (1, h, w), predicted.
        mask: (1, h, w), the truth.
        reduction: the whole factor by which h and w are smaller than H and W (rounded up).
        threshold: of the probability; the legend says it.

    Returns:
        (height, width, 3) uint8; its top is the picture, enlarged by a whole factor or not at all.

    Raises:
        ValueError: the sizes differ.
    """
    check_sizes(reduced_size(picture, reduction), probability, mask)
    factor = figure_enlargement(*picture.shape[:2])
    step_px = reduction * factor
    canvas = draw_blur(enlarged(picture, factor), probability, mask, step_px=step_px, threshold=threshold)
    stroke = legend_stroke_px(*canvas.shape[:2])
    return with_legend(canvas, blur_key(probability is not None, mask is not None, stroke, threshold), [])


def motion_figure(
    picture: Picture,
    motion: Tensor,
    probability: Tensor | None = None,
    *,
    reduction: int = 1,
    threshold: float = 0.5,
) -> Picture:
    """`trajectory_overlay` as a figure of its own: small pictures are enlarged, and a legend stands below it.

    Args:
        picture: (H, W, 3) uint8.
        motion: (N, 2, h, w), in px of `picture`.
        probability: (1, h, w), predicted, or the true mask.
        reduction: the whole factor by which h and w are smaller than H and W (rounded up).
        threshold: of the probability.

    Returns:
        (height, width, 3) uint8; its top is the picture, enlarged by a whole factor or not at all.

    Raises:
        ValueError: the sizes differ.
    """
    check_sizes(reduced_size(picture, reduction), probability, motion)
    factor = figure_enlargement(*picture.shape[:2])
    seen = seen_motion(motion, probability, threshold)
    canvas, magnification = draw_motion(
        enlarged(picture, factor), seen, step_px=reduction * factor, scale=factor, scale_px=seen.scale_px
    )
    if not seen.objects:
        return with_legend(canvas, None, [("no motion is seen", QUIET_TEXT)])
    key = motion_key(28 * legend_stroke_px(*canvas.shape[:2]), seen.scale_px)
    return with_legend(
        canvas, key, [(f"motion during the exposure: {seen.caption(magnification)}", QUIET_TEXT)]
    )


def draw_blur(
    canvas: Picture,
    probability: Tensor | None,
    mask: Tensor | None,
    *,
    step_px: int,
    threshold: float = 0.5,
) -> Picture:
    """Draw `mask_overlay` on a canvas that has `step_px` pixels for each one of the maps."""
    drawn = faded(canvas, 0.75)
    height, width = canvas.shape[:2]
    stroke = stroke_px(height, width)
    if probability is not None:
        likelihood = blur_likelihood(probability)
        strength = TINT * enlarged(likelihood, step_px)[:height, :width]
        blend(drawn, np.array(PREDICTED, np.float32), strength)
        likely = _grown(regions(likelihood, threshold).likelihood, step_px, (height, width))
        outline(drawn, likely, [(PREDICTED, 1.2 * stroke)])
    if mask is not None:
        true = _grown((mask[0] > 0.5).float().cpu().numpy(), step_px, (height, width))
        outline(drawn, true, [(BACKGROUND, 3.6 * stroke), (TRUE_OUTLINE, 1.8 * stroke)])
    return drawn


def draw_motion(
    canvas: Picture, seen: SeenMotion, *, step_px: int, scale: float, scale_px: float
) -> tuple[Picture, int]:
    """Draw `trajectory_overlay`, and say how many times longer than they are paths are drawn.

    Args:
        canvas: (H, W, 3) uint8, the picture; `step_px` pixels for each one of the maps.
        seen: What is drawn.
        step_px: A whole factor.
        scale: Pixels of the canvas for a px of motion.
        scale_px: The motion of the most saturated colour.
    """
    height, width = canvas.shape[:2]
    stroke = stroke_px(height, width)
    drawn = faded(canvas, 0.55)
    magnification = max(
        [factor for factor in (2, 3, 5, 10, 20) if seen.longest_px * scale * factor <= 26 * stroke], default=1
    )
    if not seen.objects:
        return drawn, magnification
    lying = np.unique(np.concatenate([seen.regions.labels[thing.moving] for thing in seen.objects]))
    likelihood = np.where(np.isin(seen.regions.labels, lying), seen.regions.likelihood, np.float32(0))
    grown = _grown(likelihood, step_px, (height, width))
    x, y = seen.motion.ends
    strength = seen.motion.length_px / scale_px
    colours = motion_colours(x, y, strength).astype(np.uint8)
    tinted = faded(canvas, 0.85)
    tint = enlarged((TINT * (5 * strength).clip(0, 1)).astype(np.float32), step_px)[:height, :width]
    blend(tinted, enlarged(colours, step_px)[:height, :width], tint)
    np.copyto(drawn, tinted, where=(grown > 0.5)[..., None])
    outline(drawn, grown, [(BACKGROUND, 3 * stroke), (OBJECT_OUTLINE, 1.2 * stroke)])
    spread = Spread(magnification * scale / step_px, 6.5 * stroke / step_px, 13 * stroke / step_px)
    drawn_paths = []
    for path, path_px in spread_paths(seen.objects, seen.motion, spread):
        colour = _colour_of(
            path_px[-1] - path_px[0], np.linalg.norm(np.diff(path_px, axis=0), axis=1).sum() / scale_px
        )
        drawn_paths.append(path)
        arrow(drawn, path * step_px, colour, 1.5 * stroke, 7 * stroke, 0.8 * stroke)
    return _with_badges(drawn, seen, drawn_paths, step_px, scale_px), magnification


def _colour_of(end_px: NDArray[np.float64], strength: float) -> Colour:
    r, g, b = motion_colours(end_px[0], end_px[1], np.array(strength)).round().astype(int).tolist()
    return r, g, b


def _grown(likelihood: Map, step_px: int, size: tuple[int, int]) -> Map:
    """Enlarge a map smoothly, and cut it to the size of the canvas."""
    height, width = likelihood.shape
    if step_px == 1:
        return likelihood[: size[0], : size[1]]
    rounded = cv2.GaussianBlur(likelihood, (0, 0), 0.8)  # corners of pixels would be seen
    grown = cv2.resize(rounded, (width * step_px, height * step_px), interpolation=cv2.INTER_CUBIC)
    return grown[: size[0], : size[1]].astype(np.float32, copy=False)


# Badges: how each object moves as a whole


def _with_badges(
    canvas: Picture,
    seen: SeenMotion,
    paths: Sequence[NDArray[np.float64]],
    step_px: int,
    scale_px: float,
) -> Picture:
    """Beside each of the largest objects, an arrow of fixed size for its direction, and its length in px."""
    height, width = canvas.shape[:2]
    stroke = stroke_px(height, width)
    face = font(max(14.0, 12 * stroke))
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    # What badges should not hide: objects, their arrows, and each other.
    hidden = (seen.regions.labels > 0).astype(np.uint8)
    cv2.polylines(
        hidden, [path.astype(np.int32) for path in paths], False, 1, round(5 * stroke / step_px) + 1
    )
    busy = hidden.astype(np.float64)
    glyphs = []
    for number, thing in enumerate(seen.objects[:MOST_BADGES]):
        if number >= 3 and thing.moving.mean() < 0.004:
            break
        text = f"{thing.length_px:.0f} px" if thing.length_px >= 9.5 else f"{thing.length_px:.1f} px"
        tall = 1.5 * face.size
        glyph = tall if thing.together else 0.35 * face.size
        wide = glyph + face.getlength(text) + 0.5 * face.size
        if wide > 0.5 * width or tall > 0.3 * height:
            continue
        left, top = _place(thing.moving, busy, (wide / step_px, tall / step_px))
        busy[int(top) : int(top + tall / step_px) + 1, int(left) : int(left + wide / step_px) + 1] += 4
        left, top = left * step_px, top * step_px
        box = (left, top, left + wide, top + tall)
        draw.rounded_rectangle(box, tall / 4, BACKGROUND, QUIET_TEXT, max(1, round(0.6 * stroke)))
        draw.text((left + glyph, top + tall / 2), text, TEXT, face, anchor="lm")
        if thing.together:
            glyphs.append((thing, np.array((left + tall / 2, top + tall / 2)), tall))
    drawn = np.asarray(image).copy()
    for thing, centre, tall in glyphs:
        half = 0.34 * tall * thing.mean_px / max(1e-9, float(np.linalg.norm(thing.mean_px)))
        colour = _colour_of(thing.mean_px, thing.length_px / scale_px)
        path = np.linspace(centre - half, centre + half, 9)
        arrow(drawn, path, colour, tall / 8, 0.42 * tall, 0.0)
    return drawn


def _place(
    region: NDArray[np.bool_], busy: NDArray[np.float64], size: tuple[float, float]
) -> tuple[float, float]:
    """Left and top of a box of a size (width, height) near a region where little is busy."""
    height, width = region.shape
    wide, tall = min(size[0], width), min(size[1], height)
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    gap = 0.3 * tall
    lefts = np.linspace(columns[0] - wide - gap, columns[-1] + 1 + gap, 13)
    tops = np.linspace(rows[0] - tall - gap, rows[-1] + 1 + gap, 13)
    sums = np.pad(busy.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    middle = np.array(((columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2))
    best, chosen, covered = math.inf, (0.0, 0.0), 0.0
    for left in lefts.clip(gap, max(gap, width - wide - gap)):
        for top in tops.clip(gap, max(gap, height - tall - gap)):
            x0, y0 = int(left), int(top)
            x1, y1 = min(width, math.ceil(left + wide)), min(height, math.ceil(top + tall))
            hidden = (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / max(
                1, (y1 - y0) * (x1 - x0)
            )
            away = float(np.linalg.norm(np.array((left + wide / 2, top + tall / 2)) - middle))
            cost = hidden + 0.5 * away / max(height, width)
            if cost < best - 1e-9:
                best, chosen, covered = cost, (float(left), float(top)), hidden
    # What hides something wherever it stands does so least in a corner.
    return chosen if covered < 0.9 else (gap, gap)


# Legends


def motion_key(side_px: float, scale_px: float) -> Picture:
    """The wheel: the colour of every direction and length, and how many px its rim stands for."""
    side = max(9, round(side_px) | 1)
    radius = side // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    distance = np.hypot(x, y)
    colours = motion_colours(x, y, distance / radius)
    wheel = np.empty((side, side, 3), np.uint8)
    wheel[:] = BACKGROUND
    blend(wheel, colours, (radius + 0.5 - distance).clip(0, 1).astype(np.float32))
    face = font(max(11.0, 0.36 * side_px))
    text = f"{scale_px:g} px"
    gap = round(0.4 * face.size)
    tick = round(0.6 * face.size)
    key = Image.new("RGB", (side + tick + gap + math.ceil(face.getlength(text)), side), BACKGROUND)
    key.paste(Image.fromarray(wheel), (0, 0))
    draw = ImageDraw.Draw(key)
    line = max(1, round(side / 40))
    # From the middle, no motion, to the rim.
    draw.line((radius, radius, radius + radius, radius), BACKGROUND, line)
    draw.line((radius + radius, radius, side + tick, radius), QUIET_TEXT, line)
    draw.text((side + tick + gap, radius), text, TEXT, face, anchor="lm")
    return np.asarray(key)


def blur_key(predicted: bool, true: bool, stroke: float, threshold: float = 0.5) -> Picture:
    """The tint from 0 to 1, and the colours of the outlines, one beside the other."""
    face = font(max(11.0, 11 * stroke))
    height = round(1.5 * face.size)
    middle, space = height / 2, 0.4 * face.size
    parts: list[tuple[str, float]] = []
    if predicted:
        parts = [
            ("bar", 5 * face.size),
            ("predicted probability of blur, 0 to 1", 0),
            ("likely", 1.6 * face.size),
            (f"over {threshold:g}", 0),
        ]
    if true:
        parts += [("true", 1.6 * face.size), ("true mask", 0)]
    widths = [wide or face.getlength(text) for text, wide in parts]
    key = Image.new(
        "RGB", (math.ceil(sum(widths) + 1.2 * space * len(parts) + 2 * space), height), BACKGROUND
    )
    draw = ImageDraw.Draw(key)
    left = 0.0
    for (text, wide), width in zip(parts, widths, strict=True):
        if text == "bar":
            bar = np.full((height, round(width), 3), 96, np.uint8)
            ramp = np.linspace(0, TINT, round(width), dtype=np.float32)
            blend(bar, np.array(PREDICTED, np.float32), np.repeat(ramp[None], height, axis=0))
            shown = bar[: round(0.8 * height)]
            key.paste(Image.fromarray(shown), (round(left), round(0.1 * height)))
        elif wide:
            colour = PREDICTED if text == "likely" else TRUE_OUTLINE
            draw.line((left, middle, left + width, middle), colour, max(1, round(1.8 * stroke)))
        else:
            draw.text((left, middle), text, QUIET_TEXT, face, anchor="lm")
        left += width + (1.2 if wide else 2.2) * space
    return np.asarray(key)


def with_legend(canvas: Picture, key: Picture | None, runs: list[Run]) -> Picture:
    """A canvas with a strip below it."""
    height, width = canvas.shape[:2]
    face = font(max(11.0, 11 * legend_stroke_px(height, width)))
    gap = round(0.6 * face.size)
    tall = max(round(1.5 * face.size), 0 if key is None else len(key)) + 2 * gap
    whole = Image.new("RGB", (width, height + tall), BACKGROUND)
    whole.paste(Image.fromarray(canvas), (0, 0))
    left = gap
    if key is not None:
        whole.paste(Image.fromarray(key), (left, height + (tall - len(key)) // 2))
        left += key.shape[1] + 2 * gap
    words = [(shortened(text, face, max(1, width - left - gap)), colour) for text, colour in runs]
    draw_runs(ImageDraw.Draw(whole), left, height + (tall - 1.2 * face.size) / 2, words, face)
    return np.asarray(whole)


# Sizes


def figure_enlargement(height: int, width: int) -> int:
    """The whole factor by which a picture is enlarged for a figure of its own."""
    return max(1, FIGURE_PX // max(height, width))


def legend_stroke_px(height: int, width: int) -> float:
    """As `stroke_px`, but smaller on tall pictures, for a legend to fit below them."""
    return max(1.0, min(stroke_px(height, width), width / 400))


def reduced_size(picture: Picture, reduction: int) -> tuple[int, int]:
    """Height and width of maps that are smaller than a picture by a whole factor, rounded up."""
    height, width = picture.shape[:2]
    return -(-height // reduction), -(-width // reduction)


def check_sizes(size: tuple[int, ...], *others: Tensor | None) -> None:
    """Refuse what cannot be drawn together.

    Raises:
        ValueError: the sizes differ.
    """
    for other in others:
        if other is not None and tuple(other.shape[-2:]) != tuple(size):
            raise ValueError(
                f"what is drawn together must have one size, but there are {tuple(size)} and "
                f"{tuple(other.shape[-2:])} (height, width)"
            )
