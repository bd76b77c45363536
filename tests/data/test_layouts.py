import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.layouts import (
    HeldOutFolders,
    Pair,
    PairedFolders,
    RawGoPro,
    RawReLoBlur,
    find_layout,
    find_problems,
    open_root,
    refuse,
)
from deblur_lab.errors import ConfigurationError, DataError


def touch(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write(path: Path, width: int = 32, height: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def one_line(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The root


def test_a_root_that_is_missing_or_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*/none does not exist: give") as caught:
        open_root(tmp_path / "none")
    one_line(caught)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"file is not a folder"):
        open_root(str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"data\.root is empty"):
        open_root("")
    with pytest.raises(DataError, match=r"^data\.gopro_root=.*/none does not exist: give"):
        open_root(tmp_path / "none", "data.gopro_root")


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_root("~") == tmp_path.resolve()


def test_an_unknown_layout_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, [f"pictures{number}/a.png" for number in range(7)])
    with pytest.raises(DataError, match="has no known layout") as caught:
        find_layout(tmp_path, [RawGoPro(), PairedFolders("input", "target")])
    message = one_line(caught)
    assert (
        "{train,test}/SEQUENCE/{blur,sharp}/NNNNNN.png or {train,val,test}/{input,target}/NAME.png" in message
    )
    assert "pictures0, pictures1, pictures2, pictures3, pictures4 and 2 more" in message
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^data\.x=.*it holds nothing"):
        find_layout(tmp_path / "empty", [RawReLoBlur()], root_key="data.x")


# The layouts


def test_raw_reloblur(tmp_path: Path) -> None:
    stems = ["train/s01/02/00", "train/s01/01/01", "train/s01/01/00", "test/s02/01/07"]
    touch(tmp_path, (f"dataset/{stem}_{kind}.png" for stem in stems for kind in ("blur", "sharp")))
    touch(tmp_path, (f"masks/{stem}.png" for stem in stems))
    touch(
        tmp_path, ["dataset/train/s01/01/readme.txt", "dataset/train/s01/01/.DS_Store", "masks/train/x.png"]
    )
    layout = RawReLoBlur()
    assert layout.splits(tmp_path) == ("train", "test")
    pairs = layout.pairs(tmp_path, "train")
    assert [pair.name for pair in pairs] == ["s01/01/00", "s01/01/01", "s01/02/00"]
    folder = tmp_path / "dataset/train/s01/02"
    assert pairs[2] == Pair(
        "s01/02/00",
        folder / "00_blur.png",
        folder / "00_sharp.png",
        tmp_path / "masks/train/s01/02/00.png",
    )
    assert RawReLoBlur(masks=None).pairs(tmp_path, "test")[0].mask is None


def test_reloblur_without_some_masks_is_refused(tmp_path: Path) -> None:
    for number in range(8):
        touch(tmp_path, (f"dataset/train/s01/01/{number:02}_{kind}.png" for kind in ("blur", "sharp")))
    touch(tmp_path, ["masks/train/s01/01/03.png"])
    with pytest.raises(DataError, match=r"7 picture\(s\) in .*/dataset/train have no mask") as caught:
        RawReLoBlur().pairs(tmp_path, "train")
    message = one_line(caught)
    assert (
        f"{tmp_path}/dataset/train/s01/01/00_blur.png has no {tmp_path}/masks/train/s01/01/00.png; "
        in message
    )
    assert message.count(" has no ") == 5
    assert message.endswith("...")
    with pytest.raises(DataError, match=r"8 picture.*have no mask: .*other/train/s01/01/00\.png"):
        RawReLoBlur(masks="other").pairs(tmp_path, "train")


@pytest.mark.parametrize("blur", ["blur", "blur_gamma"])
def test_raw_gopro(tmp_path: Path, blur: str) -> None:
    for sequence in ("GOPR0384_11_00", "GOPR0372_07_01"):
        for folder in ("blur", "blur_gamma", "sharp"):
            touch(tmp_path, (f"test/{sequence}/{folder}/{number:06}.png" for number in (2, 1)))
    layout = RawGoPro(blur)
    assert layout.splits(tmp_path) == ("test",)
    pairs = layout.pairs(tmp_path, "test")
    assert [pair.name for pair in pairs] == [
        "GOPR0372_07_01/000001",
        "GOPR0372_07_01/000002",
        "GOPR0384_11_00/000001",
        "GOPR0384_11_00/000002",
    ]
    folder = tmp_path / "test/GOPR0372_07_01"
    assert pairs[0] == Pair(
        "GOPR0372_07_01/000001",
        folder / blur / "000001.png",
        folder / "sharp/000001.png",
        None,
    )


def test_raw_gopro_without_the_blur_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, ["train/GOPR/blur/000001.png", "train/GOPR/sharp/000001.png"])
    with pytest.raises(DataError, match=r"sharp/000001\.png has no .*/GOPR/blur_gamma/000001\.png"):
        RawGoPro("blur_gamma").pairs(tmp_path, "train")


