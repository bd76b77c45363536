"""What is printed of scores."""

import math
import re

from deblur_lab.console import print_scores


def result(**more):
    return {
        "dataset": "scenes",
        "split": "test",
        "images": 3,
        "protocol": {"name": "local", "description": "as ever"},
        "tlc": False,
        "scores": {"psnr_db": 30.123, "weighted_ssim": math.nan},
        "blurry_scores": {"psnr_db": 29.0, "weighted_ssim": math.nan},
        "left_out": {"psnr_db": 0, "weighted_ssim": 3},
        **more,
    }


def test_scores_alone(capsys):
    print_scores([result(threshold=None, selected_share=None, dilated_share=None)])
    said = capsys.readouterr().out
    assert "│ PSNR (dB)     │  29.00 │    30.12 │ +1.12 │" in said
    assert "mask" not in said.replace("no mask", "")
    assert "end-point" not in said


def test_what_the_protocol_is_made_of_and_what_was_not_as_it_asks(capsys):
    protocol = {"name": "realblur", "description": "aligned", "psnr": "of levels", "ssim": "Gaussian"}
    protocol |= {"weighted_ssim": "by the mask", "alignment": "ECC", "quantisation": "8 bits", "tlc": "on"}
    print_scores(
        [
            result(
                protocol=protocol,
                own_protocol="local",
                tlc=None,
                made_up=True,
                layout="raw",
                missing=4,
                alignment_failures=2,
                blurry_alignment_failures=0,
            )
        ]
    )
    said = capsys.readouterr().out
    assert "scenes (made up), test split, 3 images" in said
    assert "protocol realblur: aligned; test-time local converter does not apply\n" in said
    for line in ("PSNR: of levels", "SSIM: Gaussian", "weighted SSIM: by the mask", "alignment: ECC"):
        assert f"\n  {line}\n" in said
    assert "\n  quantisation: 8 bits\n" in said
    assert "test-time local converter: on" not in said  # where there is no network
    assert "scenes has its own protocol, local: these are not the numbers of its tables" in said
    assert "alignment: 2 of 3 restored and 0 of 3 blurry images could not be aligned" in said
    assert "4 of 7 images are missing (subset=true)" in said
    assert "the pictures are made up: these scores are none of scenes's" in said


def test_a_protocol_that_is_the_datasets_own_is_not_called_another(capsys):
    print_scores([result(own_protocol="local", missing=0, made_up=False)])
    said = capsys.readouterr().out
    for word in ("its own protocol", "missing", "made up", "aligned"):
        assert word not in said


def test_a_copy_that_is_not_the_published_one_is_told(capsys):
    tell = {"dataset": "gopro", "published_images": 1111}
    told = ": no published number is comparable; python -m deblur_lab.data.verify tells more\n"
    for more, line in (
        ({}, "3 of GoPro's 1111 test pairs"),
        ({"missing": 2}, "5 of GoPro's 1111 test pairs"),
        ({"images": 1112}, "1112 test pairs, where GoPro has 1111"),
        ({"images": 1111, "names_like": "hide"}, "the pairs have names of HIDE, not of GoPro"),
        ({"images": 1100, "missing": 11}, None),
        ({"images": 1111, "names_like": None}, None),
        ({"published_images": None}, None),
    ):
        print_scores([result(**tell | more)])
        said = capsys.readouterr().out
        assert said.count("published") == (line is not None)
        if line is not None:
            assert f"\n{line}{told}" in said


def test_all_definitions_side_by_side(capsys):
    one = {"title": "PSNR of Y", "used_by": "BasicSR", "blurry": 25.0, "restored": 27.514, "digits": 2}
    one |= {"left_out": 0, "unavailable": None}
    other = {**one, "title": "LPIPS", "restored": math.nan, "digits": 4, "left_out": 3}
    definitions = {"a": one, "b": {**other, "unavailable": "no weights"}, "c": {**other, "title": "masked"}}
    definitions |= {"d": {**one, "blurry": 24.0, "restored": 28.0}, "e": {**one, "left_out": 1}}
    print_scores([result(definitions=definitions, scores={"psnr_db": 28.0}, blurry_scores={"psnr_db": 24.0})])
    said = capsys.readouterr().out
    assert "scenes: one result by every definition" in said
    assert "│ a          │   25.00 │    27.51 │ BasicSR │" in said
    assert "│ b          │ 25.0000 │        - │ BasicSR │" in said
    assert "│ d *        │   24.00 │    28.00 │ BasicSR │" in said
    assert "b: no weights\n" in said
    assert "c: no image has it (no mask, no blurred pixel, or too small)\n" in said
    assert "e: 1 of 3 images have none and are left out\n" in said
    assert re.findall(r"^(\w)(?=: )", said, re.MULTILINE) == ["b", "c", "e"]


def test_blur_motion_and_thresholds(capsys):
    blur = {"threshold": 0.3, "precision": 0.5, "recall": 0.75, "f1": 0.6, "iou": math.nan}
    at = {"threshold": 0.3, "selected_share": 0.1, "dilated_share": 0.15, "scores": {"psnr_db": 30.123}}
    print_scores(
        [
            result(
                threshold=0.3,
                selected_share=0.1,
                dilated_share=0.15,
                blur_detection={**blur, "calibration_error": 0.0514},
                motion={
                    "zero_epe_px": 2.0,
                    "epe_px": 1.5,
                    "moving_zero_epe_px": 3.0,
                    "moving_epe_px": math.nan,
                    "orientation_error_deg": 12.34,
                },
                thresholds=[at, {**at, "threshold": 0.5}],
            )
        ]
    )
    said = capsys.readouterr().out
    assert "blur mask at threshold 0.3" in said
    assert "│     0.500 │  0.750 │ 0.600 │   - │             0.051 │" in said
    assert "│ blurred            │      2.00 │      1.50 │ +0.50 │" in said
    assert "│ blurred and moving │      3.00 │         - │     - │" in said
    assert "orientation of the motion: 12 degrees off; chance is 45" in said
    assert "mask at threshold 0.3: 10.0% of the pixels selected, 15.0% dilated" in said
    assert "│       0.3 │    10.0% │   15.0% │     30.12 │" in said
