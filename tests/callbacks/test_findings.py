"""What is kept of each image, and what a dataset's result tells of it."""

import itertools
import json

import pytest
import torch

from deblur_lab.callbacks.findings import findings, pooled_findings, shown_findings
from deblur_lab.restorations import Restoration
from deblur_lab.writing import write_json


def said(seed=0, size=12, **without):
    rng = torch.Generator().manual_seed(seed)
    fields = {
        "probability": torch.rand(1, 1, size, size, generator=rng),
        "motion": torch.randn(1, 2, 2, size, size, generator=rng),
        "selected_share": torch.rand(1, generator=rng),
        "dilated_share": torch.rand(1, generator=rng),
    }
    return Restoration(torch.zeros(1, 3, size, size), **{**fields, **without})


def truth(seed=0, size=12, *, known=True, moving=True):
    rng = torch.Generator().manual_seed(100 + seed)
    batch = {
        "mask": torch.rand(1, 1, size, size, generator=rng).round(),
        "mask_known": torch.tensor([known]),
    }
    for name in ("start", "end") if moving else ():
        batch[name] = torch.randn(1, 2, size, size, generator=rng)
    return batch


def rows(threshold=0.4, count=3, **given):
    return [
        findings(said(seed, 10 + seed), truth(seed, 10 + seed, **given), 0, threshold)
        for seed in range(count)
    ]


def test_a_result_pools_pixels_not_images():
    result = pooled_findings(rows(), 0.4)
    probability, mask = (
        torch.cat([maps.flatten() for maps in of_all])
        for of_all in (
            [said(seed, 10 + seed).probability for seed in range(3)],
            [truth(seed, 10 + seed)["mask"] for seed in range(3)],
        )
    )
    found, blurred = probability > 0.4, mask > 0.5
    iou = float((found & blurred).sum() / (found | blurred).sum())
    blur = result["blur_detection"]
    assert blur["iou"] == pytest.approx(iou)
    assert blur["precision"] == pytest.approx(float((found & blurred).sum() / found.sum()))
    assert blur["recall"] == pytest.approx(float((found & blurred).sum() / blurred.sum()))
    assert [at["threshold"] for at in blur["by_threshold"]] == pytest.approx(
        [0.05 * step for step in range(1, 20)]
    )
    (same,) = [at for at in blur["by_threshold"] if at["threshold"] == 0.4]
    assert same["iou"] == blur["iou"]
    assert sum(part["pixels"] for part in blur["calibration"]) == len(mask)
    assert (blur["images"], result["motion"]["images"]) == (3, 3)
    assert result["motion"]["pixels"] == blurred.sum()
    shares = [float(said(seed, 10 + seed).selected_share) for seed in range(3)]
    assert result["selected_share"] == pytest.approx(sum(shares) / 3)
    assert result["threshold"] == 0.4


def test_no_digit_depends_on_the_order_of_the_images():
    every = rows()
    results = [json.dumps(pooled_findings(order, 0.4)) for order in itertools.permutations(every)]
    assert len(set(results)) == 1


def test_a_mask_that_is_not_known_says_nothing():
    found = findings(said(), truth(known=False), 0, 0.5)
    assert found.keys() == {"selected_share", "dilated_share"}
    result = pooled_findings([found], 0.5)
    assert result.keys() == {"threshold", "selected_share", "dilated_share"}


def test_data_without_motion_have_no_scores_of_motion():
    assert "motion" not in pooled_findings(rows(moving=False), 0.4)
    assert "blur_detection" in pooled_findings(rows(moving=False), 0.4)


def test_networks_say_what_they_can():
    motion_only = said(probability=None, selected_share=None, dilated_share=None)
    result = pooled_findings([findings(motion_only, truth(), 0, None)], None)
    assert (result["threshold"], result["selected_share"], result["dilated_share"]) == (None, None, None)
    assert "blur_detection" not in result
    assert result["motion"]["epe_px"] > 0
    silent = findings(Restoration(torch.zeros(1, 3, 12, 12)), truth(), 0, None)
    assert silent == {}
    # One that tells of blur without a mask of its own.
    unpruned = said(selected_share=None, dilated_share=None)
    result = pooled_findings([findings(unpruned, truth(), 0, None)], None)
    assert (result["threshold"], result["blur_detection"]["threshold"]) == (None, 0.5)


def test_what_does_not_exist_is_null_in_the_file(tmp_path):
    batch = truth() | {"mask": torch.zeros(1, 1, 12, 12)}
    found = findings(said(), batch, 0, 0.5)
    write_json(tmp_path / "scores.json", pooled_findings([found], 0.5))
    written = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert written["blur_detection"]["recall"] is None
    assert written["motion"]["epe_px"] is None
    assert written["motion"]["pixels"] == 0


def test_a_row_tells_of_its_image_alone():
    (row,) = rows(count=1)
    shown, result = shown_findings(row), pooled_findings([row], 0.4)
    assert shown == {
        "selected_share": result["selected_share"],
        "dilated_share": result["dilated_share"],
        "blur_iou": result["blur_detection"]["iou"],
        "epe_px": result["motion"]["epe_px"],
        "zero_epe_px": result["motion"]["zero_epe_px"],
    }
    assert shown_findings({}) == {}
