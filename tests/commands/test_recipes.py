"""The recipes of conf/model, each with a net and pictures of a few pixels: what they train, and from what."""

import json
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deblur_lab.models import NAFNet, UFPNet
from tests.commands.conftest import latest
from tests.commands.processes import Ended, Running
from tests.commands.runs import assert_same_state, checkpoint_of, results_of, rows_of
from tests.commands.test_resume import logged

STEPS = 8
# Of validation and test there is one scene: of two devices, one has none.
SCENES = (
    "data=synthetic",
    "data.sources.0.size_px=32",
    "data.sources.0.kind.min_blur_px=3",
    "data.sources.0.kind.max_blur_px=6",
    "data.sources.0.train_scenes=6",
    "data.sources.0.val_scenes=1",
    "data.sources.0.test_scenes=1",
    "data.patch_size=16",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
    f"trainer.max_steps={STEPS}",
    "val_every_steps=4",
    "checkpoint_every_steps=2",
    "pictures=1",
)
BLOCKS = ([1, 1], 1, [1, 1])
KERNEL_PX = 5
ENCODER = (
    "model.net.encoder.width=8",
    "model.net.encoder.encoder_blocks=[1,1]",
    "model.net.encoder.decoder_blocks=[1,1]",
    f"+model.net.encoder.kernel_size_px={KERNEL_PX}",
    "+model.net.encoder.estimator_width=4",
    "model.net.blocks=1",
)
UFPNET = (
    "model.net.width=8",
    "model.net.encoder_blocks=[1,1]",
    "model.net.decoder_blocks=[1,1]",
    f"model.net.kernel_size_px={KERNEL_PX}",
    "model.net.estimator_width=4",
    "stages.flow.trainer.max_steps=6",
    "stages.flow.data.batch_size=16",
    "stages.flow.datamodule.val_kernels=32",
    "stages.flow.datamodule.test_kernels=32",
    "stages.flow.model.samples=8",
    "stages.kernels.trainer.max_steps=5",
    "stages.kernels.data.batch_size=2",
    "stages.kernels.data.patch_size=16",
    "stages.kernels.model.scheduler.warmup_steps=0",
    "stages.deblurring.trainer.max_steps=4",
    "stages.deblurring.data.batch_size=2",
    "stages.deblurring.data.patch_size=16",
)
UFPNET_STAGES = {"1-flow": 6, "2-kernels": 5, "3-deblurring": 4}
AIBNET_STAGES = ("1-sub_decoder_1", "2-sub_decoder_2")


def new_ufpnet(width: int = 8) -> UFPNet:
    return UFPNet(width, *BLOCKS, kernel_size_px=KERNEL_PX, estimator_width=4)


def ufpnet(width: int = 8) -> UFPNet:
    """A net in which no tensor is what it is in a new one, the statistics of its flow's norms included."""
    torch.manual_seed(1)
    net = new_ufpnet(width)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        for name, buffer in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.1 * torch.rand_like(buffer))
    return net


def aibnet(encoder: Path | None, *more: str, model: str = "aibnet_b") -> list[str]:
    start = () if encoder is None else (f"model.encoder.checkpoint={encoder}",)
    return latest(f"model={model}", *SCENES, *ENCODER, *start, "output=run", *more)


def train(*typed: str, cwd: Path, patience_s: float = 120) -> Ended:
    return Running("deblur_lab.train", *typed, cwd=cwd, forked=True).ended(patience_s)


def tensors_of(run: Path, part: str = "") -> dict[str, Tensor]:
    """What the last checkpoint of a run holds of a part of the net, by the part's own names."""
    prefix = f"net.{part}"
    state = checkpoint_of(run)["state_dict"]
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    assert found
    return found


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def parts(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="session")
def encoder(made_once) -> Path:
    """A whole UFPNet's file of bare weights."""
    folder = made_once(
        "recipes-encoder", lambda made: torch.save(ufpnet().state_dict(), made / "ufpnet.ckpt")
    )
    return folder / "ufpnet.ckpt"


@pytest.fixture(scope="session")
def two_sub_decoders(made_once, encoder) -> Path:
    """The folder of an AIBNet-B, never stopped."""

    def fill(folder: Path) -> None:
        assert train(*aibnet(encoder), cwd=folder).succeeded().stderr == ""

    return made_once("recipes-aibnet_b", fill) / "run"


