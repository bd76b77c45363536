from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.decoupler import Decoupler, statistics_kept

from .made_up import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"


def test_low_and_high_are_the_published_ones():
    decoupler = Decoupler(16).eval()
    fill(decoupler)
    features = image(21, 2, 16, 12, 14)
    with np.load(GOLDEN / "decoupler_golden.npz") as golden, torch.no_grad():
        torch.testing.assert_close(
            decoupler.low(features), torch.from_numpy(golden["low"]), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(decoupler(features), torch.from_numpy(golden["high"]), atol=1e-5, rtol=0)


def test_keys_are_the_published_ones():
    assert [key for key in Decoupler(16).state_dict() if "tracked" not in key] == [
        "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "mode"), [((5, 7), "reflect"), ((2, 2), "reflect"), ((1, 1), "replicate")])
def test_low_agrees_with_loops(size, mode):
    """Each group of channels by its own filter."""
    decoupler = Decoupler(6, groups=3).double().eval()
    fill(decoupler)
    features = image(1, 2, 6, *size).double()
    padded = F.pad(features, (1, 1, 1, 1), mode=mode)
    filters = decoupler.filters(features)
    assert filters.shape == (2, 3, 9)
    torch.testing.assert_close(filters.sum(-1), torch.ones(2, 3).double())
    expected = torch.zeros_like(features)
    for sample, channel, row, column in np.ndindex(2, 6, *size):
        window = padded[sample, channel, row : row + 3, column : column + 3]
        expected[sample, channel, row, column] = (window * filters[sample, channel // 2].view(3, 3)).sum()
    torch.testing.assert_close(decoupler.low(features), expected)
    torch.testing.assert_close(decoupler(features), features - expected)


def test_flat_features_have_no_high_frequencies():
    decoupler = Decoupler(8).eval()
    fill(decoupler)
    assert decoupler(torch.full((1, 8, 6, 6), 100.0)).abs().max() < 1e-3


def test_high_frequencies_survive_bfloat16():
    """The filter's sum is 1 in float32, and what it leaves is subtracted before it is rounded."""
    decoupler = Decoupler(8).eval()
    fill(decoupler)
    features = 30 + image(2, 1, 8, 16, 16)
    expected = decoupler(features)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(decoupler(features), expected, atol=1e-4, rtol=0)


def test_features_stay_channels_last():
    decoupler = Decoupler(8)
    features = image(3, 2, 8, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    high = decoupler(features)
    assert high.is_contiguous(memory_format=torch.channels_last)
    high.square().sum().backward()
    assert features.grad.is_contiguous(memory_format=torch.channels_last)


def test_gradients():
    decoupler = Decoupler(4, groups=2).double()
    features = image(4, 2, 4, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(decoupler, (features,))


def test_statistics_follow_a_batch_once():
    torch.manual_seed(0)
    decoupler, features = Decoupler(8), image(5, 3, 8, 6, 6)
    first = decoupler(features)
    buffers = {name: buffer.clone() for name, buffer in decoupler.named_buffers()}
    assert buffers["bn.num_batches_tracked"] == 1
    assert buffers["bn.running_mean"].any()
    with statistics_kept(torch.nn.Sequential(decoupler)):
        torch.testing.assert_close(decoupler(features), first, atol=0, rtol=0)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in decoupler.named_buffers())
    decoupler(features)
    assert decoupler.bn.num_batches_tracked == 2


def test_one_picture_is_normalised_by_the_running_statistics():
    decoupler = Decoupler(8)
    fill(decoupler)
    features = image(6, 1, 8, 6, 6)
    trained = decoupler(features)
    assert decoupler.bn.num_batches_tracked == 0
    assert torch.equal(trained, decoupler.eval()(features))


@pytest.mark.parametrize(
    ("settings", "named"), [({"channels": 12}, "12 channels"), ({"size_px": 2}, "size_px is 2")]
)
def test_impossible_sizes_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        Decoupler(**{"channels": 8, **settings})
