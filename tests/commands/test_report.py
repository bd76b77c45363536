"""Runs, gathered into a page and tables."""

import re
import shutil

from tests.commands.processes import forked
from tests.commands.runs import results_of


def test_a_run_on_one_page(own_run):
    said = forked("deblur_lab.report", f"runs={own_run}", cwd=own_run.parent).succeeded()
    assert said.stdout.startswith("1 run(s) in ")
    page = (own_run / "report.html").read_text(encoding="utf-8")
    tables = (own_run / "report.md").read_text(encoding="utf-8")
    (result,) = results_of(own_run)
    for text in (page, tables):
        assert f"{result['scores']['psnr_db']:.2f}" in text
        assert f"{result['blurry_scores']['weighted_ssim']:.4f}" in text
        assert result["protocol"]["description"] in text
        assert "checkpoint run/checkpoints/last.ckpt" in text
    # Two pictures and three curves, all of it inside.
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert page.count("<polyline") == 3  # loss, PSNR, weighted PSNR
    assert not re.search(r"(src|href)=\"(?!data:)", page)
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
    assert "<td>-</td><td>-</td><td></td>" in page
    assert "data:image" not in page
    assert "| weighted PSNR (dB) | - | - |  |" in (tmp_path / "page" / "report.md").read_text(
        encoding="utf-8"
    )


def test_what_a_run_left_damaged_is_named(own_run):
    pictures, curves, scores = own_run / "pictures", own_run / "metrics.csv", own_run / "scores.json"
    damage = {
        scores: ('{"results": [{}]}', f"{scores} was not written by deblur_lab: its results lack 'scores'"),
        curves: ("step,train/loss\n1,x\n", f"{curves} is damaged: could not convert string to float"),
        next(pictures.glob("*.png")): ("no picture", f"{next(pictures.glob('*.png'))} cannot be read as a "),
    }
    for path, (text, told) in damage.items():
        whole = path.read_bytes()
        path.write_text(text, encoding="utf-8")
        ended = forked("deblur_lab.report", f"runs={own_run}", cwd=own_run.parent)
        assert ended.failed(3).startswith(told)
        assert not (own_run / "report.html").exists()
        path.write_bytes(whole)
