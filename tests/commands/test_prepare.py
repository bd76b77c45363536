"""The command that writes tiles: what it says, what training makes of it, and what is left when it ends."""

import shutil
import signal
from pathlib import Path

import pytest

from deblur_lab.data.synthesize import Settings, synthesize
from tests.commands.processes import TINY, Running, forked

PREPARE = "deblur_lab.data.prepare"


@pytest.fixture
def data(datasets: Path, tmp_path: Path) -> Path:
    """A copy of the datasets, to prepare."""
    return Path(shutil.copytree(datasets, tmp_path / "data"))


def tiles_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tiles"))


def trained(cwd: Path, output: str, *settings: str) -> tuple[str, bytes]:
    """What a short training said, and its losses."""
    said = forked(
        "deblur_lab.train",
        *(setting for setting in TINY if not setting.startswith("pictures")),
        "pictures=0",
        "evaluate=false",
        "trainer.max_steps=4",
        f"output={output}",
        *settings,
        cwd=cwd,
    ).succeeded()
    return said.stdout, (cwd / output / "metrics.csv").read_bytes()


def test_prepared_training_is_the_same_to_the_last_digit(data: Path, tmp_path: Path) -> None:
    typed = ("data=reloblur", f"data.root={data / 'ReLoBlur'}", "data.num_workers=1")
    plain, losses = trained(tmp_path, "plain", *typed)
    assert "tiles" not in plain
    said = forked(PREPARE, *typed[:2], cwd=tmp_path).succeeded().stdout.splitlines()
    folder = data / "ReLoBlur" / ".prepared"
    assert len(tiles_in(folder)) == 6
    assert said[0].startswith("reloblur: 6 training pairs: 6 written (")
    assert said[0].endswith(f"in {folder}")
    assert said[1].endswith(f"python -m deblur_lab.train model=m2aenet {typed[0]} {typed[1]}")
    quick, again = trained(tmp_path, "quick", *typed)
    assert f"reloblur: patches are read from the tiles in {folder}, which fit its files" in quick
    assert again == losses
    # Preparing twice changes nothing.
    before = [path.stat().st_mtime_ns for path in tiles_in(folder)]
    said = forked(PREPARE, *typed[:2], cwd=tmp_path).succeeded().stdout.splitlines()
    assert "0 written (0 bytes), 6 kept (" in said[0]
    assert [path.stat().st_mtime_ns for path in tiles_in(folder)] == before
    # A run may go on with tiles or without.
    forked("deblur_lab.train", "resume=quick", "data.prepared=false", cwd=tmp_path).succeeded()


def test_a_mix_is_prepared_in_one_folder_each(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "my tiles"
    typed = ("data=gopro_reloblur", f"data.root={data}", f"data.gopro_root={data / 'GoPro/GOPRO_Large'}")
    said = forked(PREPARE, *typed, f"output={output}", cwd=tmp_path).succeeded().stdout
    assert len(tiles_in(output / "gopro")) == len(tiles_in(output / "reloblur")) == 6
    assert not tiles_in(data)
    assert f"'data.prepared={output}'" in said.splitlines()[-1]
    told, _ = trained(tmp_path, "run", *typed, f"data.prepared={output}")
    for name in ("gopro", "reloblur"):
        assert f"{name}: patches are read from the tiles in {output / name}" in told
    tiles_in(output / "gopro")[0].unlink()
    line = forked(
        "deblur_lab.train", *TINY, *typed, f"data.prepared={output}", "output=other", cwd=tmp_path
    ).failed(3)
    assert line.startswith(
        f"data.prepared={output} does not fit gopro: of 6 training pairs 1 without tiles ("
    )


def test_what_is_wrong_with_pictures_is_told_at_the_end(data: Path, tmp_path: Path) -> None:
    broken = sorted((data / "folder/train/blurry").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:200])
    ended = forked(PREPARE, "data=folder", f"data.root={data / 'folder'}", cwd=tmp_path)
    assert "1 problem(s) with the pictures" in ended.failed(3, more_lines=2)
    assert str(broken) in ended.stderr
    command = ended.stderr.splitlines()[-1]
    assert "training ends at these files as well, unless it is to do without them: python -m" in command
    assert command.endswith("data.skip_unreadable=true")
    assert "folder: 6 training pairs: 5 written" in ended.stdout
    assert "1 not done" in ended.stdout
    typed = ("data=folder", f"data.root={data / 'folder'}", "data.skip_unreadable=true")
    said, _ = trained(tmp_path, "without", *typed)
    assert "folder: 5 of 6 training pairs are read from the tiles in" in said
    assert "skipped, as data.skip_unreadable=true (1):" in said


