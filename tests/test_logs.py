"""metrics.csv tells one story, resumed or not."""

import csv

from deblur_lab.logs import MetricsFile


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