def test_paired_folders(tmp_path: Path) -> None:
    stem = "GOPR0384_11_00-000001"
    touch(tmp_path, [f"train/input/{stem}.png", f"train/target/{stem}.jpg", "test/input/a.png"])
    layout = PairedFolders("input", "target")
    assert layout.splits(tmp_path) == ("train",)
    assert layout.pairs(tmp_path, "train") == [
        Pair(
            stem,
            tmp_path / f"train/input/{stem}.png",
            tmp_path / f"train/target/{stem}.jpg",
            None,
        )
    ]


def test_names_of_every_kind_are_kept_and_never_patterns(tmp_path: Path) -> None:
    stems = ["109fromGOPR1096.MP4", "a b", "[ab]", "a", "b", "*", "x\ny", "日本", "v1.2.3", "Ü"]
    touch(tmp_path, (f"train/{folder}/{stem}.PNG" for stem in stems for folder in ("blurry", "sharp")))
    pairs = PairedFolders().pairs(tmp_path, "train")
    assert [pair.name for pair in pairs] == sorted(stems)
    assert all(pair.blurry.stem == pair.sharp.stem == pair.name for pair in pairs)


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    touch(tmp_path, [f"train/blurry/{composed}.png", f"train/sharp/{decomposed}.png"])
    assert [pair.name for pair in PairedFolders().pairs(tmp_path, "train")] == [composed]


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    for folder in ("blurry", "sharp"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        Path(os.fsdecode(os.fsencode(tmp_path / "train" / folder) + b"/caf\xe9.png")).write_bytes(b"")
    (pair,) = PairedFolders().pairs(tmp_path, "train")
    assert pair.name == "caf\\udce9"
    assert pair.blurry.exists()


def test_masks_of_a_folder_are_for_all_pairs_or_none(tmp_path: Path) -> None:
    touch(tmp_path, (f"train/{folder}/{name}.png" for folder in ("blurry", "sharp") for name in "ab"))
    layout = PairedFolders(mask="mask")
    assert [pair.mask for pair in layout.pairs(tmp_path, "train")] == [None, None]
    touch(tmp_path, ["train/mask/a.png"])
    with pytest.raises(DataError, match=r"1 picture.*have no mask: .*blurry/b\.png has no .*mask/b\.png$"):
        layout.pairs(tmp_path, "train")
    touch(tmp_path, ["train/mask/b.png"])
    assert [pair.mask for pair in layout.pairs(tmp_path, "train")] == [
        tmp_path / "train/mask/a.png",
        tmp_path / "train/mask/b.png",
    ]


def test_unpaired_files_are_named_with_their_partners(tmp_path: Path) -> None:
    touch(tmp_path, (f"train/blurry/{number}.png" for number in range(8)))
    touch(tmp_path, (f"train/sharp/{number}.png" for number in range(2, 9)))
    with pytest.raises(DataError, match=r"3 picture\(s\) in .*/train have no partner") as caught:
        PairedFolders().pairs(tmp_path, "train")
    message = one_line(caught)
    assert f"{tmp_path}/train/blurry/0.png has no {tmp_path}/train/sharp/0.png; " in message
    assert f"{tmp_path}/train/sharp/8.png has no {tmp_path}/train/blurry/8.png" in message
    touch(tmp_path, (f"train/blurry/more{number}.png" for number in range(8)))
    with pytest.raises(DataError, match=r"^11 picture") as caught:
        PairedFolders().pairs(tmp_path, "train")
    assert one_line(caught).count(" has no ") == 5


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, ["train/blurry/a.png", "train/blurry/a.jpg", "train/sharp/a.png"])
    with pytest.raises(DataError, match=r"blurry/a\.jpg and .*blurry/a\.png have one name"):
        PairedFolders().pairs(tmp_path, "train")


