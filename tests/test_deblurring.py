import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from torch import nn

import deblur_lab
from deblur_lab import deblurring
from deblur_lab.errors import CheckpointError, ConfigurationError, DataError, UserError
from deblur_lab.images.deep import turned
from tests.images.test_files import picture
from tests.nets import Fade, checkpoint_of, small_nafnet

NET = Fade()
SETTINGS = {"width": 4, "encoder_blocks": [1, 1, 1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1, 0, 1]}


def faded(values: np.ndarray, white: int = 255) -> np.ndarray:
    return np.rint(values * 0.5 + white / 4)


# PIL images


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_pil_images_keep_their_mode(mode):
    image = Image.fromarray(picture(12, 9)).convert(mode)
    made = deblur_lab.deblur(image, NET)
    assert made.mode == mode
    assert made.size == (9, 12)
    before, after = np.asarray(image).astype(float), np.asarray(made).astype(float)
    colours = slice(0, {"L": None, "LA": 1}.get(mode, 3))
    if mode == "L":
        assert np.abs(after - faded(before)).max() <= 1
    else:
        assert np.abs(after[..., colours] - faded(before[..., colours])).max() <= 1
        assert np.array_equal(after[..., 3:], before[..., 3:])


def test_16_bit_gray_keeps_its_levels():
    levels = np.linspace(0, 65535, 63 * 64).astype(np.uint16).reshape(63, 64)
    made = deblur_lab.deblur(Image.fromarray(levels), NET)
    assert made.mode == "I;16"
    assert np.abs(np.asarray(made).astype(float) - faded(levels, 65535)).max() <= 1
    assert len(np.unique(np.asarray(made))) > 4000


@pytest.mark.parametrize(("mode", "becomes"), [("P", "RGB"), ("1", "L"), ("CMYK", "RGB"), ("YCbCr", "RGB")])
def test_other_modes_become_what_is_nearest(mode, becomes):
    image = Image.fromarray(picture(12, 9)).convert(mode)
    made = deblur_lab.deblur(image, nn.Identity())
    assert made.mode == becomes
    assert np.array_equal(np.asarray(made), np.asarray(image.convert(becomes)))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientation_is_applied_once_and_metadata_come_along(tmp_path, orientation, suffix):
    stored = picture(12, 9)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Some Camera"
    Image.fromarray(stored).save(tmp_path / f"a.{suffix}", exif=exif, icc_profile=icc)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        made = deblur_lab.deblur(image, nn.Identity())
    assert np.array_equal(np.asarray(made), turned(stored, orientation))
    made.save(tmp_path / "b.png", exif=made.info["exif"])
    again = Image.open(tmp_path / "b.png")
    assert again.info["icc_profile"] == icc
    assert again.getexif()[ExifTags.Base.Make] == "Some Camera"
    assert ExifTags.Base.Orientation not in again.getexif()


# Arrays


