import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.layouts import DataFolder, Listing, PairedFolders
from deblur_lab.data.made_up import read_record
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.samples import SceneSet, Source, Split
from deblur_lab.data.sources import (
    HIDE,
    Folder,
    GoPro,
    PictureSource,
    RealBlur,
    ReLoBlur,
    evenly_spaced,
)
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
    with pytest.raises(
        DataError,
        match=r"is laid out as (relaid|flat), .*blur_gamma is known in the published layout \(raw\) alone",
    ):
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


def write_hide(root: Path) -> None:
    for number, folder in ((1, "train"), (2, "test/test-close-ups"), (3, "test/test-long-shot")):
        write(root / f"{folder}/{number}fromGOPR1096.MP4.png", number)
        write(root / f"GT/{number}fromGOPR1096.MP4.png", 100 + number)


def test_hide(tmp_path: Path) -> None:
    write_hide(tmp_path / "HIDE_dataset")
    source = HIDE(tmp_path, PROTOCOL)
    assert isinstance(source, Source)
    assert (source.name, source.protocol, source.splits()) == ("hide", PROTOCOL, ("train", "test"))
    scenes = source.scenes("test")
    assert (scenes.layout, scenes.root, len(scenes)) == ("raw", tmp_path / "HIDE_dataset", 2)
    scene = scenes.load(1)
    assert scene.name == "3fromGOPR1096.MP4"
    assert (int(scene.blurry.max()), int(scene.sharp.max())) == (3, 103)
    assert scene.mask is not None
    assert scene.mask.all()


def write_realblur(root: Path, kind: str, value: int) -> None:
    top = {"j": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref", "r": "RealBlur-R_BM3D_ECC_IMCORR"}[kind]
    for split, scene in (("train", "scene001"), ("test", "scene002")):
        write(root / top / scene / "blur/blur_1.png", value)
        write(root / top / scene / "gt/gt_1.png", 100 + value)
        line = f"{top}/{scene}/gt/gt_1.png {top}/{scene}/blur/blur_1.png \n"
        (root / f"RealBlur_{kind.upper()}_{split}_list.txt").write_text(line)


def test_realblur_j_and_r_in_one_folder(tmp_path: Path) -> None:
    write_realblur(tmp_path / "RealBlur", "j", 9)
    write_realblur(tmp_path / "RealBlur", "r", 1)
    for kind, value in (("j", 9), ("r", 1)):
        source = RealBlur(tmp_path, PROTOCOL, kind=kind)
        assert isinstance(source, Source)
        assert (source.name, source.splits()) == (f"realblur_{kind}", ("train", "test"))
        scene = source.scenes("test").load(0)
        assert (scene.name, int(scene.blurry.max())) == ("scene002/1", value)
        assert source.scenes("val").root == tmp_path / "RealBlur"
    with pytest.raises(ConfigurationError, match="kind=x: choose j or r"):
        RealBlur(tmp_path, PROTOCOL, kind="x")


@pytest.mark.parametrize("folder", ["RealBlur_J", "RealBlur-J", "RealBlur", "realblur_j_relaid"])
def test_realblur_relaid_below_the_root(tmp_path: Path, folder: str) -> None:
    write_pairs(tmp_path / folder, "input", "target", 2)
    write_pairs(tmp_path / "RealBlur_R", "input", "target", 1)
    source = RealBlur(tmp_path, PROTOCOL, kind="j")
    assert (source.splits(), len(source.scenes("test"))) == (("test",), 2)
    assert source.scenes("test").layout == "relaid"


@pytest.mark.parametrize("build", [GoPro, HIDE, lambda *given: RealBlur(*given, kind="r")])
def test_splits_may_be_laid_out_each_in_its_own_way(
    tmp_path: Path, build: Callable[..., PictureSource]
) -> None:
    write_pairs(tmp_path / "train", "blur", "sharp", 3)
    write_pairs(tmp_path / "test", "input", "target", 2)
    source = build(tmp_path, PROTOCOL)
    assert [len(source.scenes(split)) for split in ("train", "val", "test")] == [3, 2, 2]
    assert [source.scenes(split).layout for split in ("train", "val", "test")] == ["flat", "relaid", "relaid"]
    assert source.splits() == ("train", "test")
    (tmp_path / "test").rename(tmp_path / "val")
    assert build(tmp_path, PROTOCOL).splits() == ("train", "val")


def test_a_folder_is_split_or_not_and_never_both(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", "blurry", "sharp", 3)
    write_pairs(tmp_path, "blurry", "sharp", 4)
    assert Folder(tmp_path, PROTOCOL).splits() == ("train",)
    with pytest.raises(DataError, match=r"has no test split .*: it has train alone"):
        Folder(tmp_path, PROTOCOL).scenes("test")
    unsplit = Folder(tmp_path, PROTOCOL, layout="unsplit")
    assert (unsplit.splits(), len(unsplit.scenes("train"))) == (("train", "test"), 3)


@pytest.mark.parametrize(
    ("folders", "layout"), [(("input", "target"), "relaid"), (("blur", "sharp"), "flat")]
)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("GoPro", GoPro),
        ("HIDE", HIDE),
        ("RealBlur_J", partial(RealBlur, kind="j")),
        ("RealBlur_R", partial(RealBlur, kind="r")),
    ],
)
def test_a_test_set_by_itself_may_lie_at_the_top(
    tmp_path: Path, name: str, build: Any, folders: tuple[str, str], layout: str
) -> None:
    """As in the tree `Datasets/test/{GoPro,HIDE,RealBlur_J,RealBlur_R}` of several published programs."""
    for place, other in enumerate(("GoPro", "HIDE", "RealBlur_J", "RealBlur_R"), start=1):
        write_pairs(tmp_path / "Datasets/test" / other, *folders, place)
    for root in (tmp_path / "Datasets/test" / name, tmp_path / "Datasets/test"):
        source = build(root, PROTOCOL)
        assert source.splits() == ("test",)
        scenes = source.scenes("test")
        assert (scenes.layout, scenes.faults) == (layout, ())
        assert scenes.root == tmp_path / "Datasets/test" / name
        assert len(scenes) == len(build(root, PROTOCOL, layout=layout).scenes("test")) > 0


