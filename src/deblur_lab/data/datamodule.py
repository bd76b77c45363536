"""The one DataModule: training patches from several sources, and whole pictures to score."""

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from deblur_lab.data.layouts import refuse
from deblur_lab.data.samples import SampleKey, Scene, SceneSet, Source, Split
from deblur_lab.data.sampling import EvaluationSampler, StreamSampler
from deblur_lab.data.sources import PictureScenes
from deblur_lab.data.synthetic import SyntheticScenes
from deblur_lab.data.transforms import blur_aware_corner, crop, random_corner, randomly_turned, require_patch
from deblur_lab.errors import ConfigurationError, UserError
from deblur_lab.images import to_tensor

Sample = dict[str, Any]

_SPLITS_OF_STAGE: dict[str, tuple[Split, ...]] = {
    # A run scores the test split when it is done: what is wrong with that is found before it starts.
    "fit": ("train", "val", "test"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}
_PATCH_SALT = 2  # keeps patches apart from what else is drawn from (seed, epoch, dataset, index)


def plan_batches(batch_size: int, micro_batch_size: int | None, world_size: int) -> tuple[int, int]:
    """How an optimizer step's batch is shared out.

    Args:
        batch_size: The samples of one optimizer step, over all devices.
        micro_batch_size: The samples that a device takes at a time; None takes its whole share at once.
        world_size: The number of devices.

    Returns:
        The samples that a device takes at a time, and how often it does for one step.

    Raises:
        ConfigurationError: The numbers do not divide.
    """
    if batch_size < 1 or batch_size % world_size:
        raise ConfigurationError(
            f"data.batch_size={batch_size} is the batch of all devices together and cannot be shared by "
            f"{world_size}: choose a multiple of {world_size}"
        )
    share = batch_size // world_size
    micro = share if micro_batch_size is None else micro_batch_size
    if micro < 1 or share % micro:
        raise ConfigurationError(
            f"data.micro_batch_size={micro} does not divide {share}, each device's share of "
            f"data.batch_size={batch_size}: choose a divisor of {share}, or null"
        )
    return micro, share // micro


class TrainingPatches(Dataset[Sample]):
    """Patches of scenes, each a function of the seed and of its key alone.

    A sample holds `blurry` and `sharp`, (3, P, P) float32 in [0, 1]; `mask`, (1, P, P) float32, 1 = blurred,
    all ones where it is not known, as `mask_known`, () bool, says; `seed`, () int64, for what is drawn at
    random further on; and `name`.

    Args:
        scenes: The scenes of each dataset.
        patch_size: P.
        seed: The seed.
        blur_crop_probability: See `transforms.blur_aware_corner`; not for scenes without a mask.
        blur_crop_share: Likewise.
        augment: Whether patches are flipped and turned by quarters.
    """

    def __init__(
        self,
        scenes: Sequence[SceneSet],
        patch_size: int,
        *,
        seed: int,
        blur_crop_probability: float = 0.5,
        blur_crop_share: float = 0.05,
        augment: bool = True,
    ) -> None:
        self.scenes = tuple(scenes)
        self.patch_size = patch_size
        self.seed = seed
        self.blur_crop_probability = blur_crop_probability
        self.blur_crop_share = blur_crop_share
        self.augment = augment

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of a key.

        Raises:
            DataError: The picture cannot be read, or is smaller than a patch.
        """
        scene = self.scenes[key.dataset].load(key.index, key.epoch)
        rng = np.random.default_rng([self.seed, key.epoch, key.dataset, key.index, _PATCH_SALT])
        noise_seed = int(rng.integers(2**63))
        height, width = scene.blurry.shape[:2]
        require_patch(scene.name, height, width, self.patch_size)
        if scene.mask is None:
            mask = np.ones((height, width), np.uint8)
            corner = random_corner(height, width, self.patch_size, rng)
        else:
            mask = scene.mask
            corner = blur_aware_corner(
                mask,
                self.patch_size,
                rng,
                probability=self.blur_crop_probability,
                share=self.blur_crop_share,
            )
        maps = crop((scene.blurry, scene.sharp, mask), corner, self.patch_size)
        if self.augment:
            maps = randomly_turned(maps, rng)
        blurry, sharp, mask = maps
        return {
            "blurry": to_tensor(blurry),
            "sharp": to_tensor(sharp),
            "mask": to_tensor(mask),
            "mask_known": torch.tensor(scene.mask is not None),
            "seed": torch.tensor(noise_seed),
            "name": scene.name,
        }


class EvaluationPictures(Dataset[Sample]):
    """Whole pictures of one dataset.

    A sample holds `blurry` and `sharp`, (3, H, W) float32 in [0, 1]; `mask`, (1, H, W) float32, 1 = blurred,
    all ones where it is not known, as `mask_known`, () bool, says; `name` and `index`; and, for scenes that
    know their motion, `start` and `end`, the (2, H, W) float32 displacements to the start and the end of the
    exposure, in pixels, x then y.
    """

    def __init__(self, scenes: SceneSet) -> None:
        self.scenes = scenes

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        """The picture of an index.

        Raises:
            DataError: The picture cannot be read.
        """
        scene = self.scenes.load(index)
        known = scene.mask is not None
        sample: Sample = {
            "blurry": to_tensor(scene.blurry),
            "sharp": to_tensor(scene.sharp),
            "mask": to_tensor(
                scene.mask if scene.mask is not None else np.ones(scene.blurry.shape[:2], np.uint8)
            ),
            "mask_known": torch.tensor(known),
            "name": scene.name,
            "index": index,
        }
        return sample | _motion(scene)


class DeblurDataModule(L.LightningDataModule):
    """Training patches of several sources, mixed one to one, and the whole pictures of each source to score.

    The training samples and their order are functions of the seed alone: the numbers of devices and workers
    and the step at which a run was resumed change nothing. The trainer must be made with
    `use_distributed_sampler=False`, and with the accumulation that `plan_batches` gives.

    Every process checks the files itself, as one that failed alone would leave the others waiting for it.

    Args:
        sources: The datasets.
        patch_size: The side of a training patch in pixels.
        batch_size: The samples of one optimizer step, over all devices.
        micro_batch_size: The samples that a device takes at a time; None takes its whole share at once.
        num_workers: Processes that read pictures, for each loader, at most as many as there are cores; 0
            reads in the training process.
        seed: What order, patches and turns are drawn from.
        blur_crop_probability: How often a patch is centred on a blurred pixel, where there are masks.
        blur_crop_share: ... and only if more than this share of the picture is blurred.
        augment: Whether patches are flipped and turned by quarters.
        check_files: Whether all files are checked before anything else happens.

    Raises:
        ConfigurationError: A number is out of range, or two sources have one name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        patch_size: int = 256,
        batch_size: int = 8,
        micro_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        blur_crop_probability: float = 0.5,
        blur_crop_share: float = 0.05,
        augment: bool = True,
        check_files: bool = True,
    ) -> None:
        super().__init__()
        # With more processes than pictures some have none to score, which is as it should be.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.sources = tuple(sources)
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.blur_crop_probability = blur_crop_probability
        self.blur_crop_share = blur_crop_share
        self.augment = augment
        self.check_files = check_files
        self._scenes: dict[Split, list[SceneSet]] = {}
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"data.sources={names}: give one or more, each with its own name")
        if seed < 0:
            raise ConfigurationError(f"seed={seed}: give 0 or more")
        for key, smallest in (("patch_size", 1), ("batch_size", 1), ("num_workers", 0)):
            if getattr(self, key) < smallest:
                raise ConfigurationError(f"data.{key}={getattr(self, key)}: give {smallest} or more")
        for key in ("blur_crop_probability", "blur_crop_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigurationError(f"data.{key}={getattr(self, key)}: give a number from 0 to 1")

    def setup(self, stage: str) -> None:
        """Find the scenes that a stage needs, and check their files; what was found before is kept.

        Raises:
            DataError: A split is missing or empty; synthetic scenes are smaller than a training patch; or all
                that is wrong with the files, in several lines.
        """
        missing = [split for split in _SPLITS_OF_STAGE[stage] if split not in self._scenes]
        found: dict[Split, list[SceneSet]] = {
            split: [source.scenes(split) for source in self.sources] for split in missing
        }
        for source, scenes in zip(self.sources, found.get("train", []), strict=False):
            if isinstance(scenes, SyntheticScenes):  # no files, and all of one size
                width_px, height_px = scenes.size_px
                require_patch(f"each scene of {source.name}", height_px, width_px, self.patch_size)
        if self.check_files:
            problems: dict[str, None] = {}  # a set in order: `val` may be a part of `test`
            for split, sets in found.items():
                smallest_px = self.patch_size if split == "train" else 1
                for scenes in sets:
                    if isinstance(scenes, PictureScenes):
                        problems |= dict.fromkeys(scenes.problems(max(self.num_workers, 4), smallest_px))
            refuse(list(problems))
        self._scenes |= found

    def describe(self, stage: str = "fit") -> list[str]:
        """What a stage works on, in lines to print at its start; calls `setup`.

        Raises:
            DataError: As `setup`.
        """
        self.setup(stage)
        splits = _SPLITS_OF_STAGE[stage]
        lines = []
        for place, source in enumerate(self.sources):
            sets = [self._scenes[split][place] for split in splits]
            counts = ", ".join(f"{len(scenes)} {split}" for split, scenes in zip(splits, sets, strict=True))
            known = (
                "known" if sets and sets[0].load(0).mask is not None else "not known (all counts as blurred)"
            )
            notes = {scenes.note for scenes in sets if isinstance(scenes, PictureScenes) and scenes.note}
            lines.append("; ".join([f"{source.name}: {counts}, masks {known}", *sorted(notes)]))
        if "train" in splits:
            mix = "" if len(self.sources) == 1 else ", sources mixed one to one"
            turns = "flips and quarter turns" if self.augment else "not turned"
            lines.append(
                f"patches of {self.patch_size} px, {self.batch_size} a step{mix}; "
                f"with probability {self.blur_crop_probability:g} centred on blur, where masks show more "
                f"than {self.blur_crop_share:.0%}; {turns}"
            )
        return lines

    def train_dataloader(self) -> DataLoader[Sample]:
        """The micro-batches of this process, from the trainer's step on.

        Raises:
            ConfigurationError: The batch cannot be shared out, or the trainer does not fit it.
        """
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer"
        micro, accumulation = plan_batches(self.batch_size, self.micro_batch_size, trainer.world_size)
        if trainer.accumulate_grad_batches != accumulation:
            raise ConfigurationError(
                f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}, but "
                f"data.batch_size={self.batch_size} on {trainer.world_size} device(s), {micro} at a time, "
                f"needs {accumulation}"
            )
        if trainer.max_steps < 1:
            raise ConfigurationError(
                f"trainer.max_steps={trainer.max_steps}: give the number of steps to train"
            )
        sets = self._scenes["train"]
        sampler = StreamSampler(
            [len(scenes) for scenes in sets],
            seed=self.seed,
            micro_batch_size=micro,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            total_batches=trainer.max_steps * accumulation,
            first_batch=trainer.global_step * accumulation,
        )
        patches = TrainingPatches(
            sets,
            self.patch_size,
            seed=self.seed,
            blur_crop_probability=self.blur_crop_probability,
            blur_crop_share=self.blur_crop_share,
            augment=self.augment,
        )
        return self._loader(patches, batch_sampler=sampler)

    def val_dataloader(self) -> list[DataLoader[Sample]]:
        """One loader a source: this process's part of its `val`, picture by picture."""
        return self._evaluation("val")

    def test_dataloader(self) -> list[DataLoader[Sample]]:
        """One loader a source: this process's part of its `test`, picture by picture."""
        return self._evaluation("test")

    def _evaluation(self, split: Split) -> list[DataLoader[Sample]]:
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer"
        return [
            self._loader(
                EvaluationPictures(scenes),
                sampler=EvaluationSampler(len(scenes), trainer.global_rank, trainer.world_size),
            )
            for scenes in self._scenes[split]
        ]

    def _loader(
        self,
        dataset: Dataset[Sample],
        *,
        sampler: EvaluationSampler | None = None,
        batch_sampler: StreamSampler | None = None,
    ) -> DataLoader[Sample]:
        return _Loader(
            _Guarded(dataset),
            collate_fn=_collated,
            batch_size=1,
            sampler=sampler,
            batch_sampler=batch_sampler,
            num_workers=min(self.num_workers, os.cpu_count() or 1),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            # Its own generator: a loader would else draw from the one that nets draw from.
            generator=torch.Generator().manual_seed(self.seed),
        )


class _Loader(DataLoader[Sample]):
    """Raises in the training process, as it is, a user's mistake that a worker met."""

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]  # a narrower promise than torch's class
        """The batches.

        Raises:
            UserError: What a sample could not be made for.
        """
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                try:
                    raise batch
                finally:
                    del batch  # or the error would hold this frame, the frame the error, and both the workers
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing; with this Lightning knows that the stream can be resumed, which begins at its own step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing; see `state_dict`."""


class _Guarded(Dataset[Any]):
    """Samples, or in place of a sample the error: torch buries what a worker raises in a traceback."""

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: SampleKey | int) -> Sample | UserError:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


def _collated(samples: list[Sample | UserError]) -> Sample | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    batch: Sample = default_collate(samples)
    return batch


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # Ctrl-C reaches the whole process group; the training process saves first, then it ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _motion(scene: Scene) -> dict[str, Tensor]:
    maps = {"start": scene.start, "end": scene.end}
    return {
        name: torch.from_numpy(np.ascontiguousarray(displacement.transpose(2, 0, 1)))
        for name, displacement in maps.items()
        if displacement is not None
    }
