"""Numbers that were printed elsewhere are what was printed, and none stands without what it means."""

import re
from pathlib import Path

import pytest

from deblur_lab import published_scores
from deblur_lab.config import configuration_root
from deblur_lab.errors import DataError
from deblur_lab.published_costs import DENSE_T, NAFNET_T, PRUNED_T, SIZE_PX, SUB_DECODERS_G, TRAINED_M
from deblur_lab.published_scores import (
    DATASETS,
    NOT_TOLD,
    NUMBERS,
    PROTOCOLS,
    REPORTED,
    PublishedRow,
    published,
    published_files,
    read_rows,
)
from deblur_lab.report_measures import MEASURES
from deblur_lab.report_tables import printed_table
from deblur_lab.reporting import table_lines

ROOT = configuration_root()
BOTH = "GoPro + ReLoBlur, 1:1"


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def rows_of(name: str) -> list[PublishedRow]:
    return read_rows(ROOT / "experiments" / f"{name}.csv")


# Typed by hand from the papers: table, row, dataset, column, and what is printed there.
CELLS = [
    ("m2aenet/table1", "DeepDeblur", "ReLoBlur", "psnr_db", "33.021"),
    ("m2aenet/table1", "LMD-ViT", "ReLoBlur", "weighted_psnr_db", "30.240"),
    ("m2aenet/table1", "LBAG", "ReLoBlur", "weighted_ssim", "0.8810"),
    ("m2aenet/table1", "Restormer", "GoPro", "ssim", "0.9365"),
    ("m2aenet/table1", "M2AENet", "GoPro", "psnr_db", "33.055"),
    ("m2aenet/table2", "Uformer", "ReLoBlur", "gpu_memory_gb", "35.3"),
    ("m2aenet/table2", "M2AENet", "ReLoBlur", "seconds", "0.790"),
    ("m2aenet/table3", "2) without mask-aware convolution", "ReLoBlur", "multiply_adds_t", "0.995"),
    ("m2aenet/table4", "(1), (3)", "ReLoBlur", "psnr_db", "35.372"),
    ("m2aenet/table5", "Learnable", "ReLoBlur", "weighted_psnr_db", "31.045"),
    ("m2aenet/table6", "N2 = 5", "ReLoBlur", "weighted_psnr_db", "30.291"),
    ("aibnet/table1", "AIBNet-L", "GoPro", "psnr_db", "34.95"),
    ("aibnet/table1", "MR-VNet", "HIDE", "ssim", "0.943"),
    ("aibnet/table2", "AIBNet-S", "RealBlur-J", "ssim", "0.956"),
    ("aibnet/table2", "ALGNet", "RealBlur-R", "psnr_db", "41.16"),
    ("aibnet/table3", "(c) HFSBlock", "GoPro", "psnr_db", "33.92"),
    ("aibnet/table4", "n_m = 0", "GoPro", "psnr_db", "34.22"),
    ("aibnet/table5", "(e) UFPNet, trained on", "GoPro", "psnr_db", "34.89"),
    ("aibnet/table6", "(b) at once, SAM", "GoPro", "delta_parameters_m", "+6.12"),
    ("aibnet/table7", "AdaRevD-B", "GoPro", "trained_parameters_m", "142.9"),
    ("aibnet/table8", "HFSBlock replaces SFEM", "GoPro", "delta_psnr_db", "-0.24"),
    ("aibnet/table9", "TTSA", "GoPro", "psnr_db", "34.36"),
    ("aibnet/table10", "MPRNet", "GoPro", "seconds", "1.148"),
]


@pytest.mark.parametrize(("table", "label", "dataset", "column", "printed"), CELLS)
def test_a_cell_is_what_the_paper_prints(table, label, dataset, column, printed):
    (row,) = [row for row in rows_of(table) if (row.label, row.dataset) == (label, dataset)]
    assert row.numbers[column] == printed
    assert row.value(column) == float(printed)


