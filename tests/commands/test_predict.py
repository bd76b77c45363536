"""A person's own photographs, under the names that people give them."""

import re
import signal

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from deblur_lab.checkpoints import load_net
from deblur_lab.images import read_photo, read_rgb, to_tensor, to_uint8
from deblur_lab.models import NAFNet
from tests.commands.processes import Running, forked, python_m
from tests.images.profiles import cmyk_profile
from tests.images.test_files import raw_png
from tests.images.test_photos import png16
from tests.nets import checkpoint_of, lively, small_m2aenet

PREDICT = "deblur_lab.predict"
NAME = "Foto (1) [raw] a=b, it's 写真 ü.v2"


@pytest.fixture
def checkpoint(trained):
    return trained / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def tiny(tmp_path):
    """A checkpoint of a net that is quick and changes pictures."""
    settings = {"width": 2, "encoder_blocks": [0, 0], "middle_blocks": 1, "decoder_blocks": [0, 0]}
    torch.manual_seed(0)
    return checkpoint_of(lively(NAFNet(**settings)), tmp_path / "tiny.ckpt", **settings)


@pytest.fixture
def photo(tmp_path):
    """An odd-sized JPEG in a folder with an odd name."""
    path = tmp_path / "meine Fotos = [2024]" / f"{NAME}.JPG"
    path.parent.mkdir()
    Image.fromarray(scene(47, 61)).save(path, "JPEG", quality=95)
    return path


