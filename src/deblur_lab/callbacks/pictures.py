"""Test images laid out side by side."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from deblur_lab.callbacks.findings import USUAL_THRESHOLD
from deblur_lab.callbacks.rows import Row, datamodule_of, gathered
from deblur_lab.callbacks.scores import Scores
from deblur_lab.images import to_uint8, write_png
from deblur_lab.inside import Look, insight, look_inside
from deblur_lab.logs import Exhibit, dashboards
from deblur_lab.models import AIBNet
from deblur_lab.pictures import (
    Picture,
    attention_figure,
    blur_figure,
    comparison_panel,
    feature_figure,
    motion_figure,
    sharpening_figure,
)
from deblur_lab.tasks import (
    EvaluationTask,
    GivenPictures,
    Restoration,
    RestorationTask,
    mask_threshold,
    restore,
)
from deblur_lab.writing import writing


class Pictures(Callback):
    """Lays test images out side by side: blurry, restored, sharp, mask, motion; and shows them on dashboards.

    Of an AIBNet, three more pictures of each image show what its sub-decoders do: how the image becomes
    sharper, features, and what the masks keep.

    Args:
        folder: for the PNG files, named as the images.
        count: of images, spread evenly over each dataset.
        scores: which scores the same images, and stands before this among the callbacks; None to score those
            that are drawn here.
    """

    def __init__(self, folder: Path, count: int = 8, scores: Scores | None = None) -> None:
        self.folder = folder
        self.count = count
        self.scores = scores
        self._rows: list[Row] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        source = datamodule_of(trainer).sources[dataloader_idx]
        total = len(source.scenes("test"))
        chosen = range(total) if total <= self.count else {n * total // self.count for n in range(self.count)}
        positions = [position for position, index in enumerate(batch["index"].tolist()) if index in chosen]
        if positions:
            # Only these are asked for blur and motion too, which costs memory and time.
            net = cast(EvaluationTask | RestorationTask, pl_module).evaluated_net
            given = isinstance(pl_module, GivenPictures)
            said = outputs if given else restore(net, batch["blurry"])
            own = mask_threshold(net)
            threshold = USUAL_THRESHOLD if own is None else own
            look = look_inside(net, batch["blurry"][positions]) if isinstance(net, AIBNet) else None
            for number, position in enumerate(positions):
                if look is not None:
                    self._draw_inside(cast(AIBNet, net), look, number, batch, position, source)
                exhibit = self._draw(said, batch, position, source, threshold, dataloader_idx)
                if dashboards(trainer.loggers):
                    index = int(batch["index"][position])
                    self._rows.append({"dataset": dataloader_idx, "index": index, "exhibit": exhibit})

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; all processes' images to the dashboards, if there are any."""
        told = dashboards(trainer.loggers)
        if told:
            rows, self._rows = gathered(self._rows), []
            for dashboard in told:
                # As Lightning counts them: the first step is 0.
                dashboard.log_pictures([row["exhibit"] for row in rows], max(0, trainer.global_step - 1))

    def _draw(
        self,
        outputs: Restoration,
        batch: Mapping[str, Any],
        position: int,
        source: Any,  # noqa: ANN401
        threshold: float,
        dataset: int,
    ) -> Exhibit:
        def one(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[position].float().cpu()

        restored, blurry, sharp = (
            cast(Tensor, one(t)) for t in (outputs.restored, batch["blurry"], batch["sharp"])
        )
        known = bool(batch["mask_known"][position])
        mask = one(batch["mask"]) if known else None
        name = batch["name"][position]
        row = None if self.scores is None else self.scores.row_of(dataset, int(batch["index"][position]))
        if row is None:
            before = source.protocol.score(blurry, sharp, mask)
            after = source.protocol.score(restored, sharp, mask)
        else:
            before, after = row["blurry"], row["restored"]
        probability, motion = one(outputs.probability), one(outputs.motion)
        ends = [cast(Tensor, one(batch[end])) for end in ("start", "end") if end in batch]
        panel = comparison_panel(
            blurry,
            restored,
            sharp,
            mask=mask,
            probability=probability,
            motion=motion,
            true_motion=torch.stack(ends) if motion is not None and len(ends) == 2 else None,
            title=f"{source.name}  {name}",
            scores={"blurry": before, "restored": after},
            threshold=threshold,
        )
        self._write(source, name, "", panel)
        given = to_uint8(blurry)
        pictures = {"blurry": given, "restored": to_uint8(restored), "sharp": to_uint8(sharp)}
        if mask is not None or probability is not None:
            pictures["mask"] = blur_figure(given, probability, mask, threshold=threshold)
        if motion is not None:
            pictures["trajectories"] = motion_figure(given, motion, probability, threshold=threshold)
        return Exhibit(source.name, name, pictures, before, after)

    def _draw_inside(
        self,
        net: AIBNet,
        look: Look,
        number: int,
        batch: Mapping[str, Any],
        position: int,
        source: Any,  # noqa: ANN401
    ) -> None:
        """Draw what the sub-decoders did to one image, the `number`-th that was looked at."""
        kept = [[None if one is None else one[number].cpu() for one in scales] for scales in look.kept]
        seen = insight(net, look.restored[number].float().cpu(), look.planes[number].cpu(), kept)
        blurry, sharp = (batch[key][position].float().cpu() for key in ("blurry", "sharp"))
        mask = batch["mask"][position].float().cpu() if bool(batch["mask_known"][position]) else None
        name = batch["name"][position]
        scores = [source.protocol.score(one, sharp, mask) for one in (blurry, *seen.restorations)]
        given = to_uint8(blurry)
        figure = sharpening_figure(
            given,
            [to_uint8(restored) for restored in seen.restorations],
            to_uint8(sharp),
            psnr_db=[score.get("psnr_db", math.nan) for score in scores],
            title=f"{source.name}  {name}",
        )
        self._write(source, name, ".sub_decoders", figure)
        if seen.rows:
            self._write(source, name, ".features", feature_figure(given, seen.rows, f"{source.name}  {name}"))
        kept_rows = [row for row in seen.kept if row]
        if kept_rows:
            self._write(source, name, ".attention", attention_figure(kept_rows, f"{source.name}  {name}"))

    def _write(self, source: Any, name: str, ending: str, picture: Picture) -> None:  # noqa: ANN401
        target = self.folder / f"{source.name}-{name.replace('/', '-')}{ending}.png"
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, picture)
