"""Protocols: which scores a dataset's published tables hold, and how exactly each is computed."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from deblur_lab.errors import DivergedError
from deblur_lab.images import quantise
from deblur_lab.metrics.alignment import Alignment, EccAlignment
from deblur_lab.metrics.catalogue import DEFINITIONS
from deblur_lab.metrics.definitions import PSNR_LIMIT_DB, Comparison, Definition, mean_over_images


@dataclass(frozen=True)
class Examined:
    """What there is to say of one restored image.

    Attributes:
        scores: by the names of the protocol, as `ScoringProtocol.score` has them.
        aligned: whether the alignment succeeded; None if none was asked for. Where it failed, what was to be
            aligned is scored as it is.
        definitions: the value of every definition of the catalogue, by key, NaN for one that does not exist;
            nothing if they were not asked for.
        pixels: how many the image has, by which `Definition.pool` weighs it.
    """

    scores: dict[str, float]
    aligned: bool | None = None
    definitions: dict[str, float] = field(default_factory=dict)
    pixels: int = 0


class ScoringProtocol:
    """How images of a dataset are scored, one by one; `summarise` makes a table's row of them.

    It is made of parts, each of which `describe` tells.

    Args:
        name: short, as in ``scores.json``.
        psnr: the definition of PSNR: a key of `catalogue.DEFINITIONS`.
        ssim: that of SSIM.
        also: further definitions, such as ``[weighted_psnr, weighted_ssim]``.
        alignment: brings pictures into register first; None if they are scored as they are.
        quantised: whether restored images are rounded to 8 bits before everything else.
        tlc: whether networks with global pooling are scored with the test-time local converter (TLC).

    Attributes:
        name: short, as in ``scores.json``.
        description: one line for people: which PSNR and SSIM, and the quantisation.
        tlc: as given.
        higher_is_better: of each score, by the keys and in the order of `score`.

    Raises:
        ValueError: there is no definition of that key, or it cannot be used here; says which there are.
    """

    def __init__(
        self,
        name: str,
        psnr: str = "psnr",
        ssim: str = "ssim_gaussian_valid",
        also: Sequence[str] = (),
        alignment: Alignment | None = None,
        quantised: bool = True,
        tlc: bool = False,
    ) -> None:
        self.name = name
        self.psnr = _definition("psnr", psnr, "psnr")
        self.ssim = _definition("ssim", ssim, "ssim")
        self.also = tuple(_definition(f"also[{number}]", key) for number, key in enumerate(also))
        self.alignment = alignment
        self.quantised = quantised
        self.tlc = tlc
        # Whatever their definition, these two keep their names: what is logged and compared goes by them.
        self._scores = {"psnr_db": self.psnr, "ssim": self.ssim}
        for number, definition in enumerate(self.also):
            if definition.score in self._scores:
                raise ValueError(f"also[{number}]={definition.key} is scored already: leave it out")
            self._scores[definition.score] = definition
        self.higher_is_better: Mapping[str, bool] = {
            name: definition.higher_is_better for name, definition in self._scores.items()
        }

    @property
    def description(self) -> str:
        """One line for people."""
        titles = ", ".join(definition.title for definition in self._scores.values())
        levels = "8-bit RGB" if self.quantised else "RGB as floats"
        aligned = ", aligned, where the warp is defined" if self.alignment is not None else ""
        limit = f"equal images counting as {PSNR_LIMIT_DB:g} dB"
        return f"{titles}, on {levels}{aligned}; means over images, {limit}"

    def describe(self) -> dict[str, str]:
        """Each part in a line: name, description, psnr, ssim, what else, alignment, quantisation and tlc.

        Returns:
            Plain text by part, in the order in which it is best read.
        """
        aligned = self.alignment is not None
        return {
            "name": self.name,
            "description": self.description,
            "psnr": self.psnr.described(aligned=aligned),
            "ssim": self.ssim.described(aligned=aligned),
            **{definition.key: definition.described(aligned=aligned) for definition in self.also},
            "alignment": "none" if self.alignment is None else self.alignment.description,
            "quantisation": (
                "clamped to [0, 1] and rounded to 8 bits before everything else"
                if self.quantised
                else "none: floats, clamped to [0, 1]"
            ),
            "tlc": "on for networks with global pooling" if self.tlc else "off",
        }

    def score(self, restored: Tensor, sharp: Tensor, mask: Tensor | None = None) -> dict[str, float]:
        """Score one image.

        Both images are clamped to [0, 1] first and, if the protocol says so, brought to 8-bit levels. A PSNR
        is 100 dB at most: the field's scripts give infinity for equal images, of which no mean can be taken.

        Args:
            restored: (3, H, W) or (1, 3, H, W), floating.
            sharp: of the same shape.
            mask: (1, H, W) or (1, 1, H, W), 1 = blurred; None if there is none.

        Returns:
            The scores by name; NaN for one that does not exist (no mask or an empty one, an image too small).

        Raises:
            DivergedError: the restored image holds NaN or infinite values.
            ValueError: the shapes do not fit.
        """
        return self.examine(restored, sharp, mask).scores

    def examine(
        self, restored: Tensor, sharp: Tensor, mask: Tensor | None = None, *, all_definitions: bool = False
    ) -> Examined:
        """Score one image, and say whether it could be aligned; a pure function of the image.

        Args:
            restored: (3, H, W) or (1, 3, H, W), floating.
            sharp: of the same shape.
            mask: (1, H, W) or (1, 1, H, W), 1 = blurred; None if there is none.
            all_definitions: whether to compute every definition of the catalogue as well.

        Raises:
            DivergedError: the restored image holds NaN or infinite values.
            ValueError: the shapes do not fit.
        """
        restored, sharp = _one(restored), _one(sharp)
        mask = None if mask is None else _one(mask)
        if not restored.isfinite().all():
            raise DivergedError(
                "a restored image holds values that are not finite: the weights have diverged, or "
                "the numbers overflow, which trainer.precision=32-true avoids"
            )
        _require_shapes(restored, sharp, mask)

        def compared(*, quantised: bool) -> Comparison:
            of = _to_levels if quantised else _to_floats
            return Comparison(of(restored), of(sharp), mask)

        pair = compared(quantised=self.quantised)
        own = pair
        aligned: bool | None = None
        if self.alignment is not None:
            in_register = _aligned(own, self.alignment)
            aligned = in_register is not None
            own = in_register or own
        scores = {name: float(definition.measure(own)) for name, definition in self._scores.items()}
        pixels = math.prod(sharp.shape[-2:])
        if not all_definitions:
            return Examined(scores, aligned, pixels=pixels)
        other = compared(quantised=not self.quantised)
        levels, floats = (pair, other) if self.quantised else (other, pair)
        if isinstance(self.alignment, EccAlignment) and self.alignment.is_default and self.quantised:
            of_field = own
        else:
            in_register = _aligned(levels, EccAlignment())
            aligned = in_register is not None if aligned is None else aligned
            of_field = in_register or levels
        definitions = {
            key: float(one.measure(of_field if one.aligned else levels if one.quantised else floats))
            for key, one in DEFINITIONS.items()
        }
        return Examined(scores, aligned, definitions, pixels)


class GoProProtocol(ScoringProtocol):
    """Global motion blur: the tables of GoPro. Masks are not looked at."""

    def __init__(self) -> None:
        super().__init__("gopro", ssim="ssim_matlab_volume", tlc=True)


class HideProtocol(ScoringProtocol):
    """The tables of HIDE (Shen et al. 2019), which are scored as GoPro's."""

    def __init__(self) -> None:
        super().__init__("hide", ssim="ssim_matlab_volume", tlc=True)


