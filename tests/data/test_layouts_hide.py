from pathlib import Path

import pytest

from deblur_lab.data.layouts import DataFolder, Pair, RawHIDE
from deblur_lab.errors import DataError
from tests.data.files import faults_in, pairs_in, touch

TRAIN = ["109fromGOPR1096.MP4", "9fromGOPR1096.MP4"]
CLOSE, LONG = "12fromGOPR0968.MP4", "7fromGOPR1044.MP4"


def write(root: Path, *, train: str = "GT", test: str = "GT", shots: str = "") -> None:
    """A small HIDE, whose sharp pictures lie in the folders given; `shots`: whether by shot."""
    touch(root, (f"train/{name}.png" for name in TRAIN))
    touch(root, (f"{train}/{name}.png" for name in TRAIN))
    for shot, name in (("test-close-ups", CLOSE), ("test-long-shot", LONG)):
        touch(root, [f"test/{shot}/{name}.png", f"{test}/{shot if shots else '.'}/{name}.png"])


def test_pairs_are_those_of_each_split_named_as_when_relaid(tmp_path: Path) -> None:
    write(tmp_path)
    layout = RawHIDE()
    assert layout.splits(DataFolder(tmp_path)) == ("train", "test")
    assert pairs_in(layout, tmp_path, "train") == [
        Pair(name, tmp_path / f"train/{name}.png", tmp_path / f"GT/{name}.png", None) for name in TRAIN
    ]
    assert pairs_in(layout, tmp_path, "test") == [
        Pair(CLOSE, tmp_path / f"test/test-close-ups/{CLOSE}.png", tmp_path / f"GT/{CLOSE}.png", None),
        Pair(LONG, tmp_path / f"test/test-long-shot/{LONG}.png", tmp_path / f"GT/{LONG}.png", None),
    ]


@pytest.mark.parametrize(
    ("train", "test", "shots"),
    [("GT/train", "GT/test", ""), ("GT/train", "GT/test", "by shot"), ("GT/train", "GT", "by shot")],
)
def test_sharp_pictures_may_be_divided_as_the_blurry_ones(
    tmp_path: Path, train: str, test: str, shots: str
) -> None:
    write(tmp_path, train=train, test=test, shots=shots)
    for split, names in (("train", TRAIN), ("test", [CLOSE, LONG])):
        pairs = pairs_in(RawHIDE(), tmp_path, split)
        assert [pair.name for pair in pairs] == names
        assert all(pair.sharp.is_file() and pair.sharp.is_relative_to(tmp_path / "GT") for pair in pairs)


def test_one_name_in_both_shots_and_a_missing_partner_are_faults(tmp_path: Path) -> None:
    write(tmp_path)
    touch(tmp_path, [f"test/test-long-shot/{CLOSE}.png", "test/test-close-ups/1fromGOPR0001.MP4.png"])
    blurry = tmp_path / "test"
    assert faults_in(RawHIDE(), tmp_path, "test") == [
        f"{blurry}/test-close-ups/{CLOSE}.png and {blurry}/test-long-shot/{CLOSE}.png have one name: remove "
        "one of them",
        f"{blurry}/test-close-ups/1fromGOPR0001.MP4.png has no partner: "
        f"{tmp_path}/GT/1fromGOPR0001.MP4.png is missing",
    ]


def test_a_copy_without_training_pictures_may_have_all_sharp_ones(tmp_path: Path) -> None:
    write(tmp_path)
    for name in TRAIN:
        (tmp_path / f"train/{name}.png").unlink()
    (tmp_path / "train").rmdir()
    assert RawHIDE().splits(DataFolder(tmp_path)) == ("test",)
    assert len(pairs_in(RawHIDE(), tmp_path, "test")) == 2


def test_relaid_and_empty_folders_are_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path / "both")
    touch(tmp_path / "both", [f"val/{name}/a.png" for name in ("input", "target")])
    touch(tmp_path / "relaid", [f"test/{name}/a.png" for name in ("input", "target")])
    (tmp_path / "relaid/GT").mkdir()
    assert RawHIDE().splits(DataFolder(tmp_path / "both")) == ("train", "test")
    assert RawHIDE().splits(DataFolder(tmp_path / "relaid")) == ()
    touch(tmp_path / "empty", ["train/readme.txt", "GT/a.png"])
    with pytest.raises(DataError, match=r"empty/train is empty"):
        RawHIDE().listing(DataFolder(tmp_path / "empty"), "train")
