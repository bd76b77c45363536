"""Others' weights are found, and the net's size with them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from deblur_lab.errors import CheckpointError
from deblur_lab.models import NAFNet
from deblur_lab.models.published import nafnet_of, weights_of

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = [(4, [1], 1, [1]), (6, [2, 1], 3, [1, 2]), (8, [1, 1, 1, 4], 1, [1, 1, 1, 1])]


def filled(sizes):
    torch.manual_seed(0)
    net = NAFNet(*sizes).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("sizes", SIZES)
def test_the_size_is_found_and_the_net_computes_the_same(sizes):
    net = filled(sizes)
    found = nafnet_of(net.state_dict())
    assert not found.training
    blurry = torch.rand(1, 3, 13, 18)
    assert torch.equal(found(blurry), net(blurry))


def test_the_released_width_32_is_known_by_its_keys_and_shapes():
    shapes = json.loads((GOLDEN / "nafnet_w32_keys.json").read_text())
    net = nafnet_of({key: torch.zeros(shape) for key, shape in shapes.items()})
    assert sum(parameter.numel() for parameter in net.parameters()) == 17_111_907


@pytest.mark.parametrize("container", ["", "params", "params_ema", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "net."])
def test_containers_and_wrappers_are_seen_through(container, prefix):
    state = filled(SIZES[0]).state_dict()
    renamed = {f"{prefix}{key}": value for key, value in state.items()}
    found = weights_of({container: renamed, "iter": 7} if container else renamed)
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_of_two_the_average_is_taken():
    raw, average = filled(SIZES[0]).state_dict(), filled(SIZES[1]).state_dict()
    assert list(weights_of({"params": raw, "params_ema": average})) == list(average)


def test_what_is_no_nafnet_is_described():
    with pytest.raises(CheckpointError, match=r"1 tensors \(conv\.weight \(3, 3\)\) are not a NAFNet's"):
        nafnet_of({"conv.weight": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match=r"0 tensors \(none\)"):
        nafnet_of(weights_of({"epoch": 3}))


def test_what_is_missing_left_over_or_misshapen_is_named():
    state = filled(SIZES[1]).state_dict()
    del state["ending.bias"]
    state["extra"] = torch.zeros(1)
    state["intro.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError) as caught:
        nafnet_of(state)
    message = str(caught.value)
    assert "width 6" in message
    assert "1 tensors missing (ending.bias)" in message
    assert "1 tensors left over (extra)" in message
    assert "1 tensors of another shape (intro.bias)" in message
