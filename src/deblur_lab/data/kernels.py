"""Motion kernels that are made up: what a motion-blur prior learns from (UFPNet's flow)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import cv2
import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from deblur_lab.data.datamodule import planned
from deblur_lab.data.loading import Sample, SampleLoader
from deblur_lab.data.samples import Split
from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Count, Natural, Range, Seconds, Share

Kernels = NDArray[np.float32]
Paths = NDArray[np.float64]

SMALLEST_KERNEL_PX = 5
KernelPx = Annotated[int, Range(SMALLEST_KERNEL_PX)]
SpreadPx = Annotated[float, Range(0, 1)]
Background = Annotated[float, Range(0, 1, open_low=True)]

_STREAMS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
_KERNEL_SALT = 4  # keeps kernels apart from what else is drawn from (seed, split, number)
_TOGETHER = 256  # kernels that are drawn at once
_EVALUATED_TOGETHER = 256
_CONNECTED_ABOVE = 0.05  # of a kernel's largest entry: what counts as touched by the motion


@dataclass(frozen=True)
class KernelKinds:
    """Which motions the kernels are of, and how they are rendered.

    A kernel is where a point of light falls while the shutter is open. Its middle is where the point is at
    mid-exposure, the instant that sharp pictures are taken to show. A motion is drawn at random, then scaled
    so that the farthest that it goes along either axis is uniform between nothing and what the kernel holds:
    none is cut off.

    - Still: no motion.
    - Of an object: a parabola in time, straight or gently curved, faster or slower towards the end.
    - Of a shaken camera: a particle of constant speed whose direction is changed by random perturbations, a
      pull back to where it began, and now and then a jerk that turns it about: a Markov process after
      Boracchi and Foi 2012, "Modeling the performance of image restoration from motion blur". How strong
      these are is drawn for each kernel.

    Attributes:
        kernel_size_px: K, side of the square kernels, odd.
        still: share of the kernels without motion.
        shaken: share of the kernels of a shaken camera; the rest are of objects.
        most_spread_px: standard deviation of the largest point spread; each kernel's is uniform from 0 on.

    Raises:
        ConfigurationError: a value is out of range.
    """

    kernel_size_px: KernelPx = 19
    still: Share = 0.1
    shaken: Share = 0.4
    most_spread_px: SpreadPx = 0.5

    def __post_init__(self) -> None:
        if self.kernel_size_px < SMALLEST_KERNEL_PX or self.kernel_size_px % 2 == 0:
            raise ConfigurationError(
                f"kernel_size_px={self.kernel_size_px} of the kernels must be odd and at least "
                f"{SMALLEST_KERNEL_PX}"
            )
        for key, most in (("still", 1.0), ("shaken", 1.0 - self.still), ("most_spread_px", 1.0)):
            if not 0 <= getattr(self, key) <= most:
                raise ConfigurationError(
                    f"{key}={getattr(self, key)} of the kernels must be from 0 to {most:g}"
                )

    def paths(self, rng: np.random.Generator, count: int) -> Paths:
        """(count, instants, 2): where points of light fall, px from the middle, x then y."""
        half = 4 * self.kernel_size_px
        kind = rng.uniform(size=count)
        reach = rng.uniform(0.0, self.kernel_size_px // 2 - 1, count)
        paths = _object_paths(rng, count, half)
        shaken = (kind >= self.still) & (kind < self.still + self.shaken)
        paths[shaken] = _shake_paths(rng, int(shaken.sum()), half)
        paths *= (reach / np.abs(paths).max(axis=(1, 2)))[:, None, None]
        paths[kind < self.still] = 0.0
        return paths

    def kernels(self, rng: np.random.Generator, count: int) -> Kernels:
        """(count, K, K) float32, not negative, each with sum 1."""
        paths = self.paths(rng, count)
        return spread(render(paths, self.kernel_size_px), rng.uniform(0.0, self.most_spread_px, count))


def render(paths: Paths, kernel_size_px: int) -> NDArray[np.float64]:
    """Let light fall along paths, an equal part of it at each instant, shared by the four nearest pixels.

    Args:
        paths: (N, instants, 2), px from the middle, x then y, within the kernel.
        kernel_size_px: K.

    Returns:
        (N, K, K), each with sum 1.
    """
    count, instants = paths.shape[:2]
    places = paths + kernel_size_px // 2
    corner = np.floor(places).clip(0, kernel_size_px - 2).astype(np.int64)
    share = places - corner
    first = np.arange(count)[:, None] * kernel_size_px**2
    total = np.zeros(count * kernel_size_px**2)
    for right in (0, 1):
        for down in (0, 1):
            index = first + (corner[..., 1] + down) * kernel_size_px + corner[..., 0] + right
            weight = np.abs(1 - right - share[..., 0]) * np.abs(1 - down - share[..., 1])
            total += np.bincount(index.ravel(), weight.ravel(), len(total))
    return np.asarray(total.reshape(count, kernel_size_px, kernel_size_px) / instants)


def spread(kernels: NDArray[np.float64], sigma_px: NDArray[np.float64]) -> Kernels:
    """Spread each kernel by three taps along each axis, of a standard deviation of its own.

    Args:
        kernels: (N, K, K), with nothing at the border.
        sigma_px: (N,), up to 1.

    Returns:
        (N, K, K) float32, each with the same sum.
    """
    side = (sigma_px**2 / 2)[:, None, None]
    for axis in (1, 2):
        beside = np.roll(kernels, 1, axis) + np.roll(kernels, -1, axis)
        kernels = (1 - 2 * side) * kernels + side * beside
    return kernels.astype(np.float32)


def connected_shares(kernels: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much of each kernel's mass lies in one piece: what has moved without a break has left one trace.

    A piece is of entries above a twentieth of the largest, each next to another, diagonally too; of several
    pieces the heaviest counts.

    Args:
        kernels: (N, K, K), not negative.

    Returns:
        (N,), from 0 to 1: the share of all mass.
    """
    shares = []
    for kernel in kernels:
        touched = (kernel > _CONNECTED_ABOVE * kernel.max()).astype(np.uint8)
        pieces, labels = cv2.connectedComponents(touched, connectivity=8)
        masses = np.bincount(labels.ravel(), kernel.ravel().astype(np.float64), pieces)
        shares.append(masses[1:].max(initial=0.0) / max(masses.sum(), 1e-12))
    return np.asarray(shares)


