from pathlib import Path
from typing import Literal

import pytest

from deblur_lab.data.layouts import DataFolder, Pair, RawRealBlur
from deblur_lab.data.samples import Split
from deblur_lab.errors import DataError
from tests.data.files import faults_in, pairs_in, touch

TOPS = {
    "j": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "r": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}
SCENES = {"train": ("scene001", "scene230"), "test": ("scene004",)}
J = RawRealBlur("j")


def line_of(scene: str, number: int, top: str = TOPS["j"]) -> str:
    """A line as published, which ends in a space."""
    return f"{top}/{scene}/gt/gt_{number}.png {top}/{scene}/blur/blur_{number}.png \n"


def write(root: Path, *, top: str | None = None, lists: str = ".", kind: Literal["j", "r"] = "j") -> Path:
    """Two training scenes and a test scene of two pairs each; the folder of scenes."""
    folder = root / (TOPS[kind] if top is None else top)
    for split, scenes in SCENES.items():
        for scene in scenes:
            touch(
                folder,
                (f"{scene}/{name}_{number}.png" for name in ("blur/blur", "gt/gt") for number in (1, 2)),
            )
        lines = [line_of(scene, number, TOPS[kind]) for scene in scenes for number in (2, 1)]
        write_list(root / lists, split, lines, kind)
    return folder


def write_list(folder: Path, split: str, lines: list[str], kind: str = "j") -> Path:
    path = folder / f"RealBlur_{kind.upper()}_{split}_list.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["j", "r"])
def test_the_lists_say_which_pairs_are_of_which_split(tmp_path: Path, kind: Literal["j", "r"]) -> None:
    for each in ("j", "r"):
        write(tmp_path, kind=each)
    layout = RawRealBlur(kind)
    assert layout.splits(DataFolder(tmp_path)) == ("train", "test")
    folder = tmp_path / TOPS[kind]
    assert pairs_in(layout, tmp_path, "test") == [
        Pair(
            f"scene004/{number}",
            folder / f"scene004/blur/blur_{number}.png",
            folder / f"scene004/gt/gt_{number}.png",
            None,
        )
        for number in (1, 2)
    ]
    assert [pair.name for pair in pairs_in(layout, tmp_path, "train")] == [
        "scene001/1",
        "scene001/2",
        "scene230/1",
        "scene230/2",
    ]


@pytest.mark.parametrize(
    ("top", "lists"), [(None, TOPS["j"]), ("RealBlur_J", "."), ("realblur-j", "realblur-j"), ("", ".")]
)
def test_the_folder_may_be_called_otherwise_and_lists_lie_in_it_or_beside_it(
    tmp_path: Path, top: str | None, lists: str
) -> None:
    folder = write(tmp_path, top=top, lists=lists)
    assert J.splits(DataFolder(tmp_path)) == ("train", "test")
    pairs = pairs_in(J, tmp_path, "test")
    assert [pair.sharp for pair in pairs] == [folder / f"scene004/gt/gt_{number}.png" for number in (1, 2)]


def test_the_root_may_be_the_folder_of_scenes_with_the_lists_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert len(pairs_in(J, folder, "train")) == 4


def test_the_published_folder_comes_before_another_version(tmp_path: Path) -> None:
    folder = write(tmp_path)
    touch(tmp_path, ["RealBlur-J_ECC/scene004/blur/blur_1.png", "RealBlur-J_ECC/scene004/gt/gt_1.png"])
    assert J.folder_of_scenes(DataFolder(tmp_path)) == folder


@pytest.mark.parametrize(
    "line",
    [
        "scene004/gt/gt_1.png scene004/blur/blur_1.png",
        "./scene004/gt/gt_1.png ./scene004/blur/blur_1.png\r",
        "/home/x/RealBlur/scene004/gt/gt_1.png\t/home/x/RealBlur/scene004/blur/blur_1.png",
        "D:\\RealBlur\\scene004\\gt\\gt_1.png D:\\RealBlur\\scene004\\blur\\blur_1.png ",
        "\ufeffscene004/gt/gt_1.png scene004/blur/blur_1.png",
    ],
)
def test_what_comes_before_the_scene_does_not_count(tmp_path: Path, line: str) -> None:
    write(tmp_path)
    write_list(tmp_path, "test", [line, "\n\n"])
    assert [pair.name for pair in pairs_in(J, tmp_path, "test")] == ["scene004/1"]


