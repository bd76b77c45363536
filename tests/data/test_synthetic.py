"""The synthetic dataset: scenes are a function of seed, split, epoch and index, and of nothing else."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from deblur_lab.data.samples import SceneSet, Source
from deblur_lab.data.scenes import CameraShake, LocalMotion, Mixture
from deblur_lab.data.synthetic import SyntheticSource
from deblur_lab.errors import ConfigurationError, DataError

KIND = Mixture([LocalMotion(), CameraShake()], [1, 1])


def source(**settings):
    return SyntheticSource(
        **({"kind": KIND, "protocol": None, "size_px": 48, "train_scenes": 4, "val_scenes": 3} | settings)
    )


def fingerprint(scene):
    digest = hashlib.sha256(scene.name.encode())
    for part in (scene.blurry, scene.sharp, scene.mask, scene.start, scene.end):
        digest.update(part.tobytes())
    return digest.hexdigest()


def fingerprints(scenes, epoch=0):
    return [fingerprint(scenes.load(index, epoch)) for index in range(len(scenes))]


def test_it_is_a_source_of_scene_sets():
    protocol = object()
    data = source(protocol=protocol, test_scenes=5)
    assert isinstance(data, Source)
    assert (data.name, data.protocol) == ("synthetic", protocol)
    for split, count in (("train", 4), ("val", 3), ("test", 5)):
        scenes = data.scenes(split)
        assert isinstance(scenes, SceneSet)
        assert len(scenes) == count
        names = [scenes.name(index) for index in range(count)]
        assert len(set(names)) == count
        assert scenes.load(1).name == names[1]


def test_another_process_makes_the_same_scenes_in_another_order():
    script = (
        "from tests.data.test_synthetic import fingerprint, source\n"
        "train = source().scenes('train')\n"
        "print(*reversed([fingerprint(train.load(index, 2)) for index in (3, 2, 1, 0)]))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == fingerprints(source().scenes("train"), epoch=2)


def test_seed_split_epoch_and_index_each_make_other_scenes():
    data = source()
    made = [
        *fingerprints(data.scenes("train")),
        *fingerprints(data.scenes("train"), epoch=1),
        *fingerprints(data.scenes("val")),
        *fingerprints(data.scenes("test")),
        *fingerprints(source(seed=1).scenes("train")),
    ]
    assert len(set(made)) == len(made)


def test_only_fresh_training_scenes_depend_on_the_epoch():
    for split in ("val", "test"):
        scenes = source().scenes(split)
        assert fingerprints(scenes, epoch=0) == fingerprints(scenes, epoch=5)
    fixed = source(fresh_scenes=False, cache_mb=0).scenes("train")
    assert fingerprints(fixed, epoch=0) == fingerprints(fixed, epoch=5)
    assert fingerprints(fixed) == fingerprints(source().scenes("train"), epoch=0)


def test_fixed_scenes_are_kept_up_to_the_limit_and_cannot_be_changed():
    roomy = source(fresh_scenes=False).scenes("train")
    scene = roomy.load(2, epoch=0)
    assert roomy.load(2, epoch=9) is scene
    with pytest.raises(ValueError, match="read-only"):
        scene.blurry[:] = 0

    one_scene_mb = sum(part.nbytes for part in vars(scene).values() if isinstance(part, np.ndarray)) / 2**20
    tight = source(fresh_scenes=False, cache_mb=2.5 * one_scene_mb).scenes("train")
    first = [tight.load(index) for index in range(4)]
    kept = [tight.load(index) is first[index] for index in range(4)]
    assert kept == [True, True, False, False]
    assert fingerprint(tight.load(3)) == fingerprint(first[3])

    fresh = source().scenes("train")
    assert fresh.load(0) is not fresh.load(0)


def test_what_is_kept_does_not_travel_to_other_processes():
    scenes = source(fresh_scenes=False).scenes("train")
    empty = len(pickle.dumps(scenes))
    before = fingerprints(scenes)
    packed = pickle.dumps(scenes)
    assert len(packed) <= empty + 16
    arrived = pickle.loads(packed)
    assert fingerprints(arrived) == before
    assert arrived.load(0) is arrived.load(0)


def test_scenes_have_the_size_asked_for():
    scene = source(size_px=[64, 40]).scenes("train").load(0)
    assert scene.blurry.shape == (40, 64, 3)
    assert source(size_px=40).scenes("train").load(0).blurry.shape == (40, 40, 3)


def test_a_scene_that_does_not_exist_is_refused():
    scenes = source().scenes("train")
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"scene {index} of 4"):
            scenes.load(index)


def test_an_empty_split_says_which_setting_fills_it():
    with pytest.raises(DataError, match="no scenes to test on: set test_scenes"):
        source(test_scenes=0).scenes("test")


@pytest.mark.parametrize(
    "settings",
    [
        {"size_px": 8},
        {"size_px": [64, 8]},
        {"size_px": [64]},
        {"val_scenes": -1},
        {"seed": -1},
        {"cache_mb": -1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ConfigurationError, match=rf"^{next(iter(settings))}="):
        source(**settings)
