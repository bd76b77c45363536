"""What is typed reaches the configuration as it was typed; what is wrong with it is told, all at once."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from deblur_lab import __version__
from deblur_lab.command_line import as_typed, formatted_warning
from deblur_lab.endings import reporting
from deblur_lab.errors import CheckpointError, UserError
from tests.typed import yaml


@pytest.mark.parametrize(
    "path",
    [
        "/data/ReLoBlur",
        "/data/My Photos (2024) [raw]",
        "runs/a=b,c",
        "it's/here",
        "C:\\photos\\new",
        "ends in backslash\\",
        "a\\'b",
        "{x}",
        "${x}",
        "фото/写真",
    ],
)
def test_paths_are_taken_as_typed(path):
    override = OverridesParser.create().parse_override(as_typed(f"checkpoint={path}"))
    assert override.key_or_group == "checkpoint"
    config = OmegaConf.create({"checkpoint": override.value()})
    assert config.checkpoint == path


def test_other_settings_keep_hydras_grammar():
    override = OverridesParser.create().parse_override(as_typed("model.net.encoder_blocks=[1,2]"))
    assert override.value() == [1, 2]


def test_null_paths_stay_null():
    assert OverridesParser.create().parse_override(as_typed("resume=null")).value() is None


# Commands up to their work, in this process.


def test_what_is_right_is_composed_and_done_once(command):
    done: list[DictConfig] = []
    assert command("train", "seed=3", "model=nafnet", job=done.append) == (0, "", [])
    assert [(config.seed, config.model.net.width) for config in done] == [(3, 32)]


def test_all_that_is_wrong_is_told_at_once(told):
    typed = (
        "modle=nafnet model=m2anet data=relobur model.net.widht=3 trainer.max_step=3 net.width=8 batch_size=4"
    )
    typed += " model.net.encoder_blocks=[1 pictures=-1 seed=x init_from="
    assert told("train", *typed.split()) == [
        "model.net.encoder_blocks=[1 cannot be read: text with special characters is quoted, as "
        "model.net.encoder_blocks='a value'",
        "init_from has no value: give it as init_from=..., or init_from=null for none",
        "there is no model=m2anet: did you mean m2aenet?",
        "there is no data=relobur: did you mean reloblur?",
        "there is no setting modle: did you mean model?",
        "there is no setting model.net.widht: did you mean model.net.width?",
        "there is no setting trainer.max_step: did you mean trainer.max_steps?",
        "there is no setting net.width: did you mean model.net.width?",
        "there is no setting batch_size: did you mean data.batch_size?",
        "seed=x: a whole number is expected",
        "pictures=-1: 0 or more is expected",
    ]


ALONE = [
    ("train", "--model nafnet", "there is no flag --model: settings have no dashes: model=..."),
    ("train", "--batch-size=4", "there is no flag --batch-size=4: settings have no dashes: batch_size=4"),
    ("train", "--confg-dir x", "there is no flag --confg-dir: did you mean --config-dir?"),
    ("train", "--config-dir", "--config-dir/-cd: expected one argument"),
    ("train", "--config-dir nowhere", "--config-dir nowhere is no folder: name the one of your YAMLs"),
    ("train", "--experimental-rerun x", "there is no flag --experimental-rerun: settings have no dashes: "),
    ("train", "--info x", "--info/-i: invalid choice: 'x' (choose from "),
    ("train", "-m --cfg job", "--multirun and --cfg exclude each other: give one of them"),
    ("train", "--resolve", "--resolve goes with --cfg or --help"),
    ("train", "--package x", "--package goes with --cfg"),
    ("train", "-m seed=0,1 resume=x", "resume= goes on with one run: leave -m out"),
    ("evaluate", "-m checkpoint=x", "-m runs several trainings: call evaluate once for each"),
    ("train", "--cfg job --package nets", "--package nets: there is no such part of the configuration"),
    ("train", "--help sed=1", "there is no setting sed: did you mean seed?"),
    ("train", "-m model.net.width=4,x", "model.net.width=x: a whole number is expected"),
    ("train", "~seed", "seed was taken away, but is needed: leave ~seed out"),
    ("train", "data=reloblur", "data.root is not set: give it on the command line, as data.root=..."),
    (
        "train",
        "experiment=m2aenet/tabel3",
        "there is no experiment=m2aenet/tabel3: did you mean m2aenet/table3",
    ),
    ("train", "model.net.predictor_stages=[9]", "model.net: predictor_stages is [9]: give encoder stages "),
]


@pytest.mark.parametrize(("name", "typed", "expected"), ALONE)
def test_one_line_for_one_mistake(told, name, typed, expected):
    (line,) = told(name, *typed.split())
    assert line.startswith(expected)


TOGETHER = {
    "what cannot be composed": (
        "train",
        {
            "foo": "foo cannot be read: settings are given as key=value",
            "data.sources[0].name=x": "data.sources[0].name=x cannot be read: an item of a list is given as "
            "data.sources.0.name=...",
            "pictures=1 pictures=2": "pictures is given twice, as pictures=1 and as pictures=2",
            "model=null": "there is no model=null: there are aibnet_b, aibnet_b_from_nothing",
            "data=base": "there is no data=base: there are folder, gopro, gopro_reloblur, hide, real",
            "experiment=dmeo": "there is no experiment=dmeo: did you mean demo?",
            "data/x=y": "there is no setting data/x: did you mean data?",
            "hydra/launcher=x": "there is no hydra/launcher=x: there are basic",
            "hydra.verbos=true": "there is no setting hydra.verbos: ",
            "+trainer=cpu": "+trainer=cpu: trainer is chosen already: leave the + out",
            "~sed": "there is no setting sed: did you mean seed?",
            "~logger": "~logger: one of csv, tensorboard, wandb is needed: choose it by logger=...",
            "+seed=3": "+seed=3: there is such a setting: leave the + out",
            "evaluate.x=1": "there is no setting evaluate.x: did you mean evaluate?",
            "data.root=x": "there is no setting data.root, as these data read no folder: choose data=reloblu",
            "init_from=": "init_from has no value: give it as init_from=..., or init_from=null for none",
            "datamodule.batch_size=8": "datamodule.batch_size follows data.batch_size: give data.batch_size=",
            "data.num_workers=1,2": "data.num_workers=1,2: several values make several runs: add -m (a list "
            "is written data.num_workers=[1,2])",
        },
    ),
    "choices": (
        "train",
        {
            "model=[m2aenet,nafnet]": "model=[m2aenet,nafnet]: one choice is expected: there are aibnet_b, ",
            "data=reloblur,gopro": "data=reloblur,gopro: several values make several runs: add -m",
        },
    ),
    "values": (
        "train",
        {
            "+ouptut=x": "there is no setting ouptut: did you mean output?",
            "++data.btch_size=4": "there is no setting data.btch_size: did you mean data.batch_size?",
            "seed=-1": "seed=-1: a number from 0 to 4294967295 is expected",
            "trusted_packages=mine": "trusted_packages=mine: [text, ...] is expected",
            "evaluate=maybe": "evaluate=maybe: true or false is expected",
            "pictures=${pictrues}": "pictures refers to ${pictrues}, which does not exist: did you mean pict",
            "trainer.max_steps=0": "trainer.max_steps=0: 1 or more is expected",
            "trainer.precision=64-true": "trainer.precision=64-true: one of 32-true, bf16-mixed, 16-mix",
            "trainer.strategy=fsdp": "trainer.strategy=fsdp: one of auto, ddp, ddp_find_unused_",
            "trainer.devices=3": "data.batch_size=8 is the batch of all devices together and cannot be share",
            "+trainer.val_check_interval=8": "trainer.val_check_interval is set by the command: give val_eve",
            "+trainer.limit_train_batches=2": "trainer.limit_train_batches is set by the command: give ",
            "+trainer.gradient_clip_algorithm=x": "trainer.gradient_clip_algorithm=x: one of norm, value or ",
            "+trainer.default_root_dir=x": "trainer.default_root_dir is set by the command: give output=",
            "+trainer.max_stps=8": "trainer.max_stps is not a setting of lightning.Trainer: did you mean max",
            "+logger.mine.x=1": "logger.mine: a logger is expected, with _target_: choose logger=csv, ",
            "model.net._target_=os.remove": "model.net._target_=os.remove is not among the names that may",
            "model.loss=3": "model.loss=3: LocalBlurLoss by _target_ is expected",
            "model.optimizer.lr=0": "model.optimizer.lr=0: more than 0 is expected",
            "data.num_workers=-1": "data.num_workers=-1: 0 or more is expected",
        },
    ),
    "evaluate": (
        "evaluate",
        {
            "model=nafnet": "there is no setting model in evaluate: the checkpoint knows its model",
            "init_from=x": "there is no setting init_from: ",
            "tlc=maybe": "tlc=maybe: one of auto, on, off, true, false is expected",
            "+trainer.max_epochs=3": "trainer.max_epochs is set by the command: give trainer.max_steps=",
            "": "checkpoint is not set: give it on the command line, as checkpoint=...",
        },
    ),
    "tlc": (
        "evaluate",
        {"checkpoint=x tlc=off tlc_size_px=8": "tlc_size_px=8 has no effect with tlc=off: leave one out"},
    ),
    "predict": (
        "predict",
        {
            "model=x": "there is no setting model in predict: the checkpoint knows its model",
            "data=gopro": "there is no setting data in predict: give the photo, or the folder of photos, as ",
            "tile_px=8": "tile_px=8, overlap_px=128: tiles of over twice the overlap are expected",
            "explain=x": "explain=x: true or false is expected",
            "checkpoint=x input=y": "output is not set: give it on the command line, as output=...",
        },
    ),
    "report": (
        "report",
        {
            "out=x": "there is no setting out: did you mean output?",
            "pictures=x": "pictures=x: a whole number is expected",
        },
    ),
}


def test_a_yaml_can_neither_open_the_list_of_names_nor_have_hydra_run_what_is_not_on_it(told, tmp_path):
    victim = tmp_path / "victim"
    victim.touch()
    unlink = f"{{_target_: pathlib.Path.unlink, self: {{_target_: pathlib.Path, _args_: ['{victim}']}}}}"
    text = f"""\
