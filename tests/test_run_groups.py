"""Where a run stands among others follows from the folders around it."""

import json
from pathlib import Path

import pytest

from deblur_lab.run_groups import about_training, common_group, group_of, kept_id, place_of


def sweep(folder: Path, *own: list[str]) -> Path:
    """The folder of a sweep, with a job for each list of settings."""
    rows = [{"folder": str(number), "own_settings": settings} for number, settings in enumerate(own)]
    for row in rows:
        (folder / row["folder"]).mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"command": "", "jobs": rows}), encoding="utf-8")
    return folder


def test_a_run_that_stands_alone_has_no_group(tmp_path):
    place = place_of(tmp_path / "7")  # a number alone makes no job
    assert (place.group, place.name, place.job, place.stage) == (None, "7", None, None)


def test_a_job_has_its_sweeps_group_and_its_settings_for_a_name(tmp_path):
    folder = sweep(tmp_path / "backbones", ["model=nafnet", "seed=0"], ["model=m2aenet", "seed=0"], [])
    places = [place_of(folder / str(number)) for number in range(3)]
    assert {place.group for place in places} == {"backbones"}
    assert [place.name for place in places] == ["model=nafnet seed=0", "model=m2aenet seed=0", "backbones/2"]
    assert [place.job for place in places] == [0, 1, 2]


@pytest.mark.parametrize("text", ["{", '{"jobs": [{}]}', '{"jobs": 3}'])
def test_a_sweeps_file_that_says_nothing_leaves_the_folders_name(tmp_path, text):
    folder = sweep(tmp_path / "s", [])
    (folder / "sweep.json").write_text(text, encoding="utf-8")
    assert (place_of(folder / "0").group, place_of(folder / "0").name) == ("s", "s/0")


def test_long_settings_are_cut(tmp_path):
    name = place_of(sweep(tmp_path / "s", [f"model.loss={'x' * 300}"]) / "0").name
    assert len(name) == 100
    assert name.endswith("xxx...")


def test_a_trial_of_a_search_has_the_searches_group(tmp_path):
    (tmp_path / "found" / "3").mkdir(parents=True)
    (tmp_path / "found" / "search.journal").touch()
    place = place_of(tmp_path / "found" / "3")
    assert (place.group, place.name, place.job) == ("found", "found/3", 3)


def test_stages_are_a_group_and_in_a_sweep_that_of_the_sweep(tmp_path):
    place = place_of(tmp_path / "run" / "stages" / "2-deep")
    assert (place.group, place.name, place.stage) == ("run", "2-deep", "deep")
    job = sweep(tmp_path / "s", ["seed=1"]) / "0"
    place = place_of(job / "stages" / "1-encoder")
    assert (place.group, place.name, place.job, place.stage) == ("s", "seed=1 1-encoder", 0, "encoder")


def test_the_group_that_was_recorded_wins_and_only_a_common_one_counts(tmp_path):
    folder = sweep(tmp_path / "s", ["seed=0"], ["seed=1"])
    assert group_of(folder) == "s"
    assert common_group([folder / "0", folder / "1"]) == "s"
    (folder / "0" / "wandb").mkdir()
    (folder / "0" / "wandb" / "run_group").write_text("chosen\n", encoding="utf-8")
    assert group_of(folder / "0") == "chosen"
    assert common_group([folder / "0", folder / "1"]) is None
    assert common_group([folder / "0", tmp_path / "alone"]) is None


def test_what_stages_have_at_wandb_is_their_last_ones(tmp_path):
    for number in (2, 10, 9):
        folder = tmp_path / "stages" / f"{number}-x" / "wandb"
        folder.mkdir(parents=True)
        (folder / "run_id").write_text(f"id{number}\n", encoding="utf-8")
    assert kept_id(tmp_path) == "id10"
    assert kept_id(tmp_path / "stages" / "2-x") == "id2"
    assert kept_id(tmp_path / "nothing") is None


def test_what_a_training_is_filtered_by():
    net = {"_target_": "deblur_lab.models.AIBNet", "sub_decoders": 2}
    settings = {
        "model": {"net": net},
        "seed": 3,
        "experiment": ["compare/small", "mine"],
        "budget": {"steps": 1000, "multiply_adds": None},
        "trainer": {"max_steps": 400},
    }
    assert about_training(settings, ["gopro", "scenes (made up)"], Path("s/stages/2-deep")) == {
        "model": "AIBNet-B",
        "data": "gopro + scenes (made up)",
        "seed": 3,
        "experiment": "compare/small, mine",
        "budget": "1000 steps",
        "steps": 400,
        "stage": "deep",
    }
    earlier = about_training(settings, ["gopro"], Path("s/stages/2-deep"), is_last=False)
    assert earlier["model"] == "AIBNet-B, stage deep"
    assert about_training(
        {"model": {"net": {"_target_": "own.Net"}}, "seed": 0, "trainer": {"max_steps": 1}},
        ["gopro"],
        Path("x"),
    ) == {"model": "Net", "data": "gopro", "seed": 0, "steps": 1}
