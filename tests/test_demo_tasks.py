"""Photos that people wait for."""

import threading
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from deblur_lab.demo_tasks import Tasks
from deblur_lab.errors import DataError
from deblur_lab.tried_photos import Tried

HERE = Path()


def tried_as(name):
    return Tried((1, 1), Path(name), Path(name), Path(name), (), ())


def done(*tasks):
    return lambda: all(task.wait(0) for task in tasks)


def test_they_are_restored_one_after_the_other_in_the_thread_that_works():
    order = []

    def restore(task, progress):
        progress(0.5)
        order.append((task.source.name, task.begun, task.share, threading.current_thread()))
        return tried_as(task.source.name)

    tasks = Tasks(restore)
    asked = []
    others = threading.Thread(target=lambda: asked.extend(tasks.ask(Path(name), HERE) for name in "ab"))
    others.start()
    others.join()
    assert [task.wait(0) for task in asked] == [False, False]
    assert not asked[0].begun
    tasks.carry_out(done(*asked))
    assert [task.result().restored.name for task in asked] == ["a", "b"]
    main = threading.main_thread()
    assert order == [("a", True, 0.5, main), ("b", True, 0.5, main)]


def test_what_fails_is_handed_over_and_the_next_is_restored(capsys):
    def restore(task, progress):
        if task.source.name == "bad":
            raise DataError("bad: no picture")
        if task.source.name == "fault":
            raise ZeroDivisionError("ours")
        return tried_as(task.source.name)

    tasks = Tasks(restore)
    bad, fault, good = (tasks.ask(Path(name), HERE) for name in ("bad", "fault", "good"))
    tasks.carry_out(done(bad, fault, good))
    with pytest.raises(DataError, match="bad: no picture"):
        bad.result()
    with pytest.raises(ZeroDivisionError):
        fault.result()
    assert good.result().restored.name == "good"
    told = capsys.readouterr().err
    assert told.count("Traceback") == 1
    assert "ZeroDivisionError: ours" in told


def test_who_is_gone_is_not_worked_for(capsys):
    steps = []

    def restore(task, progress):
        for share in (0.25, 0.5, 0.75):
            steps.append((task.source.name, share))
            if share == 0.5 and task.source.name == "leaves":
                task.abandon()
            progress(share)
        return tried_as(task.source.name)

    tasks = Tasks(restore)
    gone, leaves, stays = (tasks.ask(Path(name), HERE) for name in ("gone", "leaves", "stays"))
    gone.abandon()
    tasks.carry_out(done(gone, leaves, stays))
    assert [name for name, _ in steps] == ["leaves"] * 2 + ["stays"] * 3
    for task in (gone, leaves):
        with pytest.raises(CancelledError):
            task.result()
    assert capsys.readouterr().err == ""


def test_who_stops_the_command_stops_it():
    def restore(task, progress):
        raise KeyboardInterrupt

    tasks = Tasks(restore)
    task = tasks.ask(HERE, HERE)
    with pytest.raises(KeyboardInterrupt):
        tasks.carry_out()
    assert task.wait(0)
