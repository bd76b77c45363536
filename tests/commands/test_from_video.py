"""Pairs from video, through the command line."""

import json
import shlex
import signal

import numpy as np
import pytest

from deblur_lab.images import read_rgb
from tests.commands.processes import TINY, Running, forked, python_m
from tests.data.films import pan, view, write_film

FROM_VIDEO = "deblur_lab.data.from_video"


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def record_of(folder):
    return json.loads((folder / "from_video.json").read_text(encoding="utf-8"))


@pytest.fixture
def clips(tmp_path):
    """Two lossless clips under names that people give: one with a cut and a still stretch, one that pans."""
    folder = tmp_path / "my clips = [240 fps]"
    (folder / "100GOPRO").mkdir(parents=True)
    first = [*pan(24), *[view(43)] * 10, *pan(24, photo="coffee", start=150)]
    write_film(folder / "100GOPRO" / "GX01 è.v2.MKV", first)
    write_film(folder / "GX02.mkv", pan(16, 2.0, photo="chelsea"))
    (folder / "GX02.THM").write_text("no video")
    return folder


def test_clips_become_gopro_sequences_that_are_trained_on_at_once(tmp_path, clips):
    out = tmp_path / "my pairs"
    ended = forked(
        FROM_VIDEO, f"input={clips}", f"output={out}", "frames=5", "test_share=0.5", "seed=1", cwd=tmp_path
    ).succeeded()
    assert ended.stderr == ""
    record = record_of(out)
    assert record["finished"] is True
    by_name = {clip["sequence"]: clip for clip in record["clips"]}
    cut, panned = by_name["GX01 è.v2"], by_name["GX02"]
    # Windows begin at 0, 5, 10, 15; at 20, which runs into what stands still from 23 on; at 25; and behind
    # the cut, at 34, 39, 44, 49.
    assert (cut["pairs"], cut["breaks"]) == (8, {"cuts": 1})
    assert cut["left_out"] == {"repeated frames": 1, "still": 1}
    assert (panned["pairs"], panned["left_out"], panned["breaks"]) == (3, {}, {})
    assert {cut["split"], panned["split"]} == {"train", "test"}
    pairs = {clip["split"]: clip["pairs"] for clip in record["clips"]}
    assert f"{pairs['train']} pairs for training and {pairs['test']} for testing" in ended.stdout

    pictures = pan(16, 2.0, photo="chelsea")
    folder = out / panned["split"] / "GX02"
    names = ["000002.png", "000007.png", "000012.png"]
    assert files_below(folder) == sorted(
        ["pairs.json", *(f"{kind}/{name}" for kind in ("blur", "blur_gamma", "sharp") for name in names)]
    )
    made = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))["pairs"]
    assert [(pair["name"], pair["frames"], pair["averaged"]) for pair in made] == [
        (name, [first, first + 4], 5) for name, first in zip(names, (0, 5, 10), strict=True)
    ]
    for name, first in zip(names, (0, 5, 10), strict=True):
        window = np.stack(pictures[first : first + 5])
        np.testing.assert_array_equal(read_rgb(folder / "sharp" / name), window[2])
        np.testing.assert_array_equal(read_rgb(folder / "blur" / name), np.rint(window.mean(0)))
        light = ((window / 255) ** 2.2).mean(0)
        np.testing.assert_array_equal(
            read_rgb(folder / "blur_gamma" / name), np.rint(255 * light ** (1 / 2.2))
        )

    told = shlex.split(ended.stdout.split("next: python -m ")[1])
    assert told[:3] == ["deblur_lab.train", "model=m2aenet", "data=gopro"]
    trained = forked(
        told[0], *told[1:], *TINY, "trainer.max_steps=2", "evaluate=false", "output=run", cwd=tmp_path
    ).succeeded()
    assert f"gopro: {pairs['train']} train, " in trained.stdout
    assert f", {pairs['test']} test, " in trained.stdout
    seen = forked("deblur_lab.data.verify", "data=gopro", f"data.root={out}", "output=seen", cwd=tmp_path)
    assert f"gopro in {out} (layout raw, pairs from video)" in seen.succeeded().stdout
    assert "gopro is sound" in seen.stdout


