"""Runs, gathered into a page and tables."""

import json
import re
import shutil
import statistics

from tests.commands.processes import TINY, forked
from tests.commands.runs import results_of


def test_a_run_on_one_page(own_run):
    said = forked("deblur_lab.report", f"runs={own_run}", cwd=own_run.parent).succeeded()
    assert said.stdout.startswith("1 run(s) in ")
    assert said.stdout.endswith(f"from {own_run}: run\n")
    page = (own_run / "report.html").read_text(encoding="utf-8")
    tables = (own_run / "report.md").read_text(encoding="utf-8")
    (result,) = results_of(own_run)
    for text in (page, tables):
        assert f"{result['scores']['psnr_db']:.2f}" in text
        assert f"{result['blurry_scores']['weighted_ssim']:.4f}" in text
        assert result["protocol"]["description"] in text
        assert "checkpoint run/checkpoints/last.ckpt" in text
    # Pictures of the two that were laid out and of the worst ones, three, and three curves, all of it inside.
    assert page.count("<section class=shot") == 3
    assert page.count('data-kind="trajectories"') == 3
    assert page.count("<polyline") == 3  # loss, PSNR, weighted PSNR
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page)


def test_several_runs_and_evaluations_and_scores_that_do_not_exist(own_run, tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.move(own_run, tmp_path / "runs" / "a <b> & c")
    other = tmp_path / "runs" / "scored"
    other.mkdir()
    text = (tmp_path / "runs" / "a <b> & c" / "scores.json").read_text(encoding="utf-8")
    weighted = re.sub(r'("weighted_psnr_db"): [\d.]+', r"\1: null", text)
    (other / "scores.json").write_text(weighted, encoding="utf-8")
    forked("deblur_lab.report", "runs=runs", "output=page", "pictures=0", cwd=tmp_path).succeeded()
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; c" in page
    assert "a <b>" not in page
    assert "<td class=number>-</td><td class=number>-</td><td class=number></td>" in page
    assert "data:image" not in page
    tables = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"\| weighted PSNR \(dB\) \| (.*) \| - \| - \|  \|", tables)
    assert row == "reloblur (made up) | local, TLC off"
    # An evaluation is a row of a table across runs.
    across = tables.partition("# Runs")[0]
    meant = r"reloblur \(made up\) \| local, TLC off \|  \|"
    assert re.search(rf"\| scored: run/checkpoints/last\.ckpt \| \w*Net \| {meant}", across)


def test_what_a_run_left_damaged_is_named(own_run):
    pictures, curves, scores = own_run / "pictures", own_run / "metrics.csv", own_run / "scores.json"
    picture = next(pictures.glob("exhibits/*/sharp.png"))
    damage = {
        scores: ('{"results": [{}]}', f"{scores} was not written by deblur_lab: its results lack 'dataset'"),
        curves: ("step,train/loss\n1,x\n", f"{curves} is damaged: could not convert string to float"),
        picture: ("no picture", f"{picture} cannot be read as a "),
    }
    for path, (text, told) in damage.items():
        whole = path.read_bytes()
        path.write_text(text, encoding="utf-8")
        ended = forked("deblur_lab.report", f"runs={own_run}", cwd=own_run.parent)
        assert ended.failed(3).startswith(told)
        assert not (own_run / "report.html").exists()
        path.write_bytes(whole)


def test_a_table_of_the_paper_is_one_command_and_its_runs_are_put_side_by_side(datasets, tmp_path):
    typed = ["experiment=m2aenet/mask_loss", "data=folder", f"data.root={datasets / 'folder'}", *TINY]
    typed += ["trainer.max_steps=2", "val_every_steps=2", "pictures=0", "output=sweep"]
    said = forked("deblur_lab.train", "-m", *typed, "seed=0,1", cwd=tmp_path).succeeded().stdout
    announced = re.findall(r"job \d of 4: (.*), in (.*)", said)
    values = [(weight, seed) for weight in ("0.01", "0") for seed in (0, 1)]
    assert announced == [
        (f"model.loss.mask={weight} seed={seed}", f"sweep/{number}")
        for number, (weight, seed) in enumerate(values)
    ]
    about = json.loads((tmp_path / "sweep" / "3" / "scores.json").read_text(encoding="utf-8"))
    assert (about["experiment"], about["seed"]) == (["m2aenet/mask_loss"], 1)
    # Gone on with, it is still known what it was.
    (tmp_path / "sweep" / "3" / "scores.json").unlink()
    forked("deblur_lab.train", "resume=sweep/3", cwd=tmp_path).succeeded()
    again = json.loads((tmp_path / "sweep" / "3" / "scores.json").read_text(encoding="utf-8"))
    assert (again["experiment"], again["results"]) == (about["experiment"], about["results"])

    said = forked("deblur_lab.report", "runs=sweep", cwd=tmp_path).succeeded()
    # The table stands on the screen, too, as far as there is room.
    assert re.search(r"loss.mask +seeds +\(dB\)", said.stdout.replace("PSNR ", ""))
    tables = (tmp_path / "sweep" / "report.md").read_text(encoding="utf-8")
    across, _, runs = tables.partition("# Runs")
    assert "## m2aenet/mask_loss on folder (made up)" in across
    for number, weight in ((0, "0.01"), (2, "0")):
        values = [results_of(tmp_path / "sweep" / str(number + seed))[0]["scores"] for seed in (0, 1)]
        psnr = [value["psnr_db"] for value in values]
        shown = f"{statistics.fmean(psnr):.3f} ± {statistics.stdev(psnr):.3f}"
        (row,) = [line for line in across.splitlines() if line.startswith(f"| M2AENet | {weight} |")]
        assert f"| folder (made up) | local, TLC off | 2 (0, 1) | {shown} |" in row.replace("**", "")
    meant = "GoPro + ReLoBlur, 1:1 | local | own | Shang et al. 2025, table 1"
    assert f"| with the mask loss | {meant} |  | 35.647 |" in across
    assert runs.count("## sweep/") == 4
    page = (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>Across runs") == 1
