import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.layouts import DataFolder, Listing, PairedFolders
from deblur_lab.data.samples import SceneSet, Source, Split
from deblur_lab.data.sources import Folder, GoPro, PictureScenes, ReLoBlur, evenly_spaced
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import ImageError

PROTOCOL = object()


def write(path: Path, value: int, width: int = 12, height: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, value, value)).save(path)


def write_reloblur(root: Path, split: str, count: int) -> None:
    for number in range(count):
        write(root / f"dataset/{split}/s01/01/{number:02}_blur.png", number)
        write(root / f"dataset/{split}/s01/01/{number:02}_sharp.png", 100 + number)
        path = root / f"masks/{split}/s01/01/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((8, 12), np.uint8)
        mask[2:5, 3:7] = 7
        Image.fromarray(mask).save(path)


def write_pairs(root: Path, blurry: str, sharp: str, count: int) -> None:
    for number in range(count):
        write(root / f"{blurry}/{number:02}.png", number)
        write(root / f"{sharp}/{number:02}.png", 100 + number)


def test_reloblur_reads_pictures_and_masks(tmp_path: Path) -> None:
    write_reloblur(tmp_path, "train", 2)
    write_reloblur(tmp_path, "test", 1)
    source = ReLoBlur(str(tmp_path), PROTOCOL)
    assert source.name == "reloblur"
    assert source.protocol is PROTOCOL
    assert isinstance(source, Source)
    scenes = source.scenes("train")
    assert isinstance(scenes, SceneSet)
    assert len(scenes) == 2
    assert scenes.name(1) == "s01/01/01"
    scene = scenes.load(1, epoch=3)
    assert scene.name == "s01/01/01"
    assert scene.blurry.shape == scene.sharp.shape == (8, 12, 3)
    assert (scene.blurry == 1).all()
    assert (scene.sharp == 101).all()
    assert scene.mask is not None
    assert scene.mask.sum() == 12
    assert scene.mask[2, 3] == 1
    assert scene.mask.max() == 1
    assert scene.start is None
    assert scene.end is None


def test_reloblur_with_other_masks_or_none(tmp_path: Path) -> None:
    write_reloblur(tmp_path / "ReLoBlur", "train", 1)
    (tmp_path / "ReLoBlur/masks").rename(tmp_path / "ReLoBlur/masks_v2")
    assert ReLoBlur(tmp_path, PROTOCOL, masks="masks_v2").scenes("train").load(0).mask is not None
    assert ReLoBlur(tmp_path, PROTOCOL, masks=None).scenes("train").load(0).mask is None
    scenes = ReLoBlur(tmp_path, PROTOCOL).scenes("train")
    assert isinstance(scenes, PictureScenes)
    (fault,) = scenes.faults
    assert fault.startswith(f"{tmp_path}/ReLoBlur/masks is no folder: ")


def test_what_is_wrong_with_the_test_split_is_told_of_its_sample_too(tmp_path: Path) -> None:
    write_pairs(tmp_path / "test", "blurry", "sharp", 3)
    (tmp_path / "test/sharp/02.png").unlink()
    source = Folder(tmp_path, PROTOCOL)
    for split in ("val", "test"):
        scenes = source.scenes(split)
        assert isinstance(scenes, PictureScenes)
        assert (len(scenes), len(scenes.faults)) == (2, 1)


def test_links_out_of_a_dataset_are_followed_where_that_is_allowed(tmp_path: Path) -> None:
    write_pairs(tmp_path / "disk", "blurry", "sharp", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test").symlink_to(tmp_path / "disk")
    for source in (Folder, GoPro, ReLoBlur):
        layout = PairedFolders()
        refused = source(tmp_path / "data", PROTOCOL, layout=layout).scenes("test")
        followed = source(tmp_path / "data", PROTOCOL, layout=layout, follow_links=True).scenes("test")
        assert isinstance(refused, PictureScenes)
        assert isinstance(followed, PictureScenes)
        assert (len(refused.faults), followed.faults) == (1, ())
        assert len(followed) == 2


def test_a_picture_that_is_changed_while_a_run_goes_on_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path / "test", "blurry", "sharp", 2)
    scenes = Folder(tmp_path, PROTOCOL).scenes("test")
    assert isinstance(scenes, PictureScenes)
    assert scenes.problems(2, 1) == []
    scenes.load(1)
    os.utime(tmp_path / "test/sharp/01.png", (1, 1))
    scenes.load(0)
    with pytest.raises(DataError, match=r"sharp/01\.png was changed while the run went on"):
        scenes.load(1)


