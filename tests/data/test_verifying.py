"""What is measured of pictures, against what is known of them, and the facts of published datasets."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_lab.data.layouts import Pair
from deblur_lab.data.published_sets import PUBLISHED, ExpectedSet
from deblur_lab.data.verifying.contents import average_of
from deblur_lab.data.verifying.inspection import Inspection, PairFacts, inspect_mask, inspect_picture
from deblur_lab.data.verifying.pictures import sharper
from deblur_lab.images import ImageError

# Published facts


def test_the_published_numbers_fit_each_other():
    gopro = PUBLISHED["gopro"].splits
    test = gopro["test"].pairs_of
    assert (len(test), sum(test.values())) == (gopro["test"].sequences, gopro["test"].pairs) == (11, 1111)
    assert {name: pairs for name, pairs in test.items() if pairs != 100} == {
        "GOPR0410_11_00": 134,
        "GOPR0862_11_00": 77,
    }
    pairs = {
        name: tuple(split.pairs for split in dataset.splits.values()) for name, dataset in PUBLISHED.items()
    }
    assert pairs == {
        "gopro": (2103, 1111),
        "hide": (6397, 2025),
        "realblur_j": (3758, 980),
        "realblur_r": (3758, 980),
        "reloblur": (2010, 395),
    }


@pytest.mark.parametrize(
    ("dataset", "name", "sequence"),
    [
        ("gopro", "GOPR0384_11_00/000001", "GOPR0384_11_00"),
        ("gopro", "GOPR0384_11_00-000001", "GOPR0384_11_00"),
        ("gopro", "GOPR0384_11_00_001", "GOPR0384_11_00"),
        ("hide", "109fromGOPR1096.MP4", "GOPR1096"),
        ("realblur_j", "scene001/12", "scene001"),
        ("realblur_r", "scene001-12", "scene001"),
        ("realblur_r", "scene001_blur_12", "scene001"),
        ("reloblur", "s01/02/00", "s01/02"),
        ("gopro", "holiday", ""),
    ],
)
def test_a_sequence_is_told_from_a_name(dataset, name, sequence):
    assert PUBLISHED[dataset].sequence_of(name) == sequence


# Measures


def save(path: Path, values: np.ndarray, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **how)
    return path


def test_a_picture_is_measured_as_defined(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture, facts = inspect_picture(save(tmp_path / "a.png", values))
    assert (picture == values).all()
    assert (facts.size_px, facts.format, facts.mode) == ((30, 20), "PNG", "RGB")
    light = (values / 255) ** 2.2
    assert facts.mean == pytest.approx(values.mean())
    assert facts.light == pytest.approx(light.mean())
    step = (((values + 1e-4) / 255) ** 2.2 - light) / 1e-4
    assert facts.slope == pytest.approx(step.mean(), rel=1e-4)


def test_equal_pixels_have_one_digest_however_they_are_stored(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    digests = {
        inspect_picture(save(tmp_path / name, values, **how))[1].digest
        for name, how in (("a.png", {}), ("b.png", {"compress_level": 0}), ("c.bmp", {}))
    }
    assert len(digests) == 1
    assert inspect_picture(save(tmp_path / "d.png", values.reshape(30, 20, 3)))[1].digest not in digests


def test_sharpness_falls_with_blur_and_is_looked_at_where_the_mask_says(tmp_path):
    random = np.random.default_rng(0)
    sharp = np.repeat(random.integers(0, 256, (64, 64, 1), dtype=np.uint8), 3, axis=2)
    blurry = sharp.copy()
    blurry[:, :32] = np.mean([np.roll(sharp, shift, axis=0) for shift in range(-3, 4)], axis=0)[:, :32]
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 2:30] = 255
    paths = [
        save(tmp_path / name, picture)
        for name, picture in (("b.png", blurry), ("s.png", sharp), ("m.png", mask))
    ]
    everywhere = Inspection("train", Pair("a", paths[0], paths[1], None))()
    masked = Inspection("train", Pair("a", *paths))()
    assert sharper(masked) < 0.5 * sharper(everywhere) < 0.5
    assert everywhere.psnr_db == pytest.approx(
        10 * math.log10(255**2 / np.mean((blurry.astype(float) - sharp) ** 2))
    )


def test_masks_are_read_as_training_reads_them(tmp_path):
    mask = np.zeros((4, 8), np.uint8)
    mask[0, :2] = 1
    facts, blurred = inspect_mask(save(tmp_path / "m.png", mask))
    assert (facts.values, facts.share, facts.between) == ((0, 1), 2 / 32, 0)
    levels = mask * np.uint8(255)
    levels[1, :2] = 7, 255
    facts = inspect_mask(save(tmp_path / "l.png", levels))[0]
    assert (facts.values, facts.share, facts.between) == ((0, 7, 255), 4 / 32, 1 / 4)
    facts = inspect_mask(save(tmp_path / "m.png", mask))[0]
    assert (blurred == mask).all()
    same = inspect_mask(save(tmp_path / "n.png", np.repeat(mask[..., None] * 255, 3, axis=2)))[0]
    assert (same.values, same.digest) == ((0, 255), facts.digest)
    (tmp_path / "m.png").write_bytes(b"")
    with pytest.raises(ImageError, match="0 bytes"):
        inspect_mask(tmp_path / "m.png")


# Averages


@pytest.mark.parametrize("in_light", [False, True])
def test_how_blur_was_averaged_shows_in_its_brightness(tmp_path, in_light):
    """Stripes that move, of which some come into the picture or leave it: averaged by definition."""
    random = np.random.default_rng(1)
    facts: list[PairFacts] = []
    for number in range(12):
        wide = np.repeat(random.integers(0, 256, (1, 40, 3)), 8, axis=1).astype(float)
        frames = np.stack([np.repeat(wide[:, start : start + 256], 64, axis=0) for start in range(11)])
        if in_light:
            blurry = np.mean((frames / 255) ** 2.2, axis=0) ** (1 / 2.2) * 255
        else:
            blurry = frames.mean(axis=0)
        paths = [
            save(tmp_path / f"{number}{role}.png", np.round(picture).astype(np.uint8))
            for role, picture in (("b", blurry), ("s", frames[5]))
        ]
        facts.append(Inspection("train", Pair(f"v{number // 3}/{number}", *paths, None))())
    average = average_of(facts, ExpectedSet({}))
    assert average is not None
    assert average.pairs == 12
    assert average.kind == ("light" if in_light else "stored")
    assert abs(average.position - in_light) < 4 * average.error + 0.05
    # Too few pairs, or no blur, say nothing.
    assert average_of(facts[:4], ExpectedSet({})) is None
    sharp = [Inspection("train", Pair("a", fact.sharp.path, fact.sharp.path, None))() for fact in facts]
    assert average_of(sharp, ExpectedSet({})) is None
