"""A search: its space as it is typed, what it proposes, how it goes on, and what it leaves."""

import json
import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from deblur_lab.errors import ConfigurationError
from deblur_lab.search import Asked, Search, measured
from deblur_lab.search_space import Dimension, samples, space_of
from tests.typed import yaml

SETTINGS = {
    "trials": 12,
    "objective": "val/psnr_db",
    "of": "best",
    "direction": "auto",
    "seed": 0,
    "startup_trials": 4,
    "pruning": "none",
    "at_once": 1,
}
SPACE = [
    Dimension("model.optimizer.lr", low=1e-4, high=1e-1, log=True),
    Dimension("model.net.width", ("4", "8")),
]
FIXED = ["model=nafnet", "data.root=/data/My Photos"]

pytest.importorskip("optuna")


def parsed(*typed: str) -> list:
    return OverridesParser.create().parse_overrides(list(typed))


def psnr_db(settings: Sequence[str]) -> float:
    """Best, at 40 dB, where the learning rate is 3e-3 and the width 8."""
    values = dict(setting.split("=") for setting in settings)
    off = math.log10(float(values["model.optimizer.lr"]) / 3e-3)
    return 40 - off**2 - (values["model.net.width"] == "4")


class Trainings:
    """Stand for trainings: what they log follows from their settings.

    Args:
        codes: exit codes of trials that do not end well, by their numbers.
    """

    def __init__(self, codes: dict[int, int] | None = None) -> None:
        self.codes = codes or {}
        self.ran: list[Asked] = []

    def __call__(self, trials: Sequence[Asked]) -> Iterator[tuple[int, int]]:
        for trial in trials:
            self.ran.append(trial)
            trial.folder.mkdir(parents=True, exist_ok=True)
            best = psnr_db(trial.settings)
            log(trial.folder, {1: best - 2, 3: best, 5: best - 1})
            yield trial.number, self.codes.pop(trial.number, 0)


def log(folder: Path, values: dict[int, float], column: str = "val/psnr_db") -> None:
    lines = [f"step,train/loss,{column}", "0,1.0,", *(f"{step},,{value}" for step, value in values.items())]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def search(tmp_path) -> Callable[..., Search]:
    def make(trainings: Trainings, space: Sequence[Dimension] = SPACE, **settings: object) -> Search:
        return Search({**SETTINGS, **settings}, space, FIXED, tmp_path / "found", trainings)

    return make


@pytest.fixture
def left(tmp_path) -> Callable[[], dict]:
    return lambda: json.loads((tmp_path / "found" / "search.json").read_text(encoding="utf-8"))


def test_a_space_is_typed_in_hydras_grammar():
    space, found = space_of(
        parsed(
            "seed=3",
            "a=tag(log,interval(1e-4,1e-2))",
            "b=interval(0.5,2)",
            "c=int(interval(1,8))",
            "d=range(2,10,3)",
            "e=x,y",
            "f=choice(true,[1,2])",
            "+g=range(0.1,0.5,0.1)",
        )
    )
    assert found == []
    assert space == [
        Dimension("a", low=1e-4, high=1e-2, log=True),
        Dimension("b", low=0.5, high=2),
        Dimension("c", low=1, high=8, whole=True),
        Dimension("d", low=2, high=8, step=3, whole=True),
        Dimension("e", ("x", "y")),
        Dimension("f", ("true", "[1,2]")),
        Dimension("+g", low=0.1, high=pytest.approx(0.4), step=0.1),
    ]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("a=tag(log,interval(0,1))", "with 0 < low < high is expected"),
        ("a=interval(2,1)", "with low < high is expected"),
        ("a=tag(x,interval(1,2))", "there is no tag x: there is log"),
        ("a=tag(log,choice(1,2))", "log goes with interval(low,high)"),
        ("a=choice(1)", "two values at least are expected"),
    ],
)
def test_what_is_no_space_is_told(typed, told):
    space, (line,) = space_of(parsed(typed))
    assert not space
    assert line.startswith(typed)
    assert told in line


def test_all_that_is_searched_is_tried_out_before_the_first_training():
    assert samples([Dimension("lr", low=1e-4, high=1e-2), Dimension("model", ("a", "b", "c"))]) == [
        ["lr=0.0001", "model=a"],
        ["lr=0.0038818", "model=b"],
        ["lr=0.01", "model=c"],
    ]


def test_a_search_finds_what_is_best_and_writes_the_command_that_trains_it(search, left, capsys, tmp_path):
    search(Trainings(), trials=20, startup_trials=20).run()
    at_random = [trial["value"] for trial in left()["trials"]]
    (tmp_path / "found").rename(tmp_path / "at_random")
    trainings = Trainings()
    assert search(trainings, trials=20).run() == 0
    assert [trial.number for trial in trainings.ran] == list(range(20))
    found = left()
    values = [trial["value"] for trial in found["trials"]]
    assert values == pytest.approx([psnr_db(trial.settings) for trial in trainings.ran])
    assert found["best"]["value"] == max(values) > 39.9
    # By what was found, not by chance.
    assert values[:4] == at_random[:4]
    assert sum(values[10:]) > sum(at_random[10:]) + 1
    command = " ".join(
        [
            "python -m deblur_lab.train model=nafnet 'data.root=/data/My Photos'",
            *found["best"]["settings"],
            f"output={tmp_path / 'found' / 'best'}",
        ]
    )
    assert found["best"]["command"] == command
    assert command in capsys.readouterr().out


