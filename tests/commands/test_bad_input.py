"""What a mistake gets: one line that says what, where and what to do, and the exit code of its kind."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.conftest import arguments_of_trained
from tests.commands.processes import TINY, forked, python_m

TRAIN, EVALUATE, PREDICT, REPORT = (
    f"deblur_lab.{name}" for name in ("train", "evaluate", "predict", "report")
)
FEW = (*TINY, "trainer.max_steps=2")


def told_by_train(cwd: Path, code: int, *arguments: str, more_lines: int = 0) -> str:
    """What training says of wrong arguments; and it leaves nothing behind."""
    before = set(cwd.iterdir())
    ended = forked(TRAIN, *FEW, *arguments, cwd=cwd)
    assert "Training" not in ended.stdout
    left = {path for path in cwd.iterdir() if path not in before}
    assert left <= {cwd / "runs"}
    assert not list((cwd / "runs").glob("*"))
    return ended.failed(code, more_lines=more_lines)


@pytest.fixture
def own_folder(datasets, tmp_path) -> Path:
    """A dataset of one's own, to spoil."""
    return Path(shutil.copytree(datasets / "folder", tmp_path / "own"))


@pytest.fixture
def cut_checkpoint(trained, tmp_path) -> Path:
    whole = (trained / "run" / "checkpoints" / "last.ckpt").read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(whole[: len(whole) // 2])
    return path


# Settings.


def test_before_anything_is_loaded(tmp_path):
    ended = python_m(TRAIN, "modle=x", "seed=x", cwd=tmp_path)
    assert ended.failed(2, more_lines=1) == (
        "there is no setting modle: did you mean model?\n       seed=x: a whole number is expected"
    )
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("data.micro_batch_size=3", "data.micro_batch_size=3 does not divide 2, each device's share of "),
        ("model.optimizer.lr=-1", "model.optimizer.lr=-1: more than 0 is expected"),
        (
            "trainer.deterministic=maybe",
            "trainer.deterministic=maybe: true or false or one of warn or null is ",
        ),
    ],
)
def test_a_wrong_value(tmp_path, argument, told):
    assert told_by_train(tmp_path, 2, argument).startswith(told)


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = told_by_train(tmp_path, 5, "trainer.accelerator=gpu")
    assert told == "trainer.accelerator=gpu: PyTorch sees no GPU here: choose trainer=auto or trainer=cpu"


def test_half_precision_without_a_gpu_is_not_taken_for_another(tmp_path):
    told = told_by_train(tmp_path, 5, "trainer.precision=16-mixed")
    assert told == "trainer.precision=16-mixed needs a GPU of CUDA: choose bf16-mixed or 32-true"


# Data.


def test_no_data_root(tmp_path):
    for data in ("reloblur", "gopro", "gopro_reloblur", "folder"):
        told = told_by_train(tmp_path, 2, f"data={data}")
        assert told == "data.root is not set: give it on the command line, as data.root=..."


def test_a_data_root_that_does_not_exist(tmp_path):
    told = told_by_train(tmp_path, 3, "data=reloblur", "data.root=no/where")
    assert told == "data.root=no/where does not exist: give the folder that holds the dataset"


def test_a_data_root_of_another_layout(tmp_path, datasets):
    told = told_by_train(tmp_path, 3, "data=reloblur", f"data.root={datasets / 'folder'}")
    assert f"data.root={datasets / 'folder'} has no known layout: looked for dataset/{{train,test}}/" in told
    assert told.endswith("it holds synthetic.json, test, train")


def test_an_empty_split_and_a_missing_one(tmp_path, own_folder):
    for role in ("blurry", "sharp", "mask"):
        for path in (own_folder / "test" / role).iterdir():
            path.unlink()
    told = told_by_train(tmp_path, 3, "data=folder", f"data.root={own_folder}")
    assert told.startswith(f"{own_folder / 'test'} is empty")
    shutil.rmtree(own_folder / "test")
    told = told_by_train(tmp_path, 3, "data=folder", f"data.root={own_folder}")
    assert told.startswith(f"{own_folder} has no val split")
    assert told.endswith("it has train alone")


