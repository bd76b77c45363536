"""A run goes on from its newest whole checkpoint and with its own settings."""

import json
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from deblur_lab.errors import CheckpointError, ConfigurationError
from deblur_lab.run_folders import (
    Reached,
    claim,
    has_saved,
    make_free,
    newest_checkpoint,
    other_machine,
    require_same_settings,
    resumed_settings,
    run_of,
    set_aside,
)
from deblur_lab.saving import AtomicCheckpoints


def test_a_folder_is_claimed_once(tmp_path):
    claim(tmp_path, OmegaConf.create({"seed": 1}))
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"
    with pytest.raises(ConfigurationError, match="holds a run already: go on with it by resume="):
        claim(tmp_path, OmegaConf.create({"seed": 2}))
    assert os.listdir(tmp_path) == ["config.yaml"]


# From where


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run with two checkpoints, of steps 10 and 15."""
    for step in (10, 15):
        save(tmp_path / "checkpoints" / "last.ckpt", step)
    return tmp_path


def save(path: Path, step: int) -> None:
    AtomicCheckpoints().save_checkpoint(
        {"global_step": step, "w": torch.rand(5000), "deblur_lab": {"torch": "2"}}, path
    )


def damage(path: Path) -> None:
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 1
    path.write_bytes(altered)


def test_the_last_is_taken(run):
    reached = newest_checkpoint(run)
    assert (reached.checkpoint.name, reached.step, reached.passed_over) == ("last.ckpt", 15, "")
    assert reached.record == {"torch": "2"}


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "zeros", "text", "gone"])
def test_where_the_last_is_damaged_the_one_before_is_taken_and_the_damage_named(run, how):
    last = run / "checkpoints" / "last.ckpt"
    size = last.stat().st_size
    if how == "flipped":
        damage(last)
    elif how == "gone":
        last.unlink()
    else:
        last.write_bytes(
            {
                "truncated": last.read_bytes()[: size // 2],
                "empty": b"",
                "zeros": bytes(size),  # as a power cut may leave it
                "text": b"not a checkpoint",
            }[how]
        )
    reached = newest_checkpoint(run)
    assert (reached.checkpoint.name, reached.step) == ("previous.ckpt", 10)
    assert "last.ckpt" in reached.passed_over
    assert "\n" not in reached.passed_over
    # The next saving must not put the damaged one in the place of the whole one.
    set_aside(run, reached)
    save(last, 12)
    assert newest_checkpoint(run).step == 12
    damage(last)
    assert newest_checkpoint(run).step == 10
    assert (run / "checkpoints" / "aside.ckpt").exists() == (how != "gone")


def test_the_newest_is_the_one_of_the_most_steps_whatever_its_time(run):
    last, previous = (run / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    last.rename(run / "x")
    previous.rename(last)
    (run / "x").rename(previous)
    os.utime(previous, (1, 1))
    reached = newest_checkpoint(run)
    assert (reached.checkpoint.name, reached.step) == ("previous.ckpt", 15)
    assert reached.passed_over == f"{last} is of step 10 alone"
    set_aside(run, reached)
    assert newest_checkpoint(run).step == 15


def test_where_both_are_damaged_both_are_named(run):
    for name in ("last.ckpt", "previous.ckpt"):
        damage(run / "checkpoints" / name)
    with pytest.raises(CheckpointError) as caught:
        newest_checkpoint(run)
    message = str(caught.value)
    assert message.startswith(f"resume={run}: no checkpoint is whole: ")
    assert message.count("wrong checksum") == 2
    assert "last.ckpt" in message
    assert "previous.ckpt" in message
    assert message.endswith("; start anew")
    save(run / "checkpoints" / "best.ckpt", 5)
    with pytest.raises(CheckpointError, match=r"start anew, perhaps with init_from=.*best\.ckpt$"):
        newest_checkpoint(run)


def test_one_that_would_run_code_is_refused_and_none_taken_instead(run):
    torch.save({"global_step": 99, "x": json.JSONDecoder}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is refused: .*json\.decoder\.JSONDecoder"):
        newest_checkpoint(run)


def test_a_checkpoint_of_something_else_is_named(run):
    torch.save({"params": {}}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is not the checkpoint of a run"):
        newest_checkpoint(run)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoints/last\.ckpt to go on from"):
        newest_checkpoint(tmp_path)


def test_what_resume_names_is_understood(run):
    with pytest.raises(
        ConfigurationError, match=r"is not the folder of a run: there is no config\.yaml in it$"
    ):
        run_of(str(run))
    (run / "config.yaml").touch()
    assert run_of(str(run)) == run
    with pytest.raises(ConfigurationError) as caught:
        run_of(f"{run}/checkpoints/last.ckpt")
    assert str(caught.value).endswith(f"last.ckpt is a file: name the folder of the run, resume={run}")
    with pytest.raises(ConfigurationError, match=f"did you mean resume={run}?"):
        run_of(f"{run}/checkpoints")


def test_a_stage_is_gone_on_with_by_its_whole(tmp_path):
    stage = tmp_path / "run" / "stages" / "2-two"
    (stage / "checkpoints").mkdir(parents=True)
    (stage / "config.yaml").touch()
    (stage / "checkpoints" / "last.ckpt").touch()
    assert run_of(str(stage)) == stage  # a folder that is called so
    (tmp_path / "run" / "config.yaml").write_text("stages: {one: {}, two: {}}")
    with pytest.raises(ConfigurationError, match=f"go on with the whole, by resume={tmp_path}/run$"):
        run_of(str(stage))
    with pytest.raises(ConfigurationError, match=f"is a file: .*, resume={tmp_path}/run$"):
        run_of(str(stage / "checkpoints" / "last.ckpt"))
    with pytest.raises(ConfigurationError, match=f"did you mean resume={tmp_path}/run\\?"):
        run_of(str(stage.parent))


def test_what_a_whole_has_written_is_taken_back_unless_a_stage_has_saved(tmp_path):
    stage = tmp_path / "run" / "stages" / "1-one"
    (stage / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv"):
        (stage / name).touch()
    (tmp_path / "run" / "config.yaml").touch()
    last = stage / "checkpoints" / "last.ckpt"
    last.touch()
    assert has_saved(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="holds a run already"):
        make_free(tmp_path / "run")
    last.unlink()
    make_free(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []


# With what

CHANGEABLE = ("data.root", "data.num_workers", "logger", "evaluate")


def settings(**changes: object) -> dict:
    plain = {
        "seed": 0,
        "evaluate": True,
        "resume": None,
        "output": "run",
        "logger": {},
        "data": {
            "root": "/a",
            "num_workers": 2,
            "patch_size": 32,
            "sources": [{"_target_": "ReLoBlur", "root": "${data.root}"}],
        },
        "model": {"net": {"width": 4, "blocks": [1, 1]}},
    }
    config = OmegaConf.create(plain)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False)
    return config


def test_what_is_as_it_was_may_be_typed_again():
    saved = settings()
    typed = ["resume=run", "output=run", "++data.patch_size=32", "++model.net.blocks=[1,1]", "data=reloblur"]
    composed = settings(resume="run", data__root="???")
    assert resumed_settings(saved, composed, typed, CHANGEABLE) == []
    assert saved == settings()


def test_what_may_change_changes_and_is_shown():
    saved = settings()
    composed = settings(
        data__root="/b", data__num_workers=0, evaluate=False, logger={"tb": {"dir": "x"}}, seed=5
    )
    typed = ["data.root=/b", "++data.num_workers=0", "evaluate=false", "logger=tensorboard"]
    shown = resumed_settings(saved, composed, typed, CHANGEABLE)
    assert shown == [
        "data.root: /a -> /b",
        "data.num_workers: 2 -> 0",
        "evaluate: true -> false",
        "logger.tb.dir: not set -> x",
    ]
    # What was not typed stays the run's own, whatever the default is now.
    assert saved == settings(
        data__root="/b", data__num_workers=0, evaluate=False, logger={"tb": {"dir": "x"}}
    )
    assert resumed_settings(saved, settings(), ["logger=csv"], CHANGEABLE) == ["logger.tb.dir: x -> not set"]
    assert saved.logger == {}


@pytest.mark.parametrize(
    ("typed", "changes", "shown"),
    [
        ("++model.net.width=8", {"model__net__width": 8}, "model.net.width: 4 -> 8"),
        ("++model.net.blocks=[2,1]", {"model__net__blocks": [2, 1]}, "model.net.blocks: [1, 1] -> [2, 1]"),
        ("++data.rooot=x", {"data__rooot": "x"}, "data.rooot: not set -> x"),
        ("seed=null", {"seed": None}, "seed: 0 -> null"),
        ("output=other", {"output": "other"}, "output: run -> other"),
        (
            "data=gopro",
            {"data__sources": [{"_target_": "GoPro", "root": "${data.root}"}]},
            "data.sources[0]._target_: ReLoBlur -> GoPro",
        ),
        ("experiment=demo", {"seed": 3, "model__net__width": 8}, "seed: 0 -> 3, model.net.width: 4 -> 8"),
    ],
)
def test_what_would_make_it_another_run_is_refused_with_old_and_new(typed, changes, shown):
    saved = settings()
    with pytest.raises(ConfigurationError) as caught:
        resumed_settings(saved, settings(**changes), [typed, "data.num_workers=2"], CHANGEABLE)
    assert str(caught.value) == (
        f"{shown} would make this another run; with resume= only these may change: {', '.join(CHANGEABLE)}"
    )
    assert saved == settings()


def test_a_configuration_that_was_edited_is_told_from_one_that_may_differ(tmp_path):
    saved, now = plain(), plain()
    reached = Reached(tmp_path / "last.ckpt", 5, {"config": saved})
    now |= {"output": "elsewhere", "evaluate": False, "logger": {"tb": 1}, "datamodule": {"root": "/b"}}
    now["data"] |= {"root": "/b", "num_workers": 0, "sources": [{"_target_": "ReLoBlur", "root": "/b"}]}
    require_same_settings(tmp_path, reached, now, CHANGEABLE)
    require_same_settings(tmp_path, Reached(tmp_path / "last.ckpt", 5, {}), now, CHANGEABLE)
    now["seed"] = 1
    del now["model"]["net"]["blocks"]
    with pytest.raises(ConfigurationError) as caught:
        require_same_settings(tmp_path, reached, now, CHANGEABLE)
    assert str(caught.value) == (
        f"{tmp_path}/config.yaml was edited since last.ckpt was saved: seed: 0 -> 1, model.net.blocks: "
        f"[1, 1] -> not set; put it back, or start a new run with init_from={tmp_path}/last.ckpt"
    )


def test_what_a_stage_may_do_differently_is_what_a_run_may():
    saved = settings(stages={"one": {"trainer": {"max_steps": 3}}, "two": {}})
    composed = settings(stages={"one": {"evaluate": False, "trainer": {"max_steps": 3}}, "two": {}})
    typed = ["resume=run", "++stages.one.evaluate=false", "++stages.one.trainer.max_steps=3"]
    assert resumed_settings(saved, composed, typed, CHANGEABLE) == ["stages.one.evaluate: not set -> false"]
    assert saved.stages.one == {"trainer": {"max_steps": 3}, "evaluate": False}
    composed.stages.one.trainer.max_steps = 4
    with pytest.raises(ConfigurationError, match=r"^stages\.one\.trainer\.max_steps: 3 -> 4 would make"):
        resumed_settings(saved, composed, typed, CHANGEABLE)


def test_files_in_the_folder_of_a_run_that_was_moved_are_the_same(tmp_path):
    saved, now = plain(), plain()
    saved["model"]["start"], now["model"]["start"] = "run/a.ckpt", "moved/a.ckpt"
    now["output"] = "moved"
    require_same_settings(tmp_path, Reached(tmp_path / "last.ckpt", 5, {"config": saved}), now, CHANGEABLE)
    now["model"]["start"] = "other/a.ckpt"
    with pytest.raises(ConfigurationError, match=r"model\.start: moved/a\.ckpt -> other/a\.ckpt"):
        require_same_settings(tmp_path, Reached(tmp_path / "x", 5, {"config": saved}), now, CHANGEABLE)


def plain() -> dict:
    return OmegaConf.to_container(settings(), resolve=True)


def test_of_many_differences_five_are_shown():
    saved, composed = settings(), settings()
    for number in range(8):
        composed.model.net[f"x{number}"] = number
    with pytest.raises(ConfigurationError, match=r"x0: .*x4: not set -> 4 and 3 more would make") as caught:
        resumed_settings(saved, composed, ["model=other"], CHANGEABLE)
    assert "x5" not in str(caught.value)


def test_what_a_run_was_not_begun_with_is_told():
    record = {"version": "1", "commit": None, "torch": "2.10", "hardware": "2 threads", "config": {}}
    assert other_machine(record, {**record, "more": 1}) is None
    assert other_machine({}, record) is None
    told = other_machine(record, {**record, "torch": "2.11", "hardware": "8 threads"})
    assert told == (
        "PyTorch 2.10 -> 2.11, machine 2 threads -> 8 threads: weights may differ in the last digits "
        "from those of a run never stopped"
    )