@pytest.fixture(scope="session")
def prior_kernels_and_net(made_once) -> Path:
    """The folder of a UFPNet from nothing."""

    def fill(folder: Path) -> None:
        # What every stage sets for itself is not typed for all.
        shared = [key for key in SCENES if not key.startswith(("data.batch_size", "trainer.max_steps"))]
        typed = latest("model=ufpnet", *shared, *UFPNET, "output=run")
        assert train(*typed, cwd=folder).succeeded().stderr == ""

    return made_once("recipes-ufpnet", fill) / "run"


def test_aibnet_b_trains_a_sub_decoder_a_stage_and_keeps_all_else_bit_by_bit(two_sub_decoders, encoder):
    first, second = (two_sub_decoders / "stages" / name for name in AIBNET_STAGES)
    given = torch.load(encoder, weights_only=True)
    kept = {name: value for name, value in given.items() if parts({name}) - {"ups", "decoders", "ending"}}
    assert any(name.startswith("flow.") and name.endswith("running_mean") for name in kept)
    for run in (first, second, two_sub_decoders):
        assert not changed(kept, tensors_of(run, "encoder."))
        assert not changed(tensors_of(first, "sub_decoders.0."), tensors_of(run, "sub_decoders.0."))
    assert not any(name.startswith("sub_decoders.1.") for name in tensors_of(first))
    # Each was trained, and its batch norms have seen each step's batch, in its own stage alone.
    for run, part in ((first, "sub_decoders.0."), (second, "sub_decoders.1.")):
        trained = tensors_of(run, part)
        assert trained["ending.weight"].any()
        counts = [value for name, value in trained.items() if name.endswith("num_batches_tracked")]
        assert counts
        assert all(int(count) == STEPS for count in counts)
        assert any(value.any() for name, value in trained.items() if name.endswith("running_mean"))
    assert [row["stage"] for row in rows_of(two_sub_decoders / "stages.csv")] == [
        "sub_decoder_1",
        "sub_decoder_2",
    ]


def test_aibnet_b_killed_in_its_second_stage_comes_to_the_same(tmp_path, encoder, two_sub_decoders):
    running = Running("deblur_lab.train", *aibnet(encoder), cwd=tmp_path, forked=True)
    second = tmp_path / "run" / "stages" / AIBNET_STAGES[1]
    # A step after the first checkpoint, which is lost.
    running.wait_until(lambda: (second / "checkpoints" / "last.ckpt").exists() and logged(second) >= 3)
    running.send(signal.SIGKILL)
    assert running.ended().code == -signal.SIGKILL
    reached = checkpoint_of(second)["global_step"]
    assert 0 < reached < STEPS

    said = train("resume=run", cwd=tmp_path).succeeded().stdout
    assert (
        f"stage 2 of 2, sub_decoder_2: going on with run/stages/2-sub_decoder_2 from step {reached}\n" in said
    )
    for name in AIBNET_STAGES:
        assert_same_state(tmp_path / "run" / "stages" / name, two_sub_decoders / "stages" / name)
    assert_same_state(tmp_path / "run", two_sub_decoders)
    assert any("running_var" in name for name in tensors_of(tmp_path / "run", "sub_decoders.1."))
    assert results_of(tmp_path / "run") == results_of(two_sub_decoders)


def test_ufpnet_is_trained_from_nothing_by_one_command(prior_kernels_and_net):
    run = prior_kernels_and_net
    rows = rows_of(run / "stages.csv")
    assert [f"{number}-{row['stage']}" for number, row in enumerate(rows, 1)] == list(UFPNET_STAGES)
    assert [int(row["steps"]) for row in rows] == list(UFPNET_STAGES.values())
    measured = {}
    for name in ("1-flow", "2-kernels"):
        about = json.loads((run / "stages" / name / "measures.json").read_text(encoding="utf-8"))
        measured.update(about["measures"])
        assert not (run / "stages" / name / "scores.json").exists()
    for row, names in ((rows[0], ("nll_bits",)), (rows[1], ("reblurred_psnr_db", "sharp_psnr_db"))):
        for name in names:
            assert float(row[name]) == measured[f"test/{name}"]
            assert f"val/{name}" in measured
    # What is reblurred and what is blurry are told apart.
    assert measured["test/reblurred_psnr_db"] != measured["test/sharp_psnr_db"]
    (result,) = results_of(run)
    assert result["images"] == 1
    assert result == results_of(run / "stages" / "3-deblurring")[0]
    assert float(rows[2]["psnr_db"]) == result["scores"]["psnr_db"]