@pytest.mark.parametrize("layout", [PairedFolders(), RawGoPro(), RawReLoBlur()])
def test_empty_splits_are_refused(tmp_path: Path, layout: PairedFolders | RawGoPro | RawReLoBlur) -> None:
    for folder in ("train/blurry", "train/sharp", "train/seq/sharp", "dataset/train/s01"):
        (tmp_path / folder).mkdir(parents=True)
    touch(tmp_path, ["train/blurry/Thumbs.db", "train/sharp/._a.png"])
    assert layout.splits(tmp_path) == ("train",)
    with pytest.raises(DataError, match=r"train is empty"):
        layout.pairs(tmp_path, "train")


@pytest.mark.parametrize(
    ("count", "every", "held_out"),
    [(25, 10, [9, 19]), (10, 10, [9]), (4, 10, [3]), (5, 2, [1, 3]), (6, None, [0, 1, 2, 3, 4, 5])],
)
def test_pairs_are_held_out(tmp_path: Path, count: int, every: int | None, held_out: list[int]) -> None:
    touch(
        tmp_path, (f"{folder}/{number:02}.png" for folder in ("blurry", "sharp") for number in range(count))
    )
    layout = HeldOutFolders(every=every)
    assert layout.splits(tmp_path) == ("train", "test")
    test = [int(pair.name) for pair in layout.pairs(tmp_path, "test")]
    train = [int(pair.name) for pair in layout.pairs(tmp_path, "train")]
    assert test == held_out
    assert train == (list(range(count)) if every is None else sorted(set(range(count)) - set(test)))


def test_a_single_pair_is_for_testing(tmp_path: Path) -> None:
    touch(tmp_path, ["blurry/a.png", "sharp/a.png"])
    assert len(HeldOutFolders().pairs(tmp_path, "test")) == 1
    with pytest.raises(DataError, match=r"single pair, which is kept for testing.*data\.holdout_every=null"):
        HeldOutFolders().pairs(tmp_path, "train")
    with pytest.raises(ConfigurationError, match=r"data\.holdout_every=1: give 2 or more"):
        HeldOutFolders(every=1)


# Finding them


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    candidates = [RawGoPro(), PairedFolders("input", "target"), PairedFolders("blur", "sharp")]
    layouts = {
        "raw": "train/GOPR/{}/1.png",
        "relaid": "train/{}/GOPR-1.png",
        "flat": "train/{}/GOPR_1.png",
    }
    folders = {"raw": ("blur", "sharp"), "relaid": ("input", "target"), "flat": ("blur", "sharp")}
    for (kind, name), candidate in zip(layouts.items(), candidates, strict=True):
        touch(tmp_path / kind, (name.format(folder) for folder in folders[kind]))
        assert find_layout(tmp_path / kind, candidates) == (candidate, tmp_path / kind)
        touch(tmp_path / "above" / kind / "GOPRO_Large", (name.format(folder) for folder in folders[kind]))
        found = find_layout(tmp_path / "above" / kind, candidates, ("GOPRO_Large",))
        assert found == (candidate, tmp_path / "above" / kind / "GOPRO_Large")


# Links


def test_links_inside_the_data_folder_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, ["store/a.png", "train/sharp/a.png"])
    (tmp_path / "train/blurry").symlink_to(tmp_path / "store")
    (pair,) = PairedFolders().pairs(tmp_path, "train")
    assert pair.blurry == tmp_path / "train/blurry/a.png"


@pytest.mark.parametrize("link", ["data/train/blurry/a.png", "data/train/blurry", "data/train"])
def test_links_that_leave_the_data_folder_are_refused(tmp_path: Path, link: str) -> None:
    inside = Path(link).relative_to("data")
    outside = tmp_path / "outside" / inside
    touch(tmp_path, ["outside/train/blurry/a.png", "outside/train/sharp/a.png"])
    if link != "data/train":
        touch(tmp_path, ["data/train/sharp/a.png"])
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(outside)

    def find() -> list[Pair]:
        layout, root = find_layout(tmp_path / "data", [PairedFolders()])
        return layout.pairs(root, "train")

    with pytest.raises(DataError, match="outside the data folder") as caught:
        find()
    assert str(outside) in one_line(caught)


