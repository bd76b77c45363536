"""Checkpoints are whole or as they were, at every moment, and the one before is kept."""

import contextlib
import errno
import os
import re
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import nn

from deblur_lab import saving
from deblur_lab.checkpoints import read_checkpoint
from deblur_lab.errors import CheckpointError, MachineError
from deblur_lab.saving import AtomicCheckpoints, BestCheckpoint, bytes_in, bytes_of_one, require_room
from tests.commands.processes import server

FULL = Path("/dev/full")  # to which everything can be opened, and nothing written
STEPS = {"step": 1, "weights": torch.ones(300_000)}


@pytest.fixture
def last(tmp_path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"step": 0}, path)
    return path


def kept(folder: Path) -> dict[str, int]:
    """The steps of all that is in a folder."""
    return {path.name: read_checkpoint(path)["step"] for path in folder.iterdir()}


def test_the_one_before_is_kept_as_well(last):
    assert kept(last.parent) == {"last.ckpt": 0}
    for step in (1, 2, 3):
        AtomicCheckpoints().save_checkpoint({"step": step}, last)
        assert kept(last.parent) == {"last.ckpt": step, "previous.ckpt": step - 1}
    AtomicCheckpoints().save_checkpoint({"step": 9}, last.with_name("best.ckpt"))
    assert kept(last.parent) == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 9}


