"""Scores of a checkpoint, on its own data and on others'; and of pictures that something else restored."""

import json
import platform
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_lab.data.layouts.realblur import TOP_FOLDERS
from deblur_lab.data.synthesize import Settings, synthesize
from deblur_lab.images import read_rgb, write_png
from deblur_lab.metrics import DEFINITIONS
from deblur_lab.models import NAFNet
from tests.commands.processes import forked
from tests.commands.runs import results_of, rows_of


@pytest.fixture
def checkpoint(trained):
    return f"checkpoint={trained / 'run' / 'checkpoints' / 'last.ckpt'}"


def test_scores_of_the_last_checkpoint_are_those_of_the_run(tmp_path, datasets, trained, checkpoint):
    said = forked(
        "deblur_lab.evaluate",
        checkpoint,
        "data=reloblur",
        f"data.root={datasets / 'ReLoBlur'}",
        "data.num_workers=2",
        "trainer=cpu",
        "pictures=1",
        "output=scores of [run]",
        cwd=tmp_path,
    ).succeeded()
    folder = tmp_path / "scores of [run]"
    assert {path.name for path in folder.iterdir()} == {"scores.json", "scores.csv", "pictures"}
    assert results_of(folder) == results_of(trained / "run")
    assert (folder / "scores.csv").read_text() == (trained / "run" / "scores.csv").read_text()
    assert len(list((folder / "pictures").glob("*.png"))) == 1
    about = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert f"checkpoint={about['checkpoint']}" == checkpoint
    # What its last checkpoint says, and the run itself.
    assert about["trained_on"] == ["reloblur (made up)"]
    assert json.loads((trained / "run" / "scores.json").read_text())["trained_on"] == about["trained_on"]
    (result,) = results_of(folder)
    assert (result["made_up"], result["masks"], result["alignment_failures"]) == (True, "masks", None)
    assert (result["published_images"], result["names_like"]) == (None, None)
    assert result["protocol"]["alignment"] == "none"
    for told in ("protocol local: ", "  PSNR: ", "  SSIM: ", "  alignment: none", "  quantisation: clamped"):
        assert told in said.stdout
    assert "these scores are none of reloblur's" in said.stdout


def test_another_dataset_is_scored_by_its_own_protocol(tmp_path, datasets, checkpoint):
    arguments = [checkpoint, "data=gopro", f"data.root={datasets / 'GoPro'}", "trainer=cpu", "pictures=0"]
    few = [*arguments, "data.num_workers=0"]
    for name, tlc in (("auto", "auto"), ("on", "on"), ("off", "off"), ("small", "on")):
        size = ["tlc_size_px=16"] if name == "small" else []
        forked("deblur_lab.evaluate", *few, f"tlc={tlc}", *size, f"output={name}", cwd=tmp_path).succeeded()
    scores = {name: results_of(tmp_path / name)[0] for name in ("auto", "on", "off", "small")}
    assert scores["auto"]["protocol"]["name"] == "gopro"
    # Its protocol asks for TLC, over windows as large as the patches that the run was trained on.
    assert scores["auto"]["scores"] == scores["on"]["scores"]
    assert len({result["scores"]["psnr_db"] for result in scores.values()}) == 3
    assert [row["dataset"] for row in rows_of(tmp_path / "auto" / "scores.csv")] == ["gopro"] * 3
    assert not (tmp_path / "auto" / "pictures").exists()


def test_published_weights_are_scored_and_applied(tmp_path, datasets):
    """As released by others: in a file with no configuration, the converter on as the protocol says."""
    net = NAFNet(4, [1, 1], 1, [1, 1])
    torch.save({"params": net.state_dict()}, tmp_path / "NAFNet [w4]=x.pth")
    given = "checkpoint=NAFNet [w4]=x.pth"
    data = [
        "data=gopro",
        f"data.root={datasets / 'GoPro'}",
        "data.num_workers=0",
        "trainer=cpu",
        "pictures=0",
    ]
    forked("deblur_lab.evaluate", given, *data, "output=scores", cwd=tmp_path).succeeded()
    (result,) = results_of(tmp_path / "scores")
    assert result["tlc"]
    # A new net returns its input.
    assert result["scores"] == result["blurry_scores"]
    photo = next((datasets / "folder").rglob("blurry/*.png"))
    forked("deblur_lab.predict", given, f"input={photo}", "output=out", cwd=tmp_path).succeeded()
    assert (read_rgb(tmp_path / "out" / photo.name) == read_rgb(photo)).all()


