"""What is printed of scores."""

import math

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