def test_what_a_stage_of_ufpnet_does_not_train_stays_bit_by_bit(prior_kernels_and_net):
    flow, kernels, deblurring = (
        tensors_of(prior_kernels_and_net / "stages" / name) for name in UFPNET_STAGES
    )
    assert any(name.startswith("flow.") and "running_" in name for name in flow)
    assert parts(changed(flow, kernels)) == {"kernel_extra"}
    moved = parts(changed(kernels, deblurring))
    assert {"intro", "encoders", "middle_blks", "decoders", "ending"} <= moved
    assert not moved & {"flow", "kernel_extra"}
    assert not changed(deblurring, tensors_of(prior_kernels_and_net))
    # The flow itself was trained: a new one ends in zeros and has the statistics 0 and 1.
    new = new_ufpnet().flow.state_dict()
    trained = tensors_of(prior_kernels_and_net, "flow.")
    assert {name.rpartition(".")[2] for name in changed(new, trained)} >= {"running_mean", "running_var"}


def test_what_ufpnets_recipe_leaves_is_the_encoder_of_aibnets(tmp_path, prior_kernels_and_net):
    last = prior_kernels_and_net / "checkpoints" / "last.ckpt"
    few = ("trainer.max_steps=2", "val_every_steps=2", "evaluate=false")
    said = train(*aibnet(last, *few, model="aibnet_s"), cwd=tmp_path).succeeded().stdout
    assert f"encoder: the UFPNet of {last}, frozen\n" in said
    given, taken = tensors_of(prior_kernels_and_net), tensors_of(tmp_path / "run", "encoder.")
    assert not changed({name: given[name] for name in taken}, taken)


def test_aibnet_s_on_two_devices_of_which_one_has_nothing_to_validate(tmp_path, encoder):
    two = ("trainer.devices=2", "trainer.max_steps=5", "val_every_steps=2")
    ended = train(*aibnet(encoder, *two, model="aibnet_s"), cwd=tmp_path, patience_s=120).succeeded()
    assert ended.stderr == ""
    assert "2 device(s) (cpu, 32-true) x 1 x 1 accumulated" in ended.stdout
    assert ended.stdout.count("trained to step 5 in") == 1
    assert checkpoint_of(tmp_path / "run")["global_step"] == 5
    validated = [int(row["step"]) for row in rows_of(tmp_path / "run" / "metrics.csv") if row["val/psnr_db"]]
    assert validated == [1, 3]  # counted from 0
    assert [result["images"] for result in results_of(tmp_path / "run")] == [1]
    given = torch.load(encoder, weights_only=True)
    taken = tensors_of(tmp_path / "run", "encoder.")
    assert not changed({name: given[name] for name in taken}, taken)


def refused(code: int, *typed: str, cwd: Path) -> str:
    """What a training says in one line that fails before its folder is made."""
    told = train(*typed, cwd=cwd).failed(code)
    assert not (cwd / "run").exists()
    return told


@pytest.mark.parametrize("model", ["aibnet_s", "aibnet_b"])
def test_no_encoder_is_refused_with_the_ways_to_one(tmp_path, model):
    told = refused(2, *aibnet(None, model=model), cwd=tmp_path)
    for named in ("model.encoder.checkpoint is not set", "model=ufpnet", "model.encoder.untrained=true"):
        assert named in told


def test_an_encoder_that_is_not_there_is_named(tmp_path):
    told = refused(4, *aibnet(Path("gone.ckpt")), cwd=tmp_path)
    assert "model.encoder.checkpoint: checkpoint gone.ckpt does not exist" in told


def test_an_encoder_of_another_width_is_told_with_the_setting_for_it(tmp_path, encoder):
    torch.save(ufpnet(16).state_dict(), tmp_path / "wide.ckpt")
    told = refused(4, *aibnet(Path("wide.ckpt")), cwd=tmp_path)
    assert "model.encoder.checkpoint=wide.ckpt: a UFPNet of width 8 is expected" in told
    assert told.endswith("for that, give model.net.encoder.width=16")
    # The folder is free for another try.
    few = ("trainer.max_steps=1", "val_every_steps=1", "evaluate=false")
    as_told = (*few, "model.net.encoder.width=16")
    train(*aibnet(Path("wide.ckpt"), *as_told), cwd=tmp_path).succeeded()


def test_a_nafnet_as_the_encoder_is_told_with_the_setting_for_it(tmp_path):
    torch.save(NAFNet(8, *BLOCKS).state_dict(), tmp_path / "nafnet.ckpt")
    told = refused(4, *aibnet(Path("nafnet.ckpt")), cwd=tmp_path)
    assert "model.encoder.checkpoint=nafnet.ckpt: a UFPNet of width 8 is expected" in told
    assert "a NAFNet of width 8" in told
    assert told.endswith("for that, give model.net.encoder._target_=deblur_lab.models.NAFNet")
