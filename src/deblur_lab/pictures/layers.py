"""Where a picture is blurred and how that moved, as layers over it: of its shape, with legends in words.

Pages lay them over each other and over the picture, so that nothing may stand below or beside them.
"""

from typing import NamedTuple

from torch import Tensor

from deblur_lab.pictures.drawing import Picture, enlarged
from deblur_lab.pictures.figures import check_sizes, draw_motion, mask_overlay
from deblur_lab.pictures.objects import seen_motion

# Small pictures are enlarged to about this on the longer side, so that lines are thin beside what they show.
_LAYER_PX = 512


class Layer(NamedTuple):
    """A picture that is drawn over.

    Attributes:
        picture: uint8 RGB, enlarged by a whole factor or not at all.
        legend: What its colours and lines mean.
    """

    picture: Picture
    legend: str


def true_mask_layer(picture: Picture, mask: Tensor) -> Layer:
    """Outline what is truly blurred.

    Args:
        picture: (H, W, 3) uint8.
        mask: (1, H, W), 1 = blurred.

    Raises:
        ValueError: the sizes differ.
    """
    drawn = mask_overlay(picture, None, mask, enlarge=_enlargement(picture))
    return Layer(drawn, "the line runs round what is truly blurred")


def mask_layer(picture: Picture, probability: Tensor, threshold: float = 0.5) -> Layer:
    """Tint a picture where a net predicts blur.

    Args:
        picture: (H, W, 3) uint8.
        probability: (1, H, W) in [0, 1].
        threshold: of the probability.

    Raises:
        ValueError: the sizes differ.
    """
    drawn = mask_overlay(picture, probability, enlarge=_enlargement(picture), threshold=threshold)
    return Layer(
        drawn,
        f"the stronger the tint, the likelier is blur, as predicted; the line runs round what is over "
        f"{threshold:g}",
    )


def trajectory_layer(
    picture: Picture, motion: Tensor, probability: Tensor | None = None, threshold: float = 0.5
) -> Layer:
    """Draw how blurred objects move during the exposure, as `trajectory_overlay` does.

    Args:
        picture: (H, W, 3) uint8.
        motion: (N, 2, H, W) in px of the picture.
        probability: (1, H, W) in [0, 1], that a pixel is blurred; None: of what moves farthest.
        threshold: of the probability.

    Raises:
        ValueError: the sizes differ.
    """
    check_sizes(picture.shape[:2], motion, probability)
    factor = _enlargement(picture)
    seen = seen_motion(motion, probability, threshold)
    drawn, magnification = draw_motion(
        enlarged(picture, factor), seen, step_px=factor, scale=factor, scale_px=seen.scale_px
    )
    if not seen.objects:
        return Layer(drawn, "no motion is seen")
    return Layer(
        drawn,
        f"predicted paths during the exposure: {seen.caption(magnification)}; hue is the direction: right is "
        f"red, down yellow-green, left cyan, up violet; the most saturated are of {seen.scale_px:g} px",
    )


def _enlargement(picture: Picture) -> int:
    longer_px: int = max(picture.shape[:2])
    return max(1, _LAYER_PX // longer_px)
