"""Models of whatever experiment stand side by side, with costs, what was published, and how sure it is."""

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deblur_lab.comparison import REPEATED
from deblur_lab.errors import DataError
from deblur_lab.finished_runs import ImageScores, find_runs
from deblur_lab.leaderboard import Leaderboard, leaderboards, tables_across
from deblur_lab.model_differences import BLURRY
from deblur_lab.model_tables import comparison_table, difference_table, leaderboard_table, narrowed
from deblur_lab.report_page import page
from deblur_lab.report_page.subjects import subjects_of
from deblur_lab.report_tables import origin
from deblur_lab.reporting import markdown
from deblur_lab.scored_results import model_of, repeated_run
from tests.written_runs import result, write_evaluation, write_run

NAMES = [f"scene{number:02}" for number in range(24)]
RELOBLUR = {"dataset": "reloblur", "images": 395, "published_images": 395}
COST = {"net": "NAFNet", "parameters": 1_234_567, "multiply_adds": 2_500_000_000, "size_px": [128, 128]}


def net(name: str, **settings: Any) -> dict[str, Any]:
    return {"net": {"_target_": f"deblur_lab.models.{name}", **settings}}


def scored(gain: float, seed: int = 0) -> dict[str, tuple[float, float]]:
    """PSNR of restored and blurry images whose gain is as given but for the seed's and an image's noise."""
    noise = random.Random(f"{gain} {seed}")
    return {name: (20 + at / 8 + gain + noise.gauss(0, 0.2), 20 + at / 8) for at, name in enumerate(NAMES)}


def train(folder: Path, model: Mapping[str, Any], gain: float, seed: int, *experiments: str, **more: Any):
    one = result(22.9 + gain + seed / 10, **more.pop("result", {}))
    write_run(folder, seed, dict(model), one, *experiments, images=scored(gain, seed), **more)


@pytest.fixture
def sweep(tmp_path) -> Path:
    """Two seeds of three models, trained by the same experiment under the same budget."""
    budget = {"steps": 1000, "patches": 8000, "multiply_adds": 3_200_000_000_000}
    for number, (name, gain) in enumerate((("NAFNet", 2.0), ("M2AENet", 2.5), ("AIBNet", 1.0))):
        model = net(name, **({"sub_decoders": 1} if name == "AIBNet" else {}), width=8 * (1 + number))
        for seed in (0, 1):
            folder = tmp_path / "sweep" / str(2 * number + seed)
            train(folder, model, gain, seed, "compare/small", cost={**COST, "net": name}, budget=budget)
    return tmp_path


def board_of(root: Path) -> Leaderboard:
    (board,) = leaderboards(find_runs(root))
    return board


def test_a_row_is_a_model_over_its_seeds_the_best_first(sweep):
    (board,), comparisons = tables_across(find_runs(sweep))
    assert comparisons == []  # not the same runs again, as a wall of settings
    assert board.title == "synthetic (made up), 3 images"
    assert [(one.label, one.seeds) for one in board.entries] == [
        ("M2AENet", ("0", "1")),
        ("NAFNet", ("0", "1")),
        ("AIBNet-S", ("0", "1")),
    ]
    table = leaderboard_table(board)
    assert table.heading[:5] == ("model", "trained on", "protocol", "seeds", "PSNR (dB)")
    assert table.heading[-2:] == ("parameters (M)", "multiply-adds (G) at 128x128")
    assert list(table.rows[0][:6]) == ["blurry input", "-", "local", "", "20.000", "0.8000"]
    assert list(table.rows[1][3:5]) == ["2 (0, 1)", "25.450 ± 0.071"]
    assert list(table.rows[1][-2:]) == ["1.23", "2.5"]
    lines = markdown(find_runs(sweep), [], [board]).splitlines()
    (first, second, third) = [line for line in lines if "| 2 (0, 1) |" in line]
    assert "| **25.450 ± 0.071** |" in first
    assert "| <u>24.950 ± 0.071</u> |" in second
    assert "<u>" not in third
    assert "**24" not in third
    assert "Each was trained for 1,000 steps, 8,000 patches, 3.2 T multiply-adds." in board.notes
    screen = narrowed(table)
    assert list(screen.heading[:4]) == ["model", "seeds", "PSNR (dB)", "SSIM"]
    assert (screen.heading[-1], screen.title) == (
        "mult.-adds (G)",
        "synthetic (made up), 3 images; multiply-adds at 128x128",
    )
    assert (1, 2) in screen.bold
    assert (2, 2) in screen.underlined


