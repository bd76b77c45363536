"""Scores of a checkpoint, or of pictures restored elsewhere, on a dataset's test split, by a protocol."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from deblur_lab.callbacks import Bars, Converter, NetCost, Pictures, Scores
from deblur_lab.checkpoints import load_net
from deblur_lab.checks import require_device
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, plain
from deblur_lab.console import print_scores, quieten, say
from deblur_lab.dashboard_values import cost_values
from deblur_lab.data import DeblurDataModule
from deblur_lab.errors import ConfigurationError, UserError
from deblur_lab.folder_lock import kept_for_this_run
from deblur_lab.logs import built_dashboards, dashboards, recorded
from deblur_lab.metrics import ScoringProtocol
from deblur_lab.model_names import model_name
from deblur_lab.models import AIBNet, M2AENet
from deblur_lab.models.published import PUBLISHED_PATCH_PX
from deblur_lab.processes import Stop, together
from deblur_lab.provenance import provenance
from deblur_lab.restorations import mask_threshold, require_masks
from deblur_lab.restored_folder import restored_folder
from deblur_lab.tasks import EvaluationTask, GivenPictures

_CONVERTER = {"auto": None, "on": True, True: True, "off": False, False: False}


def evaluate(config: DictConfig) -> None:
    """Score a checkpoint, or a folder of restored pictures.

    Writes ``scores.json``, ``scores.csv`` and ``pictures/``; with several thresholds ``thresholds.csv`` and
    ``thresholds.png`` too, with ``metrics=all`` ``definitions.csv``.

    Args:
        config: ``conf/evaluate.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        UserError: of the kind that fits, in one line.
    """
    quieten()
    settings: dict[str, Any] = plain(config)
    trusted = tuple(settings["trusted_packages"])
    if settings["input"] is not None:
        _without_network(settings["trainer"])
    require_device(settings["trainer"])
    load = _given if settings["checkpoint"] is None else _restored
    subject = load(settings, trusted)
    choice = HydraConfig.get().runtime.choices["data"]
    folder = folder_for(settings["output"], f"{time.strftime('%Y%m%d')}-evaluate-{choice}")
    if (folder / "config.yaml").exists():
        raise ConfigurationError(
            f"output={folder} holds a run, whose scores would be lost: name another folder"
        )

    made_by = provenance(settings["trainer"]["accelerator"])
    about = {
        **subject.about,
        "seed": settings["seed"],
        "precision": settings["trainer"]["precision"],
        **made_by,
    }
    config.output = str(folder)  # where loggers write, too
    loggers = built_dashboards(plain(config)["logger"], trusted, "scoring")
    scores = Scores(
        subject.converter,
        folder,
        about,
        all_definitions=settings["metrics"] == "all",
        of_datasets=subject.of_datasets,
    )
    pictures = Pictures(folder / "pictures", settings["pictures"], scores)
    stop = Stop()
    node = {
        **settings["trainer"],
        "callbacks": [
            *([] if subject.converter is None else [NetCost(scores.about), subject.converter]),
            scores,
            pictures,
            stop,
            Bars(leave=True),
        ],
        "logger": loggers,
        "max_epochs": 1,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": str(folder),
    }
    trainer: L.Trainer = build(node, trusted, key="trainer")
    say(subject.title)
    if (folder / "scores.json").exists():
        say(f"older scores in {folder} are replaced")
    try:
        with (
            kept_for_this_run(folder, f"output={folder}"),
            recorded(
                loggers,
                {**settings, **subject.about, "about": _told(settings, subject), "provenance": made_by},
                work="evaluate",
                of_runs=_scored_runs(settings["checkpoint"]),
                stopped=lambda: stop.exit_code,
            ),
            together(trainer, stop, _remedy(trainer)),
        ):
            if subject.thresholds:
                scores.others = _at_others(subject, trainer, scores, pictures)
            trainer.test(subject.task, subject.datamodule, verbose=False)
            for dashboard in dashboards(loggers):
                dashboard.log_scores(scores.results)
                dashboard.log_values(cost_values(scores.about))
    except UserError:
        _remove_if_empty(folder)
        raise
    except SystemExit as ended:
        _remove_if_empty(folder)
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise
        say(f"stopped by {stop.cause}: nothing was scored")
        sys.exit(ended.code or stop.exit_code)
    print_scores(scores.results)
    files = ["scores.json", "scores.csv"]
    files += ["definitions.csv"] if scores.all_definitions else []
    files += ["thresholds.csv", "thresholds.png"] if subject.thresholds else []
    say(f"{', '.join(files)} and pictures/ are in {folder}")


@dataclass
class _Subject:
    """What is scored.

    Attributes:
        title: a line that says it.
        task: restores the pictures.
        datamodule: what is restored.
        about: what stands in ``scores.json`` of it.
        of_datasets: what stands in each dataset's result.
        model: the name of the network; empty where none is known.
        seed: that it was trained with, if that is known.
        converter: see `Converter`; None where no network of ours is scored.
        thresholds: see `_thresholds`.
    """

    title: str
    task: EvaluationTask | GivenPictures
    datamodule: DeblurDataModule
    about: dict[str, Any]
    of_datasets: Sequence[Mapping[str, Any]]
    model: str = ""
    seed: int | None = None
    converter: Converter | None = None
    thresholds: Sequence[float] = ()


def _restored(settings: Mapping[str, Any], trusted: tuple[str, ...]) -> _Subject:
    """The network of a checkpoint, and the data that it is to restore.

    Raises:
        UserError: of the kind that fits.
    """
    checkpoint = Path(settings["checkpoint"])
    net, record = load_net(checkpoint, trusted)
    thresholds = _thresholds(settings, net, checkpoint)
    datamodule, of_datasets = _data(settings, trusted)
    trained_with = record.get("config", {}).get("data", {})
    size_px = settings["tlc_size_px"] or trained_with.get("patch_size", PUBLISHED_PATCH_PX)
    names = [_name(source) for source in trained_with.get("sources", [])]
    about = {
        "checkpoint": str(checkpoint),
        "trained_by": {key: record.get(key) for key in ("version", "commit")},
        "trained_on": record.get("trained_on", names),
        **({} if mask_threshold(net) is None else {"pruning": getattr(net, "pruning", None)}),
    }
    return _Subject(
        f"{type(net).__name__} of {checkpoint}",
        EvaluationTask(net),
        datamodule,
        about,
        of_datasets,
        model_name(type(net).__name__, len(net.sub_decoders) if isinstance(net, AIBNet) else None),
        record.get("config", {}).get("seed"),
        Converter(size_px, _CONVERTER[settings["tlc"]]),
        thresholds,
    )


def _given(settings: Mapping[str, Any], trusted: tuple[str, ...]) -> _Subject:
    """Pictures that are restored already, and those of the data that they are held against.

    Raises:
        UserError: of the kind that fits.
    """
    folder = Path(settings["input"])
    datamodule, of_datasets = _data(settings, trusted)
    task, part, of_folder = restored_folder(folder, datamodule, subset=settings["subset"])
    about = {"checkpoint": None, "restored_by": str(folder), "trained_by": None, "trained_on": None}
    more = [{**one, **other} for one, other in zip(of_datasets, of_folder, strict=True)]
    return _Subject(f"pictures of {folder}, restored by another program", task, part, about, more)


def _data(
    settings: Mapping[str, Any], trusted: tuple[str, ...]
) -> tuple[DeblurDataModule, list[dict[str, Any]]]:
    """The test split, looked through, with the protocol that was asked for.

    Returns:
        And what there is to say in each dataset's result: which protocol is its own, if it is another.

    Raises:
        UserError: of the kind that fits.
    """
    datamodule: DeblurDataModule = build(settings["datamodule"], trusted, key="datamodule")
    of_datasets: list[dict[str, Any]] = [{} for _ in datamodule.sources]
    if settings["protocol"]:
        protocol: ScoringProtocol = build(settings["protocol"], trusted, key="protocol")
        for source, more in zip(datamodule.sources, of_datasets, strict=True):
            more["own_protocol"] = source.protocol.name
            source.protocol = protocol
    for line in datamodule.describe("test"):
        say(line)
    return datamodule, of_datasets


def _without_network(trainer: dict[str, Any]) -> None:
    """Settings of a trainer whose processes score, on the processor, and do nothing else."""
    trainer |= {"accelerator": "cpu", "precision": "32-true"}
    if not isinstance(trainer["devices"], int):
        trainer["devices"] = 1


def _thresholds(settings: Mapping[str, Any], net: nn.Module, checkpoint: Path) -> list[float]:
    """Set a network as `threshold=` and `pruning=` say.

    Returns:
        The thresholds to be scored, that of the main results first; nothing if only one is wanted, which the
        network then has.

    Raises:
        ConfigurationError: the network has nothing to set.
    """
    threshold, pruning = settings["threshold"], settings["pruning"]
    require_masks(net, str(checkpoint), threshold=threshold, pruning=pruning)
    own = mask_threshold(net)
    if own is None:
        return []
    masking = cast(M2AENet, net)
    if pruning is not None:
        masking.pruning = pruning
    if threshold is None:
        return []
    several = threshold if isinstance(threshold, list) else [threshold]
    main = own if own in several else several[0]
    masking.threshold = main
    return [main, *(other for other in several if other != main)] if isinstance(threshold, list) else []


def _at_others(
    subject: _Subject, trainer: L.Trainer, scores: Scores, pictures: Pictures
) -> list[list[dict[str, Any]]]:
    """Score at all thresholds but the first, a pass over the data each, without files and pictures.

    Returns:
        The results of each.
    """
    thresholds = subject.thresholds
    net = cast(M2AENet, subject.task.evaluated_net)
    folder, count, all_definitions = scores.folder, pictures.count, scores.all_definitions
    results = []
    for number, threshold in enumerate(thresholds[1:], start=1):
        say(f"threshold {threshold:g} ({number} of {len(thresholds)})")
        net.threshold, scores.folder, pictures.count, scores.all_definitions = threshold, None, 0, False
        trainer.test(subject.task, subject.datamodule, verbose=False)
        results.append(scores.results)
    net.threshold, scores.folder, pictures.count = thresholds[0], folder, count
    scores.all_definitions = all_definitions
    say(f"threshold {thresholds[0]:g} ({len(thresholds)} of {len(thresholds)})")
    return results


def _remove_if_empty(folder: Path) -> None:
    """Leave no folder behind where nothing was scored."""
    for path in (folder / "pictures", folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def _told(settings: Mapping[str, Any], subject: _Subject) -> dict[str, Any]:
    """What an evaluation is grouped and filtered by on a dashboard."""
    told = {
        "model": subject.model,
        "data": " + ".join(_name(source) for source in settings["data"]["sources"]),
        "trained_on": " + ".join(subject.about.get("trained_on") or []),
        "seed": subject.seed,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def _scored_runs(checkpoint: str | None) -> list[Path]:
    """The folder of the run that a checkpoint is of, if it lies in one."""
    if checkpoint is None:
        return []
    folder = Path(checkpoint).absolute().parent.parent
    return [folder] if (folder / "config.yaml").is_file() else []


def _remedy(trainer: L.Trainer) -> str:
    """What to try where memory runs out: pictures are scored whole, one at a time."""
    return " or ".join(
        [
            *(["trainer.precision=bf16-mixed"] if trainer.precision == "32-true" else []),
            "a machine with more memory, as pictures are scored whole, one at a time",
        ]
    )


def _name(source: dict[str, Any]) -> str:
    """What a dataset of a configuration is called: the name that it is given, or that of its class."""
    return str(source.get("name", source["_target_"].rpartition(".")[2].lower()))
