"""A sweep that an experiment asks for runs as if it had been typed; each table of a paper is one."""

import csv
from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from deblur_lab import experiments
from deblur_lab.config import configuration_root
from tests.typed import yaml

TABLES = configuration_root() / "experiments" / "m2aenet"
NAMES = sorted(path.stem for path in TABLES.glob("*.yaml"))


@pytest.fixture
def swept(command, tmp_path) -> Callable[..., list[DictConfig]]:
    """The configurations that a sweep runs with."""

    def run(*typed: str) -> list[DictConfig]:
        done: list[DictConfig] = []
        code, _, lines = command("train", "-m", *typed, "output=sweep", job=done.append)
        assert (code, lines) == (0, [])
        return done

    return run


@pytest.fixture
def unmade(monkeypatch) -> None:
    """Networks are not made to see whether their settings fit each other; others here are."""
    monkeypatch.setattr("deblur_lab.checks._refused_by_constructors", lambda settings: [])


# What each table varies, by hand from the paper: the values of these settings in its rows.
ROWS = {
    "table3": (
        ("model.net.mask_aware", "model.net.motion_aware"),
        [(False, False), (False, True), (True, False), (True, True)],
    ),
    "table4": (("model.net.mask_positions",), [([1, 2, 3],), ([1, 2],), ([1, 3],), ([1],)]),
    "table5": (
        ("model.net.trajectory._target_",),
        [(f"deblur_lab.models.{name}Trajectory",) for name in ("Linear", "Quadratic", "Learnable")],
    ),
    "table6": (("model.loss.reblur_instants",), [(5,), (9,), (15,), (30,)]),
    "appendix_a": (
        ("model.net.encoder_blocks", "model.net.middle_blocks", "model.net.decoder_blocks"),
        [([1, 1, 1, 28], 1, [1, 1, 1, 1]), ([2, 4, 4, 8], 4, [8, 4, 4, 2])],
    ),
    "mask_loss": (("model.loss.mask",), [(0.01,), (0,)]),
}


def values(config: DictConfig, keys: tuple[str, ...]) -> tuple[object, ...]:
    found = [OmegaConf.select(config, key) for key in keys]
    return tuple(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for value in found)


