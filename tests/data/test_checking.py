"""What is wrong with the files of a dataset is found before it is used, and told all at once."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.checking import Stamps, find_problems, refuse
from deblur_lab.data.layouts import Pair
from deblur_lab.errors import DataError


def write(path: Path, width: int = 32, height: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


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


def test_long_lists_are_cut_and_written_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    missing = tmp_path / "missing.png"
    good = write(tmp_path / "good.png")
    pairs = [Pair(str(number), good, missing, None) for number in range(23)]
    with pytest.raises(DataError) as caught:
        refuse(find_problems(pairs[:20]))
    assert str(caught.value).count("there is no such file") == 20
    assert "more" not in str(caught.value)
    assert os.listdir() == []
    with pytest.raises(DataError) as caught:
        refuse(find_problems(pairs))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("23 problem(s)")
    assert len(lines) == 22
    written = tmp_path / "here" / "picture-problems.txt"
    assert lines[-1].strip() == f"and 3 more; all of them are in {written}"
    assert written.read_text().splitlines() == find_problems(pairs)
    assert os.listdir() == ["picture-problems.txt"]


def test_a_list_goes_elsewhere_where_the_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(Path, "cwd", lambda: gone / "x")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    with pytest.raises(
        DataError, match=r"and 10 more; all of them are in .*/temporary/picture-problems\.txt"
    ):
        refuse([str(number) for number in range(30)])
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(gone / "x"))
    with pytest.raises(DataError, match=r"and 10 more$"):
        refuse([str(number) for number in range(30)])


def test_damage_in_the_middle_of_a_jpeg_is_seen_where_all_is_decoded(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.jpg", 200, 160), write(tmp_path / "bad.jpg", 200, 160)
    data = bytearray(bad.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\xff\xd8" * 200
    bad.write_bytes(data)
    pair = Pair("a", good, bad, None)
    assert find_problems([pair]) == []
    (problem,) = find_problems([pair], full=True)
    assert problem.startswith(f"{bad}: ")


def test_a_file_that_was_changed_is_named(tmp_path: Path) -> None:
    (pair,) = pairs_of(tmp_path, "a", mask=True)
    assert pair.mask is not None
    stamps = Stamps()
    stamps.require_unchanged(pair.blurry)  # nothing is known of it yet
    stamps.take([pair], 2)
    for path in (pair.blurry, pair.sharp, pair.mask):
        stamps.require_unchanged(path)
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        with pytest.raises(DataError, match=rf"{path.name} was changed while the run went on"):
            stamps.require_unchanged(path)
    pair.blurry.unlink()
    stamps.require_unchanged(pair.blurry)  # which reading it will tell


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