def test_a_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, ["disk/train/blurry/a.png", "disk/train/sharp/a.png"])
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    root = open_root(tmp_path / "data")
    assert len(PairedFolders().pairs(root, "train")) == 1


# Checking files


def pairs_of(root: Path, names: str, mask: bool = False) -> list[Pair]:
    return [
        Pair(
            name,
            write(root / f"blurry/{name}.png"),
            write(root / f"sharp/{name}.png"),
            write(root / f"mask/{name}.png") if mask else None,
        )
        for name in names
    ]


def test_good_pairs_pass(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, "abc", mask=True)
    assert find_problems(pairs, smallest_px=24) == []
    assert find_problems(pairs, full=True) == []
    refuse([])
    assert find_problems([]) == []


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, "abcdefg", mask=True)
    pairs[0].blurry.write_bytes(b"")
    pairs[1].sharp.write_bytes(pairs[1].sharp.read_bytes()[:-200])
    write(pairs[2].sharp, 30, 24)
    assert pairs[3].mask is not None
    write(pairs[3].mask, 24, 32)
    pairs[4].sharp.unlink()
    assert pairs[5].mask is not None
    pairs[5].mask.write_bytes(b"")
    write(pairs[6].blurry, 32, 8)
    write(pairs[6].sharp, 32, 8)
    assert pairs[6].mask is not None
    write(pairs[6].mask, 32, 8)
    with pytest.raises(DataError) as caught:
        refuse(find_problems(pairs, smallest_px=16))
    lines = str(caught.value).splitlines()
    assert lines[0] == "7 problem(s) with the pictures; mend or remove these files:"
    expected = [
        ["blurry/a.png: the file is empty"],
        ["sharp/b.png: cannot be read as a picture"],
        ["blurry/c.png is 32 x 24 but", "sharp/c.png is 30 x 24: sizes differ"],
        ["blurry/d.png is 32 x 24 but", "mask/d.png is 24 x 32: sizes differ"],
        ["sharp/e.png: there is no such file"],
        ["mask/f.png: the file is empty", "first release of masks is known for this (train/s09)"],
        ["blurry/g.png is 32 x 8, smaller than data.patch_size=16: data.patch_size=8 at most"],
    ]
    assert len(lines) == 1 + len(expected)
    for line, parts in zip(lines[1:], expected, strict=True):
        assert all(part in line for part in parts), line


def test_long_lists_are_cut(tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    good = write(tmp_path / "good.png")
    pairs = [Pair(str(number), good, missing, None) for number in range(203)]
    with pytest.raises(DataError) as caught:
        refuse(find_problems(pairs[:200]))
    assert str(caught.value).count("there is no such file") == 200
    assert "more" not in str(caught.value)
    with pytest.raises(DataError) as caught:
        refuse(find_problems(pairs))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("203 problem(s)")
    assert len(lines) == 202
    assert lines[-1].strip() == "and 3 more"


def test_damage_and_missing_ends_are_found_in_every_format(tmp_path: Path) -> None:
    names = ["damaged.png", "cut.tif", "cut.webp", "cut.bmp", "cut.jp2", "cut.gif", "cut.jpg", "cut.ppm"]
    pairs = [Pair(name, write(tmp_path / "blurry.png"), write(tmp_path / name), None) for name in names]
    assert find_problems(pairs) == []
    for pair in pairs:
        data = bytearray(pair.sharp.read_bytes())
        if pair.name.startswith("cut"):
            data = data[: len(data) * 3 // 4]
        else:
            start = data.index(b"IDAT") + 500
            data[start : start + 200] = bytes(value ^ 0xFF for value in data[start : start + 200])
        pair.sharp.write_bytes(data)
    problems = find_problems(pairs)
    assert [problem.partition(": ")[0] for problem in problems] == [str(pair.sharp) for pair in pairs]
    assert "damaged (wrong checksum in its part 'IDAT')" in problems[0]


def test_numbers_without_a_white_are_found_in_pictures_and_allowed_in_masks(tmp_path: Path) -> None:
    (good,) = pairs_of(tmp_path, "a")
    Image.fromarray(np.ones((24, 32), np.float32)).save(tmp_path / "float.tif")
    wide = tmp_path / "float.tif"
    (problem,) = find_problems([Pair("a", good.blurry, wide, None)])
    assert problem.startswith(f"{wide}: floating-point numbers, in which white is not defined")
    assert find_problems([Pair("a", good.blurry, good.sharp, wide)]) == []
