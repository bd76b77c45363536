import numpy as np
import pytest
import torch

from deblur_lab.images import quantise, to_levels, to_tensor, to_uint8
from tests.images.test_files import picture


def test_tensors_and_back() -> None:
    image = picture()
    tensor = to_tensor(image)
    assert tensor.shape == (3, 6, 10)
    assert tensor.dtype == torch.float32
    assert tensor[1, 2, 3].item() == pytest.approx(image[2, 3, 1] / 255)
    assert np.array_equal(to_uint8(tensor), image)
    mask = (image[..., 0] > 128).astype(np.uint8)
    assert to_tensor(mask).shape == (1, 6, 10)
    assert np.array_equal(to_tensor(mask)[0].numpy(), mask)
    with pytest.raises(AssertionError):
        to_tensor(image[..., 0])


def test_stored_values_are_clamped_and_rounded() -> None:
    values = torch.tensor(
        [-1.0, 0.0, 0.499 / 255, 0.501 / 255, 254.6 / 255, 2.0, float("inf"), -float("inf")]
    )
    assert to_uint8(values.expand(3, 1, 8))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255, 0]
    with pytest.raises(ValueError, match="not numbers"):
        to_uint8(torch.full((3, 2, 2), float("nan")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_quantise_is_what_a_stored_picture_holds(dtype: torch.dtype) -> None:
    image = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2).to(dtype)
    stored = quantise(image)
    assert stored.dtype == dtype
    assert torch.equal(stored, to_tensor(to_uint8(image)).to(dtype)) or dtype == torch.float64
    assert np.array_equal(to_uint8(stored), to_uint8(image))
    batch = image[None].expand(2, -1, -1, -1)
    assert torch.equal(quantise(batch)[1], stored)


def test_16_bits_survive_the_way_to_the_net_and_back() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    image = np.stack([levels, levels[::-1], np.roll(levels, 7)], axis=1)[None]
    tensor = to_tensor(image)
    assert tensor.dtype == torch.float32
    assert tensor.max() == 1
    assert np.array_equal(to_levels(tensor, np.dtype(np.uint16)), image)