def test_differences_are_between_the_same_images_of_every_pair(sweep):
    board = board_of(sweep)
    pairs = [(pair.first, pair.second) for pair in board.differences]
    assert pairs == [
        ("M2AENet", "NAFNet"),
        ("M2AENet", "AIBNet-S"),
        ("NAFNet", "AIBNet-S"),
        ("M2AENet", BLURRY),
        ("NAFNet", BLURRY),
        ("AIBNet-S", BLURRY),
    ]
    found = board.differences[0].scores["psnr_db"]
    assert (found.count, found.seeds) == (24, (2, 2))
    assert found.low < 0.5 < found.high  # as they were made
    # Each image's hardness, up to 3 dB, cancels: what is left is the noise.
    assert found.high - found.low < 0.6
    assert board.differences[4].scores["psnr_db"].mean == pytest.approx(2.0, abs=0.15)
    table = difference_table(board.differences)
    alone, better = "PSNR (dB), images alone", "images with more PSNR"
    assert table.heading == ("first", "less second", "images", "seeds", "PSNR (dB)", alone, better)
    assert list(table.rows[0][:4]) == ["M2AENet", "NAFNet", "24", "2 and 2"]
    assert table.rows[0][4].startswith(f"{found.mean:+.3f} [")
    text = markdown(find_runs(sweep), [], [board])
    assert "| M2AENet | NAFNet | 24 | 2 and 2 | **+0." in text
    assert "Bold ones exclude 0" in text


def test_only_images_that_both_have_are_compared(sweep):
    path = sweep / "sweep" / "0" / "scores.csv"  # a run of NAFNet
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace(lines[1].split(",")[2], "", 1)  # an image without the score
    path.write_text("\n".join(lines[:-3]) + "\n", encoding="utf-8")
    board = board_of(sweep)
    counts = [pair.scores["psnr_db"].count for pair in board.differences]
    assert counts == [20, 24, 20, 24, 20, 24]
    path.unlink()
    pair = board_of(sweep).differences[0]
    assert (pair.scores, pair.why_not) == ({}, "a run has no scores of its images (scores.csv)")
    assert any(pair.why_not in row for row in difference_table(board_of(sweep).differences).rows)


def test_images_of_one_name_and_other_pictures_are_not_compared(tmp_path):
    """Made-up scenes that follow the seed have the same names in all runs."""
    for number, seed in enumerate((0, 1)):
        images = dict.fromkeys(NAMES, (25.0 + number, 20.0 + number))
        write_run(tmp_path / str(number), seed, net("NAFNet", width=number), result(25.0), images=images)
    (pair, *_) = board_of(tmp_path).differences
    assert pair.why_not == "their test pictures differ from run to run"
    text = markdown(find_runs(tmp_path), [], [board_of(tmp_path)])
    assert text.count("their test pictures differ from run to run") == 1  # not of each against the input


def test_of_many_models_each_is_held_against_the_best_and_nafnet(tmp_path):
    for number, name in enumerate(("UFPNet", "NAFNet", "M2AENet", "Restormer", "Uformer")):
        train(tmp_path / str(number), net(name), number / 4, 0)
    pairs = [(pair.first, pair.second) for pair in board_of(tmp_path).differences if pair.second != BLURRY]
    assert pairs == [
        *(("Uformer", other) for other in ("Restormer", "M2AENet", "NAFNet", "UFPNet")),
        ("Restormer", "NAFNet"),
        ("M2AENet", "NAFNet"),
        ("NAFNet", "UFPNet"),
    ]


