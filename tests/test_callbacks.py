"""What is saved when: the newest checkpoint knows all that has happened up to it."""

import os
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from deblur_lab.callbacks import Bars
from deblur_lab.metrics_file import MetricsFile
from deblur_lab.saving import LastCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*exists and is not empty.*")


class Endless(DataLoader):
    """The same batches again and again; stateful, so that Lightning takes it for one that can be resumed."""

    def __init__(self, count):
        super().__init__([torch.ones(1, 1)] * count, batch_size=None)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Line(L.LightningModule):
    """Learns a number; is stopped where it is told to."""

    def __init__(self, stop_in=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop_in = stop_in

    def training_step(self, batch, batch_idx):
        self._stop(("train", batch_idx))
        loss = (self.weight - 1).pow(2).sum()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self._stop(("val", self.global_step, batch_idx))
        # The third validation is the best.
        self.log("val/psnr_db", -abs(float(self.global_step) - 6))

    def _stop(self, place):
        if place == self.stop_in:
            os.kill(os.getpid(), signal.SIGTERM)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(folder, *, steps=10, every=2, accumulate=1, stop_in=None, resume=False, bars=None):
    log = MetricsFile(folder / "metrics.csv")
    last = folder / "last.ckpt"
    module = Line(stop_in)
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=log,
        log_every_n_steps=1,
        val_check_interval=2 * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=bars is not None,
        enable_model_summary=False,
        callbacks=[
            *([bars] if bars is not None else []),
            ModelCheckpoint(
                folder, filename="best", monitor="val/psnr_db", mode="max", enable_version_counter=False
            ),
            LastCheckpoint(last, every),
        ],
    )
    if resume:
        log.go_on_from(checkpoint(folder)["global_step"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        trainer.fit(module, Endless(1000), Endless(3), ckpt_path=last if resume else None, weights_only=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    return module


def checkpoint(folder, name="last"):
    return torch.load(folder / f"{name}.ckpt", weights_only=True)


def best_score(saved):
    (state,) = [state for key, state in saved["callbacks"].items() if key.startswith("ModelCheckpoint")]
    return float(state["best_model_score"])


def test_the_checkpoint_of_a_validated_step_knows_its_score(tmp_path):
    fit(tmp_path, steps=6)
    assert checkpoint(tmp_path)["global_step"] == 6
    assert best_score(checkpoint(tmp_path)) == 0


@pytest.mark.parametrize("every", [2, 3, 100])
@pytest.mark.parametrize(
    "stop_in",
    [("train", 5), ("train", 6), ("train", 7), ("val", 4, 0), ("val", 4, 2), ("val", 6, 1), ("val", 6, 2)],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, every, stop_in, accumulate):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    expected = fit(whole, every=every, accumulate=accumulate)
    with pytest.raises(SIGTERMException):
        fit(stopped, every=every, accumulate=accumulate, stop_in=stop_in)
    reached = checkpoint(stopped)["global_step"]
    assert reached == (stop_in[1] // accumulate + 1 if stop_in[0] == "train" else stop_in[1])
    resumed = fit(stopped, every=every, accumulate=accumulate, resume=True)
    assert torch.equal(resumed.weight, expected.weight)
    rows, all_rows = ((folder / "metrics.csv").read_text().splitlines() for folder in (stopped, whole))
    assert [row.split(",")[:2] for row in rows] == [row.split(",")[:2] for row in all_rows]
    # A validation that was cut short is left out; all others are there, and the best is known.
    finished = stop_in[0] == "val" and stop_in[2] == 2
    cut = reached % 2 == 0 and not finished
    assert [int(row.split(",")[0]) for row in all_rows[1:] if row not in rows] == (
        [reached - 1] if cut else []
    )
    if not (cut and reached == 6):
        assert best_score(checkpoint(stopped)) == best_score(checkpoint(whole)) == 0
        assert checkpoint(stopped, "best")["global_step"] == 6


def test_what_was_done_in_part_is_not_saved(tmp_path):
    with pytest.raises(SIGTERMException):
        fit(tmp_path, accumulate=4, stop_in=("train", 5), every=100)
    # The second step was finished first: batches 4 to 7.
    assert checkpoint(tmp_path)["global_step"] == 2


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_bar_counts_the_steps_of_the_whole_run_also_in_one_that_goes_on(tmp_path, accumulate):
    for steps, resume in ((4, False), (10, True)):
        bars = Bars(leave=True)
        fit(tmp_path, steps=steps, accumulate=accumulate, resume=resume, bars=bars)
        bar = bars.train_progress_bar
        assert (bar.completed, bar.total) == (steps, steps)