@pytest.mark.parametrize("shape", [(7, 5, 3), (7, 5), (1, 1, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_keep_shape_and_type(shape, dtype):
    rng = np.random.default_rng(0)
    whole = np.issubdtype(dtype, np.integer)
    white = np.iinfo(dtype).max if whole else 1
    image = (rng.random(shape) * white).astype(dtype)
    before = image.copy()
    made = deblur_lab.deblur(image, NET)
    assert made.shape == shape
    assert made.dtype == dtype
    expected = image.astype(np.float64) * 0.5 + white / 4
    assert np.abs(made - expected).max() <= (0.51 if whole else 1e-3 if dtype == np.float16 else 1e-6)
    assert np.array_equal(image, before)
    assert made.flags.writeable


def test_arrays_that_are_no_plain_blocks_of_memory():
    image = picture(20, 24)
    for view in (image[::2, ::-1], image.transpose(1, 0, 2), np.asfortranarray(image)):
        assert np.abs(deblur_lab.deblur(view, NET) - faded(view)).max() <= 1
        assert np.allclose(deblur_lab.deblur(view / 255, NET), view / 255 * 0.5 + 0.25, atol=1e-6)
    read_only = np.asarray(Image.fromarray(image))
    assert np.array_equal(deblur_lab.deblur(read_only, nn.Identity()), image)


# Tensors


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 3, 9, 7), (4, 3, 9, 7), (3, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_keep_shape_and_type(shape, dtype):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    made = deblur_lab.deblur(image, NET)
    assert made.shape == shape
    assert made.dtype == dtype
    assert (made.float() - (0.5 * image.float() + 0.25)).abs().max() <= (
        0.01 if dtype == torch.bfloat16 else 1e-6
    )


def test_a_tensor_of_a_graph_comes_back_without_one():
    image = torch.rand(3, 8, 8, requires_grad=True)
    made = deblur_lab.deblur(image, NET)
    assert not made.requires_grad
    weight = torch.ones(1, requires_grad=True)
    (made * weight).sum().backward()  # and can be trained on


def test_all_kinds_are_restored_alike_and_in_tiles():
    net = small_nafnet()
    image = np.asarray(Image.fromarray(picture(20, 30)).resize((150, 100), Image.Resampling.BICUBIC))
    with torch.no_grad():
        expected = net(torch.from_numpy(image / 255.0).float().permute(2, 0, 1)[None])[0].clamp(0, 1)
    array = deblur_lab.deblur(image, net)
    assert np.abs(array / 255 - expected.permute(1, 2, 0).numpy()).max() <= 0.51 / 255
    assert np.array_equal(np.asarray(deblur_lab.deblur(Image.fromarray(image), net)), array)
    tensor = torch.from_numpy(image / 255.0).float().permute(2, 0, 1)
    assert torch.equal(deblur_lab.deblur(tensor, net), expected)
    tiled = deblur_lab.deblur(tensor, net, tile_px=96, overlap_px=40)
    assert 0 < (tiled - expected).abs().mean() < 0.2 / 255
    assert not torch.equal(deblur_lab.deblur(tensor, net, tlc=True, tlc_size_px=32), expected)


# What is no picture


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.full((4, 4, 3), -0.25), r"values from -0.25 to -0.25: floats in \[0, 1\] are expected$"),
        (np.full((4, 4), 200.0), r"values from 200 to 200: floats in \[0, 1\] are expected: divide by 255\?"),
        (torch.full((3, 4, 4), float("nan")), r"values that are not finite \(NaN or infinity\)"),
        (np.zeros((4, 4, 4), np.uint8), r"an array of shape \(4, 4, 4\): \(height, width, 3\) or"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of shape \(0, 4, 3\)"),
        (np.zeros((3,), np.uint8), r"an array of shape \(3,\)"),
        (np.zeros((4, 4), np.int32), "an array of int32: uint8, uint16 or floats"),
        (np.zeros((4, 4), bool), "an array of bool"),
        (torch.zeros(4, 4), r"a tensor of shape \(4, 4\): \(3, height, width\) or"),
        (torch.zeros(4, 4, 3), r"a tensor of shape \(4, 4, 3\)"),
        (torch.zeros(0, 3, 4, 4), r"a tensor of shape \(0, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"a tensor of torch.uint8: floats in \[0, 1\]"),
        (Image.new("F", (4, 4)), 'a PIL image of mode "F", in which white is not defined'),
        (Image.new("RGB", (0, 4)), "a picture of 0 x 4 pixels"),
        ("photo.jpg", "a str is no picture: a PIL image, an array or a tensor is expected"),
    ],
)
def test_what_is_no_picture_is_told_in_one_line(image, told):
    with pytest.raises(DataError, match=told) as caught:
        deblur_lab.deblur(image, NET)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tile_px": 0}, "tile_px=0: a whole number, 1 or more, is expected"),
        ({"tile_px": 99.5}, "tile_px=99.5: a whole number"),
        ({"overlap_px": -1}, "overlap_px=-1: a whole number, 0 or more, is expected"),
        ({"tile_px": 256}, "tile_px=256, overlap_px=128: tiles of over twice the overlap are expected"),
        ({"tlc": "on"}, "tlc='on': True or False is expected"),
        ({"tlc_size_px": 256}, "tlc_size_px=256 has no effect without tlc=True"),
        ({"tlc": True}, "tlc=on: Fade has no test-time local converter"),
        ({"device": "gpu"}, "device=gpu: auto, cpu or cuda is expected"),
        ({"model": 3}, "model is a int: the path of a checkpoint or a torch.nn.Module is expected"),
    ],
)
def test_settings_that_cannot_be_are_told(settings, told):
    with pytest.raises(ConfigurationError, match=told):
        deblur_lab.deblur(picture(), **{"model": NET, **settings})


# The model


def test_a_checkpoint_is_read_once_and_again_when_it_was_replaced(tmp_path, monkeypatch):
    net = small_nafnet()
    path = checkpoint_of(net, tmp_path / "a net.ckpt", **SETTINGS)
    reads = []
    load = deblurring.load_net
    monkeypatch.setattr(deblurring, "load_net", lambda path: reads.append(path) or load(path))
    expected = deblur_lab.deblur(picture(), net)
    assert np.array_equal(deblur_lab.deblur(picture(), path), expected)
    assert np.array_equal(deblur_lab.deblur(picture(), str(path)), expected)
    monkeypatch.setenv("DEBLUR_LAB_CHECKPOINT", str(path))
    assert np.array_equal(deblur_lab.deblur(picture()), expected)
    assert reads == [path]
    nn.init.zeros_(net.ending.weight)
    checkpoint_of(net, path, **SETTINGS)
    os.utime(path, (1, 1))
    assert np.array_equal(deblur_lab.deblur(picture(), path), picture())
    assert reads == [path, path]


def test_without_a_model_it_is_said_what_to_give(tmp_path, monkeypatch):
    monkeypatch.delenv("DEBLUR_LAB_CHECKPOINT", raising=False)
    with pytest.raises(
        ConfigurationError, match=r"model is not given: .* or set DEBLUR_LAB_CHECKPOINT to a path"
    ):
        deblur_lab.deblur(picture())
    with pytest.raises(CheckpointError, match=r"none\.ckpt does not exist") as caught:
        deblur_lab.deblur(picture(), tmp_path / "none.ckpt")
    assert isinstance(caught.value, UserError)


def test_importing_is_quick():
    told = "import sys, deblur_lab; print(sorted({'torch', 'numpy', 'PIL', 'lightning'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
