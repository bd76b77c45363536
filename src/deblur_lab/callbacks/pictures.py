"""Test images laid out side by side."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import default_collate

from deblur_lab.callbacks.rows import Row, datamodule_of, gathered
from deblur_lab.callbacks.scores import Scores
from deblur_lab.data.patches import EvaluationPictures
from deblur_lab.exhibits import keep_exhibits, stem_of, write_exhibit
from deblur_lab.images import to_uint8, write_png
from deblur_lab.inside import Look, insight, look_inside
from deblur_lab.logs import Exhibit, dashboards
from deblur_lab.models import AIBNet
from deblur_lab.pictures import (
    Picture,
    attention_figure,
    comparison_panel,
    feature_figure,
    mask_layer,
    sharpening_figure,
    trajectory_layer,
    true_mask_layer,
)
from deblur_lab.restorations import USUAL_THRESHOLD, Restoration, mask_threshold, restore
from deblur_lab.tasks import EvaluationTask, GivenPictures, RestorationTask
from deblur_lab.writing import writing

_EXHIBITS = "exhibits"
# Of each dataset, so many images that gained least are kept as well, though no more than are spread over it.
_WORST = 3


class Pictures(Callback):
    """Lays test images out side by side: blurry, restored, sharp, mask, motion; and shows them on dashboards.

    Of an AIBNet, three more pictures of each image show what its sub-decoders do: how the image becomes
    sharper, features, and what the masks keep.

    Each picture is kept alone, too, in ``exhibits`` (`deblur_lab.exhibits`), for pages that lay them over
    each other; and there, of each dataset, the three images that gained least in PSNR.

    Args:
        folder: for the PNG files, named as the images.
        count: of images, spread evenly over each dataset; 0: none is drawn at all.
        scores: which scores the same images, and stands before this among the callbacks; None to score those
            that are drawn here.
    """

    def __init__(self, folder: Path, count: int = 8, scores: Scores | None = None) -> None:
        self.folder = folder
        self.count = count
        self.scores = scores
        self._rows: list[Row] = []
        self._kept: list[Row] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._rows, self._kept = [], []

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
        chosen = self._spread(source)
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
                self._draw(trainer, said, batch, position, source, threshold, dataloader_idx)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; the worst images, and all processes' images to the dashboards, if there are any."""
        self._draw_worst(trainer, pl_module)
        kept, self._kept = gathered(self._kept), []
        if trainer.is_global_zero:
            keep_exhibits(self.folder / _EXHIBITS, {row["stem"] for row in kept})
        told = dashboards(trainer.loggers)
        if told:
            rows, self._rows = gathered(self._rows), []
            for dashboard in told:
                # As Lightning counts them: the first step is 0.
                dashboard.log_pictures([row["exhibit"] for row in rows], max(0, trainer.global_step - 1))

    def _spread(self, source: Any) -> Collection[int]:  # noqa: ANN401
        """The images of a dataset that are drawn whatever their scores."""
        total = len(source.scenes("test"))
        return range(total) if total <= self.count else {n * total // self.count for n in range(self.count)}

    def _draw_worst(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the images that gained least, which are known when all are scored: they are restored again.

        Each process does its share of them.
        """
        if self.scores is None or self.count == 0:
            return
        module = cast(EvaluationTask | RestorationTask, pl_module)
        net = module.evaluated_net
        own = mask_threshold(net)
        worst = [
            row
            for number, source in enumerate(datamodule_of(trainer).sources)
            for row in _worst([row for row in self.scores.rows if row["dataset"] == number], self.count)
            if row["index"] not in self._spread(source)
        ]
        for row in worst[trainer.global_rank :: trainer.world_size]:
            dataset = row["dataset"]
            source = datamodule_of(trainer).sources[dataset]
            sample = EvaluationPictures(source.scenes("test"))[row["index"]]
            batch = trainer.strategy.batch_to_device(default_collate([sample]), dataloader_idx=dataset)
            if self.scores.converter is not None:  # it stands as the last dataset wants it
                self.scores.converter.on_test_batch_start(trainer, pl_module, batch, 0, dataset)
            if isinstance(pl_module, GivenPictures):
                said = pl_module.test_step(batch, 0, dataset)
            else:
                said = restore(net, batch["blurry"])
            shown = self._exhibit(said, batch, 0, source, USUAL_THRESHOLD if own is None else own, row)
            self._keep(trainer, shown, dataset, row["index"])

    def _keep(self, trainer: L.Trainer, exhibit: Exhibit, dataset: int, index: int) -> None:
        """Write an exhibit's pictures one by one, and have it ready for dashboards if there are any."""
        write_exhibit(
            self.folder / _EXHIBITS,
            exhibit.dataset,
            exhibit.name,
            exhibit.pictures,
            exhibit.before,
            exhibit.after,
            exhibit.legends,
        )
        about = {"dataset": dataset, "index": index}
        self._kept.append({**about, "stem": stem_of(exhibit.dataset, exhibit.name)})
        if dashboards(trainer.loggers):
            self._rows.append({**about, "exhibit": exhibit})

    def _draw(
        self,
        trainer: L.Trainer,
        outputs: Restoration,
        batch: Mapping[str, Any],
        position: int,
        source: Any,  # noqa: ANN401
        threshold: float,
        dataset: int,
    ) -> None:
        """Lay one image out, and keep its pictures."""
        index = int(batch["index"][position])
        row = None if self.scores is None else self.scores.row_of(dataset, index)
        shown = self._exhibit(outputs, batch, position, source, threshold, row, panel=True)
        self._keep(trainer, shown, dataset, index)

    def _exhibit(
        self,
        outputs: Restoration,
        batch: Mapping[str, Any],
        position: int,
        source: Any,  # noqa: ANN401
        threshold: float,
        row: Row | None,
        *,
        panel: bool = False,
    ) -> Exhibit:
        """The pictures of one image; with the panel of them written, if it is asked for."""

        def one(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[position].float().cpu()

        restored, blurry, sharp = (
            cast(Tensor, one(t)) for t in (outputs.restored, batch["blurry"], batch["sharp"])
        )
        known = bool(batch["mask_known"][position])
        mask = one(batch["mask"]) if known else None
        name = batch["name"][position]
        if row is None:
            before = source.protocol.score(blurry, sharp, mask)
            after = source.protocol.score(restored, sharp, mask)
        else:
            before, after = row["blurry"], row["restored"]
        probability, motion = one(outputs.probability), one(outputs.motion)
        ends = [cast(Tensor, one(batch[end])) for end in ("start", "end") if end in batch]
        if panel:
            drawn = comparison_panel(
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
            self._write(source, name, "", drawn)
        given = to_uint8(blurry)
        pictures = {"blurry": given, "restored": to_uint8(restored), "sharp": to_uint8(sharp)}
        # Each alone, so that none says that a net predicts what is the truth.
        layers = {}
        if mask is not None:
            layers["true_mask"] = true_mask_layer(given, mask)
        if probability is not None:
            layers["mask"] = mask_layer(given, probability, threshold)
        if motion is not None:
            layers["trajectories"] = trajectory_layer(given, motion, probability, threshold)
        pictures |= {kind: layer.picture for kind, layer in layers.items()}
        legends = {kind: layer.legend for kind, layer in layers.items()}
        return Exhibit(source.name, name, pictures, before, after, legends)

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
        target = self.folder / f"{stem_of(source.name, name)}{ending}.png"
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, picture)


def _worst(rows: Sequence[Row], count: int) -> list[Row]:
    """Of one dataset's rows those that gained least in PSNR, the least first; none where it is not scored."""

    def gain_db(row: Row) -> float:
        return float(row["restored"].get("psnr_db", math.nan) - row["blurry"].get("psnr_db", math.nan))

    scored = [row for row in rows if not math.isnan(gain_db(row))]
    return sorted(scored, key=gain_db)[: min(count, _WORST)]
