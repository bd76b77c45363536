"""What a training patch asks of a scene, so that not all of the scene need be read for it."""

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deblur_lab.data.samples import Scene, SceneSet
from deblur_lab.data.transforms import BlurredPixels, Corner, MaskPixels, crop


class SceneView(Protocol):
    """A scene of which patches are cut."""

    @property
    def name(self) -> str:
        """The scene's name."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    @property
    def blurred(self) -> BlurredPixels | None:
        """Which pixels are blurred; None where that is not known."""
        ...

    def crop(self, corner: Corner, patch_size: int) -> list[NDArray[np.uint8]]:
        """A patch of the blurry picture and of the sharp one, (P, P, 3), and of the mask, (P, P) in {0, 1}.

        The mask is all ones where it is not known. All lie inside the scene.
        """
        ...


class ViewedScenes(SceneSet, Protocol):
    """Scenes that can be looked at without being read whole."""

    def view(self, index: int) -> SceneView:
        """A view of a scene, which is the same in every epoch.

        Raises:
            DataError: The scene cannot be read, or was changed since its files were looked at.
        """
        ...


class WholeScene:
    """A view of a scene that is in memory.

    Args:
        scene: The scene.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.name = scene.name
        self.size: tuple[int, int] = scene.blurry.shape[:2]

    @cached_property
    def blurred(self) -> BlurredPixels | None:
        """See `SceneView`."""
        return None if self._scene.mask is None else MaskPixels(self._scene.mask)

    def crop(self, corner: Corner, patch_size: int) -> list[NDArray[np.uint8]]:
        """See `SceneView`."""
        scene = self._scene
        if scene.mask is None:
            pictures = crop((scene.blurry, scene.sharp), corner, patch_size)
            return [*pictures, np.ones((patch_size, patch_size), np.uint8)]
        return crop((scene.blurry, scene.sharp, scene.mask), corner, patch_size)


def view_of(scenes: SceneSet | ViewedScenes, index: int, epoch: int) -> SceneView:
    """A view of a scene of any set, which is read or made whole where the set can do no better.

    Raises:
        DataError: The scene cannot be read.
    """
    if hasattr(scenes, "view"):
        view: SceneView = scenes.view(index)
        return view
    return WholeScene(scenes.load(index, epoch))
