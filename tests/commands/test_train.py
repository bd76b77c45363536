"""Training, on every kind of data, and what it leaves behind."""

import math
import re
import shutil

import pytest
import torch
import yaml

from deblur_lab.checkpoints import load_net
from deblur_lab.config import configuration_root
from deblur_lab.exhibits import KINDS
from tests.commands.conftest import STEPS, arguments_of_trained
from tests.commands.processes import TINY, forked
from tests.commands.runs import checkpoint_of, largest_difference, results_of, rows_of

TWO_STEPS = (*TINY, "trainer.max_steps=2", "val_every_steps=2", "output=run")


def test_the_folder_holds_what_the_documentation_says_and_nothing_else(trained):
    text = (configuration_root() / "docs" / "training.md").read_text(encoding="utf-8")
    table = text.split("| file | what |")[1].split("\n\n")[0]
    promised = {name for row in table.splitlines()[2:] for name in re.findall("`([^`]+)`", row.split("|")[1])}
    found = {path.relative_to(trained / "run") for path in (trained / "run").rglob("*") if path.is_file()}
    pictures = {path for path in found if path.parts[0] == "pictures"}
    if_wrong = {"diverged.json", "skipped.txt"}
    assert {str(path) for path in found - pictures} == promised - {"pictures/", *if_wrong}
    panels = [path for path in pictures if len(path.parts) == 2]
    assert len(panels) == 2
    assert {path.suffix for path in panels} == {".png"}
    # Those of the two and of the third, which is among the worst of three.
    kept = {path.parts[2] for path in pictures - {*panels}}
    assert {path.stem for path in panels} < kept
    assert len(kept) == 3
    names = {"exhibit.json", *(f"{kind}.png" for kind in KINDS)}
    assert {path.name for path in pictures - {*panels}} == names


def test_a_run_says_what_it_does(trained):
    said = (trained / "stdout").read_text(encoding="utf-8")
    assert "reloblur: 6 train, 3 val, 3 test, masks known" in said
    assert f"{STEPS} steps of 2 patches of 32 px: 1 device(s) (cpu, 32-true) x 2 x 1 accumulated" in said
    assert "reloblur (made up), test split, 3 images" in " ".join(said.split())
    assert "protocol local: " in said
    assert said.endswith("everything is in run\n")


def test_every_step_is_logged_and_every_validation(trained):
    rows = rows_of(trained / "run" / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(STEPS))
    losses = ("l1", "ssim", "fft", "mask", "reblur", "tv")
    for row in rows:
        for name in ("train/loss", "train/lr", *(f"train/loss_{part}" for part in losses)):
            assert math.isfinite(float(row[name]))
    # The rate that the step was taken with: the recipe's at first, nearly its last at the end.
    assert float(rows[0]["train/lr"]) == 1e-3
    assert 1e-6 < float(rows[-1]["train/lr"]) < 2e-5
    validated = {"val/psnr_db", "val/ssim", "val/weighted_psnr_db", "val/weighted_ssim"}
    assert validated <= rows[0].keys()
    assert [int(row["step"]) for row in rows if row["val/psnr_db"]] == [3, 7, 11, 15]


def test_scores_are_the_means_of_the_rows(trained):
    (result,) = results_of(trained / "run")
    rows = rows_of(trained / "run" / "scores.csv")
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    assert len(rows) == result["images"] == 3
    assert {row["dataset"] for row in rows} == {result["dataset"]} == {"reloblur"}
    for kind, prefix in (("scores", ""), ("blurry_scores", "blurry_")):
        assert result[kind].keys() == {"psnr_db", "ssim", "weighted_psnr_db", "weighted_ssim"}
        for name, mean in result[kind].items():
            # A row has six decimals.
            assert mean == pytest.approx(math.fsum(float(row[prefix + name]) for row in rows) / 3, abs=1e-6)


def test_checkpoints_say_what_they_are(trained):
    config = yaml.safe_load((trained / "run" / "config.yaml").read_text(encoding="utf-8"))
    for name in ("last", "best"):
        record = checkpoint_of(trained / "run", name)["deblur_lab"]
        assert record["config"]["model"]["net"] == config["model"]["net"]
        assert record["config"]["data"]["patch_size"] == 32
        assert record["version"]
    assert checkpoint_of(trained / "run")["global_step"] == STEPS
    rows = [row for row in rows_of(trained / "run" / "metrics.csv") if row["val/psnr_db"]]
    best = max(rows, key=lambda row: float(row["val/psnr_db"]))
    assert checkpoint_of(trained / "run", "best")["global_step"] == int(best["step"]) + 1


