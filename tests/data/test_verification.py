"""Faults planted in sound datasets, each found as what it is and nothing else."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from deblur_lab.config import configuration_root
from deblur_lab.data.layouts import Fault, FaultKind
from deblur_lab.data.sources import HIDE, Folder, GoPro, RealBlur, ReLoBlur
from deblur_lab.data.synthesize import Settings, synthesize
from deblur_lab.data.verification import verify_source
from deblur_lab.data.verifying.findings import KINDS
from deblur_lab.data.verifying.listings import Listed, layout_findings
from deblur_lab.data.verifying.report import Verified, record_of
from deblur_lab.data.writers import LAYOUTS
from tests.data.planted_faults import (
    FAULTS,
    RELAID,
    RELOBLUR_MASK,
    WARNINGS,
    J,
    flip_a_bit,
    gamma_for_blur,
    pixels,
    redrawn,
    spoil,
)

SOURCES = {
    "folder": Folder,
    "gopro": GoPro,
    "hide": HIDE,
    "realblur_j": lambda root, protocol: RealBlur(root, protocol, kind="j"),
    "realblur_r": lambda root, protocol: RealBlur(root, protocol, kind="r"),
    "reloblur": ReLoBlur,
}
WRITTEN = [(name, variant) for name, variants in LAYOUTS.items() for variant in variants]
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Callable[[str, str], Path]:
    """A sound dataset in a layout, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("sound")

    def write(name: str, variant: str) -> Path:
        output = folder / f"{name}-{variant}"
        if not output.exists():
            synthesize(
                Settings(
                    output, name, variant, train_scenes=6, test_scenes=6, size_px=(96, 80), num_workers=0
                )
            )
        return output

    return write


@pytest.fixture
def copy(sound, tmp_path) -> Callable[[str, str], Path]:
    """A copy of one, to spoil."""

    def copied(name: str, variant: str) -> Path:
        return Path(shutil.copytree(sound(name, variant), tmp_path / "data"))

    return copied


def look(name: str, root: Path, **how: object) -> Verified:
    return verify_source(SOURCES[name](root, None), workers=1, **how)


def kinds(verified: Verified) -> set[str]:
    return {finding.kind for finding in verified.findings}


@pytest.mark.parametrize(("name", "variant"), WRITTEN)
def test_a_sound_dataset_is_sound_in_each_of_its_layouts(sound, name, variant):
    verified = look(name, sound(name, variant))
    assert verified.findings == ()
    assert verified.made_up
    assert record_of(verified)["sound"]
    assert {split: len(verified.of_split(split)) for split in ("train", "test")} == {"train": 6, "test": 6}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_as_what_it_is(copy, name):
    dataset, variant, plant, expected, only_file = FAULTS[name]
    root = copy(dataset, variant)
    plant(root)
    verified = look(dataset, root)
    assert kinds(verified) == expected, verified.findings
    assert verified.warnings == ()
    record = record_of(verified)
    assert not record["sound"]
    for fault in record["faults"]:
        assert "\n" not in fault["found"]
        assert fault["expected"]
        assert fault["advice"]
    if only_file is not None:
        assert [fault["files"] for fault in record["faults"]] == [[only_file]]


@pytest.mark.parametrize("name", WARNINGS)
def test_what_may_be_all_right_is_a_warning(copy, name):
    dataset, variant, plant, expected = WARNINGS[name]
    root = copy(dataset, variant)
    plant(root)
    verified = look(dataset, root)
    assert verified.faults == ()
    assert kinds(verified) == expected


def test_every_kind_is_planted_somewhere():
    planted = set().union(*(case[3] for case in (*FAULTS.values(), *WARNINGS.values())))
    # Those of whole sets, and of parts of them (test_verified_parts.py).
    assert planted | {"wrong_size", "wrong_variant", "brightness_differs", "mask_large"} == KINDS.keys()


