"""Simulated motion kernels: what they look like, and that nothing but the seed and the number makes them."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from deblur_lab.data import MotionKernels
from deblur_lab.data.kernels import (
    DrawnKernels,
    KernelKinds,
    connected_shares,
    dequantised,
    render,
    spread,
)
from deblur_lab.errors import ConfigurationError


def drawn(count=256, **settings):
    return KernelKinds(**settings).kernels(np.random.default_rng(0), count)


@pytest.mark.parametrize("side", [5, 11, 19])
def test_kernels_are_not_negative_and_have_sum_1_and_none_reaches_over_the_border(side):
    kernels = drawn(kernel_size_px=side)
    assert kernels.shape == (256, side, side)
    assert kernels.dtype == np.float32
    assert kernels.min() >= 0
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-5)
    paths = KernelKinds(side).paths(np.random.default_rng(0), 256)
    assert np.abs(paths).max() <= side // 2 - 1 + 1e-9
    assert np.abs(paths).max() > 0.9 * (side // 2 - 1), "the largest use what there is"


def test_the_middle_of_a_kernel_is_mid_exposure():
    paths = KernelKinds(11, still=0.1, shaken=0.5).paths(np.random.default_rng(0), 64)
    assert paths.shape[1] % 2 == 1
    assert np.array_equal(paths[:, paths.shape[1] // 2], np.zeros((64, 2)))


def test_of_motion_along_a_line_the_middle_is_the_centroid_too():
    times = np.linspace(-1, 1, 101)[None, :, None]
    kernel = render(times * np.array([3.0, 1.5]), 11)[0]
    rows, columns = np.mgrid[-5:6, -5:6]
    np.testing.assert_allclose([(kernel * rows).sum(), (kernel * columns).sum()], 0, atol=1e-12)
    assert np.abs(kernel - kernel[::-1, ::-1]).max() < 1e-12


def test_light_is_shared_by_the_four_nearest_pixels():
    kernel = render(np.array([[[0.25, -0.5]]]), 5)[0]
    expected = np.zeros((5, 5))
    expected[1:3, 2:4] = [[0.375, 0.125], [0.375, 0.125]]
    np.testing.assert_allclose(kernel, expected)


def test_paths_are_rendered_without_gaps():
    kernels = drawn(kernel_size_px=19, most_spread_px=0.0)
    assert connected_shares(kernels).mean() > 0.98


def test_still_kernels_are_points_and_the_shares_are_kept():
    points = drawn(64, kernel_size_px=11, still=1.0, shaken=0.0, most_spread_px=0.0)
    assert np.array_equal(points[:, 5, 5], np.ones(64))
    paths = KernelKinds(11, still=0.2, shaken=0.3).paths(np.random.default_rng(0), 2000)
    still = np.abs(paths).max((1, 2)) == 0
    # An object's path is a parabola: its third differences vanish.
    straight = np.abs(np.diff(paths, 3, axis=1)).max((1, 2)) < 1e-9
    assert abs(still.mean() - 0.2) < 0.03
    assert abs((straight & ~still).mean() - 0.5) < 0.04


def test_motions_are_of_all_lengths_and_in_all_directions():
    paths = KernelKinds(19, still=0.0, shaken=0.5).paths(np.random.default_rng(0), 2000)
    counts = np.histogram(np.abs(paths).max((1, 2)), bins=8, range=(0, 8))[0]
    assert counts.min() > 0.8 * 2000 / 8
    mean = drawn(4000, kernel_size_px=11).mean(0)
    assert np.abs(mean - mean.T).max() < 0.02
    assert np.abs(mean - mean[::-1]).max() < 0.02


def test_a_point_is_spread_as_wide_as_asked_and_keeps_its_sum():
    point = np.zeros((2, 9, 9))
    point[:, 4, 4] = 1
    wide = spread(point, np.array([0.0, 0.5]))
    assert np.array_equal(wide[0], point[0])
    columns = np.arange(-4, 5)
    assert wide[1].sum() == pytest.approx(1)
    assert (wide[1].sum(0) * columns**2).sum() == pytest.approx(0.25)


def test_noise_leaves_no_zero_and_has_the_mass_asked_for():
    kernels = np.zeros((500, 121), np.float32)
    kernels[:, 60] = 1
    noisy = dequantised(np.random.default_rng(0), kernels, 0.02)
    assert noisy.min() > 0
    np.testing.assert_allclose(noisy.sum(1), 1, atol=1e-5)
    assert 1 - noisy[:, 60].mean() == pytest.approx(0.02, rel=0.05)


def test_what_lies_apart_does_not_count_as_connected():
    kernel = np.zeros((3, 7, 7))
    kernel[:, 1, 1:4] = 0.25
    kernel[1, 2, 4] = 0.25  # diagonally next to it
    kernel[2, 5, 5] = 0.25
    np.testing.assert_allclose(connected_shares(kernel), [1, 1, 0.75])
    assert np.array_equal(connected_shares(np.zeros((1, 5, 5))), [0])


def split(name="train", seed=0, **settings):
    return DrawnKernels(KernelKinds(11), name, count=None, seed=seed, background=0.01, **settings)


def test_a_kernel_is_a_function_of_seed_split_and_number_alone():
    forwards, backwards = split(), split()
    numbers = [0, 255, 256, 257, 1400, 5]
    one = {number: forwards[number]["kernel"] for number in numbers}
    for number in reversed(numbers):
        assert torch.equal(backwards[number]["kernel"], one[number])
    assert not torch.equal(one[0], one[256])
    assert not torch.equal(split("val")[0]["kernel"], one[0])
    assert not torch.equal(split(seed=1)[0]["kernel"], one[0])
    assert forwards.name(5) == forwards[5]["name"] == "train-000000005"


class Reader(L.LightningModule):
    """Notes the batches that it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = {"train": [], "val": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(steps, tmp_path, data=None, **settings):
    module = Reader()
    settings = {"max_steps": steps, "enable_checkpointing": False, **settings}
    resumed = settings.pop("ckpt_path", None)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        check_val_every_n_epoch=None,
        max_epochs=-1,
        default_root_dir=str(tmp_path),
        **settings,
    )
    data = data or MotionKernels(5, batch_size=6, val_kernels=300, test_kernels=10)
    trainer.fit(module, data, ckpt_path=resumed)
    return module, trainer, data


