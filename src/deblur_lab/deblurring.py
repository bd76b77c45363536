"""Pictures of any kind in, the same kind restored out: what `deblur_lab.deblur` does."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from deblur_lab.checkpoints import load_net
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images.files import has_16_bits
from deblur_lab.images.photos import LUMA, Photo, image_of, photo_of, restored_photo, shown
from deblur_lab.models.published import PUBLISHED_PATCH_PX
from deblur_lab.restoring import Restorer, converter, device_named

CHECKPOINT_VARIABLE = "DEBLUR_LAB_CHECKPOINT"

Kind = TypeVar("Kind", Image.Image, NDArray[Any], Tensor)


def deblur(
    image: Kind,
    model: str | os.PathLike[str] | nn.Module | None,
    *,
    tile_px: int,
    overlap_px: int,
    device: str,
    tlc: bool,
    tlc_size_px: int | None,
) -> Kind:
    """Restore a picture; see `deblur_lab.deblur`."""
    _check_settings(tile_px, overlap_px, tlc, tlc_size_px)
    net, patch_px = _net(model, device)
    placed = next((weight.device for weight in net.parameters()), torch.device("cpu"))
    restorer = Restorer(net, placed, tile_px=tile_px, overlap_px=overlap_px)
    with converter(net, (tlc_size_px or patch_px) if tlc else None):
        if isinstance(image, Image.Image):
            return _deblur_image(restorer, image)
        if isinstance(image, np.ndarray):
            return _deblur_array(restorer, image)
        if isinstance(image, Tensor):
            return _deblur_tensor(restorer, image)
    raise DataError(f"a {type(image).__name__} is no picture: a PIL image, an array or a tensor is expected")


def training_patch_px(record: dict[str, Any]) -> int:
    """The side of the patches that a net was trained on.

    Args:
        record: of its checkpoint, as `deblur_lab.checkpoints.load_net` returns it; empty for published
            weights.
    """
    return cast(int, record.get("config", {}).get("data", {}).get("patch_size", PUBLISHED_PATCH_PX))


def _deblur_image(restorer: Restorer, image: Image.Image) -> Image.Image:
    if min(image.size) < 1:
        raise DataError(f"a picture of {image.width} x {image.height} pixels has nothing to restore")
    if image.mode in {"I", "F"} and not has_16_bits(image):
        raise DataError(
            f'a PIL image of mode "{image.mode}", in which white is not defined: L, LA, RGB, RGBA or '
            "I;16 are expected"
        )
    photo = photo_of(image)
    return image_of(restored_photo(photo, restorer.restore(shown(photo))))


def _deblur_array(restorer: Restorer, image: NDArray[Any]) -> NDArray[Any]:
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise DataError(f"an array of shape {image.shape}: (height, width, 3) or (height, width) is expected")
    is_gray = image.ndim == 2
    pixels = np.broadcast_to(image[..., None], (*image.shape, 3)) if is_gray else image
    if image.dtype in (np.uint8, np.uint16):
        restored = restored_photo(Photo(pixels, gray=is_gray), restorer.restore(pixels)).pixels
        return np.array(restored[..., 0]) if is_gray else restored
    if not np.issubdtype(image.dtype, np.floating):
        raise DataError(f"an array of {image.dtype}: uint8, uint16 or floats in [0, 1] are expected")
    wide = np.array(pixels.transpose(2, 0, 1), dtype=np.float32, order="C")
    blurry = torch.from_numpy(wide)[None]
    _check_range(blurry)
    made = restorer.restore_tensor(blurry)[0]
    if is_gray:
        made = (made * torch.from_numpy(LUMA)[:, None, None]).sum(0)
    else:
        made = made.permute(1, 2, 0)
    return made.numpy().astype(image.dtype, order="C")


def _deblur_tensor(restorer: Restorer, image: Tensor) -> Tensor:
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape:
        raise DataError(
            f"a tensor of shape {tuple(image.shape)}: (3, height, width) or (batch, 3, height, width) "
            "is expected"
        )
    if not image.is_floating_point():
        raise DataError(f"a tensor of {image.dtype}: floats in [0, 1] are expected")
    _check_range(image)
    batch = image if image.ndim == 4 else image[None]
    restored = torch.cat([restorer.restore_tensor(one[None]) for one in batch])
    return restored if image.ndim == 4 else restored[0]


def _check_range(image: Tensor) -> None:
    """Refuse what is no picture in [0, 1], with the values that it has."""
    if not bool(image.isfinite().all()):
        raise DataError("values that are not finite (NaN or infinity): floats in [0, 1] are expected")
    low, high = (float(value) for value in image.detach().aminmax())
    if low < 0 or high > 1:
        hint = ": divide by 255?" if 1 < high <= 255 and low >= 0 else ""
        raise DataError(f"values from {low:g} to {high:g}: floats in [0, 1] are expected{hint}")


def _check_settings(tile_px: int, overlap_px: int, tlc: bool, tlc_size_px: int | None) -> None:
    for name, value, least in (
        ("tile_px", tile_px, 1),
        ("overlap_px", overlap_px, 0),
        ("tlc_size_px", tlc_size_px, 1),
    ):
        if value is None and name == "tlc_size_px":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"{name}={value}: a whole number, {least} or more, is expected")
    if not isinstance(tlc, bool):
        raise ConfigurationError(f"tlc={tlc!r}: True or False is expected")
    if tlc_size_px is not None and not tlc:
        raise ConfigurationError(f"tlc_size_px={tlc_size_px} has no effect without tlc=True: leave one out")


def _net(model: str | os.PathLike[str] | nn.Module | None, device: str) -> tuple[nn.Module, int]:
    """The net on its device, and the side of the patches that it was trained on."""
    if isinstance(model, nn.Module):
        return (model if device == "auto" else model.to(device_named(device))), PUBLISHED_PATCH_PX
    if model is None:
        model = os.environ.get(CHECKPOINT_VARIABLE)
        if not model:
            raise ConfigurationError(
                "model is not given: no weights ship with deblur_lab, so give the path of a checkpoint or a "
                f"net, or set {CHECKPOINT_VARIABLE} to a path"
            )
    if not isinstance(model, str | os.PathLike):
        raise ConfigurationError(
            f"model is a {type(model).__name__}: the path of a checkpoint or a torch.nn.Module is expected"
        )
    path = Path(model).expanduser().absolute()
    try:
        state = path.stat()
        stamp = (state.st_mtime_ns, state.st_size)
    except OSError:
        stamp = (0, 0)  # it cannot be read, and loading says why
    net, patch_px = _loaded(path, stamp)
    return net.to(device_named(device)), patch_px


@lru_cache(maxsize=2)
def _loaded(path: Path, stamp: tuple[int, int]) -> tuple[nn.Module, int]:
    """A checkpoint's net, kept as long as its file stays as it is."""
    net, record = load_net(path)
    return net, training_patch_px(record)