class DrawnKernels(Dataset[Sample]):
    """Kernels of one split, each a function of the settings, the seed and its number alone.

    A sample holds `kernel`, (K*K,) float32 in [0, 1], row by row, with the noise that dequantises it, and
    `name`.

    Args:
        kinds: draws the kernels.
        split: for which kernels are drawn: none is in two of them.
        count: how many there are; None: no end of them.
        seed: of all draws.
        background: mass of the noise, as a share of the kernel's.
    """

    def __init__(
        self, kinds: KernelKinds, split: Split, *, count: int | None, seed: int, background: float
    ) -> None:
        self._kinds = kinds
        self._split: Split = split
        self._count = count
        self._seed = seed
        self._background = background
        self._latest: dict[int, Kernels] = {}

    def __len__(self) -> int:
        """How many kernels there are, if there is an end of them."""
        assert self._count is not None
        return self._count

    def name(self, number: int) -> str:
        """The name of a kernel, without drawing it."""
        return f"{self._split}-{number:09d}"

    def __getitem__(self, number: int) -> Sample:
        """The kernel of a number from 0 on."""
        block, place = divmod(number, _TOGETHER)
        if block not in self._latest:
            # A batch's kernels follow each other: no more than the last two blocks are asked for again.
            self._latest = dict(list(self._latest.items())[-1:]) | {block: self._drawn(block)}
        return {"kernel": torch.from_numpy(self._latest[block][place]), "name": self.name(number)}

    def _drawn(self, block: int) -> Kernels:
        rng = np.random.default_rng([self._seed, _STREAMS[self._split], block, _KERNEL_SALT])
        kernels = self._kinds.kernels(rng, _TOGETHER).reshape(_TOGETHER, -1)
        return dequantised(rng, kernels, self._background)


class _NumberSampler(Sampler[list[int]]):
    """Micro-batches of the stream 0, 1, 2, ..., of which each process takes a part, as `StreamSampler`'s."""

    def __init__(
        self, size: int, rank: int, world_size: int, *, total_batches: int, first_batch: int = 0
    ) -> None:
        self.size = size
        self.rank = rank
        self.world_size = world_size
        self.total_batches = total_batches
        self.first_batch = first_batch

    def __len__(self) -> int:
        """The micro-batches of the whole run, as Lightning goes on counting from where it was."""
        return self.total_batches

    def __iter__(self) -> Iterator[list[int]]:
        """The micro-batches from `first_batch` on."""
        for batch in range(self.first_batch, self.total_batches):
            start = (batch * self.world_size + self.rank) * self.size
            yield list(range(start, start + self.size))