def test_frames_of_a_sequence_are_drawn_together(tmp_path):
    names = [f"GOPR0{400 + at % 3}_11_00/{at:06}" for at in range(24)]
    for name, gain in (("NAFNet", 1.0), ("M2AENet", 2.0)):
        images = dict(zip(names, scored(gain).values(), strict=True))
        write_run(tmp_path / name, 0, net(name), result(30.0 + gain, dataset="gopro"), images=images)
    board = board_of(tmp_path)
    assert board.differences[0].scores["psnr_db"].groups == 3
    assert difference_table(board.differences).rows[0][2] == "24 of 3 sequences"


def test_runs_of_other_experiments_and_settings_are_told_apart(tmp_path):
    train(tmp_path / "a", net("NAFNet", width=8), 1.0, 0, "first")
    train(tmp_path / "b", net("NAFNet", width=16), 2.0, 0, "second")
    train(tmp_path / "c", net("M2AENet", width=8), 1.5, 0, "second")
    write_evaluation(tmp_path / "d", result(23.0), checkpoint="x.pth", cost=COST)
    write_evaluation(tmp_path / "e", result(23.5), restored_by="/pictures")
    board = board_of(tmp_path)
    assert [entry.label for entry in board.entries] == [
        "NAFNet (width=16)",
        "M2AENet",
        "NAFNet (width=8)",
        "e (pictures in /pictures)",
        "NAFNet (d: x.pth)",
    ]
    many = {f"option{number}": 1 for number in range(5)}
    train(tmp_path / "f", net("M2AENet", width=8, **many), 1.0, 0, "third")
    labels = {entry.label for entry in board_of(tmp_path).entries if entry.model == "M2AENet"}
    assert labels == {"M2AENet", "M2AENet (third and 5 settings)"}


def test_rows_of_one_name_are_told_apart_by_their_runs(tmp_path):
    # The same settings, trained on other data.
    for name, trained_on in (("a", "gopro"), ("b", "hide")):
        train(tmp_path / name, net("NAFNet"), 1.0, 0, trained_on=(trained_on,))
    assert [entry.label for entry in board_of(tmp_path).entries] == ["NAFNet (a)", "NAFNet (b)"]


def test_a_training_in_stages_has_the_name_of_what_it_ends_with(tmp_path):
    settings = {**net("AIBNet", sub_decoders=2)}
    write_run(tmp_path / "a", 0, settings, result(20.0))
    path = tmp_path / "a" / "config.yaml"
    first = "encoder: {model: {net: {_target_: deblur_lab.models.NAFNet}}}"
    stages = f"stages: {{{first}, last: {{model: {{net: {{sub_decoders: 4}}}}}}}}\n"
    path.write_text(path.read_text(encoding="utf-8") + stages, encoding="utf-8")
    (run,) = find_runs(tmp_path)
    assert model_of(run) == "AIBNet-L"


def test_one_model_whose_settings_differ_has_one_table_of_settings(tmp_path):
    for number in (0, 1):
        train(tmp_path / str(number), net("NAFNet", width=8 + number), number, 0, "widths")
    boards, (table,) = tables_across(find_runs(tmp_path))
    assert boards == []
    pair = table.differences[0]
    assert (pair.first, pair.second) == ("width=8", "width=9")
    assert pair.scores["psnr_db"].mean == pytest.approx(-1.0, abs=0.15)
    # Beside another model both are of use.
    train(tmp_path / "other", net("M2AENet"), 3.0, 0)
    boards, tables = tables_across(find_runs(tmp_path))
    assert ([len(board.entries) for board in boards], len(tables)) == ([3], 1)


GOPRO = {"dataset": "gopro", "images": 1111, "protocol": {"name": "gopro", "description": ""}}


