"""Equal budgets: what becomes of a recipe's steps, what is refused, and what a training took."""

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import nn

from deblur_lab import experiments
from deblur_lab.budgets import apply, spent, trainings_of
from deblur_lab.config import configuration_root
from deblur_lab.errors import ConfigurationError
from deblur_lab.models import AIBNet, M2AENet, NAFNet, UFPNet
from deblur_lab.multiply_adds import counted, counted_by_gradients
from deblur_lab.net_costs import cost_of
from deblur_lab.stages import stages_of
from deblur_lab.training import train

TINY = (
    "experiment=compare/small",
    "data.sources.0.size_px=32",
    "data.sources.0.train_scenes=4",
    "data.sources.0.val_scenes=1",
    "data.sources.0.test_scenes=1",
    "data.sources.0.kind.min_blur_px=3",
    "data.sources.0.kind.max_blur_px=6",
    "data.patch_size=32",
    "data.batch_size=2",
    "pictures=0",
)


def composed(*typed: str) -> DictConfig:
    experiments.register()
    with initialize_config_dir(str(configuration_root() / "conf"), version_base="1.3"):
        return compose("train", ["output=run", *typed])


def steps_of(config: DictConfig) -> dict[str, int]:
    return {training.name: training.steps for training in trainings_of(config)}


def used(config: DictConfig) -> dict[str, object]:
    return spent([(training.name, training.config) for training in trainings_of(config)]).as_json()


def test_steps_are_those_of_the_training_and_its_schedule_follows():
    config = composed("model=nafnet", "budget.steps=70")
    assert apply(config) == ["budget.steps=70: 70 steps, 2,240 patches"]
    assert (config.trainer.max_steps, config.model.scheduler.total_steps) == (70, 70)
    assert apply(config) == ["budget.steps=70: 70 steps, 2,240 patches"]


def test_nothing_becomes_of_a_training_without_a_budget():
    config = composed("model=small_aibnet_b")
    before = config.copy()
    assert apply(config) == []
    assert config == before


def test_stages_share_the_steps_in_proportion_and_see_the_same_patches():
    config = composed("model=aibnet_s_from_nothing", "data.batch_size=4", "budget.steps=701")
    lines = apply(config)
    # Of 20,000 + 100,000 + 200,000 + 400,000 steps, the first on no pictures; what is left goes to the last.
    assert steps_of(config) == {"flow": 20, "kernels": 100, "deblurring": 200, "sub_decoder_1": 401}
    assert "flow looks at no pictures: it does not count" in lines[-1]
    assert [stage.config.data.batch_size for stage in stages_of(config)] == [256, 4, 4, 4]
    assert any("stage kernels takes the whole training's data.batch_size" in line for line in lines)
    assert stages_of(config)[3].config.model.scheduler.total_steps == 401
    # Once it is written down, it stays as it is.
    apply(config)
    assert sum(list(steps_of(config).values())[1:]) == 701


def warm_ups_of(config: DictConfig) -> list[int]:
    return [training.config.model.scheduler.warmup_steps for training in trainings_of(config)]


def test_a_warm_up_keeps_its_share_of_the_steps():
    config = composed("model=small_nafnet", "budget.steps=20")
    assert apply(config) == ["budget.steps=20: 20 steps, 160 patches; warm-up, in steps: 50 -> 1"]
    assert warm_ups_of(config) == [1]
    assert apply(config) == ["budget.steps=20: 20 steps, 160 patches"]
    # The second stage of three has that of the whole training, which has its steps in proportion.
    config = composed("model=small_aibnet_b", "budget.steps=2000")
    whole = config.model.scheduler.warmup_steps
    (line,) = apply(config)
    assert line.endswith(
        "; warm-up, in steps: encoder 50 -> 100, sub_decoder_1 30 -> 60, sub_decoder_2 30 -> 60"
    )
    assert (warm_ups_of(config), config.model.scheduler.warmup_steps) == ([100, 60, 60], whole)
    config = composed("model=small_aibnet_s", "budget.multiply_adds=2366171136000")
    recipe = warm_ups_of(composed("model=small_aibnet_s"))
    apply(config)
    for training, before in zip(trainings_of(config), recipe, strict=True):
        of_recipe = {"encoder": 600, "sub_decoder_1": 400}[training.name]
        assert training.config.model.scheduler.warmup_steps == before * training.steps // of_recipe > 0


