import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError, DivergedError, MachineError
from deblur_lab.images import tiles, to_tensor
from deblur_lab.models.layers import AveragePool
from deblur_lab.restoring import Restorer, converter, device_named
from tests.nets import Fade, small_m2aenet, small_nafnet

CPU = torch.device("cpu")


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with edges and texture, dark at the left and bright at the right."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = 30 + 170 * x / width + 25 * np.sin(x / 9) * np.sin(y / 13)
    base += 40 * ((x // 61 + y // 47) % 2)
    colours = base[..., None] * np.array([1, 0.8, 0.6]) + rng.normal(0, 4, (height, width, 3))
    return colours.clip(0, 255).astype(np.uint8)


def whole(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """What a net makes of a picture at once, clamped, (H, W, 3) in levels of 255, not rounded."""
    with torch.no_grad():
        return net(to_tensor(pixels)[None])[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255


# Tiles


def mean_difference(restorer: Restorer, pixels: np.ndarray, expected: np.ndarray) -> float:
    """From what is expected, in levels of 255."""
    made = restorer.restore_tensor(to_tensor(pixels)[None])[0].permute(1, 2, 0).numpy() * 255
    return float(np.abs(made - expected).mean())


@pytest.mark.parametrize(("make", "at_most"), [(small_nafnet, 0.1), (small_m2aenet, 0.8)])
def test_tiles_are_restored_as_the_whole_is(make, at_most, monkeypatch):
    net, pixels = make(), scene(331, 450)
    at_once = whole(net, pixels)
    assert np.abs(at_once - pixels).mean() > 10  # or there would be nothing to differ in
    restorer = Restorer(net, CPU, tile_px=160, overlap_px=64)
    assert mean_difference(restorer, pixels, at_once) < at_most
    # Off the grid on which the net halves the resolution, it is another picture.
    monkeypatch.setattr(tiles, "ALIGNMENT_PX", 1)
    assert mean_difference(restorer, pixels, at_once) > 1.5


class _Averaging(nn.Module):
    """Divides by what it averages over the whole picture: brightness, and then contrast."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.first, self.second = pool, type(pool)(*([1] if isinstance(pool, nn.AdaptiveAvgPool2d) else []))

    def forward(self, blurry: Tensor) -> Tensor:
        even = blurry - self.first(blurry)
        return 0.5 + 0.2 * even / self.second(even.square()).sqrt()


def _steps(restorer: Restorer, blurry: Tensor, at_once: Tensor) -> tuple[Tensor, Tensor]:
    """How the difference to the whole changes from each column to the next, in seams and elsewhere."""
    difference = (restorer.restore_tensor(blurry) - at_once)[0] * 255
    steps = difference.diff(dim=-1).abs().mean(dim=(0, 1))
    in_seams = torch.zeros(len(steps), dtype=torch.bool)
    stretches = tiles._stretches(blurry.shape[-1], restorer.tile_px, max(restorer.overlap_px, 2))
    for stretch in stretches:
        mixed = ((stretch.weights > 0) & (stretch.weights < 1))[:-1]
        in_seams[stretch.start : stretch.start + len(mixed)] |= mixed
    assert len(stretches) > 2
    assert 0 < in_seams.sum() < 0.6 * len(steps)
    return steps[in_seams], steps[~in_seams]


def test_seams_cannot_be_told_from_the_rest(monkeypatch):
    net, blurry = small_nafnet(), to_tensor(scene(200, 600))[None]
    with torch.no_grad():
        at_once = net(blurry).clamp(0, 1)
    in_seams, elsewhere = _steps(Restorer(net, CPU, tile_px=256, overlap_px=64), blurry, at_once)
    assert in_seams.max() < 0.3
    assert in_seams.mean() < 3 * elsewhere.mean()
    # The picture itself has steps of many levels.
    assert (at_once[0] * 255).diff(dim=-1).abs().mean() > 5
    # And the measure sees the seams of tiles that have averages of their own and are not blended.
    net = _Averaging(AveragePool())
    monkeypatch.setattr("deblur_lab.restoring._averages_all", lambda module: False)
    in_seams, elsewhere = _steps(
        Restorer(net, CPU, tile_px=256, overlap_px=0), blurry, net(blurry).clamp(0, 1)
    )
    assert in_seams.max() > 10
    assert in_seams.max() > 2 * elsewhere.max()


@pytest.mark.parametrize("pool", [AveragePool, lambda: nn.AdaptiveAvgPool2d(1)])
def test_averages_are_those_of_the_whole_picture(pool, monkeypatch):
    net, pixels = _Averaging(pool()), scene(300, 400)
    at_once = whole(net, pixels)
    restorer = Restorer(net, CPU, tile_px=128, overlap_px=32)
    assert mean_difference(restorer, pixels, at_once) < 5
    monkeypatch.setattr("deblur_lab.restoring._averages_all", lambda module: False)
    assert mean_difference(restorer, pixels, at_once) > 25


def test_a_picture_that_fits_into_a_tile_is_restored_at_once():
    net = small_m2aenet()
    for size in ((1, 1), (7, 5), (64, 50)):
        pixels = scene(*size)
        shares = []
        made = Restorer(net, CPU, tile_px=64, overlap_px=16).restore(pixels, shares.append)
        assert np.array_equal(made, whole(net, pixels).round().astype(np.uint8))
        assert shares == [1]


def test_progress_goes_from_the_first_sample_to_the_last_tile():
    shares = []
    Restorer(small_nafnet(), CPU, tile_px=64, overlap_px=0).restore(scene(64, 256), shares.append)
    assert shares == sorted(shares)
    assert len(shares) == 2 * 4 + 4
    assert shares[-1] == 1


def test_16_bits_keep_their_levels():
    ramp = np.linspace(0, 65535, 9000).astype(np.uint16)
    pixels = np.broadcast_to(ramp.reshape(90, 100, 1), (90, 100, 3))
    assert np.array_equal(Restorer(nn.Identity(), CPU, tile_px=48, overlap_px=16).restore(pixels), pixels)
    faded = Restorer(Fade(), CPU).restore(pixels)
    assert np.abs(faded - (pixels * 0.5 + 65535 / 4)).max() <= 0.51
    assert len(np.unique(faded)) > 8000


def test_a_tensor_comes_back_as_it_was():
    blurry = torch.rand(1, 3, 40, 50, dtype=torch.float64, requires_grad=True)
    made = Restorer(Fade(), CPU, tile_px=32, overlap_px=8).restore_tensor(blurry)
    assert made.dtype == torch.float64
    assert not made.requires_grad
    assert not made.is_inference()
    assert (made - (0.5 * blurry + 0.25)).abs().max() < 1e-6


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(0, 0), (10, 5), (10, -1)])
def test_tiles_that_cannot_be_are_refused(tile_px, overlap_px):
    with pytest.raises(
        ConfigurationError, match=f"tile_px={tile_px}, overlap_px={overlap_px}: tiles of over"
    ):
        Restorer(Fade(), CPU, tile_px=tile_px, overlap_px=overlap_px)


# Memory


def _of_cuda() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _of_the_cpu() -> Exception:
    words = (
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
    )
    return RuntimeError(words)


class _Greedy(nn.Module):
    """Needs more memory than there is for tiles above a size."""

    def __init__(self, fits_px: int, error) -> None:
        super().__init__()
        self.fits_px = fits_px
        self.error = error
        self.tried = []
        self.alive_when_tried = []
        self._kept = []

    def forward(self, blurry: Tensor) -> Tensor:
        self.alive_when_tried.append(any(kept() is not None for kept in self._kept))
        features = blurry.repeat(1, 4, 1, 1)  # what a traceback would keep alive
        self._kept.append(weakref.ref(features))
        self.tried.append(max(blurry.shape[-2:]))
        if self.tried[-1] > self.fits_px:
            raise self.error()
        return blurry


@pytest.mark.parametrize("error", [_of_cuda, _of_the_cpu])
def test_tiles_that_do_not_fit_are_halved_and_stay_so(error):
    net, said = _Greedy(100, error), []
    restorer = Restorer(net, CPU, tile_px=400, overlap_px=60, say=said.append)
    pixels = scene(130, 500)
    assert np.array_equal(restorer.restore(pixels), pixels)
    assert net.tried[:3] == [400, 200, 100]
    assert set(net.tried[2:]) <= set(range(37, 101))
    assert not any(net.alive_when_tried)
    assert (restorer.tile_px, restorer.overlap_px) == (100, 15)
    assert said == [
        "tiles of 400 px do not fit into memory: from here on they are 100 px, with overlap_px=15"
    ]
    # The next photo begins with what fitted, and nothing is said again.
    net.tried.clear()
    assert np.array_equal(restorer.restore(pixels), pixels)
    assert max(net.tried) == 100
    assert len(said) == 1


def test_a_picture_smaller_than_a_tile_may_not_fit_either():
    net, said = _Greedy(90, _of_the_cpu), []
    restorer = Restorer(net, CPU, tile_px=1024, overlap_px=128, say=said.append)
    pixels = scene(150, 170)
    assert np.array_equal(restorer.restore(pixels), pixels)
    assert net.tried[0] == 170
    assert said == ["tiles of 170 px do not fit into memory: from here on they are 85 px, with overlap_px=10"]


def test_where_nothing_fits_it_is_said_what_was_used():
    net = _Greedy(63, _of_cuda)
    with pytest.raises(
        MachineError, match=r"a tile of 100 px does not fit; at most .* GiB of main memory was"
    ):
        Restorer(net, CPU, tile_px=400, overlap_px=60).restore(scene(130, 500))
    assert net.tried == [400, 200, 100]


def test_other_errors_are_not_taken_for_it():
    def fault() -> Exception:
        return RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="of ours"):
        Restorer(_Greedy(1, fault), CPU).restore(scene(20, 20))


# What the net says


def test_what_a_net_says_is_kept_reduced(monkeypatch):
    net, pixels = small_m2aenet(), scene(130, 200)
    with torch.no_grad():
        _, probability, motion, *_ = net.explain(to_tensor(pixels)[None])
    at_once = Restorer(net, CPU).explain(pixels)
    assert at_once.reduction == 1
    assert np.array_equal(at_once.pixels, Restorer(net, CPU).restore(pixels))
    assert torch.allclose(at_once.probability, probability[0], atol=1e-6)
    assert torch.allclose(at_once.motion, motion[0], atol=1e-5)
    monkeypatch.setattr("deblur_lab.restoring.EXPLAINED_PX", 70)
    reduced = Restorer(net, CPU).explain(pixels)
    assert reduced.reduction == 3
    assert reduced.probability.shape == (1, 44, 67)
    assert reduced.motion.shape == (9, 2, 44, 67)
    assert np.array_equal(reduced.pixels, at_once.pixels)
    inner = torch.nn.functional.avg_pool2d(motion[0], 3)
    assert torch.allclose(reduced.motion[..., :43, :66], inner, atol=1e-4)
    # At the right and the bottom stand the means of what is left.
    assert torch.allclose(reduced.probability[0, -1, 0], probability[0, 0, 129, :3].mean(), atol=1e-5)
    assert torch.allclose(reduced.probability[0, 0, -1], probability[0, 0, :3, 198:].mean(), atol=1e-5)
    in_tiles = Restorer(net, CPU, tile_px=96, overlap_px=32).explain(pixels)
    assert in_tiles.probability.shape == (1, 44, 67)
    assert (in_tiles.probability - reduced.probability).abs().mean() < 0.02


def test_a_net_of_damaged_weights_is_told():
    class Broken(nn.Module):
        def forward(self, blurry: Tensor) -> Tensor:
            return blurry / 0

    with pytest.raises(DivergedError, match="not finite"):
        Restorer(Broken(), CPU).restore(scene(8, 8))


def test_a_net_is_left_in_the_mode_that_it_was_in():
    net = nn.Sequential(Fade(), nn.Dropout(0.9))
    net[1].train()
    net.training = False
    pixels = scene(8, 8)
    assert np.array_equal(Restorer(net, CPU).restore(pixels), Restorer(Fade(), CPU).restore(pixels))
    assert (net.training, net[0].training, net[1].training) == (False, True, True)


# The converter, the device


def test_the_converter_is_on_for_as_long_as_it_is_asked_for():
    net, pixels = small_m2aenet(), scene(96, 192)
    off = Restorer(net, CPU).restore(pixels)
    with converter(net, 32):
        on = Restorer(net, CPU).restore(pixels)
    assert np.abs(on.astype(int) - off).mean() > 0.5
    assert np.array_equal(Restorer(net, CPU).restore(pixels), off)
    # A net that comes with its converter on keeps it.
    net.set_tlc(32)
    with converter(net, 64):
        pass
    assert np.array_equal(Restorer(net, CPU).restore(pixels), on)
    with (
        pytest.raises(ConfigurationError, match="tlc=on: Fade has no test-time local converter"),
        converter(Fade(), 32),
    ):
        pass


def test_devices():
    assert device_named("cpu") == CPU
    for name in ("gpu", "", "cpu:x"):
        with pytest.raises(ConfigurationError, match=f"device={name}: auto, cpu or cuda is expected"):
            device_named(name)
    if not torch.cuda.is_available():
        assert device_named("auto") == CPU
        with pytest.raises(MachineError, match="device=cuda cannot be used here"):
            device_named("cuda")
