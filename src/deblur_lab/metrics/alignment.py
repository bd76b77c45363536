"""Bringing a restored picture into register with the sharp one before they are compared.

Pairs that two cameras took, or one camera twice, are never quite in register, nor quite of one brightness:
without alignment a score tells more of that than of the restoration.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblur_lab.ranges import Count, Range, Weight

_PART = 10  # iterations after which to look whether they still move anything
_LEAST_DETERMINANT = 1e-6
_NO_MASK: Any = None  # which OpenCV's types leave out


@dataclass(frozen=True)
class Aligned:
    """A pair in register.

    Attributes:
        restored: (3, H, W) float32, warped and scaled in intensity, zero outside of `valid`; values may lie
            outside of [0, 1].
        sharp: (3, H, W) float32, zero outside of `valid`.
        valid: (1, H, W) float32, 1 where the warp is defined, else 0.
        warp: (3, 3) float64, takes a pixel (x, y, 1) of the sharp picture to where it is in the restored one.
    """

    restored: Tensor
    sharp: Tensor
    valid: Tensor
    warp: NDArray[np.float64]


class Alignment(Protocol):
    """Brings pairs into register."""

    @property
    def description(self) -> str:
        """One line for people."""
        ...

    def align(self, restored: Tensor, sharp: Tensor) -> Aligned | None:
        """Align a restored picture to the sharp one; None where that fails."""
        ...


class EccAlignment:
    """Intensity, then a homography by ECC, as RealBlur's tables are scored.

    The restored picture is scaled to the sharp one's intensity by least squares. The homography that
    maximises the enhanced correlation coefficient (Evangelidis and Psarakis 2008, "Parametric image alignment
    using enhanced correlation coefficient maximization") of both in gray is found by OpenCV from no motion,
    and the restored picture is warped by it, bicubically.

    The result is a function of the two pictures alone; it may be called from several threads at once.

    Deviates: the field's scripts do all 100 iterations. Here they end once ten of them together have moved no
    corner of the picture by `settled_px`, after 20 as a rule: what follows is the rounding of float32 to and
    fro, worth some 0.0001 dB. With ``settled_px=0`` all are done, and the warp is OpenCV's to the last digit.

    Args:
        iterations: of ECC, at most.
        blur_px: side of the Gaussian filter on both gray pictures before that; odd.
        settled_px: by how much the corners may still move; 0 to do all iterations.

    Raises:
        ValueError: `blur_px` is even.
    """

    def __init__(
        self, iterations: Count = 100, blur_px: Annotated[int, Range(1)] = 5, settled_px: Weight = 2e-4
    ) -> None:
        if blur_px % 2 == 0:
            raise ValueError(f"blur_px={blur_px}: the side of a filter is odd")
        self.iterations = iterations
        self.blur_px = blur_px
        self.settled_px = settled_px

    @property
    def is_default(self) -> bool:
        """Whether it is that of RealBlur's tables."""
        default = EccAlignment()
        return type(self) is EccAlignment and vars(self) == vars(default)

    @property
    def description(self) -> str:
        """One line for people."""
        return (
            f"intensity by least squares, then a homography by ECC (at most {self.iterations} iterations, "
            f"Gaussian filter {self.blur_px}), bicubic; scored where the warp is defined, unaligned where "
            "ECC fails"
        )

    def align(self, restored: Tensor, sharp: Tensor) -> Aligned | None:
        """Align a restored picture to the sharp one.

        Args:
            restored: (3, H, W) floating, values in [0, 1].
            sharp: of the same shape.

        Returns:
            The pair in register; None where ECC fails: it does not converge, as on pictures without any
            structure or too far apart, or the warp that it finds is not one.
        """
        # In float32, as the published scripts do. (OpenCV 5.0 warps float64 wrongly.)
        still, moving = (_as_image(picture) for picture in (sharp, restored))
        energy = np.sum(moving * moving, dtype=np.float64)
        if energy == 0:
            return None
        moving = (moving * (np.sum(still * moving, dtype=np.float64) / energy)).astype(np.float32)
        warp = self._warp(still, moving)
        if warp is None:
            return None
        height, width = still.shape[:2]
        back = cv2.WARP_INVERSE_MAP
        warped = cv2.warpPerspective(
            moving, warp, (width, height), flags=cv2.INTER_CUBIC | back, borderMode=cv2.BORDER_REFLECT
        )
        valid = cv2.warpPerspective(
            np.ones((height, width), np.float32),
            warp,
            (width, height),
            flags=cv2.INTER_NEAREST | back,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        if not (np.isfinite(warped).all() and valid.any()):
            return None
        return Aligned(
            _as_tensor(warped * valid[..., None]),
            _as_tensor(still * valid[..., None]),
            torch.from_numpy(valid)[None],
            warp.astype(np.float64),
        )

    def _warp(self, still: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The homography from pictures (H, W, 3), or None."""
        template, picture = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (still, moving))
        warp: NDArray[np.float32] = np.eye(3, dtype=np.float32)
        done = 0
        # OpenCV keeps nothing from one iteration to the next but the warp: in parts, they give the same one.
        while done < self.iterations:
            part = min(_PART, self.iterations - done)
            before = warp.copy()
            criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, part, 0.0)
            try:
                _, found = cv2.findTransformECC(
                    template,
                    picture,
                    warp,
                    cv2.MOTION_HOMOGRAPHY,
                    criteria,
                    inputMask=_NO_MASK,
                    gaussFiltSize=self.blur_px,
                )
            except cv2.error:  # the correlation is about to be minimised, or the images do not overlap
                return None
            warp = np.asarray(found, np.float32)
            if not _is_regular(warp, template.shape):
                return None
            done += part
            if _corner_motion_px(before, warp, template.shape) < self.settled_px:
                break
        return warp


def _is_regular(warp: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    """Whether a homography maps the picture to something that lies before the eye and has an area."""
    if not np.isfinite(warp).all() or abs(np.linalg.det(warp.astype(np.float64))) < _LEAST_DETERMINANT:
        return False
    return bool((warp.astype(np.float64) @ _corners(shape))[2].min() > 0)


def _corner_motion_px(
    before: NDArray[np.float32], after: NDArray[np.float32], shape: tuple[int, ...]
) -> float:
    """How far two homographies take the corners of a picture apart, at most."""
    one, other = (warp.astype(np.float64) @ _corners(shape) for warp in (before, after))
    return float(np.hypot(*(one[:2] / one[2] - other[:2] / other[2])).max())


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The corners of a picture (H, W), homogeneous: (3, 4)."""
    right, bottom = shape[1] - 1, shape[0] - 1
    return np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]], np.float64)


def _as_image(picture: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture.detach().float().cpu().numpy().transpose(1, 2, 0))


def _as_tensor(image: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