def test_pictures_without_partners_are_told_with_broken_ones_and_the_others_prepared(
    data: Path, tmp_path: Path
) -> None:
    first, second, *_ = sorted((data / "folder/train/blurry").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:200])
    ended = forked(PREPARE, "data=folder", f"data.root={data / 'folder'}", cwd=tmp_path)
    assert "2 problem(s) with the pictures" in ended.failed(3, more_lines=3)
    assert f"{first.name} is missing" in ended.stderr
    assert str(second) in ended.stderr
    # Training refuses what has no partner, with data.skip_unreadable as well.
    assert ended.stderr.splitlines()[-1].endswith("training ends at these files as well")
    assert "folder: 5 training pairs: 4 written" in ended.stdout
    assert len(tiles_in(data / "folder")) == 4
    for path in (data / "folder/train/sharp").iterdir():
        path.unlink()
    told = forked(PREPARE, "data=folder", f"data.root={data / 'folder'}", cwd=tmp_path)
    assert "5 problem(s)" in told.failed(3, more_lines=6)


@pytest.mark.parametrize(
    ("typed", "code", "line"),
    [
        (
            ("data=synthetic",),
            2,
            "data.sources: synthetic is not read from files: there is nothing to prepare",
        ),
        (("data=folder",), 2, "data.root is not set"),
        (("data=folder", "data.root=none"), 3, "does not exist"),
        (("data=folder", "data.root={root}", "workers=0"), 2, "workers=0: "),
        (
            ("data=folder", "data.root={root}", "output={root}/train/blurry/000000.png"),
            5,
            "cannot be written to",
        ),
    ],
)
def test_mistakes_end_in_a_line(
    datasets: Path, tmp_path: Path, typed: tuple[str, ...], code: int, line: str
) -> None:
    typed = tuple(setting.replace("{root}", str(datasets / "folder")) for setting in typed)
    assert line in forked(PREPARE, *typed, cwd=tmp_path).failed(code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_is_gone_on_with(tmp_path: Path, number: signal.Signals) -> None:
    root = tmp_path / "data"
    synthesize(Settings(root, "folder", train_scenes=40, test_scenes=1, size_px=(240, 160), num_workers=0))
    typed = ("data=folder", f"data.root={root}", "workers=1")
    command = Running(PREPARE, *typed, cwd=tmp_path, forked=True)
    command.wait_until(lambda: len(tiles_in(root)) >= 3)
    command.send(number, to_all=number != signal.SIGKILL)
    ended = command.ended()
    if number == signal.SIGKILL:
        assert ended.code == -signal.SIGKILL
    else:
        assert ended.code == 128 + number
        assert "stopped by" in ended.stderr
        there = len(tiles_in(root))
        assert ended.stdout.splitlines() == [
            f"folder: {there} of 40 training pairs are done, in {root / '.prepared'}: the same command "
            "goes on with the others"
        ]
        assert not list(root.rglob("*.tmp"))
    done = {path: path.stat().st_mtime_ns for path in tiles_in(root)}
    assert 3 <= len(done) < 40
    said = forked(PREPARE, *typed, cwd=tmp_path).succeeded().stdout
    assert f"{40 - len(done)} written" in said
    assert f"{len(done)} kept" in said
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(tiles_in(root)) == 40
    assert not list(root.rglob("*.tmp"))


def test_a_file_that_cannot_be_written_ends_it_in_a_line(data: Path, tmp_path: Path) -> None:
    typed = ("data=folder", f"data.root={data / 'folder'}", "workers=1")
    forked(PREPARE, *typed, cwd=tmp_path).succeeded()
    last = tiles_in(data)[-1]
    last.unlink()
    (last / "in the way").mkdir(parents=True)
    assert forked(PREPARE, *typed, cwd=tmp_path).failed(5) == f"{last} cannot be written: Is a directory"
    assert not list(data.rglob("*.tmp"))
