"""Whatever becomes of W&B's process, the training hears of it in one line and goes on."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deblur_lab import dashboards
from deblur_lab.dashboards import WeightsAndBiases
from deblur_lab.logs import Dashboard, Exhibit
from deblur_lab.wandb_process import Files, Start, Started, Table
from tests.wandb_files import logged_out, recorded


@pytest.fixture
def said(monkeypatch):
    """What is printed."""
    lines: list[str] = []
    monkeypatch.setattr(dashboards, "say", lines.append)
    return lines


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(tmp_path, monkeypatch):
    for name, value in logged_out(tmp_path / "home").items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)


def begun(folder, **settings) -> WeightsAndBiases:
    logger = WeightsAndBiases(folder, **settings)
    logger.begin({"seed": 0}, resumed=False)
    return logger


def process_of(logger: WeightsAndBiases):
    return logger._recorder._process


def test_it_is_a_dashboard(tmp_path):
    assert isinstance(WeightsAndBiases(tmp_path), Dashboard)


def test_a_process_that_is_killed_is_told_of_once(tmp_path, said):
    logger = begun(tmp_path / "run")
    del said[:]
    os.kill(process_of(logger).pid, signal.SIGKILL)
    process_of(logger).wait()
    deadline = time.monotonic() + 10
    step = 0
    while not said and time.monotonic() < deadline:
        logger.log_metrics({"train/loss": 1.0}, step)
        step += 1
        time.sleep(0.01)
    logger.log_metrics({"train/loss": 1.0}, step)
    logger.conclude(0)
    assert said == [
        f"W&B: off from here on, as its process has ended; the files in {tmp_path / 'run'} hold everything",
        f"W&B: upload what was recorded offline with: python -m wandb sync {tmp_path / 'run' / 'wandb'}",
    ]


def test_a_process_that_hangs_is_neither_waited_for_nor_left_behind(tmp_path, said, monkeypatch):
    monkeypatch.setattr(dashboards, "TABLE_S", 0.2)
    monkeypatch.setattr(dashboards, "CLOSE_S", 0.2)
    logger = begun(tmp_path / "run", finish_timeout_s=0.2)
    process = process_of(logger)
    os.kill(process.pid, signal.SIGSTOP)
    started = time.monotonic()
    for step in range(5000):  # more than a pipe holds
        logger.log_metrics({f"train/loss_{number}": 1.0 for number in range(10)}, step)
    logger.conclude(0)
    assert time.monotonic() - started < 10
    assert process.poll() == -signal.SIGKILL
    assert "W&B: stopped, as it did not end within 0.2 s" in said


def test_orders_that_end_without_a_word_close_the_run_as_failed(tmp_path, said):
    """As when the training is killed."""
    logger = begun(tmp_path / "run")
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0, "val/weighted_ssim": float("nan")}, 7)
    process = process_of(logger)
    while logger._recorder._obeyed < 1:
        time.sleep(0.01)
    process.stdin.close()
    assert process.wait(30) == 0
    (part,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    found = recorded(part)
    assert found.exit_code == 1
    (row,) = found.rows
    assert {key: row[key] for key in row if not key.startswith("_")} == {"step": 7, "train/loss": 0.5}


def test_a_service_that_dies_is_told_of(tmp_path, said):
    logger = begun(tmp_path / "run")
    del said[:]
    (service,) = children_of(process_of(logger).pid)
    os.kill(service, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        logger.log_metrics({"train/loss": 1.0}, 0)
        time.sleep(0.01)
    logger.conclude(0)
    assert said[0].startswith("W&B: off from here on, as its service has ended; the files in ")


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.parametrize("way", ["WANDB_MODE", "mode"])
def test_disabled_it_leaves_nothing(tmp_path, said, monkeypatch, way):
    if way == "WANDB_MODE":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = begun(tmp_path / "run", mode="disabled" if way == "mode" else "auto")
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.conclude(0)
    assert said == (["W&B: off, as WANDB_MODE says"] if way == "WANDB_MODE" else [])
    assert not list((tmp_path / "run").rglob("*"))


def test_a_folder_that_cannot_be_written_to_is_told_of(tmp_path, said):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").write_text("in the way")
    logger = begun(tmp_path / "run")
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.conclude(0)
    (line,) = said
    assert line.startswith("W&B: off, as ")
    assert line.endswith(f"; the files in {tmp_path / 'run'} hold everything")


@pytest.fixture
def orders(monkeypatch):
    """What would be passed on by a logger, as (verb, content)."""
    passed_on: list[tuple[str, object]] = []
    recorder = SimpleNamespace(
        order=lambda verb, content: passed_on.append((verb, content)), trouble="", started=None
    )

    def of(logger: WeightsAndBiases) -> list[tuple[str, object]]:
        logger._recorder = recorder
        return passed_on

    return of


def exhibit(*more: str, **scores: float) -> Exhibit:
    picture = np.zeros((2, 3, 3), np.uint8)
    pictures = dict.fromkeys(("blurry", "restored", "sharp", *more), picture)
    return Exhibit("gopro", "a/b.png", pictures, dict.fromkeys(scores, 1.0), scores)


def test_columns_that_no_image_has_are_left_out_of_the_table(tmp_path, orders):
    logger = WeightsAndBiases(tmp_path)
    passed_on = orders(logger)
    logger.log_pictures([exhibit(psnr_db=30.0)], 4)
    assert passed_on[-1] == (
        "table",
        Table(
            "test/pictures",
            4,
            ["name", "dataset", "blurry", "restored", "sharp", "blurry_psnr_db", "psnr_db"],
        ),
    )
    ((_, row),) = passed_on[:-1]
    assert row[:2] == ["a/b.png", "gopro"]
    assert row[5:] == [1.0, 30.0]


def test_a_table_of_numbers_and_words(tmp_path, orders):
    logger = WeightsAndBiases(tmp_path)
    passed_on = orders(logger)
    logger.log_table("stages", ["stage", "steps", "ssim"], [["one", 4, 0.5], ["two", 8, float("nan")]], 7)
    assert passed_on == [
        ("row", ["one", 4, 0.5]),
        ("row", ["two", 8, None]),
        ("table", Table("stages", 7, ["stage", "steps", "ssim"])),
    ]


def test_what_one_image_lacks_is_left_empty(tmp_path, orders):
    logger = WeightsAndBiases(tmp_path)
    passed_on = orders(logger)
    logger.log_pictures([exhibit(psnr_db=30.0), exhibit("mask", psnr_db=float("nan"), ssim=0.5)], 4)
    columns = passed_on[-1][1].columns
    assert columns[2:] == [
        *("blurry", "restored", "sharp", "mask"),
        *("blurry_psnr_db", "blurry_ssim", "psnr_db", "ssim"),
    ]
    first, second = (row for verb, row in passed_on if verb == "row")
    assert first[5] is None
    assert first[6:] == [1.0, None, 30.0, None]
    assert second[6:] == [1.0, 1.0, None, 0.5]


def test_scores_of_several_datasets_keep_apart(tmp_path, orders):
    def result(name: str, protocol: str, **scores: float) -> dict[str, object]:
        return {
            "dataset": name,
            "protocol": {"name": protocol},
            "tlc": False,
            "images": 3,
            "scores": scores,
            "blurry_scores": dict.fromkeys(scores, 1.0),
        }

    logger = WeightsAndBiases(tmp_path)
    passed_on = orders(logger)
    logger.log_scores(
        [result("reloblur", "local", psnr_db=30.0, ssim=float("nan")), result("gopro", "gopro", psnr_db=31.0)]
    )
    assert passed_on == [
        (
            "summary",
            {
                "test/dataset": "reloblur",
                "test/protocol": "local",
                "test/tlc": False,
                "test/images": 3,
                "test/psnr_db": 30.0,
                "test/blurry_psnr_db": 1.0,
                "test/blurry_ssim": 1.0,
                "test/gopro_dataset": "gopro",
                "test/gopro_protocol": "gopro",
                "test/gopro_tlc": False,
                "test/gopro_images": 3,
                "test/gopro_psnr_db": 31.0,
                "test/gopro_blurry_psnr_db": 1.0,
            },
        )
    ]


def test_scores_of_blur_motion_and_thresholds_are_numbers_of_the_run(tmp_path, orders):
    at = {"threshold": 0.3, "selected_share": 0.1, "dilated_share": 0.2, "scores": {"psnr_db": 30.0}}
    result = {
        "dataset": "scenes",
        "protocol": {"name": "local"},
        "tlc": False,
        "images": 3,
        "scores": {},
        "blurry_scores": {},
        "threshold": 0.5,
        "selected_share": 0.05,
        "dilated_share": 0.1,
        "blur_detection": {"threshold": 0.5, "iou": 0.6, "f1": float("nan"), "by_threshold": []},
        "motion": {"epe_px": 1.0, "zero_epe_px": 2.0, "pixels": 7},
        "thresholds": [at],
    }
    logger = WeightsAndBiases(tmp_path)
    passed_on = orders(logger)
    logger.log_scores([result])
    ((_, summary),) = passed_on
    assert {key: value for key, value in summary.items() if isinstance(value, float)} == {
        "test/threshold": 0.5,
        "test/selected_share": 0.05,
        "test/dilated_share": 0.1,
        "test/blur_iou": 0.6,
        "test/epe_px": 1.0,
        "test/zero_epe_px": 2.0,
        "test/threshold_0.3/selected_share": 0.1,
        "test/threshold_0.3/dilated_share": 0.2,
        "test/threshold_0.3/psnr_db": 30.0,
    }


def test_a_part_that_was_not_sent_is_named_and_others_are_not_sent_twice(tmp_path):
    folder = tmp_path / "run" / "wandb"
    for name in ("run-20260101_000000-x", "run-20260102_000000-x", "offline-run-20260103_000000-x"):
        (folder / name).mkdir(parents=True)
        (folder / name / "run-x.wandb").touch()
    logger = WeightsAndBiases(tmp_path / "run")
    command = logger._way_to_upload(folder / "run-20260102_000000-x")
    assert command.split() == [
        *("python", "-m", "wandb", "sync", "--include-online"),
        str(folder / "run-20260102_000000-x"),
        str(folder / "offline-run-20260103_000000-x"),
    ]
    (folder / "offline-run-20260103_000000-x" / "run-x.wandb.synced").touch()
    assert logger._way_to_upload(None) is None


def test_a_sweep_of_wandb_says_which_run_it_is(tmp_path, monkeypatch, said):
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert len(WeightsAndBiases(tmp_path)._new_id(tmp_path / "a" / "run_id")) == 8
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert WeightsAndBiases(tmp_path)._new_id(tmp_path / "b" / "run_id") == "given"


# Groups, names, and what kind of work it is


@pytest.fixture
def starts(monkeypatch, tmp_path) -> list[Start]:
    """What W&B's process would have been started with."""
    seen: list[Start] = []

    class NoProcess:
        started = Started("offline", part=str(tmp_path))
        trouble = ""

        def __init__(self, start, environment):
            seen.append(start)

        def wait_begun(self, patience_s): ...

    monkeypatch.setattr(dashboards, "Recorder", NoProcess)
    return seen


