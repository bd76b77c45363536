"""Datasets of which a part is not what the rest is: a split, a scene, a folder, some pairs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deblur_lab.data.sources import HIDE, GoPro, RealBlur, ReLoBlur
from deblur_lab.data.synthesize import Settings, synthesize
from deblur_lab.data.verification import verify_source
from deblur_lab.data.verifying.findings import Finding
from deblur_lab.data.verifying.report import Verified, print_verified, record_of
from deblur_lab.errors import DataError
from tests.data.planted_faults import exchange, pixels, save

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A sound dataset in a layout, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("sound")

    def write(name: str, variant: str) -> Path:
        output = folder / f"{name}-{variant}"
        if not output.exists():
            scenes = 30 if name == "gopro" else 6
            synthesize(
                Settings(
                    output, name, variant, train_scenes=scenes, test_scenes=6, size_px=(96, 80), num_workers=0
                )
            )
        return output

    return write


@pytest.fixture
def copy(sound: Callable[[str, str], Path], tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of one, to spoil."""
    return lambda name, variant: Path(shutil.copytree(sound(name, variant), tmp_path / "data"))


def realblur(root: Path, kind: str) -> Verified:
    return verify_source(RealBlur(root, None, kind=kind), workers=1)


def gopro(root: Path, **how: object) -> Verified:
    return verify_source(GoPro(root, None), workers=1, **how)


def only(verified: Verified) -> Finding:
    (finding,) = verified.findings
    return finding


# RealBlur's two kinds


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("kind", "other"), [("j", "r"), ("r", "j")])
def test_a_split_of_the_other_kind_is_told_whatever_the_rest_is(sound, copy, kind, other, split):
    root = copy(f"realblur_{kind}", "relaid")
    shutil.rmtree(root / split)
    shutil.copytree(sound(f"realblur_{other}", "relaid") / split, root / split)
    fault = only(realblur(root, kind))
    assert (fault.kind, fault.split, fault.is_fault) == ("wrong_variant", split, True)


@pytest.mark.parametrize(("kind", "other"), [("j", "r"), ("r", "j")])
def test_a_scene_of_the_other_kind_is_a_warning(sound, copy, kind, other):
    root = copy(f"realblur_{kind}", "relaid")
    for path in (sound(f"realblur_{other}", "relaid") / "train").glob("*/scene001*"):
        shutil.copy(path, root / "train" / path.parent.name)
    warning = only(realblur(root, kind))
    assert (warning.kind, warning.split, warning.is_fault) == ("wrong_variant", "train", False)
    assert "all pictures of scene001 look like" in warning.found
    assert len(warning.files) == 2


def test_a_dark_scene_of_a_dark_set_is_all_right(copy):
    root = copy("realblur_j", "relaid")
    for path in root.glob("*/*/*.png"):
        share = 0.25 if "scene001" in path.name else 0.45
        save(path, (pixels(path) * share).astype(np.uint8))
    assert realblur(root, "j").findings == ()


def test_pairs_of_both_kinds_differ_in_brightness(sound, copy):
    root = copy("realblur_j", "relaid")
    other = sound("realblur_r", "relaid")
    shutil.copy(other / "train/input/scene001-1.png", root / "train/input/scene001-1.png")
    warning = only(realblur(root, "j"))
    assert (warning.kind, warning.split, warning.is_fault) == ("brightness_differs", "train", False)
    shutil.rmtree(root / "train/input")
    shutil.copytree(other / "train/input", root / "train/input")
    fault = only(realblur(root, "j"))
    assert (fault.kind, fault.split, fault.is_fault) == ("brightness_differs", "train", True)
    assert "6 of 6 pairs differ in brightness" in fault.found


# blur and blur_gamma


def test_sequences_whose_folders_are_exchanged_are_told_where_both_lie(copy):
    root = copy("gopro", "raw")
    sequence = sorted((root / "GOPRO_Large/train").iterdir())[1]
    exchange(sequence / "blur", sequence / "blur_gamma")
    fault = only(gopro(root))
    assert (fault.kind, fault.split, fault.is_fault) == ("averaging", "train", True)
    assert f"of 30 pairs ({sequence.name})" in fault.found
    assert {path.parent.parent for path in fault.files} == {sequence}
    assert "exchange" in fault.what_to_do
    exchange(sequence / "blur", sequence / "blur_gamma")
    picture = sorted((sequence / "blur").iterdir())[0]
    exchange(picture, sequence / "blur_gamma" / picture.name)
    fault = only(gopro(root))
    assert fault.files == (picture,)
    exchange(picture, sequence / "blur_gamma" / picture.name)
    shutil.rmtree(sequence / "blur")
    shutil.copytree(sequence / "blur_gamma", sequence / "blur")
    fault = only(gopro(root))
    assert f"in {sequence.name} blur and blur_gamma hold the same pictures" in fault.found


def gamma_into(root: Path, raw: Path, sequences: list[str]) -> None:
    """Put blur_gamma's pictures of some sequences into a relaid copy."""
    for name in sequences:
        for path in (raw / "GOPRO_Large/train" / name / "blur_gamma").iterdir():
            shutil.copy(path, root / "train/input" / f"{name}-{path.name}")


def test_sequences_of_the_other_average_are_told_by_their_names(sound, copy):
    root, raw = copy("gopro", "relaid"), sound("gopro", "raw")
    names = sorted(path.name for path in (raw / "GOPRO_Large/train").iterdir())
    gamma_into(root, raw, names[1:2])
    (fault, *others) = gopro(root).findings
    assert not others
    assert (fault.kind, fault.split) == ("averaging", "train")
    assert names[1] in fault.found
    assert {path.name.rpartition("-")[0] for path in fault.files} == {names[1]}
    # All of it, and what is said works in this layout.
    gamma_into(root, raw, names)
    fault = only(gopro(root))
    assert fault.is_fault
    assert "say data.blur" not in fault.what_to_do
    assert "in the published layout alone" in fault.what_to_do


