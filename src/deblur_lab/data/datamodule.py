"""The one DataModule: training patches from several sources, and whole pictures to score."""

from collections.abc import Sequence
from typing import Literal

import lightning as L

from deblur_lab.data.checking import refuse
from deblur_lab.data.loading import SampleLoader
from deblur_lab.data.patches import EvaluationPictures, TrainingPatches
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.prepared.scenes import PreparedScenes, require_setting, tiles_for
from deblur_lab.data.samples import SceneSet, Source, Split
from deblur_lab.data.sampling import EvaluationSampler, StreamSampler
from deblur_lab.data.synthetic import SyntheticScenes
from deblur_lab.data.transforms import require_patch
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.ranges import Count, Natural, Seconds, Share

_SPLITS_OF_STAGE: dict[str, tuple[Split, ...]] = {
    # A run scores the test split when it is done: what is wrong with that is found before it starts.
    "fit": ("train", "val", "test"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}
_LOCAL = "masks known"


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


def planned(
    trainer: L.Trainer | None, batch_size: int, micro_batch_size: int | None
) -> tuple[L.Trainer, int, int]:
    """The trainer that a module of data is attached to, and what `plan_batches` says for it.

    Raises:
        ConfigurationError: The batch cannot be shared out, or the trainer does not fit it.
    """
    assert trainer is not None, "Lightning attaches the trainer"
    micro, accumulation = plan_batches(batch_size, micro_batch_size, trainer.world_size)
    if trainer.accumulate_grad_batches != accumulation:
        raise ConfigurationError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}, but "
            f"data.batch_size={batch_size} on {trainer.world_size} device(s), {micro} at a time, "
            f"needs {accumulation}"
        )
    if trainer.max_steps < 1:
        raise ConfigurationError(f"trainer.max_steps={trainer.max_steps}: give the number of steps to train")
    return trainer, micro, accumulation


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
        worker_timeout_s: How long to wait for a batch before the worker that reads it counts as hung, in
            seconds; 0 waits on.
        skip_unreadable: Whether training goes on without pictures that cannot be used; scoring never does.
        seed: What order, patches and turns are drawn from.
        blur_crop_probability: How often a patch is centred on a blurred pixel, where there are masks.
        blur_crop_share: ... and only if more than this share of the picture is blurred.
        augment: Whether patches are flipped and turned by quarters; "flips": flipped alone.
        check_files: Whether all files are checked before anything else happens; `full` decodes every one,
            which finds damage in the middle of a JPEG.
        prepared: Whether training patches are read from tiles that `deblur_lab.data.prepare` wrote: `auto`,
            of the pairs that have such in the dataset's folder that fit; a folder of tiles, which must fit
            (`prepared.scenes.tiles_for`); or false. The samples are the same.

    Raises:
        ConfigurationError: A number is out of range, or two sources have one name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        patch_size: Count = 256,
        batch_size: Count = 8,
        micro_batch_size: Count | None = None,
        num_workers: Natural = 0,
        worker_timeout_s: Seconds = 300.0,
        skip_unreadable: bool = False,
        seed: Natural = 0,
        blur_crop_probability: Share = 0.5,
        blur_crop_share: Share = 0.05,
        augment: bool | Literal["flips"] = True,
        check_files: bool | Literal["full"] = True,
        prepared: bool | str = "auto",
    ) -> None:
        super().__init__()
        # With more processes than pictures some have none to score, which is as it should be.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.sources = tuple(sources)
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.num_workers = num_workers
        self.worker_timeout_s = worker_timeout_s
        self.skip_unreadable = skip_unreadable
        self.seed = seed
        self.blur_crop_probability = blur_crop_probability
        self.blur_crop_share = blur_crop_share
        self.augment = augment
        self.check_files = check_files
        self.prepared = require_setting(prepared)
        self._tiles: dict[int, PreparedScenes] = {}  # by the place of their source
        self._of_tiles: list[str] = []  # what there is to say of them
        self._scenes: dict[Split, list[SceneSet]] = {}
        self._unreadable: list[str] = []
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"data.sources={names}: give one or more, each with its own name")
        if seed < 0:
            raise ConfigurationError(f"seed={seed}: give 0 or more")
        smallest_of = {"patch_size": 1, "batch_size": 1, "num_workers": 0, "worker_timeout_s": 0}
        for key, smallest in smallest_of.items():
            if getattr(self, key) < smallest:
                raise ConfigurationError(f"data.{key}={getattr(self, key)}: give {smallest} or more")
        for key in ("blur_crop_probability", "blur_crop_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigurationError(f"data.{key}={getattr(self, key)}: give a number from 0 to 1")

    def setup(self, stage: str) -> None:
        """Find the scenes that a stage needs, and check their files; what was found before is kept.

        Raises:
            ConfigurationError: There are no pictures that tiles could be of.
            DataError: A split is missing or empty; synthetic scenes are smaller than a training patch; tiles
                that were asked for do not fit; or all that is wrong with the files, in several lines.
        """
        missing = [split for split in _SPLITS_OF_STAGE[stage] if split not in self._scenes]
        found: dict[Split, list[SceneSet]] = {
            split: [source.scenes(split) for source in self.sources] for split in missing
        }
        for source, scenes in zip(self.sources, found.get("train", []), strict=False):
            if isinstance(scenes, SyntheticScenes):  # no files, and all of one size
                width_px, height_px = scenes.size_px
                require_patch(f"each scene of {source.name}", height_px, width_px, self.patch_size)
        if "train" in found:
            self._find_tiles(found["train"])
        problems: dict[str, None] = {}  # a set in order: `val` may be a part of `test`
        for sets in found.values():
            for scenes in sets:
                if isinstance(scenes, PictureScenes):
                    problems |= dict.fromkeys(scenes.faults)
        if self.check_files:
            for split, sets in found.items():
                smallest_px = self.patch_size if split == "train" else 1
                for place, scenes in enumerate(sets):
                    if isinstance(scenes, PictureScenes):
                        full = self.check_files == "full"
                        read = self._tiles.get(place, scenes) if split == "train" else scenes
                        wrong = read.problems(max(self.num_workers, 4), smallest_px, full=full)
                        if split == "train" and self.skip_unreadable:
                            self._unreadable += wrong
                        else:
                            problems |= dict.fromkeys(wrong)
        refuse(list(problems))
        self._scenes |= found

    def _find_tiles(self, sets: Sequence[SceneSet]) -> None:
        """Find out of which sets tiles are read."""
        self._tiles, self._of_tiles = {}, []
        files = [(place, scenes) for place, scenes in enumerate(sets) if isinstance(scenes, PictureScenes)]
        if not files and self.prepared not in ("auto", None):
            raise ConfigurationError(
                f"data.prepared={self.prepared} has no effect: {self.sources[0].name} is not read from files"
            )
        for place, scenes in files:
            name = self.sources[place].name
            threads = max(self.num_workers, 4)
            tiles, line = tiles_for(
                name, scenes, self.prepared, threads, skip_unreadable=self.skip_unreadable
            )
            if tiles is not None:
                self._tiles[place] = tiles
            if line:
                self._of_tiles.append(line)

    def describe(self, stage: str = "fit") -> list[str]:
        """What a stage works on, in lines to print at its start; calls `setup`.

        Raises:
            DataError: As `setup`.
        """
        self.setup(stage)
        splits = _SPLITS_OF_STAGE[stage]
        lines = []
        local = False
        for place, source in enumerate(self.sources):
            sets = [self._scenes[split][place] for split in splits]
            counts = ", ".join(f"{len(scenes)} {split}" for split, scenes in zip(splits, sets, strict=True))
            masks = _masks_of(sets[0], skip=self.skip_unreadable) if sets else ""
            local |= masks == _LOCAL
            notes = {scenes.note for scenes in sets if isinstance(scenes, PictureScenes) and scenes.note}
            lines.append("; ".join([f"{source.name}: {counts}, {masks}", *sorted(notes)]))
        if "train" in splits:
            mix = "" if len(self.sources) == 1 else ", sources mixed one to one"
            centred = (
                f"with probability {self.blur_crop_probability:g} centred on blur, where masks show more "
                f"than {self.blur_crop_share:.0%}; "
                if local
                else ""  # where all is blurred, everywhere
            )
            ways = {"flips": "flips", True: "flips and quarter turns", False: "not turned"}
            turns = ways[self.augment]
            lines.append(f"patches of {self.patch_size} px, {self.batch_size} a step{mix}; {centred}{turns}")
            lines += self._of_tiles
            if self._unreadable:
                lines.append(f"skipped, as data.skip_unreadable=true ({len(self._unreadable)}):")
                lines += [f"  {wrong}" for wrong in self._unreadable]
        return lines

    def files_of(self, name: str) -> list[str]:
        """The files of the training samples of a name; none if they are made, not read."""
        return [
            str(file)
            for scenes in self._scenes.get("train", [])
            if isinstance(scenes, PictureScenes)
            for pair in scenes.pairs
            if pair.name == name
            for file in (pair.blurry, pair.sharp, pair.mask)
            if file is not None
        ]

    def train_dataloader(self) -> SampleLoader:
        """The micro-batches of this process, from the trainer's step on.

        Raises:
            ConfigurationError: The batch cannot be shared out, or the trainer does not fit it.
        """
        trainer, micro, accumulation = planned(self.trainer, self.batch_size, self.micro_batch_size)
        sets = [self._tiles.get(place, scenes) for place, scenes in enumerate(self._scenes["train"])]
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
            skip_unreadable=self.skip_unreadable,
        )
        return SampleLoader(
            patches,
            batch_sampler=sampler,
            num_workers=self.num_workers,
            timeout_s=self.worker_timeout_s,
            seed=self.seed,
        )

    def val_dataloader(self) -> list[SampleLoader]:
        """One loader a source: this process's part of its `val`, picture by picture."""
        return self._evaluation("val")

    def test_dataloader(self) -> list[SampleLoader]:
        """One loader a source: this process's part of its `test`, picture by picture."""
        return self._evaluation("test")

    def _evaluation(self, split: Split) -> list[SampleLoader]:
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer"
        return [
            SampleLoader(
                EvaluationPictures(scenes),
                sampler=EvaluationSampler(len(scenes), trainer.global_rank, trainer.world_size),
                num_workers=self.num_workers,
                timeout_s=self.worker_timeout_s,
                seed=self.seed,
            )
            for scenes in self._scenes[split]
        ]


def _masks_of(scenes: SceneSet, *, skip: bool) -> str:
    """What is known of where the pictures of a dataset are blurred, by the first of them that can be read.

    Raises:
        DataError: That is not the very first, and pictures are not to be skipped; or none can be read.
    """
    for index in range(len(scenes)):
        try:
            mask = scenes.load(index).mask
            break
        except DataError:
            if not skip or index == len(scenes) - 1:
                raise
    if mask is None:
        return "masks not known (all counts as blurred)"
    return "blurred all over" if mask.all() else _LOCAL
