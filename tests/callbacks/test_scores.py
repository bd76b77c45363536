"""Scores of blur, motion and thresholds, from data to files."""

import csv
import json
import math

import lightning as L
import pytest
import torch

from deblur_lab.callbacks import Converter, Scores
from deblur_lab.data import DeblurDataModule, LocalMotion, SyntheticSource
from deblur_lab.metrics import LocalProtocol
from deblur_lab.models import NAFNet
from deblur_lab.tasks import EvaluationTask
from tests.nets import small_m2aenet


@pytest.fixture(scope="module")
def scenes():
    source = SyntheticSource(
        LocalMotion(min_blur_px=4.0, max_blur_px=8.0), LocalProtocol(), size_px=48, test_scenes=3
    )
    return DeblurDataModule([source], patch_size=32, batch_size=1, num_workers=0)


@pytest.fixture
def net(scenes):
    """One that takes about half of the pixels for blurred."""
    net = small_m2aenet()
    scenes.setup("test")
    picture = torch.from_numpy(scenes.sources[0].scenes("test").load(0).blurry.copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        net.threshold = round(float(net.explain(picture / 255).probability.median()), 4)
    return net


def scored(net, scenes, scores):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[scores.converter, scores],
    )  # fmt: skip
    trainer.test(EvaluationTask(net), scenes, verbose=False)
    return scores.results


def test_what_the_net_says_is_held_against_the_truth_of_the_scenes(tmp_path, scenes, net):
    scores = Scores(Converter(32), tmp_path, {"seed": 0})
    (result,) = scored(net, scenes, scores)
    masks, found, errors, zeros = [], [], [], []
    with torch.no_grad():
        for sample in (scenes.test_dataloader()[0].dataset[number] for number in range(3)):
            said = net.explain(sample["blurry"][None])
            mask = sample["mask"][0] > 0.5
            masks.append(mask.flatten())
            found.append((said.probability[0, 0] > net.threshold).flatten())
            ends = said.motion[0, 0], said.motion[0, -1]
            truth = sample["start"], sample["end"]
            both = [
                ((ends[0] - one).norm(dim=0) + (ends[1] - other).norm(dim=0)) / 2
                for one, other in (truth, truth[::-1])
            ]
            errors.append(torch.minimum(*both)[mask])
            zeros.append(((truth[0].norm(dim=0) + truth[1].norm(dim=0)) / 2)[mask])
    mask, mine = torch.cat(masks), torch.cat(found)
    assert 0 < mine.sum() < len(mine)
    assert result["blur_detection"]["iou"] == pytest.approx(float((mask & mine).sum() / (mask | mine).sum()))
    assert result["motion"]["epe_px"] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-4)
    assert result["motion"]["zero_epe_px"] == pytest.approx(float(torch.cat(zeros).mean()), rel=1e-5)
    assert result["motion"]["moving_zero_epe_px"] > result["motion"]["zero_epe_px"]
    assert 0 < result["selected_share"] < result["dilated_share"] <= 1
    written = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert written["results"][0]["blur_detection"]["iou"] == result["blur_detection"]["iou"]
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ious = [float((one & other).sum() / (one | other).sum()) for one, other in zip(masks, found, strict=True)]
    assert [float(row["blur_iou"]) for row in rows] == pytest.approx(ious, abs=1e-6)
    assert not (tmp_path / "thresholds.csv").exists()


def test_a_net_that_says_nothing_is_scored_as_ever(tmp_path, scenes):
    scores = Scores(Converter(32), tmp_path)
    (result,) = scored(NAFNet(4, [1, 1], 1, [1, 1]), scenes, scores)
    assert (result["threshold"], result["selected_share"], result["dilated_share"]) == (None, None, None)
    assert not result.keys() & {"blur_detection", "motion", "thresholds"}
    header = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.endswith("blurry_weighted_ssim")


def test_several_thresholds_make_a_curve(tmp_path, scenes, net):
    own = net.threshold
    by_threshold = {}
    for threshold in (0.0, 1.0):
        net.threshold = threshold
        by_threshold[threshold] = scored(net, scenes, Scores(Converter(32)))
    net.threshold = own
    scores = Scores(Converter(32), tmp_path)
    scores.others = list(by_threshold.values())
    (result,) = scored(net, scenes, scores)
    curve = result["thresholds"]
    assert [at["threshold"] for at in curve] == [0.0, own, 1.0]
    assert [at["selected_share"] for at in curve] == [1.0, result["selected_share"], 0.0]
    assert [at["dilated_share"] for at in curve] == [1.0, result["dilated_share"], 0.0]
    assert curve[0]["scores"] == by_threshold[0.0][0]["scores"]
    assert len({at["scores"]["psnr_db"] for at in curve}) == 3
    with (tmp_path / "thresholds.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["threshold"] for row in rows] == ["0", f"{own:g}", "1"]
    assert all(
        math.isclose(float(row["psnr_db"]), at["scores"]["psnr_db"], abs_tol=1e-6)
        for row, at in zip(rows, curve, strict=True)
    )
    assert (tmp_path / "thresholds.png").stat().st_size > 1000
