"""Models that were scored on several datasets stand in one table, each dataset with columns of its own."""

from typing import Any

import pytest

from deblur_lab.finished_runs import find_runs
from deblur_lab.leaderboard import tables_across
from deblur_lab.model_tables import overview_table
from deblur_lab.overview import Overview, overviews
from deblur_lab.report_page import page
from deblur_lab.reporting import markdown
from tests.written_runs import result, write_evaluation, write_run

GOPRO = {"dataset": "gopro", "images": 1111, "published_images": 1111, "protocol": {"name": "gopro"}}
HIDE = {"dataset": "hide", "images": 2025, "published_images": 2025, "protocol": {"name": "hide"}}
COST = {"net": "NAFNet", "parameters": 2_000_000, "multiply_adds": 3_000_000_000, "size_px": [1280, 720]}


def scored(psnr_db: float, dataset: dict[str, Any], **others: Any) -> dict[str, Any]:
    protocol = {"description": "as it is", **dataset.get("protocol", {"name": "local"})}
    return result(psnr_db, **{"made_up": False, **dataset, "protocol": protocol, **others})


def train(root, name: str, net: str, seed: int, psnr_db: float, dataset=GOPRO, **others: Any):
    settings = {"net": {"_target_": f"deblur_lab.models.{net}"}}
    one = scored(psnr_db, dataset, **others)
    write_run(root / name, seed, settings, one, trained_on=("gopro",), cost={**COST, "net": net})


def evaluate(root, name: str, run: str, psnr_db: float, dataset=HIDE, **others: Any):
    checkpoint = str(root / run / "checkpoints" / "last.ckpt")
    about = {"checkpoint": checkpoint, "trained_on": ["gopro"], "seed": 0, "cost": COST}
    write_evaluation(root / name, scored(psnr_db, dataset, **others), **about)


def overview_of(root) -> Overview:
    runs = find_runs(root)
    boards, _ = tables_across(runs)
    (overview,) = overviews(runs, boards)
    return overview


@pytest.fixture
def two_models(tmp_path):
    """NAFNet of two seeds and UFPNet of one, trained on GoPro, tested there and evaluated on HIDE."""
    for name, net, seed, gopro, hide in (
        ("a0", "NAFNet", 0, 33.0, 31.0),
        ("a1", "NAFNet", 1, 33.2, 31.4),
        ("b0", "UFPNet", 0, 33.4, 30.9),
    ):
        train(tmp_path, name, net, seed, gopro)
        evaluate(tmp_path, f"hide-{name}", name, hide)
    return tmp_path


def test_a_run_and_the_evaluations_of_its_checkpoint_are_one_row(two_models):
    overview = overview_of(two_models)
    assert [dataset.name for dataset in overview.datasets] == ["gopro", "hide"]
    ours = [row for row in overview.rows if row.entry.published is None]
    seeds = [(row.entry.model, row.entry.seeds) for row in ours]
    assert seeds == [("UFPNet", ("0",)), ("NAFNet", ("0", "1"))]
    table = overview_table(overview)
    assert list(table.full_heading) == [
        *("model", "trained on", "protocol", "seeds"),
        *("gopro PSNR (dB)", "gopro SSIM", "hide PSNR (dB)", "hide SSIM"),
        *("parameters (M)", "multiply-adds (G) at 1280x720", "source"),
    ]
    blurry, ufpnet, nafnet, *printed = table.rows
    assert blurry[4:8] == ["20.000", "0.8000", "20.000", "0.8000"]
    assert blurry[2] == "gopro or hide"
    assert ufpnet[4:9] == ["33.400", "0.9000", "30.900", "0.9000", "2.00"]
    # The evaluations' own seed is that of their scenes: the row's are those of the trainings.
    assert nafnet[:5] == ["NAFNet", "gopro", "gopro, TLC off; hide, TLC off", "2 (0, 1)", "33.100 ± 0.141"]
    assert nafnet[6] == "31.200 ± 0.283"
    assert printed
    assert all(row[0].endswith("(published)") for row in printed)


def test_best_and_second_are_found_dataset_by_dataset(tmp_path):
    made_up = {"made_up": True}
    for name, net, first, second in (
        ("a", "NAFNet", 33.0, 31.0),
        ("b", "UFPNet", 33.5, 30.0),
        ("c", "M2AENet", 32.0, 30.5),
        ("d", "AIBNet", 40.0, None),  # which the second dataset was not scored with
    ):
        train(tmp_path, name, net, 0, first, {"dataset": "synthetic"}, **made_up)
        if second is not None:
            evaluate(tmp_path, f"e{name}", name, second, {"dataset": "own"}, **made_up)
    overview = overview_of(tmp_path)
    assert [row.entry.model for row in overview.rows] == ["UFPNet", "NAFNet", "M2AENet"]
    assert [overview.place(row, 0, "psnr_db") for row in overview.rows] == [1, 2, None]
    assert [overview.place(row, 1, "psnr_db") for row in overview.rows] == [None, 1, 2]
    table = overview_table(overview)
    headings = table.full_heading
    shown = {(at - 1, headings[column]) for at, column in table.bold if "PSNR" in headings[column]}
    assert shown == {(0, "synthetic (made up) PSNR (dB)"), (1, "own (made up) PSNR (dB)")}
    assert any("made up" in note for note in overview.notes)