def test_of_validations_the_last_may_count_and_less_may_be_better(search, left):
    search(Trainings(), trials=3, of="last", direction="minimize").run()
    found = left()
    assert found["best"]["value"] == min(trial["value"] for trial in found["trials"])
    assert [trial["value"] for trial in found["trials"]] == pytest.approx(
        [psnr_db(trial["settings"]) - 1 for trial in found["trials"]]
    )


def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(search, left, tmp_path):
    search(Trainings()).run()
    whole = left()["trials"]
    (tmp_path / "found").rename(tmp_path / "whole")
    stopped = Trainings({5: 143})
    with pytest.raises(SystemExit) as ended:
        search(stopped).run()
    assert ended.value.code == 143
    assert [trial["status"] for trial in left()["trials"]] == ["finished"] * 5 + ["stopped"]
    # As a kill leaves it in the middle of writing.
    journal = tmp_path / "found" / "search.journal"
    journal.with_name("search.journal.lock").touch()
    with journal.open("a", encoding="utf-8") as file:
        file.write('{"op_code": 6, "worker')
    again = Trainings()
    assert search(again).run() == 0
    assert [trial.number for trial in again.ran] == list(range(5, 12))
    assert left()["trials"] == whole
    nothing = Trainings()
    assert search(nothing).run() == 0
    assert nothing.ran == []
    more = Trainings()
    search(more, trials=14).run()
    assert [trial.number for trial in more.ran] == [12, 13]


def test_a_trial_that_fails_is_named_and_the_others_run(search, left, capsys):
    trainings = Trainings({2: 6, 4: 5, 7: 3})
    assert search(trainings).run() == 5  # of what would fail again; that one diverges is a result
    assert len(trainings.ran) == 12
    failed = {
        trial["number"]: trial["exit_code"] for trial in left()["trials"] if trial["status"] == "failed"
    }
    assert failed == {2: 6, 4: 5, 7: 3}
    out = capsys.readouterr().out
    assert "trial 3: failed with exit code 6" in out
    assert "trial 5: failed with exit code 5" in out


def test_what_was_trained_is_not_trained_again(search, left):
    trainings = Trainings()
    space = [Dimension("model.net.width", ("4", "8")), Dimension("model.optimizer.lr", ("0.1", "0.01"))]
    search(trainings, space, trials=9).run()
    assert len({trial.settings for trial in trainings.ran}) == len(trainings.ran) <= 4
    assert [trial["value"] for trial in left()["trials"]] == pytest.approx(
        [psnr_db(trial["settings"]) for trial in left()["trials"]]
    )


def test_another_search_in_the_folder_is_refused_with_the_difference(search):
    search(Trainings(), trials=1).run()
    with pytest.raises(ConfigurationError, match=r"holds another search \(seed: 0 -> 1\)"):
        search(Trainings(), seed=1).run()
    with pytest.raises(ConfigurationError, match=r"searched: model\.net\.width\)"):
        search(Trainings(), [SPACE[0], Dimension("model.net.width", ("4", "16"))]).run()


def test_a_measure_that_was_mistyped_may_be_put_right(search, left, tmp_path):
    with pytest.raises(ConfigurationError, match=r"val/spnr_db is not logged: did you mean val/psnr_db\?"):
        search(Trainings(), objective="val/spnr_db", direction="maximize", trials=2).run()
    assert search(Trainings(), trials=2).run() == 0
    assert len(left()["trials"]) == 2


def test_the_folder_of_a_sweep_is_not_searched_in(search, tmp_path):
    (tmp_path / "found" / "0").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="holds 0, and no search: name another folder"):
        search(Trainings()).run()


def test_a_trial_worse_than_half_of_those_before_it_is_pruned(search, left, monkeypatch):
    monkeypatch.setattr("deblur_lab.search._LOOK_EVERY_S", 0.01)
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))

    def trainings(trials: Sequence[Asked]) -> Iterator[tuple[int, int]]:
        (trial,) = trials
        trial.folder.mkdir()
        # The seventh is bad from the start, and would go on for long.
        bad = trial.number == 6
        log(trial.folder, {1: 5.0} if bad else {1: 20.0, 3: 30.0})
        deadline = time.monotonic() + (20.0 if bad else 0.3)
        while time.monotonic() < deadline and not stopped:
            time.sleep(0.01)
        yield trial.number, 143 if stopped else 0

    try:
        search(trainings, trials=7, pruning="median", startup_trials=100).run()  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped == [signal.SIGTERM]
    assert [trial["status"] for trial in left()["trials"]] == ["finished"] * 6 + ["pruned"]