def test_gopro_is_blurred_all_over(tmp_path: Path) -> None:
    write_pairs(tmp_path / "GOPRO_Large/train/GOPR", "blur", "sharp", 2)
    write_pairs(tmp_path / "GOPRO_Large/train/GOPR", "blur_gamma", "sharp", 2)
    write(tmp_path / "GOPRO_Large/train/GOPR/blur_gamma/01.png", 50)
    source = GoPro(tmp_path, PROTOCOL)
    scene = source.scenes("train").load(1)
    assert source.name == "gopro"
    assert scene.mask is not None
    assert scene.mask.shape == (8, 12)
    assert scene.mask.all()
    assert (scene.blurry == 1).all()
    assert (GoPro(tmp_path, PROTOCOL, blur="blur_gamma").scenes("train").load(1).blurry == 50).all()


@pytest.mark.parametrize("folders", [("input", "target"), ("blur", "sharp")])
def test_gopro_relaid_and_flat(tmp_path: Path, folders: tuple[str, str]) -> None:
    write_pairs(tmp_path / "test", *folders, 3)
    assert len(GoPro(tmp_path, PROTOCOL).scenes("test")) == 3
    with pytest.raises(DataError, match="no known layout"):
        GoPro(tmp_path, PROTOCOL, blur="blur_gamma").scenes("test")
    with pytest.raises(ConfigurationError, match=r"data\.blur=sharp: choose blur or blur_gamma"):
        GoPro(tmp_path, PROTOCOL, blur="sharp")


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    write_pairs(tmp_path / "test", "input", "target", 1)
    write_pairs(tmp_path / "test", "in", "out", 2)
    write_pairs(tmp_path / "test", "blurry", "sharp", 3)
    layout = PairedFolders("in", "out")
    assert len(GoPro(tmp_path, PROTOCOL).scenes("test")) == 1
    assert len(GoPro(tmp_path, PROTOCOL, layout=layout).scenes("test")) == 2
    assert len(Folder(tmp_path, PROTOCOL, layout=layout).scenes("test")) == 2
    assert len(ReLoBlur(tmp_path, PROTOCOL, layout=layout).scenes("test")) == 2
    with pytest.raises(DataError, match=r"looked for \{train,val,test\}/\{a,b\}"):
        GoPro(tmp_path, PROTOCOL, layout=PairedFolders("a", "b")).scenes("test")


def test_val_is_a_sample_of_test_where_there_is_none(tmp_path: Path) -> None:
    write_reloblur(tmp_path, "test", 9)
    source = ReLoBlur(tmp_path, PROTOCOL, val_images=3)
    scenes = source.scenes("val")
    assert [scenes.name(index) for index in range(len(scenes))] == ["s01/01/01", "s01/01/04", "s01/01/07"]
    assert scenes.note == "val is a sample of test"
    assert len(ReLoBlur(tmp_path, PROTOCOL).scenes("val")) == 9
    with pytest.raises(DataError, match=r"has no train split \(dataset/.*\): it has test alone"):
        source.scenes("train")
    with pytest.raises(ConfigurationError, match=r"data\.val_images=0"):
        ReLoBlur(tmp_path, PROTOCOL, val_images=0)


