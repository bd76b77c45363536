"""Runs are compared by what they differ in; means and spreads are over seeds; a paper's rows stay apart."""

import html
import re
import statistics
from typing import Any

import pytest
from omegaconf import OmegaConf

from deblur_lab.comparison import compare
from deblur_lab.errors import DataError
from deblur_lab.finished_runs import Run, find_runs
from deblur_lab.model_tables import comparison_table
from deblur_lab.report_measures import MEASURES, Spread, spread
from deblur_lab.report_page import page
from deblur_lab.report_tables import (
    finding_tables,
    protocol_lines,
    published_table,
    remarks,
    score_table,
    threshold_points,
)
from deblur_lab.reporting import markdown
from deblur_lab.setting_differences import differing
from tests.written_runs import result, write_evaluation, write_run

BLUR = {"threshold": 0.5, "precision": 0.75, "recall": None, "f1": 0.6, "iou": 0.5, "calibration_error": 0.1}
MOTION = {"epe_px": 1.25, "zero_epe_px": 2.5, "moving_epe_px": 2.0, "moving_zero_epe_px": 5.0}


@pytest.fixture
def sweep(tmp_path) -> list[Run]:
    """Two variants of table 3: six seeds of one, five of the other, of which one has no PSNR."""
    for number in range(11):
        masks, seed = divmod(number, 6)
        own = {"net": {"mask_aware": bool(masks), "width": 4}}
        value = None if number == 10 else 20.0 + seed + 3 * masks
        found = {"blur_detection": {**BLUR, "iou": 0.5 + seed / 10}, "motion": MOTION} if masks else {}
        write_run(tmp_path / "sweep" / str(number), seed, own, result(value, **found), "m2aenet/table3")
    return find_runs(tmp_path)


def test_jobs_are_read_in_the_order_of_their_numbers(sweep):
    assert [run.name for run in sweep] == [f"sweep/{number}" for number in range(11)]
    assert sweep[0].experiments == ("m2aenet/table3",)
    assert sweep[0].settings["model.net.width"] == 4


def test_a_row_holds_the_mean_and_the_sample_deviation_over_seeds(sweep):
    (table,) = compare(sweep)
    assert table.settings == ("model.net.mask_aware",)
    assert table.headings == ("mask_aware",)
    first, second = table.rows
    assert (first.settings, first.seeds) == (("false",), ("0", "1", "2", "3", "4", "5"))
    values = [20.0, 21.0, 22.0, 23.0, 24.0, 25.0]
    assert first.cells["psnr_db"].mean == statistics.fmean(values)
    # By hand: the squared distances from 22.5 sum up to 17.5.
    assert first.cells["psnr_db"].deviation == pytest.approx((17.5 / 5) ** 0.5)
    # One run has no such score.
    assert (second.seeds, second.cells["psnr_db"].count) == (("0", "1", "2", "3", "4"), 4)
    assert second.cells["blur_iou"].mean == pytest.approx(0.7)
    assert first.cells["blur_iou"] is None
    assert table.columns == ("psnr_db", "ssim", "blur_iou", "blur_f1", "epe_px", "zero_epe_px")
    assert table.blurry["psnr_db"].mean == 20.0


def test_the_best_is_bold_and_less_error_is_better(sweep):
    (table,) = compare(sweep)
    first, second = table.rows
    assert (table.is_best(first, "psnr_db"), table.is_best(second, "psnr_db")) == (False, True)
    assert table.is_best(first, "ssim") == table.is_best(second, "ssim") is True  # equal
    assert not table.is_best(second, "blur_iou")  # it has nobody beside it
    assert (MEASURES["epe_px"].better, MEASURES["zero_epe_px"].better) == (-1, 0)
    text = comparison_table(table)
    assert text.heading[:5] == ("mask_aware", "trained on", "protocol", "seeds", "PSNR (dB)")
    meant = ["GoPro", "local, TLC off"]
    assert list(text.rows[0][:6]) == ["blurry input", "-", "local", "", "20.000", "0.8000"]
    assert list(text.rows[1][:5]) == ["false", *meant, "6 (0, 1, 2, 3, 4, 5)", "22.500 ± 1.871"]
    assert list(text.rows[2][:5]) == ["true", *meant, "5 (0, 1, 2, 3, 4)", "24.500 ± 1.291 (4 of 5)"]
    assert (2, 4) in text.bold
    assert (1, 4) not in text.bold


