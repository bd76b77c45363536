"""Synthetic scenes: what is rendered is what the masks and the displacements say."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from kornia.color import rgb_to_linear_rgb

from deblur_lab.data.light import SensorNoise, to_light, to_srgb
from deblur_lab.data.motion import AffineMotion, blur_lengths, displacement, field
from deblur_lab.data.photographs import PHOTOGRAPHS, Picture, dead_leaves, pictures, read_photograph
from deblur_lab.data.scenes import (
    CameraShake,
    Exposure,
    LocalMotion,
    Mixture,
    MovingObject,
    expose,
)
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.ops.splatting import reblur

SILENT = SensorNoise(read=0.0, full_well_electrons=1e12)
INSTANTS = np.linspace(-1, 1, 31)


def make(kind, seed, width_px=128, height_px=128, split="train"):
    return kind.scene("a scene", np.random.default_rng([7, seed]), pictures(split), width_px, height_px)


def moved(rng, motion, height_px=40, width_px=50):
    """An object of random colours with a soft round outline, in the middle of a scene of 120 x 100 pixels."""
    y, x = np.mgrid[:height_px, :width_px]
    opacity = np.clip(15 - np.hypot(x - (width_px - 1) / 2, y - (height_px - 1) / 2), 0, 1)
    colours = cv2.GaussianBlur(rng.random((height_px, width_px, 3)), (0, 0), 2)
    layer = np.dstack([colours * opacity[..., None], opacity]).astype(np.float32)
    return MovingObject(layer, 35, 30, motion)


def random_motion(rng, centre=(60.0, 50.0)):
    return AffineMotion.rigid(
        np.array(centre),
        shift=rng.uniform(-8, 8, 2),
        bend=rng.uniform(-3, 3, 2),
        turn=rng.uniform(-0.15, 0.15),
        growth=rng.uniform(-0.05, 0.05),
    )


# Light


def test_light_follows_the_srgb_curve_and_comes_back_exactly():
    values = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    light = to_light(values)
    expected = rgb_to_linear_rgb(torch.from_numpy(values).permute(2, 0, 1)[None].double() / 255)
    np.testing.assert_allclose(light, expected[0].permute(1, 2, 0).numpy(), atol=1e-6)
    np.testing.assert_array_equal(to_srgb(light), values)
    np.testing.assert_array_equal(to_srgb(np.float32([-1.0, 2.0])), [0, 255])


def test_noise_has_the_variance_that_is_stated():
    noise = SensorNoise(read=0.01, full_well_electrons=1000)
    for level in (0.0, 0.5):
        light = np.full((400, 400, 1), level, np.float32)
        noisy = noise.add(np.random.default_rng(0), light)
        assert noisy.dtype == np.float32
        assert noisy.mean() == pytest.approx(level, abs=4e-4)
        assert noisy.var() == pytest.approx(0.01**2 + level / 1000, rel=0.02)


# Motion


def test_paths_of_objects_are_parabolas_close_to_a_rigid_motion():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (200, 2))
    motion = random_motion(rng)
    start, end = displacement(motion, -1, points), displacement(motion, 1, points)
    for time in INSTANTS:
        parabola = (end - start) / 2 * time + (end + start) / 2 * time**2
        np.testing.assert_allclose(displacement(motion, time, points), parabola, atol=1e-10)

    # A turn by a and nothing else is a rotation, but for a**3 / 6 at each pixel of distance.
    turn = 0.2
    turning = AffineMotion.rigid(np.zeros(2), shift=np.zeros(2), bend=np.zeros(2), turn=turn, growth=0.0)
    around = 45 * np.column_stack([np.cos(points[:, 0]), np.sin(points[:, 0])])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    error = displacement(turning, 1, around) - (around @ rotation.T - around)
    assert np.linalg.norm(error, axis=1).max() < 0.07


@pytest.mark.parametrize("size", [(128, 128), (320, 240)])
def test_paths_of_a_shaken_camera_are_nearly_parabolas(size):
    from deblur_lab.data.scenes import _shake_motion

    errors = []
    points = np.stack(np.meshgrid(*(np.linspace(0, side - 1, 5) for side in size)), axis=-1)
    for seed in range(100):
        motion = _shake_motion(np.random.default_rng(seed), *size, blur_px=20.0)
        assert blur_lengths(motion, points).max() == pytest.approx(20.0, abs=0.2)
        start, end = displacement(motion, -1, points), displacement(motion, 1, points)
        for time in (-0.5, 0.5):
            parabola = (end - start) / 2 * time + (end + start) / 2 * time**2
            errors.append(np.linalg.norm(displacement(motion, time, points) - parabola, axis=-1).max())
    assert max(errors) < 0.2
    assert np.mean(errors) < 0.05


def test_a_field_is_the_displacement_of_every_pixel():
    motion = random_motion(np.random.default_rng(1))
    y, x = np.mgrid[:30, :40]
    expected = displacement(motion, 0.7, np.dstack([x, y]).astype(float))
    np.testing.assert_allclose(field(motion, 0.7, 40, 30), expected, atol=1e-5)


@pytest.mark.parametrize("time", [-1.0, 0.4, 1.0])
def test_objects_are_rendered_where_their_motion_says(time):
    rng = np.random.default_rng(2)
    for _ in range(5):
        motion = random_motion(rng)
        y, x = np.mgrid[:100, :120].astype(float)
        spot = np.exp(-((x - 63) ** 2 + (y - 41) ** 2) / 8)
        thing = MovingObject(np.dstack([spot] * 4).astype(np.float32), 0, 0, motion)
        seen = thing.at(time, 0, 0, 120, 100)[..., 3]
        place = np.array([(seen * x).sum(), (seen * y).sum()]) / seen.sum()
        expected = np.array([63, 41]) + displacement(motion, time, np.array([63.0, 41.0]))
        # The spot turns and grows about its own middle: its centroid is where the middle went.
        np.testing.assert_allclose(place, expected, atol=0.05)


# Exposure


def test_an_exposure_is_the_mean_of_its_instants_with_hidden_parts_hidden():
    rng = np.random.default_rng(3)
    background = rng.random((100, 120, 3)).astype(np.float32)
    objects = [moved(rng, random_motion(rng)) for _ in range(3)]
    times = Exposure(instants=9).times(5.0)
    sharp, blurry, mask, start, end = expose(background, objects, times)

    frames, opacities = [], []
    for time in times:
        frame, clear = background.astype(np.float64), np.ones((100, 120, 1))
        for thing in objects:
            layer = thing.at(time, 0, 0, 120, 100).astype(np.float64)
            frame = frame * (1 - layer[..., 3:]) + layer[..., :3]
            clear = clear * (1 - layer[..., 3:])
        frames.append(frame)
        opacities.append(1 - clear[..., 0])
    np.testing.assert_allclose(blurry, np.mean(frames, axis=0), atol=2e-6)
    np.testing.assert_allclose(sharp, frames[4], atol=2e-6)
    np.testing.assert_array_equal(mask, np.max(opacities, axis=0) > 0.02)

    tops = [thing.at(0.0, 0, 0, 120, 100)[..., 3] >= 0.5 for thing in objects]
    for displacements, time in ((start, -1.0), (end, 1.0)):
        expected = np.zeros((100, 120, 2))
        for thing, top in zip(objects, tops, strict=True):
            expected[top] = field(thing.motion, time, 120, 100)[top]
        np.testing.assert_array_equal(displacements, expected.astype(np.float32))


def test_mid_exposure_is_one_of_the_instants_and_steps_are_at_most_a_pixel():
    assert len(Exposure().times(10.0)) == 31
    for blur_px in (3.0, 31.5, 80.0):
        times = Exposure().times(blur_px)
        assert times[len(times) // 2] == 0.0
        assert (times[0], times[-1]) == (-1.0, 1.0)
        assert np.ptp(np.diff(times)) < 1e-12
        assert blur_px / (len(times) - 1) <= 1.0


# Scenes


@pytest.mark.parametrize("seed", range(6))
def test_local_scenes_are_blurred_where_their_mask_says_and_nowhere_else(seed):
    kind = LocalMotion(min_blur_px=3.0, max_blur_px=16.0, exposure=Exposure(noise=SILENT))
    scene = make(kind, seed, 144, 96)
    assert scene.blurry.shape == scene.sharp.shape == (96, 144, 3)
    assert scene.blurry.dtype == scene.sharp.dtype == scene.mask.dtype == np.uint8
    assert scene.start.dtype == scene.end.dtype == np.float32
    assert set(np.unique(scene.mask)) == {0, 1}
    assert 0.01 < scene.mask.mean() < 0.9

    difference = np.abs(scene.blurry.astype(int) - scene.sharp)
    # Beside the mask is at most the outermost of a soft outline, 2 % of it at the instants that it is there.
    assert difference[scene.mask == 0].max() <= 20
    assert difference[cv2.dilate(scene.mask, np.ones((5, 5), np.uint8)) == 0].max() <= 1
    assert difference[scene.mask == 1].mean() > 1

    ways = np.linalg.norm(scene.start, axis=2) + np.linalg.norm(scene.end, axis=2)
    assert not ways[scene.mask == 0].any()
    assert ways.max() <= 16.05
    assert ways[ways > 0].min() >= 0.5


def test_blur_is_as_long_as_asked_and_every_point_of_an_object_moves():
    from deblur_lab.data.scenes import _object_motion, _outline

    for seed in range(200):
        rng = np.random.default_rng(seed)
        outline = _outline(rng, 25.0) + 60
        reach = float(np.linalg.norm(outline - outline.mean(axis=0), axis=1).max())
        ways = blur_lengths(_object_motion(rng, outline.mean(axis=0), reach, outline, 12.0), outline)
        assert ways.max() == pytest.approx(12.0, abs=0.01)
        assert ways.min() >= 12.0 / 4


def test_a_shaken_scene_is_blurred_all_over():
    scene = make(CameraShake(min_blur_px=8, max_blur_px=12), 0, 96, 80)
    assert scene.mask.shape == scene.start.shape[:2] == (80, 96)
    assert scene.mask.all()
    ways = np.linalg.norm(scene.start, axis=2) + np.linalg.norm(scene.end, axis=2)
    assert 8 <= ways.max() <= 12.1


def test_a_scene_as_small_as_allowed_can_be_made():
    for kind in (LocalMotion(), CameraShake()):
        assert make(kind, 0, 16, 16).blurry.shape == (16, 16, 3)


def psnr_db(first, second, mask):
    error = ((first - second) ** 2).mean(1, keepdim=True)
    return float(-10 * torch.log10(error[mask > 0].mean()))


@pytest.mark.parametrize(
    ("kind", "in_light", "gain_db"),
    [
        (LocalMotion(), True, 5.0),
        (LocalMotion(), False, 3.5),
        (LocalMotion(exposure=Exposure(in_light=False)), False, 5.0),
        (CameraShake(), True, 12.0),
        (CameraShake(), False, 6.0),
    ],
    ids=["local", "local-in-srgb", "local-averaged-in-srgb", "shake", "shake-in-srgb"],
)
def test_the_true_displacements_rebuild_the_blurry_picture_from_the_sharp_one(kind, in_light, gain_db):
    """31 instants of the parabolas through the true ends, splatted (M2AENet, eq. 4 and 11)."""
    gains = []
    times = torch.linspace(-1, 1, 31).view(1, -1, 1, 1, 1)
    for seed in range(8):
        scene = make(kind, seed)
        convert = to_light if in_light else (lambda values: values.astype(np.float32) / 255)
        blurry, sharp = (
            torch.from_numpy(convert(image)).permute(2, 0, 1)[None] for image in (scene.blurry, scene.sharp)
        )
        start, end = (
            torch.from_numpy(side).permute(2, 0, 1)[None, None] for side in (scene.start, scene.end)
        )
        rebuilt, valid = reblur(sharp, (end - start) / 2 * times + (end + start) / 2 * times**2)
        mask = torch.from_numpy(scene.mask)[None, None] * valid
        gains.append(psnr_db(rebuilt, blurry, mask) - psnr_db(sharp, blurry, mask))
    assert np.mean(gains) > gain_db
    assert min(gains) > 0


def test_the_wrong_way_round_rebuilds_worse():
    """The signs of x and y count: with one of them flipped the parabolas no longer fit."""
    right, flipped = [], []
    times = torch.linspace(-1, 1, 31).view(1, -1, 1, 1, 1)
    for seed in range(4):
        scene = make(CameraShake(), seed)
        blurry, sharp = (
            torch.from_numpy(to_light(image)).permute(2, 0, 1)[None] for image in (scene.blurry, scene.sharp)
        )
        for signs, scores in (((1, 1), right), ((1, -1), flipped)):
            start, end = (
                torch.from_numpy(side * np.float32(signs)).permute(2, 0, 1)[None, None]
                for side in (scene.start, scene.end)
            )
            rebuilt, valid = reblur(sharp, (end - start) / 2 * times + (end + start) / 2 * times**2)
            scores.append(psnr_db(rebuilt, blurry, valid))
    assert np.mean(right) > np.mean(flipped) + 5


def test_stored_values_that_are_averaged_come_out_darker_than_light():
    """A mean of light, stored, is at least the mean of what is stored, as the curve is concave."""
    light = make(CameraShake(exposure=Exposure(noise=SILENT)), 1).blurry
    stored = make(CameraShake(exposure=Exposure(in_light=False, noise=SILENT)), 1).blurry
    assert (light.astype(int) - stored).min() >= -1
    assert light.mean() > stored.mean() + 0.5


def test_a_mixture_draws_its_kinds_by_their_shares():
    mixture = Mixture([LocalMotion(), CameraShake()], [3, 1])
    shaken = sum(bool(make(mixture, seed, 32, 32).mask.all()) for seed in range(120))
    assert 15 < shaken < 45


def test_scenes_leave_opencv_as_many_threads_as_it_had():
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        make(LocalMotion(), 0, 32, 32)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: LocalMotion(min_blur_px=1.0), "min_blur_px=1.0"),
        (lambda: LocalMotion(min_blur_px=9, max_blur_px=8), "max_blur_px=8"),
        (lambda: LocalMotion(most_moving=0), "most_moving=0"),
        (lambda: LocalMotion(smallest_object=0.6), "smallest_object=0.6"),
        (lambda: CameraShake(max_blur_px=-1), "max_blur_px=-1"),
        (lambda: Exposure(instants=30), "instants=30"),
        (lambda: Exposure(brightness=0.0), "brightness=0.0"),
        (lambda: SensorNoise(read=-0.1), "read=-0.1"),
        (lambda: SensorNoise(full_well_electrons=0), "full_well_electrons=0"),
        (lambda: Mixture([LocalMotion()], [1, 2]), "shares=[1, 2]"),
    ],
)
def test_settings_out_of_range_are_named(build, named):
    with pytest.raises(ConfigurationError) as error:
        build()
    assert named in str(error.value)


# Pictures


def test_no_photograph_and_no_subject_is_in_two_splits():
    names = [name for split in PHOTOGRAPHS.values() for name in split]
    assert len(names) == len(set(names))
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= set(PHOTOGRAPHS["train"])
    used = [{picture.levels[0].tobytes() for picture in pictures(split)} for split in PHOTOGRAPHS]
    assert not used[0] & used[1] | used[0] & used[2] | used[1] & used[2]


def test_a_missing_photograph_is_named():
    with pytest.raises(MachineError, match=r"nowhere\.png cannot be read.*reinstall scikit-image"):
        read_photograph("nowhere.png")


def test_pieces_have_the_size_asked_for_even_where_the_picture_is_smaller():
    rng = np.random.default_rng(0)
    small = Picture.of("small", rng.integers(0, 256, (60, 80, 3)).astype(np.uint8))
    for width, height in ((30, 20), (200, 31), (33, 400)):
        piece = small.cut(rng, width, height)
        assert piece.shape == (height, width, 3)
        assert piece.dtype == np.uint8
        assert piece.std() > 10  # mirrored, not smeared or blank


def test_pieces_are_taken_where_there_is_detail():
    picture = np.full((400, 400, 3), 128, np.uint8)
    picture[:, 200:] = np.random.default_rng(0).integers(0, 256, (400, 200, 1))
    half = Picture.of("half", picture)
    rng = np.random.default_rng(1)
    detailed = sum(half.cut(rng, 60, 60, scales=(1.0, 1.0)).std() > 10 for _ in range(60))
    assert detailed > 45  # of one place each it would be about 35


def test_dead_leaves_have_the_spectrum_of_photographs():
    """Power falls with frequency as about f**-2 (Lee, Mumford and Huang); white noise would be flat."""
    palette = np.random.default_rng(0).integers(0, 256, (1000, 3)).astype(np.uint8)
    texture = dead_leaves(np.random.default_rng(1), palette, 256).mean(axis=2)
    power = np.abs(np.fft.fft2((texture - texture.mean()) * np.outer(*[np.hanning(256)] * 2))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    edges = np.geomspace(4 / 256, 0.4, 12)
    means = [power[(frequency >= low) & (frequency < high)].mean() for low, high in pairwise(edges)]
    slope = np.polyfit(np.log(edges[1:] * edges[:-1]) / 2, np.log(means), 1)[0]
    assert -3.5 < slope < -1.5