def test_data_synthetic(tmp_path):
    small = [
        f"data.sources.0.{key}" for key in ("size_px=48", "train_scenes=4", "val_scenes=1", "test_scenes=2")
    ]
    ended = forked("deblur_lab.train", "data=synthetic", *small, *TWO_STEPS, cwd=tmp_path).succeeded()
    assert "synthetic: 4 train, 1 val, 2 test, masks known" in ended.stdout
    (result,) = results_of(tmp_path / "run")
    assert result["images"] == result["blur_detection"]["images"] == result["motion"]["images"] == 2
    assert 0 < result["motion"]["zero_epe_px"] < 24
    assert "end-point error (px)" in ended.stdout


def test_data_gopro_without_masks(tmp_path, datasets):
    ended = forked(
        "deblur_lab.train",
        "model=nafnet",
        "data=gopro",
        f"data.root={datasets / 'GoPro'}",
        *TWO_STEPS,
        cwd=tmp_path,
    ).succeeded()
    assert "gopro: 6 train, 3 val, 3 test, blurred all over" in ended.stdout
    (result,) = results_of(tmp_path / "run")
    assert result["protocol"]["name"] == "gopro"
    assert result["scores"].keys() == {"psnr_db", "ssim"}


def test_data_gopro_reloblur_are_mixed_and_scored_apart(tmp_path, datasets):
    ended = forked(
        "deblur_lab.train", "data=gopro_reloblur", f"data.root={datasets}", *TWO_STEPS, cwd=tmp_path
    )
    assert "sources mixed one to one" in ended.succeeded().stdout
    first, second = results_of(tmp_path / "run")
    assert (first["dataset"], first["protocol"]["name"]) == ("reloblur", "local")
    assert (second["dataset"], second["protocol"]["name"]) == ("gopro", "gopro")
    rows = rows_of(tmp_path / "run" / "scores.csv")
    assert [row["dataset"] for row in rows] == ["reloblur"] * 3 + ["gopro"] * 3
    last = rows_of(tmp_path / "run" / "metrics.csv")[-1]
    assert float(last["val/weighted_psnr_db"]) > 0
    assert float(last["val/gopro_psnr_db"]) > 0


def test_data_gopro_reloblur_need_not_lie_side_by_side(tmp_path, datasets):
    roots = [f"data.gopro_root={datasets / 'GoPro'}", f"data.reloblur_root={datasets / 'ReLoBlur'}"]
    forked(
        "deblur_lab.train", "data=gopro_reloblur", *roots, *TWO_STEPS, "evaluate=false", cwd=tmp_path
    ).succeeded()
    assert not (tmp_path / "run" / "scores.json").exists()


def test_data_folder_without_masks_and_with_workers(tmp_path, datasets):
    root = tmp_path / "my pictures (1) = [a]"
    for split in ("train", "test"):
        for role in ("blurry", "sharp"):
            shutil.copytree(datasets / "folder" / split / role, root / split / role)
    ended = forked(
        "deblur_lab.train", "data=folder", f"data.root={root}", *TWO_STEPS, "data.num_workers=2", cwd=tmp_path
    ).succeeded()
    assert "masks not known" in ended.stdout
    (result,) = results_of(tmp_path / "run")
    assert result["scores"]["psnr_db"] > 0
    assert result["scores"]["weighted_psnr_db"] is None
    assert result["left_out"]["weighted_psnr_db"] == 3
    assert rows_of(tmp_path / "run" / "scores.csv")[0]["weighted_psnr_db"] == ""


def test_a_new_run_starts_from_the_weights_of_another(tmp_path, datasets, trained):
    weights = f"init_from={trained / 'run/checkpoints/last.ckpt'}"
    still = ["model.optimizer.lr=1e-30", weights, "evaluate=false"]
    ended = forked(
        "deblur_lab.train",
        *arguments_of_trained(datasets),
        "trainer.max_steps=1",
        *still,
        "output=run",
        cwd=tmp_path,
    )
    ended.succeeded()
    assert largest_difference(trained / "run", tmp_path / "run") == 0


def test_runs_without_a_name_get_one_each(tmp_path, datasets):
    arguments = [*arguments_of_trained(datasets), "trainer.max_steps=1", "evaluate=false"]
    for _ in range(2):
        forked("deblur_lab.train", *arguments, cwd=tmp_path).succeeded()
    first, second = sorted((tmp_path / "runs").iterdir())
    assert re.fullmatch(r"\d{8}-m2aenet-reloblur", first.name)
    assert second.name == f"{first.name}-2"
    torch.testing.assert_close(
        dict(load_net(first / "checkpoints" / "last.ckpt")[0].named_parameters()),
        dict(load_net(second / "checkpoints" / "last.ckpt")[0].named_parameters()),
        rtol=0,
        atol=0,
    )