def test_several_runs_of_one_seed_are_one(tmp_path):
    # Seed 0 twice and seed 1 once; the mean over runs would be 22, with a deviation of 2.
    for number, (seed, value) in enumerate([(0, 20.0), (0, 22.0), (1, 24.0)]):
        own = {"net": {"mask_aware": True}}
        write_run(tmp_path / str(number), seed, own, result(value), "m2aenet/table3")
    # Another way of setting them: both runs of seed 0 alone, of which one has no score.
    for number, value in ((3, 30.0), (4, None)):
        own = {"net": {"mask_aware": False}}
        write_run(tmp_path / str(number), 0, own, result(value), "m2aenet/table3")
    (table,) = compare(find_runs(tmp_path))
    first, second = table.rows
    assert (first.seeds, first.runs) == (("0", "1"), 3)
    assert first.cells["psnr_db"] == Spread(22.5, pytest.approx(1.5 * 2**0.5), 2)
    assert (second.seeds, second.runs) == (("0",), 2)
    assert second.cells["psnr_db"] == Spread(30.0, None, 1)
    text = comparison_table(table)
    assert list(text.rows[1])[:5:4] == ["true", "22.500 ± 2.121"]
    assert text.rows[1][3] == "2 (0, 1), 3 runs"
    assert list(text.rows[2])[:5:4] == ["false", "30.000"]
    assert text.rows[2][3] == "1 (0), 2 runs"
    assert "over seeds; 5 runs" in table.origin


def test_one_value_has_no_spread():
    assert (spread([3.0]).mean, spread([3.0]).deviation) == (3.0, None)
    assert spread([]) is None


def test_what_does_not_make_another_experiment_is_not_compared():
    base = {"seed": 0, "output": "a", "data.num_workers": 0, "data.root": "x", "trainer.max_steps": 5}
    other = {"seed": 1, "output": "b", "data.num_workers": 4, "data.root": "y", "trainer.max_steps": 6}
    assert differing([base, other]) == ("data.root", "trainer.max_steps")
    nafnet = {"model._target_": "a.Restoration", "model.net._target_": "m.NAFNet", "model.net.width": 8}
    m2aenet = {
        "model._target_": "a.Local",
        "model.net._target_": "m.M2AENet",
        "model.net.width": 4,
        "model.net.mask_aware": True,
    }
    # The net, and what both have; not what one alone could have.
    assert differing([nafnet, m2aenet]) == ("model.net._target_", "model.net.width")
    older = {"trainer.max_steps": 5}
    assert differing([older, {**older, "val_every_steps": 3}]) == ("val_every_steps",)


def test_many_settings_share_a_column_and_names_are_told_apart(tmp_path):
    for number in (1, 2):
        settings = {name: {"x": number} for name in ("net", "loss", "optimizer", "scheduler", "more")}
        write_run(tmp_path / f"run{number}", 0, settings, result(20.0))
    (table,) = compare(find_runs(tmp_path))
    text = comparison_table(table)
    assert (text.heading[0], text.heading[4], text.heading[-1]) == ("run", "PSNR (dB)", "settings")
    assert [row[0] for row in text.rows] == ["blurry input", "run1", "run2"]
    assert text.rows[1][-1] == "x=1, loss.x=1, optimizer.x=1, scheduler.x=1, more.x=1"
    assert table.title == "runs on synthetic (made up)"


def test_settings_behind_the_scores_are_those_that_a_row_has(tmp_path):
    for number in (1, 2):
        settings = {name: {"x": number} for name in ("net", "loss", "optimizer", "scheduler", "more")}
        if number == 2:
            del settings["more"]
        write_run(tmp_path / f"run{number}", 0, settings, result(20.0))
    write_evaluation(tmp_path / "theirs", result(21.0), restored_by="/theirs")
    (table,) = compare(find_runs(tmp_path))
    rows = [row[-1] for row in comparison_table(table).rows]
    assert rows[0] == rows[3] == "-"
    assert rows[2] == "x=2, loss.x=2, optimizer.x=2, scheduler.x=2"


