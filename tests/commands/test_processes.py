"""Processes that are killed, stopped or meet a mistake: the run ends whole, in one line, and can go on."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.commands.conftest import arguments_of_trained
from tests.commands.processes import Running, forked
from tests.commands.runs import checkpoint_of, rows_of

TWO = ("trainer.devices=2", "trainer.strategy=ddp")
ENDLESS = ("trainer.max_steps=100000", "val_every_steps=100000", "checkpoint_every_steps=2", "evaluate=false")
WAY_ON = "; go on with: python -m deblur_lab.train resume=run"
OWN_CODE = "trusted_packages=[sick]"

# A loss that fails as it is told to, in its so manyth call, in the process of one rank.
SICK = """
import os
import torch
from deblur_lab.losses import ReconstructionLoss

class Loss(ReconstructionLoss):
    def __init__(self, psnr: float, l1: float, ssim: float, fft: float, what: str, call: int, rank: int):
        super().__init__(l1=1.0)
        self.what, self.call, self.rank, self.calls = what, call, rank, 0

    def forward(self, restored, sharp):
        parts = super().forward(restored, sharp)
        self.calls += 1
        if self.calls == self.call and self.rank == int(os.environ.get("LOCAL_RANK", 0)):
            if self.what == "loss":
                parts["l1"] = parts["l1"] * float("inf")
            if self.what == "gradient":
                # The root of 0, which has no slope.
                parts["l1"] = parts["l1"] + (restored - restored.detach()).abs().sum().sqrt()
            if self.what == "memory":
                torch.empty(2**46, dtype=torch.uint8)
        return parts
"""


def sick(folder, datasets, what, call, *more):
    """The arguments of a run whose loss fails."""
    (folder / "sick.py").write_text(SICK)
    return [
        "model=nafnet",
        *arguments_of_trained(datasets, "evaluate=false", "checkpoint_every_steps=1", "output=run", *more),
        OWN_CODE,
        "model.loss._target_=sick.Loss",
        *(f"+model.loss.what={what}", f"+model.loss.call={call}"),
        f"+model.loss.rank={int(TWO[0] in more)}",
    ]


def logged(run: Path) -> int:
    return len(rows_of(run / "metrics.csv")) if (run / "metrics.csv").exists() else 0


def children_of(process: int) -> list[int]:
    """Of its main thread, in the order in which they were started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_rank(process: int) -> bool:
    return b"DEBLUR_LAB_FIRST_PROCESS" in Path(f"/proc/{process}/environ").read_bytes()


def reached(run):
    return checkpoint_of(run)["global_step"]


def test_two_devices_end_together_and_go_on(tmp_path, datasets):
    """One is killed; then all are told to stop, as a cluster does; then the other is killed."""
    run = tmp_path / "run"
    arguments = arguments_of_trained(datasets, *ENDLESS, *TWO, "data.num_workers=1", "output=run")
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True, spares=0)
    running.wait_until(lambda: logged(run) >= 4)
    (other,) = [child for child in children_of(running.pid) if is_rank(child)]
    os.kill(other, signal.SIGKILL)
    told = running.ended(15).failed(5)
    assert told == f"rank 1 (process {other}) was killed by SIGKILL; the others were stopped{WAY_ON}"
    before = reached(run)

    running = Running("deblur_lab.train", "resume=run", cwd=tmp_path, forked=True, spares=1)
    running.wait_until(lambda: logged(run) >= before + 3)
    running.send(signal.SIGTERM, to_all=True)
    ended = running.ended(30)
    assert (ended.code, ended.stderr) == (143, "")
    assert ended.stdout.count("stopped by SIGTERM") == 1
    assert ended.stdout.endswith(f"stopped by SIGTERM{WAY_ON}\n")
    assert before + 3 <= reached(run) == logged(run)

    running = Running("deblur_lab.train", "resume=run", cwd=tmp_path, forked=True, spares=1)
    running.wait_until(lambda: logged(run) >= reached(run) + 1)
    first = running.pid
    running.send(signal.SIGKILL)
    ended = running.ended(15)
    assert ended.code == -signal.SIGKILL
    assert ended.stderr == (
        f"error: rank 0 (process {first}) was killed, or crashed; the others were stopped{WAY_ON}\n"
    )