class RealBlurProtocol(ScoringProtocol):
    """The tables of RealBlur-J and RealBlur-R (Rim et al. 2020): aligned by ECC before they are compared."""

    def __init__(self) -> None:
        super().__init__("realblur", alignment=EccAlignment(), tlc=True)


class LocalProtocol(ScoringProtocol):
    """Local motion blur: ReLoBlur's tables (Li et al. 2023), and synthetic scenes.

    PSNR and SSIM over the whole image, and both weighted by the blur mask.
    """

    def __init__(self) -> None:
        super().__init__("local", also=("weighted_psnr", "weighted_ssim"))


@dataclass(frozen=True)
class Summary:
    """Means over images.

    Attributes:
        means: by score; NaN for a score that no image has.
        left_out: by score, how many images do not have it and are not in its mean.
        images: how many there are in all.
    """

    means: dict[str, float]
    left_out: dict[str, int]
    images: int


def summarise(rows: Sequence[Mapping[str, float]]) -> Summary:
    """Take the mean of each score over the images that have it.

    Sums are rounded once, at their end, so that the means do not depend on the order of the images, nor on
    how they were shared out to processes.

    Args:
        rows: the scores of each image, all of the same names; NaN for one that does not exist.

    Returns:
        The means and what was left out of them; nothing of either if there are no rows.
    """
    names = list(rows[0] if rows else ())
    columns = {name: [row[name] for row in rows] for name in names}
    return Summary(
        {name: mean_over_images(column) for name, column in columns.items()},
        {name: sum(map(math.isnan, column)) for name, column in columns.items()},
        len(rows),
    )