def test_the_blurry_input_is_told_where_rows_differ_in_data_and_not_in_pictures(tmp_path):
    for number, blurry in enumerate([20.0, 20.0, 25.0]):
        write_run(tmp_path / str(number), 0, {}, result(30.0, blurry_scores={"psnr_db": blurry}))
        path = tmp_path / str(number) / "config.yaml"
        path.write_text(f"data: {{patch_size: {32 * (1 + number)}}}\n", encoding="utf-8")
    runs = find_runs(tmp_path)
    same, other = compare(runs[:2]), compare(runs)
    assert same[0].blurry["psnr_db"] == Spread(20.0, None, 1)
    assert other[0].blurry == {}


def test_where_the_same_pictures_lie_makes_no_other_row(tmp_path):
    for number, blurry in enumerate([20.0, 20.0, 25.0]):
        one = result(30.0 + number, blurry_scores={"psnr_db": blurry, "ssim": 0.8})
        write_run(tmp_path / str(number), number, {}, one)
        path = tmp_path / str(number) / "config.yaml"
        path.write_text(f"seed: {number}\ndata: {{root: /data/{number}}}\n", encoding="utf-8")
    runs = find_runs(tmp_path)
    (table,) = compare(runs[:2])
    assert (table.settings, len(table.rows)) == ((), 1)
    assert "The runs' root differ, and the test pictures are the same." in table.origin
    (table,) = compare(runs)  # other pictures are other data
    assert (table.settings, len(table.rows)) == (("data.root",), 3)


def test_a_copy_of_another_size_than_published_is_marked_and_stands_apart(tmp_path):
    small = result(30.0, **GOPRO, published_images=1111)
    for seed in (0, 1):
        write_run(tmp_path / f"run{seed}", seed, {"x": 1}, small, "m2aenet/table3")
    write_evaluation(tmp_path / "theirs", small, restored_by="/theirs")
    write_evaluation(tmp_path / "full", result(31.0, **{**GOPRO, "images": 1111}, published_images=1111))
    runs = find_runs(tmp_path)
    (table,) = compare(runs)
    assert table.title == "m2aenet/table3 on gopro, 3 of 1111 images"
    assert {row.protocol for row in table.rows} == {"gopro, TLC off, 3 of 1111 images"}
    assert published_table(table).title.endswith(": whole test splits, not comparable with the part above")
    told = "3 of GoPro's 1111 test pairs: no published number is comparable; "
    for text in (markdown(runs, [table]), html.unescape(page(runs, [table], 0))):
        assert text.count(told) == 3
        assert "1111 of 1111" not in text


def test_the_parts_of_a_protocol_are_told_once_or_unfold(tmp_path):
    protocol = {"name": "gopro", "description": "as it is", "psnr": "of levels"}
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, result(30.0, dataset="gopro", protocol=protocol), checkpoint="x")
    runs = find_runs(tmp_path)
    assert markdown(runs, []).count("PSNR: of levels") == 1
    assert markdown(runs, []).count("Protocol gopro: as it is") == 2
    shown = page(runs, [], 0)
    assert shown.count("<summary>Protocol gopro: as it is</summary><p class=note>PSNR: of levels</p>") == 2


def test_other_experiments_are_not_put_side_by_side(tmp_path):
    write_run(tmp_path / "a", 0, {"x": 1}, result(20.0), "m2aenet/table3")
    write_run(tmp_path / "b", 0, {"x": 2}, result(21.0), "m2aenet/table5")
    write_run(tmp_path / "c", 0, {"x": 3}, result(21.0))
    assert compare(find_runs(tmp_path)) == []


GOPRO = {"dataset": "gopro", "protocol": {"name": "gopro", "description": "as it is"}}


