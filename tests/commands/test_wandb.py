"""`logger=wandb`, read back from what W&B wrote; and without an account, without a network."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.exhibits import stem_of
from tests.commands.conftest import arguments_of_trained
from tests.commands.processes import Running, forked
from tests.commands.runs import results_of, rows_of
from tests.compared_runs import NAMES, write_compared
from tests.wandb_files import logged_out, recorded

KEY = "0123456789" * 4
OVERRIDES = ("logger=wandb", "trainer.max_steps=12", "val_every_steps=6", "checkpoint_every_steps=50")


def parts_of(run: Path) -> list[Path]:
    """The folders that W&B wrote to, a start each."""
    return sorted(run.glob("wandb/*run-2*"), key=lambda part: part.stat().st_mtime_ns)


@pytest.fixture
def stopped_and_resumed(tmp_path, datasets):
    """The folder of a run that was stopped by SIGTERM and went on, and what it said both times."""
    env = logged_out(tmp_path / "home")
    arguments = arguments_of_trained(datasets, *OVERRIDES, "logger.wandb.tags=[a,b]", "logger.wandb.group=g")
    running = Running("deblur_lab.train", *arguments, "output=my run", cwd=tmp_path, forked=True, env=env)
    metrics = tmp_path / "my run" / "metrics.csv"
    running.wait_until(lambda: metrics.exists() and len(rows_of(metrics)) >= 3)
    running.send(signal.SIGTERM)
    first = running.ended()
    assert first.code == 143, first
    second = forked("deblur_lab.train", "resume=my run", cwd=tmp_path, env=env).succeeded()
    return tmp_path / "my run", first.stdout, second.stdout


def test_a_run_is_recorded_offline_whole_and_goes_on_as_the_same_run(stopped_and_resumed, tmp_path):
    run, first_said, second_said = stopped_and_resumed
    parts = [recorded(part) for part in parts_of(run)]
    assert [part.exit_code for part in parts] == [143, 0]

    # The same run at W&B, whose name nobody changes when it goes on.
    assert parts[0].run.run_id == parts[1].run.run_id == (run / "wandb" / "run_id").read_text().strip()
    assert [part.run.display_name for part in parts] == ["my run", ""]
    assert parts[0].run.project == "deblur_lab"
    assert parts[0].run.host == ""  # which is nobody's business
    assert parts[0].run.run_group == "g"
    assert list(parts[0].run.tags) == ["a", "b"]
    assert [part.run.run_group for part in parts] == ["g", "g"]
    assert [part.run.job_type for part in parts] == ["train", "train"]

    # Every number of metrics.csv, over the optimizer step; none twice, none dropped.
    assert parts[0].axes == parts[1].axes == {"*": "step"}
    logged: dict[int, dict[str, float]] = {}
    for row in [row for part in parts for row in part.rows]:
        numbers = {key: value for key, value in row.items() if key.startswith(("train/", "val/"))}
        assert not numbers.keys() & logged.setdefault(row["step"], {}).keys()
        logged[row["step"]].update(numbers)
    for row in rows_of(run / "metrics.csv"):
        told = {key: float(value) for key, value in row.items() if key != "step" and value}
        assert told == pytest.approx(logged[int(row["step"])], rel=1e-4), row["step"]
    assert {"train/loss", "train/loss_l1", "train/loss_mask", "train/lr"} <= logged[0].keys()
    assert {"val/psnr_db", "val/weighted_ssim"} <= logged[5].keys()
    assert logged.keys() == set(range(12))

    # The configuration, resolved, and where the numbers come from.
    config = parts[1].config
    assert config["data"]["patch_size"] == config["datamodule"]["patch_size"] == 32
    assert config["model"]["net"]["width"] == 4
    assert config["provenance"].keys() == {"version", "commit", "torch", "hardware"}
    about = {"model": "M2AENet", "data": "reloblur (made up)", "seed": 0, "steps": 12}
    assert config["about"] == about

    # Test scores, and whose protocol they are by.
    (result,) = results_of(run)
    summary = parts[1].summary
    assert (summary["test/dataset"], summary["test/protocol"], summary["test/images"]) == (
        "reloblur",
        "local",
        3,
    )
    for name, value in result["scores"].items():
        assert summary[f"test/{name}"] == pytest.approx(value)
        assert summary[f"test/blurry_{name}"] == pytest.approx(result["blurry_scores"][name])

    costs = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert summary["cost/multiply_adds"] == costs["cost"]["multiply_adds"]
    assert summary["used/patches"] == 24
    assert summary["cost/train_seconds"] > 0

    check_table(parts[1], run)

    # What is said, and that the command is right.
    said = f"W&B: recording offline into {run.name}/wandb, as no API key is configured"
    assert said in first_said
    assert said in second_said
    (command,) = re.findall(r"W&B: upload what was recorded offline with: (.*)", second_said)
    assert shlex.split(command) == ["python", "-m", "wandb", "sync", "my run/wandb"]
    env = logged_out(tmp_path / "home", WANDB_DIR=str(tmp_path / "home"))
    tried = subprocess.run(
        [sys.executable, *shlex.split(command)[1:], "--dry-run"],
        cwd=tmp_path,
        env={name: value for name, value in {**os.environ, **env}.items() if value is not None},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert "Would sync 2 run(s)" in tried.stderr, tried

    # No file elsewhere, and nothing but the log in W&B's own.
    assert {path.name for path in tmp_path.iterdir()} == {"my run", "home"}
    assert not [path for path in (tmp_path / "home").rglob("*") if "wandb" in path.name]
    files = {path.name for part in parts_of(run) for path in (part / "files").rglob("*") if path.is_file()}
    assert all(name.endswith(".table.json") for name in files), files


def check_table(part, run) -> None:
    """The table of test images: what it shows is what was computed."""
    columns, rows = part.table("test/pictures")
    scores = ["psnr_db", "ssim", "weighted_psnr_db", "weighted_ssim"]
    assert columns == [
        *("name", "dataset", "blurry", "restored", "sharp", "true_mask", "mask", "trajectories"),
        *(f"blurry_{score}" for score in scores),
        *scores,
    ]
    assert len(rows) == 3  # two that are chosen, and the worst
    by_name = {row["name"]: row for row in rows_of(run / "scores.csv")}
    for row in (dict(zip(columns, values, strict=True)) for values in rows):
        assert row["dataset"] == "reloblur"
        for score in columns[8:]:
            assert row[score] == pytest.approx(float(by_name[row["name"]][score]), abs=1e-4)
        pictures = {name: np.asarray(Image.open(part.files[row[name]["path"]])) for name in columns[2:8]}
        for name in ("blurry", "restored", "sharp"):
            assert pictures[name].shape == (80, 96, 3)
        assert not np.array_equal(pictures["blurry"], pictures["sharp"])
        # Layers are of the picture's shape, enlarged until lines can be seen.
        for name in ("true_mask", "mask", "trajectories"):
            assert pictures[name].shape == (80 * 5, 96 * 5, 3)


@pytest.fixture
def silent_host():
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("host", ["refuses", "is silent"])
def test_a_host_that_cannot_be_reached_stops_nothing(tmp_path, datasets, silent_host, host):
    url, why = {
        "refuses": ("http://127.0.0.1:9", "cannot be reached (Connection refused)"),
        "is silent": (silent_host, "does not answer within 3 s"),
    }[host]
    env = logged_out(tmp_path / "home", WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    # With another logger beside it.
    few = ("logger=[tensorboard,wandb]", "trainer.max_steps=3", "evaluate=false")
    arguments = arguments_of_trained(datasets, *OVERRIDES, *few)
    running = Running("deblur_lab.train", *arguments, "output=run", cwd=tmp_path, env=env, forked=True)
    running.wait_until((tmp_path / "run" / "config.yaml").exists)
    begun = time.monotonic()
    running.wait_until((tmp_path / "run" / "metrics.csv").exists)
    # The promise is 10 s; a machine that does other things at the same time gets some more.
    assert time.monotonic() - begun < 20
    ended = running.ended().succeeded()
    assert f"W&B: recording offline into run/wandb, as {url} {why}\n" in ended.stdout
    assert "W&B: upload what was recorded offline with: python -m wandb sync run/wandb\n" in ended.stdout
    assert ended.stderr == ""
    assert [row["step"] for row in rows_of(tmp_path / "run" / "metrics.csv")] == ["0", "1", "2"]
    (part,) = parts_of(tmp_path / "run")
    assert recorded(part).exit_code == 0
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_online_and_nothing_else_is_refused_before_training(tmp_path, datasets):
    arguments = arguments_of_trained(datasets, *OVERRIDES, "logger.wandb.mode=online")
    ended = forked("deblur_lab.train", *arguments, cwd=tmp_path, env=logged_out(tmp_path / "home"))
    told = ended.failed(5)
    assert told.startswith("logger.wandb.mode=online cannot be, as no API key is configured (WANDB_API_KEY, ")
    assert told.endswith("choose logger.wandb.mode=auto, which records offline where it must")
    assert not list((tmp_path / "runs").iterdir())


def test_a_scoring_is_recorded_too(tmp_path, datasets, trained):
    said = forked(
        "deblur_lab.evaluate",
        f"checkpoint={trained / 'run/checkpoints/last.ckpt'}",
        *("data=reloblur", f"data.root={datasets / 'ReLoBlur'}", "data.num_workers=0"),
        *("trainer=cpu", "pictures=2", "logger=wandb"),
        cwd=tmp_path,
        env=logged_out(tmp_path / "home"),
    ).succeeded()
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"with: python -m wandb sync {folder.relative_to(tmp_path) / 'wandb'}\n" in said.stdout
    (part,) = parts_of(folder)
    found = recorded(part)
    assert found.exit_code == 0
    assert found.run.display_name == folder.name
    assert found.run.job_type == "evaluate"
    assert found.config["trained_on"] == ["reloblur (made up)"]
    assert found.config["about"]["model"] == "M2AENet"
    assert found.summary["cost/net"] == "M2AENet"
    (result,) = results_of(folder)
    assert found.summary["test/psnr_db"] == pytest.approx(result["scores"]["psnr_db"])
    check_table(found, folder)


def test_a_scoring_has_nothing_for_a_logger_of_steps(tmp_path, datasets, trained):
    told = forked(
        "deblur_lab.evaluate",
        f"checkpoint={trained / 'run/checkpoints/last.ckpt'}",
        *("data=reloblur", f"data.root={datasets / 'ReLoBlur'}", "trainer=cpu", "logger=tensorboard"),
        cwd=tmp_path,
    ).failed(2)
    assert told.startswith("logger.tensorboard shows what is logged step by step, and scoring has no steps")


def test_a_report_is_recorded_with_its_tables_pictures_and_page(tmp_path):
    runs = tmp_path / "my runs"
    write_compared(runs, images=1)
    for run in runs.glob("*/*/"):
        (run / "wandb").mkdir()
        (run / "wandb" / "run_group").write_text("backbones\n", encoding="utf-8")
    (runs / "wandb").mkdir()
    (runs / "wandb" / "run_id").write_text("of another", encoding="utf-8")
    said = forked(
        "deblur_lab.report",
        *("runs=my runs", "logger=wandb", "pictures=1"),
        cwd=tmp_path,
        env=logged_out(tmp_path / "home"),
    ).succeeded()
    assert "W&B: recording offline into my runs/wandb, as no API key is configured" in said.stdout
    assert "with: python -m wandb sync 'my runs/wandb'\n" in said.stdout
    assert (runs / "wandb" / "run_id").read_text(encoding="utf-8") == "of another"

    (part,) = parts_of(runs)
    found = recorded(part)
    assert found.exit_code == 0
    assert (found.run.job_type, found.run.run_group) == ("report", "backbones")
    assert found.run.display_name == "report of my runs"
    assert found.summary["report/run_count"] == 4
    columns, rows = found.table("report/models")
    psnr = dict(zip((row[columns.index("model")] for row in rows), rows, strict=True))["NAFNet"]
    assert psnr[columns.index("psnr_db")] == pytest.approx(29.05)
    assert {"report/differences.table.json", "report/runs.table.json"} <= found.files.keys()
    columns, rows = found.table("report/pictures/models-1")
    assert len(rows) == 2  # one that is chosen and the worst
    row = dict(zip(columns, rows[0], strict=True))
    kept = runs / "m2ae" / "0" / "pictures" / "exhibits" / stem_of("synthetic", NAMES[0])
    for column, name in (("M2AENet", "restored"), ("M2AENet mask", "mask"), ("sharp", "sharp")):
        assert found.files[row[column]["path"]].read_bytes() == (kept / f"{name}.png").read_bytes()
    # The files, as they are, and the page as a panel.
    for name in ("report.html", "report.md"):
        assert found.files[name].read_bytes() == (runs / name).read_bytes()
    (panel,) = [row["report/page/path"] for row in found.rows if "report/page/path" in row]
    assert (part / "files" / panel).read_bytes() == (runs / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        (
            "logger=tensorboard",
            2,
            "logger.tensorboard shows what is logged step by step, and a report has no",
        ),
        ("logger.wandb.mode=online", 5, "logger.wandb.mode=online cannot be, as no API key is configured ("),
    ],
)
def test_what_a_report_cannot_be_shown_on_is_refused_before_it_is_written(tmp_path, typed, code, told):
    write_compared(tmp_path / "runs", images=0)
    ended = forked(
        "deblur_lab.report",
        *("runs=runs", "logger=wandb", typed),
        cwd=tmp_path,
        env=logged_out(tmp_path / "home"),
    )
    assert ended.failed(code).startswith(told)
    assert not (tmp_path / "runs" / "report.html").exists()
    assert not (tmp_path / "runs" / "wandb").exists()
