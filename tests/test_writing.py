"""Files are whole or as they were, and what the machine refuses is said in one line."""

import errno
import os
from pathlib import Path

import pytest

from deblur_lab import writing
from deblur_lab.errors import MachineError
from deblur_lab.writing import amount, refusal, replacing, require_space, unwritable

FULL = Path("/dev/full")  # to which everything can be opened, and nothing written


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with replacing(path) as file:
        file.write("né")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_bytes() == "né".encode()
    assert os.listdir(tmp_path) == ["scores.json"]


@pytest.mark.skipif(not FULL.exists(), reason="Linux alone has a device that is always full")
def test_a_full_disk_keeps_the_old_file_and_says_what_is_free(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    (tmp_path / ".scores.json.tmp").symlink_to(FULL)
    with (
        pytest.raises(
            MachineError,
            match=r"scores\.json cannot be written: No space left on device: .* [kMGT]?B are free",
        ),
        replacing(path) as file,
    ):
        file.write("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.json"]


def test_a_mistake_of_another_kind_leaves_nothing_behind_either(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as file:
        file.write(str(1 / 0))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(MachineError, match=r"gone/x cannot be written: No such file or directory"):  # noqa: SIM117
        with replacing(tmp_path / "gone" / "x"):
            pass


def test_space_is_asked_for_before_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "free_bytes", lambda folder: 20_000_000)
    require_space(tmp_path, 20_000_000, "these")
    with pytest.raises(MachineError) as caught:
        require_space(tmp_path, 310_000_000, "these")
    assert str(caught.value) == f"{tmp_path} has too little space: these need 310 MB and 20 MB are free"


def test_the_space_of_a_folder_to_be_made_is_that_of_its_parent(tmp_path):
    assert writing.free_bytes(tmp_path / "a" / "b") > 0


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (310_400_000, "310 MB"), (2.5e12, "2.5 TB")],
)
def test_amounts_are_rounded(count, shown):
    assert amount(count) == shown


def test_what_was_needed_is_said_where_it_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "free_bytes", lambda folder: 4000)
    error = OSError(errno.ENOSPC, "No space left on device")
    told = str(unwritable(tmp_path / "x", error, 5000))
    assert told.endswith("x cannot be written: No space left on device: it needs 5 kB and 4 kB are free")
    for needed in (3000, None):
        quota = OSError(errno.EDQUOT, "Disk quota exceeded")
        assert str(unwritable(tmp_path / "x", quota, needed)).endswith(
            " 4 kB are free (a quota may allow less)"
        )


def test_errors_of_the_machine_are_told_from_faults():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert refusal(full) == "/data/x: No space left on device; free some space, and go on with resume="
    assert refusal(PermissionError(errno.EACCES, "Permission denied", "/x")) == "/x: Permission denied"
    assert refusal(OSError(errno.EROFS, "Read-only file system")) == "Read-only file system"
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