def test_evaluations_have_rows_where_their_pictures_are_the_same(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"run{seed}", seed, {"x": 1}, result(30.0 + seed, **GOPRO))
    shared = result(32.5, **GOPRO, tlc=True, tlc_size_px=256)
    write_evaluation(tmp_path / "nafnet", shared, checkpoint="weights/nafnet.pth", trained_on=["gopro"])
    # Pictures that another program restored: no network, of which nothing is known.
    folder = result(31.0, **{**GOPRO, "tlc": None})
    write_evaluation(tmp_path / "theirs", folder, restored_by="/pictures/theirs")
    # Others: another input, another number of pictures, another protocol, made-up pictures.
    others = {
        "brighter": result(40.0, **GOPRO, blurry_scores={"psnr_db": 20.01, "ssim": 0.8}),
        "fewer": result(40.0, **{**GOPRO, "images": 2}),
        "local": result(40.0, **{**GOPRO, "protocol": {"name": "local", "description": ""}}),
        "made_up": result(40.0, **GOPRO, made_up=True),
    }
    for name, one in others.items():
        write_evaluation(tmp_path / name, one, checkpoint=f"{name}.ckpt", trained_on=[])
    (table,) = compare(find_runs(tmp_path))
    assert table.title == "runs on gopro"
    text = comparison_table(table)
    assert text.heading[:5] == ("run", "trained on", "protocol", "seeds", "PSNR (dB)")
    assert [list(row[:5]) for row in text.rows] == [
        ["blurry input", "-", "gopro", "", "20.000"],
        ["run0, run1", "GoPro", "gopro, TLC off", "2 (0, 1)", "30.500 ± 0.707"],
        ["nafnet: weights/nafnet.pth", "gopro", "gopro, TLC on", "", "32.500"],
        ["theirs: pictures in /pictures/theirs", "not told", "gopro", "", "31.000"],
    ]
    assert "2 runs, 2 evaluations, 8 steps" in table.origin


def test_a_part_of_a_test_split_is_marked_and_stands_beside_no_whole_one(tmp_path):
    """Also where as many pictures were scored as elsewhere, and their blurry scores agree."""
    for seed in (0, 1):
        write_run(tmp_path / f"run{seed}", seed, {"x": 1}, result(30.0 + seed, **GOPRO))
    write_evaluation(tmp_path / "whole", result(31.0, **GOPRO), restored_by="/whole")
    for name in ("part", "other"):
        write_evaluation(tmp_path / name, result(40.0, **GOPRO, missing=2, jpegs=1), restored_by=f"/{name}")
    write_evaluation(tmp_path / "smaller", result(40.0, **GOPRO, missing=3), restored_by="/smaller")
    runs = find_runs(tmp_path)
    whole, part = compare(runs)
    assert whole.title == "runs on gopro"
    assert [row.evaluated.partition(":")[0] for row in whole.rows] == ["", "whole"]
    assert part.title == "evaluations on gopro, 3 of 5 images"
    assert [row.evaluated.partition(":")[0] for row in part.rows] == ["other", "part"]
    assert {row.protocol for row in part.rows} == {"gopro, TLC off, 3 of 5 images"}
    assert part.origin == "2 evaluations, 3 of 5 images of the test split, protocol gopro."
    assert "3 images of the test split" in whole.origin
    for text in (markdown(runs, [whole, part]), page(runs, [whole, part], 0)):
        # In each table of scores, beside it, and of what is smaller too.
        assert text.count("gopro, TLC off, 3 of 5 images") == 2 + 2 * 2
        assert re.search(r"blurry input.*gopro, 3 of 5 images", text)
        assert text.count("gopro, TLC off, 3 of 6 images") == 2
        assert text.count("3 of 5 images of the test split, 2 are missing: no published number is") == 2
        assert text.count("1 of 3 restored images are JPEGs") == 2


def test_another_protocol_than_the_datasets_own_is_told_beside_its_numbers(tmp_path):
    one = result(30.0, **{**GOPRO, "protocol": {"name": "local", "description": "x"}}, own_protocol="gopro")
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, one, checkpoint="x.ckpt")
    own = result(30.0, **GOPRO, own_protocol="gopro")  # chosen by name
    assert not any("its own" in line for line in remarks(own))
    runs = find_runs(tmp_path)
    (table,) = compare(runs)
    assert {row.protocol for row in table.rows} == {"local, TLC off, not gopro, its own"}
    assert "The dataset has its own protocol, gopro: these are not the numbers of its tables" in markdown(
        runs, [table]
    )


