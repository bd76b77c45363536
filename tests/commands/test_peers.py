"""Others' nets on the command line: trained, scored and applied as ours are."""

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_lab.models import Restormer
from tests.commands.processes import forked
from tests.commands.runs import checkpoint_of, results_of, rows_of
from tests.commands.test_recipes import SCENES

STEPS = ("trainer.max_steps=2", "val_every_steps=2", "checkpoint_every_steps=2", "output=run")
MPRNET = (
    "model=mprnet",
    "model.net.width=8",
    "model.net.unet_step_width=4",
    "model.net.original_step_width=4",
    "model.net.attention_blocks=1",
)


def test_a_peer_is_trained_scored_and_scored_again(tmp_path):
    """MPRNet, of whose three stages training judges each."""
    said = forked("deblur_lab.train", *SCENES, *STEPS, *MPRNET, cwd=tmp_path).succeeded()
    assert said.stderr.count("MPRNet: its authors' code and weights may not be used commercially") == 1
    rows = rows_of(tmp_path / "run" / "metrics.csv")
    assert {"train/loss_charbonnier", "train/loss_edge"} <= rows[0].keys()
    # Of equal pictures at three stages it is 3 * eps.
    assert float(rows[0]["train/loss_charbonnier"]) > 0.01
    assert all("restore" not in key for key in checkpoint_of(tmp_path / "run")["state_dict"])
    path = "run/checkpoints/last.ckpt"
    forked(
        "deblur_lab.evaluate", f"checkpoint={path}", *SCENES[:7], "trainer=cpu", "output=again", cwd=tmp_path
    ).succeeded()
    (before,), (after,) = results_of(tmp_path / "run"), results_of(tmp_path / "again")
    assert after["images"] == before["images"] == 1
    assert after["scores"] == pytest.approx(before["scores"], rel=1e-5)


def test_a_published_checkpoint_of_a_peer_restores_a_photo(tmp_path):
    torch.manual_seed(0)
    net = Restormer(8, (1, 1, 1, 1), 1, (1, 2, 2, 4)).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "motion_deblurring.pth")
    blurry = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    Image.fromarray(blurry).save(tmp_path / "photo.png")
    said = forked(
        "deblur_lab.predict",
        *("checkpoint=motion_deblurring.pth", "input=photo.png", "output=restored", "device=cpu"),
        cwd=tmp_path,
    ).succeeded()
    assert "Restormer: its authors' code" in said.stderr
    with torch.inference_mode():
        expected = net(torch.from_numpy(blurry).permute(2, 0, 1)[None] / 255)[0]
    (path,) = (tmp_path / "restored").rglob("photo*.png")
    restored = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(restored - (expected.clamp(0, 1) * 255).round().numpy()).max() <= 1
    assert np.abs(restored - blurry.transpose(2, 0, 1).astype(float)).max() > 1
