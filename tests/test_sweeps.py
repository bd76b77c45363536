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
def test_what_is_typed_is_not_swept_over(swept, typed):
    configs = swept("experiment=[m2aenet/table6,m2aenet/mask_loss]", typed, "model.loss.reblur_instants=7")
    weights = [0.5, 0.25] if "," in typed else [0.5]
    assert [(config.model.loss.mask, config.model.loss.reblur_instants) for config in configs] == [
        (weight, 7) for weight in weights
    ]


def test_two_tables_at_once_are_all_their_combinations(swept):
    configs = swept("experiment=[m2aenet/table6,m2aenet/mask_loss]")
    assert len({(config.model.loss.mask, config.model.loss.reblur_instants) for config in configs}) == 8


def test_each_job_is_announced_by_what_it_is(command):
    typed = ("-m", "seed=3,4", "model.net.width=4", "data=folder,gopro", "data.root=x", "output=sweep")
    done: list[DictConfig] = []
    code, out, lines = command("train", *typed, job=done.append)
    assert (code, lines) == (0, [])
    assert [line.partition(": ")[2] for line in out.splitlines()] == [
        f"data={config.data.sources[0]._target_.rpartition('.')[2].lower()} seed={config.seed}, "
        f"in {config.output}"
        for config in done
    ]


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
    cells = {name: [tuple(row[score] for score in scores) for row in published(name)] for name in NAMES}
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
