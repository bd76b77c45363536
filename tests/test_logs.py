"""metrics.csv tells one story, resumed or not; dashboards hear how a run ended."""

import contextlib
import csv

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from deblur_lab.errors import DataError, MachineError
from deblur_lab.logs import dashboards, recorded
from deblur_lab.metrics_file import MetricsFile


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_that_come_later_are_added_to_the_header(tmp_path):
    log = MetricsFile(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 0.5, "epoch": 0}, 1)
    log.log_metrics({"train/loss": 0.25}, 2)
    log.log_metrics({"val/psnr_db": 30.123456789}, 2)
    assert rows_of(tmp_path / "metrics.csv") == [
        {"step": "1", "train/loss": "0.5", "val/psnr_db": ""},
        {"step": "2", "train/loss": "0.25", "val/psnr_db": "30.1235"},
    ]


def test_a_resumed_run_keeps_what_led_up_to_it_and_drops_what_it_will_do_again(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in range(6):
        first.log_metrics({"train/loss": 1 / (step + 1)}, step)
    resumed = MetricsFile(path)
    resumed.go_on_from(4)
    resumed.log_metrics({"train/loss": 9.0}, 4)
    assert [(row["step"], row["train/loss"]) for row in rows_of(path)] == [
        ("0", "1"),
        ("1", "0.5"),
        ("2", "0.333333"),
        ("3", "0.25"),
        ("4", "9"),
    ]


class Heard(MetricsFile):
    """A dashboard that notes what it is told."""

    def __init__(self, path, refuses=False):
        super().__init__(path)
        self.refuses = refuses
        self.began = None
        self.exit_code = None

    def begin(self, config, *, resumed, work, of_runs):
        self.began = (config, resumed, work, of_runs)
        if self.refuses:
            raise MachineError("no")

    def log_pictures(self, exhibits, step): ...

    def log_scores(self, results): ...

    def log_values(self, values): ...

    def log_files(self, name, files): ...

    def log_table(self, name, columns, rows, step): ...

    def conclude(self, exit_code):
        self.exit_code = exit_code


@pytest.mark.parametrize(
    ("ended_by", "exit_code"),
    [
        (None, 0),
        (DataError("gone"), 3),
        (KeyboardInterrupt(), 130),
        (SystemExit(4), 4),
        (SystemExit("words"), 129),
        (SIGTERMException(), 129),
        (RuntimeError("ours"), 1),
    ],
)
def test_dashboards_hear_how_it_ended(tmp_path, ended_by, exit_code):
    dashboard, log = Heard(tmp_path / "a"), MetricsFile(tmp_path / "b")
    assert dashboards([log, dashboard]) == [dashboard]
    with contextlib.suppress(BaseException), recorded([log, dashboard], {"a": 1}, stopped=lambda: 129):
        assert dashboard.began == ({"a": 1}, False, "train", ())
        if ended_by is not None:
            raise ended_by
    assert dashboard.exit_code == exit_code


def test_what_a_dashboard_refuses_does_not_begin(tmp_path):
    with pytest.raises(MachineError), recorded([Heard(tmp_path / "a", refuses=True)], {}):
        raise AssertionError("it began")