def job_of(sweep: Path, *own: str) -> Path:
    """The folder of the first job of a sweep."""
    (sweep / "0").mkdir(parents=True)
    jobs = [{"folder": "0", "own_settings": list(own)}]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    return sweep / "0"


def settings_of(start: Start) -> tuple[object, ...]:
    return tuple(start.settings[key] for key in ("run_group", "run_job_type", "run_name"))


def test_a_job_of_a_sweep_is_in_its_group_by_its_own_settings(tmp_path, said, starts):
    begun(job_of(tmp_path / "backbones", "model=nafnet", "seed=0"))
    assert settings_of(starts[0]) == ("backbones", "train", "model=nafnet seed=0")
    begun(tmp_path / "alone")
    assert settings_of(starts[1]) == (None, "train", "alone")


def test_what_a_person_chose_wins(tmp_path, said, starts, monkeypatch):
    job = job_of(tmp_path / "backbones")
    monkeypatch.setenv("WANDB_RUN_GROUP", "of the shell")
    begun(job)
    begun(job, group="typed", name="mine")
    assert [settings_of(start)[0] for start in starts] == ["of the shell", "typed"]
    assert starts[1].settings["run_name"] == "mine"


def test_a_resumed_run_keeps_its_group_unless_another_is_typed(tmp_path, said, starts, monkeypatch):
    job = job_of(tmp_path / "backbones")
    monkeypatch.setenv("WANDB_RUN_GROUP", "of the shell")
    begun(job)
    monkeypatch.setenv("WANDB_RUN_GROUP", "of another day")
    WeightsAndBiases(job).begin({}, resumed=True)
    WeightsAndBiases(job, group="typed").begin({}, resumed=True)
    WeightsAndBiases(job).begin({}, resumed=True)
    assert [settings_of(start)[0] for start in starts] == ["of the shell", "of the shell", "typed", "typed"]
    begun(job)  # a new run in its place
    assert settings_of(starts[-1])[0] == "of another day"


