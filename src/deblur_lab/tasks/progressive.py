"""Progressive training: one sub-decoder after the other, over a frozen encoder (AIBNet, section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from deblur_lab.checkpoints import RECORD_KEY, read_checkpoint
from deblur_lab.errors import CheckpointError, ConfigurationError
from deblur_lab.images import quoted
from deblur_lab.losses import ReconstructionLoss
from deblur_lab.models import AIBNet, NAFNet, UFPNet
from deblur_lab.models.published import (
    describe_misfits,
    encoder_settings,
    looks_like,
    weights_of_encoder,
)
from deblur_lab.ranges import Natural, OpenShare
from deblur_lab.tasks.base import RestorationTask
from deblur_lab.tasks.kernel_estimation import KernelEstimation
from deblur_lab.tasks.motion_prior import FlowPrior
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory

_KEY = "model.encoder.checkpoint"
# The stages of UFPNet's training that leave its encoder as it was made.
_NO_ENCODERS = (FlowPrior.__name__, KernelEstimation.__name__)


@dataclass(frozen=True)
class EncoderStart:
    """From what an AIBNet's encoder starts, and whether it is trained (AIBNet, section 4.3.3, table 5).

    Attributes:
        checkpoint: of a net of the encoder's kind and size, released or ours; or of an AIBNet with such an
            encoder.
        untrained: start from nothing, and train the encoder with the first sub-decoder. It must be said, for
            it is not the paper's way.
        frozen: whether the encoder stays as it is; None: if it comes from a checkpoint.
    """

    checkpoint: str | None = None
    untrained: bool = False
    frozen: bool | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None and self.untrained:
            raise ConfigurationError(
                f"model.encoder.untrained=true and {_KEY}={self.checkpoint} exclude each other: give one"
            )

    @property
    def stays(self) -> bool:
        """Whether the encoder is frozen."""
        return not self.untrained if self.frozen is None else self.frozen


class ProgressiveDeblurring(RestorationTask):
    """Trains the last sub-decoder of an AIBNet, or all of them at once (section 3.4, table 6).

    One stage of progressive training is one such task: a net with one sub-decoder more than before, of which
    only the last is trained. All before it are frozen: without gradients, in eval mode, bit by bit as they
    came, and nothing of what they compute is kept for the way back.

    Assumes:
        - an encoder that is trained (table 5) is trained with the first sub-decoder, and frozen with it.
        - a UFPNet's flow is a prior and never trained here; its kernel estimator is only if all of the
          encoder starts from nothing.
        - where all sub-decoders are trained at once, eq. 6 is summed over what each restores, as MPRNet,
          whose fusion is compared in table 6, does.

    Args:
        net: with one sub-decoder or more.
        loss: eq. 6, each part with its weight.
        optimizer: makes the optimizer from the parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        encoder: from what the encoder starts.
        trained: the sub-decoders that are trained: ``last``, or ``all``.
        ema_decay: as in `RestorationTask`; off in the paper.
        compile_blocks: as in `TrainingTask`.
        max_skipped_steps: as in `TrainingTask`.

    Raises:
        ConfigurationError: `trained` is neither.
    """

    def __init__(
        self,
        net: AIBNet,
        loss: ReconstructionLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        encoder: EncoderStart,
        trained: Literal["last", "all"] = "last",
        ema_decay: OpenShare | None = None,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        if trained not in ("last", "all"):
            raise ConfigurationError(f"model.trained={trained}: last or all is expected")
        self.encoder_start = encoder
        self.trained = trained
        super().__init__(net, loss, optimizer, scheduler, ema_decay, compile_blocks, max_skipped_steps)

    def frozen_parts(self) -> Sequence[nn.Module]:
        """The encoder, or what of it is always frozen; and the sub-decoders before the last."""
        net = cast(AIBNet, self.net)
        earlier = list(net.sub_decoders)[:-1] if self.trained == "last" else []
        if earlier or self.encoder_start.stays:
            return [net.encoder, *earlier]
        if not isinstance(net.encoder, UFPNet):
            return []
        fixed: list[nn.Module] = [net.encoder.flow]
        return fixed if self.encoder_start.untrained else [*fixed, net.encoder.kernel_extra]

    def check_start(self, init_from: str | None) -> None:
        """Refuse to begin with an encoder, or sub-decoders, that were never trained and never will be.

        Raises:
            ConfigurationError: as it says.
        """
        net, encoder = cast(AIBNet, self.net), self.encoder_start
        if init_from is not None:
            return
        if encoder.checkpoint is None and not encoder.untrained:
            kind = type(net.encoder).__name__
            raise ConfigurationError(
                f"{_KEY} is not set: AIBNet would start from an untrained {kind}. Name a checkpoint: the "
                f"released one, or train your own by `python -m deblur_lab.train model={kind.lower()} "
                "data=...`; or say model.encoder.untrained=true to train the encoder from nothing with the "
                "first sub-decoder. To try it out: experiment=aibnet/small, or aibnet/from_nothing"
            )
        count = len(net.sub_decoders)
        if self.trained == "last" and count > 1:
            raise ConfigurationError(
                f"model.net.sub_decoders={count}: only the last is trained, and those before it would stay "
                f"untrained: train them first (model=aibnet_b and aibnet_l do, in stages), name their "
                "checkpoint by init_from=, or say model.trained=all to train all at once"
            )

    def start(self, init_from: Path | None) -> list[str]:
        """Fill the net from `init_from`, or else its encoder from its checkpoint.

        Raises:
            CheckpointError: a checkpoint cannot be read or does not fit.
            ConfigurationError: there is nothing to start from.
        """
        lines = super().start(init_from)
        encoder = cast(AIBNet, self.net).encoder
        if init_from is not None:
            named = self.encoder_start.checkpoint
            return [*lines, *([f"its encoder is taken, and not that of {named}"] if named else [])]
        kind = type(encoder).__name__
        if self.encoder_start.checkpoint is None:
            trained = "which is not trained either" if self.encoder_start.stays else "which is trained too"
            return [f"starting from an untrained {kind} as the encoder, {trained}"]
        path = Path(self.encoder_start.checkpoint)
        fill_encoder(encoder, path)
        return [f"encoder: the {kind} of {path}, {'frozen' if self.encoder_start.stays else 'trained too'}"]

    def loss_parts(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of eq. 6 on a training batch, unweighted."""
        net, loss = cast(AIBNet, self.net), cast(ReconstructionLoss, self.loss)
        if self.trained == "last":
            parts: dict[str, Tensor] = loss(net(batch["blurry"], batch["seed"]), batch["sharp"])
            return parts
        restored = net.restorations(batch["blurry"], batch["seed"])
        each = [loss(one, batch["sharp"]) for one in restored]
        return {name: torch.stack([of_one[name] for of_one in each]).sum() for name in each[0]}


