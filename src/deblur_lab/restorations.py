"""What networks say of pictures: restored ones, and, where they can tell, blur and motion."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.kinds import shown

USUAL_THRESHOLD = 0.5
"""By which the mask of a network is scored that tells a probability of blur, but has no threshold itself."""


class Restoration(NamedTuple):
    """What a network says of a batch of pictures.

    Attributes:
        restored: (B, 3, H, W), not clamped.
        probability: (B, 1, H, W) in [0, 1], that a pixel is blurred; None for networks that do not say.
        motion: (B, N, 2, H, W), displacements over the exposure in px, x then y; None likewise.
        selected_share: (B,) float32 in [0, 1], the share of the pixels that the network's mask selects, of
            those that it decides about; None for networks without masks.
        dilated_share: (B,) float32, the same of the selected pixels with their eight neighbours.
    """

    restored: Tensor
    probability: Tensor | None = None
    motion: Tensor | None = None
    selected_share: Tensor | None = None
    dilated_share: Tensor | None = None


Explained = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@runtime_checkable
class Explaining(Protocol):
    """A network that can say where it sees blur and which motion."""

    def explain(self, blurry: Tensor, instants: int = 9) -> Explained:
        """Restored pictures, and what the network says of them: the fields of `Restoration`, in their order.

        Args:
            blurry: (B, 3, H, W) in [0, 1].
            instants: N, of the motion.
        """
        ...


def restore(net: nn.Module, blurry: Tensor, instants: int = 9) -> Restoration:
    """Restore pictures, with what the network can tell of blur and motion.

    Args:
        net: in eval mode; images in, restored images out.
        blurry: (B, 3, H, W) in [0, 1].
        instants: of the motion, if the network tells it; each takes 8 bytes a pixel.
    """
    if isinstance(net, Explaining):
        return Restoration(*net.explain(blurry, instants))
    return Restoration(net(blurry))


def mask_threshold(net: nn.Module) -> float | None:
    """The probability of blur above which a network's own mask selects a pixel; None: it has no masks."""
    return getattr(net, "threshold", None) if getattr(net, "mask_predictors", None) else None


def require_masks(net: nn.Module, origin: str, **wanted: object) -> None:
    """Refuse settings of a network's masks, by name, where it has none; those that are None are not set.

    Args:
        net: any.
        origin: where it comes from, as a person named it.
        wanted: the settings.

    Raises:
        ConfigurationError: one is set, and the network has nothing to set.
    """
    if mask_threshold(net) is not None:
        return
    for key, value in wanted.items():
        if value is not None:
            raise ConfigurationError(
                f"{key}={shown(value)}: the {type(net).__name__} of {origin} predicts no mask of the blur: "
                f"leave {key} out"
            )