def test_every_row_of_scores_says_what_it_was_trained_on_and_by_what_it_was_scored(sweep, tmp_path):
    write_evaluation(tmp_path / "other", result(22.0), restored_by="/pictures")
    runs = find_runs(tmp_path)
    tables = compare(runs)
    text = markdown(runs, tables)
    seen = 0
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()]
        if "PSNR (dB)" in head or head[0] == "score":
            trained_on, protocol = head.index("trained on"), head.index("protocol")
            assert all(row[trained_on] and row[protocol] for row in rows), block
            seen += len(rows)
    # Across runs: the input, two variants, an evaluation; four of the paper; two scores of each run.
    assert seen == 4 + 4 + 2 * len(runs)
    shown = page(runs, tables, 0)
    heads = [re.sub("<[^>]+>", "|", head) for head in re.findall("<thead>.*?</thead>", shown)]
    of_scores = [head for head in heads if "|PSNR (dB)|" in head or "|score|" in head]
    assert len(of_scores) == 2 + len(runs)
    assert all("|trained on||protocol|" in head for head in of_scores)


def test_evaluations_alone_have_a_table_where_several_fit(tmp_path):
    for name, value in (("a", 30.0), ("b", 31.0)):
        write_evaluation(tmp_path / name, result(value, **GOPRO), checkpoint=f"{name}.ckpt", trained_on=["x"])
    write_evaluation(tmp_path / "c", result(32.0, **{**GOPRO, "images": 2}), checkpoint="c.ckpt")
    (table,) = compare(find_runs(tmp_path))
    assert table.title == "evaluations on gopro"
    assert [(row.evaluated, row.trained_on) for row in table.rows] == [("a: a.ckpt", "x"), ("b: b.ckpt", "x")]
    assert table.origin == "2 evaluations, 3 images of the test split, protocol gopro."


def test_made_up_data_are_marked_and_stand_apart_from_real_ones(tmp_path):
    for name, made_up in (("real", False), ("copy", True)):
        for seed in (0, 1):
            one = result(30.0, **GOPRO, made_up=made_up)
            trained_on = ("gopro (made up)",) if made_up else ("gopro",)
            write_run(tmp_path / f"{name}{seed}", seed, {}, one, "m2aenet/table3", trained_on=trained_on)
    runs = find_runs(tmp_path)
    copy, real = compare(runs)
    assert (copy.title, real.title) == ("m2aenet/table3 on gopro (made up)", "m2aenet/table3 on gopro")
    assert (copy.made_up, real.made_up) == (True, False)
    assert "no published number is comparable with these" in copy.origin
    assert "made up" not in real.origin
    assert published_table(copy).title == (
        "published, ReLoBlur: real pictures, not comparable with the made-up ones above"
    )
    assert published_table(real).title == (
        "published, ReLoBlur, not comparable with the rows above where data differ"
    )
    for text in (markdown(runs, [copy, real]), page(runs, [copy, real], 0)):
        assert "copy0" in text
        assert "gopro (made up)" in text.partition("copy0")[2]


def test_what_a_network_was_trained_on_is_known_of_older_runs_too(tmp_path):
    synthetic = {"_target_": "deblur_lab.data.SyntheticSource", "name": "ours", "seed": 0}
    sources = [synthetic, {"_target_": "deblur_lab.data.GoPro", "root": "x"}]
    write_run(tmp_path / "a", 0, {}, result(20.0), trained_on=())
    path = tmp_path / "a" / "config.yaml"
    path.write_text(OmegaConf.to_yaml({"data": {"sources": sources}}), encoding="utf-8")
    # An older evaluation does not mark what it names.
    write_evaluation(tmp_path / "b", result(20.0), checkpoint="x", trained_on=["synthetic", "gopro"])
    write_evaluation(tmp_path / "c", result(20.0), checkpoint="x", trained_on=[])
    first, second, third = find_runs(tmp_path)
    assert first.trained_on == ("ours (made up)", "gopro")
    assert second.trained_on == ("synthetic (made up)", "gopro")
    assert third.trained_on == ()
    scores = score_table(third, third.scores["results"][0])
    assert scores.heading[:3] == ("score", "trained on", "protocol")
    assert {row[1:3] for row in scores.rows} == {("not told", "local, TLC off")}