def test_several_thresholds_give_a_curve_and_the_main_results_are_the_nets_own(
    tmp_path, datasets, trained, checkpoint
):
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}", "data.num_workers=0", "trainer=cpu"]
    typed = ["threshold=[0,0.5,1]", "pruning=dense", "pictures=1", "output=curve"]
    said = forked("deblur_lab.evaluate", checkpoint, *data, *typed, cwd=tmp_path).succeeded()
    folder = tmp_path / "curve"
    assert {path.name for path in folder.iterdir()} == {
        *("scores.json", "scores.csv", "thresholds.csv", "thresholds.png", "pictures"),
    }
    (result,), (own,) = results_of(folder), results_of(trained / "run")
    curve = result.pop("thresholds")
    assert [row["threshold"] for row in curve] == [0, 0.5, 1]
    assert [row["selected_share"] for row in curve] == [1, own["selected_share"], 0]
    assert curve[1]["scores"] == result["scores"]
    assert result["scores"] == pytest.approx(own["scores"])  # dense, where the run may have pruned
    assert result["blur_detection"] == own["blur_detection"]
    assert "motion" not in result  # which photographs do not tell
    rows = rows_of(folder / "thresholds.csv")
    assert [float(row["selected_share"]) for row in rows] == pytest.approx(
        [row["selected_share"] for row in curve], abs=1e-6
    )
    assert said.stdout.count("scores by threshold") == 1
    assert len(list((folder / "pictures").glob("*.png"))) == 1
    assert json.loads((folder / "scores.json").read_text(encoding="utf-8"))["pruning"] == "dense"


def test_one_threshold_takes_the_place_of_the_nets(tmp_path, datasets, checkpoint):
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}", "data.num_workers=0", "trainer=cpu"]
    typed = ["threshold=1", "pictures=0", "output=none"]
    forked("deblur_lab.evaluate", checkpoint, *data, *typed, cwd=tmp_path).succeeded()
    (result,) = results_of(tmp_path / "none")
    assert (result["threshold"], result["selected_share"], result["dilated_share"]) == (1, 0, 0)
    assert result["blur_detection"]["threshold"] == 1
    assert result["blur_detection"]["recall"] == 0
    assert result["blur_detection"]["precision"] is None
    assert "thresholds" not in result
    assert not (tmp_path / "none" / "thresholds.csv").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("threshold=2", "threshold=2: a number from 0 to 1 is expected"),
        ("threshold=[0.5,-1]", "threshold[1]=-1: a number from 0 to 1 is expected"),
        ("threshold=[]", "threshold=[]: one or more probabilities are expected, each once"),
        ("threshold=[0.5,0.5]", "threshold=[0.5, 0.5]: one or more probabilities are expected, each once"),
        ("pruning=some", "pruning=some: one of auto, dense, pruned or null is expected"),
    ],
)
def test_thresholds_that_are_none_are_refused(tmp_path, checkpoint, setting, told):
    assert forked("deblur_lab.evaluate", checkpoint, setting, cwd=tmp_path).failed(2) == told


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", "0.3"), ("threshold", "[0.3]"), ("pruning", "auto")]
)
def test_a_net_without_masks_has_no_threshold(tmp_path, key, value):
    torch.save({"params": NAFNet(4, [1, 1], 1, [1, 1]).state_dict()}, tmp_path / "naf.pth")
    told = forked("deblur_lab.evaluate", "checkpoint=naf.pth", f"{key}={value}", cwd=tmp_path).failed(2)
    assert told == f"{key}={value}: the NAFNet of naf.pth predicts no mask of the blur: leave {key} out"
    assert [path.name for path in tmp_path.iterdir()] == ["naf.pth"]