# @package _global_
trusted_packages: [os]
hydra:
  callbacks: {{nice: {unlink}}}
  launcher: {{_target_: pathlib.Path.unlink}}
  job_logging: {{handlers: {{x: {{(): os.system}}}}}}
"""
    yaml(tmp_path / "own", "experiment/nice", text)
    for more in ((), ("resume=run",), ("--cfg", "job")):
        lines = told("train", "--config-dir", "own", "experiment=nice", *more)
        assert lines[:3] == [
            "hydra.callbacks could run any code: take it out of the YAML that sets it",
            "hydra.job_logging could run any code: take it out of the YAML that sets it",
            "hydra.launcher._target_=pathlib.Path.unlink is none of Hydra's: choose hydra/launcher=basic",
        ]
        assert "trusted_packages=[os] stands in a YAML: type it, if you trust their code" in lines[3:]
    assert victim.exists()


@pytest.mark.parametrize("group", TOGETHER)
def test_each_mistake_of_many_has_its_line(told, group):
    name, mistakes = TOGETHER[group]
    lines = told(name, *" ".join(mistakes).split())
    for expected in mistakes.values():
        assert [line for line in lines if line.startswith(expected)] != [], expected
    assert len(lines) == len(mistakes)


def test_mistakes_in_ones_own_yaml_are_told_with_its_path(told, tmp_path):
    data = """\