def published(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_table_has_its_sweep_and_no_other():
    assert sorted(ROWS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_one_command_with_the_published_numbers_beside_it(swept, name):
    keys, rows = ROWS[name]
    configs = swept(f"experiment=m2aenet/{name}", "data=folder", "data.root=x")
    assert [values(config, keys) for config in configs] == rows
    assert {tuple(config.experiment) for config in configs} == {(f"m2aenet/{name}",)}
    for row, config in zip(published(name), configs, strict=True):
        stands_for = OmegaConf.from_dotlist(row["settings"].split(" "))
        assert values(stands_for, keys) == values(config, keys)
        assert row["dataset"] == "ReLoBlur"
        assert row["source"].startswith("Shang et al. 2025, ")


@pytest.mark.usefixtures("unmade")
def test_a_table_goes_with_the_size_of_another_experiment_and_with_seeds(swept):
    configs = swept("experiment=[demo,m2aenet/mask_loss]", "seed=0,1,2", "model.net.width=8")
    # The loss as the demo has it, and without; each with all seeds, in folders of their own.
    demo = OmegaConf.load(configuration_root() / "experiments" / "demo.yaml")
    keys = ("model.loss.mask", "seed", "model.net.width", "trainer.max_steps", "output")
    weights_and_seeds = [(weight, seed) for weight in (demo.model.loss.mask, 0) for seed in (0, 1, 2)]
    assert [values(config, keys) for config in configs] == [
        (weight, seed, 8, demo.trainer.max_steps, f"sweep/{number}")
        for number, (weight, seed) in enumerate(weights_and_seeds)
    ]
    assert configs[0].experiment == ["demo", "m2aenet/mask_loss"]


@pytest.mark.parametrize("typed", ["model.loss.mask=0.5", "model.loss.mask=0.5,0.25"])
@pytest.mark.usefixtures("unmade")
def test_what_is_typed_is_not_swept_over(swept, typed):
    configs = swept("experiment=[m2aenet/table6,m2aenet/mask_loss]", typed, "model.loss.reblur_instants=7")
    weights = [0.5, 0.25] if "," in typed else [0.5]
    assert [(config.model.loss.mask, config.model.loss.reblur_instants) for config in configs] == [
        (weight, 7) for weight in weights
    ]


@pytest.mark.usefixtures("unmade")
def test_two_tables_at_once_are_all_their_combinations(swept):
    configs = swept("experiment=[m2aenet/table6,m2aenet/mask_loss]")
    assert len({(config.model.loss.mask, config.model.loss.reblur_instants) for config in configs}) == 8


@pytest.mark.usefixtures("unmade")
def test_each_job_is_announced_by_what_it_is(command):
    typed = ("-m", "seed=3,4", "model.net.width=4", "data=folder,gopro", "data.root=x", "output=sweep")
    done: list[DictConfig] = []
    code, out, lines = command("train", *typed, job=done.append)
    assert (code, lines) == (0, [])
    assert [line.partition(": ")[2] for line in out.splitlines()[:4]] == [
        f"data={config.data.sources[0]._target_.rpartition('.')[2].lower()} seed={config.seed}, "
        f"in {config.output}"
        for config in done
    ]


@pytest.mark.usefixtures("unmade")
def test_without_m_one_line_says_what_to_add(told, command):
    assert told("train", "experiment=m2aenet/table3") == [
        "experiment=m2aenet/table3 sweeps over model.net.mask_aware, model.net.motion_aware: add -m, or give "
        "one value of each"
    ]
    both = ("model.net.mask_aware=true", "model.net.motion_aware=false")
    assert command("train", "experiment=m2aenet/table3", *both) == (0, "", [])
    assert command("train", "--cfg", "job", "experiment=m2aenet/table3")[0] == 0


def test_every_job_is_checked_before_the_first_starts(told):
    lines = told("train", "-m", "experiment=m2aenet/table3", "model=nafnet", "seed=x")
    place = f"(in {TABLES / 'table3.yaml'})"
    there = "there are width, encoder_blocks, middle_blocks, decoder_blocks"
    assert lines == [
        f"there is no setting model.net.mask_aware: {there} {place}",
        f"there is no setting model.net.motion_aware: {there} {place}",
        "seed=x: a whole number is expected",
    ]
    assert told("train", "-m", "experiment=demo,m2aenet/table6") == [
        "experiment=m2aenet/table6 sweeps over model.loss.reblur_instants, as do others that it is swept "
        "with: give one of them at a time"
    ]


def test_ones_own_sweep_is_checked_and_may_not_set_everything(told, tmp_path):
    sweep = """\
# @package _global_
hydra:
  sweeper:
    params:
      model.net.widht: 4,8
      trusted_packages: "[os],[sys]"
      hydra.sweep.dir: elsewhere
      output: a,b
      seed: "1,[2"
      pictures: 1,-1
"""
    yaml(tmp_path / "own", "experiment/mine", sweep)
    place = "(in own/experiment/mine.yaml)"
    assert told("train", "-m", "--config-dir", "own", "experiment=mine") == [
        "hydra.sweeper.params.trusted_packages: a YAML cannot sweep over it: take it out",
        "hydra.sweeper.params.hydra.sweep.dir: a YAML cannot sweep over it: take it out",
        "hydra.sweeper.params.output: a YAML cannot sweep over it: take it out",
        "hydra.sweeper.params.seed=1,[2 cannot be read: text with special characters is quoted, as "
        "seed='a value'",
        f"there is no setting model.net.widht: did you mean model.net.width? {place}",
        f"pictures=-1: 0 or more is expected {place}",
    ]
    # Without its first line it would set nothing, which must not go unseen.
    yaml(tmp_path / "own", "experiment/headless", "seed: 3\n")
    (line,) = told("train", "--config-dir", "own", "experiment=headless")
    assert line.startswith("there is no setting experiment: ")
    yaml(tmp_path / "own", "experiment/mode", "# @package _global_\nhydra: {mode: MULTIRUN}\n")
    assert told("train", "--config-dir", "own", "experiment=mode") == [
        "hydra.mode is set: leave it out, and add -m to run a sweep"
    ]


def test_the_experiments_of_settings_are_told():
    for typed, names in {
        "experiment=demo": ["demo"],
        "experiment=[demo,m2aenet/table3]": ["demo", "m2aenet/table3"],
        "+experiment=demo": ["demo"],
        "experiment=null": [],
        "seed=3": [],
    }.items():
        assert experiments.chosen(["pictures=1", typed]) == names


def test_the_published_cells_are_those_that_the_paper_prints():
    scores = ("psnr_db", "ssim", "weighted_psnr_db", "weighted_ssim", "multiply_adds_t")
    cells = {
        name: [tuple(row.get(score, "") for score in scores) for row in published(name)] for name in NAMES
    }
    whole = ("35.647", "0.9302", "31.036", "0.8997")
    assert cells["table3"] == [
        ("34.584", "0.9244", "28.633", "0.8751", "0.764"),
        ("35.091", "0.9271", "29.591", "0.8889", "0.995"),
        ("35.021", "0.9269", "30.081", "0.8916", "0.528"),
        (*whole, "0.759"),
    ]
    assert cells["table4"] == [
        ("35.163", "0.9264", "30.541", "0.8941", "0.568"),
        ("35.519", "0.9293", "30.801", "0.8973", "0.694"),
        ("35.372", "0.9289", "30.577", "0.8951", "0.633"),
        (*whole, "0.759"),
    ]
    assert cells["table5"] == [
        ("35.493", "0.9271", "30.891", "0.8889", ""),
        (*whole, ""),
        ("35.651", "0.9303", "31.045", "0.8999", ""),
    ]
    assert cells["table6"] == [
        ("35.111", "0.9269", "30.291", "0.8930", ""),
        (*whole, ""),
        ("35.651", "0.9302", "31.040", "0.8998", ""),
        ("35.652", "0.9302", "31.040", "0.8998", ""),
    ]
    assert cells["appendix_a"] == [(*whole, "0.759"), ("", "", "", "", "2.1")]
    assert [row["gpu_memory_gb"] for row in published("appendix_a")] == ["5.8", "21"]
    assert cells["mask_loss"] == [(*whole, ""), ("", "", "", "", "")]


# AIBNet

AIBNET = configuration_root() / "experiments" / "aibnet"
SPATIAL, FREQUENCY = "model.net.spatial._target_", "model.net.frequency._target_"
SFEM, HFS_BLOCK = "deblur_lab.models.DifferentialAttention", "deblur_lab.models.FrequencySelection"
# What each of its tables varies, by hand from the paper: the values of these settings in its rows.
AIBNET_ROWS: dict[str, tuple[tuple[str, ...], list[tuple[object, ...]]]] = {
    "table3": (
        (SPATIAL, FREQUENCY),
        [(None, None), (SFEM, None), (None, HFS_BLOCK), (SFEM, HFS_BLOCK)],
    ),
    "table4": (("model.net.frequency.masks",), [(count,) for count in range(6)]),
    "table5": (("model.encoder.frozen",), [(False,), (True,)]),
    "table6": (
        ("stages.at_once.model.trained", "stages.at_once.model.net.fusion._target_"),
        [
            ("all", None),
            ("all", "deblur_lab.models.SupervisedAttention"),
            ("all", "deblur_lab.models.DownwardFusion"),
            (None, None),
        ],
    ),
    "table8": ((SPATIAL, FREQUENCY), [(SFEM, HFS_BLOCK), (SFEM, SFEM), (HFS_BLOCK, HFS_BLOCK)]),
    "table9": (
        (FREQUENCY,),
        [(HFS_BLOCK,), ("deblur_lab.models.TopKAttention",), ("deblur_lab.models.PredictedTopKAttention",)],
    ),
}


def printed(name: str) -> list[dict[str, str]]:
    with (AIBNET / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_table_of_aibnet_has_its_sweep():
    sweeps = {path.stem for path in AIBNET.glob("table*.yaml")}
    assert sweeps == set(AIBNET_ROWS)
    assert {path.stem for path in AIBNET.glob("table*.csv")} == sweeps | {
        "table1", "table2", "table7", "table10"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "with_size"), [*((name, True) for name in AIBNET_ROWS), ("table3", False)])
def test_a_table_of_aibnet_is_one_command(swept, name, with_size):
    keys, rows = AIBNET_ROWS[name]
    named = f"aibnet/{name}"
    if with_size:
        configs = swept(f"experiment=[aibnet/small,{named}]", "model.net.blocks=1")
        small = OmegaConf.load(AIBNET / "small.yaml")
        assert {config.model.net.encoder.width for config in configs} == {small.model.net.encoder.width}
        assert {config.trainer.max_steps for config in configs} == {small.trainer.max_steps}
    else:
        configs = swept(f"experiment={named}", "data=folder", "data.root=x")
        assert {config.model.net.encoder.width for config in configs} == {64}
    assert [values(config, keys) for config in configs] == rows


@pytest.mark.usefixtures("unmade")
def test_progressive_stages_are_those_of_the_model(swept):
    (large,) = swept("model=aibnet_l", "data=folder", "data.root=x", "model.encoder.checkpoint=x")
    *_, progressive = swept(
        "experiment=aibnet/table6", "data=folder", "data.root=x", "model.encoder.checkpoint=x"
    )
    (first, _) = swept("experiment=aibnet/table5", "data=folder", "data.root=x", "model.encoder.checkpoint=x")
    assert progressive.stages == first.stages == large.stages
    assert progressive.model.net.sub_decoders == first.model.net.sub_decoders == 4


@pytest.mark.parametrize("name", AIBNET_ROWS)
def test_the_rows_of_a_table_say_what_they_stand_for(name):
    keys, rows = AIBNET_ROWS[name]
    stand_for = [OmegaConf.from_dotlist(row["settings"].split(" ")) for row in printed(name)]
    found = [
        values(one, keys)
        if name != "table6"
        else (one.model.trained if one.model.trained == "all" else None, OmegaConf.select(one, FUSION))
        for one in stand_for
    ]
    # Table 3 (e) is AIBNet-S as it is; table 5 has two encoders, and (a), which is not pre-trained.
    expected = {"table3": [*rows, rows[-1]], "table5": [rows[0], *rows, *rows]}.get(name, rows)
    assert found == expected


FUSION = "model.net.fusion._target_"


def test_the_printed_cells_of_aibnet_are_those_of_the_paper():
    psnr = {name: [row["psnr_db"] for row in printed(name)] for name in AIBNET_ROWS}
    assert psnr == {
        "table3": ["33.62", "33.93", "33.92", "34.32", "34.47"],
        "table4": ["34.22", "34.35", "34.40", "34.43", "34.47", "34.46"],
        "table5": ["34.74", "34.89", "34.87", "34.89", "34.95"],
        "table6": ["34.78", "34.86", "34.84", "34.95"],
        "table8": ["34.47", "34.31", "34.23"],
        "table9": ["34.47", "34.35", "34.36"],
    }
    assert [row["delta_parameters_m"] for row in printed("table6")] == ["", "+6.12", "+1.32", "-122.01"]
    for name in AIBNET_ROWS:
        for row in printed(name):
            assert row["dataset"] == "GoPro"
            assert row["source"] == f"AIBNet, table {name.removeprefix('table')}"
            differs = float(row["psnr_db"]) - float(psnr[name][0]) - float(row["delta_psnr_db"] or 0)
            # Where the paper's differences do not add up, a note says so.
            assert abs(differs) < 0.006 or "0.21 above" in row["note"]
    own = {row["label"]: row for row in printed("table1") if row["dataset"] == "GoPro"}
    hide = {row["label"]: row for row in printed("table1") if row["dataset"] == "HIDE"}
    assert len(own) == 12
    assert len(hide) == 11
    for size, scores in {
        "S": ("34.47", "0.971", "32.19", "0.949"),
        "B": ("34.69", "0.972", "32.35", "0.952"),
        "L": ("34.95", "0.974", "32.41", "0.953"),
    }.items():
        both = (own[f"AIBNet-{size}"], hide[f"AIBNet-{size}"])
        assert tuple(row[key] for row in both for key in ("psnr_db", "ssim")) == scores
    assert {(row["label"], row["dataset"]): row["psnr_db"] for row in printed("table2")} | {
        ("AIBNet-L", "RealBlur-R"): "41.44", ("AIBNet-L", "RealBlur-J"): "34.09",
        ("AdaRevD-L", "RealBlur-R"): "41.19", ("AdaRevD-L", "RealBlur-J"): "33.96",
    } == {(row["label"], row["dataset"]): row["psnr_db"] for row in printed("table2")}  # fmt: skip
    assert [row["multiply_adds_g"] for row in printed("table7")] == ["348", "461", "114", "228", "456"]
    assert [row["multiply_adds_g"] for row in printed("table10")] == [
        "777",
        "439",
        "460",
        "114",
        "228",
        "456",
    ]
