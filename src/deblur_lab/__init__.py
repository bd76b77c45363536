"""Motion deblurring: M2AENet and NAFNet, trained, scored and applied.

>>> import deblur_lab
>>> net = deblur_lab.load_model("runs/demo/checkpoints/last.ckpt")  # doctest: +SKIP
>>> with torch.inference_mode():  # doctest: +SKIP
...     restored = net(blurry)  # (B, 3, H, W), RGB in [0, 1], any height and width
>>> sharp = deblur_lab.deblur(photo, net)  # a PIL image, an array or a tensor; of any size  # doctest: +SKIP
"""

import os
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn

    Kind = TypeVar("Kind", Image.Image, NDArray[Any], Tensor)
else:
    Kind = TypeVar("Kind")  # pictures of any kind; importing these takes seconds

__all__ = ["__version__", "deblur", "load_model"]
__version__ = "0.1.0"


def deblur(
    image: Kind,
    model: "str | os.PathLike[str] | nn.Module | None" = None,
    *,
    tile_px: int = 1024,
    overlap_px: int = 128,
    device: str = "auto",
    tlc: bool = False,
    tlc_size_px: int | None = None,
) -> Kind:
    """Restore a blurry picture of any size, and return it as what it came.

    Every error is one of `deblur_lab.errors`, and thus a ValueError.

    Args:
        image: one of

            - a PIL image of any mode but 32-bit integers and floats. L, LA, RGB, RGBA and I;16 keep their
              mode; palettes become RGB or RGBA, two-level pictures L, CMYK RGB (through its profile, if it
              has one). EXIF orientation is applied; profile and EXIF are in the `info` of what is returned.
            - an array, (height, width, 3) RGB or (height, width) gray; uint8, uint16, or floats in [0, 1].
            - a tensor, (3, height, width) or (batch, 3, height, width), RGB floats in [0, 1], on any device.

        model: the path of a checkpoint, ours or a published NAFNet's, which is kept in memory for the next
            call; or a net. None takes the path in the environment variable DEBLUR_LAB_CHECKPOINT: no weights
            ship with deblur_lab.
        tile_px: pictures that are longer on a side are restored in tiles of this side.
        overlap_px: by how much tiles overlap at least; less than half of `tile_px`.
        device: "cpu", "cuda", or "auto": a GPU if there is one; of a net, where it lies. A net is moved to
            the device that is named.
        tlc: restore with the test-time local converter. Off is right for photos.
        tlc_size_px: side of the patches that the net was trained on; None: what its checkpoint says, or 256.

    Returns:
        The same kind, size and type, clamped to what the type holds.

    Raises:
        ConfigurationError: a setting is out of range, or there is no model.
        CheckpointError: the checkpoint cannot be used.
        DataError: the picture has another shape or other values; says which, and what is expected.
        MachineError: not even a small tile fits into memory, or there is no such device.
        DivergedError: the net returns values that are not finite.
    """
    from deblur_lab import deblurring

    return deblurring.deblur(
        image,
        model,
        tile_px=tile_px,
        overlap_px=overlap_px,
        device=device,
        tlc=tlc,
        tlc_size_px=tlc_size_px,
    )


def load_model(path: str | os.PathLike[str]) -> "nn.Module":
    """The network of a checkpoint, in eval mode on the CPU: images in, restored images out.

    Args:
        path: of a checkpoint that `deblur_lab.train` wrote, or that others published of a NAFNet, a UFPNet or
            one of the peers (docs/peers.md); its architecture and size are found in it.

    Returns:
        A module that maps (B, 3, H, W) RGB in [0, 1], of any height and width, to restored images of the
        same shape, not clamped. Call it under `torch.inference_mode()`: it then needs less memory, and an
        M2AENet computes only the pixels that it takes for blurred.

    Raises:
        CheckpointError: the file cannot be read, is of no known network, or its weights do not fit.
        MachineError: it is of a peer, and the library that has its architecture is not installed.
    """
    from pathlib import Path

    from deblur_lab.checkpoints import load_net

    return load_net(Path(path))[0]
