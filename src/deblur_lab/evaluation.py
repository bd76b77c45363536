"""Scores of a checkpoint on a dataset's test split, by the dataset's published protocol."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from deblur_lab.callbacks import Bars, Converter, Pictures, Scores
from deblur_lab.checkpoints import load_net
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, faults, plain, range_faults, refuse
from deblur_lab.console import print_scores, quieten, say
from deblur_lab.data import DeblurDataModule
from deblur_lab.errors import ConfigurationError
from deblur_lab.provenance import provenance
from deblur_lab.tasks import EvaluationTask

# What the published NAFNets were trained on.
PUBLISHED_PATCH_PX = 256
_CONVERTER = {"auto": None, "on": True, "true": True, "off": False, "false": False}


def evaluate(config: DictConfig) -> None:
    """Score a checkpoint; write ``scores.json``, ``scores.csv`` and ``pictures/``.

    Args:
        config: ``conf/evaluate.yaml``, composed.

    Raises:
        UserError: of the kind that fits, in one line.
    """
    quieten()
    settings: dict[str, Any] = plain(config)
    trusted = tuple(settings["trusted_packages"])
    found = [*faults(config, trusted), *range_faults(settings, {"seed": 0, "pictures": 0})]
    wanted = str(settings["tlc"]).lower()
    if wanted not in _CONVERTER:
        found.append(f"tlc={settings['tlc']}: auto, on or off is expected")
    if settings["tlc_size_px"] is not None:
        found += range_faults(settings, {"tlc_size_px": 1})
    refuse(found)

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
    about = {
        "checkpoint": str(checkpoint),
        "trained_by": {key: record.get(key) for key in ("version", "commit")},
        "trained_on": [_name(source) for source in trained_with.get("sources", [])],
        "seed": settings["seed"],
        "precision": settings["trainer"]["precision"],
        **provenance(settings["trainer"]["accelerator"]),
    }
    converter = Converter(size_px, _CONVERTER[wanted])
    scores = Scores(converter, folder, about)
    node = {
        **settings["trainer"],
        "callbacks": [
            converter,
            scores,
            Pictures(folder / "pictures", settings["pictures"]),
            Bars(leave=True),
        ],
        "logger": False,
        "max_steps": -1,
        "max_epochs": 1,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": str(folder),
    }
    trainer: L.Trainer = build(node, trusted, key="trainer")
    say(f"{type(net).__name__} of {checkpoint}")
    try:
        trainer.test(EvaluationTask(net), datamodule, verbose=False)
    except SIGTERMException:
        say("stopped by SIGTERM: nothing was scored")
        sys.exit(143)
    print_scores(scores.results)
    say(f"scores.json, scores.csv and pictures/ are in {folder}")


def _name(source: dict[str, Any]) -> str:
    """What a dataset of a configuration is called: the name that it is given, or that of its class."""
    return str(source.get("name", source["_target_"].rpartition(".")[2].lower()))
