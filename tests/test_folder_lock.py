"""A folder has one writer, and a second one is told who that is."""

import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from deblur_lab import folder_lock
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.folder_lock import FolderLock, Owner, kept_for_this_run

# Who keeps a folder: one that has another writer is refused with this.
TAKEN = (
    r"^output=x: another run writes to this folder: process \d+ on .+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; "
)


def lock(folder: Path, patience_s: float = 0.5) -> FolderLock:
    return FolderLock(folder, "output=x", patience_s=patience_s)


def left_by(folder: Path, **changes: object) -> None:
    """A lock as another process may have left it."""
    owner = {**Owner.this_process().__dict__, "token": "other", **changes}
    (folder / "run.lock").write_text(json.dumps(owner))


def test_a_second_run_is_refused_and_told_who_has_the_folder(tmp_path):
    with lock(tmp_path) as held:
        held.require()
        with pytest.raises(ConfigurationError, match=TAKEN), lock(tmp_path):
            pass
        held.require()
    assert os.listdir(tmp_path) == []
    with lock(tmp_path):
        pass


def test_of_many_at_once_one_has_it(tmp_path, monkeypatch):
    owner = FolderLock._owner

    def slowly(self):
        found = owner(self)
        time.sleep(random.random() / 50)  # for others to come in between
        return found

    monkeypatch.setattr(FolderLock, "_owner", slowly)
    for left in (False, True, True, True):
        if left:
            left_by(tmp_path, pid=4_000_000)
        have, refused, start = [], [], threading.Barrier(8)
        done = threading.Event()

        def try_it(have=have, refused=refused, start=start, done=done):
            one = lock(tmp_path)
            start.wait()
            try:
                with one:
                    have.append(one)
                    done.wait(20)
            except ConfigurationError:
                refused.append(one)

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(have) + len(refused) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join()
        assert (len(have), len(refused)) == (1, 7)
        assert os.listdir(tmp_path) == []


def test_a_killed_owner_makes_room_at_once(tmp_path):
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with lock(tmp_path):
            os.write(writer, b"has it")
            time.sleep(60)
    assert os.read(reader, 6) == b"has it"
    with pytest.raises(ConfigurationError, match=rf"process {holder} on"), lock(tmp_path):
        pass
    os.kill(holder, signal.SIGKILL)
    # Also while nobody has waited for it.
    deadline = time.monotonic() + 10
    while folder_lock._born(holder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "run.lock").exists()
    began = time.monotonic()
    with lock(tmp_path, patience_s=60) as held:
        held.require()
    assert time.monotonic() - began < 20
    os.waitpid(holder, 0)
    os.close(reader)
    os.close(writer)
    assert os.listdir(tmp_path) == []


def test_a_process_that_has_got_the_number_of_a_dead_one_is_not_the_owner(tmp_path):
    left_by(tmp_path, pid=os.getppid(), born="1")
    with lock(tmp_path, patience_s=60) as held:
        held.require()


def test_an_owner_on_another_machine_is_watched(tmp_path):
    """Its process cannot be asked for, and its number may be that of one here."""
    left_by(tmp_path, machine="another", host="node7")
    began = time.monotonic()
    with lock(tmp_path, patience_s=0.5) as held:
        held.require()
    assert time.monotonic() - began >= 0.5

    left_by(tmp_path, machine="another", host="node7")
    ended = threading.Event()

    def live() -> None:
        touched_ns = 10**18  # the clock of 2001: only that it changes counts
        while not ended.wait(0.05):
            touched_ns += 1000
            os.utime(tmp_path / "run.lock", ns=(touched_ns, touched_ns))

    beating = threading.Thread(target=live)
    beating.start()
    try:
        with pytest.raises(ConfigurationError, match=r"process .* on node7"), lock(tmp_path, patience_s=20):
            pass
    finally:
        ended.set()
        beating.join()


def test_a_live_owner_is_seen_to_live(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT_S", 0.02)
    with lock(tmp_path) as held:
        first = held._touched_ns()
        deadline = time.monotonic() + 10
        while held._touched_ns() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held._touched_ns() != first


def test_a_torn_lock_counts_for_nothing(tmp_path):
    (tmp_path / "run.lock").write_text('{"host": "no')
    with lock(tmp_path) as held:
        held.require()


def test_it_works_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with lock(tmp_path) as held:
        held.require()
        with pytest.raises(ConfigurationError, match=TAKEN), lock(tmp_path):
            pass
    assert os.listdir(tmp_path) == []


def test_one_that_was_halted_and_taken_over_writes_no_more(tmp_path):
    with lock(tmp_path) as held:
        left_by(tmp_path, host="node7")
        with pytest.raises(MachineError, match=r"was taken over by another run \(process .* on node7"):
            held.require()
    assert (tmp_path / "run.lock").exists(), "it is the other's"


def test_a_lock_that_was_deleted_is_taken_again_and_a_folder_is_not(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with lock(folder) as held:
        (folder / "run.lock").unlink()
        held.require()
        with pytest.raises(ConfigurationError, match=TAKEN), lock(folder):
            pass
        shutil.rmtree(folder)
        with pytest.raises(MachineError, match=r"run was deleted while the run wrote to it"):
            held.require()
    assert not folder.exists()


def test_what_killed_runs_left_is_cleaned_and_nothing_else(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    ours = [".metrics.csv.tmp", ".scores.json.tmp", "checkpoints/.last.ckpt.tmp", ".run.lock.0a1b.tmp"]
    others = [".notes.tmp", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/.mine.ckpt.tmp"]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    with lock(tmp_path):
        assert not any((tmp_path / name).exists() for name in ours)
    assert all((tmp_path / name).exists() for name in others)


def test_only_the_first_process_of_a_run_keeps_the_folder(tmp_path, monkeypatch):
    with kept_for_this_run(tmp_path, "output=x") as first:
        assert first is not None
        monkeypatch.setenv("RANK", "1")
        with kept_for_this_run(tmp_path, "output=x") as second:
            assert second is None
        assert (tmp_path / "run.lock").exists()
    assert not (tmp_path / "run.lock").exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(MachineError, match=r"gone/run\.lock cannot be written: No such file"):  # noqa: SIM117
        with lock(tmp_path / "gone"):
            pass