def kernels(batches):
    return torch.cat([batch["kernel"] for batch in batches])


def test_a_resumed_run_goes_on_with_the_kernels_that_come_next(tmp_path):
    whole, _, _ = run(4, tmp_path)
    assert kernels(whole.seen["train"]).shape == (24, 25)
    first, trainer, _ = run(2, tmp_path)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    second, _, _ = run(4, tmp_path, ckpt_path=tmp_path / "two.ckpt")
    both = torch.cat([kernels(first.seen["train"]), kernels(second.seen["train"])])
    assert torch.equal(both, kernels(whole.seen["train"]))


def test_neither_workers_nor_accumulation_change_the_kernels(tmp_path):
    whole, _, _ = run(2, tmp_path)
    workers = MotionKernels(5, batch_size=6, num_workers=2, val_kernels=300, test_kernels=10)
    assert torch.equal(kernels(run(2, tmp_path, workers)[0].seen["train"]), kernels(whole.seen["train"]))
    halves = MotionKernels(5, batch_size=6, micro_batch_size=3, val_kernels=300, test_kernels=10)
    accumulated = run(2, tmp_path, halves, accumulate_grad_batches=2)[0]
    assert torch.equal(kernels(accumulated.seen["train"]), kernels(whole.seen["train"]))


def test_evaluation_sees_each_kernel_once(tmp_path):
    module, trainer, data = run(1, tmp_path, val_check_interval=1)
    assert kernels(module.seen["val"]).shape == (300, 25)
    trainer.test(module, data, verbose=False)
    assert kernels(module.seen["test"]).shape == (10, 25)


def test_processes_share_the_kernels():
    def parts(count, size, world):
        samplers = [_samplers(count, size, rank, world) for rank in range(world)]
        return [list(one) for one in zip(*samplers, strict=True)]

    from deblur_lab.data.kernels import _NumberSampler, _PartSampler

    def _samplers(count, size, rank, world):
        return _NumberSampler(size, rank, world, total_batches=3), _PartSampler(count, size, rank, world)

    for world in (1, 2, 3):
        streams, shares = parts(10, 6 // world, world)
        steps = [sorted(number for part in step for number in part) for step in zip(*streams, strict=True)]
        assert steps == [list(range(start, start + 6)) for start in (0, 6, 12)]
        assert sorted(number for share in shares for batch in share for number in batch) == list(range(10))


def test_it_says_what_it_is_and_has_no_files():
    data = MotionKernels(11, batch_size=6)
    assert "motion kernels of 11x11 px" in data.describe()[0]
    assert data.files_of("train-000000001") == []


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size_px": 10},
        {"kernel_size_px": 3},
        {"still": 0.7, "shaken": 0.5},
        {"most_spread_px": 1.5},
        {"background": 0.0},
        {"batch_size": 1},
        {"seed": -1},
    ],
)
def test_what_is_out_of_range_is_refused(settings):
    with pytest.raises(ConfigurationError, match=f"{list(settings)[-1]}="):
        MotionKernels(**settings)


def test_a_trainer_with_another_accumulation_is_refused(tmp_path):
    data = MotionKernels(5, batch_size=6, micro_batch_size=3)
    with pytest.raises(ConfigurationError, match="accumulate_grad_batches=1"):
        run(1, tmp_path, data)
