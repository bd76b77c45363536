import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_lab.ops import pruning
from deblur_lab.ops.costs import count, counting
from deblur_lab.ops.deformable import deformable_depthwise, deformable_depthwise_at, kernel_grid, plan_motion
from deblur_lab.ops.pruning import dilate, plan_mask, pointwise_depthwise

SIZES = [(1, 1, 1), (1, 1, 9), (2, 7, 1), (1, 2, 2), (3, 11, 14)]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks(batch: int, height: int, width: int) -> dict[str, Tensor]:
    empty = torch.zeros(batch, 1, height, width)
    corner, last = empty.clone(), empty.clone()
    corner[:, :, 0, 0] = 1
    last[-1, 0, -1, -1] = 1
    return {
        "empty": empty,
        "full": torch.ones_like(empty),
        "corner": corner,
        "last pixel": last,
        "scattered": (draw(0, *empty.shape) > 0.8).float(),
        "half": (draw(1, *empty.shape) > 0).float(),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", list(masks(1, 1, 1)))
@pytest.mark.parametrize("biased", [True, False])
def test_pruned_convolutions_are_the_dense_ones_at_the_selected_pixels(size, kind, biased, monkeypatch):
    monkeypatch.setattr(pruning, "CHUNK_CPU", 50)  # several chunks, the last of them shorter
    batch, height, width = size
    mask = masks(*size)[kind]
    plan = plan_mask(mask)
    features = draw(2, batch, 5, height, width)
    first, second = draw(3, 8, 5, 1, 1), draw(4, 8, 1, 3, 3)
    biases = (draw(5, 8), draw(6, 8)) if biased else (None, None)
    dense = F.conv2d(F.conv2d(features, first, biases[0]), second, biases[1], padding=1, groups=8)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 5)
    found = pointwise_depthwise(rows, plan, (first, biases[0]), (second, biases[1]))
    wanted = dense.permute(0, 2, 3, 1)[mask[:, 0] > 0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert plan.selected_share == pytest.approx(mask.mean().item())
    assert plan.dilated_share == pytest.approx(dilate(mask).mean().item())


def test_the_dilated_mask_does_not_leak_into_the_next_picture_or_row():
    mask = torch.zeros(2, 1, 4, 5)
    mask[0, 0, 3, 4] = 1
    plan = plan_mask(mask)
    assert plan.selected.tolist() == [19]
    assert plan.dilated.tolist() == [13, 14, 18, 19]
    # Row by row; what is outside the frame is one past the last.
    assert plan.neighbours.flatten().tolist() == [0, 1, 4, 2, 3, 4, 4, 4, 4]


def test_bfloat16_is_the_type_of_the_result():
    mask = masks(1, 6, 7)["half"]
    rows, weights = draw(0, 42, 4), ((draw(1, 8, 4, 1, 1), draw(2, 8)), (draw(3, 8, 1, 3, 3), draw(4, 8)))
    with torch.autocast("cpu", torch.bfloat16):
        found = pointwise_depthwise(rows, plan_mask(mask), *weights)
    assert found.dtype == torch.bfloat16
    precise = pointwise_depthwise(rows, plan_mask(mask), *weights)
    torch.testing.assert_close(found.float(), precise, atol=0.15, rtol=0.05)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected a mask \(B, 1, H, W\), got \(1, 2, 3, 4\)"):
        plan_mask(torch.zeros(1, 2, 3, 4))


@pytest.mark.parametrize("kind", ["empty", "full", "scattered"])
def test_the_deformable_convolution_at_some_pixels_is_the_whole_one_there(kind):
    batch, height, width = 2, 9, 7
    mask = masks(batch, height, width)[kind]
    displacements = 4 * draw(0, batch, 9, 2, height, width) + kernel_grid()[:, :, None, None]
    plan = plan_motion(displacements)
    features, weight, bias = draw(1, batch, 6, height, width), draw(2, 6, 1, 3, 3), draw(3, 6)
    whole = deformable_depthwise(features, plan, weight, bias).permute(0, 2, 3, 1)[mask[:, 0] > 0]
    rows = features.permute(0, 2, 3, 1).reshape(-1, 6)
    found = deformable_depthwise_at(rows, plan.at(plan_mask(mask).selected), weight, bias)
    torch.testing.assert_close(found, whole)


# What is counted


def test_own_operations_say_what_they_cost():
    mask = masks(1, 6, 7)["half"]
    plan, selected = plan_mask(mask), int(mask.sum())
    with counting() as costs:
        pointwise_depthwise(draw(0, 42, 4), plan, (draw(1, 8, 4, 1, 1), None), (draw(2, 8, 1, 3, 3), None))
        motion = plan_motion(kernel_grid()[:, :, None, None].expand(1, 9, 2, 6, 7))
        deformable_depthwise(draw(3, 1, 8, 6, 7), motion, draw(4, 8, 1, 3, 3), None)
        deformable_depthwise_at(draw(5, 42, 8), motion.at(plan.selected), draw(6, 8, 1, 3, 3), None)
    assert costs == {
        "masked depth-wise convolution": 9 * 8 * selected,
        "deformable sampling": 4 * 9 * 8 * (42 + selected),
        "deformable kernel": 9 * 8 * (42 + selected),
    }


def test_counts_end_with_their_context():
    with counting() as outer:
        count("a", 1)
        with counting() as inner:
            count("a", 2)
        count("b", 3)
    count("a", 4)
    assert (outer, inner) == ({"a": 1, "b": 3}, {"a": 2})
