"""Time patches from full PNGs, from sub-images and from tiles, on one core; print one JSON.

    python benchmarks/loading.py [--pairs 12] [--patches 200] [--turns 5] [--folder DIR] [--output FILE]

Pairs of 2152 x 1436 pixels with masks, as ReLoBlur's: photographs of scikit-image, enlarged, with a little
noise, as a camera has it, so that they do not compress better than real ones. Three contenders hand out the
same patches of 256 pixels (blurry, sharp, mask; uint8), which is asserted first:

- full PNGs: all of the pair is decoded for a patch;
- sub-images: PNGs of 512 pixels, which overlap by 256, so that each patch lies in one of them (fields of such
  sub-images, as others train on, overlap less and hold fewer patches);
- tiles, as `deblur_lab.data.prepare` writes them.

First with everything in the page cache, then cold: before each patch the system is told to forget the files
(posix_fadvise). Then whole samples, turned and as floating-point tensors, which costs more than the patch
itself; and batches from a `SampleLoader` with one worker, which is what a training gets. All run in turns,
and ratios are taken within a turn.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import measuring
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray

from deblur_lab.data.layouts import Pair
from deblur_lab.data.loading import SampleLoader
from deblur_lab.data.patches import TrainingPatches
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.prepared.making import jobs_of
from deblur_lab.data.prepared.scenes import PreparedScenes, files_of, find_prepared, folder_of
from deblur_lab.data.samples import SampleKey
from deblur_lab.images import read_mask, read_rgb, write_png

SIZE_PX = (2152, 1436)
PATCH_PX = 256
SUB_PX = 512
STEP_PX = SUB_PX - PATCH_PX

Picture = NDArray[np.uint8]
Request = tuple[int, tuple[int, int]]  # a pair and the corner of a patch


def written_pairs(folder: Path, count: int) -> list[Pair]:
    """Pairs in files, and their sub-images beside them, in folders by the corner of each."""
    rng = np.random.default_rng(0)
    names = ("astronaut", "coffee", "chelsea")
    pairs = []
    for number in range(count):
        photograph = getattr(skimage.data, names[number % len(names)])()
        large = cv2.resize(np.roll(photograph, 37 * number, 1), SIZE_PX, interpolation=cv2.INTER_CUBIC)
        sharp = noisy(large, rng)
        blurry = noisy(cv2.blur(large, (15, 15)), rng)
        mask = np.zeros(SIZE_PX[::-1], np.uint8)
        cv2.circle(mask, (int(rng.integers(400, 1700)), int(rng.integers(400, 1000))), 300, 255, -1)
        pictures = {"blurry": blurry, "sharp": sharp, "mask": mask}
        for role, picture in pictures.items():
            place = folder / role / f"{number}.png"
            place.parent.mkdir(exist_ok=True)
            write_png(place, picture)
            for top, left in corners():
                part = sub_image(place, (top, left))
                part.parent.mkdir(exist_ok=True, parents=True)
                write_png(part, picture[top : top + SUB_PX, left : left + SUB_PX])
        pairs.append(Pair(str(number), *(folder / role / f"{number}.png" for role in pictures)))
    return pairs


def noisy(picture: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """With a little noise."""
    noise = rng.normal(0, 1.5, picture.shape).round()
    return np.asarray((picture + noise).clip(0, 255), np.uint8)


def corners() -> Iterator[tuple[int, int]]:
    """Of the sub-images."""
    for top in range(0, SIZE_PX[1] - PATCH_PX + 1, STEP_PX):
        for left in range(0, SIZE_PX[0] - PATCH_PX + 1, STEP_PX):
            yield top, left


def sub_image(path: Path, corner: tuple[int, int]) -> Path:
    """Where the sub-image of a picture lies."""
    return path.with_suffix("") / f"{corner[0]}-{corner[1]}.png"


def from_full(pair: Pair, corner: tuple[int, int]) -> list[Picture]:
    """A patch of whole pictures."""
    top, left = corner
    return [
        picture[top : top + PATCH_PX, left : left + PATCH_PX]
        for picture in (read_rgb(pair.blurry), read_rgb(pair.sharp), read_mask(mask_of(pair)))
    ]


def from_sub_images(pair: Pair, corner: tuple[int, int]) -> list[Picture]:
    """The same of the sub-images that it lies in."""
    at = (corner[0] // STEP_PX * STEP_PX, corner[1] // STEP_PX * STEP_PX)
    top, left = corner[0] - at[0], corner[1] - at[1]
    read = (read_rgb, read_rgb, read_mask)
    return [
        reader(sub_image(path, at))[top : top + PATCH_PX, left : left + PATCH_PX]
        for reader, path in zip(read, files_of(pair), strict=True)
    ]


def mask_of(pair: Pair) -> Path:
    """The mask, which each pair here has."""
    assert pair.mask is not None
    return pair.mask


def forget(paths: Sequence[Path]) -> None:
    """Let the system drop files from its memory, where it has no other use for them."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def mean_seconds(calls: Sequence[Callable[[], object]], forgotten: Sequence[Sequence[Path]] = ()) -> float:
    """The mean time of calls; if files are to be forgotten before each, without the time that that takes."""
    spent = 0.0
    for call, paths in zip(calls, forgotten or itertools.repeat(()), strict=False):
        forget(paths)
        began = time.perf_counter()
        call()
        spent += time.perf_counter() - began
    return spent / len(calls)


