"""Scores of a checkpoint, on its own data and on others'."""

import json

import pytest
import torch

from deblur_lab.images import read_rgb
from deblur_lab.models import NAFNet
from tests.commands.processes import forked, python_m
from tests.commands.runs import results_of, rows_of


@pytest.fixture
def checkpoint(trained):
    return f"checkpoint={trained / 'run' / 'checkpoints' / 'last.ckpt'}"


def test_scores_of_the_last_checkpoint_are_those_of_the_run(tmp_path, datasets, trained, checkpoint):
    said = python_m(
        "deblur_lab.evaluate",
        checkpoint,
        "data=reloblur",
        f"data.root={datasets / 'ReLoBlur'}",
        "data.num_workers=2",
        "trainer=cpu",
        "pictures=1",
        "output=scores of [run]",
        cwd=tmp_path,
    ).succeeded()
    folder = tmp_path / "scores of [run]"
    assert {path.name for path in folder.iterdir()} == {"scores.json", "scores.csv", "pictures"}
    assert results_of(folder) == results_of(trained / "run")
    assert (folder / "scores.csv").read_text() == (trained / "run" / "scores.csv").read_text()
    assert len(list((folder / "pictures").iterdir())) == 1
    about = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert f"checkpoint={about['checkpoint']}" == checkpoint
    assert about["trained_on"] == ["reloblur"]
    assert "protocol local: " in said.stdout


def test_another_dataset_is_scored_by_its_own_protocol(tmp_path, datasets, checkpoint):
    arguments = [checkpoint, "data=gopro", f"data.root={datasets / 'GoPro'}", "trainer=cpu", "pictures=0"]
    few = [*arguments, "data.num_workers=0"]
    for name, tlc in (("auto", "auto"), ("on", "on"), ("off", "off"), ("small", "on")):
        size = ["tlc_size_px=16"] if name == "small" else []
        forked("deblur_lab.evaluate", *few, f"tlc={tlc}", *size, f"output={name}", cwd=tmp_path).succeeded()
    scores = {name: results_of(tmp_path / name)[0] for name in ("auto", "on", "off", "small")}
    assert scores["auto"]["protocol"]["name"] == "gopro"
    # Its protocol asks for TLC, over windows as large as the patches that the run was trained on.
    assert scores["auto"]["scores"] == scores["on"]["scores"]
    assert len({result["scores"]["psnr_db"] for result in scores.values()}) == 3
    assert [row["dataset"] for row in rows_of(tmp_path / "auto" / "scores.csv")] == ["gopro"] * 3
    assert not (tmp_path / "auto" / "pictures").exists()


def test_published_weights_are_scored_and_applied(tmp_path, datasets):
    """As released by others: in a file with no configuration, the converter on as the protocol says."""
    net = NAFNet(4, [1, 1], 1, [1, 1])
    torch.save({"params": net.state_dict()}, tmp_path / "NAFNet [w4]=x.pth")
    given = "checkpoint=NAFNet [w4]=x.pth"
    data = [
        "data=gopro",
        f"data.root={datasets / 'GoPro'}",
        "data.num_workers=0",
        "trainer=cpu",
        "pictures=0",
    ]
    forked("deblur_lab.evaluate", given, *data, "output=scores", cwd=tmp_path).succeeded()
    (result,) = results_of(tmp_path / "scores")
    assert result["tlc"]
    # A new net returns its input.
    assert result["scores"] == result["blurry_scores"]
    photo = next((datasets / "folder").rglob("blurry/*.png"))
    forked("deblur_lab.predict", given, f"input={photo}", "output=out", cwd=tmp_path).succeeded()
    assert (read_rgb(tmp_path / "out" / photo.name) == read_rgb(photo)).all()


def test_several_thresholds_give_a_curve_and_the_main_results_are_the_nets_own(
    tmp_path, datasets, trained, checkpoint
):
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}", "data.num_workers=0", "trainer=cpu"]
    typed = ["threshold=[0,0.5,1]", "pruning=dense", "pictures=1", "output=curve"]
    said = forked("deblur_lab.evaluate", checkpoint, *data, *typed, cwd=tmp_path).succeeded()
    folder = tmp_path / "curve"
    assert {path.name for path in folder.iterdir()} == {
        *("scores.json", "scores.csv", "thresholds.csv", "thresholds.png", "pictures"),
    }
    (result,), (own,) = results_of(folder), results_of(trained / "run")
    curve = result.pop("thresholds")
    assert [row["threshold"] for row in curve] == [0, 0.5, 1]
    assert [row["selected_share"] for row in curve] == [1, own["selected_share"], 0]
    assert curve[1]["scores"] == result["scores"]
    assert result["scores"] == pytest.approx(own["scores"])  # dense, where the run may have pruned
    assert result["blur_detection"] == own["blur_detection"]
    assert "motion" not in result  # which photographs do not tell
    rows = rows_of(folder / "thresholds.csv")
    assert [float(row["selected_share"]) for row in rows] == pytest.approx(
        [row["selected_share"] for row in curve], abs=1e-6
    )
    assert said.stdout.count("scores by threshold") == 1
    assert len(list((folder / "pictures").iterdir())) == 1
    assert json.loads((folder / "scores.json").read_text(encoding="utf-8"))["pruning"] == "dense"


def test_one_threshold_takes_the_place_of_the_nets(tmp_path, datasets, checkpoint):
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}", "data.num_workers=0", "trainer=cpu"]
    typed = ["threshold=1", "pictures=0", "output=none"]
    forked("deblur_lab.evaluate", checkpoint, *data, *typed, cwd=tmp_path).succeeded()
    (result,) = results_of(tmp_path / "none")
    assert (result["threshold"], result["selected_share"], result["dilated_share"]) == (1, 0, 0)
    assert result["blur_detection"]["threshold"] == 1
    assert result["blur_detection"]["recall"] == 0
    assert result["blur_detection"]["precision"] is None
    assert "thresholds" not in result
    assert not (tmp_path / "none" / "thresholds.csv").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("threshold=2", "threshold=2: a number from 0 to 1 is expected"),
        ("threshold=[0.5,-1]", "threshold[1]=-1: a number from 0 to 1 is expected"),
        ("threshold=[]", "threshold=[]: one or more probabilities are expected, each once"),
        ("threshold=[0.5,0.5]", "threshold=[0.5, 0.5]: one or more probabilities are expected, each once"),
        ("pruning=some", "pruning=some: one of auto, dense, pruned or null is expected"),
    ],
)
def test_thresholds_that_are_none_are_refused(tmp_path, checkpoint, setting, told):
    assert forked("deblur_lab.evaluate", checkpoint, setting, cwd=tmp_path).failed(2) == told


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", "0.3"), ("threshold", "[0.3]"), ("pruning", "auto")]
)
def test_a_net_without_masks_has_no_threshold(tmp_path, key, value):
    torch.save({"params": NAFNet(4, [1, 1], 1, [1, 1]).state_dict()}, tmp_path / "naf.pth")
    told = forked("deblur_lab.evaluate", "checkpoint=naf.pth", f"{key}={value}", cwd=tmp_path).failed(2)
    assert told == f"{key}={value}: the NAFNet of naf.pth predicts no mask of the blur: leave {key} out"
    assert [path.name for path in tmp_path.iterdir()] == ["naf.pth"]
