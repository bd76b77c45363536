"""Scores of a checkpoint on a dataset's test split, by the dataset's published protocol."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig

from deblur_lab.callbacks import Bars, Converter, Pictures, Scores
from deblur_lab.checkpoints import load_net
from deblur_lab.checks import require_device
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, plain
from deblur_lab.console import print_scores, quieten, say
from deblur_lab.data import DeblurDataModule
from deblur_lab.errors import ConfigurationError, UserError
from deblur_lab.folder_lock import kept_for_this_run
from deblur_lab.logs import Dashboard, dashboards, recorded
from deblur_lab.models.published import PUBLISHED_PATCH_PX
from deblur_lab.processes import Stop, together
from deblur_lab.provenance import provenance
from deblur_lab.tasks import EvaluationTask

_CONVERTER = {"auto": None, "on": True, True: True, "off": False, False: False}


def evaluate(config: DictConfig) -> None:
    """Score a checkpoint; write ``scores.json``, ``scores.csv`` and ``pictures/``.

    Args:
        config: ``conf/evaluate.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        UserError: of the kind that fits, in one line.
    """
    quieten()
    settings: dict[str, Any] = plain(config)
    trusted = tuple(settings["trusted_packages"])
    require_device(settings["trainer"])

    checkpoint = Path(settings["checkpoint"])
    net, record = load_net(checkpoint, trusted)
    datamodule: DeblurDataModule = build(settings["datamodule"], trusted, key="datamodule")
    for line in datamodule.describe("test"):
        say(line)
    choice = HydraConfig.get().runtime.choices["data"]
    folder = folder_for(settings["output"], f"{time.strftime('%Y%m%d')}-evaluate-{choice}")
    if (folder / "config.yaml").exists():
        raise ConfigurationError(
            f"output={folder} holds a run, whose scores would be lost: name another folder"
        )

    trained_with = record.get("config", {}).get("data", {})
    size_px = settings["tlc_size_px"] or trained_with.get("patch_size", PUBLISHED_PATCH_PX)
    made_by = provenance(settings["trainer"]["accelerator"])
    trained = {
        "trained_by": {key: record.get(key) for key in ("version", "commit")},
        "trained_on": [_name(source) for source in trained_with.get("sources", [])],
    }
    about = {
        "checkpoint": str(checkpoint),
        **trained,
        "seed": settings["seed"],
        "precision": settings["trainer"]["precision"],
        **made_by,
    }
    config.output = str(folder)  # where loggers write, too
    loggers = _loggers(plain(config)["logger"], trusted)
    converter = Converter(size_px, _CONVERTER[settings["tlc"]])
    scores = Scores(converter, folder, about)
    stop = Stop()
    node = {
        **settings["trainer"],
        "callbacks": [
            converter,
            scores,
            Pictures(folder / "pictures", settings["pictures"]),
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
    say(f"{type(net).__name__} of {checkpoint}")
    if (folder / "scores.json").exists():
        say(f"older scores in {folder} are replaced")
    try:
        with (
            kept_for_this_run(folder, f"output={folder}"),
            recorded(loggers, {**settings, **trained, "provenance": made_by}, stopped=lambda: stop.exit_code),
            together(trainer, stop, _remedy(trainer)),
        ):
            trainer.test(EvaluationTask(net), datamodule, verbose=False)
            for dashboard in dashboards(loggers):
                dashboard.log_scores(scores.results)
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
    say(f"scores.json, scores.csv and pictures/ are in {folder}")


def _remove_if_empty(folder: Path) -> None:
    """Leave no folder behind where nothing was scored."""
    for path in (folder / "pictures", folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def _loggers(nodes: dict[str, Any], trusted: tuple[str, ...]) -> list[Logger]:
    """What scores and pictures are shown on beside the files.

    Raises:
        ConfigurationError: a logger shows only what is logged by step, which there is none of.
    """
    loggers: list[Logger] = []
    for name, node in nodes.items():
        logger: Logger = build(node, trusted, key=f"logger.{name}")
        if not isinstance(logger, Dashboard):
            raise ConfigurationError(
                f"logger.{name} shows what is logged step by step, and scoring has no steps: leave it out, "
                "or choose logger=wandb"
            )
        loggers.append(logger)
    return loggers


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
