"""Which picture of a dataset a restored one is, by names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.restored import faults_of_files, match, pictures_below
from deblur_lab.errors import DataError
from deblur_lab.images import write_png

FOLDER = Path("/out")
GOPRO = ["GOPR0384_11_00/000001", "GOPR0384_11_00/000002", "GOPR0410_11_00/000001"]
HIDE = ["109fromGOPR1096.MP4", "110fromGOPR1096.MP4", "109fromGOPR1084.MP4"]
REALBLUR = ["scene001/1", "scene001/11", "scene002/1"]
RELOBLUR = ["s01/01/00", "s01/01/01", "s01/02/00"]


def matched(names, files):
    return match(names, [FOLDER / file for file in files], FOLDER)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (GOPRO, "{0}/{1}.png"),
        (GOPRO, "{0}-{1}.png"),
        (GOPRO, "{0}_{1}.png"),
        (GOPRO, "{0}/blur/{1}.png"),
        (GOPRO, "test/{0}/blur/{1}.png"),
        (GOPRO, "restored/{0}-{1}_restored.jpg"),
        (GOPRO, "{0} {1}.PNG"),
        (REALBLUR, "{0}/blur/blur_{1}.png"),
        (REALBLUR, "{0}-{1}.png"),
        (REALBLUR, "{0}_blur_{1}.png"),
        (REALBLUR, "RealBlur-J_ECC_IMCORR_centroid_itensity_ref/{0}/blur/blur_{1}.png"),
        (RELOBLUR, "{0}/{1}/{2}.png"),
        (RELOBLUR, "{0}/{1}/{2}_blur.png"),
        (RELOBLUR, "{0}_{1}_{2}.png"),
    ],
)
def test_the_names_that_programs_write(names, pattern):
    files = [pattern.format(*name.split("/")) for name in names]
    # In another order: names count alone.
    found = matched(names, files[::-1])
    assert found.files == {number: FOLDER / file for number, file in enumerate(files)}
    assert (found.missing, found.faults, found.extra) == ((), (), ())


@pytest.mark.parametrize("name", ["GOPR0384_11_00-000001", "GOPR0384_11_00_000001"])
def test_a_relaid_dataset_takes_pictures_named_as_in_the_raw_one(name):
    assert list(matched([name], ["test/GOPR0384_11_00/blur/000001.png"]).files) == [0]


@pytest.mark.parametrize("pattern", ["{}.png", "test-close-ups/{}.png", "{}_restored.png", "out/{}.tif"])
def test_names_with_several_dots(pattern):
    found = matched(HIDE, [pattern.format(name) for name in HIDE])
    assert list(found.files.values()) == [FOLDER / pattern.format(name) for name in HIDE]


def test_the_bare_name_counts_where_it_is_the_only_one():
    names = ["close-ups/109from.MP4", "long-shot/110from.MP4", "long-shot/109from.AVI"]
    files = ["110from.MP4.png", "109from.AVI.png", "109from.MP4.png"]
    assert [path.name for path in matched(names, files).files.values()] == [files[2], files[0], files[1]]


def test_a_bare_name_of_several_pictures_is_refused_with_all_that_it_could_be():
    found = matched(GOPRO, ["000001.png", "000002.png"])
    assert found.files == {1: FOLDER / "000002.png"}
    (fault,) = found.faults
    assert fault.startswith(
        "/out/000001.png is as good a match for GOPR0384_11_00/000001, GOPR0410_11_00/000001: "
    )
    assert (found.missing, found.extra) == ((), ())  # what is told already is not told again


def test_two_files_of_one_picture_are_refused():
    found = matched(GOPRO[:1], ["GOPR0384_11_00/000001.png", "GOPR0384_11_00/000001.jpg"])
    assert not found.files
    assert "GOPR0384_11_00/000001.jpg are each as good a match for GOPR0384_11_00/000001" in found.faults[0]
    # One that has the very name goes before one that has it in other words.
    found = matched(GOPRO[:1], ["GOPR0384_11_00/000001.png", "GOPR0384_11_00-000001.png"])
    assert found.files[0].name == "000001.png"
    assert found.extra == (FOLDER / "GOPR0384_11_00-000001.png",)


def test_the_sharp_picture_beside_the_restored_one_is_not_taken_for_it():
    found = matched(GOPRO[:1], ["GOPR0384_11_00-000001.png", "GOPR0384_11_00-000001_gt.png"])
    assert found.files[0].name == "GOPR0384_11_00-000001.png"
    assert [path.name for path in found.extra] == ["GOPR0384_11_00-000001_gt.png"]
    assert matched(GOPRO[:1], ["GOPR0384_11_00-000001_gt.png"]).missing == (0,)


def test_another_sequence_is_not_taken_for_one_that_is_missing():
    found = matched(GOPRO[1:], ["GOPR0384_11_05/000002.png", "GOPR0410_11_00/000001.png"])
    assert found.files == {1: FOLDER / "GOPR0410_11_00/000001.png"}
    assert found.missing == (0,)
    assert found.extra == (FOLDER / "GOPR0384_11_05/000002.png",)


def test_numbers_by_order_match_nothing():
    found = matched(GOPRO, ["0000.png", "0001.png", "0002.png"])
    assert found.missing == (0, 1, 2)
    assert len(found.extra) == 3


def test_decomposed_names_are_the_same(tmp_path):
    assert list(matched(["\u00e9t\u00e9"], ["e\u0301te\u0301.png"]).files) == [0]


def test_all_pictures_below_a_folder_are_found(tmp_path):
    pixel = np.zeros((1, 1, 3), np.uint8)
    for name in ("b/c/2.png", "a [x]/1.png", "0.png", ".hidden/3.png", ".4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, pixel)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path)  # a circle
    assert pictures_below(tmp_path) == [tmp_path / name for name in ("0.png", "a [x]/1.png", "b/c/2.png")]


def test_a_folder_without_pictures_is_named(tmp_path):
    for folder, told in ((tmp_path, "holds no pictures"), (tmp_path / "no", "does not exist")):
        with pytest.raises(DataError, match=f"^input=.* {told}: give the folder of restored pictures"):
            pictures_below(folder)


def test_what_is_wrong_with_files_is_told_of_all(tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    write_png(tmp_path / "a.png", picture)
    write_png(tmp_path / "b.png", picture[:10])
    (tmp_path / "c.png").touch()
    Image.fromarray(picture).save(tmp_path / "d.jpg")
    found = match(["a", "b", "c", "d"], pictures_below(tmp_path), tmp_path)
    faults, jpegs = faults_of_files(found, lambda index: tmp_path / "a.png")
    assert jpegs == 1
    assert len(faults) == 2
    assert faults[0].endswith(
        "b.png is 30 x 10, but its sharp picture is 30 x 20: sizes differ, and neither is resized"
    )
    assert "c.png" in faults[1]
