import pytest
import torch

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import KernelEstimator

from .made_up import fill, image


@pytest.fixture(scope="module")
def estimator() -> KernelEstimator:
    estimator = KernelEstimator(5, 4).eval()
    fill(estimator)
    return estimator


@pytest.mark.parametrize("size", [(4, 4), (8, 20)])
def test_every_pixel_has_a_distribution_and_a_doubt(estimator, size):
    mean, sigma = estimator(image(1, 2, 3, *size))
    assert mean.shape == (2, 25, *size)
    assert sigma.shape == (2, 1, *size)
    assert mean.min() >= 0
    torch.testing.assert_close(mean.sum(1), torch.ones(2, *size))
    assert 0 < sigma.min() < sigma.max() < 1


def test_logits_are_what_the_softmax_is_taken_of(estimator):
    blurry = image(2, 1, 3, 8, 8)
    logits, sigma = estimator.logits(blurry)
    mean, same = estimator(blurry)
    torch.testing.assert_close(logits.softmax(1), mean)
    assert torch.equal(sigma, same)


def test_results_are_float32_under_autocast(estimator):
    blurry = image(3, 1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mean, sigma = estimator(blurry)
    assert mean.dtype == sigma.dtype == torch.float32
    expected_mean, expected_sigma = estimator(blurry)
    assert (mean - expected_mean).norm() < 0.05 * expected_mean.norm()
    torch.testing.assert_close(sigma, expected_sigma, atol=0.01, rtol=0)


def test_gradients_reach_every_parameter_and_are_right():
    estimator = KernelEstimator(3, 2).double()
    blurry = image(4, 1, 3, 4, 4).double()
    fill(estimator)
    estimator.double()

    def loss() -> torch.Tensor:
        mean, sigma = estimator(blurry)
        return (mean.square().sum(1, keepdim=True) * sigma).sum()

    loss().backward()
    for name, parameter in estimator.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    # The doubt's head is computed in place: its gradient against the finite difference.
    bias = estimator.Conv_tail["var"][-1].bias
    values = []
    for change in (1e-6, -1e-6):
        with torch.no_grad():
            bias += change
            values.append(loss().item())
            bias -= change
    assert bias.grad.sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [((1, 4), "kernel_size_px is 1"), ((4, 4), "kernel_size_px is 4"), ((5, 0), "estimator_width is 0")],
)
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        KernelEstimator(*settings)
