"""Scores of every evaluated image, and what is written of them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from deblur_lab.callbacks.converter import Converter
from deblur_lab.callbacks.findings import findings, pooled_findings, shown_findings
from deblur_lab.callbacks.rows import Row, datamodule_of, gathered, require_all
from deblur_lab.curves import threshold_curves
from deblur_lab.images import write_png
from deblur_lab.metrics import ScoringProtocol, summarise
from deblur_lab.tasks import EvaluationTask, RestorationTask, mask_threshold
from deblur_lab.writing import replacing, write_json, writing

# The scores of a dataset, as they stand in ``scores.json``.
Result = dict[str, Any]

_OF_A_THRESHOLD = ("threshold", "selected_share", "dilated_share", "scores")


class Scores(Callback):
    """Scores every evaluated image by its dataset's protocol, restored and blurry.

    Validation logs means as ``val/<score>``. A test keeps them in `results` and, if it has a folder,
    writes ``scores.json`` and ``scores.csv`` (a row an image). Processes send their rows to each other and
    add them up in the order of the dataset, so that no result depends on how many there are.

    A test also scores what the network says of blur and motion, where the data know the truth.

    Args:
        converter: which says whether a network is scored with the test-time local converter.
        folder: for the test's files; None to write none.
        about: what stands in ``scores.json`` beside the scores (checkpoint, commit, ...).

    Attributes:
        results: of the last test, a dataset each.
        others: results of the same datasets at other thresholds of the network. If they are set, be they
            none, the next test's `results` hold those of all thresholds, as ``thresholds``, and
            ``thresholds.csv`` and ``thresholds.png`` are written.
    """

    def __init__(
        self, converter: Converter, folder: Path | None = None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.converter = converter
        self.folder = folder
        self.about = dict(about or {})
        self.results: list[Result] = []
        self.others: Sequence[Sequence[Result]] | None = None
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
        source = datamodule_of(trainer).sources[dataloader_idx]
        self._rows += _score(outputs.restored, batch, dataloader_idx, source.protocol, blurry=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; with several datasets, the first one's scores have the plain names.

        Raises:
            SIGTERMException: a process was told to stop, and left the rest of its part.
        """
        rows, self._rows = gathered(self._rows), []
        require_all(rows, trainer, "val")
        for number, source in enumerate(datamodule_of(trainer).sources):
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
        source = datamodule_of(trainer).sources[dataloader_idx]
        rows = _score(outputs.restored, batch, dataloader_idx, source.protocol, blurry=True)
        threshold = _threshold(pl_module)
        self._rows += [
            row | findings(outputs, batch, position, threshold) for position, row in enumerate(rows)
        ]

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; means, and the files.

        Raises:
            SIGTERMException: a process was told to stop, and left the rest of its part.
        """
        rows, self._rows = gathered(self._rows), []
        require_all(rows, trainer, "test")
        for number, source in enumerate(datamodule_of(trainer).sources):
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
                    **pooled_findings(own, _threshold(pl_module)),
                }
            )
        if self.others is not None:
            for number, result in enumerate(self.results):
                every = [result, *(results[number] for results in self.others)]
                every.sort(key=lambda one: float(one["threshold"]))
                result["thresholds"] = [{key: one[key] for key in _OF_A_THRESHOLD} for one in every]
        if self.folder is not None and trainer.is_global_zero:
            write_json(self.folder / "scores.json", {**self.about, "results": self.results})
            _write_rows(self.folder / "scores.csv", rows, [s.name for s in datamodule_of(trainer).sources])
            if self.others is not None:
                _write_thresholds(self.folder, self.results)


def _threshold(pl_module: L.LightningModule) -> float | None:
    return mask_threshold(cast(EvaluationTask | RestorationTask, pl_module).evaluated_net)


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


def _write_rows(path: Path, rows: Sequence[Row], datasets: Sequence[str]) -> None:
    scores = list(dict.fromkeys(name for row in rows for name in row["restored"]))
    found = [shown_findings(row) for row in rows]
    others = list(dict.fromkeys(name for shown in found for name in shown))
    with replacing(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "name", *scores, *(f"blurry_{name}" for name in scores), *others])
        for row, shown in zip(rows, found, strict=True):
            values = [row[kind].get(name, math.nan) for kind in ("restored", "blurry") for name in scores]
            values += [shown.get(name, math.nan) for name in others]
            writer.writerow([datasets[row["dataset"]], row["name"], *map(_cell, values)])


def _write_thresholds(folder: Path, results: Sequence[Result]) -> None:
    scores = list(dict.fromkeys(name for result in results for name in result["scores"]))
    with replacing(folder / "thresholds.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "threshold", "selected_share", "dilated_share", *scores])
        for result in results:
            for at in result["thresholds"]:
                values = [at["selected_share"], at["dilated_share"]]
                values += [at["scores"].get(name, math.nan) for name in scores]
                writer.writerow([result["dataset"], f"{at['threshold']:g}", *map(_cell, values)])
    target = folder / "thresholds.png"
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_png(target, threshold_curves({result["dataset"]: result["thresholds"] for result in results}))


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