def seconds_a_loaded_sample(patches: TrainingPatches, pairs: int, count: int) -> float:
    """The mean time of a sample that comes from a loader with one worker, once it runs."""
    keys = [[SampleKey(0, number % pairs, number)] for number in range(count + 8)]
    loader = SampleLoader(patches, batch_sampler=keys, num_workers=1)  # type: ignore[arg-type]
    batches = iter(loader)
    for _ in range(8):
        next(batches)
    began = time.perf_counter()
    got = sum(1 for _ in batches)
    return (time.perf_counter() - began) / got


def contenders(
    pairs: Sequence[Pair], prepared: PreparedScenes
) -> dict[str, tuple[Callable[[int, tuple[int, int]], list[Picture]], Callable[[Request], Sequence[Path]]]]:
    """By name: what hands out a patch, and which files it reads for it."""
    tiles = [one.path for one in prepared.tiles if one is not None]

    def sub_images(request: Request) -> list[Path]:
        number, (top, left) = request
        at = (top // STEP_PX * STEP_PX, left // STEP_PX * STEP_PX)
        return [sub_image(path, at) for path in files_of(pairs[number])]

    return {
        "full_png": (
            lambda number, corner: from_full(pairs[number], corner),
            lambda request: files_of(pairs[request[0]]),
        ),
        "sub_images": (lambda number, corner: from_sub_images(pairs[number], corner), sub_images),
        "tiles": (
            lambda number, corner: prepared.view(number).crop(corner, PATCH_PX),
            lambda request: [tiles[request[0]]],
        ),
    }


def main() -> None:
    """Write, compare, time, print."""
    parser = measuring.parser("Time patches from full PNGs, from sub-images and from tiles, on one core.")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--patches", type=int, default=200, help="from sub-images and tiles, a turn")
    parser.add_argument("--folder", type=Path, help="where to write the pictures (default: a temporary one)")
    parser.set_defaults(threads=1, turns=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = measured(Path(folder), arguments)
    measuring.report("patches of 256 px from pairs of 2152 x 1436", arguments, results)


def measured(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """All that is reported."""
    pairs = written_pairs(folder, arguments.pairs)
    scenes = PictureScenes(pairs)
    place = folder_of(scenes, folder / "tiles", "benchmark")
    began = time.perf_counter()
    for job in jobs_of(scenes, place):
        job.path.parent.mkdir(parents=True, exist_ok=True)
        done = job.run()
        assert done.written, done.problems
    preparing_s = (time.perf_counter() - began) / len(pairs)
    prepared = find_prepared(scenes, place)
    assert prepared.misfit is None, prepared.misfit

    rng = np.random.default_rng(1)
    highest, farthest = SIZE_PX[1] - PATCH_PX + 1, SIZE_PX[0] - PATCH_PX + 1
    requests: list[Request] = [
        (int(rng.integers(len(pairs))), (int(rng.integers(highest)), int(rng.integers(farthest))))
        for _ in range(arguments.patches)
    ]
    few = requests[: max(2, arguments.patches // 20)]
    ways = contenders(pairs, prepared)
    os.sync()  # what is not on the disk yet is not forgotten
    for number, corner in few:
        expected = from_full(pairs[number], corner)
        for read, _ in ways.values():
            assert all(map(np.array_equal, read(number, corner), expected))
    of_files = TrainingPatches([scenes], PATCH_PX, seed=0)
    of_tiles = TrainingPatches([prepared], PATCH_PX, seed=0)
    for number in range(len(pairs)):
        one, other = (patches[SampleKey(0, number, 3)] for patches in (of_files, of_tiles))
        assert all(torch.equal(one[key], other[key]) for key in one if key != "name")

    warm: dict[str, list[float]] = {name: [] for name in ways}
    cold: dict[str, list[float]] = {name: [] for name in ways}
    sample: dict[str, list[float]] = {"full_png": [], "tiles": []}
    loaded: dict[str, list[float]] = {"full_png": [], "tiles": []}
    whole = len(few)  # a turn; of full PNGs as many patches as of tiles would take minutes
    for _ in range(arguments.turns):
        for name, (read, files) in ways.items():
            chosen = few if name == "full_png" else requests
            calls = [functools.partial(read, *request) for request in chosen]
            mean_seconds(calls)
            warm[name].append(mean_seconds(calls))
            cold[name].append(mean_seconds(calls, [files(request) for request in chosen]))
        for name, count in (("full_png", whole), ("tiles", arguments.patches)):
            patches = of_files if name == "full_png" else of_tiles
            keys = [SampleKey(0, number % len(pairs), number) for number in range(count)]
            sample[name].append(mean_seconds([functools.partial(patches.__getitem__, key) for key in keys]))
            loaded[name].append(seconds_a_loaded_sample(patches, len(pairs), count))
    png_bytes = sum(path.stat().st_size for pair in pairs for path in files_of(pair))
    return {
        "bytes_a_pair": {
            "png": round(png_bytes / len(pairs)),
            "tiles": round(sum(tiles.file_bytes for tiles in prepared.tiles if tiles) / len(pairs)),
        },
        "seconds_to_prepare_a_pair": round(preparing_s, 3),
        "patches_uint8_warm": told(warm),
        "patches_uint8_cold": told(cold),
        "samples_in_this_process": told(sample),
        "samples_from_a_loader_with_one_worker": told(loaded),
    }


def told(times: dict[str, list[float]]) -> dict[str, object]:
    """Times, rates, and how many times faster than from full PNGs."""
    return {
        "milliseconds": measuring.milliseconds(times),
        "a_second": {name: round(1 / float(np.median(values)), 1) for name, values in times.items()},
        "times_faster_than_full_png": {
            name: measuring.spread(measuring.ratios(times, "full_png", name))
            for name in times
            if name != "full_png"
        },
    }


if __name__ == "__main__":
    main()