class _PartSampler(Sampler[list[int]]):
    """This process's part of an evaluation, in batches; all parts together are each kernel once."""

    def __init__(self, count: int, size: int, rank: int, world_size: int) -> None:
        self.batches = [
            list(range(start, min(start + size, count)))
            for start in range(rank * size, count, world_size * size)
        ]

    def __len__(self) -> int:
        """How many batches this process has."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches."""
        return iter(self.batches)


class MotionKernels(L.LightningDataModule):
    """Simulated motion kernels, for `tasks.FlowPrior`: no end of them to train on, and some to measure by.

    The kernels and their order are functions of the seed alone: the numbers of devices and workers and the
    step at which a run was resumed change nothing. A batch holds `kernel`, (B, K*K) float32, and `name`.

    Simulated kernels are exactly zero nearly everywhere, and of the remaining entries each follows from the
    others. A density of such kernels has no bound: a flow would spend itself on making spikes of it, at the
    logit of zero. So every entry gets noise, uniform between nothing and `2 * background / K**2`. It is the
    least value that means something, and so the darkest that the prior gives; much more would fill kernels
    with light that never moved, much less parts dark from light so far that all else goes under.

    Args:
        kernel_size_px: K, side of the square kernels.
        still: share of the kernels without motion.
        shaken: share of the kernels of a shaken camera; the rest are of objects. See `KernelKinds`.
        most_spread_px: standard deviation of the largest point spread.
        background: mass of the noise in each kernel, as a share of its own.
        batch_size: the kernels of one optimizer step, over all devices.
        micro_batch_size: the kernels that a device takes at a time; None takes its whole share at once.
        val_kernels: how many kernels validation has.
        test_kernels: how many kernels the test has.
        num_workers: processes that draw kernels, for each loader; 0 draws in the training process.
        worker_timeout_s: how long to wait for a batch before the worker that draws it counts as hung, in
            seconds; 0 waits on.
        seed: of all draws.

    Raises:
        ConfigurationError: a number is out of range.
    """

    def __init__(
        self,
        kernel_size_px: KernelPx = 19,
        *,
        still: Share = 0.1,
        shaken: Share = 0.4,
        most_spread_px: SpreadPx = 0.5,
        background: Background = 0.01,
        batch_size: Count = 256,
        micro_batch_size: Count | None = None,
        val_kernels: Count = 2048,
        test_kernels: Count = 8192,
        num_workers: Natural = 0,
        worker_timeout_s: Seconds = 300.0,
        seed: Natural = 0,
    ) -> None:
        super().__init__()
        # With more processes than batches some have none to measure, which is as it should be.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.kinds = KernelKinds(kernel_size_px, still, shaken, most_spread_px)
        self.background = background
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.val_kernels = val_kernels
        self.test_kernels = test_kernels
        self.num_workers = num_workers
        self.worker_timeout_s = worker_timeout_s
        self.seed = seed
        if not 0 < background <= 1:
            raise ConfigurationError(f"background={background} of the kernels must be above 0 and at most 1")
        for key, least in (
            ("batch_size", 2),  # of one kernel the flow's norms would have no statistics
            ("val_kernels", 1),
            ("test_kernels", 1),
            ("num_workers", 0),
            ("worker_timeout_s", 0),
            ("seed", 0),
        ):
            if getattr(self, key) < least:
                raise ConfigurationError(f"{key}={getattr(self, key)} of the kernels: give {least} or more")

    def describe(self, stage: str = "fit") -> list[str]:
        """What a stage works on, in lines to print at its start."""
        kinds, counts = self.kinds, f"{self.val_kernels} val, {self.test_kernels} test"
        side = kinds.kernel_size_px
        return [
            f"motion kernels of {side}x{side} px, made up: {counts}, no end of train; {kinds.still:.0%} "
            f"still, {kinds.shaken:.0%} of a shaken camera, the rest of objects",
            f"{self.batch_size} kernels a step, each once",
        ]

    def files_of(self, name: str) -> list[str]:
        """The files of a training sample: none, as it is made up."""
        return []

    def train_dataloader(self) -> SampleLoader:
        """The micro-batches of this process, from the trainer's step on.

        Raises:
            ConfigurationError: the batch cannot be shared out, or the trainer does not fit it.
        """
        trainer, micro, accumulation = planned(self.trainer, self.batch_size, self.micro_batch_size)
        sampler = _NumberSampler(
            micro,
            trainer.global_rank,
            trainer.world_size,
            total_batches=trainer.max_steps * accumulation,
            first_batch=trainer.global_step * accumulation,
        )
        return self._loader("train", None, sampler)

    def val_dataloader(self) -> SampleLoader:
        """This process's part of the kernels of `val`."""
        return self._evaluation("val", self.val_kernels)

    def test_dataloader(self) -> SampleLoader:
        """This process's part of the kernels of `test`."""
        return self._evaluation("test", self.test_kernels)

    def _evaluation(self, split: Split, count: int) -> SampleLoader:
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer"
        sampler = _PartSampler(count, _EVALUATED_TOGETHER, trainer.global_rank, trainer.world_size)
        return self._loader(split, count, sampler)

    def _loader(self, split: Split, count: int | None, sampler: Sampler[list[int]]) -> SampleLoader:
        return SampleLoader(
            DrawnKernels(self.kinds, split, count=count, seed=self.seed, background=self.background),
            batch_sampler=sampler,
            num_workers=self.num_workers,
            timeout_s=self.worker_timeout_s,
            seed=self.seed,
        )