def test_every_fault_of_a_layout_is_of_a_kind_that_is_told():
    assert set(get_args(FaultKind)) <= KINDS.keys()
    faults = tuple(Fault(f"a {kind} fault", kind) for kind in get_args(FaultKind))
    findings = layout_findings([Listed("train", (), faults), Listed("test", (), faults)])
    assert [(finding.kind, finding.found, finding.split) for finding in findings] == [
        (fault.kind, fault, "train") for fault in faults
    ]
    assert all(finding.expected for finding in findings)


# RealBlur's two kinds


@pytest.mark.parametrize(("kind", "other"), [("realblur_j", "realblur_r"), ("realblur_r", "realblur_j")])
def test_realblur_j_and_r_are_told_by_how_dark_they_are(copy, kind, other):
    root = copy(other, "relaid")
    assert kinds(look(kind, root)) == {"wrong_variant"}


def test_a_realblur_folder_with_the_others_name_is_told_by_that(copy):
    root = copy("realblur_j", "raw")
    (root / J).rename(root / R)
    (fault,) = look("realblur_j", root / R, expected="any").findings
    assert (fault.kind, fault.expected) == ("wrong_variant", "the folder of the dataset that was named")
    assert fault.found == (
        f"{root / R} is called as RealBlur-R is, but data=realblur_j reads RealBlur-J: choose data=realblur_r"
    )


def test_realblur_folders_with_each_others_names_are_told_by_comparing_them(sound, tmp_path):
    shutil.copytree(sound("realblur_j", "raw") / J, tmp_path / R)
    shutil.copytree(sound("realblur_r", "raw") / R, tmp_path / J)
    for name, folder in (("realblur_j", "realblur_j"), ("realblur_r", "realblur_r")):
        for path in sound(folder, "raw").glob("*.txt"):
            shutil.copy(path, tmp_path)
        found = [finding for finding in look(name, tmp_path).findings if finding.kind == "wrong_variant"]
        assert [fault.split for fault in found] == ["train", "test"]
        for fault in found:
            assert (
                f"{'darker' if name == 'realblur_j' else 'brighter'} than those of the other" in fault.found
            )


def test_the_other_realblur_beside_it_is_no_fault(sound, copy):
    root = copy("realblur_j", "raw")
    shutil.copytree(sound("realblur_r", "raw") / R, root / R)
    assert look("realblur_j", root).findings == ()


# What it is held against


def test_what_is_no_made_up_set_is_held_against_the_published_numbers(copy):
    root = copy("gopro", "relaid")
    (root / "synthetic.json").unlink()
    verified = look("gopro", root)
    assert not verified.made_up
    assert kinds(verified) == {"pairs", "sequences", "wrong_size"}
    found = {(finding.kind, finding.split): finding for finding in reversed(verified.findings)}
    assert (found["pairs", "train"].found, found["pairs", "train"].expected) == (
        "train has 6 pairs",
        "2103 pairs",
    )
    assert found["sequences", "test"].found.startswith("test lacks GOPR0384_11_00, GOPR0384_11_05, ")
    assert found["wrong_size", "test"].expected == "1280 x 720"
    assert len(found["wrong_size", "test"].files) == 6
    assert look("gopro", root, expected="any").findings == ()
    assert {finding.split for finding in look("gopro", root, expected="test").findings if finding.split} == {
        "test",
        "train",
    }
    shutil.rmtree(root / "train")
    assert "split_missing" in kinds(look("gopro", root))
    assert "split_missing" not in kinds(look("gopro", root, expected="test"))


def test_a_published_test_sequence_is_known_wherever_it_lies(copy):
    root = copy("gopro", "relaid")
    (root / "synthetic.json").unlink()
    for kind in ("input", "target"):
        path = root / RELAID.format(kind)
        path.rename(path.with_name("GOPR0410_11_00-000001.png"))
    (fault,) = [
        finding
        for finding in look("gopro", root, expected="any").findings
        if finding.kind == "sequence_in_both"
    ]
    assert fault.found == "train has 1 pairs of GOPR0410_11_00, a test sequence"


