"""What the parts of `data` hand to each other: a scene, a set of scenes, and where they come from."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Scene:
    """One picture as it was taken and as it should have been, and what is known of its blur.

    Attributes:
        name: The scene's name, unique within its set; fit for a file name but for slashes.
        blurry: (H, W, 3) uint8 RGB.
        sharp: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 1 where the picture is blurred and 0 elsewhere; None where that is not known.
        start: (H, W, 2) float32, x then y: where the content that is at a pixel at mid-exposure is when the
            exposure starts, minus here, in pixels; None where that is not known.
        end: The same for the end of the exposure.
    """

    name: str
    blurry: NDArray[np.uint8]
    sharp: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None = None
    start: NDArray[np.float32] | None = None
    end: NDArray[np.float32] | None = None


@runtime_checkable
class SceneSet(Protocol):
    """The scenes of one split, in an order that never changes."""

    def __len__(self) -> int:
        """How many scenes there are."""
        ...

    def name(self, index: int) -> str:
        """The name of a scene, without reading it."""
        ...

    def load(self, index: int, epoch: int = 0) -> Scene:
        """Read or make a scene; what is made may differ from epoch to epoch, what is read never does."""
        ...


@runtime_checkable
class Source(Protocol):
    """A dataset: its name, the protocol by which it is scored, and its splits.

    Attributes:
        name: The dataset's name, as in `reloblur`.
        protocol: The object that scores restored pictures; `data` only hands it on.
    """

    name: str
    protocol: Any

    def scenes(self, split: Split) -> SceneSet:
        """The scenes of a split.

        Raises:
            DataError: The split is missing or empty.
        """
        ...

    def splits(self) -> tuple[Split, ...]:
        """The splits that there are, without those that another stands in for; in the order of `Split`.

        Raises:
            DataError: The dataset is missing.
        """
        ...


class SampleKey(NamedTuple):
    """Which training sample to make: a sample is a function of this and of the seed alone."""

    dataset: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which no key needs
    epoch: int
