"""A step is not taken from a loss or a gradient that is not finite."""

import functools
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from deblur_lab.errors import DivergedError
from deblur_lab.losses import ReconstructionLoss
from deblur_lab.tasks import RestorationTask, warmup_cosine
from deblur_lab.tasks.divergence import Divergence


def checked(losses, gradient, names=(("a",), ("b",)), *, seen=None, **options):
    seen = seen or Divergence(2)
    for loss, samples in zip(losses, names, strict=False):
        seen.noted(torch.tensor(loss), {"l1": torch.tensor(loss)}, samples)
    seen.check([torch.tensor(gradient), torch.zeros(3)], 7, **options)
    return seen


def test_what_is_finite_goes_on_and_is_forgotten():
    seen = checked([1.0, 2.0], [1.0, -1e18])
    checked([1.0], [0.0], seen=seen)


def test_a_loss_is_named_with_its_samples_and_parts_and_no_others():
    with pytest.raises(DivergedError, match=r"^the loss is not finite at step 7, on b: l1 nan$") as caught:
        checked([1.0, math.nan], [math.nan])
    record = caught.value.record
    assert (record["what"], record["rank"], record["step"]) == ("loss", 0, 7)
    assert [batch["samples"] for batch in record["processes"][0]["batches"]] == [["a"], ["b"]]


def test_a_loss_is_found_even_where_the_gradient_is_finite():
    with pytest.raises(DivergedError, match="the loss is not finite"):
        checked([math.inf], [0.0])


def test_a_gradient_is_named_with_all_samples():
    told = r"^the gradient is not finite at step 7, on a, b, while the loss is$"
    with pytest.raises(DivergedError, match=told):
        checked([1.0, 1.0], [0.0, math.inf])


def test_many_samples_are_counted():
    names = [f"{number}.png" for number in range(32)]
    with pytest.raises(DivergedError, match=r"on 0\.png, 1\.png, 2\.png, 3\.png, 4\.png and 27 more:"):
        checked([math.nan], [math.nan], [names])


@pytest.mark.parametrize("value", [1.5, math.inf, math.nan])
def test_a_loss_that_is_not_finite_poisons_the_gradient_for_the_other_devices_to_see(value):
    weight = torch.tensor(1.0, requires_grad=True)
    # Of such a loss the plain gradient may be finite, as here.
    loss = weight + torch.tensor(value)
    Divergence(0).noted(loss, {}, []).backward()
    assert bool(weight.grad.isfinite()) is math.isfinite(value)
    if math.isfinite(value):
        assert weight.grad == 1


def test_gradients_may_overflow_so_many_times_in_a_row():
    seen = checked([1.0], [math.inf], may_overflow=True)
    assert (seen.skipped, seen.skipped_last) == (1, True)
    checked([1.0], [1.0], seen=seen, may_overflow=True)
    assert (seen.skipped, seen.skipped_last) == (1, False)
    for _ in range(2):
        checked([1.0], [math.inf], seen=seen, may_overflow=True)
    with pytest.raises(DivergedError, match=r"overflowed in 3 steps in a row, at last in step 7, on a: try "):
        checked([1.0], [math.inf], seen=seen, may_overflow=True)


class Pixel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward(self, blurry):
        return self.gain * blurry


def fit_in_half_precision(scale, steps, limit=20):
    """Trains with gradients that are scaled up, and scaled back by half when they overflow."""
    task = RestorationTask(
        Pixel(),
        ReconstructionLoss(psnr=0.0, l1=1.0),
        functools.partial(torch.optim.SGD, lr=0.001),
        functools.partial(warmup_cosine, total_steps=100),
        ema_decay=0.5,
        max_skipped_steps=limit,
    )
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))],
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = {"blurry": torch.full((1, 3, 4, 4), 8.0), "sharp": torch.zeros(1, 3, 4, 4), "name": ["a"]}
    trainer.fit(task, DataLoader([batch] * steps, batch_size=None))
    return task, trainer


def test_steps_that_overflow_are_left_out_and_counted_until_the_scale_fits():
    # The slope is 8: scaled by 2^127 it is more than float32 holds, scaled by 2^124 it is not.
    task, trainer = fit_in_half_precision(2.0**127, steps=6)
    assert task.divergence.skipped == trainer.callback_metrics["train/skipped_steps"] == 3
    # Nor does the average follow what was not done.
    assert task.ema.n_averaged == 3
    assert task.net.gain.isfinite().all()
    assert task.net.gain < 1


def test_a_scale_that_never_fits_stops_the_run():
    with pytest.raises(DivergedError, match="overflowed in 3 steps in a row, at last in step 2, on a"):
        fit_in_half_precision(2.0**127, steps=6, limit=2)