def test_names_of_another_dataset_are_told_with_its_name(copy):
    root = copy("gopro", "relaid")
    plant = FAULTS["HIDE in GoPro's place"][2]
    plant(root)
    (fault, _) = look("gopro", root).faults
    assert fault.found == (
        "train has 6 pairs whose names tell no sequence of GoPro: they look like those of HIDE; "
        f"{root}/train/input/1fromGOPR0950.MP4.png, say"
    )
    assert "data=hide" in fault.what_to_do


def test_raw_gopro_with_blur_gamma_alone_is_told_in_one_line(copy):
    root = copy("gopro", "raw")
    FAULTS["blur_gamma without blur"][2](root)
    (fault,) = look("gopro", root).faults
    assert fault.found == (
        f"{root}/GOPRO_Large: only blur_gamma is here: fetch blur, or say data.blur=blur_gamma"
    )
    assert verify_source(GoPro(root, None, blur="blur_gamma"), blur="blur_gamma", workers=1).findings == ()
    # Of one split alone.
    for sequence in (root / "GOPRO_Large/test").iterdir():
        shutil.copytree(sequence / "blur_gamma", sequence / "blur")
    assert str(GoPro(root, None).scenes("train").faults[0]).startswith(
        f"{root}/GOPRO_Large/train: only blur_"
    )
    assert GoPro(root, None).scenes("test").faults == ()


def test_blur_gamma_that_is_asked_for_is_no_fault(copy):
    root = copy("gopro", "raw")
    source = GoPro(root, None, blur="blur_gamma")
    assert verify_source(source, blur="blur_gamma", workers=1).findings == ()
    gamma_for_blur(root)
    source = GoPro(root, None, blur="blur_gamma")
    assert kinds(verify_source(source, blur="blur_gamma", workers=1)) == {"averaging"}


def test_masks_have_a_fingerprint_of_their_content_alone(copy):
    root = copy("reloblur", "raw")
    first = record_of(look("reloblur", root))["masks"]
    assert (first["folder"], first["count"]) == ("masks", 12)
    assert 0 < first["mean_blurred_share"] < 1
    redrawn(RELOBLUR_MASK, lambda mask: mask, compress_level=0)(root)
    assert record_of(look("reloblur", root))["masks"] == first
    redrawn(RELOBLUR_MASK, lambda mask: np.roll(mask, 8, axis=1))(root)
    other = record_of(look("reloblur", root))["masks"]
    assert other["fingerprint"] != first["fingerprint"]
    assert other["mean_blurred_share"] == first["mean_blurred_share"]


def test_pictures_that_are_shared_on_purpose_are_no_duplicates(copy, tmp_path):
    root = copy("folder", "split")
    unsplit = tmp_path / "unsplit"
    shutil.copytree(root / "train", unsplit)
    source = Folder(unsplit, None, holdout_every=None)
    assert verify_source(source, workers=1).findings == ()


def test_processes_find_what_one_finds(copy):
    root = copy("reloblur", "raw")
    spoil(root / RELOBLUR_MASK, flip_a_bit)
    source = ReLoBlur(root, None)
    records = [
        json.dumps(record_of(verify_source(source, workers=workers)), sort_keys=True) for workers in (1, 2)
    ]
    assert records[0] == records[1]


def test_the_example_of_a_bit_is_one_that_decoders_may_pass_over(copy):
    # As where the pixels decode, and are others: checksums alone tell.
    root = copy("reloblur", "raw")
    before = pixels(root / RELOBLUR_MASK)
    spoil(root / RELOBLUR_MASK, lambda whole: whole[:-16] + os.urandom(4) + whole[-12:])
    assert (pixels(root / RELOBLUR_MASK) == before).all()
    assert kinds(look("reloblur", root)) == {"checksum"}


def test_the_page_says_what_each_kind_means():
    page = configuration_root() / "docs" / "verify.md"
    rows = re.findall(r"^\| `(\w+)` \| (\*warning\*)?", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [kind for kind, _ in rows if kind in KINDS] == list(KINDS)
    always_warn = {kind for kind, warns in rows if warns}
    assert always_warn == {"names_alike", "not_rgb", "hardly_blurred", "same_target", "mask_large"}