def test_what_is_not_certain_is_a_warning_and_never_plainly_sound(sound, copy, capsys):
    root, raw = copy("gopro", "relaid"), sound("gopro", "raw")
    for number, path in enumerate(sorted((raw / "GOPRO_Large/train").glob("*/blur_gamma/*"))):
        if number % 2:
            shutil.copy(path, root / "train/input" / f"{path.parent.parent.name}-{path.name}")
    verified = gopro(root)
    assert {(found.kind, found.split, found.is_fault) for found in verified.findings} == {
        ("averaging", "train", False)
    }
    print_verified(verified)
    lines = capsys.readouterr().out.splitlines()
    assert any("is not certain" in line for line in lines)
    assert "gopro is sound, but for 1 warning(s): look at them" in lines


# Folders under other names


@pytest.mark.parametrize(
    ("variant", "before", "after", "told"),
    [
        (
            "relaid",
            "train/input",
            "train/Input",
            "train/ holds Input, target, but no pairs: is Input meant to be input?",
        ),
        ("raw", "GOPRO_Large/train", "GOPRO_Large/training", "is training meant to be train?"),
        ("relaid", "test", "Test", "Test/ holds input, target, but no pairs: is Test meant to be test?"),
    ],
)
@pytest.mark.parametrize("expected", ["any", "published"])
def test_a_renamed_folder_is_a_fault_that_says_so(copy, variant, before, after, told, expected):
    root = copy("gopro", variant)
    (root / before).rename(root / after)
    fault = only(gopro(root, expected=expected))
    assert (fault.kind, fault.is_fault) == ("split_missing", True)
    assert told in fault.found
    assert "remove" not in fault.what_to_do


def test_strays_are_moved_and_never_removed(copy):
    root = copy("gopro", "relaid")
    shutil.copytree(root / "train/input", root / "train/more")
    warning = only(gopro(root, expected="any"))
    assert warning.kind == "extra"
    assert "move it away" in warning.what_to_do
    assert "remove" not in warning.what_to_do


SOURCES = {"gopro": GoPro, "hide": HIDE, "reloblur": ReLoBlur}


@pytest.mark.parametrize(
    ("name", "before", "after", "given", "told"),
    [
        (
            "hide",
            "HIDE_dataset/GT",
            "HIDE_dataset/gt",
            "",
            "HIDE_dataset in it holds gt, synthetic.json, test, train: is gt meant to be GT?",
        ),
        ("hide", "HIDE_dataset/GT", "HIDE_dataset/gt", "HIDE_dataset", "is gt meant to be GT?"),
        ("reloblur", "dataset", "Dataset", "", "is Dataset meant to be dataset?"),
        ("reloblur", "", "", "dataset", "give its parent, data.root={root}"),
        ("reloblur", "", "", "dataset/train", "give its parent, data.root={root}"),
        ("gopro", "", "", "GOPRO_Large/train", "give its parent, data.root={root}/GOPRO_Large"),
    ],
)
def test_a_layout_that_is_not_found_says_what_may_be_meant(copy, name, before, after, given, told):
    root = copy(name, "raw")
    if before:
        (root / before).rename(root / after)
    with pytest.raises(DataError) as caught:
        SOURCES[name](root / given, None).splits()
    assert told.format(root=root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_inside_the_inner_one_are_looked_at(copy):
    root = copy("reloblur", "raw")
    for split in ("train", "test"):
        (root / "dataset" / split).rename(root / "dataset" / f"{split}ing")
    with pytest.raises(DataError, match=r"is testing meant to be test\? and is training meant to be train\?"):
        ReLoBlur(root, None).splits()


def test_a_folder_of_something_else_is_given_no_advice(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError) as caught:
        GoPro(tmp_path, None).splits()
    assert str(caught.value).endswith("it holds notes")


# Masks


def test_an_inverted_mask_is_a_warning(copy):
    root = copy("reloblur", "raw")
    path = root / "masks/train/s01/02/00.png"
    mask = pixels(path)
    save(path, np.where(mask == 0, mask.max(), 0).astype(mask.dtype))
    warning = only(verify_source(ReLoBlur(root, None), workers=1))
    assert (warning.kind, warning.is_fault, warning.files) == ("mask_large", False, (path,))


# What is shown


def test_without_counts_to_expect_their_columns_are_left_out(sound, capsys):
    for expected, shown in (("any", 0), ("published", 2)):
        print_verified(gopro(sound("gopro", "relaid"), expected=expected))
        lines = capsys.readouterr().out.splitlines()
        (titles,) = [line for line in lines if "sequences" in line]
        assert titles.count("expected") == shown


def test_pairs_from_video_are_a_persons_own(copy, capsys):
    root = copy("gopro", "raw") / "GOPRO_Large"
    (root / "synthetic.json").unlink()
    (root / "from_video.json").write_text(json.dumps({}))
    for number, sequence in enumerate(sorted(root.glob("*/*"))):
        sequence.rename(sequence.with_name(f"my clip {number}"))
    verified = gopro(root)
    assert verified.findings == ()
    assert record_of(verified)["from_video"]
    assert len(record_of(verified)["splits"]["train"]["sequences"]) > 1
    print_verified(verified)
    said = capsys.readouterr().out
    assert "(layout raw, pairs from video)" in said
    assert "of which no published counts or sizes are expected" in said
    # What is wrong with such pairs is told as of others.
    sequence = sorted((root / "train").iterdir())[0]
    exchange(sequence / "blur", sequence / "blur_gamma")
    assert only(gopro(root)).kind == "averaging"