def test_a_layout_is_forced_by_its_name(tmp_path: Path) -> None:
    write_pairs(tmp_path / "test", "input", "target", 1)
    write_pairs(tmp_path / "test", "blur", "sharp", 2)
    assert [
        len(GoPro(tmp_path, PROTOCOL, layout=layout).scenes("test")) for layout in ("auto", "relaid", "flat")
    ] == [1, 1, 2]
    with pytest.raises(
        DataError, match=r"is not laid out as data\.layout=raw says: .*; it is laid out as relaid"
    ):
        GoPro(tmp_path, PROTOCOL, layout="raw").scenes("test")
    for build, layouts in ((GoPro, "raw, relaid, flat"), (ReLoBlur, "raw"), (Folder, "split, unsplit")):
        with pytest.raises(ConfigurationError) as caught:
            build(tmp_path, PROTOCOL, layout="Raw", root_key="data.own_root")
        assert str(caught.value) == f"data.own_layout=Raw: choose auto, {layouts}"
    with pytest.raises(ConfigurationError, match=r"the layout flat does not say which blur it holds"):
        GoPro(tmp_path, PROTOCOL, layout="flat", blur="blur_gamma")


def test_which_masks_are_used_is_known(tmp_path: Path) -> None:
    write_reloblur(tmp_path, "test", 2)
    (tmp_path / "masks").rename(tmp_path / "masks_lmdvit")
    named = ReLoBlur(tmp_path, PROTOCOL, masks="masks_lmdvit")
    assert {named.scenes(split).masks_from for split in ("val", "test")} == {"masks_lmdvit"}
    assert ReLoBlur(tmp_path, PROTOCOL, masks=None).scenes("test").masks_from is None
    assert ReLoBlur(tmp_path, PROTOCOL).scenes("test").masks_from is None  # they are not there
    write_pairs(tmp_path / "own", "blurry", "sharp", 1)
    assert Folder(tmp_path / "own", PROTOCOL).scenes("test").masks_from is None
    write(tmp_path / "own/mask/00.png", 255)
    assert Folder(tmp_path / "own", PROTOCOL).scenes("test").masks_from == "mask"


def test_what_was_made_up_is_said_to_be(tmp_path: Path) -> None:
    real, made = tmp_path / "real", tmp_path / "made"
    for root in (real, made):
        write_pairs(root / "test", "input", "target", 2)
    (made / "synthetic.json").write_text('{"holds": ["test"]}')
    scenes = GoPro(made, PROTOCOL).scenes("test")
    assert (scenes.made_up, scenes.note) == (True, "made-up scenes (synthetic.json), not GoPro")
    val = GoPro(made, PROTOCOL).scenes("val")
    assert (val.made_up, val.note) == (True, "val is a sample of test")
    # A part of it, given by itself.
    assert GoPro(made / "test", PROTOCOL).scenes("test").made_up
    assert not GoPro(real, PROTOCOL).scenes("test").made_up
    assert GoPro(real, PROTOCOL).scenes("test").note == ""
    # A real one that happens to lie in it.
    write_pairs(made / "GoPro/test", "input", "target", 2)
    assert not GoPro(made / "GoPro", PROTOCOL).scenes("test").made_up
    write_pairs(made, "blurry", "sharp", 2)
    notes = {Folder(made, PROTOCOL).scenes(split).note for split in ("train", "test")}
    assert notes == {
        "one pair in 10 is kept for testing (data.holdout_every); made-up scenes (synthetic.json)"
    }


@pytest.mark.parametrize("written", ["", "[]", "{"])
def test_a_damaged_record_is_no_silence(tmp_path: Path, written: str) -> None:
    write_pairs(tmp_path / "test", "input", "target", 1)
    (tmp_path / "synthetic.json").write_text(written)
    with pytest.raises(DataError, match=r"synthetic\.json is damaged: write the dataset anew"):
        GoPro(tmp_path, PROTOCOL).scenes("test")
    assert read_record(tmp_path.parent) is None


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


@pytest.mark.parametrize(
    "source", [ReLoBlur, GoPro, HIDE, Folder, lambda *given, **key: RealBlur(*given, kind="j", **key)]
)
def test_a_missing_root_is_named(tmp_path: Path, source: Callable[..., PictureSource]) -> None:
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
