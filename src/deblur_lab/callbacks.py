"""What is done around training and scoring: scores by protocol, pictures, what a checkpoint carries."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.progress import TaskID
from torch import Tensor

from deblur_lab.checkpoints import RECORD_KEY
from deblur_lab.data import DeblurDataModule
from deblur_lab.data.samples import Split
from deblur_lab.images import to_uint8, write_png
from deblur_lab.logs import Exhibit, dashboards
from deblur_lab.metrics import ScoringProtocol, summarise
from deblur_lab.models import HasConverter
from deblur_lab.pictures import comparison_panel, enlargement, mask_overlay, trajectory_overlay
from deblur_lab.tasks import EvaluationTask, Restoration, RestorationTask, restore
from deblur_lab.writing import replacing, writing

Row = dict[str, Any]


class Bars(RichProgressBar):
    """Lightning's progress bars, but for its count of epochs: a training is one, counted in steps."""

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Lightning's, without the version of a logger."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    @property
    def total_train_batches(self) -> int:
        """The optimizer steps of the whole run; Lightning counts the batches that are left."""
        return self.trainer.max_steps

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Lightning's; counts steps, not batches."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)

    def _add_task(self, total_batches: float, description: str, visible: bool = True) -> TaskID:
        task = super()._add_task(total_batches, description, visible)
        if self.trainer.training and self.progress is not None:
            # A run that goes on has not done in a moment what it had done before.
            self.progress.reset(task, completed=self.trainer.global_step, visible=visible)
        return task

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"


class Record(Callback):
    """Puts what a run was (configuration, version, commit) into its checkpoints, as plain containers.

    Args:
        record: of strings, numbers, lists and dictionaries alone.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's."""
        checkpoint[RECORD_KEY] = self.record


