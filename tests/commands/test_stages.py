"""A training in stages, stopped at any moment, comes to what one that was never stopped comes to."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from deblur_lab.checkpoints import load_net
from tests.commands.conftest import arguments_of_trained
from tests.commands.processes import Running, forked
from tests.commands.runs import assert_same_state, checkpoint_of, largest_difference, results_of, rows_of
from tests.commands.test_resume import logged

# The nets of the last two have the same tensors.
STAGES = (
    "+stages.one.trainer.max_steps=4",
    "+stages.two.trainer.max_steps=8",
    "+stages.two.model.net.middle_blocks=2",
    "+stages.two.model.optimizer.lr=0.002",
    "+stages.two.checkpoint_every_steps=2",
    "+stages.three.trainer.max_steps=3",
    "+stages.three.model.net.middle_blocks=2",
)
STEPS = {"one": 4, "two": 8, "three": 3}
FOLDERS = ("1-one", "2-two", "3-three")


def arguments(datasets: Path, *more: str) -> list[str]:
    typed = arguments_of_trained(datasets, "pictures=1", *STAGES, "output=run", *more)
    # Every stage has its own number of steps: one for all would be refused.
    return ["model=nafnet", *(key for key in typed if not key.startswith("trainer.max_steps="))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, datasets) -> Path:
    """A folder that holds `run`, trained in three stages, and what it said."""
    folder = tmp_path_factory.mktemp("stages")
    ended = forked("deblur_lab.train", *arguments(datasets), cwd=folder).succeeded()
    (folder / "said").write_text(ended.stdout, encoding="utf-8")
    return folder


@pytest.fixture
def own(whole, tmp_path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(whole / "run", tmp_path / "run"))


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_each_stage_has_a_folder_of_its_own_and_the_whole_has_the_results_of_the_last(whole):
    run = whole / "run"
    of_a_run = {"config.yaml", "metrics.csv", "scores.json", "scores.csv"}
    checkpoints = {f"checkpoints/{name}.ckpt" for name in ("last", "best", "previous")}
    for name in FOLDERS:
        there = files_of(run / "stages" / name)
        assert of_a_run | {"costs.json", "checkpoints/last.ckpt"} <= there
        assert {path for path in there if path.startswith("checkpoints/")} <= checkpoints
    there = {path for path in files_of(run) if not path.startswith("stages/")}
    of_the_last = {path for path in files_of(run / "stages" / "3-three") if path.startswith("pictures/")}
    # Its three steps are over before its first validation.
    results = {*of_a_run, "checkpoints/last.ckpt", *of_the_last}
    assert there == results | {"stages.csv", "stages.json"}
    for path in results - {"config.yaml"}:
        assert (run / path).read_bytes() == (run / "stages" / "3-three" / path).read_bytes()
    assert (run / "checkpoints" / "last.ckpt").samefile(run / "stages/3-three/checkpoints/last.ckpt")


def test_each_stage_is_what_it_sets_and_what_the_whole_sets(whole):
    configs = [
        yaml.safe_load((whole / "run" / "stages" / name / "config.yaml").read_text()) for name in FOLDERS
    ]
    assert [config["trainer"]["max_steps"] for config in configs] == list(STEPS.values())
    assert [config["model"]["net"]["middle_blocks"] for config in configs] == [1, 2, 2]
    assert [config["model"]["optimizer"]["lr"] for config in configs] == [0.001, 0.002, 0.001]
    assert {config["output"] for config in configs} == {"run"}
    assert [config["stages"] for config in configs] == [{}, {}, {}]
    # Each schedule ends with its own stage.
    records = [
        checkpoint_of(whole / "run" / "stages" / name)["deblur_lab"]["config"]["model"]["scheduler"]
        for name in FOLDERS
    ]
    assert [record["total_steps"] for record in records] == list(STEPS.values())


def test_a_stage_starts_from_the_weights_of_the_one_before(whole):
    said = (whole / "said").read_text(encoding="utf-8")
    begins = r"stage 2 of 3, two: starting from run/stages/1-one/checkpoints/last\.ckpt; \d+ tensors that it"
    assert re.search(begins, said)
    assert "stage 3 of 3, three: starting from run/stages/2-two/checkpoints/last.ckpt\n" in said
    assert "stage 2 of 3, two: trained to step 8 in " in said
    assert said.endswith("everything is in run\n")


def test_the_table_says_what_each_stage_took_and_reached(whole):
    rows = rows_of(whole / "run" / "stages.csv")
    assert [(row["stage"], int(row["steps"])) for row in rows] == list(STEPS.items())
    assert int(rows[0]["parameters"]) < int(rows[1]["parameters"]) == int(rows[2]["parameters"])
    for row, name in zip(rows, FOLDERS, strict=True):
        assert row["trained_parameters"] == row["parameters"]
        assert 0 < float(row["seconds"]) < 600
        (result,) = results_of(whole / "run" / "stages" / name)
        assert float(row["psnr_db"]) == result["scores"]["psnr_db"]
        assert int(row["peak_memory_bytes"]) >= 0
    contents = json.loads((whole / "run" / "stages.json").read_text())["stages"]
    assert [row["stage"] for row in contents] == list(STEPS)
    assert (whole / "said").read_text(encoding="utf-8").count("stages of run") == 3


def test_a_finished_whole_is_left_alone(own):
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    said = forked("deblur_lab.train", "resume=run", cwd=own.parent).succeeded().stdout
    assert said == "run is finished: its 3 stages are done; nothing was done\n"
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()} == before


def test_its_checkpoint_and_scores_are_those_of_any_run(own, datasets):
    load_net(own / "checkpoints" / "last.ckpt")
    typed = ("checkpoint=run/checkpoints/last.ckpt", "data=reloblur", f"data.root={datasets / 'ReLoBlur'}")
    few = ("data.num_workers=0", "trainer=cpu", "pictures=0", "output=scored")
    forked("deblur_lab.evaluate", *typed, *few, cwd=own.parent).succeeded()
    assert results_of(own.parent / "scored") == results_of(own)
    forked("deblur_lab.report", "runs=run", "output=page", cwd=own.parent).succeeded()
    tables = (own.parent / "page" / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", tables, re.MULTILINE) == ["run on reloblur (made up)", "stages of run"]
    assert "| two | 8 | " in tables
    page = (own.parent / "page" / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 2
    assert "stages of run" in page


def test_killed_in_the_second_stage_it_comes_to_the_same(tmp_path, datasets, whole):
    running = Running("deblur_lab.train", *arguments(datasets), cwd=tmp_path, forked=True)
    second = tmp_path / "run" / "stages" / "2-two"
    running.wait_until((second / "checkpoints" / "last.ckpt").exists)
    running.send(signal.SIGKILL)
    assert running.ended().code == -signal.SIGKILL
    reached = checkpoint_of(second)["global_step"]
    first = tmp_path / "run" / "stages" / "1-one" / "checkpoints" / "last.ckpt"
    before = first.stat().st_mtime_ns

    typed = ("resume=run", "stages.two.checkpoint_every_steps=3", "pictures=1")
    said = forked("deblur_lab.train", *typed, cwd=tmp_path).succeeded().stdout
    assert "other settings than before: stages.two.checkpoint_every_steps: 2 -> 3\n" in said
    assert f"stage 2 of 3, two: going on with run/stages/2-two from step {reached}\n" in said
    assert first.stat().st_mtime_ns == before
    for name in FOLDERS:
        assert_same_state(tmp_path / "run" / "stages" / name, whole / "run" / "stages" / name)
    assert_same_state(tmp_path / "run", whole / "run")
    assert results_of(tmp_path / "run") == results_of(whole / "run")


def test_killed_between_two_stages_it_comes_to_the_same(tmp_path, datasets, whole):
    running = Running("deblur_lab.train", *arguments(datasets), cwd=tmp_path, forked=True)
    running.wait_until((tmp_path / "run" / "stages" / "1-one" / "costs.json").exists)
    running.send(signal.SIGKILL)
    assert running.ended().code == -signal.SIGKILL
    assert not (tmp_path / "run" / "stages" / "2-two" / "checkpoints").exists()
    forked("deblur_lab.train", "resume=run", cwd=tmp_path).succeeded()
    assert_same_state(tmp_path / "run", whole / "run")


@pytest.mark.parametrize(
    "lost",
    [
        # The last stage is scored, and nothing says that it is done.
        ["stages/3-three/costs.json", "stages.csv", "stages.json", "checkpoints/last.ckpt", "scores.json"],
        # Its files are being put into the folder of the whole.
        ["checkpoints/last.ckpt", "scores.csv", "stages.csv"],
        # It has begun, and saved nothing.
        ["checkpoints/last.ckpt", "stages/3-three/checkpoints", "stages/3-three/costs.json"],
    ],
)
def test_killed_near_its_end_it_comes_to_the_same(own, whole, lost):
    for name in lost:
        path = own / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = forked("deblur_lab.train", "resume=run", cwd=own.parent).succeeded().stdout
    assert "stage 1 of 3" not in said
    assert "stage 2 of 3" not in said
    assert_same_state(own, whole / "run")
    assert results_of(own) == results_of(whole / "run")
    rows, all_rows = rows_of(own / "stages.csv"), rows_of(whole / "run" / "stages.csv")
    assert [row["psnr_db"] for row in rows] == [row["psnr_db"] for row in all_rows]
    assert files_of(own) == files_of(whole / "run")


def test_sigterm_ends_the_whole_and_tells_how_to_go_on(tmp_path, datasets):
    endless = ("+stages.two.val_every_steps=100000", "+stages.two.trainer.max_steps=100000", "evaluate=false")
    running = Running("deblur_lab.train", *arguments(datasets, *endless), cwd=tmp_path, forked=True)
    second = tmp_path / "run" / "stages" / "2-two"
    running.wait_until(lambda: logged(second) >= 1)
    running.send(signal.SIGTERM)
    ended = running.ended()
    assert ended.code == 143
    assert ended.stderr == ""
    way_on = "stage 2 of 3, two: stopped by SIGTERM; go on with: python -m deblur_lab.train resume=run\n"
    assert ended.stdout.endswith(way_on)
    assert not (tmp_path / "run" / "run.lock").exists()
    told = forked("deblur_lab.train", "resume=run/stages/2-two", cwd=tmp_path).failed(2)
    assert told == ("resume=run/stages/2-two is one stage of a training: go on with the whole, by resume=run")
    told = forked("deblur_lab.train", "resume=run", "stages.two.model.optimizer.lr=1", cwd=tmp_path).failed(2)
    assert told.startswith("stages.two.model.optimizer.lr: 0.002 -> 1 would make this another run")
    told = forked("deblur_lab.train", *arguments(datasets), cwd=tmp_path).failed(2)
    assert told.startswith("output=run holds a run already: go on with it by resume=run")


def test_what_a_stage_leads_to_stands_for_it(tmp_path, datasets, whole):
    """A trained B is the start of an L."""
    weights = tmp_path / "trained.ckpt"
    shutil.copy(whole / "run" / "stages" / "1-one" / "checkpoints" / "last.ckpt", weights)
    typed = arguments(datasets, f"init_from={weights}", "evaluate=false")
    said = forked("deblur_lab.train", *typed, cwd=tmp_path).succeeded().stdout
    assert f"{weights} is what stage 1 of 3, one leads to: it is not trained again\n" in said
    assert_same_state(tmp_path / "run", whole / "run")
    assert [row["stage"] for row in rows_of(tmp_path / "run" / "stages.csv")] == ["two", "three"]
    # Killed when the mark was there, and the file not yet.
    taken = tmp_path / "run" / "stages" / "1-one" / "checkpoints" / "last.ckpt"
    taken.unlink()
    for name in FOLDERS[1:]:
        shutil.rmtree(tmp_path / "run" / "stages" / name)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    forked("deblur_lab.train", "resume=run", cwd=tmp_path).succeeded()
    assert taken.is_file()
    assert_same_state(tmp_path / "run", whole / "run")
    weights.unlink()
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    forked("deblur_lab.train", "resume=run", cwd=tmp_path).succeeded()


def test_on_two_devices(tmp_path, datasets, whole):
    two = arguments(datasets, "trainer.devices=2", "trainer.strategy=ddp", "evaluate=false")
    said = forked("deblur_lab.train", *two, cwd=tmp_path, spares=len(STEPS)).succeeded()
    assert said.stderr == ""
    for name, steps in STEPS.items():
        assert said.stdout.count(f"{name}: trained to step {steps} in") == 1
    assert largest_difference(whole / "run", tmp_path / "run") < 2e-5
    assert checkpoint_of(tmp_path / "run")["global_step"] == 3


def test_everything_wrong_in_any_stage_is_told_as_it_is_typed(tmp_path, datasets):
    wrong = (
        "+stages.two.model.optimizer.lr=-1",
        "+stages.three.data.batch_size=0",
        "stages.three.trainer.max_step=5",
        "stages.onne.pictures=5",
        "+model.colour=red",
    )
    ended = forked("deblur_lab.train", *arguments(datasets, *wrong), cwd=tmp_path)
    assert ended.code == 2
    for line in (
        "stages.two.model.optimizer.lr=-1: more than 0 is expected",
        "stages.three.data.batch_size=0: 1 or more is expected",
        "no setting stages.three.trainer.max_step: did you mean stages.three.trainer.max_steps?",
        "there is no setting stages.onne.pictures: did you mean stages.one?",
        " model.colour is not a setting of deblur_lab.tasks.RestorationTask: ",
    ):
        assert ended.stderr.count(line) == 1, ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_stage_that_diverges_ends_the_whole(tmp_path, datasets):
    wild = ("+stages.two.model.optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    ended = forked("deblur_lab.train", *arguments(datasets, *wild), cwd=tmp_path)
    told = ended.failed(6)
    assert told.startswith("stage 2 of 3, two: ")
    assert "start anew with a smaller stages.two.model.optimizer.lr or trainer.gradient_clip_val" in told
    assert (tmp_path / "run" / "stages" / "2-two" / "diverged.json").exists()
    assert not (tmp_path / "run" / "stages" / "3-three").exists()


def test_a_mistake_that_the_first_stage_meets_leaves_the_folder_free(tmp_path, datasets):
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.ckpt")
    told = forked("deblur_lab.train", *arguments(datasets, "init_from=other.ckpt"), cwd=tmp_path).failed(4)
    assert told.startswith("stage 1 of 3, one: checkpoint other.ckpt does not fit NAFNet")
    assert not (tmp_path / "run").exists()