def test_a_protocol_is_told_with_its_parts_and_what_did_not_go_by_it():
    told = {"name": "realblur", "description": "aligned", "psnr": "over the mask", "ssim": "Gaussian"}
    parts = {**told, "alignment": "ECC", "quantisation": "8 bit", "tlc": "as the network"}
    one = result(20.0, protocol=parts, images=5, alignment_failures=2, masks="masks_lmd")
    assert protocol_lines(one) == [
        "Protocol realblur: aligned",
        "PSNR: over the mask",
        "SSIM: Gaussian",
        "alignment: ECC",
        "quantisation: 8 bit",
        "test-time local converter: as the network",
    ]
    assert remarks(one) == [
        "2 of 5 restored images could not be aligned: scored as they are",
        "Masks: masks_lmd",
    ]
    assert protocol_lines(result(20.0)) == ["Protocol local: as it is"]


def test_seeds_that_change_the_test_pictures_are_told(sweep):
    (table,) = compare(sweep)
    assert "test scenes of its own" not in table.origin
    for run in sweep:
        run.settings["data.sources[0].seed"] = "${seed}"
    assert "Each seed has test scenes of its own" in compare(sweep)[0].origin
    for part in ("11 runs", "8 steps", "commit abc", "a CPU", "3 images of the test split", "protocol local"):
        assert part in table.origin


def test_the_published_rows_stand_below_and_apart(sweep):
    (table,) = compare(sweep)
    printed = published_table(table)
    assert printed.heading == (
        "row",
        "trained on",
        "protocol",
        "whose",
        "source",
        "note",
        "PSNR (dB)",
        "SSIM",
        "weighted PSNR (dB)",
        "weighted SSIM",
        "multiply-adds (T)",
    )
    assert printed.rows[3] == (
        "4) both",
        "GoPro + ReLoBlur, 1:1",
        "local",
        "own",
        "Shang et al. 2025, table 3",
        "",
        "35.647",
        "0.9302",
        "31.036",
        "0.8997",
        "0.759",
    )
    for text in (markdown(sweep, [table]), page(sweep, [table], 0)):
        ours, rule, theirs = text.partition(printed.title)
        assert rule
        assert "22.500" in ours
        assert "35.647" not in ours
        assert "35.647" in theirs
    assert "**24.500 ± 1.291 (4 of 5)**" in markdown(sweep, [table])
    assert "<b>24.500</b><br><small>± 1.291 (4 of 5)</small></td>" in page(sweep, [table], 0)


def test_a_run_shows_what_it_said_of_blur_and_motion(sweep):
    blur, motion = finding_tables(sweep[6].scores["results"][0])
    assert blur.heading == ("blur mask", "precision", "recall", "F1", "IoU", "calibration error")
    assert list(blur.rows[0]) == ["at threshold 0.5", "0.750", "-", "0.600", "0.500", "0.100"]
    assert [list(row) for row in motion.rows] == [
        ["blurred pixels", "2.50", "1.25", "+1.25"],
        ["those that move", "5.00", "2.00", "+3.00"],
    ]
    assert finding_tables(sweep[0].scores["results"][0]) == []


def test_scores_by_threshold_are_a_curve(tmp_path):
    def at(threshold: float, share: float, score: float | None) -> dict[str, Any]:
        return {"threshold": threshold, "selected_share": share, "scores": {"weighted_psnr_db": score}}

    rows = [at(0.1, 0.5, 25.0), at(0.5, 0.2, 24.0), at(0.3, 0.21, 24.01), at(0.9, 0.0, None)]
    one = result(20.0, thresholds=rows)
    assert threshold_points(one) == [(20, 24.0, "0.5"), (21, 24.01, "0.3"), (50, 25.0, "0.1")]
    write_run(tmp_path / "a", 0, {}, one)
    text = page(find_runs(tmp_path), [], 0)
    assert text.count("<circle") == 3
    assert ">0.5, 0.3</text>" in text  # which would stand on each other
    assert ">% of pixels selected</text>" in text


def test_a_damaged_configuration_is_named(tmp_path):
    write_run(tmp_path / "a", 0, {}, result(20.0))
    path = tmp_path / "a" / "config.yaml"
    for text, told in {"a: [": "is damaged: ", "- 1\n": "is damaged: it holds no settings"}.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=told) as raised:
            find_runs(tmp_path)
        assert str(raised.value).startswith(f"{path} ")
        assert "\n" not in str(raised.value)
