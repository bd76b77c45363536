"""What a profile writes and says, of networks by name and of checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deblur_lab.models import NAFNet
from deblur_lab.profiling import profile
from tests.commands.processes import forked
from tests.nets import checkpoint_of, small_m2aenet

PROFILE = "deblur_lab.profile"
SMALL = ("model.net.width=4", "model.net.encoder_blocks=[1,1,1,2]", "size=61x48", "repeats=2", "device=cpu")


def profile_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "profile.json").read_text(encoding="utf-8"))


def test_dense_pruned_and_nafnet_side_by_side(tmp_path):
    ended = forked(PROFILE, *SMALL, "model=m2aenet", "blurred=0.3", "output=cost", cwd=tmp_path).succeeded()
    assert [path.name for path in (tmp_path / "cost").iterdir()] == ["profile.json"]
    found = profile_in(tmp_path / "cost")
    dense, pruned, nafnet = found["results"]
    assert [one["name"] for one in found["results"]] == ["M2AENet, dense", "M2AENet, pruned", "NAFNet-32"]
    assert nafnet["parameters"] == 17_111_907
    assert dense["parameters"] == pruned["parameters"]
    assert pruned["multiply_adds"] < dense["multiply_adds"]
    for one in found["results"]:
        assert sum(one["multiply_adds_by_operation"].values()) == one["multiply_adds"]
        assert len(one["seconds"]["all"]) == 2
        assert min(one["seconds"]["all"]) == one["seconds"]["min"] <= one["seconds"]["median"]
    assert set(found["time_ratios"]) == {
        "M2AENet, pruned / M2AENet, dense",
        "M2AENet, dense / NAFNet-32",
        "M2AENet, pruned / NAFNet-32",
    }
    assert (found["size_px"], found["padded_size_px"]) == ([61, 48], [64, 48])
    # Of 8 x 6 pixels of the fourth stage.
    assert found["selected_share"] == pytest.approx(round(0.3 * 48) / 48)
    assert found["selected_share"] < found["dilated_share"] <= 1
    assert found["difference_pruned_dense"] < 1e-4
    assert found["net"]["width"] == 4
    assert found["published"] is None
    for key in ("commit", "version", "torch", "python", "threads", "cores", "processor", "seed"):
        assert key in found
    for said in (
        "masked depth-wise convolution",
        "deformable sampling",
        "peak memory (GiB)",
        "61 x 48 (padded",
    ):
        assert said in ended.stdout
    again = forked(PROFILE, *SMALL, "model=m2aenet", "blurred=0.3", "output=cost", cwd=tmp_path).succeeded()
    assert "older profile.json" in again.stdout
    other = profile_in(tmp_path / "cost")
    for key in ("selected_share", "dilated_share", "net"):
        assert other[key] == found[key]


def test_what_has_no_masks_has_one_column_beside_nafnet(tmp_path):
    forked(PROFILE, *SMALL, "model.net.mask_aware=false", "output=a", cwd=tmp_path).succeeded()
    forked(PROFILE, "model=nafnet", "size=16x16", "repeats=1", "device=cpu", cwd=tmp_path).succeeded()
    found = profile_in(tmp_path / "a")
    assert [one["name"] for one in found["results"]] == ["M2AENet", "NAFNet-32"]
    assert found["blurred"] is found["selected_share"] is None
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-profile-nafnet")
    assert [one["name"] for one in profile_in(folder)["results"]] == ["NAFNet-32"]


def test_an_aibnet_is_told_part_by_part(tmp_path):
    small = ("model.net.encoder.width=8", "model.net.encoder.encoder_blocks=[1,1,1,2]", "model.net.blocks=1")
    few = ("size=64x64", "repeats=1", "device=cpu", "output=b")
    ended = forked(PROFILE, "model=aibnet_b", *small, *few, cwd=tmp_path).succeeded()
    found = profile_in(tmp_path / "b")
    assert (found["size_px"], found["padded_size_px"]) == ([64, 64], [64, 64])
    assert "for which AIBNet's paper counts" not in ended.stdout
    ours, nafnet = found["results"]
    assert [part["name"] for part in ours["parts"]] == [
        "kernel estimator and motion prior", "encoder", "sub-decoder 1", "sub-decoder 2"
    ]  # fmt: skip
    assert sum(part["parameters"] for part in ours["parts"]) == ours["parameters"]
    assert sum(part["multiply_adds"] for part in ours["parts"]) == ours["multiply_adds"]
    assert nafnet["parts"] == []
    assert found["published"] is None
    assert "sub-decoders, convolutions and linear maps" in ended.stdout


def test_by_default_an_aibnet_is_counted_at_the_size_of_its_paper(command, monkeypatch):
    monkeypatch.setattr(
        "deblur_lab.profiling._profiled", lambda net, settings, device: {"size": settings["size"]}
    )
    small = ("model.net.encoder.width=8", "model.net.encoder.encoder_blocks=[1,1,1,2]", "model.net.blocks=1")
    typed = ("model=aibnet_b", *small, "device=cpu", "output=b")
    code, out, lines = command("profile", *typed, job=profile)
    assert (code, lines) == (0, [])
    assert "size=256x256, for which AIBNet's paper counts" in out
    assert profile_in(Path("b")) == {"size": "256x256"}


def test_checkpoints_of_ours_and_of_others(tmp_path):
    settings = {"width": 4, "encoder_blocks": [1, 1, 1], "middle_blocks": 1, "decoder_blocks": [1, 0, 1]}
    checkpoint_of(small_m2aenet(), tmp_path / "own=1.ckpt", **settings, predictor_stages=[3])
    torch.save({"params": NAFNet(4, [1, 1], 1, [1, 1]).state_dict()}, tmp_path / "theirs.pth")
    few = ("size=40x32", "repeats=1", "device=cpu", "precision=bf16-mixed")
    for name, columns in (("own=1.ckpt", 3), ("theirs.pth", 2)):
        forked(PROFILE, f"checkpoint={name}", *few, f"output={columns}", cwd=tmp_path).succeeded()
        found = profile_in(tmp_path / str(columns))
        assert len(found["results"]) == columns
        assert (found["checkpoint"], found["net"], found["precision"]) == (name, None, "bf16-mixed")


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        ("size=0x0", 2, "size=0x0: WIDTHxHEIGHT in pixels is expected, each from 1 to 65535, as "),
        ("size=abc", 2, "size=abc: WIDTHxHEIGHT in pixels is expected"),
        ("blurred=2", 2, "blurred=2: a number from 0 to 1 is expected"),
        ("precision=16-mixed", 2, "precision=16-mixed: one of 32-true, bf16-mixed is expected"),
        ("device=x", 2, "device=x: auto, cpu or cuda is expected"),
        ("device=cuda", 5, "device=cuda cannot be used here: "),
        ("model=nafnet blurred=0.3", 2, "blurred=0.3 has no effect: NAFNet, as set, predicts no masks"),
        ("checkpoint=x model=nafnet", 2, "model= has no effect with checkpoint=, which knows its model"),
        ("checkpoint=x", 4, "checkpoint x does not exist"),
        ("trainer=cpu", 2, "there is no setting trainer in profile: choose device=cpu or device=cuda"),
        ("data=gopro", 2, "there is no setting data in profile: give the size of a picture"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, typed, code, told):
    ended = forked(PROFILE, *typed.split(), cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert ended.failed(code).startswith(told)
    assert not list(tmp_path.glob("runs/*"))
    assert ended.stdout == ""
