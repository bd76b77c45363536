"""A report's tables for dashboards hold the numbers of its page, each in a column of its own."""

from pathlib import Path

import pytest

from deblur_lab import report_dashboard
from deblur_lab.finished_runs import find_runs
from deblur_lab.leaderboard import tables_across
from deblur_lab.report_dashboard import DashboardTable, picture_tables, tables_of
from deblur_lab.report_page.subjects import subjects_of
from tests.compared_runs import NAMES, write_compared
from tests.written_runs import result, write_run


def tables_in(folder: Path) -> dict[str, DashboardTable]:
    runs = find_runs(folder)
    return {table.name: table for table in tables_of(runs, *tables_across(runs))}


def rows_of(table: DashboardTable) -> list[dict[str, object]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_compared(folder, images=2)
    return folder


def test_models_have_means_deviations_places_and_costs(compared):
    tables = tables_in(compared)
    assert list(tables) == ["models", "differences", "runs"]
    blurry, best, other = rows_of(tables["models"])
    assert (blurry["model"], blurry["source"], blurry["psnr_db"], blurry["seeds"]) == (
        "blurry input",
        "input",
        28.5,
        None,
    )
    assert [row["model"] for row in (best, other)] == ["M2AENet", "NAFNet"]
    assert {row["source"] for row in (best, other)} == {"ours"}
    # Of gains 0.5 and 0.6 dB on eight images.
    assert other["psnr_db"] == pytest.approx(29.05)
    assert other["psnr_db std"] == pytest.approx(0.1 / 2**0.5)
    assert (best["psnr_db place"], other["psnr_db place"]) == (1, None)
    assert (other["multiply_adds"], other["size_px"], other["seeds"]) == (10**9, "48x32", 2)


def test_differences_are_those_of_the_page_a_row_a_score(compared):
    runs = find_runs(compared)
    (board,), _ = tables_across(runs)
    rows = rows_of(tables_in(compared)["differences"])
    assert [(row["first"], row["less second"]) for row in rows] == [
        ("M2AENet", "NAFNet"),
        ("M2AENet", "blurry input"),
        ("NAFNet", "blurry input"),
    ]
    for row, pair in zip(rows, board.differences, strict=True):
        found = pair.scores["psnr_db"]
        assert (row["difference"], row["low"], row["high"]) == (found.mean, found.low, found.high)
        assert row["excludes 0"] is found.excludes_zero
        assert (row["images"], row["score"]) == (8, "PSNR (dB)")
    assert [row["seeds of second"] for row in rows] == [2, None, None]


def test_each_run_has_a_row_and_its_run_at_wandb(compared):
    folder = compared / "naf" / "1" / "wandb"
    folder.mkdir()
    (folder / "run_id").write_text("1c9fb30d\n", encoding="utf-8")
    rows = rows_of(tables_in(compared)["runs"])
    assert [(row["run"], row["model"], row["seed"], row["work"]) for row in rows] == [
        ("naf/0", "NAFNet", 0, "train"),
        ("naf/1", "NAFNet", 1, "train"),
        ("m2ae/0", "M2AENet", 0, "train"),
        ("m2ae/1", "M2AENet", 1, "train"),
    ]
    assert [row["wandb_id"] for row in rows] == [None, "1c9fb30d", None, None]
    assert rows[1]["gain psnr_db"] == pytest.approx(0.6)
    assert rows[1]["cost/parameters"] == 2 * 10**6


def test_what_was_printed_is_marked_and_whose_it_is(tmp_path):
    one = result(32.0, dataset="reloblur", images=395, published_images=395)
    write_run(tmp_path / "a", 0, {"net": {"_target_": "deblur_lab.models.NAFNet"}}, one)
    rows = rows_of(tables_in(tmp_path)["models"])
    ours = [row for row in rows if row["source"] == "ours"]
    printed = [row for row in rows if row["source"] == "published"]
    assert [row["model"] for row in ours] == ["NAFNet"]
    assert len(printed) > 5
    assert all(row["whose"] and row["printed in"] and row["psnr_db"] > 20 for row in printed)
    assert ours[0]["whose"] is None


def test_ways_of_setting_a_model_have_a_table_with_the_papers_numbers(tmp_path):
    for number, width in enumerate((4, 8)):
        settings = {"net": {"_target_": "deblur_lab.models.M2AENet", "mask_aware": width == 8}}
        one = result(30.0 + number, dataset="reloblur", images=395, published_images=395)
        write_run(tmp_path / str(number), 0, settings, one, "m2aenet/table3")
    rows = rows_of(tables_in(tmp_path)["settings"])
    assert [row["row"] for row in rows if row["source"] == "ours"] == ["mask_aware=false", "mask_aware=true"]
    assert [row["psnr_db place"] for row in rows if row["source"] == "ours"] == [None, 1]
    printed = [row for row in rows if row["source"] == "published"]
    assert printed
    assert all(isinstance(row["psnr_db"], float) for row in printed)


def test_pictures_are_a_row_an_image_and_a_column_a_model(compared):
    runs = find_runs(compared)
    subjects = subjects_of(runs, *tables_across(runs))
    (table,), told = picture_tables(subjects, 2)
    assert told == []
    assert table.name == "pictures/models-1"
    rows = rows_of(table)
    assert [row["image"] for row in rows] == [NAMES[0], NAMES[1], NAMES[-1]]  # the last is the worst
    assert {"true_mask", "NAFNet mask"} & {*rows[0]} == {"true_mask"}
    assert {"blurry", "sharp", "NAFNet", "M2AENet", "M2AENet mask", "M2AENet trajectories"} <= {*rows[0]}
    first = compared / "m2ae" / "0" / "pictures" / "exhibits" / "synthetic-scene~000"
    assert rows[0]["M2AENet"] == first / "restored.png"
    assert rows[0]["M2AENet mask"] == first / "mask.png"
    assert (rows[-1]["M2AENet psnr_db"], rows[-1]["blurry psnr_db"]) == (30.0, 32.0)
    assert picture_tables(subjects, 0) == ([], [])


def test_pictures_beyond_what_is_sent_are_left_out_and_said(compared, monkeypatch):
    runs = find_runs(compared)
    subjects = subjects_of(runs, *tables_across(runs))
    (whole,), _ = picture_tables(subjects, 2)
    size = sum(path.stat().st_size for row in whole.rows[:2] for path in row if isinstance(path, Path))
    monkeypatch.setattr(report_dashboard, "LARGEST_BYTES", size)
    (table,), (told,) = picture_tables(subjects, 2)
    assert len(table.rows) == 2
    assert told.startswith("1 image is left out")