def test_published_rows_stand_in_the_table(tmp_path):
    train(tmp_path / "a", net("M2AENet"), 12.0, 0, result=RELOBLUR)  # 34.9
    board = board_of(tmp_path)  # of one model, as others are printed
    best = max(board.published, key=lambda entry: entry.cells["psnr_db"].mean)
    assert (best.model, best.ranked) == ("M2AENet", False)  # it is not told whether TLC was on
    assert {board.place(entry, "psnr_db") for entry in board.entries} == {None}
    assert (best.parameters, best.multiply_adds, best.size_px) == (17_440_000, 759_000_000_000, (2152, 1436))
    table = leaderboard_table(board)
    (row,) = [row for row in table.rows if row[0] == "M2AENet † (published)"]
    assert row[4:6] == ["35.647", "0.9302"]  # as it was printed
    assert row[-1] == "Shang et al. 2025, table 1; own"
    assert (table.rows[1][0], table.rows[1][-1]) == ("M2AENet", "ours")
    (pair,) = board.differences  # there are no images of what was printed
    assert pair.second == BLURRY


@pytest.mark.parametrize("on", [False, True])
def test_published_rows_compete_with_those_of_their_protocol_tlc_and_training_sets(tmp_path, on):
    told = {"result": {**GOPRO, "tlc": on}, "trained_on": ("gopro",)}
    train(tmp_path / "a", net("NAFNet"), 10.0, 0, **told)  # 32.9
    train(tmp_path / "b", net("UFPNet"), 10.1, 0, **told)
    # Better ones, which are of other kinds.
    train(tmp_path / "c", net("M2AENet"), 17.0, 0, **{**told, "trained_on": ("gopro (made up)",)})
    train(tmp_path / "d", net("AIBNet"), 16.0, 0, **{**told, "trained_on": ("gopro", "hide")})
    train(tmp_path / "e", net("Uformer"), 15.0, 0, **{**told, "result": {**GOPRO, "tlc": not on}})
    board = board_of(tmp_path)
    assert [(entry.model, entry.ranked) for entry in board.entries] == [
        ("M2AENet", False),
        ("AIBNet", False),
        ("Uformer", False),
        ("UFPNet", True),
        ("NAFNet", True),
    ]
    ranked = [entry for entry in board.published if entry.ranked]
    assert ranked
    assert {(entry.published.tlc, entry.published.protocol) for entry in ranked} == {
        ("on" if on else "off", "gopro")
    }
    assert {board.place(entry, "psnr_db") for entry in board.entries if not entry.ranked} == {None}
    best = max(ranked, key=lambda entry: entry.cells["psnr_db"].mean)
    assert board.place(best, "psnr_db") == 1
    (note,) = [note for note in board.notes if "†" in note]
    assert note.startswith(
        f"Best and second are found among rows of protocol gopro, TLC {'on' if on else 'off'} "
    )
    shown = leaderboard_table(board, ranked=True)
    assert [row[0] for row in shown.rows[1:4]] == ["M2AENet †", "AIBNet †", "Uformer †"]
    assert narrowed(shown).title.endswith("; † not ranked")
    # Of other training sets alone nothing published competes, and ours do among themselves.
    for name in "abe":
        shutil.rmtree(tmp_path / name)
    board = board_of(tmp_path)
    assert [board.place(entry, "psnr_db") for entry in board.entries] == [1, None]
    assert not any(entry.ranked for entry in board.published)
    assert any("though they are trained on different data" in note for note in board.notes)