def test_made_up_and_real_datasets_have_tables_apart(two_models):
    for name in ("a0", "b0"):
        for number, dataset in enumerate(("one", "two")):
            made_up = {"dataset": dataset, "made_up": True}
            evaluate(two_models, f"{dataset}-{name}", name, 25.0 + number, made_up)
    runs = find_runs(two_models)
    found = overviews(runs, tables_across(runs)[0])
    assert [[dataset.name for dataset in one.datasets] for one in found] == [
        ["gopro", "hide"],
        ["one (made up)", "two (made up)"],
    ]
    assert not any(row.entry.published for row in found[1].rows)


def test_published_rows_are_those_that_one_source_has_of_several_datasets(two_models):
    overview = overview_of(two_models)
    printed = [row for row in overview.rows if row.entry.published is not None]
    (aibnet,) = [row for row in printed if row.entry.model == "AIBNet-L"]
    assert {number: entry.published.numbers["psnr_db"] for number, entry in aibnet.scored.items()} == {
        0: "34.95",
        1: "32.41",
    }
    for row in printed:
        assert len({entry.published.source for entry in row.scored.values()}) == 1
        assert sorted(row.scored) == [0, 1]
    # PGDN has a number of GoPro alone.
    assert "PGDN" not in {row.entry.model for row in printed}
    unranked = [row for row in printed if not row.entry.ranked]
    assert {overview.place(row, 0, "psnr_db") for row in unranked} == {None}
    assert any(note.startswith("†") for note in overview.notes)


def test_a_checkpoint_of_no_known_run_has_a_row_of_its_own(two_models):
    for dataset in (GOPRO, HIDE):
        evaluate(two_models, f"x-{dataset['dataset']}", "elsewhere", 30.0, dataset)
    (row,) = [row for row in overview_of(two_models).rows if not row.entry.seeds and not row.entry.published]
    assert row.entry.details.endswith("elsewhere/checkpoints/last.ckpt")
    assert (row.entry.model, sorted(row.scored)) == ("NAFNet", [0, 1])


def test_a_second_evaluation_of_a_net_is_not_averaged_with_the_first(two_models):
    before = overview_of(two_models)
    evaluate(two_models, "hide-a0-again", "a0", 50.0, HIDE, tlc=True)
    after = overview_of(two_models)
    (old, new) = ([row.mean(1, "psnr_db") for row in one.rows] for one in (before, after))
    assert old == new
    assert not any("several evaluations" in note for note in before.notes)
    assert any("several evaluations" in note for note in after.notes)


def test_one_dataset_by_two_protocols_has_columns_told_apart(two_models):
    other = {**GOPRO, "protocol": {"name": "local"}}
    for name in ("a0", "a1", "b0"):
        evaluate(two_models, f"local-{name}", name, 33.0, other)
    names = [dataset.name for dataset in overview_of(two_models).datasets]
    assert names == ["gopro by gopro", "hide", "gopro by local"]


def test_of_one_dataset_there_is_no_such_table(two_models):
    for folder in two_models.glob("hide-*"):
        (folder / "scores.json").unlink()
    runs = find_runs(two_models)
    assert overviews(runs, tables_across(runs)[0]) == []


def test_the_report_begins_with_it(two_models):
    runs = find_runs(two_models)
    boards, comparisons = tables_across(runs)
    over = overviews(runs, boards)
    text = markdown(runs, comparisons, boards, over)
    first = next(line for line in text.splitlines() if line.startswith("## "))
    assert first == "## 2 datasets: gopro, hide"
    assert "| 33.100 ± 0.141 | **0.9000 ± 0.0000** | **31.200 ± 0.283** |" in text
    shown = page(runs, comparisons, 0, boards, over)
    groups = (
        '<th scope="colgroup" class=group colspan=2>gopro</th><th scope="colgroup" class=group colspan=2>hide'
    )
    assert f"<thead><tr><td colspan=1></td>{groups}</th><td colspan=6></td></tr>" in shown
    assert '<li><a href="#datasets-1">Models on 2 datasets: gopro, hide</a></li>' in shown
    assert shown.index('<section id="datasets-1">') < shown.index('<section id="models-1">')