def test_a_measure_that_is_not_logged_is_told_with_those_that_are(tmp_path):
    log(tmp_path, {1: 30.0, 3: math.nan}, "val/ssim")
    assert measured(tmp_path / "metrics.csv", "val/ssim") == {1: 30.0}
    with pytest.raises(ConfigurationError, match=r"val/psnr_db is not logged: there are val/ssim"):
        measured(tmp_path / "metrics.csv", "val/psnr_db")


OPTUNA = ("-m", "hydra/sweeper=optuna")
DATA = ("model=nafnet", "data=folder", "data.root=x", "output=found")
LR = "model.optimizer.lr=tag(log,interval(1e-4,1e-2))"


def test_every_fault_is_told_before_the_first_trial(told):
    width = "model.net.width=interval(4,8)"
    assert told("train", *OPTUNA, *DATA, width, "hydra.sweeper.of=mean") == [
        "hydra.sweeper.of=mean: one of best, last is expected",
        "model.net.width=5.528: a whole number is expected",
    ]
    assert told(
        "train",
        *OPTUNA,
        *("hydra.sweeper.objective=val/x", "hydra.sweeper.at_once=2", "hydra.sweeper.trails=3"),
    ) == [
        "hydra/sweeper=optuna: nothing is searched: give a setting several values, as "
        "'model.optimizer.lr=tag(log,interval(1e-4,1e-2))' or 'model.net.width=16,32'",
        "hydra.sweeper.objective=val/x: whether more or less of it is better is not known: add "
        "hydra.sweeper.direction=maximize or =minimize",
        "hydra.sweeper.at_once=2: this machine runs one trial at a time: leave it out, or choose "
        "hydra/launcher=submitit_slurm",
        "there is no setting hydra.sweeper.trails: did you mean hydra.sweeper.trials?",
    ]


def test_a_sweep_says_how_to_search(told):
    (line,) = told("train", "-m", *DATA, LR)
    assert line == f"{LR}: a sweep takes single values: add hydra/sweeper=optuna to search"


def test_each_trial_is_a_training_with_its_settings_and_folder(command, tmp_path):
    done: list[DictConfig] = []

    def train(config: DictConfig) -> None:
        done.append(config)
        Path(config.output).mkdir(parents=True)
        log(Path(config.output), {1: 30.0 + config.model.net.width})

    code, _, lines = command(
        "train", *OPTUNA, *DATA, LR, "model.net.width=4,8", "hydra.sweeper.trials=3", job=train
    )
    assert (code, lines) == (0, [])
    found = json.loads((tmp_path / "found" / "search.json").read_text(encoding="utf-8"))
    rates = [float(trial["settings"][0].partition("=")[2]) for trial in found["trials"]]
    assert [config.model.optimizer.lr for config in done] == rates
    assert [config.output for config in done] == [f"found/{number}" for number in range(3)]
    assert found["best"]["settings"][1] == "model.net.width=8"
    assert "hydra" not in found["best"]["command"]


@pytest.mark.parametrize(
    ("typed", "in_experiment", "more"),
    [("evaluate=false", "", []), ("evaluate=true", "evaluate: false", ["evaluate=true"])],
)
def test_the_best_is_trained_anew_to_its_scores(command, tmp_path, typed, in_experiment, more):
    """Whatever the trials were spared."""

    def train(config: DictConfig) -> None:
        Path(config.output).mkdir(parents=True)
        log(Path(config.output), {1: 30.0})

    yaml(tmp_path / "own", "experiment/mine", f"# @package _global_\npictures: 1\n{in_experiment}\n")
    own = ("--config-dir", "own", "experiment=mine", typed)
    code, _, lines = command("train", *OPTUNA, *DATA, *own, LR, "hydra.sweeper.trials=1", job=train)
    assert (code, lines) == (0, [])
    best = json.loads((tmp_path / "found" / "search.json").read_text(encoding="utf-8"))["best"]
    words = shlex.split(best["command"])
    assert words[-1] == "output=found/best"
    assert [word for word in words if "evaluate" in word] == more
    done: list[DictConfig] = []
    assert command("train", *words[3:], job=done.append)[0] == 0
    assert done[0].evaluate is True


def test_an_experiment_may_hold_what_is_searched(command, tmp_path):
    done: list[DictConfig] = []
    typed = ("-m", "experiment=search/recipe", *DATA, "hydra.sweeper.trials=2")
    code, _, lines = command("train", *typed, job=done.append)
    # It logs nothing.
    assert (code, lines) == (2, [])
    assert [config.experiment for config in done] == [["search/recipe"]] * 2
    found = json.loads((tmp_path / "found" / "search.json").read_text(encoding="utf-8"))
    assert found["trials"][0]["status"] == "failed"
    assert "experiment=search/recipe" in found["settings"]
    code, _, lines = command("train", "experiment=search/recipe", *DATA)
    assert code == 2
    assert "add -m" in lines[0]