@pytest.mark.parametrize("model", ["small_nafnet", "small_m2aenet", "small_aibnet_s", "small_aibnet_b"])
def test_a_warm_up_stays_where_the_steps_are_those_of_the_recipe(model):
    config = composed(f"model={model}", "budget.steps=1000")
    before = [training.config for training in trainings_of(config)]
    (line,) = apply(config)
    assert "warm-up" not in line
    assert [training.config for training in trainings_of(config)] == before


def test_a_warm_up_that_was_typed_stays():
    typed = ("model=small_aibnet_s", "budget.steps=500", "++stages.encoder.model.scheduler.warmup_steps=7")
    config = composed(*typed)
    assert apply(config, typed)[0].endswith("; warm-up, in steps: sub_decoder_1 30 -> 15")
    assert warm_ups_of(config) == [7, 15]
    typed = ("model=small_aibnet_s", "budget.steps=500", "model.scheduler.warmup_steps=7")
    config = composed(*typed)
    assert apply(config, typed)[0].endswith("; warm-up, in steps: encoder 50 -> 25")
    assert warm_ups_of(config) == [25, 7]


def test_a_budget_of_any_size_runs(command, told):
    small = ("experiment=compare/small", "output=sweep")
    done: list[DictConfig] = []
    assert command("train", "-m", *small, "budget.steps=5", job=done.append)[::2] == (0, [])
    assert len(done) == 3
    assert told("train", "-m", *small, "budget.steps=20", "model.scheduler.warmup_steps=20") == [
        "model=small_nafnet,small_m2aenet: model.scheduler: warmup_steps=20: a number from 0 to below "
        "total_steps=20 is expected",
        "model=small_aibnet_s: model.scheduler: warmup_steps=20: a number from 0 to below total_steps=8 is "
        "expected",
    ]


@pytest.mark.parametrize("model", ["small_m2aenet", "small_ufpnet"])
def test_multiply_adds_are_used_up_to_less_than_a_step(model):
    amount = 10**12
    config = composed(f"model={model}", "data.patch_size=64", f"budget.multiply_adds={amount}")
    apply(config)
    took = used(config)["multiply_adds"]
    largest = max(training.multiply_adds_of_a_step() for training in trainings_of(config))
    assert amount - largest < took <= amount


def test_what_is_frozen_is_counted_forward_only():
    (encoder, last) = trainings_of(composed("model=small_aibnet_s"))
    whole = NAFNet(16, [2, 2, 4], 1, [1, 1, 1]).eval()
    _, forward = counted(lambda: whole(torch.zeros(1, 3, 64, 64)))
    assert encoder.multiply_adds_of_a_step() == 8 * 3 * sum(forward.values())
    settings = {"encoder": NAFNet(16, [2, 2, 4], 1, [1, 1, 1]), "sub_decoders": 1, "blocks": 1}
    net = AIBNet(**settings).eval()
    padded = net.encoder.pad(torch.zeros(1, 3, 64, 64))
    _, all_of_it = counted(lambda: net(padded))
    _, frozen = counted(lambda: net.encoder.middle_blks(net.encoder.encode(padded)[0]))
    at_once = 3 * (sum(all_of_it.values()) - sum(frozen.values())) + sum(frozen.values())
    assert last.multiply_adds_of_a_step() == 8 * at_once


def test_gradients_tell_what_is_frozen_even_behind_what_is_trained():
    first, second = nn.Linear(2, 3, bias=False), nn.Linear(3, 5, bias=False)
    given = torch.zeros(1, 2)
    second.requires_grad_(False)
    assert counted_by_gradients(lambda: second(first(given))) == (21, 0)
    second.requires_grad_(True)
    first.requires_grad_(False)
    assert counted_by_gradients(lambda: second(first(given))) == (15, 6)


@pytest.mark.parametrize(
    "net",
    [
        NAFNet(8, [1, 1], 1, [1, 1]),
        M2AENet(8, [1, 1], 1, [1, 1], predictor_stages=[2], pruning="dense"),
        UFPNet(8, [1, 1], 1, [1, 1], kernel_size_px=5, estimator_width=4),
        AIBNet(UFPNet(8, [1, 1], 1, [1, 1], kernel_size_px=5, estimator_width=4), 2, 1),
    ],
    ids=lambda net: type(net).__name__,
)
def test_the_cost_of_a_net_is_what_a_pass_takes(net):
    net.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        net(torch.rand(1, 3, 8, 8))  # what is folded is folded once
        _, by_name = counted(lambda: net(torch.rand(1, 3, 19, 22)))
    assert cost_of(net, (22, 19)) == {
        "net": type(net).__name__,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "multiply_adds": sum(by_name.values()),
        "size_px": [22, 19],
    }
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_net_that_cannot_run_without_numbers_has_parameters_alone():
    class Looking(nn.Linear):
        def forward(self, blurry: torch.Tensor) -> torch.Tensor:
            return blurry if float(blurry.mean()) > 0 else -blurry

    assert cost_of(Looking(2, 3), (8, 8)) == {
        "net": "Looking",
        "parameters": 9,
        "multiply_adds": None,
        "size_px": [8, 8],
    }