def test_the_same_command_goes_on_and_another_is_refused(tmp_path, clips):
    typed = (f"input={clips}", "output=out", "frames=5", "averages=blur", "size=80x48", "max_pairs=2")
    forked(FROM_VIDEO, *typed, cwd=tmp_path).succeeded()
    out = tmp_path / "out"
    before = {name: (out / name).stat().st_mtime_ns for name in files_below(out)}
    assert read_rgb(next(out.glob("*/GX02/blur/*.png"))).shape == (48, 80, 3)
    assert not list(out.glob("*/*/blur_gamma"))

    # One sequence is lost, and a call that was killed has left another half done.
    lost = next(path for path in out.glob("*/GX02"))
    for path in sorted(lost.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (out / ".unfinished-1" / "sharp").mkdir(parents=True)
    ended = forked(FROM_VIDEO, *typed, cwd=tmp_path).succeeded()
    assert ended.stdout.count("(kept)") == 1
    assert not list(out.glob(".*"))
    after = {name: (out / name).stat().st_mtime_ns for name in files_below(out)}
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name for name in after if "GX02" in name} | {"from_video.json"}

    told = forked(FROM_VIDEO, *typed, "frames=7", "seed=2", cwd=tmp_path).failed(2)
    assert told.startswith("output=out was made with other settings or files (frames, seed differ)")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    told = forked(FROM_VIDEO, *typed, "output=other", cwd=tmp_path).failed(2)
    assert told == "output=other is not empty ('thesis.txt' is in it): give an empty or a new folder"


def test_one_clip_is_divided_in_time(tmp_path):
    write_film(tmp_path / "a.mkv", pan(60, 1.0, start=0), rate=30)
    ended = forked(
        FROM_VIDEO, "input=a.mkv", "output=out", "frames=3", "averages=blur_gamma", "test_share=0.5",
        "gap_s=0.5", cwd=tmp_path,
    ).succeeded()  # fmt: skip
    frames = {
        split: [int(path.stem) for path in sorted((tmp_path / "out").glob(f"{split}/a_part*/sharp/*.png"))]
        for split in ("train", "test")
    }
    assert frames["train"][0] == 1
    assert frames["test"][0] - frames["train"][-1] > 15
    assert (
        "one clip, divided in time: 0.00 to 0.75 s for training, 1.25 to 2.00 s for the test" in ended.stdout
    )
    assert "data.blur=blur_gamma" in ended.stdout
    assert not list((tmp_path / "out").glob("*/*/blur"))


def test_steps_that_show_are_told(tmp_path):
    write_film(tmp_path / "a.mkv", pan(10, 5.0))
    typed = ("input=a.mkv", "frames=5", "test_share=0")
    ended = forked(FROM_VIDEO, *typed, "output=out", cwd=tmp_path).succeeded()
    assert "2 of 2 pairs move by over 3 px from frame to frame" in ended.stdout
    assert "training needs a test split as well" in ended.stdout
    assert "next:" not in ended.stdout
    ended = forked(FROM_VIDEO, *typed, "max_step_px=3", "output=strict", cwd=tmp_path)
    told = ended.failed(3)
    assert told == "input=a.mkv: no pair could be made; the table says why"
    assert "large steps: 2" in ended.stdout


def test_files_that_are_no_videos_are_all_told_before_anything_is_written(tmp_path, clips):
    (clips / "b.mp4").touch()
    (clips / "c.mov").write_text("no video")
    told = forked(FROM_VIDEO, f"input={clips}", "output=out", cwd=tmp_path).failed(3, more_lines=2)
    assert "2 of 4 files cannot be used, and nothing was written:" in told
    assert "b.mp4: the file is empty (0 bytes)" in told
    assert "c.mov: cannot be read as a video" in told
    assert not (tmp_path / "out").exists()


