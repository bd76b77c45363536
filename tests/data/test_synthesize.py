"""The command that writes synthetic pairs: layouts to the letter, and what it says when it cannot."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deblur_lab import __version__
from deblur_lab.config import configuration_root
from deblur_lab.data.made_up import read_record
from deblur_lab.data.synthesize import _is_abandoned, main
from deblur_lab.data.writers import LAYOUTS, frames
from deblur_lab.errors import MachineError

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"

# All files of three training and two test pairs: sequences of one pair each, an even number of them a split.
FILES = {
    ("folder", "split"): [
        f"{split}/{folder}/{number:06d}.png"
        for split, count in (("train", 3), ("test", 2))
        for folder in ("blurry", "sharp", "mask")
        for number in range(count)
    ],
    ("gopro", "raw"): [
        f"GOPRO_Large/{sequence}/{folder}/000001.png"
        for sequence in (
            "train/GOPR0372_11_00",
            "train/GOPR0373_11_00",
            "train/GOPR0374_11_00",
            "test/GOPR0376_11_00",
            "test/GOPR0377_11_00",
        )
        for folder in ("blur", "blur_gamma", "sharp")
    ],
    ("gopro", "relaid"): [
        f"{split}/{folder}/GOPR{sequence:04d}_11_00-000001.png"
        for split, sequences in (("train", (372, 373, 374)), ("test", (376, 377)))
        for folder in ("input", "target")
        for sequence in sequences
    ],
    ("gopro", "flat"): [
        f"{split}/{folder}/GOPR{sequence:04d}_11_00_001.png"
        for split, sequences in (("train", (372, 373, 374)), ("test", (376, 377)))
        for folder in ("blur", "sharp")
        for sequence in sequences
    ],
    ("hide", "raw"): [
        *(
            f"HIDE_dataset/{folder}/1fromGOPR{video:04d}.MP4.png"
            for folder in ("train", "GT")
            for video in (950, 951, 952)
        ),
        "HIDE_dataset/test/test-close-ups/1fromGOPR0954.MP4.png",
        "HIDE_dataset/test/test-long-shot/1fromGOPR0955.MP4.png",
        "HIDE_dataset/GT/1fromGOPR0954.MP4.png",
        "HIDE_dataset/GT/1fromGOPR0955.MP4.png",
    ],
    ("hide", "relaid"): [
        f"{split}/{folder}/1fromGOPR{video:04d}.MP4.png"
        for split, videos in (("train", (950, 951, 952)), ("test", (954, 955)))
        for folder in ("input", "target")
        for video in videos
    ],
    ("realblur_j", "raw"): [
        *(
            f"{J}/scene00{scene}/{file}"
            for scene in (1, 2, 3, 5, 6)
            for file in ("blur/blur_1.png", "gt/gt_1.png")
        ),
        "RealBlur_J_train_list.txt",
        "RealBlur_J_test_list.txt",
    ],
    ("realblur_r", "raw"): [
        *(
            f"{R}/scene00{scene}/{file}"
            for scene in (1, 2, 3, 5, 6)
            for file in ("blur/blur_1.png", "gt/gt_1.png")
        ),
        "RealBlur_R_train_list.txt",
        "RealBlur_R_test_list.txt",
    ],
    ("reloblur", "raw"): [
        f"{top}/{sequence}/00{ending}.png"
        for sequence in ("train/s01/01", "train/s01/02", "train/s02/01", "test/s03/01", "test/s03/02")
        for top, ending in (("dataset", "_blur"), ("dataset", "_sharp"), ("masks", ""))
    ],
}
for name in ("realblur_j", "realblur_r"):
    FILES[name, "relaid"] = [
        f"{split}/{folder}/scene00{scene}-1.png"
        for split, scenes in (("train", (1, 2, 3)), ("test", (5, 6)))
        for folder in ("input", "target")
        for scene in scenes
    ]


def write(output, layout, *settings):
    """Run the command for a few tiny pairs in this process."""
    typed = [f"output={output}", f"layout={layout}", "train_scenes=3", "test_scenes=2", "size=48x40"]
    typed = [old for old in typed if old.partition("=")[0] not in {new.partition("=")[0] for new in settings}]
    return main([*typed, "num_workers=0", *settings])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_layout_is_tested():
    assert set(FILES) == {(name, variant) for name, variants in LAYOUTS.items() for variant in variants}


@pytest.mark.parametrize(("layout", "variant"), FILES)
def test_a_layout_is_written_to_the_letter(tmp_path, layout, variant, capsys):
    assert write(tmp_path, layout, f"variant={variant}") == 0
    record = str(Path(LAYOUTS[layout][variant].root, "synthetic.json"))
    assert files(tmp_path) == sorted([*FILES[layout, variant], record])
    assert not list(tmp_path.glob(".*"))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("5 pairs written in ")
    assert said[0].endswith(f" s to {tmp_path}")
    for path in tmp_path.rglob("*.png"):
        image = read(path)
        if path.relative_to(tmp_path).parts[0] == "masks" or path.parent.name == "mask":
            assert image.shape == (40, 48)
            assert set(np.unique(image)) == {0, 255}
        elif layout.startswith("realblur"):
            assert 29 < image.shape[0] <= 40  # sizes vary from scene to scene
        else:
            assert image.shape == (40, 48, 3)


def test_sequences_have_several_frames_and_are_in_one_split():
    made = list(frames(9, 4))
    assert [frame.number for frame in made] == [*range(9), *range(4)]
    assert [(frame.sequence, frame.frame) for frame in made[:9]] == [
        (i, j) for i in range(3) for j in range(3)
    ]
    assert [(frame.sequence, frame.frame) for frame in made[9:]] == [(i, j) for i in (4, 5) for j in range(2)]
    paper = list(frames(2103, 1111))
    assert max(frame.frame for frame in paper) < 50


def test_test_sets_alone_need_no_folder_for_the_split(tmp_path, capsys):
    assert write(tmp_path, "hide", "variant=relaid", "train_scenes=0") == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["input", "synthetic.json", "target"]
    assert "deblur_lab.train" not in capsys.readouterr().out


def test_realblur_lists_name_the_sharp_picture_first_and_end_in_a_space(tmp_path):
    write(tmp_path, "realblur_j")
    lines = (tmp_path / "RealBlur_J_test_list.txt").read_text().splitlines(keepends=True)
    assert lines == [f"{J}/scene00{k}/gt/gt_1.png {J}/scene00{k}/blur/blur_1.png \n" for k in (5, 6)]
    for line in (tmp_path / "RealBlur_J_train_list.txt").read_text().splitlines():
        assert all((tmp_path / path).is_file() for path in line.split())


def test_realblur_r_is_dark_and_sizes_vary(tmp_path):
    means = {}
    for letter in "jr":
        write(tmp_path / letter, f"realblur_{letter}", "variant=relaid")
        sharp = [read(path) for path in sorted((tmp_path / letter / "train" / "target").iterdir())]
        means[letter] = np.mean([image.mean() for image in sharp])
        assert len({image.shape for image in sharp}) > 1
    assert means["r"] < 0.5 * means["j"]


def test_gopro_averages_stored_values_and_its_gamma_variant_light(tmp_path):
    write(tmp_path, "gopro", "train_scenes=4", "test_scenes=0")
    differences = []
    for blur in tmp_path.rglob("blur/*.png"):
        in_light, sharp = (blur.parents[1] / folder / blur.name for folder in ("blur_gamma", "sharp"))
        differences.append(float(read(in_light).mean()) - float(read(blur).mean()))
        # Both are blurry pictures of what the sharp one shows.
        for image in (read(blur), read(in_light)):
            assert np.corrcoef(image.ravel(), read(sharp).ravel())[0, 1] > 0.5
    # A mean of light, stored, is at least the mean of what is stored, as the curve is concave.
    assert min(differences) > 0


def test_masks_say_where_pictures_differ(tmp_path):
    write(tmp_path, "reloblur", "size=96x96")
    for mask_path in (tmp_path / "masks").rglob("*.png"):
        place = tmp_path / "dataset" / mask_path.relative_to(tmp_path / "masks").parent
        blurry, sharp = (read(place / f"00_{what}.png").astype(int) for what in ("blur", "sharp"))
        difference, mask = np.abs(blurry - sharp).mean(axis=2), read(mask_path)
        assert difference[mask > 0].mean() > 2 * difference[mask == 0].mean()


def test_the_same_seed_writes_the_same_files_with_and_without_workers(tmp_path):
    write(tmp_path / "alone", "folder")
    # Another process: its workers start afresh, from the module that is run.
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "deblur_lab.data.synthesize",
                f"output={tmp_path / 'two'}",
                "layout=folder",
            ),
            *("train_scenes=3", "test_scenes=2", "size=48x40", "num_workers=2"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    write(tmp_path / "other", "folder", "seed=1")
    assert files(tmp_path / "alone") == files(tmp_path / "two") == files(tmp_path / "other")
    for file in files(tmp_path / "alone"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert any(
        (tmp_path / "alone" / file).read_bytes() != (tmp_path / "other" / file).read_bytes()
        for file in files(tmp_path / "alone")
    )


def test_paths_are_taken_as_typed(tmp_path, capsys):
    output = tmp_path / "my data (a=b) [1]"
    assert write(output, "reloblur") == 0
    assert (output / "dataset").is_dir()
    assert f"data=reloblur 'data.root={output}'" in capsys.readouterr().out


def test_all_that_is_written_can_be_loaded_at_once(tmp_path, capsys):
    choices = {path.stem for path in (configuration_root() / "conf" / "data").glob("*.yaml")}
    assert {layout.data for variants in LAYOUTS.values() for layout in variants.values()} <= choices
    for layout, variants in LAYOUTS.items():
        for name, variant in variants.items():
            output = tmp_path / layout / name
            assert write(output, layout, f"variant={name}", "train_scenes=1", "test_scenes=1") == 0
            root = (output / variant.root).as_posix()
            said = capsys.readouterr().out
            assert (
                f"next: python -m deblur_lab.train model=m2aenet data={variant.data} data.root={root}" in said
            )
    assert write(tmp_path / "alone", "realblur_r", "variant=relaid", "train_scenes=0") == 0
    said = capsys.readouterr().out
    assert write(tmp_path / "untested", "gopro", "test_scenes=0") == 0
    assert "next:" not in capsys.readouterr().out  # a training scores in the end
    assert f"evaluate checkpoint=PATH data=realblur_r data.root={tmp_path / 'alone'}\n" in said


def test_a_record_says_how_it_was_made_up(tmp_path):
    write(tmp_path / "a", "gopro", "train_scenes=4", "seed=3")
    record = read_record(tmp_path / "a/GOPRO_Large")
    assert record == {
        "made_by": "deblur_lab.data.synthesize",
        "version": __version__,
        "data": "gopro",
        "layout": "gopro",
        "variant": "raw",
        "size": [48, 40],
        "seed": 3,
        "holds": ["test", "train"],
        "pairs": {"train": 4, "test": 2},
        "sequences": {
            "train": {"GOPR0372_11_00": 2, "GOPR0373_11_00": 2},
            "test": {"GOPR0374_11_00": 1, "GOPR0375_11_00": 1},
        },
    }
    assert read_record(tmp_path / "a/GOPRO_Large/test") == record
    write(tmp_path / "b", "realblur_j", "test_scenes=0")
    record = read_record(tmp_path / "b")
    assert record["holds"] == [J, "RealBlur_J_train_list.txt"]
    assert (record["pairs"], list(record["sequences"])) == ({"train": 3}, ["train"])


def test_what_a_killed_process_left_is_not_looked_into_on_windows(tmp_path, monkeypatch):
    def kill(pid, number):
        raise AssertionError("on Windows this is Ctrl-C")

    left = tmp_path / f".unfinished-{socket.gethostname()}-1"
    monkeypatch.setattr("deblur_lab.data.synthesize.os", SimpleNamespace(name="nt", kill=kill))
    assert not _is_abandoned(left)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["outptu=x", "layout=gopro"], "there is no setting 'outptu': did you mean output=...?"),
        (["--layout=gopro"], "there is no setting '--layout': did you mean layout=...?"),
        (["zzz=1"], "there is no setting 'zzz': there are output, layout, variant"),
        (["output=x"], "layout is not set"),
        (["layout=gopro"], "output is not set"),
        (["output=", "layout=gopro"], "output has no value"),
        (["output=x", "output=y", "layout=gopro"], "output is given twice: as 'x' and as 'y'"),
        (["output=x", "layout=gpro"], "layout=gpro does not exist: did you mean layout=gopro?"),
        (["output=x", "layout=hide", "variant=flat"], "variant=flat does not exist: there are raw, relaid"),
        (["output=x", "layout=gopro", "train_scenes=-1"], "train_scenes=-1 must be a whole number"),
        (["output=x", "layout=gopro", "seed=1.5"], "seed=1.5 must be a whole number"),
        (["output=x", "layout=gopro", "size=320"], "size=320 must be WIDTHxHEIGHT"),
        (["output=x", "layout=gopro", "size=320x8"], "size=320x8 is too small"),
        (["output=x", "layout=gopro", "train_scenes=0", "test_scenes=0"], "leave nothing to write"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, typed, said):
    monkeypatch.chdir(tmp_path)
    assert main(typed) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert [line for line in error.splitlines()[1:] if not line.startswith("       ")] == []
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_are_told_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["otput=x", "layout=gpro", "size=x", "seed=-1", "zzz=3", "train_scenes="]) == 2
    assert [line.removeprefix("error: ").strip() for line in capsys.readouterr().err.splitlines()] == [
        "there is no setting 'otput': did you mean output=...?",
        "there is no setting 'zzz': there are output, layout, variant, train_scenes, test_scenes, size, "
        "seed, num_workers",
        "train_scenes has no value: give it as train_scenes=...",
        "size=x must be WIDTHxHEIGHT in pixels, as in size=480x320",
        "seed=-1 must be a whole number, 0 or more",
        f"layout=gpro does not exist: did you mean layout=gopro? there are {', '.join(LAYOUTS)}",
    ]


@pytest.mark.parametrize(
    ("size", "patch"), [("480x320", None), ("300x250", "240"), ("96x80", "80"), ("40x33", "32")]
)
def test_the_command_that_comes_next_fits_the_pictures(tmp_path, capsys, size, patch):
    typed = [f"output={tmp_path}", "layout=folder", "train_scenes=1", "test_scenes=1", f"size={size}"]
    assert main([*typed, "num_workers=0"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    given = dict(argument.split("=", 1) for argument in shlex.split(line)[4:])
    assert given.pop("data.patch_size", None) == patch
    assert given == {"model": "m2aenet", "data": "folder", "data.root": str(tmp_path)}


def test_a_folder_that_holds_something_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert write(tmp_path, "gopro") == 2
    assert "is not empty ('thesis.txt' is in it)" in capsys.readouterr().err
    assert files(tmp_path) == ["thesis.txt"]


def test_an_output_that_cannot_be_a_folder_is_exit_code_5(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert write(tmp_path / "file" / "below", "gopro") == 5
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_left_where_a_picture_cannot_be_written(tmp_path, monkeypatch, capsys):
    def full(path, picture):
        if path.name == "000001.png" and path.parent.name == "sharp":
            raise MachineError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr("deblur_lab.data.synthesize.write_png", full)
    assert write(tmp_path, "folder") == 5
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def command(output):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "deblur_lab.data.synthesize", f"output={output}", "layout=folder"),
            *("train_scenes=5000", "num_workers=1", "size=64x64"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_pictures(output, process):
    for _ in range(600):
        if next(output.rglob("*.png"), None):
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("no picture was written")


@pytest.mark.parametrize(("number", "name", "code"), [(2, "Ctrl-C", 130), (15, "SIGTERM", 143)])
def test_a_signal_leaves_no_new_folder(tmp_path, number, name, code):
    process = command(tmp_path / "new")
    wait_for_pictures(tmp_path, process)
    process.send_signal(number)
    assert process.communicate()[1] == f"error: stopped by {name}; nothing is left behind\n"
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_sigterm_leaves_an_empty_folder_and_sigkill_one_that_is_cleaned(tmp_path):
    process = command(tmp_path)
    wait_for_pictures(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1] == "error: stopped by SIGTERM; nothing is left behind\n"
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []

    process = command(tmp_path)
    wait_for_pictures(tmp_path, process)
    process.kill()
    process.communicate()  # ends when the worker, too, has gone and let go of the pipe
    assert [path.name.startswith(".unfinished-") for path in tmp_path.iterdir()] == [True]
    assert write(tmp_path, "gopro") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["GOPRO_Large"]


def test_help_does_not_wait_for_what_is_slow_to_load():
    script = (
        "import sys\n"
        "from deblur_lab.data.synthesize import main\n"
        "assert main(['--help']) == 0\n"
        "print(sorted({'torch', 'lightning', 'hydra', 'rich'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    ).stdout.splitlines()
    assert printed[-1] == "[]"
    assert all(f"  {key}=" in "\n".join(printed) for key in ("output", "layout", "size", "num_workers"))
    assert max(map(len, printed)) <= 130


@pytest.mark.parametrize(("layout", "variant"), FILES)
def test_what_is_written_is_what_the_loaders_read(tmp_path, layout, variant):
    from deblur_lab.data.sources import HIDE, Folder, GoPro, RealBlur, ReLoBlur

    builds = {
        "folder": Folder,
        "gopro": GoPro,
        "hide": HIDE,
        "realblur_j": partial(RealBlur, kind="j"),
        "realblur_r": partial(RealBlur, kind="r"),
        "reloblur": ReLoBlur,
    }
    write(tmp_path, layout, f"variant={variant}")
    root = tmp_path / LAYOUTS[layout][variant].root
    record = read_record(root)
    # The folder itself, the one above it, and the layout by its name.
    for given, forced in ((root, "auto"), (tmp_path, "auto"), (root, variant)):
        data = builds[layout](given, None, layout=forced)
        assert (data.name, data.splits()) == (layout, ("train", "test"))
        for split, count in (("train", 3), ("test", 2)):
            scenes = data.scenes(split)
            assert (len(scenes), scenes.faults) == (count, ())
            assert (scenes.layout, scenes.root, scenes.made_up) == (variant, root, True)
            assert sum(record["sequences"][split].values()) in (0, count)
            names = [scenes.name(index) for index in range(count)]
            assert all(any(part in name for name in names) for part in record["sequences"][split])
    scene = scenes.load(0)
    assert scene.blurry.shape == scene.sharp.shape
    assert scene.mask is not None
    assert scenes.masks_from == {"folder": "mask", "reloblur": "masks"}.get(layout)


@pytest.mark.parametrize("layout", ["hide", "realblur_j", "realblur_r"])
def test_a_test_set_alone_is_what_the_loaders_read(tmp_path, layout):
    from deblur_lab.data.sources import HIDE, RealBlur

    assert write(tmp_path, layout, "variant=relaid", "train_scenes=0") == 0
    build = HIDE if layout == "hide" else partial(RealBlur, kind=layout[-1])
    data = build(tmp_path, None)
    assert (data.splits(), data.scenes("test").layout, len(data.scenes("test"))) == (("test",), "relaid", 2)