def dequantised(rng: np.random.Generator, kernels: Kernels, background: float) -> Kernels:
    """Add uniform noise to every entry, of this mass in all on average, and give kernels the sum 1 again.

    Args:
        rng: draws the noise.
        kernels: (N, K*K), not negative, each with sum 1.
        background: mass of the noise.
    """
    most = 2.0 * background / kernels.shape[1]
    noise = rng.uniform(0.0, most, kernels.shape)
    noisy = kernels + noise
    return np.asarray(noisy / noisy.sum(1, keepdims=True), np.float32)


def _object_paths(rng: np.random.Generator, count: int, half: int) -> Paths:
    """(count, 2 half + 1, 2): parabolas in time, as objects of synthetic scenes move."""
    time = (np.arange(-half, half + 1) / half)[:, None]
    angle = rng.uniform(0.0, 2 * np.pi, (count, 1, 1))
    along = np.concatenate([np.cos(angle), np.sin(angle)], 2)
    aside = np.concatenate([-np.sin(angle), np.cos(angle)], 2)
    bend, haste = rng.uniform(-1.0, 1.0, (2, count, 1, 1)) * np.array([0.3, 0.15]).reshape(2, 1, 1, 1)
    return np.asarray(along * time + (bend * aside + haste * along) * time**2)


def _shake_paths(rng: np.random.Generator, count: int, half: int) -> Paths:
    """(count, 2 half + 1, 2): random walks of constant speed; the middle instant is at the origin."""
    step = 1 / (2 * half)
    wander, pull = rng.uniform(0.0, 4.0, (count, 1)), rng.uniform(0.0, 4.0, (count, 1))
    jerks = rng.uniform(0.0, 2.0, count)  # expected during the exposure
    angle = rng.uniform(0.0, 2 * np.pi, count)
    velocity = np.stack([np.cos(angle), np.sin(angle)], 1)
    perturbations = rng.normal(0.0, step**0.5, (2 * half, count, 2))
    jerked = rng.uniform(size=(2 * half, count)) < jerks * step
    turns = rng.uniform(np.pi - 0.5, np.pi + 0.5, (2 * half, count))
    place = np.zeros((count, 2))
    places = [place]
    for now in range(2 * half):
        velocity = velocity + wander * perturbations[now] - pull * step * place
        if jerked[now].any():
            cosine, sine = np.cos(turns[now]), np.sin(turns[now])
            turned = np.stack(
                [
                    cosine * velocity[:, 0] - sine * velocity[:, 1],
                    sine * velocity[:, 0] + cosine * velocity[:, 1],
                ],
                1,
            )
            velocity = np.where(jerked[now][:, None], turned, velocity)
        velocity = velocity / np.linalg.norm(velocity, axis=1, keepdims=True)
        place = place + velocity * step
        places.append(place)
    paths = np.stack(places, 1)
    return np.asarray(paths - paths[:, half : half + 1])
