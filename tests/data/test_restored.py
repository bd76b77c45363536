"""Which picture of a dataset a restored one is, by names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.restored import faults_of_files, pictures_below
from deblur_lab.data.restored_names import match
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
        # What all files share, before or behind the name.
        (GOPRO, "{0}-{1}_NAFNet-GoPro-width32.png"),
        (GOPRO, "{0}-{1}/{0}-{1}_NAFNet.png"),
        (GOPRO, "my net/epoch 3/{0}_{1}_x2_00.png"),
        (GOPRO, "{0}/{1}/{1}_10000.png"),
        (REALBLUR, "{0}-{1}_NAFNet.png"),
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


@pytest.mark.parametrize("pattern", ["{}.png", "{}_NAFNet.png", "test-close-ups/{}.jpg", "{}_restored.png"])
def test_names_cut_at_the_first_dot(pattern):
    files = [pattern.format(name.partition(".")[0]) for name in HIDE]
    found = matched(HIDE, files)
    assert list(found.files.values()) == [FOLDER / file for file in files]
    # Two that are then the same are not told apart.
    found = matched(["109from.MP4", "109from.AVI", "110from.MP4"], ["109from.png", "110from.png"])
    assert found.files == {2: FOLDER / "110from.png"}
    assert "109from.png is as good a match for 109from.MP4, 109from.AVI: " in found.faults[0]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (GOPRO, ["GOPR0384_11_00-1.png", "GOPR0384_11_00-2.png", "GOPR0410_11_00-1.png"]),
        (GOPRO, ["GOPR384_11_0/1_net.png", "GOPR384_11_0/2_net.png", "GOPR410_11_0/1_net.png"]),
        (REALBLUR, ["scene1-1.png", "scene1-11.png", "scene2-1.png"]),
        (RELOBLUR, ["s1_1_0.png", "s1_1_1.png", "s1_2_0.png"]),
    ],
)
def test_numbers_without_leading_zeros(names, files):
    found = matched(names, files)
    assert list(found.files.values()) == [FOLDER / file for file in files]
    assert (found.missing, found.faults, found.extra) == ((), (), ())


def test_numbers_that_another_count_has_are_not_taken_for_names_without_zeros():
    names = [f"{number:06d}" for number in range(47, 147)]  # a sequence need not begin at 0
    found = matched(names, [f"{number}.png" for number in range(100)])
    assert (found.files, len(found.missing)) == ({}, 100)
    assert len(matched(names, [f"{number}.png" for number in range(47, 147)]).files) == 100


def test_what_not_all_files_share_is_not_left_out_of_names():
    found = matched(GOPRO, ["GOPR0384_11_00-000001_a.png", "GOPR0384_11_00-000002_b.png"])
    assert found.missing == (0, 1, 2)
    # Another sequence, though its numbers are the same.
    found = matched(GOPRO[:2], ["GOPR0384_11_05-000001_a.png", "GOPR0384_11_05-000002_a.png"])
    assert found.missing == (0, 1)
    # One file of one picture shares with nobody, and all of a part do.
    assert matched(GOPRO, ["GOPR0384_11_00-000001_a.png"]).missing == (0, 1, 2)
    found = matched(GOPRO, ["GOPR0384_11_00-000001_a.png", "GOPR0384_11_00-000002_a.png"])
    assert (list(found.files), found.missing) == ([0, 1], (2,))
    # All that is there beside the pictures may be called otherwise.
    files = [f"{name.replace('/', '-')}_a.png" for name in GOPRO]
    assert matched(GOPRO, ["grid.png", *files]).extra == (FOLDER / "grid.png",)


def test_two_kinds_of_files_that_both_fit_all_are_refused():
    kinds = [f"{name.replace('/', '-')}_{kind}.png" for name in GOPRO for kind in ("a", "b")]
    found = matched(GOPRO, kinds)
    assert found.files == {}
    (fault,) = found.faults
    assert fault == (
        "/out/GOPR0384_11_00-000001_a.png, /out/GOPR0384_11_00-000001_b.png are each as good a match for "
        "GOPR0384_11_00/000001, and others likewise: leave files of one kind in the folder"
    )


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


@pytest.mark.parametrize(
    "pattern",
    [
        *("sharp/{0}/{1}.png", "{0}/sharp/{1}.png", "results/GT/{0}-{1}.png", "target/{0}-{1}.png"),
        *("{0}-{1}_hr.png", "{0}-{1}.gt.png", "{0}-{1}_ground_truth.png", "gt1/{0}-{1}_net.png"),
        *("labels/{0}-{1}.png", "clean-{0}-{1}.png", "groundtruth/{0}_{1}.png"),
    ],
)
def test_no_sharp_picture_is_taken_wherever_its_name_says_so(pattern):
    files = [pattern.format(*name.split("/")) for name in GOPRO]
    found = matched(GOPRO, files)
    assert (found.files, found.missing, found.faults) == ({}, (0, 1, 2), ())
    assert found.sharp == found.extra == tuple(FOLDER / file for file in files)


def test_sharp_pictures_do_not_fill_the_holes_between_restored_ones():
    names = [f"GOPR0384_11_00/{number:06d}" for number in range(5)]
    restored = [f"restored/{name}.png" for name in names[:3]]
    target = [f"target/{name}.png" for name in names]
    found = matched(names, [*restored, *target])
    assert list(found.files.values()) == [FOLDER / file for file in restored]
    assert found.missing == (3, 4)
    assert found.sharp == tuple(FOLDER / file for file in target)


def test_a_dataset_may_have_such_words_in_its_own_names():
    names = ["clean street/1", "clean street/2", "sharp turn/1"]
    files = ["clean_street-1.png", "out/clean_street-2.png", "sharp_turn/1.png", "clean_street/gt/1.png"]
    found = matched(names, files)
    assert [path.name for path in found.files.values()] == [
        "clean_street-1.png",
        "clean_street-2.png",
        "1.png",
    ]
    assert found.sharp == (FOLDER / files[3],)


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
    faults, jpegs = faults_of_files(found, lambda index: (tmp_path / "a.png", tmp_path / "a.png"))
    assert jpegs == 1
    assert len(faults) == 2
    assert faults[0].endswith(
        "b.png is 30 x 10, but its sharp picture is 30 x 20: sizes differ, and neither is resized"
    )
    assert "c.png" in faults[1]


def test_sharp_pictures_under_the_names_of_restored_ones_are_a_fault(tmp_path):
    generator = np.random.default_rng(0)
    sharp, blurry = generator.integers(0, 255, (2, 20, 30, 3), np.uint8)
    other = sharp.copy()
    other[7, 5, 1] += 1
    for folder in ("in", "sharp", "blurry"):
        (tmp_path / folder).mkdir()
    # The third is sharp where the blurry one is as well; the fourth differs in one level.
    for name, restored, seen in (
        ("a", sharp, blurry),
        ("b", sharp, blurry),
        ("c", sharp, sharp),
        ("d", other, blurry),
    ):
        Image.fromarray(restored).save(tmp_path / "in" / f"{name}.png", compress_level=1)
        write_png(tmp_path / "sharp" / f"{name}.png", sharp)
        write_png(tmp_path / "blurry" / f"{name}.png", seen)
    found = match(list("abcd"), pictures_below(tmp_path / "in"), tmp_path / "in")

    def pair(index):
        return tuple(tmp_path / folder / f"{'abcd'[index]}.png" for folder in ("blurry", "sharp"))

    faults, _ = faults_of_files(found, pair)
    (fault,) = faults
    assert fault == (
        "2 files are their sharp pictures, pixel by pixel, and no restored ones: "
        f"{tmp_path / 'in' / 'a.png'}, {tmp_path / 'in' / 'b.png'}"
    )
    one = match(["a"], [tmp_path / "in" / "a.png"], tmp_path / "in")
    (fault,) = faults_of_files(one, pair)[0]
    assert fault == f"{tmp_path / 'in' / 'a.png'} is its sharp picture, pixel by pixel, and no restored one"
