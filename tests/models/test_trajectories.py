import pytest
import torch

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import LearnableTrajectory, LinearTrajectory, QuadraticTrajectory

from .made_up import image

ENDS = [QuadraticTrajectory(), LinearTrajectory()]
ALL = [*ENDS, LearnableTrajectory(), LearnableTrajectory(4)]


def one_pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


@pytest.mark.parametrize("trajectory", ENDS)
@pytest.mark.parametrize("instants", [2, 3, 5, 9, 15, 30])
def test_middle_is_zero_and_ends_are_the_predicted_ones(trajectory, instants):
    raw = 20 * image(0, 2, 4, 3, 5) - 10
    path = trajectory(raw, instants)
    assert path.shape == (2, instants, 2, 3, 5)
    torch.testing.assert_close(path[:, 0], raw[:, :2])
    torch.testing.assert_close(path[:, -1], raw[:, 2:])
    if instants % 2:
        assert torch.equal(path[:, instants // 2], torch.zeros(2, 2, 3, 5))


def test_quadratic_by_hand():
    # Start (-1, 4), end (3, 0): half their sum is (1, 2), half their difference (2, -2).
    path = QuadraticTrajectory()(one_pixel(-1, 4, 3, 0), 5).flatten(2)[0]
    expected = [[-1, 4], [0.25 - 1, 0.5 + 1], [0, 0], [0.25 + 1, 0.5 - 1], [3, 0]]
    torch.testing.assert_close(path, torch.tensor(expected))


def test_linear_by_hand():
    path = LinearTrajectory()(one_pixel(-1, 4, 3, 0), 5).flatten(2)[0]
    torch.testing.assert_close(path, torch.tensor([[-1, 4], [-0.5, 2], [0, 0], [1.5, 0], [3, 0]]))


def test_linear_and_quadratic_agree_at_constant_velocity():
    raw = image(1, 1, 2, 4, 4)
    raw = torch.cat([-raw, raw], dim=1)
    torch.testing.assert_close(LinearTrajectory()(raw, 9), QuadraticTrajectory()(raw, 9))


def test_learnable_takes_its_own_instants_as_they_are():
    raw = image(2, 2, 18, 3, 4)
    path = LearnableTrajectory(9)(raw, 9)
    for instant in range(9):
        assert torch.equal(path[:, instant], raw[:, 2 * instant : 2 * instant + 2])


def test_learnable_interpolates_linearly_in_time():
    raw = one_pixel(0, 10, 6, -2, 8, 0)  # (0, 10), (6, -2), (8, 0)
    path = LearnableTrajectory(3)(raw, 5).flatten(2)[0]
    torch.testing.assert_close(path, torch.tensor([[0.0, 10], [3, 4], [6, -2], [7, -1], [8, 0]]))
    two = LearnableTrajectory(3)(raw, 2).flatten(2)[0]
    assert torch.equal(two, torch.tensor([[0.0, 10], [8, 0]]))
    four = LearnableTrajectory(3)(raw, 4).flatten(2)[0]
    torch.testing.assert_close(four, torch.tensor([[0.0, 10], [4, 2], [20 / 3, -4 / 3], [8, 0]]))


@pytest.mark.parametrize("trajectory", ALL)
def test_channels_are_what_it_takes_and_gradients_flow(trajectory):
    raw = image(3, 1, trajectory.channels, 2, 2).requires_grad_()
    trajectory(raw, 7).square().sum().backward()
    assert raw.grad is not None
    assert (raw.grad != 0).all()


def test_learnable_channels():
    assert [LearnableTrajectory(n).channels for n in (2, 9)] == [4, 18]


@pytest.mark.parametrize("trajectory", ALL)
def test_one_instant_is_refused(trajectory):
    with pytest.raises(ConfigurationError, match="instants is 1"):
        trajectory(image(4, 1, trajectory.channels, 2, 2), 1)


def test_learnable_with_one_instant_is_refused():
    with pytest.raises(ConfigurationError, match="instants is 1"):
        LearnableTrajectory(1)