def test_a_clip_that_is_damaged_within_leaves_nothing_and_the_others_are_made(tmp_path, clips):
    path = write_film(
        clips / "bad.mp4", pan(60), codec="libx264", pixels="yuv420p", options={"crf": "18", "g": "10"}
    )
    contents = bytearray(path.read_bytes())
    start = contents.find(b"mdat")
    half = start + int.from_bytes(contents[start - 4 : start], "big") // 2
    contents[half : half + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(contents)
    told = forked(FROM_VIDEO, f"input={clips}", "output=out", "frames=3", cwd=tmp_path).failed(
        3, more_lines=1
    )
    assert told.startswith("1 of 3 clips failed; the others are in out:")
    assert "bad.mp4" in told
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("*/*")) == ["GX01 è.v2", "GX02"]
    assert record_of(out)["finished"] is False
    assert not list(out.glob(".*"))


def test_ctrl_c_leaves_what_is_finished_alone(tmp_path):
    (tmp_path / "clips").mkdir()
    write_film(tmp_path / "clips" / "a.mkv", pan(10))
    large = [np.kron(picture, np.ones((6, 6, 1), np.uint8)) for picture in pan(60)]
    write_film(tmp_path / "clips" / "b.mkv", large, codec="mpeg4", pixels="yuv420p")
    out = tmp_path / "out"
    running = Running(
        FROM_VIDEO, "input=clips", "output=out", "frames=3", "stride=1", cwd=tmp_path, forked=True
    )
    running.wait_until(lambda: any(out.glob(".unfinished-*/sharp/*.png")) and any(out.glob("*/a")))
    running.send(signal.SIGINT)
    ended = running.ended()
    assert ended.code == 130, ended
    assert "stopped by Ctrl-C" in ended.stderr
    assert "the same command goes on" in ended.stdout
    assert sorted(path.name for path in out.glob("*/*")) == ["a"]
    assert not list(out.glob(".*"))
    assert not (out / "run.lock").exists()


def test_settings_that_cannot_be_are_told_all_at_once(tmp_path):
    wrong = {
        "frames=[7,8]": "frames=[7, 8]: odd numbers are expected, so that one frame is the middle",
        "averages=gamma": "averages=gamma: one of blur, blur_gamma, both is expected",
        "gamma=linear": "gamma=linear: a number or one of srgb is expected",
        "size=720p": "size=720p: WIDTHxHEIGHT in pixels is expected, each from 1 to 65535, as size=2152x1436",
        "end_s=0": "end_s=0: more than 0 is expected",
        "max_motion_px=1.5": "max_motion_px=1.5: more than min_motion_px=2.0 is expected",
        "test_share=1.5": "test_share=1.5: a number from 0 to 1 is expected",
    }
    told = forked(FROM_VIDEO, "input=a.mp4", "output=out", *wrong, cwd=tmp_path).failed(2, more_lines=6)
    assert {line.strip() for line in told.splitlines()} == set(wrong.values())
    wrong = {
        "frames=1": "frames=1: 3 or more is expected",
        "gamma=0": "gamma=0: more than 0 is expected",
        "start_s=3": "end_s=2: more than start_s=3 is expected",
    }
    told = forked(FROM_VIDEO, "input=a.mp4", "output=out", *wrong, "end_s=2", cwd=tmp_path).failed(
        2, more_lines=2
    )
    assert {line.strip() for line in told.splitlines()} == set(wrong.values())


def test_settings_without_effect_and_inputs_that_are_missing_are_told(tmp_path):
    typed = ("input=a.mp4", "output=out")
    told = forked(FROM_VIDEO, *typed, "averages=blur", "gamma=srgb", cwd=tmp_path).failed(2)
    assert told == "gamma=srgb has no effect with averages=blur: leave one out"
    assert forked(FROM_VIDEO, *typed, cwd=tmp_path).failed(3) == "input=a.mp4 does not exist"


def test_help_lists_the_settings(tmp_path):
    ended = python_m(FROM_VIDEO, "--help", cwd=tmp_path).succeeded()
    assert "frames: 11" in ended.stdout
    assert "laid out as GoPro is" in ended.stdout