@pytest.mark.parametrize(("count", "wanted"), [(1, 50), (7, 7), (10, 3), (1111, 50), (395, 50), (51, 50)])
def test_evenly_spaced(count: int, wanted: int) -> None:
    chosen = evenly_spaced(count, wanted)
    assert len(set(chosen)) == len(chosen) == min(count, wanted)
    assert chosen == sorted(chosen)
    assert chosen[0] >= 0
    assert chosen[-1] < count
    steps = np.diff(chosen)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_a_folder_with_splits(tmp_path: Path) -> None:
    for split, count in {"train": 3, "val": 2}.items():
        write_pairs(tmp_path / split, "blurry", "sharp", count)
    source = Folder(tmp_path, PROTOCOL, name="mine")
    assert source.name == "mine"
    assert [len(source.scenes(split)) for split in ("train", "val", "test")] == [3, 2, 2]
    assert source.scenes("train").load(0).mask is None
    assert source.scenes("test").note == "test is val, as there is no test folder"
    write_pairs(tmp_path / "test", "blurry", "sharp", 4)
    source = Folder(tmp_path, PROTOCOL, name="mine")
    assert [len(source.scenes(split)) for split in ("train", "val", "test")] == [3, 2, 4]


def test_a_folder_without_splits(tmp_path: Path) -> None:
    write_pairs(tmp_path, "blurry", "sharp", 12)
    for number in range(12):
        write(tmp_path / f"mask/{number:02}.png", 255)
    source = Folder(tmp_path, PROTOCOL)
    assert [len(source.scenes(split)) for split in ("train", "val", "test")] == [11, 1, 1]
    assert source.scenes("test").name(0) == "09"
    assert source.scenes("test").note == "one pair in 10 is kept for testing (data.holdout_every)"
    mask = source.scenes("train").load(0).mask
    assert mask is not None
    assert mask.all()
    everything = Folder(tmp_path, PROTOCOL, holdout_every=None)
    assert len(everything.scenes("train")) == len(everything.scenes("test")) == 12
    assert "same pairs train and test" in everything.scenes("test").note


def test_files_that_change_during_a_run_are_named(tmp_path: Path) -> None:
    write_reloblur(tmp_path, "test", 3)
    scenes = ReLoBlur(tmp_path, PROTOCOL).scenes("test")
    write(tmp_path / "dataset/test/s01/01/00_sharp.png", 0, width=10)
    with pytest.raises(
        DataError, match=r"00_blur\.png is 12 x 8 but .*00_sharp\.png is 10 x 8: sizes differ"
    ):
        scenes.load(0)
    write(tmp_path / "masks/test/s01/01/01.png", 0, height=9)
    with pytest.raises(
        DataError, match=r"01_blur\.png is 12 x 8 but .*masks.*01\.png is 12 x 9: sizes differ"
    ):
        scenes.load(1)
    (tmp_path / "dataset/test/s01/01/02_blur.png").unlink()
    with pytest.raises(ImageError, match=r"02_blur\.png: there is no such file"):
        scenes.load(2)
    assert len(scenes.problems(2, 1)) == 3


@pytest.mark.parametrize("source", [ReLoBlur, GoPro, Folder])
def test_a_missing_root_is_named(tmp_path: Path, source: type[ReLoBlur] | type[GoPro] | type[Folder]) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*none does not exist"):
        source(tmp_path / "none", PROTOCOL).scenes("train")
    with pytest.raises(DataError, match=r"^data\.own_root=.*none does not exist"):
        source(tmp_path / "none", PROTOCOL, root_key="data.own_root").scenes("train")


def test_a_folder_is_looked_through_once_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        write_pairs(tmp_path / split, "blurry", "sharp", 2)
    looked: list[str] = []
    listing = PairedFolders.listing

    def counted(self: PairedFolders, data: DataFolder, split: Split) -> Listing:
        looked.append(split)
        return listing(self, data, split)

    monkeypatch.setattr(PairedFolders, "listing", counted)
    source = Folder(tmp_path, PROTOCOL)
    first = source.scenes("test")
    assert source.scenes("test") is first
    assert len(source.scenes("val")) == len(source.scenes("train")) == 2
    assert looked == ["test", "train"]
    assert len(Folder(tmp_path, PROTOCOL).scenes("test")) == 2
    assert looked == ["test", "train", "test"]


def test_a_folder_that_could_not_be_read_is_looked_for_again(tmp_path: Path) -> None:
    source = Folder(tmp_path, PROTOCOL)
    with pytest.raises(DataError, match="no known layout"):
        source.scenes("test")
    write_pairs(tmp_path / "test", "blurry", "sharp", 2)
    assert len(source.scenes("test")) == 2
