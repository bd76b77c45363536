"""What each stage of a training is made of, and how what is wrong with it is said."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from deblur_lab.errors import DataError
from deblur_lab.finished_runs import find_runs
from deblur_lab.models import NAFNet
from deblur_lab.stage_folders import stage_held
from deblur_lab.stage_table import (
    brief_cells,
    columns_of,
    means_of,
    print_rows,
    row_of,
    values_of,
    write_rows,
)
from deblur_lab.stages import Stage, shape_faults, stages_of, unheard
from deblur_lab.writing import write_json

WANDB = "deblur_lab.dashboards.WeightsAndBiases"


def whole(**stages: object) -> object:
    return OmegaConf.create(
        {
            "output": "runs/x",
            "seed": 0,
            "init_from": None,
            "logger": {
                "wandb": {"_target_": "deblur_lab.dashboards.WeightsAndBiases", "folder": "${output}"}
            },
            "trainer": {"max_steps": 9, "precision": "32-true"},
            "model": {
                "net": {"_target_": "Net", "width": 4},
                "optimizer": {"_target_": "Adam", "lr": 1, "eps": 2},
                "steps": "${trainer.max_steps}",
            },
            "data": {"sources": [{"root": "a"}]},
            "stages": stages,
        }
    )


def test_what_a_stage_sets_is_merged_before_references_are_resolved():
    one, two = stages_of(whole(one={"trainer": {"max_steps": 3}}, two=None))
    assert (one.config.model.steps, two.config.model.steps) == (3, 9)
    assert one.config.trainer.precision == "32-true"
    assert one.config.stages == {}
    assert (one.title, str(two.folder)) == ("stage 1 of 2, one", "runs/x/stages/2-two")


def test_a_node_of_another_class_takes_the_place_of_the_wholes():
    stages = {"sgd": {"model": {"_target_": "Task", "optimizer": {"_target_": "SGD", "lr": 3}}}}
    (stage,) = stages_of(whole(**stages))
    assert stage.config.model.optimizer == {"_target_": "SGD", "lr": 3}
    # The whole names no class there: what it sets is shared.
    assert stage.config.model.net == {"_target_": "Net", "width": 4}
    (stage,) = stages_of(whole(one={"model": {"optimizer": {"_target_": "Adam", "lr": 3}}}))
    assert stage.config.model.optimizer == {"_target_": "Adam", "lr": 3, "eps": 2}


def test_each_starts_from_the_one_before_unless_it_says_otherwise():
    config = whole(one={}, two={}, three={"init_from": None}, four={"init_from": "${output}/stages/1-one/x"})
    config.init_from = "given.ckpt"
    assert [stage.config.init_from for stage in stages_of(config)] == [
        "given.ckpt",
        "runs/x/stages/1-one/checkpoints/last.ckpt",
        None,
        "runs/x/stages/1-one/x",
    ]


def test_output_is_the_wholes_and_loggers_write_to_the_stages():
    (stage,) = stages_of(whole(one={}))
    assert stage.config.output == "runs/x"
    assert stage.config.logger.wandb.folder == "runs/x/stages/1-one"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("trainer.max_steps=0: 1 or more", "stages.one.trainer.max_steps=0: 1 or more"),
        ("trainer.precision=8: one of", "trainer.precision=8: one of"),
        ("seed=-1: 0 or more", "seed=-1: 0 or more"),
        ("data.sources[0].root=1: text", "stages.one.data.sources[0].root=1: text"),
        # What a class lacks is given where it was chosen.
        (
            "model.optimizer.lr is not set, and SGD needs it",
            "stages.one.model.optimizer.lr is not set, and SGD needs it",
        ),
        ("model.net.colour is not a setting of Net", "model.net.colour is not a setting of Net"),
        (
            "there is no setting trainer.max_step: did you mean trainer.max_steps?",
            "there is no setting stages.one.trainer.max_step: did you mean stages.one.trainer.max_steps?",
        ),
        ("patches of 3 px are too small", "stage one: patches of 3 px are too small"),
    ],
)
def test_what_is_wrong_is_said_as_it_is_typed(fault, said):
    own = {
        "trainer": {"max_steps": 0, "max_step": 3},
        "model": {"optimizer": {"_target_": "SGD"}},
        "data": {"sources": [{"root": 1}]},
    }
    (stage,) = stages_of(whole(one=own))
    assert stage.placed(fault) == said


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (5, "stages=5: the names of stages are expected"),
        ({"a b": {}}, "stages.a b: a name of letters"),
        ({"one": 3}, "stages.one=3: settings are expected"),
        ({"one": {"modle": {}}}, "there is no setting stages.one.modle: did you mean stages.one.model?"),
        ({"one": {"seed": 3}}, "stages.one.seed is a setting of the whole training: give it as seed"),
    ],
)
def test_what_is_no_stage_is_said(stages, said):
    config = whole()
    config.stages = stages
    (fault,) = shape_faults(config)
    assert fault.startswith(said)


def test_two_places_to_start_from_exclude_each_other():
    config = whole(one={"init_from": None}, two={})
    assert shape_faults(config) == []
    config.init_from = "x.ckpt"
    assert shape_faults(config) == [
        "init_from=x.ckpt: the first stage sets stages.one.init_from: leave one out"
    ]


# The table


def rows() -> list[dict]:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False))
    return [
        row_of("flow", 8, net, None, 1.23456, {"nll_bits": 2.0}),
        row_of("deblurring", 10_000, net, 2**30, 61.5, {"psnr_db": 31.256, "ssim": 0.9}),
    ]


def test_a_row_tells_what_is_trained_and_what_was_reached():
    flow, deblurring = rows()
    assert (flow["parameters"], flow["trained_parameters"]) == (24, 12)
    columns = columns_of([flow, deblurring])
    assert columns[:3] == ["stage", "steps", "parameters"]
    assert columns[-3:] == ["nll_bits", "psnr_db", "ssim"]
    assert values_of(flow, columns) == ["flow", 8, 24, 12, None, 1.235, 2.0, None, None]
    assert values_of(deblurring, columns)[-5:] == [2**30, 61.5, None, 31.256, 0.9]
    assert brief_cells([flow, deblurring]) == [
        ["flow", "8", "0.000 of 0.000", "-", "1 s", "nll bits 2.00"],
        ["deblurring", "10000", "0.000 of 0.000", "1.000", "62 s", "psnr 31.26\nssim 0.9000"],
    ]


def test_the_table_is_written_and_printed(tmp_path, capsys):
    write_rows(tmp_path, rows())
    lines = (tmp_path / "stages.csv").read_text().splitlines()
    assert lines[0].startswith("stage,steps,parameters,trained_parameters,peak_memory_bytes,seconds,nll_bits")
    assert lines[1] == "flow,8,24,12,,1.235,2.0,,"
    print_rows(rows(), "stages of x")
    said = capsys.readouterr().out
    for cell in ("GiB", "0.000 of 0.000", "nll bits 2.00", "psnr 31.26", "ssim 0.9000"):
        assert cell in said
    assert max(map(len, said.splitlines())) <= 80


def test_with_several_datasets_the_first_has_the_plain_names():
    results = [{"dataset": name, "scores": {"psnr_db": value}} for name, value in (("a", 1.0), ("b", 2.0))]
    assert means_of(results) == {"psnr_db": 1.0, "b_psnr_db": 2.0}


# A whole among other runs


def test_a_whole_is_one_run_and_its_stages_are_none(tmp_path):
    for name in ("whole/stages/1-flow", "whole/stages/2-last", "other"):
        (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / name / "scores.json", {"results": [{"dataset": name}]})
    write_rows(tmp_path / "whole", rows())
    other, unfinished = find_runs(tmp_path)
    assert (other.name, list(other.stages)) == ("other", [])
    assert [row["stage"] for row in unfinished.stages] == ["flow", "deblurring"]
    assert unfinished.scores == {"results": []}
    write_json(tmp_path / "whole" / "scores.json", {"results": [{"dataset": "x"}]})
    assert find_runs(tmp_path)[1].scores["results"] == [{"dataset": "x"}]
    assert find_runs(tmp_path / "whole" / "stages" / "1-flow")[0].name == "1-flow"
    (tmp_path / "whole" / "stages.json").write_text("[]")
    with pytest.raises(DataError, match="holds no stages"):
        find_runs(tmp_path)


ONE_LEVEL = {"encoder_blocks": [1], "decoder_blocks": [1]}


def test_the_stage_that_a_checkpoint_is_the_result_of_is_known_by_its_tensors(tmp_path):
    def stages(**blocks: int) -> list[Stage]:
        nets = {name: {"model": {"net": {"middle_blocks": count}}} for name, count in blocks.items()}
        net = {
            "_target_": "deblur_lab.models.NAFNet",
            "width": 4,
            "encoder_blocks": [1],
            "decoder_blocks": [1],
        }
        return stages_of(OmegaConf.create({"output": "x", "model": {"net": net}, "stages": nets}))

    def held(blocks: int, among: list[Stage], width: int = 4) -> str | None:
        net = NAFNet(width=width, middle_blocks=blocks, **ONE_LEVEL)
        weights = {f"net.{name}": value for name, value in net.state_dict().items()}
        torch.save({"state_dict": weights}, tmp_path / "x.ckpt")
        found = stage_held(among, tmp_path / "x.ckpt")
        return None if found is None else found.name

    each = stages(one=1, two=2, three=3)
    assert [held(blocks, each) for blocks in (1, 2)] == ["one", "two"]
    assert held(3, each) is None  # the last: there is nothing left to train
    assert held(1, each, width=8) is None
    assert held(2, stages(a=2, b=2, c=3)) is None  # which of the two?


# What a stage has left, by its name; what is typed in vain


def of_stages(**own):
    return OmegaConf.create(
        {
            "output": "runs/x",
            "init_from": None,
            "model": {"start": "${output}/stages/deep/checkpoints/last.ckpt"},
            "trainer": {"max_steps": 1},
            "stages": own,
        }
    )


def test_what_a_stage_has_left_is_found_by_its_name():
    steps = {"trainer": {"max_steps": 2}}
    (*_, last) = stages_of(of_stages(shallow=steps, deep=steps, deeper=steps))
    assert last.config.model.start == "runs/x/stages/2-deep/checkpoints/last.ckpt"
    (*_, last) = stages_of(of_stages(deep=steps, deeper=steps))
    assert last.config.model.start == "runs/x/stages/1-deep/checkpoints/last.ckpt"
    assert "stages.deep is left out" in shape_faults(of_stages(shallow=steps))[0]


def test_what_every_stage_sets_for_itself_is_not_typed_for_all():
    steps = {"trainer": {"max_steps": 2}}
    (told,) = unheard(of_stages(shallow=steps, deep=steps), ["trainer.max_steps=3", "output=runs/x"])
    assert "stages.shallow.trainer.max_steps, stages.deep.trainer.max_steps" in told
    assert unheard(of_stages(shallow=steps, deep={}), ["trainer.max_steps=3"]) == []
