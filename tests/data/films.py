"""Videos for tests: made of a photograph, and written by FFmpeg."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data

SIZE_PX = (160, 96)


def view(x: float, y: float = 20.0, photo: str = "astronaut") -> np.ndarray:
    """What is seen of a photograph from a place in it: (96, 160, 3)."""
    matrix = np.float32([[1, 0, x], [0, 1, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(getattr(data, photo)(), matrix, SIZE_PX, flags=flags)


def pan(count: int, step_px: float = 1.0, start: float = 20.0, photo: str = "astronaut") -> list[np.ndarray]:
    """Frames of a camera that turns."""
    return [view(start + number * step_px, photo=photo) for number in range(count)]


def write_film(
    path: Path,
    pictures: list[np.ndarray],
    *,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    rate: int = 240,
    ticks_ms: list[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write a video; without loss, as a codec and a format of pixels that keep RGB as it is."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if ticks_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks_ms is not None:
                frame.pts, frame.time_base = ticks_ms[number], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