def test_a_missing_list_says_where_it_comes_from(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (tmp_path / "RealBlur_J_train_list.txt").unlink()
    assert J.splits(DataFolder(tmp_path)) == ("test",)
    (tmp_path / "RealBlur_J_test_list.txt").unlink()
    assert J.splits(DataFolder(tmp_path)) == ("train", "test")
    for split in ("train", "test"):
        with pytest.raises(DataError) as caught:
            J.listing(DataFolder(tmp_path), split)
        assert str(caught.value) == (
            f"{folder} has no RealBlur_J_{split}_list.txt in it or beside it, which says what the {split} "
            "split is: it is in the dataset's archive (https://github.com/rimchang/RealBlur)"
        )


@pytest.mark.parametrize(
    "line",
    [
        "scene004/blur/blur_1.png scene004/gt/gt_1.png",
        "scene004/gt/gt_1.png",
        "scene004/gt/gt_1.png scene004/blur/blur_1.png scene004/blur/blur_2.png",
        "scene004/gt/gt_1.png scene001/blur/blur_1.png",
        "../gt/gt_1.png ../blur/blur_1.png",
        "gt/gt_1.png blur/blur_1.png",
        "what is this",
    ],
)
def test_lines_that_name_no_pair_are_faults(tmp_path: Path, line: str) -> None:
    write(tmp_path)
    path = write_list(tmp_path, "test", [line_of("scene004", 2), f"{line}\n"])
    (fault,) = faults_in(J, tmp_path, "test")
    assert fault.startswith(
        f"{path}, line 2: {line!r} is not the path of a sharp picture (.../SCENE/gt/NAME) and"
    )
    assert [pair.name for pair in J.listing(DataFolder(tmp_path), "test").pairs] == ["scene004/2"]


def test_lines_whose_files_are_missing_and_lines_twice_are_faults(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "scene004/gt/gt_2.png").unlink()
    path = write_list(
        tmp_path,
        "test",
        [line_of("scene004", 1), line_of("scene004", 2), line_of("scene004", 1), line_of("scene9", 3)],
    )
    assert faults_in(J, tmp_path, "test") == [
        f"{path}, line 3: names scene004/blur/blur_1.png again, as line 1 does",
        f"{path}, line 2: {folder}/scene004/gt/gt_2.png is missing",
        f"{path}, line 4: {folder}/scene9/gt/gt_3.png is missing",
        f"{path}, line 4: {folder}/scene9/blur/blur_3.png is missing",
    ]


def test_a_scene_in_both_lists_is_a_fault_of_both(tmp_path: Path) -> None:
    write(tmp_path)
    test = write_list(tmp_path, "test", [line_of("scene004", 1), line_of("scene230", 1)])
    train = tmp_path / "RealBlur_J_train_list.txt"
    for split in ("train", "test"):
        (fault,) = faults_in(J, tmp_path, split)
        assert fault == (
            f"scene230 is named by both {train} and {test}: what is tested on must not be trained on"
        )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "RealBlur_J_test_list.txt is empty: it should name a sharp"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_a_list_that_names_nothing_is_refused(tmp_path: Path, written: bytes, said: str) -> None:
    write(tmp_path)
    (tmp_path / "RealBlur_J_test_list.txt").write_bytes(written)
    with pytest.raises(DataError, match=said):
        J.listing(DataFolder(tmp_path), "test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_folder_of_the_other_kind_is_a_fault(tmp_path: Path, split: Split) -> None:
    folder = write(tmp_path, kind="r")
    for each in SCENES:
        write_list(tmp_path, each, [line_of(SCENES[each][0], 1)])
    (fault,) = faults_in(J, folder, split)
    assert fault == (
        f"{folder} is called as RealBlur-R is, but data=realblur_j reads RealBlur-J: choose data=realblur_r"
    )
    assert J.splits(DataFolder(tmp_path)) == ()


def test_links_of_scenes_that_leave_are_faults_and_others_beside_them_are_not(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / "scene004").rename(tmp_path / "scene004")
    (folder / "scene004").symlink_to(tmp_path / "scene004")
    touch(tmp_path, ["disk/a.png"])
    (tmp_path / "data/GoPro").symlink_to(tmp_path / "disk")
    (fault,) = faults_in(J, tmp_path / "data", "test")
    assert fault.startswith(f"{folder}/scene004 is a link to {tmp_path}/scene004, outside the data folder")
    assert faults_in(J, tmp_path / "data", "train") == []