def test_what_a_checkpoint_has_learnt_before_is_said():
    config = composed(
        "model=aibnet_s",
        "model.encoder.checkpoint=/weights/ufpnet.pth",
        "model.net.encoder.width=8",
        "model.net.encoder.encoder_blocks=[1,1]",
        "model.net.encoder.decoder_blocks=[1,1]",
        "model.net.blocks=1",
        "budget.steps=5",
    )
    apply(config)
    assert used(config)["besides"] == ["what model.encoder.checkpoint=/weights/ufpnet.pth has learnt before"]


def test_a_budget_of_fewer_steps_than_stages_is_refused():
    with pytest.raises(ConfigurationError, match=r"budget.steps=2 is too small: stage encoder"):
        apply(composed("model=small_aibnet_b", "budget.steps=2"))
    with pytest.raises(ConfigurationError, match="multiply_adds=9 is too small: one step, which takes"):
        apply(composed("model=small_nafnet", "budget.multiply_adds=9"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["budget.steps=0"], "budget.steps=0: 1 or more is expected"),
        (["budget.steps=few"], "budget.steps=few: a whole number or null is expected"),
        (
            ["budget.steps=5", "budget.multiply_adds=7"],
            "budget.steps=5 and budget.multiply_adds=7 exclude each other: leave one out",
        ),
        (
            ["budget.steps=500", "trainer.max_steps=7"],
            "trainer.max_steps=7 and budget.steps=500 exclude each other: leave one out",
        ),
        (
            ["model=small_aibnet_s", "budget.steps=500", "stages.encoder.trainer.max_steps=7"],
            "stages.encoder.trainer.max_steps=7 and budget.steps=500 exclude each other: leave one out",
        ),
        (
            ["model=small_ufpnet", "budget.steps=500", "stages.kernels.data.batch_size=7"],
            "stages.kernels.data.batch_size=7: under budget.steps all stages see the same patches: give "
            "data.batch_size=7",
        ),
        (["budget=5"], "budget=5: budget.steps=N or budget.multiply_adds=N is expected"),
    ],
)
def test_what_does_not_fit_a_budget_is_refused(told, typed, said):
    assert told("train", *typed)[0] == said


def test_a_budget_of_multiply_adds_is_checked_and_runs_as_a_command(command, told):
    tiny = ("model=small_nafnet", "model.net.width=4")
    (said,) = told("train", *tiny, "budget.multiply_adds=9")
    assert said.startswith("budget.multiply_adds=9 is too small: one step, which takes ")
    code, _, lines = command("train", *tiny, "budget.multiply_adds=10000000000", "output=run")
    assert (code, lines) == (0, [])


def test_all_stages_are_in_the_scores_with_the_cost_of_the_net(command, tmp_path):
    more = ("model=small_aibnet_s", "encoder_net.width=8", "encoder_net.encoder_blocks=[1,1]")
    less = ("encoder_net.decoder_blocks=[1,1]", "budget.steps=5")
    code, out, lines = command("train", *TINY, *more, *less, "output=run", job=train)
    assert (code, lines) == (0, [])
    assert "budget.steps=5: 5 steps (encoder 3, sub_decoder_1 2), 10 patches" in out
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    budget, cost = scores["budget"], scores["cost"]
    assert (budget["steps"], budget["patches"], scores["max_steps"]) == (5, 10, 2)
    first = json.loads((tmp_path / "run" / "stages" / "1-encoder" / "scores.json").read_text())["budget"]
    assert (first["steps"], first["patches"]) == (3, 6)
    assert 0 < first["multiply_adds"] < budget["multiply_adds"]
    assert (cost["net"], cost["size_px"]) == ("AIBNet", [32, 32])
    assert cost["multiply_adds"] > 0
