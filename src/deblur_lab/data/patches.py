"""The samples of training and of evaluation: patches of scenes, and whole pictures, as tensors."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deblur_lab.data.loading import Sample
from deblur_lab.data.samples import SampleKey, Scene, SceneSet
from deblur_lab.data.transforms import (
    blur_aware_corner,
    random_corner,
    randomly_flipped,
    randomly_turned,
    require_patch,
)
from deblur_lab.data.views import view_of
from deblur_lab.errors import DataError
from deblur_lab.images import to_tensor

_PATCH_SALT = 2  # keeps patches apart from what else is drawn from (seed, epoch, dataset, index)
_REPLACEMENT_SALT = 3  # likewise
_REPLACEMENTS = 20  # that are tried; where as many fail, something else is wrong than a picture


class TrainingPatches(Dataset[Sample]):
    """Patches of scenes, each a function of the seed and of its key alone.

    A sample holds `blurry` and `sharp`, (3, P, P) float32 in [0, 1]; `mask`, (1, P, P) float32, 1 = blurred,
    all ones where it is not known, as `mask_known`, () bool, says; `seed`, () int64, for what is drawn at
    random further on; and `name`. If unreadable pictures are skipped, `skipped` is what is wrong with the one
    that this sample stands in for, or empty.

    Of scenes that can be looked at without being read whole (`views.ViewedScenes`), no more is read than a
    patch needs; the samples are the same.

    Args:
        scenes: The scenes of each dataset.
        patch_size: P.
        seed: The seed.
        blur_crop_probability: See `transforms.blur_aware_corner`; not for scenes without a mask.
        blur_crop_share: Likewise.
        augment: Whether patches are flipped and turned by quarters; "flips": flipped alone.
        skip_unreadable: Whether another picture of the dataset, drawn from the same seed and key, stands in
            for one that cannot be used.
    """

    def __init__(
        self,
        scenes: Sequence[SceneSet],
        patch_size: int,
        *,
        seed: int,
        blur_crop_probability: float = 0.5,
        blur_crop_share: float = 0.05,
        augment: bool | Literal["flips"] = True,
        skip_unreadable: bool = False,
    ) -> None:
        self.scenes = tuple(scenes)
        self.patch_size = patch_size
        self.seed = seed
        self.blur_crop_probability = blur_crop_probability
        self.blur_crop_share = blur_crop_share
        self.augment = augment
        self.skip_unreadable = skip_unreadable

    def name(self, key: SampleKey) -> str:
        """The name of a key's picture, without reading it."""
        return self.scenes[key.dataset].name(key.index)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of a key, or of what stands in for it.

        Raises:
            DataError: The picture cannot be read, or is smaller than a patch; and so are all that were tried
                in its place.
        """
        if not self.skip_unreadable:
            return self._read(key)
        try:
            return self._read(key) | {"skipped": ""}
        except DataError as error:
            wrong = str(error)
        rng = np.random.default_rng([self.seed, key.epoch, key.dataset, key.index, _REPLACEMENT_SALT])
        for index in rng.permutation(len(self.scenes[key.dataset]))[:_REPLACEMENTS]:
            try:
                return self._read(key._replace(index=int(index))) | {"skipped": wrong}
            except DataError:
                continue
        raise DataError(f"{wrong}; nor can any of the {_REPLACEMENTS} others that were tried in its place")

    def _read(self, key: SampleKey) -> Sample:
        scene = view_of(self.scenes[key.dataset], key.index, key.epoch)
        rng = np.random.default_rng([self.seed, key.epoch, key.dataset, key.index, _PATCH_SALT])
        noise_seed = int(rng.integers(2**63))
        height, width = scene.size
        require_patch(scene.name, height, width, self.patch_size)
        if scene.blurred is None:
            corner = random_corner(height, width, self.patch_size, rng)
        else:
            corner = blur_aware_corner(
                scene.blurred,
                self.patch_size,
                rng,
                probability=self.blur_crop_probability,
                share=self.blur_crop_share,
            )
        maps = scene.crop(corner, self.patch_size)
        if self.augment:
            laid_out = randomly_flipped if self.augment == "flips" else randomly_turned
            maps = laid_out(maps, rng)
        blurry, sharp, mask = maps
        return {
            "blurry": to_tensor(blurry),
            "sharp": to_tensor(sharp),
            "mask": to_tensor(mask),
            "mask_known": torch.tensor(scene.blurred is not None),
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

    def name(self, index: int) -> str:
        """The name of a picture, without reading it."""
        return self.scenes.name(index)

    def __getitem__(self, index: int) -> Sample:
        """The picture of an index.

        Raises:
            DataError: The picture cannot be read.
        """
        scene = self.scenes.load(index)
        # That all of every picture counts as blurred, as GoPro's in training, is no truth to score by.
        known = scene.mask is not None and not getattr(self.scenes, "blurred_all_over", False)
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


def _motion(scene: Scene) -> dict[str, Tensor]:
    maps = {"start": scene.start, "end": scene.end}
    return {
        name: torch.from_numpy(np.ascontiguousarray(displacement.transpose(2, 0, 1)))
        for name, displacement in maps.items()
        if displacement is not None
    }
