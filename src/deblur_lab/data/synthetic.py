"""A dataset that is made up as it is read: scenes with known blur, from photographs that need no download."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np

from deblur_lab.data.photographs import pictures
from deblur_lab.data.samples import Scene, Split
from deblur_lab.data.scenes import SceneKind
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.ranges import Natural, Range, Weight

SMALLEST_SIZE_PX = 16
SidePx = Annotated[int, Range(SMALLEST_SIZE_PX)]

# Which stream of random numbers a split draws from.
_STREAMS: Mapping[Split, int] = MappingProxyType({"train": 0, "val": 1, "test": 2})


class SyntheticScenes:
    """The scenes of one split, each a function of the settings, the seed, the split, the epoch and its index.

    Args:
        kind: Makes the scenes.
        split: Whose pictures they are cut from.
        count: How many there are.
        width_px: Width of each.
        height_px: Height of each.
        seed: Of all draws.
        fresh: Make other scenes in each epoch; otherwise the epoch changes nothing.
        cache_bytes: How much memory made scenes may take in this process; only used where not fresh.

    Attributes:
        size_px: Width and height of each.
        made_up: Always: scores on them are never those on a real dataset.
    """

    made_up = True

    def __init__(
        self,
        kind: SceneKind,
        split: Split,
        count: int,
        *,
        width_px: int,
        height_px: int,
        seed: int,
        fresh: bool = False,
        cache_bytes: int = 0,
    ) -> None:
        self._kind = kind
        self._split: Split = split
        self._count = count
        self.size_px = (width_px, height_px)
        self._seed = seed
        self._fresh = fresh
        self._free_bytes = cache_bytes
        self._made: dict[int, Scene] = {}

    def __len__(self) -> int:
        """How many scenes there are."""
        return self._count

    def name(self, index: int) -> str:
        """The name of a scene, without making it.

        Raises:
            IndexError: there is no such scene.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}")
        return f"{self._split}-{index:06d}"

    def load(self, index: int, epoch: int = 0) -> Scene:
        """Make a scene, or take it from memory if it was made before in this process.

        Raises:
            IndexError: there is no such scene.
        """
        name = self.name(index)
        if index in self._made:
            return self._made[index]
        epoch = epoch if self._fresh else 0
        rng = np.random.default_rng([self._seed, _STREAMS[self._split], epoch, index])
        scene = self._kind.scene(name, rng, pictures(self._split), *self.size_px)
        if not self._fresh:
            self._keep(index, scene)
        return scene

    def _keep(self, index: int, scene: Scene) -> None:
        parts = (scene.blurry, scene.sharp, scene.mask, scene.start, scene.end)
        size_bytes = sum(part.nbytes for part in parts if part is not None)
        # When memory is full what is there stays: to drop some of it for others would, over epochs in random
        # order, make as many scenes anew and cost more.
        if size_bytes > self._free_bytes:
            return
        for part in parts:
            if part is not None:
                part.flags.writeable = False  # it is handed out again
        self._free_bytes -= size_bytes
        self._made[index] = scene

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a data worker that is started afresh: all but the scenes made so far."""
        kept = sum(
            part.nbytes
            for scene in self._made.values()
            for part in (scene.blurry, scene.sharp, scene.mask, scene.start, scene.end)
            if part is not None
        )
        return self.__dict__ | {"_made": {}, "_free_bytes": self._free_bytes + kept}


class SyntheticSource:
    """Synthetic scenes as a dataset: see `deblur_lab.data.scenes` for the kinds.

    The splits are cut from different photographs. The scenes of `val` and `test` are the same in every epoch.

    Args:
        kind: Makes the scenes.
        protocol: The object that scores restored pictures; only handed on.
        name: The dataset's name.
        size_px: Side of the square scenes, or their width and height.
        train_scenes: How many scenes an epoch of training has.
        val_scenes: How many scenes validation has.
        test_scenes: How many scenes the test has.
        seed: Of all scenes.
        fresh_scenes: Train on other scenes in each epoch, rather than on the same ones.
        cache_mb: How much memory the scenes of a split may take in each process once made; scenes that are
            fresh in each epoch are not kept.

    Raises:
        ConfigurationError: a value is out of range.
    """

    def __init__(
        self,
        kind: SceneKind,
        protocol: Any,  # noqa: ANN401 - opaque here
        name: str = "synthetic",
        size_px: SidePx | Sequence[SidePx] = 256,
        train_scenes: Natural = 1000,
        val_scenes: Natural = 32,
        test_scenes: Natural = 64,
        seed: Natural = 0,
        fresh_scenes: bool = True,
        cache_mb: Weight = 256.0,
    ) -> None:
        sides = (size_px, size_px) if isinstance(size_px, int) else tuple(size_px)
        if len(sides) != 2 or min(sides) < SMALLEST_SIZE_PX:
            raise ConfigurationError(
                f"size_px={size_px} must be one number or two, width and height, from {SMALLEST_SIZE_PX} on"
            )
        counts: dict[Split, int] = {"train": train_scenes, "val": val_scenes, "test": test_scenes}
        for key, value in (*((f"{split}_scenes", count) for split, count in counts.items()), ("seed", seed)):
            if value < 0:
                raise ConfigurationError(f"{key}={value} must not be negative")
        if cache_mb < 0:
            raise ConfigurationError(f"cache_mb={cache_mb} must not be negative")
        self.name = name
        self.protocol = protocol
        self._sets: dict[Split, SyntheticScenes] = {
            split: SyntheticScenes(
                kind,
                split,
                count,
                width_px=sides[0],
                height_px=sides[1],
                seed=seed,
                fresh=fresh_scenes and split == "train",
                cache_bytes=int(cache_mb * 2**20),
            )
            for split, count in counts.items()
        }

    def scenes(self, split: Split) -> SyntheticScenes:
        """The scenes of a split.

        Raises:
            DataError: the split has no scenes.
        """
        scenes = self._sets[split]
        if len(scenes) == 0:
            raise DataError(f"{self.name} has no scenes to {split} on: set {split}_scenes to 1 or more")
        return scenes

    def splits(self) -> tuple[Split, ...]:
        """The splits that have scenes."""
        return tuple(split for split, scenes in self._sets.items() if len(scenes) > 0)