def test_unpaired_pictures_are_listed_with_all_that_is_wrong(tmp_path, own_folder):
    for name in ("sharp/000001.png", "blurry/000003.png"):
        (own_folder / "train" / name).unlink()
    (own_folder / "test" / "mask" / "000001.png").unlink()
    (own_folder / "train" / "sharp" / "000002.png").write_bytes(b"")
    told = told_by_train(tmp_path, 3, "data=folder", f"data.root={own_folder}", more_lines=4)
    train, test = own_folder / "train", own_folder / "test"
    assert [line.strip() for line in told.splitlines()] == [
        "4 problem(s) with the pictures; mend or remove these files:",
        f"{train}/blurry/000001.png has no partner: {train}/sharp/000001.png is missing",
        f"{train}/sharp/000003.png has no partner: {train}/blurry/000003.png is missing",
        f"{test}/blurry/000001.png has no mask: {test}/mask/000001.png is missing",
        f"{train}/sharp/000002.png: the file is empty (0 bytes)",
    ]


def test_sizes_that_differ(tmp_path, own_folder):
    sharp = own_folder / "train" / "sharp" / "000001.png"
    Image.open(sharp).crop((0, 0, 90, 80)).save(sharp)
    told = told_by_train(tmp_path, 3, "data=folder", f"data.root={own_folder}", more_lines=1)
    blurry = own_folder / "train" / "blurry" / "000001.png"
    assert told.splitlines()[1].strip() == f"{blurry} is 96 x 80 but {sharp} is 90 x 80: sizes differ"


def test_all_unreadable_pictures_before_training_starts(tmp_path, own_folder):
    cut, empty = own_folder / "train" / "sharp" / "000001.png", own_folder / "test" / "mask" / "000001.png"
    text = own_folder / "train" / "blurry" / "000002.png"
    cut.write_bytes(cut.read_bytes()[:500])
    empty.write_bytes(b"")
    text.write_text("not a picture")
    told = told_by_train(tmp_path, 3, "data=folder", f"data.root={own_folder}", more_lines=3)
    first, *listed = told.splitlines()
    assert first == "3 problem(s) with the pictures; mend or remove these files:"
    for path in (cut, empty, text):
        assert sum(str(path) in line for line in listed) == 1


def test_a_patch_larger_than_the_pictures(tmp_path, own_folder):
    told = told_by_train(
        tmp_path, 3, "data=folder", f"data.root={own_folder}", "data.patch_size=96", more_lines=6
    )
    first = own_folder / "train" / "blurry" / "000000.png"
    assert (
        f"{first} is 96 x 80, smaller than data.patch_size=96: data.patch_size=80 at most would fit" in told
    )


def test_a_folder_for_data_that_read_none(tmp_path):
    told = told_by_train(tmp_path, 2, "data=synthetic", "data.root=somewhere")
    assert "data.root" in told
    assert "choose data=reloblur" in told


def test_a_patch_that_the_network_would_pad_is_refused_before_the_data_are_read(tmp_path):
    told = told_by_train(tmp_path, 2, "data=reloblur", "data.root=nowhere", "data.patch_size=35")
    assert told.startswith("data.patch_size=35: a multiple of ")


# Checkpoints.


@pytest.mark.parametrize("command", ["evaluate", "predict", "init_from"])
def test_a_checkpoint_that_is_cut_off_or_missing(tmp_path, datasets, cut_checkpoint, command):
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}"]
    for path, told in (
        (cut_checkpoint, f"checkpoint {cut_checkpoint} cannot be read, it is truncated or damaged ("),
        (tmp_path / "none.ckpt", f"checkpoint {tmp_path / 'none.ckpt'} does not exist"),
        (tmp_path, f"checkpoint {tmp_path} is a folder: name a file, as "),
    ):
        if command == "init_from":
            assert told_by_train(tmp_path, 4, *data, f"init_from={path}").startswith(told)
            continue
        given = data if command == "evaluate" else [f"input={datasets / 'folder'}"]
        ended = forked(f"deblur_lab.{command}", *given, f"checkpoint={path}", "output=out", cwd=tmp_path)
        assert ended.failed(4).startswith(told)
        assert not (tmp_path / "out").exists()


def test_links_out_of_the_data(tmp_path, own_folder):
    outside = own_folder.rename(tmp_path / "disk")
    own_folder.mkdir()
    for split in ("train", "test"):
        (own_folder / split).symlink_to(outside / split)
    told = told_by_train(tmp_path, 3, "data=folder", f"data.root={own_folder}", more_lines=2)
    assert told.splitlines()[1].strip() == (
        f"{own_folder}/train is a link to {outside}/train, outside the data folder {own_folder}: copy that "
        "into it, or allow such links by data.follow_links=true"
    )
    typed = [*FEW, "data=folder", f"data.root={own_folder}", "data.follow_links=true", "evaluate=false"]
    assert (
        "6 train, 3 val, 3 test" in forked(TRAIN, *typed, "output=followed", cwd=tmp_path).succeeded().stdout
    )


