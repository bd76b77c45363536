"""The attentions between channels: SFEM, HFSBlock, and the two that take its place, against loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import (
    SFEM,
    TKSA,
    TTSA,
    DifferentialAttention,
    FrequencySelection,
    HFSBlock,
    PredictedTopKAttention,
    TopKAttention,
)
from deblur_lab.models.channel_attention import channel_products
from deblur_lab.models.hfs_block import SparseSelection
from deblur_lab.models.sfem import DifferentialWeight

from .made_up import fill, image

CHANNELS, SIZE = 8, (5, 6)
PARTS = [DifferentialAttention(), FrequencySelection(), TopKAttention(), PredictedTopKAttention()]


def filled(part: nn.Module) -> nn.Module:
    fill(part)
    nn.init.constant_(part.logits.beta, 1.5)
    return part


def made_up(part: nn.Module) -> nn.Module:
    return filled(part).double().eval()


def features_of(seed: int, batch: int = 2) -> torch.Tensor:
    features = image(seed, batch, CHANNELS, *SIZE).double() - 0.3
    return features.contiguous(memory_format=torch.channels_last)


def convolved(part: nn.Module, features: torch.Tensor, count: int) -> np.ndarray:
    """What the two convolutions give, by loops: (B, count, C, P)."""
    point, depth = part.conv1.weight.detach().numpy()[:, :, 0, 0], part.conv2.weight.detach().numpy()[:, 0]
    mixed = np.einsum("oc,bchw->bohw", point, features.numpy())
    mixed += part.conv1.bias.detach().numpy()[:, None, None]
    padded = np.pad(mixed, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros_like(mixed) + part.conv2.bias.detach().numpy()[:, None, None]
    for row, column in np.ndindex(3, 3):
        found += (
            depth[:, row, column, None, None] * padded[:, :, row : row + SIZE[0], column : column + SIZE[1]]
        )
    return found.reshape(len(found), count, CHANNELS, -1)


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def logits_of(query, key, beta, normalize):
    """(c, P) twice to (c, c)."""
    if normalize:
        query = query / np.linalg.norm(query, axis=1, keepdims=True)
        key = key / np.linalg.norm(key, axis=1, keepdims=True)
    return np.array([[np.dot(one, other) / beta for other in key] for one in query])


def projected(part: nn.Module, mixed: np.ndarray) -> np.ndarray:
    """(B, C, P) by the last convolution."""
    weight = part.conv3.weight.detach().numpy()[:, :, 0, 0]
    return np.einsum("oc,bcp->bop", weight, mixed) + part.conv3.bias.detach().numpy()[:, None]


def assert_equals(found: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found.detach().flatten(2), torch.from_numpy(expected), atol=1e-9, rtol=1e-9)


# SFEM


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_sfem_is_equation_2(heads, normalize):
    sfem = made_up(SFEM(CHANNELS, 3, heads=heads, normalize=normalize))
    features = features_of(1)
    vectors = sfem.alpha.vectors.detach().numpy()
    expected, share = [], CHANNELS // heads
    for query_1, key_1, query_2, key_2, value in convolved(sfem, features, 5):
        rows = []
        for head in range(heads):
            part = slice(head * share, (head + 1) * share)
            beta = sfem.logits.beta[head].item()
            dots = [np.dot(vectors[i, head], vectors[i + 1, head]) for i in (0, 2)]
            alpha = math.exp(dots[0]) - math.exp(dots[1]) + 0.8 - 0.6 * math.exp(-0.3 * 2)
            first = logits_of(query_1[part], key_1[part], beta, normalize)
            second = logits_of(query_2[part], key_2[part], beta, normalize)
            for one, other in zip(first, second, strict=True):
                rows.append((softmax(one) - alpha * softmax(other)) @ value[part])
        expected.append(rows)
    assert_equals(sfem(features), projected(sfem, np.array(expected)))


def test_alpha_starts_as_equation_3_says():
    torch.manual_seed(0)
    assert DifferentialWeight(64, 1).alpha_init == pytest.approx(0.2)
    assert DifferentialWeight(64, 2).alpha_init == pytest.approx(0.8 - 0.6 * math.exp(-0.3))
    assert DifferentialWeight(64, 5, alpha_init=0.5).alpha_init == 0.5
    weight = DifferentialWeight(4096, 1)
    assert weight.vectors.std().item() == pytest.approx(0.1, rel=0.02)
    nn.init.zeros_(weight.vectors)
    assert weight().item() == pytest.approx(0.2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_alpha_cannot_overflow(kind):
    weight = DifferentialWeight(64, 1)
    nn.init.constant_(weight.vectors[:2], 100)
    alpha = weight.to(kind)()
    assert alpha.dtype == torch.float32
    assert alpha.to(kind).isfinite()


def test_beta_starts_at_the_root_of_the_channels():
    assert SFEM(16, 1).logits.beta.tolist() == [[[4.0]]]
    assert HFSBlock(32, heads=2).logits.beta.flatten().tolist() == [4.0, 4.0]
    assert SFEM(16, 1, normalize=True).logits.beta.tolist() == [[[1.0]]]


@pytest.mark.parametrize("start", [0.0, -3.0])
def test_beta_at_zero_is_finite(start):
    sfem = SFEM(CHANNELS, 1)
    nn.init.constant_(sfem.logits.beta, start)
    enhanced = sfem(features_of(2).float())
    enhanced.sum().backward()
    assert enhanced.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in sfem.parameters())


def test_sfem_that_is_added_normalises_first():
    sfem = made_up(DifferentialAttention().make(CHANNELS, 2, added=True))
    features = features_of(3)
    normed = sfem.norm(features)
    sfem.norm = None
    expected = features + sfem(normed)
    sfem.norm = made_up(DifferentialAttention().make(CHANNELS, 2, added=True)).norm
    torch.testing.assert_close(sfem(features), expected)


# HFSBlock


@pytest.mark.parametrize("masks", [0, 1, 4, 5])
@pytest.mark.parametrize("masked_as", ["minus_infinity", "zero"])
def test_hfs_block_is_equation_4(masks, masked_as):
    block = made_up(HFSBlock(CHANNELS, masks, masked_as=masked_as))
    features = features_of(4)
    lambdas = block.selection.weights.tolist()
    counts = [CHANNELS * i // (i + 1) for i in range(1, masks + 1)] or [CHANNELS]
    expected = []
    for query, key, value in convolved(block, block.decoupler(features).detach(), 3):
        rows = []
        for row in logits_of(query, key, block.logits.beta.item(), False):
            total = np.zeros(value.shape[1])
            for weight, count in zip(lambdas, counts, strict=True):
                kept = set(np.argsort(-row)[:count])
                other = 0.0 if masked_as == "zero" else -np.inf
                masked = np.array([logit if column in kept else other for column, logit in enumerate(row)])
                total += weight * (softmax(masked) @ value)
            rows.append(total)
        expected.append(rows)
    selected = np.array(expected)
    assert_equals(block(features), features.flatten(2).numpy() + selected)
    block.added = False
    assert_equals(block(features), selected)


def test_masks_keep_the_largest_of_each_row():
    logits = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 0.0]).expand(1, 1, 6, 6)
    selection = SparseSelection([(i, i + 1) for i in (1, 2, 3, 4, 5)], "minus_infinity", 0.2)
    masks = selection.kept(logits)
    assert [sorted(logits[0, 0, 0][mask[0, 0, 0]].tolist(), reverse=True) for mask in masks] == [
        [5, 4, 3], [5, 4, 3, 2], [5, 4, 3, 2], [5, 4, 3, 2], [5, 4, 3, 2, 1],
    ]  # fmt: skip
    one = SparseSelection([(1, 2)], "minus_infinity", 1.0)
    assert one.kept(torch.zeros(1, 1, 1, 1))[0].all(), "one is kept at least"


def test_what_masks_keep_is_told():
    logits = torch.tensor([[math.log(6), math.log(3), 0.0, 0.0]]).expand(1, 1, 4, 4).contiguous()
    found = SparseSelection([(1, 2), (3, 4)], "minus_infinity", 0.5).examined(logits)
    torch.testing.assert_close(found.attention, torch.tensor([[9 / 11, 1.0]]))
    # The last two are equal: both are kept where one is.
    torch.testing.assert_close(found.entries, torch.tensor([[0.5, 1.0]]))
    assert found.weights.tolist() == [0.5, 0.5]


# In its place


def test_tksa_adds_up_four_softmaxes():
    block = made_up(TKSA(CHANNELS))
    features = features_of(5)
    expected = []
    for query, key, value in convolved(block, features, 3):
        rows = []
        for row in logits_of(query, key, block.logits.beta.item(), True):
            total = np.zeros(value.shape[1])
            for weight, count in zip(block.selection.weights.tolist(), (4, 5, 6, 6), strict=True):
                kept = np.argsort(-row)[:count]
                total += weight * (softmax(row[kept]) @ value[kept])
            rows.append(total)
        expected.append(rows)
    change = projected(block, np.array(expected))
    assert_equals(block(features), features.flatten(2).numpy() + change)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_ttsa_keeps_the_share_that_it_predicts(share):
    block = made_up(TTSA(CHANNELS))
    with torch.no_grad():
        block.share[2].weight.zero_()
        block.share[2].bias.fill_(math.log(share / (1 - share)))
    features = features_of(6)
    count = max(1, int(share * CHANNELS))
    expected = []
    for query, key, value in convolved(block, features, 3):
        rows = []
        for row in logits_of(query, key, block.logits.beta.item(), True):
            kept = np.argsort(-row)[:count]
            rows.append(softmax(row[kept]) @ value[kept])
        expected.append(rows)
    change = projected(block, np.array(expected))
    assert_equals(block(features), features.flatten(2).numpy() + change)


# All of them


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("added", [False, True])
def test_gradients_reach_every_parameter(part, added):
    block = filled(part.make(CHANNELS, 1, added))
    features = image(7, 2, CHANNELS, *SIZE).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = block(features)
    assert found.shape == features.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    found.square().sum().backward()
    assert features.grad.is_contiguous(memory_format=torch.channels_last)
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("part", [*PARTS[:3], FrequencySelection(2, heads=2, normalize=True)])
def test_gradients_are_right(part):
    """Of all but TTSA, whose own are not those of what it computes."""
    torch.manual_seed(1)
    block = part.make(8, 1, added=False).double()
    inputs = torch.rand(2, 8, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: block(given), (inputs,))
    names, weights = zip(*block.named_parameters(), strict=True)
    chosen = [i for i, weight in enumerate(weights) if weight.numel() <= 64]

    def of_weights(*changed):
        state = {names[i]: value for i, value in zip(chosen, changed, strict=True)}
        return torch.func.functional_call(block, state, (inputs.detach(),))

    given = [weights[i].detach().clone().requires_grad_() for i in chosen]
    assert torch.autograd.gradcheck(of_weights, given)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_heads_must_divide_the_channels(part):
    with pytest.raises(ConfigurationError, match="heads is 3"):
        type(part)(heads=3).make(CHANNELS, 1, added=True)


@pytest.mark.parametrize(("settings", "named"), [({"masks": -1}, "masks"), ({"masked_as": "0"}, "masked_as")])
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=f"{named} is {settings[named]}"):
        HFSBlock(CHANNELS, **settings)


# Precision


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_are_float32_where_features_are_not(kind):
    """Sums over many pixels pass what float16 holds, and differ by less than what bfloat16 tells apart."""
    query = torch.full((1, 65536, 4), 2.0, dtype=kind)
    key = torch.full((1, 65536, 4), 1.0, dtype=kind)
    key[0, 0, 1] = 2
    with torch.autocast("cpu", torch.bfloat16):
        products = channel_products(query, key)
    assert products.dtype == torch.float32
    assert products[0, 0, 0].tolist() == [131072, 131074, 131072, 131072]


def test_products_keep_no_copy_of_what_they_are_given():
    query = torch.rand(2, 50, 8).bfloat16().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        products = channel_products(query, query)
    assert {tensor.dtype for tensor in saved} == {torch.bfloat16}
    assert {tensor.data_ptr() for tensor in saved} == {query.data_ptr()}
    products.sum().backward()
    assert query.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_autocast_is_close_to_float32(part):
    block = filled(part.make(CHANNELS, 1, added=False)).eval()
    features = image(8, 1, CHANNELS, 16, 16) - 0.5
    expected = block(features)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(features)
    assert (found - expected).norm() < 0.1 * expected.norm()