def scene(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def test_twelve_odd_pictures_in_one_call(tmp_path, tiny):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    picture = Image.fromarray(scene(64, 48))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = np.full((48, 64), 200, np.uint8)
    alpha[10:20, 10:30] = 0
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation], turned[ExifTags.Base.Make] = 6, "Some Camera"
    Image.fromarray(scene(64, 48)[:1, :1]).save(folder / "1x1.png")
    Image.fromarray(scene(64, 48)[:5, :7]).save(folder / "7x5.webp", lossless=True)
    picture.convert("L").save(folder / "gray.jpg")
    gray_alpha = picture.convert("L").convert("LA")
    gray_alpha.putalpha(Image.fromarray(alpha))
    gray_alpha.save(folder / "gray-alpha.png")
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha))
    rgba.save(folder / "rgba.png", icc_profile=srgb)
    picture.quantize(16).save(folder / "palette.gif")
    wide = scene(64, 48).astype(np.uint16) * 250 + np.arange(64, dtype=np.uint16)[:, None]
    (folder / "gray16.png").write_bytes(png16(wide[..., :1]))
    (folder / "rgb16.png").write_bytes(png16(wide))
    picture.convert("CMYK").save(folder / "cmyk.jpg", icc_profile=cmyk_profile(), quality=95)
    picture.save(folder / "turned.jpeg", exif=turned, icc_profile=srgb, quality=95)
    picture.save(folder / f"{NAME}.bmp")
    Image.fromarray(scene(7304, 5480)).save(folder / "large.jpg")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    ended = forked(
        PREDICT, f"checkpoint={tiny}", f"input={folder}", f"output={out}", "device=cpu", cwd=tmp_path
    ).succeeded()
    assert "12 of 12 restored, in " in ended.stdout
    assert "megapixels a second), in " in ended.stdout
    assert ended.stderr == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    made = {path.name: Image.open(path) for path in out.iterdir()}
    assert {name: (image.format, image.mode, image.size) for name, image in made.items()} == {
        "1x1.png": ("PNG", "RGB", (1, 1)),
        "7x5.png": ("PNG", "RGB", (7, 5)),
        "gray.jpg": ("JPEG", "L", (64, 48)),
        "gray-alpha.png": ("PNG", "LA", (64, 48)),
        "rgba.png": ("PNG", "RGBA", (64, 48)),
        "palette.png": ("PNG", "RGB", (64, 48)),
        "gray16.png": ("PNG", "I;16", (64, 48)),
        "rgb16.png": ("PNG", "RGB", (64, 48)),  # what Pillow makes of 16 bits
        "cmyk.jpg": ("JPEG", "RGB", (64, 48)),
        "turned.jpeg": ("JPEG", "RGB", (48, 64)),
        f"{NAME}.png": ("PNG", "RGB", (64, 48)),
        "large.jpg": ("JPEG", "RGB", (7304, 5480)),
    }
    for name in ("gray-alpha.png", "rgba.png"):
        assert np.array_equal(np.asarray(made[name])[..., -1], alpha)
        hidden = np.asarray(Image.open(folder / name))[alpha == 0]
        assert np.array_equal(np.asarray(made[name])[alpha == 0], hidden)
    for name in ("gray16.png", "rgb16.png"):
        levels = cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED)
        assert levels.dtype == np.uint16
        assert len(np.unique(levels // 257)) < len(np.unique(levels))
    assert made["rgba.png"].info["icc_profile"] == made["turned.jpeg"].info["icc_profile"] == srgb
    assert dict(made["turned.jpeg"].getexif()) == {int(ExifTags.Base.Make): "Some Camera"}
    assert "icc_profile" not in made["cmyk.jpg"].info
    # They are what the net makes of them.
    net, _ = load_net(tiny)
    with torch.inference_mode():
        expected = to_uint8(net(to_tensor(read_rgb(folder / f"{NAME}.bmp"))[None])[0])
        deep = net(to_tensor(read_photo(folder / "rgb16.png").pixels)[None])[0]
    assert np.array_equal(np.asarray(made[f"{NAME}.png"]), expected)
    assert (
        np.abs(read_photo(out / "rgb16.png").pixels - deep.clamp(0, 1).permute(1, 2, 0).numpy() * 65535).max()
        < 0.6
    )
    large = np.asarray(made["large.jpg"])
    assert np.abs(large[::9, ::9].astype(int) - scene(7304, 5480)[::9, ::9]).mean() < 60


def test_a_photo_in_tiles_with_what_the_network_sees(tmp_path, photo, checkpoint):
    output = tmp_path / "wieder {scharf} ${x}"
    tiles = ["tile_px=40", "overlap_px=8", "explain=true"]
    said = python_m(
        PREDICT,
        f"checkpoint={checkpoint}",
        f"input={photo}",
        f"output={output}",
        *tiles,
        cwd=tmp_path,
    ).succeeded()
    assert "1 of 1 restored" in said.stdout
    figures = {f"{NAME}.{kind}.png" for kind in ("explained", "blur", "motion")}
    assert {path.name for path in output.iterdir()} == {f"{NAME}.JPG", *figures}
    assert Image.open(output / f"{NAME}.JPG").size == (47, 61)
    panel = Image.open(output / f"{NAME}.explained.png")
    assert panel.width > 4 * 47 * 8
    assert panel.height > 61 * 8
    # An untrained net hardly changes a picture, tiled or not.
    restored = read_rgb(output / f"{NAME}.JPG").astype(int)
    assert np.abs(restored - read_rgb(photo)).mean() < 20


def test_a_photo_at_once_is_what_the_network_makes_of_it(tmp_path, photo, checkpoint):
    arguments = [f"checkpoint={checkpoint}", f"input={photo}", "output=out", "format=png"]
    forked(PREDICT, *arguments, cwd=tmp_path).succeeded()
    net, _ = load_net(checkpoint)
    with torch.inference_mode():
        expected = to_uint8(net(to_tensor(read_rgb(photo))[None])[0])
    np.testing.assert_array_equal(read_rgb(tmp_path / "out" / f"{NAME}.png"), expected)


def test_a_folder_keeps_its_layout_and_one_bad_picture_spoils_no_other(tmp_path, photo, checkpoint):
    folder = photo.parent
    (folder / "below").mkdir()
    Image.new("L", (20, 9), 90).save(folder / "below" / "gray.png")
    Image.new("RGBA", (1, 1), (9, 9, 9, 255)).save(folder / "dot.webp")
    (folder / "notes.txt").write_text("no picture")
    arguments = [f"checkpoint={checkpoint}", f"input={folder}"]
    forked(PREDICT, *arguments, "output=all", cwd=tmp_path).succeeded()
    made = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*.*")}
    assert made == {f"{NAME}.JPG", "below/gray.png", "dot.png"}
    assert Image.open(tmp_path / "all" / "below" / "gray.png").size == (20, 9)

    (folder / "broken.jpg").write_bytes(photo.read_bytes()[:300])
    (folder / "empty.png").touch()
    ended = forked(PREDICT, *arguments, "output=some", cwd=tmp_path)
    told = ended.failed(3, more_lines=2)
    assert "3 of 5 restored, 2 failed, in " in ended.stdout
    assert told.startswith("2 could not be restored:\n")
    assert "broken.jpg" in told
    assert "empty.png" in told
    assert len(list((tmp_path / "some").rglob("*.*"))) == 3


def test_a_run_that_restores_nothing_leaves_no_folder(tmp_path, photo, tiny):
    (photo.parent / "below").mkdir()
    photo.rename(photo.parent / "below" / photo.name).write_bytes(b"")
    arguments = [f"checkpoint={tiny}", f"input={photo.parent}"]
    ended = forked(PREDICT, *arguments, "output=new/folder", cwd=tmp_path)
    assert "the file is empty (0 bytes)" in ended.failed(3, more_lines=1)
    assert "0 of 1 restored, 1 failed, in 0" in ended.stdout
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    forked(PREDICT, *arguments, "output=old", cwd=tmp_path).failed(3, more_lines=1)
    assert not list((tmp_path / "old").iterdir())


def test_large_pictures_are_refused_from_their_header(tmp_path, tiny):
    (tmp_path / "bomb.png").write_bytes(raw_png(9000, 9000, 8, 2, b"\0"))
    arguments = [f"checkpoint={tiny}", "input=bomb.png", "output=out"]
    told = forked(PREDICT, *arguments, "max_pixels=80000000", cwd=tmp_path).failed(3, more_lines=1)
    assert "9000 x 9000 pixels are more than max_pixels=80000000, the largest that is decoded" in told
    told = forked(PREDICT, *arguments, "max_pixels=81000000", cwd=tmp_path).failed(3, more_lines=1)
    assert "cannot be read as a picture" in told


def test_the_format_may_be_chosen(tmp_path, tiny):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "deep.png").write_bytes(png16(np.full((8, 8, 4), 30000, np.uint16)))
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "in" / "photo.JPEG")
    arguments = [f"checkpoint={tiny}", "input=in"]
    forked(PREDICT, *arguments, "output=png", "format=png", cwd=tmp_path).succeeded()
    assert {path.name for path in (tmp_path / "png").iterdir()} == {"deep.png", "photo.png"}
    ended = forked(
        PREDICT, *arguments, "output=jpeg", "format=jpeg", "jpeg_quality=80", cwd=tmp_path
    ).succeeded()
    assert {path.name for path in (tmp_path / "jpeg").iterdir()} == {"deep.jpg", "photo.JPEG"}
    assert "deep.png: its 16 bits a channel became 8, as JPEG has no more" in ended.stdout
    assert "deep.png: its transparency was laid over white, as JPEG has none" in ended.stdout
    for wrong, told in (
        ("format=webp", "format=webp: "),
        ("jpeg_quality=0", "jpeg_quality=0: a number from 1 to 100 is expected"),
        ("jpeg_quality=101", "jpeg_quality=101: "),
        ("max_pixels=0", "max_pixels=0: "),
    ):
        assert forked(PREDICT, *arguments, "output=no", wrong, cwd=tmp_path).failed(2).startswith(told)
    told = forked(PREDICT, *arguments, "output=no", "format=png", "jpeg_quality=80", cwd=tmp_path).failed(2)
    assert told == "jpeg_quality=80 has no effect with format=png: leave one out"
    assert not (tmp_path / "no").exists()


