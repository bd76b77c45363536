"""Learning rates against PyTorch's own cosine, and at their ends."""

import pytest
import torch

from deblur_lab.tasks import warmup_cosine


def rates(scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


def test_without_warmup_it_is_pytorchs_cosine_annealing():
    ours = rates(warmup_cosine(optimizer(), total_steps=40, final_ratio=1e-3), 41)
    oracle = rates(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), 40, eta_min=1e-6), 41)
    assert ours == pytest.approx(oracle, rel=1e-9)
    assert ours[-1] == pytest.approx(1e-6)


def test_warmup_rises_linearly_to_the_peak_and_the_end_stays():
    ours = rates(warmup_cosine(optimizer(), total_steps=20, warmup_steps=4, final_ratio=0.1), 30)
    assert ours[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert ours[20:] == pytest.approx([1e-4] * 10)


@pytest.mark.parametrize("wrong", [{"final_ratio": 1.5}, {"warmup_steps": 10}, {"warmup_steps": -1}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        warmup_cosine(optimizer(), total_steps=10, **wrong)