defaults: [/_data@_here_, _self_]
root: ???
batchsize: 4
num_workers: -1
sources:
  - _target_: deblur_lab.data.Folder
    root: ${data.root}
    val_image: 3
    holdout_every: ${data.holdout}
    protocol: {_target_: deblur_lab.metrics.LocalProtocol}
"""
    yaml(tmp_path / "own", "data/mine", data)
    yaml(
        tmp_path / "own",
        "experiment/mine",
        "# @package _global_\ntrainer: {max_step: 3}\nval_every_step: 3\n",
    )
    assert told("train", "--config-dir", "own", "data=mine", "experiment=mine", "data.rot=x", "seed=x") == [
        "there is no setting data.rot: did you mean data.root?",
        "data.root is not set: give it on the command line, as data.root=...",
        "data.sources[0].holdout_every refers to ${data.holdout}, which does not exist: mend or remove it "
        "(in own/data/mine.yaml)",
        "there is no setting val_every_step: did you mean val_every_steps? (in own/experiment/mine.yaml)",
        "there is no setting data.batchsize: did you mean data.batch_size? (in own/data/mine.yaml)",
        "seed=x: a whole number is expected",
        "data.sources[0].val_image is not a setting of deblur_lab.data.Folder: did you mean val_images? "
        "(in own/data/mine.yaml)",
        "trainer.max_step is not a setting of lightning.Trainer: did you mean max_steps? "
        "(in own/experiment/mine.yaml)",
        "data.num_workers=-1: 0 or more is expected (in own/data/mine.yaml)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: [1\nb: 2\n",
            "{own}/data/mine.yaml, line 2 cannot be read as YAML: expected ',' or ']', but got ':'",
        ),
        ("a: 1\na: 2\n", "{own}/data/mine.yaml, line 2 cannot be read as YAML: found duplicate key a"),
        ("defaults: [nope]\n", "In 'data/mine': Could not load 'data/nope'."),
        ("defaults: [mine]\n", "a YAML includes itself"),
        ("defaults: [{/model: nafnett}]\n", "there is no model=nafnett: did you mean nafnet?"),
    ],
)
def test_a_yaml_of_ones_own_that_cannot_be_composed(told, tmp_path, text, expected):
    yaml(tmp_path / "own", "data/mine", text)
    (line,) = told("train", "--config-dir", "own", "data=mine")
    assert line.startswith(f"data=mine: {expected.format(own=tmp_path / 'own')}")


def test_what_one_refers_to_may_have_any_name(command, tmp_path):
    text = "# @package _global_\nmy_width: 8\nmodel: {net: {width: '${my_width}'}}\n"
    yaml(tmp_path / "my own", "experiment/mine", text)
    done: list[DictConfig] = []
    typed = ("seed=1", "--config-dir", "my own", "experiment=mine")  # flags may stand anywhere
    assert command("train", *typed, job=done.append) == (0, "", [])
    assert done[0].model.net.width == 8


def test_what_a_dataset_of_ours_sets_need_not_be_read(command):
    typed = ("data=gopro_reloblur", "data.gopro_root=a", "data.reloblur_root=b")
    assert command("train", *typed) == (0, "", [])  # without data.root
    code, _, lines = command("train", *typed, "+data.holdout_every=3")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("there is no setting data.holdout_every: there are ")


def test_flags_that_only_show(command):
    assert command("train", "--version") == (0, f"deblur_lab {__version__}\n", [])
    code, out, lines = command("train", "--cfg", "job", "data=reloblur", "pictures=x")
    assert (code, lines) == (0, [])  # it shows what is wrong, too
    assert "\npictures: x\n" in out
    assert command("train", "--cfg", "job", "--package", "trainer")[1].startswith(
        "# @package trainer\n_target_"
    )
    code, out, lines = command("train", "--help")
    assert "data: folder, gopro, gopro_reloblur, hide, realblur_j, realblur_r, reloblur, synthetic\n" in out
    assert "Hydra." not in out


@pytest.mark.parametrize("output", [(), ("output=my sweep",)])
def test_a_sweep_says_each_job_and_gives_it_a_folder_of_its_own(command, output):
    outputs: list[str] = []

    def job(config: DictConfig) -> None:
        outputs.append(config.output)
        Path(config.output, "config.yaml").touch()

    code, out, lines = command("train", "-m", "pictures=1", "seed=3,4", *output, job=job)
    assert (code, lines) == (0, [])
    root = Path("my sweep") if output else next(Path("runs/sweeps").iterdir())
    assert outputs == [f"{root}/0", f"{root}/1"]
    assert out.startswith(f"job 1 of 2: seed=3, in {root}/0\njob 2 of 2: seed=4, in {root}/1\njobs of {root}")
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert there == {"0/config.yaml", "1/config.yaml", "multirun.yaml", "sweep.json"}


def test_what_fails_in_the_work_has_its_exit_code(command):
    def job(config: DictConfig) -> None:
        raise CheckpointError("checkpoint x cannot be read")

    assert command("report", job=job) == (4, "", ["checkpoint x cannot be read"])


def test_what_nobody_thought_of_is_told_as_a_fault_of_ours(command):
    def job(config: DictConfig) -> None:
        raise KeyError("forgotten")

    code, _, lines = command("report", job=job)
    assert code == 1
    assert lines[0].startswith("Traceback")
    assert "KeyError: 'forgotten'" in lines
    assert (
        lines[-1]
        == f"error: this is a fault of deblur_lab {__version__}: please report it, with the lines above"
    )


def test_signals_have_the_exit_codes_of_signals(command):
    def interrupted(config: DictConfig) -> None:
        raise KeyboardInterrupt

    def terminated(config: DictConfig) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert command("report", job=interrupted) == (130, "", ["stopped by Ctrl-C"])
    assert command("report", job=terminated) == (143, "", ["stopped by SIGTERM"])


def test_what_is_there_until_it_is_stopped_ends_by_no_error(command, capsys):
    def interrupted(config: DictConfig) -> None:
        raise KeyboardInterrupt

    assert command("demo", "checkpoint=any.ckpt", job=interrupted) == (130, "", ["stopped by Ctrl-C"])
    with pytest.raises(SystemExit) as ended, reporting(is_to_be_stopped=True):
        raise KeyboardInterrupt
    assert (ended.value.code, capsys.readouterr().err) == (130, "stopped by Ctrl-C\n")


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for typed, meant in (("~/a b", "/home/me/a b"), ("~", "/home/me"), ("~x", "~x"), ("a/~", "a/~")):
        override = OverridesParser.create().parse_override(as_typed(f"output={typed}"))
        assert override.value() == meant


@pytest.mark.parametrize("closed", ["reader", "stdout"])
def test_work_outlives_who_reads_of_it(tmp_path, closed):
    """As in `... | head`, or where a daemon starts it without a stdout."""
    work = (
        "import sys\nfrom deblur_lab.endings import reporting\n"
        "with reporting():\n    for line in range(20000):\n        print('line', line)\n"
        "    open('done', 'w').close()\n"
    )
    by = {"reader": "| head -1", "stdout": ">&-"}[closed]
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {by}', sys.executable, work],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "done").exists()


def test_every_kind_of_mistake_has_its_exit_code(monkeypatch):
    kinds = UserError.__subclasses__()
    assert sorted(kind.exit_code for kind in kinds if kind.__module__ == "deblur_lab.errors") == [
        2,
        3,
        4,
        5,
        6,
    ]
    for kind in kinds:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        with pytest.raises(SystemExit) as ended, reporting():
            raise kind("what, where, what to do")
        assert ended.value.code == kind.exit_code
        assert sys.stderr.getvalue() == "error: what, where, what to do\n"


def test_a_warning_of_ours_is_one_line_and_others_say_where_they_are_from():
    import deblur_lab.models.published as ours

    assert formatted_warning("mind this", UserWarning, ours.__file__, 3) == "warning: mind this\n"
    theirs = formatted_warning("mind that", UserWarning, "/elsewhere/x.py", 3)
    assert theirs == "/elsewhere/x.py:3: UserWarning: mind that\n"