def summarise_definitions(
    rows: Sequence[Mapping[str, float]], pixels: Sequence[int] | None = None
) -> dict[str, float]:
    """Make one number of each definition, as it pools its images.

    Args:
        rows: `Examined.definitions` of each image.
        pixels: `Examined.pixels` of each; None if they are all of one size.

    Returns:
        By the definition's key; NaN for one that no image has.
    """
    return {key: one.pool([row[key] for row in rows], pixels) for key, one in DEFINITIONS.items() if rows}


def _definition(part: str, key: str, family: str | None = None) -> Definition:
    """A definition that a protocol can be made with.

    Raises:
        ValueError: there is none.
    """
    usable = [one.key for one in DEFINITIONS.values() if one.composable and family in (None, one.family)]
    if key in usable:
        return DEFINITIONS[key]
    if key in DEFINITIONS and not DEFINITIONS[key].composable:
        why = "alignment and quantised are parts of a protocol, and it takes means over images"
        raise ValueError(f"{part}={key}: {why}; there are {', '.join(usable)}")
    near = difflib.get_close_matches(str(key), usable, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"{part}={key} is no such definition: {hint}there are {', '.join(usable)}")


def _aligned(pair: Comparison, alignment: Alignment) -> Comparison | None:
    found = alignment.align(pair.restored, pair.sharp)
    if found is None:
        return None
    return Comparison(found.restored.double(), found.sharp.double(), pair.mask, found.valid.double())


def _require_shapes(restored: Tensor, sharp: Tensor, mask: Tensor | None) -> None:
    if restored.shape != sharp.shape or sharp.ndim != 3 or sharp.shape[0] != 3:
        raise ValueError(
            f"the restored and the sharp image must have one shape, (3, H, W), but they have "
            f"{tuple(restored.shape)} and {tuple(sharp.shape)}"
        )
    expected = (1, *sharp.shape[1:])
    if mask is not None and mask.shape != expected:
        raise ValueError(f"the mask must have the shape {expected}, but has {tuple(mask.shape)}")


def _one(image: Tensor) -> Tensor:
    """(1, C, H, W) as (C, H, W), on the processor, where alone sums are the same to the last digit."""
    image = image.detach().cpu()
    return image.squeeze(0) if image.ndim == 4 else image


def _to_floats(image: Tensor) -> Tensor:
    return image.double().clamp(0, 1)


def _to_levels(image: Tensor) -> Tensor:
    # Before the rounding, not after: bfloat16 cannot tell neighbouring levels apart.
    return quantise(image.double())