@pytest.mark.parametrize(
    "typed", ["a/0/checkpoints/last.ckpt", "/elsewhere/a/0/checkpoints/last.ckpt", "whole"]
)
def test_a_run_that_is_scored_again_is_no_other_model(tmp_path, typed):
    for folder, name, gain in (("a", "NAFNet", 1.0), ("b", "M2AENet", 2.0)):
        train(tmp_path / folder / "0", net(name), gain, 0)
    path = str(tmp_path / "a" / "0" / "checkpoints" / "last.ckpt") if typed == "whole" else typed
    told = {"checkpoint": path, "trained_on": ["GoPro"], "cost": COST}
    write_evaluation(tmp_path / "again", result(26.0), **told)
    write_evaluation(tmp_path / "other", result(25.5), **{**told, "checkpoint": "a/1/checkpoints/last.ckpt"})
    runs = find_runs(tmp_path)
    (board,), _ = tables_across(runs)
    assert [entry.repeats for entry in board.entries] == ["a/0", "", "", ""]
    assert [board.place(entry, "psnr_db") for entry in board.entries] == [None, 1, 2, None]
    assert not any("again" in pair.first + pair.second for pair in board.differences)
    assert leaderboard_table(board).rows[1][0] == "NAFNet †"
    assert REPEATED in board.notes
    # Nor do the two make a table.
    for name in ("b", "other"):
        shutil.rmtree(tmp_path / name)
    assert tables_across(find_runs(tmp_path)) == ([], [])
    # On other data, where the run has no row, it has one.
    for name in ("x", "y"):
        write_evaluation(tmp_path / name, result(26.0, dataset="hide"), **told)
    (board,) = leaderboards(find_runs(tmp_path))
    assert [entry.repeats for entry in board.entries] == ["", ""]


def test_evaluations_of_runs_on_other_data_are_seeds_of_their_models(tmp_path):
    told = {"trained_on": ["GoPro"], "seed": 0, "commit": "def", "cost": {**COST, "net": "AIBNet"}}
    for name, gain in (("NAFNet", 1.0), ("AIBNet", 2.0)):
        model = net(name, **({"sub_decoders": 2} if name == "AIBNet" else {}))
        for seed in (0, 1):
            train(tmp_path / name / str(seed), model, gain, seed, max_steps=70)
            checkpoint = str(tmp_path / name / str(seed) / "checkpoints" / "last.ckpt")
            folder = tmp_path / f"e-{name}-{seed}"
            write_evaluation(folder, result(20 + gain + seed, dataset="hide"), **told, checkpoint=checkpoint)
            rows = [f"hide,{image},{30 - gain},{10 + at}" for at, image in enumerate(NAMES)]
            lines = ["dataset,name,psnr_db,blurry_psnr_db", *rows]
            (folder / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    boards, _ = tables_across(find_runs(tmp_path))
    assert [board.dataset for board in boards] == [
        "synthetic",
        "hide",
    ]  # what they were tested on is first
    first, second = boards[1].entries
    # AIBNet's size is known of the training alone, as is the seed.
    assert [(entry.model, entry.seeds) for entry in (first, second)] == [
        ("AIBNet-B", ("0", "1")),
        ("NAFNet", ("0", "1")),
    ]
    assert (first.cells["psnr_db"].mean, first.cells["psnr_db"].count) == (22.5, 2)
    assert any("commits those of the evaluations" in note for note in boards[1].notes)
    assert not any("commits those of the evaluations" in note for note in boards[0].notes)
    assert "70 steps" in boards[1].notes[0]
    assert any(
        note.startswith("Evaluations of runs' last.ckpt stand for the runs") for note in boards[1].notes
    )
    # The images are the evaluations'.
    pair = boards[1].differences[0]
    assert (pair.first, pair.second) == ("AIBNet-B", "NAFNet")
    assert pair.scores["psnr_db"].mean == pytest.approx(-1)
    assert pair.scores["psnr_db"].seeds == (2, 2)


def test_an_evaluation_by_another_threshold_does_not_stand_for_the_run(tmp_path):
    for name in "ab":
        train(tmp_path / name / "0", net("M2AENet"), 1.0, 0, result={"threshold": 0.5})
    for name, threshold in (("a", 0.5), ("b", 0.7)):
        checkpoint = str(tmp_path / name / "0" / "checkpoints" / "last.ckpt")
        one = result(25.0, dataset="hide", threshold=threshold)
        write_evaluation(tmp_path / f"e{name}", one, checkpoint=checkpoint, trained_on=["GoPro"], cost=COST)
    (board,) = [board for board in leaderboards(find_runs(tmp_path)) if board.dataset == "hide"]
    assert sorted(entry.seeds for entry in board.entries) == [(), ("0",)]


def test_a_stage_that_is_not_the_last_is_another_model(tmp_path):
    write_run(tmp_path / "a", 0, net("AIBNet", sub_decoders=2), result(20.0))
    path = tmp_path / "a" / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "stages: {encoder: {x: 1}, last: {x: 2}}\n")
    (run,) = find_runs(tmp_path)
    for stage, found in (("encoder", ""), ("last", "a")):
        folder = tmp_path / f"of_{stage}"
        write_evaluation(
            folder, result(20.0), checkpoint=f"a/stages/1-{stage}/checkpoints/last.ckpt", trained_on=["GoPro"]
        )
        (evaluation,) = find_runs(folder)
        assert repeated_run(evaluation, [run]) == found