def test_what_is_about_runs_joins_their_group(tmp_path, said, starts):
    job = job_of(tmp_path / "backbones")
    WeightsAndBiases(tmp_path / "scored").begin({}, resumed=False, work="evaluate", of_runs=[job])
    assert settings_of(starts[0]) == ("backbones", "evaluate", "scored")
    others = [job, tmp_path / "alone"]
    WeightsAndBiases(tmp_path / "all").begin({}, resumed=False, work="report", of_runs=others)
    assert settings_of(starts[1]) == (None, "report", "report of all")


def test_a_report_in_a_runs_folder_leaves_the_runs_id_and_group_alone(tmp_path, said, starts):
    begun(tmp_path / "run", group="g")
    there = {path.name: path.read_text() for path in (tmp_path / "run" / "wandb").iterdir()}
    assert there.keys() == {"run_id", "run_group"}
    report = WeightsAndBiases(tmp_path / "run", group="other")
    report.begin({}, resumed=False, work="report", of_runs=[tmp_path / "run"])
    assert {name: (tmp_path / "run" / "wandb" / name).read_text() for name in there} == there
    assert starts[1].settings["run_id"] != starts[0].settings["run_id"]
    assert starts[1].settings["run_group"] == "other"


def test_values_that_are_not_finite_are_left_out(tmp_path, orders):
    logger = WeightsAndBiases(tmp_path)
    passed_on = orders(logger)
    logger.log_values({"cost/parameters": 5, "cost/size_px": "4x3", "used/steps": float("inf"), "x": None})
    assert passed_on == [("summary", {"cost/parameters": 5, "cost/size_px": "4x3"})]


def test_files_are_an_artifact_of_the_folders_name(tmp_path, orders):
    logger = WeightsAndBiases(tmp_path / "my runs")
    passed_on = orders(logger)
    logger.log_files("report/page", [tmp_path / "report.html"])
    assert passed_on == [
        ("files", Files("report/page", "report-my-runs", "report", [str(tmp_path / "report.html")]))
    ]
