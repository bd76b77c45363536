"""Datasets looked through from the command line."""

import json
import shutil
import signal

import numpy as np
from PIL import Image

from tests.commands.processes import Running, forked


def test_a_sound_dataset(datasets, tmp_path):
    said = forked(
        "deblur_lab.data.verify",
        "data=gopro",
        f"data.root={datasets / 'GoPro'}",
        "output=looked at",
        "workers=2",
        cwd=tmp_path,
    ).succeeded()
    lines = said.stdout.splitlines()
    assert lines[0] == f"gopro in {datasets}/GoPro/GOPRO_Large (layout raw, made up by data.synthesize)"
    assert "gopro is sound" in lines
    # Nine pairs, and the twins of their blurry pictures.
    assert lines[-1].startswith("27 files read in ")
    assert lines[-1].endswith(" a second); all of it in looked at/verify.json")
    result = json.loads((tmp_path / "looked at" / "verify.json").read_text(encoding="utf-8"))
    assert result.keys() == {"format", "version", "sound", "expected", "seconds", "sets"}
    assert (result["format"], result["sound"], result["expected"]) == (1, True, "published")
    (of_set,) = result["sets"]
    assert of_set.keys() == {
        *("dataset", "root", "made_up", "from_video", "sound", "splits", "masks", "faults", "warnings"),
    }
    assert (of_set["dataset"], of_set["made_up"], of_set["masks"]) == ("gopro", True, None)
    assert of_set["faults"] == of_set["warnings"] == []
    train = of_set["splits"]["train"]
    assert train.keys() == {
        *("layout", "pairs", "expected_pairs", "sequences", "expected_sequences", "sizes", "formats"),
        *("input_psnr_db", "mean_value", "sharpness_ratio", "averaging"),
    }
    assert (train["layout"], train["pairs"], train["expected_pairs"]) == ("raw", 6, 6)
    assert (train["sizes"], train["formats"]) == ({"96x80": 6}, {"PNG": 6})
    assert sum(train["sequences"].values()) == 6
    assert 10 < train["input_psnr_db"] < 50
    assert 0 < train["sharpness_ratio"] < 1


def test_faults_end_it_with_3_and_are_all_written(datasets, tmp_path):
    root = tmp_path / "My [Re]LoBlur"
    shutil.copytree(datasets / "ReLoBlur", root)
    (mask, *_) = sorted(root.glob("masks/train/*/*/*.png"))
    mask.write_bytes(b"")
    arguments = ("data=reloblur", f"data.root={root}", "workers=1")
    ended = forked("deblur_lab.data.verify", *arguments, cwd=tmp_path)
    told = ended.failed(3)
    (path,) = tmp_path.glob("runs/*-verify-reloblur/verify.json")
    assert told == (
        f"data=reloblur: 1 fault(s) in {root} (empty_file): docs/verify.md says what they mean, "
        f"{path.relative_to(tmp_path)} has all of them"
    )
    assert f"empty_file: {mask}: the file is empty (0 bytes); expected: a whole picture" in ended.stdout
    assert "reloblur is sound" not in ended.stdout
    (of_set,) = json.loads(path.read_text(encoding="utf-8"))["sets"]
    assert not of_set["sound"]
    assert of_set["faults"] == [
        {
            "kind": "empty_file",
            "title": "a file is empty (0 bytes)",
            "split": "train",
            "found": f"{mask}: the file is empty (0 bytes)",
            "expected": "a whole picture",
            "advice": "fetch or unpack it again",
            "files": [str(mask.relative_to(root))],
        }
    ]
    assert (of_set["masks"]["folder"], of_set["masks"]["count"]) == ("masks", 8)


def test_each_dataset_of_a_mixture(datasets, tmp_path):
    arguments = ("data=gopro_reloblur", f"data.root={datasets}", "workers=1", "output=out")
    said = forked("deblur_lab.data.verify", *arguments, cwd=tmp_path).succeeded()
    assert "gopro is sound" in said.stdout
    assert "reloblur is sound" in said.stdout
    result = json.loads((tmp_path / "out" / "verify.json").read_text(encoding="utf-8"))
    assert [of_set["dataset"] for of_set in result["sets"]] == ["reloblur", "gopro"]


def test_what_cannot_be_looked_through_is_told_and_leaves_nothing(told, tmp_path):
    ended = forked("deblur_lab.data.verify", "data=gopro", "data.root=none", cwd=tmp_path)
    assert ended.failed(3).startswith("data.root=none does not exist: give the folder")
    ended = forked("deblur_lab.data.verify", "data=synthetic", "output=out", cwd=tmp_path)
    assert ended.failed(2) == (
        "data.sources: synthetic is not read from files: there is nothing to look through"
    )
    assert list(tmp_path.iterdir()) == []
    (line,) = told("data.verify", "data=gopro", "data.root=none", "expected=all")
    assert line.startswith("expected=all: ")


def test_ctrl_c_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    for kind in ("blurry", "sharp"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        Image.fromarray(noise).save(tmp_path / "data" / kind / "0.png", compress_level=1)
        for number in range(1, 150):
            (tmp_path / "data" / kind / f"{number}.png").hardlink_to(tmp_path / "data" / kind / "0.png")
    arguments = ("data=folder", "data.root=data", "workers=2")
    running = Running("deblur_lab.data.verify", *arguments, cwd=tmp_path, forked=True)
    running.wait_until((tmp_path / "runs").exists)
    running.send(signal.SIGINT, to_all=True)
    assert running.ended().failed(130) == "stopped by Ctrl-C"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
