"""One page of all runs: nothing outside it, never too large, the same numbers as the tables."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from deblur_lab.charts import Dot, Interval, Line, Strip, dot_chart, interval_chart, line_chart, strip_chart
from deblur_lab.errors import DataError
from deblur_lab.exhibits import write_exhibit
from deblur_lab.finished_runs import find_runs
from deblur_lab.images import write_png
from deblur_lab.leaderboard import tables_across
from deblur_lab.model_tables import difference_table, leaderboard_table
from deblur_lab.report_page import LARGEST_BYTES, embedded, page
from deblur_lab.report_page.diagrams import short_names
from deblur_lab.report_page.markup import numbers_first
from deblur_lab.report_page.subjects import Model
from deblur_lab.report_tables import Table
from tests.compared_runs import NAMES, write_compared


def drawn(folder: Path, pictures: int = 4) -> str:
    runs = find_runs(folder)
    boards, comparisons = tables_across(runs)
    return page(runs, comparisons, pictures, boards)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_compared(folder)
    return folder


def test_nothing_is_fetched_and_everything_is_inside(compared):
    text = drawn(compared)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert not re.search(r"https?:|@import|url\(", text)
    # A browser is told so, too.
    assert "default-src 'none'; img-src data:" in text
    targets = set(re.findall(r'href="#([^"]+)"', text))
    assert targets <= set(re.findall(r'id="([^"]+)"', text))
    assert "@" not in re.sub(r"base64,[^\"]+|<(script|style)>.*?</\1>", "", text, flags=re.DOTALL)


def test_the_numbers_are_those_of_the_tables(compared):
    text = re.sub("<wbr>|</?b>", "", re.sub(r"<br><small>(?=\[)", " ", drawn(compared)))
    text = html.unescape(text)
    (board,), _ = tables_across(find_runs(compared))
    for table in (leaderboard_table(board), difference_table(board.differences)):
        for row in table.rows:
            for cell in row:
                assert cell.partition(" ± ")[0] in text
                assert cell.partition(" ± ")[2] in text


def test_each_image_has_its_pictures_once_and_the_worst_is_among_them(compared):
    text = drawn(compared, pictures=2)
    shots = re.findall(r'<section class=shot id="[^"]+" data-name="([^"]+)"', text)
    assert NAMES[-1] in shots  # which M2AENet spoils
    assert len(shots) == len(set(shots))
    kinds = re.findall(r'data-kind="(\w+)"', text.partition("<h3>Worst")[0])
    assert kinds.count("blurry") == kinds.count("sharp") == len(shots)
    # One seed a model; the truth once, and what is predicted by the model that does.
    assert kinds.count("restored") == 2 * len(shots)
    assert kinds.count("mask") == kinds.count("trajectories") == kinds.count("true_mask") == len(shots)
    assert "mask: NAFNet" not in text
    assert "predicted mask: M2AENet, seed 0" in text
    assert text.count("data:image") == 7 * len(shots)
    worst = text.partition("<h3>Worst cases")[2].partition("<h3>")[0]
    (card,) = re.findall(rf"<li class=\"loss\">.*?{NAMES[-1]}.*?</li>", worst)
    assert "32.00 → 30.00 dB <em>(-2.00 dB)</em>" in card
    assert "pictures are those of one seed" in worst
    assert drawn(compared, pictures=0).count("<img ") == 0


def test_the_page_stays_small_and_says_what_it_left_out(tmp_path, monkeypatch):
    write_compared(tmp_path, (192, 128))
    whole = drawn(tmp_path)
    assert "left out" not in whole
    room = len(whole) - len("".join(re.findall(r'src="data:[^"]+"', whole))) // 2
    monkeypatch.setattr("deblur_lab.report_page.LARGEST_BYTES", room + 20_000)
    monkeypatch.setattr("deblur_lab.report_page._MARGIN_BYTES", 20_000)
    small = drawn(tmp_path)
    assert len(small) <= room + 20_000 < len(whole)
    assert 0 < small.count("class=shot") < whole.count("class=shot")
    assert re.search(r"\d images are left out, as the page would be too large", small)
    assert LARGEST_BYTES == 10_000_000


def test_large_pictures_are_shrunk_until_they_are_likely_to_fit():
    budget = embedded.Budget(2_000_000)
    budget.share_out([(2152, 1436)] * 20)
    pixels = budget.widest_px**2 * 1436 / 2152
    assert 320 <= budget.widest_px < 1280
    assert 20 * pixels * 0.36 <= 2_000_000
    roomy = embedded.Budget(9_000_000)
    roomy.share_out([(1280, 720)] * 4)
    assert roomy.widest_px == 1280


def test_what_somebody_called_a_model_or_an_image_is_no_markup(compared, tmp_path):
    write_compared(tmp_path)
    run = tmp_path / "naf" / "0"
    for path in (tmp_path / "naf").rglob("scores.csv"):
        path.write_text(path.read_text().replace(NAMES[0], "<script>x</script>"), encoding="utf-8")
    run.rename(tmp_path / "a <b> & c")
    picture = np.zeros((32, 48, 3), np.uint8)
    kinds = dict.fromkeys(("blurry", "restored", "sharp"), picture)
    write_exhibit(tmp_path / "a <b> & c" / "pictures" / "exhibits", "synthetic", '"><i>', kinds, {}, {})
    text = drawn(tmp_path, pictures=9)
    assert "a &lt;b&gt; &amp; c" in text
    assert "<script>x" not in text
    assert '"><i>' not in text.partition("<main>")[2]


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    write_compared(tmp_path)
    path = next(tmp_path.glob("m2ae/0/pictures/exhibits/*/sharp.png"))
    path.write_text("no picture", encoding="utf-8")
    for other in tmp_path.glob(f"*/*/pictures/exhibits/{path.parent.name}/sharp.png"):
        other.write_text("no picture", encoding="utf-8")
    with pytest.raises(DataError, match=r"sharp\.png cannot be read as a picture .*: remove it"):
        drawn(tmp_path)


def test_numbers_stand_beside_what_they_are_of():
    table = Table(
        ("model", "trained on", "seeds", "PSNR", "SSIM", "source"),
        [("a", "GoPro", "2", "30", "0.9", "here")],
        3,
        bold=frozenset({(0, 3)}),
        words_behind=1,
        underlined=frozenset({(0, 4)}),
    )
    moved = numbers_first(table)
    assert moved.heading == ["model", "PSNR", "SSIM", "trained on", "seeds", "source"]
    assert moved.rows == [["a", "30", "0.9", "GoPro", "2", "here"]]
    assert (moved.bold, moved.underlined) == ({(0, 1)}, {(0, 2)})
    assert [moved.is_word(column) for column in range(6)] == [True, False, False, True, True, True]


def test_published_dots_stand_apart_and_dots_are_as_large_as_their_nets():
    chart = dot_chart("t", [Dot("a", 0, 1e9, 30, 4e6), Dot("b", None, 2e9, 31, 1e6)], "cost", 2)
    assert re.findall(r'class="bubble (\w+)"', chart) == ["c0", "printed"]
    large, small = (float(radius) for radius in re.findall(r'r="([\d.]+)" class="bubble', chart))
    assert large == pytest.approx(2 * small, abs=0.1)  # four times the area
    assert "b: 31.00, 2G multiply-adds, 1M parameters" in chart
    assert dot_chart("t", [Dot("a", 0, 1e9, 30, 4e6)], "cost", 2) == ""


def test_strips_name_every_image_and_say_what_they_show():
    chart = strip_chart("t", [Strip("net", 1, [("x", 30.0), ("y", 20.0), ("z", 25.0)])], 1, " dB")
    assert "<title>y: 20.0 dB</title>" in chart
    assert (
        "net: 3 images, median 25.0 dB, quartiles 22.5 dB and 27.5 dB, lowest 20.0 dB (y), highest" in chart
    )
    many = strip_chart("t", [Strip("net", 1, [(str(n), float(n)) for n in range(1000)])], 1)
    assert many.count("<circle") == 150
    assert {"<title>0: 0.0</title>", "<title>999: 999.0</title>"} < set(
        re.findall("<title>.*?</title>", many)
    )
    assert "150 of 1000 drawn" in many


def test_lines_share_a_scale_and_long_ones_are_smoothed():
    flat = [(x, 1.0) for x in range(1000)]
    chart = line_chart("t", [Line("a", 0, flat), Line("b", 1, [(0, 0.0), (999, 2.0)])], "step")
    first, second = re.findall(r'<polyline points="([^"]+)"', chart)
    assert len(first.split()) == 240
    heights = [float(point.split(",")[1]) for point in second.split()]
    assert sum(heights) / 2 == pytest.approx(float(first.split()[0].split(",")[1]), abs=0.1)
    assert line_chart("t", [Line("a", 0, [(0, 1.0)])], "step") == ""


def test_an_interval_that_holds_zero_is_drawn_otherwise():
    chart = interval_chart("t", [Interval("a", 1, 0.5, 1.5), Interval("b", 0.1, -0.1, 0.3)], 2)
    assert re.findall(r'<g class="([^"]+)"', chart) == ["interval", "interval open"]
    assert "+0.10 [-0.10, +0.30]" in chart


def test_a_picture_that_two_runs_left_stands_in_the_page_once(tmp_path):
    write_compared(tmp_path)
    for kind in ("restored", "sharp"):  # two models that restore alike, and perfectly
        for path in tmp_path.glob(f"*/*/pictures/exhibits/*/{kind}.png"):
            path.write_bytes(
                (tmp_path / "naf/0/pictures/exhibits" / path.parent.name / "sharp.png").read_bytes()
            )
    text = drawn(tmp_path)
    shots = text.count("class=shot")
    addresses = re.findall(r'src="(data:[^"]+)"', text)
    assert len(addresses) == len(set(addresses)) == 5 * shots
    again = re.findall(r'<img data-same="([^"]+)"', text)
    assert len(again) == 2 * shots
    assert {*again} <= {*re.findall(r'<img id="([^"]+)" src', text)}


def test_sheets_of_a_net_are_of_one_seed_small_and_come_last(tmp_path):
    write_compared(tmp_path)
    sheet = np.random.default_rng(0).integers(0, 256, (900, 1000, 3), dtype=np.uint8)
    for seed in range(2):
        pictures = tmp_path / "naf" / str(seed) / "pictures"
        for stem in sorted(path.name for path in (pictures / "exhibits").iterdir())[:2]:
            write_png(pictures / f"{stem}.png", sheet)  # the panel, which the slider has the pictures of
            write_png(pictures / f"{stem}.features.png", sheet)
    text = drawn(tmp_path)
    assert re.findall(r'id="sheet-\d+" src="data:[^"]+" alt="[^"]+" width="(\d+)"', text) == ["800"]
    assert text.rindex('id="picture-') < text.index('id="sheet-')
    assert text.count("Its sheets, what its net does to each image, are in") == 1


def test_stages_follow_each_other_in_the_curves(tmp_path):
    write_compared(tmp_path)
    for seed in range(2):
        run = tmp_path / "naf" / str(seed)
        names = ("first", "second")
        for number, name in enumerate(names, 1):
            folder = run / "stages" / f"{number}-{name}"
            folder.mkdir(parents=True)
            rows = [f"{step},{number},{20 + number + step}" for step in (1, 2, 3)]
            heading = "step,train/loss,val/psnr_db"
            if number == 2:  # of another kind
                heading, rows = f"{heading},train/loss_l1", [f"{row},{number}" for row in rows]
            (folder / "metrics.csv").write_text("\n".join([heading, *rows]), encoding="utf-8")
        took = {"steps": 40, "parameters": 9, "trained_parameters": 9, "peak_memory_bytes": 9, "seconds": 1.0}
        stages = [{"stage": name, **took, "results": {"psnr_db": 25.0}} for name in names]
        (run / "stages.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    run = next(run for run in find_runs(tmp_path) if run.stages)
    assert [(part.name, part.first_step, [*part.curves["train/loss"]]) for part in run.parts] == [
        ("first", 0, [(1, 1.0), (2, 1.0), (3, 1.0)]),
        ("second", 40, [(1, 2.0), (2, 2.0), (3, 2.0)]),
    ]
    text = html.unescape(drawn(tmp_path))
    assert "training loss: NAFNet (second)" in text
    assert "NAFNet was trained in stages, which follow each other here: first (40 steps), then second" in text


def test_long_labels_are_cut_where_there_is_no_room_and_told_whole():
    label = "NAFNet (eval_best: runs/compare/0/checkpoints/best.ckpt)"
    values = [("x", 20.0), ("y", 25.0)]
    charts = [
        strip_chart("t", [Strip(label, 0, values), Strip("NAFNet", 1, values)], 2, " dB"),
        interval_chart("t", [Interval(label, 1, 0.5, 1.5)], 2),
        dot_chart("t", [Dot(label, 0, 10.0, 30.0, 1), Dot("a", 1, 20.0, 31.0, 2)], "cost", 2),
    ]
    for chart in charts:
        (shown,) = re.findall(r"<title>[^<]*best\.ckpt\)</title>([^<]+)</text>", chart)
        assert len(shown) < 40
        assert shown.startswith("NAFNet (")
        assert shown.endswith("best.ckpt)")
    # Within the axes.
    (begin,) = re.findall(r'<text x="([\d.]+)"[^>]*class="label"><title>', charts[2])
    assert float(begin) >= 52
    assert float(begin) + 8.4 * 24 <= 460


def test_what_is_shown_as_zero_has_no_sign():
    assert "0.00 [-0.20, +0.30]" in interval_chart("t", [Interval("a", 0.001, -0.2, 0.3)], 2)


def test_names_that_are_alike_when_cut_stay_apart():
    labels = [f"NAFNet (evaluation: runs/{n}/a-long-way-down/checkpoints/best.ckpt)" for n in range(3)]
    names = short_names([Model(label, at, []) for at, label in enumerate(labels)])
    assert len({*names.values()}) == 3
    assert max(map(len, names.values())) <= 34