def test_every_table_of_both_papers_is_there():
    assert {name_of(path) for path in published_files()} == {
        *(f"m2aenet/table{number}" for number in range(1, 7)),
        *("m2aenet/appendix_a", "m2aenet/mask_loss"),
        *(f"aibnet/table{number}" for number in range(1, 11)),
        *(f"published/{name}" for name in ("gopro", "hide", "realblur")),
    }
    cells = {
        # Methods times columns, as the papers lay them out; a table's empty cells are not counted.
        "m2aenet/table1": 9 * 6,
        "m2aenet/table2": 9 * 4,
        "m2aenet/table3": 4 * 5,
        "m2aenet/table4": 4 * 5,
        "m2aenet/table5": 3 * 4,
        "m2aenet/table6": 4 * 4,
        "aibnet/table1": 12 * 4 - 2,  # PGDN has no scores on HIDE
        "aibnet/table2": 9 * 4,
        "aibnet/table3": 5 * 2 - 1,
        "aibnet/table4": 6 * 2 - 1,
        "aibnet/table5": 5 * 2 - 1,
        "aibnet/table6": 4 * 3 - 2,
        "aibnet/table7": 5 * 3,
        "aibnet/table8": 3 * 2 - 1,
        "aibnet/table9": 3 * 2 - 1,
        "aibnet/table10": 6 * 4,
    }
    assert {name: sum(len(row.numbers) for row in rows_of(name)) for name in cells} == cells


@pytest.mark.parametrize("path", published_files(), ids=name_of)
def test_every_row_says_what_its_numbers_mean(path):
    rows = read_rows(path)
    if path.parent.name == "published":
        assert {row.dataset.partition("-")[0].lower() for row in rows} == {path.stem}
        # A row is told from every other by what it says of itself.
        keys = [(row.label, row.dataset, row.trained_on, row.protocol, row.tlc, row.source) for row in rows]
        assert len(set(keys)) == len(keys)
        return
    source = "Shang et al. 2025, " if path.parent.name == "m2aenet" else "AIBNet, "
    assert all(row.source.startswith(source) for row in rows)
    if path.stem.startswith("table"):
        assert {row.source for row in rows} == {f"{source}table {path.stem.removeprefix('table')}"}


def test_retrained_networks_are_told_from_the_originals():
    others = [row for name in ("table1", "table2") for row in rows_of(f"m2aenet/{name}")]
    assert {row.reported for row in others if row.label != "M2AENet"} == {"retrained"}
    assert {row.reported for row in others if row.label == "M2AENet"} == {"own"}
    assert {row.trained_on for row in others} == {BOTH}
    (retrained,) = [row for row in others if (row.label, row.dataset) == ("NAFNet", "GoPro")]
    originals = [row for row in rows_of("published/gopro") if row.label == "NAFNet, width 32"]
    assert [row.trained_on for row in originals] == ["GoPro"]
    assert abs(retrained.value("psnr_db") - originals[0].value("psnr_db")) > 0.4
    # AIBNet's paper retrains nobody, and tells only of its own networks what they were trained on.
    for row in [*rows_of("aibnet/table1"), *rows_of("aibnet/table2")]:
        assert row.reported == ("own" if row.label.startswith("AIBNet") else "quoted")


def test_differences_that_a_paper_prints_are_those_of_its_scores():
    # What it prints otherwise is noted there, and in the experiments' page.
    known = {("aibnet/table5", "(f) UFPNet, frozen")}
    checked = 0
    for name in ("table3", "table4", "table5", "table6", "table8", "table9"):
        first, *others = rows_of(f"aibnet/{name}")
        for row in others:
            difference = row.value("psnr_db") - first.value("psnr_db")
            agrees = abs(difference - row.value("delta_psnr_db")) < 0.001
            assert agrees != ((f"aibnet/{name}", row.label) in known), row
            assert agrees or row.note
            checked += 1
    assert checked == 4 + 5 + 4 + 3 + 2 + 2


def test_the_counts_that_profile_compares_with_are_the_same():
    table = {row.label: row for row in rows_of("m2aenet/table2")}
    assert table["NAFNet"].value("multiply_adds_t") == NAFNET_T
    assert table["M2AENet"].value("multiply_adds_t") == PRUNED_T[frozenset({1})]
    assert {row.size_px for row in table.values()} == {f"{SIZE_PX[0]} x {SIZE_PX[1]}"}
    assert rows_of("m2aenet/table3")[1].value("multiply_adds_t") == DENSE_T
    by_positions = [row.value("multiply_adds_t") for row in rows_of("m2aenet/table4")]
    assert by_positions == sorted(PRUNED_T.values(), key=by_positions.index)
    own = {row.label: row for row in rows_of("aibnet/table7")}
    for label, sub_decoders in (("AIBNet-S", 1), ("AIBNet-B", 2), ("AIBNet-L", 4)):
        assert own[label].value("multiply_adds_g") == SUB_DECODERS_G[sub_decoders]
        assert own[label].value("trained_parameters_m") == TRAINED_M


def test_protocols_are_called_what_they_are_called_when_scoring():
    assert {path.stem for path in (ROOT / "conf" / "protocol").glob("*.yaml")} == {*PROTOCOLS, "own"}