def test_a_loss_that_is_not_finite_on_one_device_stops_all_before_the_update(tmp_path, datasets):
    arguments = sick(tmp_path, datasets, "loss", 3, *TWO)
    told = forked("deblur_lab.train", *arguments, cwd=tmp_path).failed(6)
    assert re.match(r"the loss is not finite at step 2, on \S+ \(rank 1\): l1 inf; all samples of ", told)
    record = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert (record["what"], record["step"], record["rank"]) == ("loss", 2, 1)
    healthy, ill = [process["batches"][0] for process in record["processes"]]
    assert (healthy["loss_is_finite"], ill["loss_is_finite"]) == (True, False)
    assert ill["samples"][0] in told
    assert ill["parts"] == {"l1": None}  # which JSON cannot hold
    for file in record["files"][ill["samples"][0]]:
        assert Path(file).is_file()
    assert reached(tmp_path / "run") == 2
    assert all(weight.isfinite().all() for weight in checkpoint_of(tmp_path / "run")["state_dict"].values())


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path, datasets):
    """In the second part of an accumulated batch; the average of the weights stays as it was, too."""
    more = ("data.micro_batch_size=1", "model.ema_decay=0.5")
    arguments = sick(tmp_path, datasets, "gradient", 6, *more)
    told = forked("deblur_lab.train", *arguments, cwd=tmp_path).failed(6)
    assert re.match(r"the gradient is not finite at step 2, on \S+, \S+, while the loss is; all ", told)
    assert "start anew from init_from=run/checkpoints/last.ckpt with a smaller model.optimizer.lr" in told
    saved = checkpoint_of(tmp_path / "run")
    assert saved["global_step"] == 2
    assert all(weight.isfinite().all() for weight in saved["state_dict"].values())
    # The checkpoint can be gone on from.
    (tmp_path / "sick.py").write_text(SICK.replace("if self.calls == self.call", "if False"))
    forked("deblur_lab.train", "resume=run", OWN_CODE, cwd=tmp_path).succeeded()


def test_out_of_memory_says_what_was_used_and_what_to_try(tmp_path, datasets):
    told = forked("deblur_lab.train", *sick(tmp_path, datasets, "memory", 2), cwd=tmp_path).failed(5)
    assert re.fullmatch(
        r"out of memory; at most \d+\.\d\d GiB of main memory was used: try data\.micro_batch_size=1 \(which "
        r"changes no result\), a data\.patch_size below 32, trainer\.precision=bf16-mixed"
        + re.escape(f"{WAY_ON} '{OWN_CODE}'"),
        told,
    )
    smaller = forked("deblur_lab.train", "resume=run", "data.micro_batch_size=1", OWN_CODE, cwd=tmp_path)
    # Where it still is too much, there is one thing less to try.
    assert "try a data.patch_size below 32, " in smaller.failed(5)


@pytest.fixture
def at_work(tmp_path, datasets):
    """A run with two data workers, and these."""
    arguments = arguments_of_trained(datasets, *ENDLESS, "data.num_workers=2", "output=run")
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
    running.wait_until(lambda: logged(tmp_path / "run") >= 4)
    return running, children_of(running.pid)[-2:]


def test_sigterm_to_all_processes_saves_as_it_does_to_the_first(tmp_path, at_work):
    running, _ = at_work
    running.send(signal.SIGTERM, to_all=True)
    ended = running.ended(20)
    assert (ended.code, ended.stderr) == (143, "")
    assert ended.stdout.endswith(f"stopped by SIGTERM{WAY_ON}\n")
    assert reached(tmp_path / "run") == logged(tmp_path / "run")


def test_a_data_worker_that_is_killed_is_named(at_work):
    running, workers = at_work
    os.kill(workers[1], signal.SIGKILL)
    told = running.ended(10).failed(5)
    assert told == (
        f"data worker 1 of 2 (process {workers[1]}) was killed by SIGKILL, as the system does when memory "
        f"runs out: try fewer data.num_workers{WAY_ON}"
    )


def test_data_workers_end_with_their_process(at_work):
    running, workers = at_work
    running.send(signal.SIGKILL)
    deadline = time.monotonic() + 3
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert running.ended().code == -signal.SIGKILL


def test_a_picture_that_breaks_in_a_run_stops_it_or_is_skipped(tmp_path, datasets):
    root = tmp_path / "data"
    for kind in ("blurry", "sharp"):
        (root / "train" / kind).mkdir(parents=True)
        (root / "test" / kind).mkdir(parents=True)
        for split in ("train", "test"):
            for file in sorted((datasets / "folder" / split / kind).iterdir())[:2]:
                (root / split / kind / file.name).write_bytes(file.read_bytes())
    typed = ("data=folder", f"data.root={root}", "val_every_steps=90", "trainer.max_steps=90", "output=run")
    arguments = arguments_of_trained(datasets, *typed, "checkpoint_every_steps=2", "evaluate=false")
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
    running.wait_until(lambda: logged(tmp_path / "run") >= 3)
    broken = sorted((root / "train" / "sharp").iterdir())[0]
    contents = broken.read_bytes()
    broken.unlink()
    told = running.ended(20).failed(3)
    assert told.startswith(f"{broken}: ")
    assert told.endswith(WAY_ON)
    before = reached(tmp_path / "run")

    broken.write_bytes(contents[:100])
    more = ("data.skip_unreadable=true", "checkpoint_every_steps=90")
    said = forked("deblur_lab.train", "resume=run", *more, cwd=tmp_path).succeeded()
    assert "skipped, as data.skip_unreadable=true (1):" in said.stdout
    assert str(broken) in said.stdout
    assert (tmp_path / "run" / "skipped.txt").read_text().count(str(broken)) == 1
    # Each step has two samples, of which every second one is of the broken pair.
    assert reached(tmp_path / "run") == 90
    last = rows_of(tmp_path / "run" / "metrics.csv")[-1]
    assert float(last["train/skipped"]) == 90 - before
