"""Scores of every evaluated image, and what is written of them."""

import csv
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from deblur_lab.callbacks.converter import Converter
from deblur_lab.callbacks.findings import findings, pooled_findings, shown_findings
from deblur_lab.callbacks.rows import Row, datamodule_of, gathered, require_all
from deblur_lab.callbacks.scoring import ScoringThreads, share_of_cores
from deblur_lab.curves import threshold_curves
from deblur_lab.data import SceneSet
from deblur_lab.data.published_sets import PUBLISHED, names_like, published_pairs
from deblur_lab.images import write_png
from deblur_lab.metrics import DEFINITIONS, ScoringProtocol, summarise, summarise_definitions
from deblur_lab.provenance import hardware
from deblur_lab.restorations import mask_threshold
from deblur_lab.tasks import EvaluationTask, RestorationTask
from deblur_lab.writing import replacing, write_json, writing

# The scores of a dataset, as they stand in ``scores.json``.
Result = dict[str, Any]

_DEFINITIONS = "definitions.csv"
_OF_A_THRESHOLD = ("threshold", "selected_share", "dilated_share", "scores")


class Scores(Callback):
    """Scores every evaluated image by its dataset's protocol, restored and blurry.

    Validation logs means as ``val/<score>``. A test keeps them in `results` and, if it has a folder,
    writes ``scores.json`` and ``scores.csv`` (a row an image). Processes send their rows to each other and
    add them up in the order of the dataset, so that no result depends on how many there are.

    A test also scores what the network says of blur and motion, where the data know the truth.

    Images are scored in threads, as many as this process has cores, while the next ones are restored.

    Args:
        converter: which says whether a network is scored with the test-time local converter; None where no
            network of ours restored the images.
        folder: for the test's files; None to write none.
        about: what stands in ``scores.json`` beside the scores (checkpoint, commit, ...).
        all_definitions: whether a test scores by every definition of `deblur_lab.metrics.DEFINITIONS` too,
            which ``definitions.csv`` then holds for each image.
        of_datasets: what else stands in each dataset's result.

    Attributes:
        results: of the last test, a dataset each.
        rows: of the last test, an image each, of all processes.
        others: results of the same datasets at other thresholds of the network. If they are set, be they
            none, the next test's `results` hold those of all thresholds, as ``thresholds``, and
            ``thresholds.csv`` and ``thresholds.png`` are written.
    """

    def __init__(
        self,
        converter: Converter | None,
        folder: Path | None = None,
        about: Mapping[str, Any] | None = None,
        *,
        all_definitions: bool = False,
        of_datasets: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.converter = converter
        self.folder = folder
        self.about = dict(about or {})
        self.all_definitions = all_definitions
        self.of_datasets = tuple(of_datasets)
        self.results: list[Result] = []
        self.rows: list[Row] = []
        self.others: Sequence[Sequence[Result]] | None = None
        self._threads = ScoringThreads(1)
        self._batch: dict[tuple[int, int], Future[Row]] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning's."""
        self._threads = ScoringThreads(share_of_cores(trainer.num_devices))
        if "hardware" in self.about:
            # Only now that all processes are started has each the threads that it computes with.
            kind = "cpu" if isinstance(trainer.accelerator, CPUAccelerator) else "auto"
            self.about["hardware"] = hardware(kind, trainer.world_size)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Lightning's; what waits to be scored is not waited for."""
        self._threads.drop()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._threads.drop()

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
        for position in range(len(batch["index"])):
            make = _scoring(outputs.restored, batch, position, dataloader_idx, source.protocol, blurry=False)
            self._threads.submit(make)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; with several datasets, the first one's scores have the plain names.

        Raises:
            SIGTERMException: a process was told to stop, and left the rest of its part.
        """
        rows = gathered(self._threads.rows())
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
        self._threads.drop()
        self.results = []
        self.rows = []

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
        threshold = _threshold(pl_module)
        self._batch = {}
        for position in range(len(batch["index"])):
            make = _scoring(
                outputs.restored,
                batch,
                position,
                dataloader_idx,
                source.protocol,
                blurry=True,
                all_definitions=self.all_definitions,
                found=findings(outputs, batch, position, threshold),
            )
            index = int(batch["index"][position])
            self._batch[dataloader_idx, index] = self._threads.submit(make)

    def row_of(self, dataset: int, index: int) -> Row | None:
        """The row of an image of the batch that was tested last, once it is made; None of another image.

        Raises:
            Exception: what making it raised.
        """
        made = self._batch.get((dataset, index))
        return None if made is None else made.result()

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; means, and the files.

        Raises:
            SIGTERMException: a process was told to stop, and left the rest of its part.
        """
        self._batch = {}
        rows = gathered(self._threads.rows())
        require_all(rows, trainer, "test")
        self.rows = rows
        for number, source in enumerate(datamodule_of(trainer).sources):
            own = [row for row in rows if row["dataset"] == number]
            restored = summarise([row["restored"] for row in own])
            converter = self.converter
            on = None if converter is None else converter.switched_on(source.protocol, pl_module)
            self.results.append(
                {
                    "dataset": source.name,
                    "split": "test",
                    **_facts_of(source.name, source.scenes("test")),
                    "protocol": source.protocol.describe(),
                    **(self.of_datasets[number] if self.of_datasets else {}),
                    "tlc": on,
                    "tlc_size_px": converter.size_px if converter is not None and on else None,
                    "images": len(own),
                    "scores": restored.means,
                    "blurry_scores": summarise([row["blurry"] for row in own]).means,
                    "left_out": restored.left_out,
                    "alignment_failures": _failures(own, "aligned"),
                    "blurry_alignment_failures": _failures(own, "blurry_aligned"),
                    **({"definitions": _definitions(own)} if self.all_definitions else {}),
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
            names = [source.name for source in datamodule_of(trainer).sources]
            _write_rows(self.folder / "scores.csv", rows, names)
            if self.all_definitions:
                _write_definitions(self.folder / _DEFINITIONS, rows, names)
            else:
                with writing(self.folder / _DEFINITIONS):  # it is of the older scores that these replace
                    (self.folder / _DEFINITIONS).unlink(missing_ok=True)
            if self.others is not None:
                _write_thresholds(self.folder, self.results)


def _threshold(pl_module: L.LightningModule) -> float | None:
    return mask_threshold(cast(EvaluationTask | RestorationTask, pl_module).evaluated_net)


def _scoring(
    restored: Tensor,
    batch: Mapping[str, Any],
    position: int,
    dataset: int,
    protocol: ScoringProtocol,
    *,
    blurry: bool,
    all_definitions: bool = False,
    found: Mapping[str, Any] | None = None,
) -> partial[Row]:
    """What makes the row of an image, from copies of all that it needs: see `_row`."""

    def image(tensor: Tensor) -> Tensor:
        return tensor[position].float().cpu()

    known = bool(batch["mask_known"][position])
    about = {"dataset": dataset, "index": int(batch["index"][position]), "name": batch["name"][position]}
    return partial(
        _row,
        {**about, **(found or {})},
        protocol,
        image(restored),
        image(batch["sharp"]),
        image(batch["mask"]) if known else None,
        image(batch["blurry"]) if blurry else None,
        all_definitions=all_definitions,
    )


def _row(
    about: Mapping[str, Any],
    protocol: ScoringProtocol,
    restored: Tensor,
    sharp: Tensor,
    mask: Tensor | None,
    blurry: Tensor | None,
    *,
    all_definitions: bool,
) -> Row:
    """An image's scores and, if it is given, those of its blurry input; whether each could be aligned."""
    row = dict(about)
    for prefix, picture in (("", restored), ("blurry_", blurry)):
        if picture is not None:
            seen = protocol.examine(picture, sharp, mask, all_definitions=all_definitions)
            row |= {
                prefix.rstrip("_") or "restored": seen.scores,
                f"{prefix}aligned": seen.aligned,
                f"{prefix}definitions": seen.definitions,
                "pixels": seen.pixels,
            }
    return row


def _facts_of(dataset: str, scenes: SceneSet) -> dict[str, Any]:
    """What a reader of a score must know of the pictures, as far as the data tell it."""
    made_up = bool(getattr(scenes, "made_up", False))
    known = None if made_up else PUBLISHED.get(dataset)  # made-up pictures do not claim to be those
    names = (scenes.name(index) for index in range(len(scenes)))
    like = None if known is None else names_like(known, names)
    return {
        "layout": getattr(scenes, "layout", None),
        "masks": getattr(scenes, "masks_from", None),
        "made_up": made_up,
        "published_images": None if made_up else published_pairs(dataset, "test"),
        "names_like": None if like is None else like[0],
    }


def _failures(rows: Sequence[Row], key: str) -> int | None:
    """How many images could not be aligned; None where a protocol aligns none."""
    aligned = [row[key] for row in rows if row[key] is not None]
    return sum(not fits for fits in aligned) if aligned else None


def _definitions(rows: Sequence[Row]) -> dict[str, Any]:
    """Each definition of the catalogue, by its key: its value for the blurry and for the restored images."""
    pixels = [row["pixels"] for row in rows]
    values = {
        name: summarise_definitions([row[kind] for row in rows], pixels)
        for name, kind in (("blurry", "blurry_definitions"), ("restored", "definitions"))
    }
    return {
        key: {
            "title": definition.title,
            "used_by": definition.used_by,
            "blurry": values["blurry"].get(key, math.nan),
            "restored": values["restored"].get(key, math.nan),
            "left_out": sum(math.isnan(row["definitions"][key]) for row in rows),
            "digits": definition.digits,
            "unavailable": definition.missing(),
        }
        for key, definition in DEFINITIONS.items()
    }


def _write_rows(path: Path, rows: Sequence[Row], datasets: Sequence[str]) -> None:
    scores = list(dict.fromkeys(name for row in rows for name in row["restored"]))
    found = [shown_findings(row) for row in rows]
    others = list(dict.fromkeys(name for shown in found for name in shown))
    # Where pictures are aligned: 1 for those that could be.
    aligned = [name for name in ("aligned", "blurry_aligned") if any(row[name] is not None for row in rows)]
    with replacing(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["dataset", "name", *scores, *(f"blurry_{name}" for name in scores), *aligned, *others]
        )
        for row, shown in zip(rows, found, strict=True):
            values = [row[kind].get(name, math.nan) for kind in ("restored", "blurry") for name in scores]
            flags = ["" if row[name] is None else int(row[name]) for name in aligned]
            more = [shown.get(name, math.nan) for name in others]
            cells = [*map(_cell, values), *flags, *map(_cell, more)]
            writer.writerow([datasets[row["dataset"]], row["name"], *cells])


def _write_definitions(path: Path, rows: Sequence[Row], datasets: Sequence[str]) -> None:
    with replacing(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "name", *DEFINITIONS, *(f"blurry_{key}" for key in DEFINITIONS)])
        for row in rows:
            values = [row[kind][key] for kind in ("definitions", "blurry_definitions") for key in DEFINITIONS]
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