def test_scores_of_runs_have_the_same_names():
    shared = {name for name in MEASURES if name in NUMBERS}
    assert shared == {"psnr_db", "ssim", "weighted_psnr_db", "weighted_ssim"}
    assert {name: MEASURES[name].title for name in shared} == {name: NUMBERS[name] for name in shared}


HEADER = "label,settings,dataset,protocol,tlc,trained_on,reported,psnr_db,ssim,source,note"
ROW = "net,,GoPro,gopro,on,GoPro,own,33.71,0.967,a paper,"
DAMAGE = {
    "column": (HEADER.replace("tlc,", ""), ROW, "line 1: lacks column tlc"),
    "unknown": (HEADER.replace("ssim", "sim"), ROW, "line 1: has the unknown column sim"),
    "twice": (HEADER.replace("note", "ssim,note"), ROW + ",", "line 1: has twice the column ssim"),
    "short": (HEADER, ROW.removesuffix(","), "line 2: a row has as many cells as there are columns"),
    "long": (HEADER, ROW + ",x", "line 2: a row has as many cells as there are columns"),
    "unmeant": (HEADER, ROW.replace("on,GoPro,", "on,,"), "line 2: trained_on is empty; write 'not told'"),
    "dataset": (HEADER, ROW.replace("net,,GoPro", "net,,gopro"), "line 2: dataset is one of GoPro, HIDE, "),
    "protocol": (HEADER, ROW.replace("gopro", "matlab"), "line 2: protocol is one of gopro, hide, "),
    "converter": (HEADER, ROW.replace(",on,", ",yes,"), "line 2: tlc is one of on, off, not told, not 'yes'"),
    "whose": (HEADER, ROW.replace("own", "ours"), "line 2: reported is one of own, retrained, "),
    "number": (HEADER, ROW.replace("33.71", "33.71 dB"), "line 2: psnr_db is a number from 5 to 60, not "),
    "swapped": (HEADER, ROW.replace("33.71,0.967", "0.967,33.71"), "line 2: psnr_db is a number from 5"),
    "nothing": (HEADER, ROW.replace("33.71,0.967", ","), "line 2: a row without numbers says why"),
    "empty": (HEADER, "", "holds no rows"),
    "quotes": (HEADER, ROW + '"x', "cannot be read: "),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_does_not_follow_the_schema_is_named_with_file_and_line(tmp_path, kind):
    header, row, told = DAMAGE[kind]
    path = tmp_path / "x.csv"
    path.write_text(f"{HEADER}\n{ROW}\n", encoding="utf-8")
    assert read_rows(path)[0].numbers == {"psnr_db": "33.71", "ssim": "0.967"}
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_rows(path)
    message = str(raised.value)
    assert message.startswith(f"{path}")
    assert told in message
    assert "\n" not in message


def test_what_is_published_is_looked_up_by_name_alone(tmp_path, monkeypatch):
    assert published("demo") == published("../conf/x") == published("") == []
    assert len(published("m2aenet/table5")) == 3
    monkeypatch.setattr(published_scores, "configuration_root", lambda: tmp_path)
    (tmp_path / "experiments").mkdir()
    path = tmp_path / "experiments" / "x.csv"
    path.write_text("label,psnr_db\na,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.csv, line 1: lacks column settings, dataset"):
        published("x")


# The page that shows them


def tables_of_the_page() -> dict[str, str]:
    """The tables of docs/results.md, by the files that stand above them."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    return dict(re.findall(r"`experiments/([\w/]+)\.csv`:\n\n((?:\|.*\n)+)", text))


def test_the_page_shows_every_file_of_scores():
    scores = {
        name_of(path)
        for path in published_files()
        if path.parent.name == "published" or path.stem in ("table1", "table2")
    }
    assert set(tables_of_the_page()) == scores


@pytest.mark.parametrize("name", ["m2aenet/table1", "aibnet/table1", "published/gopro", "published/realblur"])
def test_some_tables_of_the_page_are_those_that_reports_would_show(name):
    # A sample by name, so that what is compared below cannot become nothing.
    assert len(tables_of_the_page()[name].splitlines()) == 2 + len(rows_of(name))


@pytest.mark.parametrize("name", sorted(tables_of_the_page()))
def test_a_table_of_the_page_is_its_file(name):
    expected = table_lines(printed_table(rows_of(name)))
    assert tables_of_the_page()[name].splitlines() == expected, "\n".join(expected)


def test_what_words_mean_is_told_on_the_page():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for word, meaning in REPORTED.items():
        assert f"| {word} | {meaning} |" in text
    for word in (NOT_TOLD, *DATASETS):
        assert word in text