def test_the_converter_is_a_switch_with_advice(tmp_path, photo, checkpoint):
    arguments = [f"checkpoint={checkpoint}", f"input={photo}"]
    for setting, size in (([], 32), (["tlc_size_px=16"], 16)):
        ended = forked(PREDICT, *arguments, "output=on", "tlc=on", *setting, cwd=tmp_path).succeeded()
        said = [line for line in ended.stdout.splitlines() if "converter" in line]
        assert said == [
            f"test-time local converter on ({size} px patches): it is for pictures like those that the net "
            "was trained on; where coloured mosaics show up, switch it off (tlc=off)"
        ]
    assert "converter" not in forked(PREDICT, *arguments, "output=off", cwd=tmp_path).succeeded().stdout
    told = forked(PREDICT, *arguments, "output=no", "tlc_size_px=16", cwd=tmp_path).failed(2)
    assert told == "tlc_size_px=16 has no effect with tlc=off: leave one out"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_written_when_it_is_stopped_is_whole(tmp_path, checkpoint, number, code):
    (tmp_path / "in").mkdir()
    for index in range(60):
        Image.fromarray(scene(400, 300)).save(tmp_path / "in" / f"{index:02}.png")
    running = Running(
        PREDICT, f"checkpoint={checkpoint}", "input=in", "output=out", cwd=tmp_path, forked=True
    )
    running.wait_until(lambda: (tmp_path / "out" / "02.png").exists())
    running.send(number)
    ended = running.ended()
    assert ended.code == code
    assert ended.stderr == f"error: stopped by {'Ctrl-C' if code == 130 else 'SIGTERM'}\n"
    written = sorted((tmp_path / "out").iterdir())
    assert 3 <= len(written) < 60
    # The signal may come when a picture has its name already, and is not counted yet.
    told = int(re.findall(r"(\d+) of 60 restored, in ", ended.stdout)[-1])
    assert len(written) - 1 <= told <= len(written)
    for path in written:
        assert read_rgb(path).shape == (300, 400, 3)