def pictures_of(root, kind="blur"):
    """The test pictures of a GoPro folder by their sequence and number."""
    return {(path.parts[-3], path.stem): path for path in sorted(root.rglob(f"test/*/{kind}/*.png"))}


@pytest.fixture
def given(tmp_path, datasets):
    """What scores `input=restored` against the GoPro folder, which was restored halfway."""
    sharp = pictures_of(datasets / "GoPro", "sharp")
    (tmp_path / "restored").mkdir()
    for (sequence, number), path in pictures_of(datasets / "GoPro").items():
        halfway = (read_rgb(path).astype(np.uint16) + read_rgb(sharp[sequence, number])) // 2
        write_png(tmp_path / "restored" / f"{sequence}-{number}.png", halfway.astype(np.uint8))

    def score(*arguments):
        data = ["data=gopro", f"data.root={datasets / 'GoPro'}", "data.num_workers=0", "trainer=cpu"]
        typed = ["input=restored", *data, "pictures=0", "output=scores", *arguments]
        return forked("deblur_lab.evaluate", *typed, cwd=tmp_path)

    return score


def test_pictures_that_another_program_restored_are_scored_without_a_checkpoint(tmp_path, given):
    shutil.copy(next((tmp_path / "restored").iterdir()), tmp_path / "restored" / "poster.png")
    said = given("pictures=1", "protocol=own").succeeded()
    about = json.loads((tmp_path / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert (about["checkpoint"], about["restored_by"], about["trained_on"]) == (None, "restored", None)
    assert about["precision"] == "32-true"
    (result,) = about["results"]
    assert (result["protocol"]["name"], result["images"], result["missing"]) == ("gopro", 3, 0)
    assert (result["tlc"], result["threshold"], result["made_up"]) == (None, None, True)
    assert result["scores"]["psnr_db"] > result["blurry_scores"]["psnr_db"] + 3
    # The picture that is laid out is the restored one, and no network's.
    assert len(list((tmp_path / "scores" / "pictures").glob("*.png"))) == 1
    assert "1 other pictures in restored are not looked at: poster.png" in said.stdout
    assert "pictures of restored, restored by another program" in said.stdout
    assert "test-time local converter does not apply" in said.stdout
    assert [row["name"].split("/")[0] for row in rows_of(tmp_path / "scores" / "scores.csv")]


def nearly(path, target):
    """A sharp picture but for one level of one pixel."""
    picture = read_rgb(path)
    picture[0, 0, 0] ^= 1
    target.parent.mkdir(parents=True, exist_ok=True)
    write_png(target, picture)


def test_nearly_equal_pictures_have_great_scores_whatever_their_names(tmp_path, datasets, given):
    shutil.rmtree(tmp_path / "restored")
    sharp = pictures_of(datasets / "GoPro", "sharp")
    for (sequence, number), path in sharp.items():
        nearly(path, tmp_path / "restored" / "test" / sequence / "blur" / f"{number}.png")
    given().succeeded()
    (result,) = results_of(tmp_path / "scores")
    one_level = 10 * np.log10(255**2 * 96 * 80 * 3)
    assert result["scores"]["psnr_db"] == pytest.approx(one_level, abs=1e-6)
    assert result["scores"]["ssim"] == pytest.approx(1, abs=1e-4)


def test_sharp_pictures_are_scored_for_restored_ones_under_no_name(tmp_path, datasets, given):
    """Beside restored ones that are too few, and under their very names."""
    restored = sorted((tmp_path / "restored").iterdir())
    (tmp_path / "theirs" / "restored").mkdir(parents=True)
    for path in restored[:2]:
        path.rename(tmp_path / "theirs" / "restored" / path.name)
    (tmp_path / "theirs" / "target").mkdir()
    for (sequence, number), path in pictures_of(datasets / "GoPro", "sharp").items():
        shutil.copy(path, tmp_path / "theirs" / "target" / f"{sequence}-{number}.png")
    told = given("input=theirs").failed(3, more_lines=1)
    first = f"{restored[0].name}"
    assert "1 of 3 test pictures are not in input=theirs: " in told
    assert f"; 3 files are called sharp pictures (target/{first})" in told
    given("input=theirs", "subset=true").succeeded()
    (result,) = results_of(tmp_path / "scores")
    assert (result["images"], result["missing"]) == (2, 1)
    assert result["scores"]["psnr_db"] < 60

    (tmp_path / "theirs" / "target").rename(tmp_path / "net")
    told = given("input=net", "output=none").failed(3, more_lines=1)
    assert "3 files are their sharp pictures, pixel by pixel, and no restored ones: " in told
    assert not (tmp_path / "none").exists()


def test_all_that_is_wrong_with_restored_pictures_is_told_at_once(tmp_path, given):
    first, second, third = sorted((tmp_path / "restored").iterdir())
    first.rename(first.with_name("0001.png"))
    with Image.open(second) as picture:
        picture.resize((48, 40)).save(second)
    third.write_bytes(b"")
    told = given().failed(3, more_lines=3).splitlines()
    assert told[0].startswith("3 problem(s) with the pictures")
    assert f"{second.resolve()} is 48 x 40, but its sharp picture is 96 x 80" in told[1]
    assert f"{third.resolve()}: the file is empty" in told[2]
    assert "1 of 3 test pictures are not in input=restored: " in told[3]
    assert "(it has 0001.png, say); name them as the dataset does, or score the others alone by" in told[3]
    assert not (tmp_path / "scores").exists()


def test_where_no_name_fits_one_that_is_expected_stands_beside_one_that_is_there(tmp_path, given):
    for number, path in enumerate(sorted((tmp_path / "restored").iterdir())):
        path.rename(path.with_name(f"x{number}y.png"))
    told = given().failed(3, more_lines=1).splitlines()
    assert told[0] == "1 problem(s) with the pictures:"
    assert "3 of 3 test pictures are not in input=restored: " in told[1]
    assert told[1].endswith("; expected GOPR0376_11_00/000001, found x0y.png; none can be scored")
    assert given("subset=true").failed(3, more_lines=1).splitlines() == told


@pytest.mark.parametrize("data", ["gopro", "realblur_j"])
def test_a_copy_that_is_not_whole_and_all_of_which_counts_as_blurred(tmp_path, datasets, trained, data):
    """As a real one: nothing says that it is made up."""
    if data == "gopro":
        root = Path(shutil.copytree(datasets / "GoPro", tmp_path / "data"))
    else:
        root = tmp_path / "data"
        synthesize(Settings(root, data, None, 1, 3, (80, 64), num_workers=0))
    for record in root.rglob("synthetic.json"):
        record.unlink()
    checkpoint = f"checkpoint={trained / 'run' / 'checkpoints' / 'last.ckpt'}"
    typed = [checkpoint, f"data={data}", "data.root=data", "data.num_workers=0", "trainer=cpu", "pictures=1"]
    said = forked("deblur_lab.evaluate", *typed, "metrics=all", "output=scores", cwd=tmp_path).succeeded()
    published, title = {"gopro": (1111, "GoPro"), "realblur_j": (980, "RealBlur")}[data]
    assert f"3 of {title}'s {published} test pairs: no published number is comparable; " in said.stdout
    (result,) = results_of(tmp_path / "scores")
    assert (result["published_images"], result["names_like"]) == (published, None)
    for key in ("weighted_psnr", "weighted_ssim"):
        assert result["definitions"][key]["restored"] is None
    assert said.stdout.count("no image has it (no mask, no blurred pixel, or too small)") >= 2
    assert "blur_detection" not in result


def test_a_part_is_scored_where_that_is_asked_for_and_said(tmp_path, given):
    given().succeeded()
    whole = rows_of(tmp_path / "scores" / "scores.csv")
    first = min((tmp_path / "restored").iterdir())
    Image.open(first).save(first.with_suffix(".jpg"), quality=95)
    first.unlink()
    max((tmp_path / "restored").iterdir()).unlink()
    said = given("subset=true", "output=part").succeeded()
    (result,) = results_of(tmp_path / "part")
    assert (result["images"], result["missing"], result["jpegs"]) == (2, 1, 1)
    assert (
        "1 of 3 images are missing (subset=true): these are not the scores of the test split" in said.stdout
    )
    assert "1 of 2 restored pictures are JPEGs" in said.stdout
    part = rows_of(tmp_path / "part" / "scores.csv")
    assert [row["name"] for row in part] == [row["name"] for row in whole][:2]
    assert part[0] != whole[0]
    assert part[1] == whole[1]


def test_a_mixture_of_datasets_has_a_folder_for_each(tmp_path, datasets, given):
    (tmp_path / "restored").rename(tmp_path / "gopro")
    (tmp_path / "restored").mkdir()
    (tmp_path / "gopro").rename(tmp_path / "restored" / "gopro")
    roots = [f"data.gopro_root={datasets / 'GoPro'}", f"data.reloblur_root={datasets / 'ReLoBlur'}"]
    mixture = ["data=gopro_reloblur", f"data.root={datasets}", *roots]
    told = given(*mixture).failed(3)
    assert told == "input=restored/reloblur does not exist: give the folder of restored pictures"
    for path in (datasets / "ReLoBlur" / "dataset" / "test").rglob("*_sharp.png"):
        target = path.relative_to(datasets / "ReLoBlur" / "dataset" / "test")
        nearly(path, tmp_path / "restored" / "reloblur" / str(target).replace("_sharp", "_blur"))
    given(*mixture).succeeded()
    scores = {result["dataset"]: result["scores"] for result in results_of(tmp_path / "scores")}
    assert scores["reloblur"]["psnr_db"] > 85
    assert 20 < scores["gopro"]["psnr_db"] < 60


@pytest.fixture
def many_sizes(tmp_path, datasets, given):
    """Pictures that were restored, each of its own size, one of which nothing can be aligned to."""
    for kind in ("blurry", "sharp"):
        (tmp_path / "sizes" / "test" / kind).mkdir(parents=True)
    for number, (key, path) in enumerate(pictures_of(datasets / "GoPro").items()):
        restored = tmp_path / "restored" / f"{'-'.join(key)}.png"
        sharp = pictures_of(datasets / "GoPro", "sharp")[key]
        for source, target in (
            (path, tmp_path / "sizes" / "test" / "blurry"),
            (sharp, tmp_path / "sizes" / "test" / "sharp"),
            (restored, tmp_path / "own"),
        ):
            target.mkdir(exist_ok=True)
            picture = read_rgb(source)[: 80 - 3 * number, 5 * number :]
            flat = number == 1 and source is restored
            write_png(target / f"{number}.png", np.full_like(picture, 128) if flat else picture)
    return ["data=folder", f"data.root={tmp_path / 'sizes'}", "input=own"]


def test_another_protocol_and_all_definitions_on_one_process_and_on_two(tmp_path, given, many_sizes):
    """Three pictures of as many sizes, aligned; scored in two processes as in one, to the last digit."""
    typed = [*many_sizes, "protocol=realblur", "metrics=all"]
    said = given(*typed).succeeded()
    two = ["trainer.devices=2", "trainer.strategy=ddp", "output=two"]
    given(*typed, *two).succeeded()
    for name in ("scores.csv", "definitions.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "scores" / name).read_text()
    assert results_of(tmp_path / "two") == results_of(tmp_path / "scores")

    (result,) = results_of(tmp_path / "scores")
    assert (result["protocol"]["name"], result["own_protocol"]) == ("realblur", "local")
    assert "folder has its own protocol, local: these are not the numbers of its tables" in said.stdout
    assert (result["alignment_failures"], result["blurry_alignment_failures"]) == (1, 0)
    assert "alignment: 1 of 3 restored and 0 of 3 blurry images could not be aligned" in said.stdout
    rows = rows_of(tmp_path / "scores" / "scores.csv")
    assert [row["aligned"] for row in rows] == ["1", "0", "1"]
    assert [row["blurry_aligned"] for row in rows] == ["1", "1", "1"]

    assert set(result["definitions"]) == set(DEFINITIONS)
    assert "one result by every definition" in said.stdout
    for key, one in result["definitions"].items():
        assert re.search(rf"^│ {key}( \*)? +│", said.stdout, re.MULTILINE)
        values = [row[key] for row in rows_of(tmp_path / "scores" / "definitions.csv")]
        assert sum(value == "" for value in values) == one["left_out"]
    # The protocol's own are among them.
    assert result["scores"]["psnr_db"] in [one["restored"] for one in result["definitions"].values()]
    assert len({one["restored"] for one in result["definitions"].values()}) > 10


def test_a_network_has_the_same_scores_on_one_process_and_on_two(tmp_path, datasets, given):
    """An odd number of pictures of as many sizes, aligned, by every definition; one thread each."""
    root = tmp_path / "RealBlur"
    lines = []
    for number, (key, sharp) in enumerate(pictures_of(datasets / "GoPro", "sharp").items()):
        for kind, path in (("gt", sharp), ("blur", pictures_of(datasets / "GoPro")[key])):
            target = root / TOP_FOLDERS["j"] / f"scene{number:03d}" / kind / f"{kind}_1.png"
            target.parent.mkdir(parents=True)
            write_png(target, read_rgb(path)[: 80 - 3 * number, 5 * number :])
        lines.append(
            " ".join(f"{TOP_FOLDERS['j']}/scene{number:03d}/{kind}/{kind}_1.png" for kind in ("gt", "blur"))
        )
    (root / "RealBlur_J_test_list.txt").write_text("".join(f"{line} \n" for line in lines), encoding="utf-8")
    torch.manual_seed(0)
    torch.save({"params": NAFNet(4, [1, 1], 1, [1, 1]).state_dict()}, tmp_path / "naf.pth")
    typed = ["checkpoint=naf.pth", "data=realblur_j", f"data.root={root}", "metrics=all", "pictures=2"]
    typed += ["data.num_workers=0", "trainer=cpu"]
    forked("deblur_lab.evaluate", *typed, "output=one", cwd=tmp_path).succeeded()
    two = ["trainer.devices=2", "trainer.strategy=ddp", "output=two"]
    forked("deblur_lab.evaluate", *typed, *two, cwd=tmp_path).succeeded()
    one, two = ((tmp_path / name / "scores.json").read_text(encoding="utf-8") for name in ("one", "two"))
    assert json.loads(one)["results"][0]["protocol"]["name"] == "realblur"
    assert json.loads(one)["results"][0]["images"] == 3
    # All of it, but for what it was computed on.
    hardware = [json.loads(text)["hardware"] for text in (one, two)]
    assert hardware == [f"{platform.machine()} CPU, 1 threads", f"{platform.machine()} CPU, 2 x 1 threads"]
    assert one.replace(hardware[0], hardware[1]) == two
    for name in ("scores.csv", "definitions.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            [],
            "checkpoint is not set: give it on the command line, as checkpoint=...; or a folder of pictures",
        ),
        (
            ["checkpoint=x", "input=y"],
            "checkpoint=x, input=y: either weights are scored, or pictures that are",
        ),
        (["checkpoint=x", "subset=true"], "subset=true has no effect without input=: leave it out"),
        (["input=y", "tlc=on"], "tlc=on has no effect with input=: leave it out"),
        (["input=y", "threshold=0.5"], "threshold=0.5 has no effect with input=: leave it out"),
        (["checkpoint=x", "metrics=some"], "metrics=some: one of protocol, all is expected"),
        (["checkpoint=x", "protocol=gropo"], "there is no protocol=gropo: did you mean gopro?"),
    ],
)
def test_settings_of_what_is_scored_that_do_not_fit_are_refused(tmp_path, typed, told):
    assert forked("deblur_lab.evaluate", *typed, cwd=tmp_path).failed(2).startswith(told)
    assert not list(tmp_path.iterdir())