def fill_encoder(encoder: NAFNet, path: Path) -> None:
    """Fill an encoder with the weights of a whole net's file, or of an AIBNet's.

    Args:
        encoder: a UFPNet or a NAFNet without its decoder.
        path: of the checkpoint.

    Raises:
        CheckpointError: it cannot be read, is of another kind or of another size; says what was found and
            what was expected.
    """
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(f"{_KEY}: {error}") from error
    kind = str(_recorded_task(checkpoint)).rpartition(".")[2]
    if kind in _NO_ENCODERS:
        raise CheckpointError(
            f"{_KEY}={quoted(path)} is of a stage of UFPNet's training ({kind}) in which the encoder was not "
            "trained yet: name that of the whole, or of its last stage"
        )
    weights = weights_of_encoder(checkpoint)
    own = encoder.state_dict()
    told = describe_misfits(own, weights)
    if told:
        remedy = _remedy(encoder, encoder_settings(checkpoint))
        expected = f"a {type(encoder).__name__} of width {encoder.width}"
        raise CheckpointError(
            f"{_KEY}={quoted(path)}: {expected} is expected, and the file {looks_like(checkpoint)}: "
            f"{remedy or f'of {len(own)} tensors, {told}'}"
        )
    encoder.load_state_dict(weights)


def _recorded_task(checkpoint: Mapping[str, Any]) -> object:
    """The class that trained a checkpoint of ours; None if the file does not say."""
    node: object = checkpoint
    for key in (RECORD_KEY, "config", "model", "_target_"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _remedy(encoder: NAFNet, found: Mapping[str, object]) -> str:
    """The settings by which the encoder becomes the one in the file; empty if that does not help."""
    is_guided = "kernel_size_px" in found
    settings = []
    if isinstance(encoder, UFPNet) != is_guided:
        settings.append(f"_target_=deblur_lab.models.{'UFPNet' if is_guided else 'NAFNet'}")
    # UFPNet's own kernels, where the encoder is none.
    now = {"kernel_size_px": 19, "estimator_width": 64, **encoder_settings(encoder.state_dict())}
    for name, there in found.items():
        if name == "decoder_blocks" or there == now[name]:
            continue
        settings.append(f"{name}={str(there).replace(' ', '')}")
        if name == "encoder_blocks" and isinstance(there, list) and len(there) != encoder.levels:
            settings.append(f"decoder_blocks={str([1] * len(there)).replace(' ', '')}")
    if not found or not settings:
        return ""
    typed = [
        f"{'+' if part.startswith(('kernel', 'estimator')) else ''}model.net.encoder.{part}"
        for part in settings
    ]
    return "for that, give " + " ".join(f"'{part}'" if "[" in part else part for part in typed)