def test_damage_in_the_middle_of_a_jpeg(tmp_path, own_folder):
    """It is seen where that is asked for, before training."""
    picture = own_folder / "train" / "sharp" / "000001"
    Image.open(f"{picture}.png").save(f"{picture}.jpg")
    Path(f"{picture}.png").unlink()
    data = bytearray(Path(f"{picture}.jpg").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xff\xd8" * 100
    Path(f"{picture}.jpg").write_bytes(data)
    typed = ("data=folder", f"data.root={own_folder}", "data.check_files=full")
    told = told_by_train(tmp_path, 3, *typed, more_lines=1)
    assert told.splitlines()[1].strip().startswith(f"{picture}.jpg: ")


def test_weights_of_another_network(tmp_path, datasets, trained):
    path = trained / "run" / "checkpoints" / "last.ckpt"
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}"]
    told = told_by_train(tmp_path, 4, *data, "model.net.width=8", f"init_from={path}")
    assert told.startswith(f"checkpoint {path} does not fit M2AENet: of ")
    assert "intro.weight (4, 3, 3, 3), not (8, 3, 3, 3)" in told


# Folders to write to, and pictures to read.


def test_an_output_that_cannot_be_written_to(tmp_path, datasets, trained):
    (tmp_path / "file").write_text("precious")
    checkpoint = f"checkpoint={trained / 'run' / 'checkpoints' / 'last.ckpt'}"
    data = ["data=reloblur", f"data.root={datasets / 'ReLoBlur'}"]
    for output, told in (("file", "output=file is a file: "), ("file/below", "output=file/below cannot be ")):
        assert told_by_train(tmp_path, 5, *data, f"output={output}").startswith(told)
    for command, given in (
        (EVALUATE, [checkpoint, *data]),
        (PREDICT, [checkpoint, f"input={datasets / 'folder'}"]),
        (REPORT, [f"runs={trained}"]),
    ):
        assert (
            forked(command, *given, "output=file", cwd=tmp_path)
            .failed(5)
            .startswith("output=file is a file: ")
        )
    assert (tmp_path / "file").read_text() == "precious"


def test_an_output_that_holds_a_run(own_run, datasets):
    config = (own_run / "config.yaml").read_bytes()
    ended = forked(TRAIN, *arguments_of_trained(datasets), "output=run", cwd=own_run.parent)
    assert ended.failed(2) == (
        "output=run holds a run already: go on with it by resume=run, or name another folder"
    )
    assert (own_run / "config.yaml").read_bytes() == config


def test_what_predict_cannot_do(tmp_path, datasets, trained):
    checkpoint = f"checkpoint={trained / 'run' / 'checkpoints' / 'last.ckpt'}"
    photos = f"input={datasets / 'folder'}"
    (tmp_path / "empty").mkdir()
    for arguments, code, told in (
        ([checkpoint, "input=nothing"], 3, "input=nothing does not exist"),
        ([checkpoint, "input=empty"], 3, "input=empty holds no pictures ("),
        ([checkpoint], 2, "input is not set: give it on the command line, as input=..."),
        ([photos], 2, "checkpoint is not set: give it on the command line, as checkpoint=..."),
        (
            [checkpoint, photos, "tile_px=10", "overlap_px=5"],
            2,
            "tile_px=10, overlap_px=5: tiles of over twice ",
        ),
        ([checkpoint, photos, "explain=x"], 2, "explain=x: true or false is expected"),
        ([checkpoint, photos, "device=gpu"], 2, "device=gpu: auto, cpu or cuda is expected"),
    ):
        ended = forked(PREDICT, *arguments, "output=out", cwd=tmp_path)
        assert ended.failed(code).startswith(told)
        assert not (tmp_path / "out").exists()


def test_what_evaluate_and_report_cannot_do(tmp_path, datasets, trained):
    checkpoint = f"checkpoint={trained / 'run' / 'checkpoints' / 'last.ckpt'}"
    for command, arguments, code, told in (
        (EVALUATE, ["data=reloblur", checkpoint], 2, "data.root is not set"),
        (EVALUATE, ["data=reloblur", checkpoint, "data.root=nowhere"], 3, "data.root=nowhere does not exist"),
        (EVALUATE, ["data=synthetic"], 2, "checkpoint is not set"),
        (EVALUATE, ["data=synthetic", checkpoint, "tlc=maybe"], 2, "tlc=maybe: one of auto, on, off"),
        (REPORT, ["runs=nothing"], 3, "runs=nothing does not exist"),
    ):
        assert forked(command, *arguments, cwd=tmp_path).failed(code).startswith(told)
    assert not list(tmp_path.iterdir())