def test_the_one_before_is_kept_where_there_are_no_links(last, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        AtomicCheckpoints().save_checkpoint({"step": step}, last)
        assert kept(last.parent) == {"last.ckpt": step, "previous.ckpt": step - 1}


def test_at_every_call_of_the_system_there_is_a_whole_checkpoint(last, monkeypatch):
    """A kill may come between any two of them."""
    AtomicCheckpoints().save_checkpoint({"step": 1}, last)
    seen = []
    for name in ("link", "replace", "rename", "unlink", "fsync", "open"):
        call = getattr(os, name)

        def watched(*given, call=call, **named):
            found = {path.name: read_checkpoint(path)["step"] for path in last.parent.glob("*.ckpt")}
            seen.append((found.get("last.ckpt"), found.get("previous.ckpt")))
            return call(*given, **named)

        monkeypatch.setattr(os, name, watched)
    AtomicCheckpoints().save_checkpoint({"step": 2}, last)
    assert list(dict.fromkeys(seen)) == [(1, 0), (1, 1), (2, 1)]


@pytest.mark.skipif(not FULL.exists(), reason="Linux alone has a device that is always full")
def test_a_full_disk_keeps_the_old_file_and_no_other(last):
    """The machine itself refuses, in the middle of writing."""
    (last.parent / ".last.ckpt.tmp").symlink_to(FULL)
    with pytest.raises(MachineError) as caught:
        AtomicCheckpoints().save_checkpoint(STEPS, last)
    message = str(caught.value)
    assert message.startswith(f"{last} cannot be written: No space left on device: it needs 1.46 MB and ")
    assert re.search(r" are free( \(a quota may allow less\))?; the older last\.ckpt stays$", message)
    assert kept(last.parent) == {"last.ckpt": 0}


def test_a_limit_of_the_system_keeps_the_old_file_and_no_other(last):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(
            MachineError, match=r"last\.ckpt cannot be written: File too large; the older last"
        ):
            AtomicCheckpoints().save_checkpoint(STEPS, last)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept(last.parent) == {"last.ckpt": 0}


def test_too_little_space_is_seen_before_anything_is_written(last, monkeypatch):
    monkeypatch.setattr(saving, "free_bytes", lambda folder: 1_000_000)
    (last.parent / ".last.ckpt.tmp").mkdir()  # where it would be written
    with pytest.raises(MachineError) as caught:
        AtomicCheckpoints().save_checkpoint(STEPS, last)
    assert (
        str(caught.value)
        == f"{last} cannot be written: it needs 1.46 MB and 1 MB are free; the older last.ckpt stays"
    )
    with pytest.raises(MachineError, match=r"x\.ckpt cannot be written: .*; no checkpoint is lost"):
        AtomicCheckpoints().save_checkpoint(STEPS, last.with_name("x.ckpt"))


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_refused_permission_is_never_swallowed(last, monkeypatch, call):
    """Lightning's own writing passes over it without a word."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(MachineError, match=r"best\.ckpt cannot be written: Permission denied; no checkpoint"):
        AtomicCheckpoints().save_checkpoint(STEPS, last.with_name("best.ckpt"))
    monkeypatch.undo()
    assert kept(last.parent) == {"last.ckpt": 0}


def test_a_folder_that_became_a_file_is_named(last):
    with pytest.raises(MachineError, match=r"last\.ckpt/x\.ckpt cannot be written: .*(directory|exists)"):
        AtomicCheckpoints().save_checkpoint(STEPS, last / "x.ckpt")


def test_nothing_is_written_to_a_folder_that_is_no_longer_the_runs(last):
    def refuse() -> None:
        raise MachineError("taken over")

    with pytest.raises(MachineError, match="taken over"):
        AtomicCheckpoints(refuse).save_checkpoint(STEPS, last)
    assert kept(last.parent) == {"last.ckpt": 0}


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    writer, path = AtomicCheckpoints(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt is not written: .*torch\.torch_version\.TorchVersion"
    ):
        writer.save_checkpoint({"torch": torch.__version__}, path)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert read_checkpoint(path) == {"step": 1}


def test_what_a_killed_writer_left_is_overwritten(last):
    (last.parent / ".last.ckpt.tmp").write_bytes(b"torn")
    (last.parent / ".previous.ckpt.tmp").write_bytes(b"torn")
    AtomicCheckpoints().save_checkpoint({"step": 1}, last)
    assert kept(last.parent) == {"last.ckpt": 1, "previous.ckpt": 0}


def write_on(path: Path, step: int, said: Connection) -> None:
    """Save, and say so, until the end comes."""
    torch.set_num_threads(1)
    while True:
        step += 1
        contents = {"step": step, "weights": torch.full((200_000,), float(step))}
        AtomicCheckpoints().save_checkpoint(contents, path)
        said.send(step)


def test_killed_at_many_moments_while_writing_both_stay_whole(tmp_path):
    path, step = tmp_path / "last.ckpt", 0
    for number in range(6):
        heard, said = server.Pipe(duplex=False)
        process = server.Process(target=write_on, args=(path, step, said))
        process.start()
        said.close()
        saved = heard.recv()
        time.sleep(0.005 * number)
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                saved = heard.recv()
        heard.close()
        last = read_checkpoint(path)
        assert last["step"] in (saved, saved + 1)
        assert torch.equal(last["weights"], torch.full((200_000,), float(last["step"])))
        previous = path.with_name("previous.ckpt")
        if previous.exists():
            older = read_checkpoint(previous)
            assert older["step"] in (last["step"] - 1, last["step"])
            assert torch.equal(older["weights"], torch.full((200_000,), float(older["step"])))
        step = last["step"]


def test_the_best_is_known_again_wherever_the_run_lies_now(tmp_path):
    """Lightning's own forgets its score, and would replace the best weights by worse ones."""
    before = BestCheckpoint(tmp_path / "before", "val/psnr_db", "max")
    before.best_model_path = before.kth_best_model_path = str(tmp_path / "before" / "best.ckpt")
    before.best_model_score = before.kth_value = torch.tensor(31.5)
    before.best_k_models = {before.best_model_path: torch.tensor(31.5)}
    after = BestCheckpoint(tmp_path / "after", "val/psnr_db", "max")
    after.load_state_dict(before.state_dict())
    here = str(tmp_path / "after" / "best.ckpt")
    assert (after.best_model_path, after.kth_best_model_path) == (here, here)
    assert after.best_model_score == 31.5
    assert after.best_k_models == {here: torch.tensor(31.5)}
    fresh = BestCheckpoint(tmp_path / "after", "val/psnr_db", "max")
    fresh.load_state_dict(BestCheckpoint(tmp_path / "before", "val/psnr_db", "max").state_dict())
    assert fresh.best_model_path == ""


def test_storages_are_counted_once_and_whole():
    tensor = torch.zeros(1000)
    assert bytes_in({"a": tensor, "b": [tensor.view(10, 100), (tensor[:5],)], "c": "text"}) == 4000


def test_the_size_of_a_checkpoint_is_known_before_the_first_step(tmp_path):
    net = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 300).requires_grad_(False))
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad])
    net(torch.rand(4, 300)).sum().backward()
    expected = bytes_of_one(net)
    optimizer.step()
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"a": net.state_dict(), "b": optimizer.state_dict()}, path)
    assert path.stat().st_size <= expected <= path.stat().st_size + 300_000


def test_a_run_that_has_no_room_is_refused_with_numbers(tmp_path, monkeypatch):
    net = nn.Linear(1000, 1000)
    one = bytes_of_one(net)
    monkeypatch.setattr("deblur_lab.writing.free_bytes", lambda folder: 4 * one)
    require_room(tmp_path, net)
    monkeypatch.setattr("deblur_lab.writing.free_bytes", lambda folder: 3 * one)
    with pytest.raises(MachineError) as caught:
        require_room(tmp_path, net)
    assert str(caught.value) == (
        f"{tmp_path} has too little space: last.ckpt, previous.ckpt, best.ckpt and the one being written "
        "(12.3 MB each) need 49.1 MB and 36.8 MB are free"
    )
    # A run that goes on has most of it already.
    for name in ("last", "previous", "best"):
        (tmp_path / f"{name}.ckpt").write_bytes(b"x" * one)
    monkeypatch.setattr("deblur_lab.writing.free_bytes", lambda folder: one)
    require_room(tmp_path, net)