def test_photos_that_would_overwrite_each_other_or_themselves_are_refused(tmp_path, photo, checkpoint):
    folder = photo.parent
    Image.new("RGB", (9, 9)).save(folder / f"{NAME}.bmp")
    Image.new("RGB", (9, 9)).save(folder / f"{NAME}.png")
    for ending in ("bmp", "webp"):
        Image.new("RGB", (9, 9)).save(folder / f"other.{ending}")
    ended = forked(PREDICT, f"checkpoint={checkpoint}", f"input={folder}", "output=out", cwd=tmp_path)
    told = ended.failed(3, more_lines=1).splitlines()
    assert all("would both be written to" in line for line in told)
    for path in folder.iterdir():
        if path.name in (f"{NAME}.bmp", "other.bmp", "other.webp"):
            path.unlink()
    # A JPEG and a PNG of one name stay apart; what the net says of them does not.
    arguments = [f"checkpoint={checkpoint}", f"input={folder}", "output=out"]
    told = forked(PREDICT, *arguments, "explain=true", cwd=tmp_path).failed(3)
    assert f"would both be written to out/{NAME}.explained.png: rename one" in told
    photo.unlink()
    Image.new("RGB", (9, 9)).save(folder / f"{NAME}.explained.png")
    told = forked(PREDICT, *arguments, "explain=true", cwd=tmp_path).failed(3)
    assert f"would both be written to out/{NAME}.explained.png: rename one" in told
    (folder / f"{NAME}.explained.png").unlink()
    one, many = (f"input={path}" for path in (folder / f"{NAME}.png", folder))
    for source in (one, many):
        told = forked(PREDICT, f"checkpoint={checkpoint}", source, f"output={folder}", cwd=tmp_path).failed(2)
        assert "overwrit" in told
    assert Image.open(folder / f"{NAME}.png").size == (9, 9)


def test_what_was_restored_before_is_not_restored_again(tmp_path, photo, checkpoint):
    for output in ("restored", tmp_path / photo.parent.name / "restored"):
        ended = forked(
            PREDICT, f"checkpoint={checkpoint}", "input=.", f"output={output}", cwd=photo.parent
        ).succeeded()
        assert "1 of 1 restored" in ended.stdout


def test_the_mask_of_the_net_can_be_set(tmp_path, photo):
    """Its threshold changes what is restored; how it is computed does not."""
    sizes = {"width": 4, "encoder_blocks": [1, 1, 1], "middle_blocks": 1, "decoder_blocks": [1, 0, 1]}
    checkpoint = checkpoint_of(small_m2aenet(), tmp_path / "m2aenet.ckpt", **sizes, predictor_stages=[3])
    made = {}
    for name, setting in {"own": "device=cpu", "dense": "pruning=dense", "all": "threshold=0"}.items():
        typed = (f"checkpoint={checkpoint}", f"input={photo}", f"output={name}", setting)
        forked(PREDICT, *typed, cwd=tmp_path).succeeded()
        (path,) = (tmp_path / name).iterdir()
        made[name] = np.asarray(Image.open(path)).astype(int)
    assert np.abs(made["own"] - made["dense"]).max() <= 1
    assert np.abs(made["dense"] - made["all"]).max() > 1


def test_a_net_without_masks_has_none_to_set(tmp_path, photo):
    torch.save({"params": NAFNet(4, [1, 1], 1, [1, 1]).state_dict()}, tmp_path / "naf.pth")
    typed = ("checkpoint=naf.pth", f"input={photo}", "output=out", "threshold=0.3")
    told = forked(PREDICT, *typed, cwd=tmp_path).failed(2)
    assert told == "threshold=0.3: the NAFNet of naf.pth predicts no mask of the blur: leave threshold out"