def test_steps_are_those_of_all_stages(tmp_path):
    for name in ("NAFNet", "M2AENet"):
        train(tmp_path / name, net(name), 1.0, 0, budget={"steps": 1000, "patches": 1, "multiply_adds": None})
    runs = find_runs(tmp_path)
    assert "2 runs, 1000 steps," in board_of(tmp_path).notes[0]
    assert "8 steps" not in board_of(tmp_path).notes[0]
    assert ", steps 1000," in origin(runs[0], runs[0].scores["results"][0])


def test_an_infinite_score_has_no_difference_and_says_where(tmp_path):
    for name in ("NAFNet", "M2AENet"):
        train(tmp_path / name, net(name), 1.0, 0)
    path = tmp_path / "NAFNet" / "scores.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:2], "inf", cells[3]])
    path.write_text("\n".join(lines), encoding="utf-8")
    runs = find_runs(tmp_path)
    boards, comparisons = tables_across(runs)
    told = f"{path} has an infinite psnr_db of scene02"
    found = {(pair.first, pair.second): pair.why_not for pair in boards[0].differences}
    assert found.pop(("M2AENet", BLURRY)) == ""
    assert set(found.values()) == {told}
    assert told in markdown(runs, comparisons, boards)
    assert told in page(runs, comparisons, 0, boards)


def test_runs_of_one_seed_count_as_one_on_the_page_too(tmp_path):
    for number, (seed, psnr_db) in enumerate(((0, 20.0), (0, 22.0), (1, 24.0))):
        images = dict.fromkeys(NAMES, (psnr_db, 19.0))
        write_run(tmp_path / str(number), seed, net("NAFNet"), result(psnr_db), "small", images=images)
    runs = find_runs(tmp_path)
    (subject,) = subjects_of(runs, *tables_across(runs))
    (model,) = subject.models
    assert model.image_scores("psnr_db")[0] == dict.fromkeys(NAMES, 22.5)
    labels = [model.label_of(run) for run in runs]
    assert labels == [
        *(f"NAFNet, seed 0 ({run.name})" for run in runs[:2]),
        "NAFNet, seed 1",
    ]


def test_runs_of_one_model_are_called_by_its_name(tmp_path):
    for seed in (0, 1):
        train(tmp_path / "small" / str(seed), net("NAFNet"), 1.0, seed, "compare/small")
    boards, (table,) = tables_across(find_runs(tmp_path))
    assert boards == []
    assert [pair.first for pair in table.differences] == ["NAFNet"]
    shown = comparison_table(table)
    assert shown.heading[:4] == ("model", "trained on", "protocol", "seeds")
    assert [row[0] for row in shown.rows] == ["blurry input", "NAFNet"]


