import pytest
import torch
import torch.nn.functional as F

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import DownwardFusion, SupervisedAttention

from .made_up import fill, image


def scales(seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features of width 4 at three scales, and the picture."""
    features = [
        image(seed + level, 2, 4 * 2**level, 16 >> level, 24 >> level).contiguous(
            memory_format=torch.channels_last
        )
        for level in range(3)
    ]
    return features, image(seed + 9, 2, 3, 16, 24)


@pytest.mark.parametrize("kernel_size_px", [1, 3])
def test_sam_gates_features_by_the_image_made_of_them(kernel_size_px):
    sam = SupervisedAttention(kernel_size_px).make(4, 3)
    fill(sam)
    features, picture = scales(0)
    fused = sam(features, picture)
    pictures = [picture, F.interpolate(picture, size=(8, 12), mode="area")]
    pictures.append(F.interpolate(picture, size=(4, 6), mode="area"))
    for level, (scale, at_scale) in enumerate(zip(features, pictures, strict=True)):
        restored = sam.images[level](scale) + at_scale
        expected = scale + sam.features[level](scale) * torch.sigmoid(sam.gates[level](restored))
        torch.testing.assert_close(fused[level], expected)


def test_fuse_adds_the_next_finer_scale_to_each_but_the_finest():
    fuse = DownwardFusion().make(4, 3)
    fill(fuse)
    features, picture = scales(20)
    fused = fuse(features, picture)
    assert torch.equal(fused[0], features[0])
    for level in (1, 2):
        convolution, norm = fuse.downs[level - 1]
        down = F.conv2d(features[level - 1], convolution.weight, convolution.bias, stride=2)
        mean, variance = down.mean(1, keepdim=True), down.var(1, unbiased=False, keepdim=True)
        normed = (down - mean) / (variance + norm.eps).sqrt()
        normed = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(fused[level], features[level] + normed)


@pytest.mark.parametrize("maker", [SupervisedAttention(), SupervisedAttention(3), DownwardFusion()])
def test_gradients_and_layout(maker):
    fusion = maker.make(4, 3)
    fill(fusion)
    features, picture = scales(30)
    fused = fusion(features, picture.contiguous(memory_format=torch.channels_last))
    assert all(scale.is_contiguous(memory_format=torch.channels_last) for scale in fused)
    sum(scale.square().sum() for scale in fused).backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_parameters_beside_those_of_table_6():
    """Of three fusions at width 64: the paper has 6.12 M (SAM) and 1.32 M (Fuse); neither is met."""
    with torch.device("meta"):
        counts = [
            3 * sum(parameter.numel() for parameter in maker.make(64, 4).parameters())
            for maker in (SupervisedAttention(1), SupervisedAttention(3), DownwardFusion())
        ]
    assert counts == [1_067_556, 9_561_636, 2_072_448]


def test_sizes_that_have_no_middle_are_refused():
    with pytest.raises(ConfigurationError, match="kernel_size_px is 2"):
        SupervisedAttention(2)