class Converter(Callback):
    """Switches the test-time local converter (TLC) while a dataset is scored whose protocol asks for it.

    Args:
        size_px: side of the patches that the network was trained on.
        forced: on or off, whatever the protocol says; None: as it says.
    """

    def __init__(self, size_px: int, forced: bool | None = None) -> None:
        self.size_px = size_px
        self.forced = forced

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        self._switch(trainer, pl_module, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        self._switch(trainer, pl_module, dataloader_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        _set_tlc(pl_module, None)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        _set_tlc(pl_module, None)

    def switched_on(self, protocol: ScoringProtocol, pl_module: L.LightningModule) -> bool:
        """Whether a network is scored with the converter by a protocol; never if it has none."""
        wanted = protocol.tlc if self.forced is None else self.forced
        return wanted and bool(_with_converter(pl_module))

    def _switch(self, trainer: L.Trainer, pl_module: L.LightningModule, dataset: int) -> None:
        on = self.switched_on(_datamodule(trainer).sources[dataset].protocol, pl_module)
        _set_tlc(pl_module, self.size_px if on else None)


def _with_converter(pl_module: L.LightningModule) -> list[HasConverter]:
    return [module for module in pl_module.modules() if isinstance(module, HasConverter)]


def _set_tlc(pl_module: L.LightningModule, size_px: int | None) -> None:
    for net in _with_converter(pl_module):
        net.set_tlc(size_px)


class Scores(Callback):
    """Scores every evaluated image by its dataset's protocol, restored and blurry.

    Validation logs means as ``val/<score>``. A test keeps them in `results` and, if it has a folder,
    writes ``scores.json`` and ``scores.csv`` (a row an image). Processes send their rows to each other and
    add them up in the order of the dataset, so that no result depends on how many there are.

    Args:
        converter: which says whether a network is scored with the test-time local converter.
        folder: for the test's files; None to write none.
        about: what stands in ``scores.json`` beside the scores (checkpoint, commit, ...).
    """

    def __init__(
        self, converter: Converter, folder: Path | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.converter = converter
        self.folder = folder
        self.about = dict(about or {})
        self.results: list[dict[str, Any]] = []
        self._rows: list[Row] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        source = _datamodule(trainer).sources[dataloader_idx]
        self._rows += _score(outputs.restored, batch, dataloader_idx, source.protocol, blurry=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; with several datasets, the first one's scores have the plain names.

        Raises:
            SIGTERMException: a process was told to stop, and left the rest of its part.
        """
        rows, self._rows = _gather(self._rows), []
        _require_all(rows, trainer, "val")
        for number, source in enumerate(_datamodule(trainer).sources):
            means = summarise([row["restored"] for row in rows if row["dataset"] == number]).means
            infix = "" if number == 0 else f"{source.name}_"
            for name, value in means.items():
                shown = name == "psnr_db" and number == 0
                # All processes have the same rows; the sync only tells Lightning that they agree.
                pl_module.log(f"val/{infix}{name}", value, prog_bar=shown, sync_dist=True)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._rows, self.results = [], []

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
        source = _datamodule(trainer).sources[dataloader_idx]
        self._rows += _score(outputs.restored, batch, dataloader_idx, source.protocol, blurry=True)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; means, and the files.

        Raises:
            SIGTERMException: a process was told to stop, and left the rest of its part.
        """
        rows, self._rows = _gather(self._rows), []
        _require_all(rows, trainer, "test")
        for number, source in enumerate(_datamodule(trainer).sources):
            own = [row for row in rows if row["dataset"] == number]
            restored = summarise([row["restored"] for row in own])
            on = self.converter.switched_on(source.protocol, pl_module)
            self.results.append(
                {
                    "dataset": source.name,
                    "split": "test",
                    "protocol": {"name": source.protocol.name, "description": source.protocol.description},
                    "tlc": on,
                    "tlc_size_px": self.converter.size_px if on else None,
                    "images": len(own),
                    "scores": restored.means,
                    "blurry_scores": summarise([row["blurry"] for row in own]).means,
                    "left_out": restored.left_out,
                }
            )
        if self.folder is not None and trainer.is_global_zero:
            write_json(self.folder / "scores.json", {**self.about, "results": self.results})
            _write_rows(self.folder / "scores.csv", rows, [s.name for s in _datamodule(trainer).sources])


class Skipped(Callback):
    """Counts the training samples that others stood in for, as ``train/skipped``, and writes down which.

    Does nothing unless the data skip what cannot be read; see `deblur_lab.data.datamodule.TrainingPatches`.

    Args:
        path: of the file, a line for each picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = 0  # the run was resumed
        self._own = 0
        self._counted = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Lightning's."""
        if "skipped" not in batch:
            return
        wrong = [line for line in batch["skipped"] if line]
        self._own += len(wrong)
        # Every process counts its own; there is nothing to wait for where nothing is skipped.
        own = torch.tensor(float(self._own), device=pl_module.device)
        self._counted = int(trainer.strategy.reduce(own, reduce_op="sum"))
        pl_module.log("train/skipped", float(self._before + self._counted))
        if wrong:
            with writing(self.path):
                known = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
                with self.path.open("a", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in dict.fromkeys(wrong) if line not in known)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's; what was counted so far."""
        return {"skipped": self._before + self._counted} if self._before + self._counted else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's."""
        self._before = state_dict["skipped"]


class Pictures(Callback):
    """Lays test images out side by side: blurry, restored, sharp, mask, motion; and shows them on dashboards.

    Args:
        folder: for the PNG files, named as the images.
        count: of images, spread evenly over each dataset.
    """

    def __init__(self, folder: Path, count: int = 8) -> None:
        self.folder = folder
        self.count = count
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
        source = _datamodule(trainer).sources[dataloader_idx]
        total = len(source.scenes("test"))
        chosen = range(total) if total <= self.count else {n * total // self.count for n in range(self.count)}
        positions = [position for position, index in enumerate(batch["index"].tolist()) if index in chosen]
        if positions:
            # Only these are asked for blur and motion too, which costs memory and time.
            net = cast(EvaluationTask | RestorationTask, pl_module).evaluated_net
            said = restore(net, batch["blurry"])
            for position in positions:
                exhibit = self._draw(said, batch, position, source)
                if dashboards(trainer.loggers):
                    index = int(batch["index"][position])
                    self._rows.append({"dataset": dataloader_idx, "index": index, "exhibit": exhibit})

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; all processes' images to the dashboards, if there are any."""
        told = dashboards(trainer.loggers)
        if told:
            rows, self._rows = _gather(self._rows), []
            for dashboard in told:
                # As Lightning counts them: the first step is 0.
                dashboard.log_pictures([row["exhibit"] for row in rows], max(0, trainer.global_step - 1))

    def _draw(
        self,
        outputs: Restoration,
        batch: Mapping[str, Any],
        position: int,
        source: Any,  # noqa: ANN401
    ) -> Exhibit:
        def one(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[position].float().cpu()

        restored, blurry, sharp = (
            cast(Tensor, one(t)) for t in (outputs.restored, batch["blurry"], batch["sharp"])
        )
        known = bool(batch["mask_known"][position])
        mask = one(batch["mask"]) if known else None
        name = batch["name"][position]
        before = source.protocol.score(blurry, sharp, mask)
        after = source.protocol.score(restored, sharp, mask)
        probability, motion = one(outputs.probability), one(outputs.motion)
        panel = comparison_panel(
            blurry,
            restored,
            sharp,
            mask=mask,
            probability=probability,
            motion=motion,
            title=f"{source.name}  {name}",
            scores={"blurry": before, "restored": after},
        )
        target = self.folder / f"{source.name}-{name.replace('/', '-')}.png"
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, panel)

        given = to_uint8(blurry)
        pictures = {"blurry": given, "restored": to_uint8(restored), "sharp": to_uint8(sharp)}
        factor = enlargement(*given.shape[:2])
        if mask is not None or probability is not None:
            pictures["mask"] = mask_overlay(given, probability, mask, enlarge=factor)
        if motion is not None:
            pictures["trajectories"] = trajectory_overlay(given, motion, probability, enlarge=factor)
        return Exhibit(source.name, name, pictures, before, after)


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null, which JSON can hold."""
    text = json.dumps(_finite(contents), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as file:
        file.write(text)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _datamodule(trainer: L.Trainer) -> DeblurDataModule:
    return cast(DeblurDataModule, trainer.datamodule)  # type: ignore[attr-defined]


def _score(
    restored: Tensor, batch: Mapping[str, Any], dataset: int, protocol: ScoringProtocol, *, blurry: bool
) -> list[Row]:
    """A row an image: its scores and, if asked for, those of its blurry input."""
    rows = []
    for position, index in enumerate(batch["index"].tolist()):
        sharp = batch["sharp"][position].float().cpu()
        mask = batch["mask"][position].float().cpu() if bool(batch["mask_known"][position]) else None
        row = {
            "dataset": dataset,
            "index": index,
            "name": batch["name"][position],
            "restored": protocol.score(restored[position].float().cpu(), sharp, mask),
        }
        if blurry:
            row["blurry"] = protocol.score(batch["blurry"][position].float().cpu(), sharp, mask)
        rows.append(row)
    return rows


def _gather(rows: list[Row]) -> list[Row]:
    """The rows of all processes, in the order of the datasets."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[list[Row]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, rows)
        rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda row: (row["dataset"], row["index"]))


def _require_all(rows: Sequence[Row], trainer: L.Trainer, split: Split) -> None:
    """Stop all processes, which have the same rows, if some are missing."""
    if len(rows) < sum(len(source.scenes(split)) for source in _datamodule(trainer).sources):
        raise SIGTERMException


def _write_rows(path: Path, rows: Sequence[Row], datasets: Sequence[str]) -> None:
    scores = list(dict.fromkeys(name for row in rows for name in row["restored"]))
    with replacing(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "name", *scores, *(f"blurry_{name}" for name in scores)])
        for row in rows:
            values = [row[kind].get(name, math.nan) for kind in ("restored", "blurry") for name in scores]
            writer.writerow(
                [datasets[row["dataset"]], row["name"]]
                + ["" if math.isnan(value) else f"{value:.6f}" for value in values]
            )
