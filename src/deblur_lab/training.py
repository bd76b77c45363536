"""One training run, from a composed configuration to weights, scores and pictures in a folder."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from deblur_lab import __version__
from deblur_lab.callbacks import Bars, Converter, LastCheckpoint, Pictures, Record, Scores
from deblur_lab.checkpoints import AtomicCheckpoints, load_weights, read_checkpoint
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, commit, faults, plain
from deblur_lab.data import DeblurDataModule, plan_batches
from deblur_lab.errors import CheckpointError, ConfigurationError
from deblur_lab.logs import MetricsFile
from deblur_lab.console import print_scores, quieten, say
from deblur_lab.tasks import RestorationTask

# What a resumed run may do differently without becoming another run.
CHANGEABLE_ON_RESUME = (
    "checkpoint_every_steps",
    "data.num_workers",
    "data.root",
    "data.gopro_root",
    "data.reloblur_root",
    "evaluate",
    "logger",
    "pictures",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.log_every_n_steps",
    "trainer.num_nodes",
)


def train(config: DictConfig) -> None:
    """Train, then score the test split with the last weights.

    Args:
        config: ``conf/train.yaml``, composed.

    Raises:
        UserError: of the kind that fits, in one line.
    """
    quieten()
    config, folder, resumed_from = _resolve(config)
    settings = plain(config)
    trusted = tuple(settings["trusted_packages"])
    found = faults(settings, trusted)
    if found:
        raise ConfigurationError("\n       ".join(found))

    L.seed_everything(settings["seed"], verbose=False)
    task: RestorationTask = build(settings["model"], trusted, key="model")
    datamodule: DeblurDataModule = build(settings["datamodule"], trusted, key="datamodule")
    if settings["init_from"]:
        path = Path(settings["init_from"])
        load_weights(task.net, read_checkpoint(path), path)

    record = {"config": settings, "version": __version__, "commit": commit()}
    about = {"checkpoint": str(_last(folder)), "version": __version__, "commit": record["commit"]}
    scores = Scores(folder, {**about, "seed": settings["seed"], "max_steps": settings["trainer"]["max_steps"]})
    pictures = Pictures(folder / "pictures", settings["pictures"])
    trainer, log = _trainer(settings, trusted, folder, [Record(record), Converter(settings["data"]["patch_size"]), scores, pictures])
    _, accumulation = plan_batches(
        settings["data"]["batch_size"], settings["data"]["micro_batch_size"], trainer.world_size
    )
    trainer.accumulate_grad_batches = accumulation
    # Lightning counts the interval in batches, we in optimizer steps.
    trainer.val_check_interval = settings["val_every_steps"] * accumulation

    if resumed_from is not None:
        reached = int(read_checkpoint(resumed_from)["global_step"])
        if reached >= trainer.max_steps:
            say(f"{folder} is finished: it has reached its {reached} steps; nothing was done")
            return
        log.go_on_from(reached)
        say(f"going on with {folder} from step {reached}")
    elif trainer.is_global_zero:
        OmegaConf.save(config, folder / "config.yaml")
    _announce(trainer, datamodule, task, folder)

    started = time.monotonic()
    try:
        trainer.fit(task, datamodule, ckpt_path=resumed_from, weights_only=True)
    except SIGTERMException:
        say(f"stopped by SIGTERM; go on with: python -m deblur_lab.train resume={folder}")
        sys.exit(143)
    say(f"trained to step {trainer.global_step} in {_duration(time.monotonic() - started)}")
    if settings["evaluate"]:
        trainer.test(task, datamodule, verbose=False)
        print_scores(scores.results)
    say(f"everything is in {folder}")


def _resolve(config: DictConfig) -> tuple[DictConfig, Path, Path | None]:
    """The configuration to run, its folder, and the checkpoint to go on from if there is one."""
    if config.resume is None:
        choices = HydraConfig.get().runtime.choices
        name = f"{time.strftime('%Y%m%d')}-{choices['model']}-{choices['data']}"
        folder = folder_for(config.output, name)
        if (folder / "config.yaml").exists():
            raise ConfigurationError(
                f"output={folder} holds a run already: go on with it by resume={folder}, or name another folder"
            )
        config.output = str(folder)
        return config, folder, None

    folder = Path(config.resume)
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise ConfigurationError(
            f"resume={folder} is not the folder of a run: there is no config.yaml in it"
        )
    typed = [argument for argument in HydraConfig.get().overrides.task if not argument.startswith("resume=")]
    keys = [argument.lstrip("+~").partition("=")[0] for argument in typed]
    refused = [
        argument
        for argument, key in zip(typed, keys, strict=True)
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in CHANGEABLE_ON_RESUME)
    ]
    if refused:
        raise ConfigurationError(
            f"{', '.join(refused)} would make this another run; with resume= only these may change: "
            + ", ".join(CHANGEABLE_ON_RESUME)
        )
    resumed = DictConfig(OmegaConf.load(saved))
    for key in keys:
        OmegaConf.update(resumed, key, OmegaConf.select(config, key))
    resumed.output = str(folder_for(str(folder), ""))
    checkpoint = _last(folder)
    if not checkpoint.exists():
        raise CheckpointError(f"resume={folder}: there is no {checkpoint.relative_to(folder)} to go on from")
    return resumed, folder, checkpoint


def _trainer(
    settings: dict[str, Any], trusted: tuple[str, ...], folder: Path, callbacks: Sequence[Callback]
) -> tuple[L.Trainer, MetricsFile]:
    log = MetricsFile(folder / "metrics.csv")
    loggers: list[Logger] = [log]
    for name, node in settings["logger"].items():
        loggers.append(build(node, trusted, key=f"logger.{name}"))
    checkpoints = folder / "checkpoints"
    node = {
        **settings["trainer"],
        "val_check_interval": settings["val_every_steps"],
        "callbacks": [
            *callbacks,
            LastCheckpoint(_last(folder), settings["checkpoint_every_steps"]),
            ModelCheckpoint(
                checkpoints,
                filename="best",
                monitor="val/psnr_db",
                mode="max",
                enable_version_counter=False,
            ),
            Bars(leave=True),
        ],
        "logger": loggers,
        "plugins": [AtomicCheckpoints()],
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        # Samples are dealt out by our own samplers, so that none is seen or scored twice.
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
    }
    trainer: L.Trainer = build(node, trusted, key="trainer")
    return trainer, log


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def _announce(
    trainer: L.Trainer, datamodule: DeblurDataModule, task: RestorationTask, folder: Path
) -> None:
    """Say what is about to happen, so that a wrong setting is seen before it has cost a night."""
    parameters = sum(parameter.numel() for parameter in task.net.parameters())
    say(f"{type(task.net).__name__}: {parameters / 1e6:.2f} M parameters; folder: {folder}")
    for line in datamodule.describe():
        say(line)
    batch = datamodule.batch_size
    micro = batch // (trainer.world_size * trainer.accumulate_grad_batches)
    say(
        f"{trainer.max_steps} steps of {batch} patches of {datamodule.patch_size} px: {trainer.world_size} "
        f"device(s) ({trainer.strategy.root_device.type}, {trainer.precision}) x {micro} "
        f"x {trainer.accumulate_grad_batches} accumulated"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