def test_published_rows_of_an_untold_protocol_are_shown_and_take_no_part(tmp_path):
    for name, gain in (("NAFNet", 1.0), ("M2AENet", 2.0)):
        train(tmp_path / name, net(name), gain, 0, result=GOPRO)
    board = board_of(tmp_path)
    untold = next(entry for entry in board.published if entry.model == "AIBNet-L")
    assert untold.cells["psnr_db"].mean == 34.95
    assert (untold.ranked, board.place(untold, "psnr_db")) == (False, None)
    assert {entry.published.dataset for entry in board.published} == {"GoPro"}
    assert any("untold protocol" in note for note in board.notes)
    shown = leaderboard_table(board, ranked=True)
    assert "AIBNet-L (published)" not in [row[0] for row in shown.rows]
    assert "NAFNet, width 64 (published)" in [row[0] for row in shown.rows]
    assert ["NAFNet, width 64", "published"] in [list(row[:2]) for row in narrowed(shown).rows]


@pytest.mark.parametrize(
    "other", [{"made_up": True}, {"images": 300}, {"missing": 5}, {"names_like": "gopro"}]
)
def test_nothing_published_stands_beside_made_up_pictures_or_a_part(tmp_path, other):
    for name in ("NAFNet", "M2AENet"):
        train(tmp_path / name, net(name), 1.0, 0, result={**RELOBLUR, **other})
    board = board_of(tmp_path)
    assert board.published == []
    assert board.made_up == bool(other.get("made_up"))
    assert any("none stands beside these" in note for note in board.notes) != board.made_up


def test_seeds_with_scenes_of_their_own_make_one_table(tmp_path):
    for name in ("NAFNet", "M2AENet"):
        for seed in (0, 1):
            one = {"blurry_scores": {"psnr_db": 20.0 + seed, "ssim": 0.8}}
            folder = tmp_path / f"{name}{seed}"
            train(folder, net(name), 1.0, seed, result=one)
            path = folder / "config.yaml"
            scenes = "data: {sources: [{_target_: x.SyntheticSource, seed: '${seed}'}]}\n"
            path.write_text(path.read_text(encoding="utf-8") + scenes, encoding="utf-8")
    board = board_of(tmp_path)
    assert [entry.seeds for entry in board.entries] == [("0", "1")] * 2
    assert board.blurry == {}
    assert "Each seed has test scenes of its own" in board.notes[0]


def test_other_pictures_have_another_table(tmp_path):
    for name, blurry in (("NAFNet", 20.0), ("M2AENet", 20.0), ("UFPNet", 22.0), ("AIBNet", 22.0)):
        train(tmp_path / name, net(name), 1.0, 0, result={"blurry_scores": {"psnr_db": blurry, "ssim": 0.8}})
    first, second = leaderboards(find_runs(tmp_path))
    assert {entry.model for entry in first.entries} == {"UFPNet", "AIBNet"}
    assert {entry.model for entry in second.entries} == {"NAFNet", "M2AENet"}


def test_scores_of_images_are_read_as_they_were_written(tmp_path):
    write_run(tmp_path / "a", 0, {}, result(20.0))
    path = tmp_path / "a" / "scores.csv"
    scores = ("psnr_db", "weighted_psnr_db")
    blurry = (f"blurry_{name}" for name in scores)
    head = ",".join(["dataset", "name", *scores, *blurry, "aligned", "blurry_aligned", "epe_px"])
    path.write_text(f"{head}\nx,b/1,30.5,,20.25,,1,0,2.5\n", encoding="utf-8")
    (run,) = find_runs(tmp_path)
    assert run.images == (ImageScores("x", "b/1", {"psnr_db": 30.5}, {"psnr_db": 20.25}),)
    write_run(tmp_path / "b", 0, {}, result(20.0))
    for damaged in (
        f"{head}\nx,b/1,many,,1,,1,1,1\n",
        "name,psnr_db,blurry_psnr_db\nb,1,2\n",
        f"{head}\nx,b\n",
        f"{head}\nx,b,nan,,1,,1,1,1\n",
    ):
        path.write_text(damaged, encoding="utf-8")
        run, other = find_runs(tmp_path)
        with pytest.raises(DataError, match=f"^{path} is damaged: .*: mend or remove it$"):
            _ = run.images
        assert other.images == ()
