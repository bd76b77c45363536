import numpy as np
import pytest
import torch

from deblur_lab.data.motion import AffineMotion, field
from deblur_lab.pictures.objects import (
    Spread,
    blur_likelihood,
    motion_of,
    moving_likelihood,
    moving_objects,
    regions,
    spread_paths,
)
from tests.pictures.samples import disk, straight


def turning(height=120, width=160):
    """The displacements at start and end of what turns about the middle of the picture."""
    zero = np.zeros(2)
    motion = AffineMotion.rigid(
        np.array([width / 2, height / 2]), shift=zero, bend=zero, turn=0.2, growth=0.0
    )
    ends = [field(motion, instant, width, height).transpose(2, 0, 1) for instant in (-1.0, 1.0)]
    return torch.from_numpy(np.stack(ends))


def test_of_two_instants_paths_are_parabolas_through_the_pixel():
    ends = torch.randn(2, 2, 3, 4)
    paths = motion_of(ends).paths
    np.testing.assert_allclose(paths[[0, -1]], ends, atol=1e-6)
    np.testing.assert_allclose(paths[len(paths) // 2], 0, atol=1e-6)
    curvature = np.diff(paths, n=2, axis=0)
    np.testing.assert_allclose(curvature, np.broadcast_to(curvature[0], curvature.shape), atol=1e-5)


def test_regions_are_counted_from_the_largest_and_specks_are_left_out():
    probability = disk(120, 160, 15)
    probability[:, 90:115, 5:50] = 0.9
    probability[:, 10:12, 10:13] = 0.9
    probability[:, 100:103, 15:18] = 0  # a hole as small
    found = regions(blur_likelihood(probability))
    assert found.total == 2
    assert (found.labels[95:110, 10:45] == 1).all()
    assert found.labels[60, 80] == 2
    assert not found.labels[:30, :30].any()
    np.testing.assert_array_equal(found.likelihood > 0.5, found.labels > 0)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8])
def test_regions_begin_where_the_probability_is_over_the_threshold(threshold):
    ramp = torch.linspace(0, 1, 161).expand(1, 120, 161)
    found = regions(blur_likelihood(ramp), threshold)
    assert found.total == 1
    first = np.argmax(found.labels > 0, axis=1)
    assert np.abs(first - 160 * threshold).max() <= 1
    np.testing.assert_array_equal(found.likelihood > 0.5, found.labels > 0)


def test_what_is_blurred_for_certain_is_as_large_at_any_threshold():
    likelihood = blur_likelihood(disk(120, 160, 30))
    likelihood[5:8, 5:8] = 1  # a speck
    usual = regions(likelihood)
    for threshold in (0.05, 0.5, 0.95):
        found = regions(likelihood, threshold)
        assert found.total == 1
        assert (found.labels != usual.labels).mean() < 0.001


def test_over_no_probability_lies_any_that_is_known_and_over_one_none():
    likelihood = blur_likelihood(0.01 + 0.99 * disk(120, 160, 30))
    likelihood[:, :40] = 0
    everything, nothing = regions(likelihood, 0.0), regions(likelihood, 1.0)
    assert (everything.labels[:, 43:] == 1).all()
    assert not everything.labels[:, :37].any()
    assert nothing.total == 0
    assert not nothing.labels.any()


def test_an_object_is_as_long_and_moves_as_its_pixels_do():
    mask = disk(120, 160, 20)
    motion = motion_of(straight(3.0, 4.0) * mask)
    (thing,) = moving_objects(regions(blur_likelihood(mask)), motion)
    np.testing.assert_allclose(thing.mean_px, (6, 8), atol=1e-4)
    np.testing.assert_allclose(thing.centre_px, (80.5, 60.5), atol=1)
    assert thing.length_px == pytest.approx(10, abs=1e-4)
    assert thing.together


def test_what_turns_about_its_middle_moves_nowhere_as_a_whole():
    mask = disk(120, 160, 40)
    (thing,) = moving_objects(regions(blur_likelihood(mask)), motion_of(turning() * mask))
    assert not thing.together
    assert thing.length_px > 5


def test_what_stands_still_is_no_object_whatever_the_probability():
    mask = disk(120, 160, 40)
    still = motion_of(torch.zeros(9, 2, 120, 160))
    assert moving_objects(regions(blur_likelihood(mask)), still) == []
    assert moving_objects(regions(moving_likelihood(still)), still) == []


def test_objects_that_overlap_are_told_apart_by_their_motion():
    """As on synthetic scenes: one region of blur, and the displacement jumps between two objects in it."""
    mask = torch.zeros(1, 120, 160)
    mask[:, 30:90, 20:140] = 1
    motion = straight(4.0, 0.0) * mask
    motion[..., 70:] = (straight(-2.0, 6.0) * mask)[..., 70:]
    first, second = moving_objects(regions(blur_likelihood(mask)), motion_of(motion))
    np.testing.assert_allclose(first.mean_px, (-4, 12), atol=1e-4)
    np.testing.assert_allclose(second.mean_px, (8, 0), atol=1e-4)


def test_noise_does_not_tear_an_object_apart():
    torch.manual_seed(0)
    mask = disk(120, 160, 40)
    motion = straight(4.0, 1.0) * mask + 0.3 * torch.randn(9, 2, 120, 160)
    (thing,) = moving_objects(regions(blur_likelihood(mask)), motion_of(motion))
    assert np.abs(thing.mean_px - (8, 2)).max() < 0.1


def test_paths_fill_an_object_and_keep_apart():
    mask = disk(120, 160, 40)
    motion = motion_of(straight(4.0, 2.0) * mask)
    objects = moving_objects(regions(blur_likelihood(mask)), motion)
    paths = [path for path, _ in spread_paths(objects, motion, Spread(1.0, 4.0, 10.0))]
    assert 15 < len(paths) < 80
    for number, path in enumerate(paths):
        assert np.hypot(*(path[4] - (80, 60))) < 42
        others = np.concatenate(paths[:number] + paths[number + 1 :])
        assert np.linalg.norm(path[:, None] - others, axis=2).min() > 3
    # No part of it is far from a path.
    points = np.concatenate(paths)
    rows, columns = np.nonzero(mask[0].numpy())
    places = np.stack((columns, rows), axis=1)[::7]
    assert np.linalg.norm(places[:, None] - points, axis=2).min(axis=1).max() < 14


def test_an_object_smaller_than_the_gap_has_one_path():
    mask = disk(120, 160, 4)
    motion = motion_of(straight(1.0, 0.0) * mask)
    objects = moving_objects(regions(blur_likelihood(mask)), motion)
    ((path, path_px),) = spread_paths(objects, motion, Spread(3.0, 12.0, 20.0))
    np.testing.assert_allclose(path[4], (80.5, 60.5), atol=1)
    np.testing.assert_allclose(path[-1] - path[0], 3 * (path_px[-1] - path_px[0]), atol=1e-4)
