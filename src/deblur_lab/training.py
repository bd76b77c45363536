"""One training run, from a composed configuration to weights, scores and pictures in a folder."""

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from deblur_lab.callbacks import Bars, Converter, LastCheckpoint, Pictures, Record, Scores
from deblur_lab.checkpoints import AtomicCheckpoints, load_weights, read_checkpoint
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, faults, plain, range_faults, refuse
from deblur_lab.console import print_scores, quieten, say
from deblur_lab.data import DeblurDataModule, plan_batches
from deblur_lab.errors import CheckpointError, ConfigurationError, UserError
from deblur_lab.logs import MetricsFile
from deblur_lab.provenance import provenance
from deblur_lab.tasks import RestorationTask

# What a resumed run may do differently without becoming another run.
CHANGEABLE_ON_RESUME = (
    "checkpoint_every_steps",
    "data.micro_batch_size",
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


_WHOLE_NUMBERS = {
    "seed": 0,
    "val_every_steps": 1,
    "checkpoint_every_steps": 1,
    "pictures": 0,
    "trainer.max_steps": 1,
}


def train(config: DictConfig) -> None:
    """Train, then score the test split with the last weights.

    Args:
        config: ``conf/train.yaml``, composed.

    Raises:
        UserError: of the kind that fits, in one line.
    """
    quieten()
    config, folder, resumed_from = _resolve(config)
    try:
        _train(config, folder, resumed_from)
    except UserError:
        # If it came to nothing, the same command, put right, finds its place free.
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _train(config: DictConfig, folder: Path, resumed_from: Path | None) -> None:
    settings = plain(config)
    trusted = tuple(settings["trusted_packages"])
    refuse([*faults(config, trusted), *range_faults(settings, _WHOLE_NUMBERS, ["evaluate"])])

    L.seed_everything(settings["seed"], verbose=False)
    task: RestorationTask = build(settings["model"], trusted, key="model")
    datamodule: DeblurDataModule = build(settings["datamodule"], trusted, key="datamodule")
    task.check_patch(settings["data"]["patch_size"], settings["data"]["patch_size"])
    if settings["init_from"]:
        path = Path(settings["init_from"])
        fresh = load_weights(task.net, read_checkpoint(path), path, in_part=True)
        say(f"starting from {path}" + (f"; {len(fresh)} tensors that it lacks start anew" if fresh else ""))

    made_by = provenance(settings["trainer"]["accelerator"])
    about = {
        "checkpoint": str(_last(folder)),
        "seed": settings["seed"],
        "max_steps": settings["trainer"]["max_steps"],
        "precision": settings["trainer"]["precision"],
        **made_by,
    }
    converter = Converter(settings["data"]["patch_size"])
    scores = Scores(converter, folder, about)
    callbacks = [
        Record({"config": settings, **made_by}),
        converter,
        scores,
        Pictures(folder / "pictures", settings["pictures"]),
    ]
    trainer, log = _trainer(settings, trusted, folder, callbacks)
    _, accumulation = plan_batches(
        settings["data"]["batch_size"], settings["data"]["micro_batch_size"], trainer.world_size
    )
    trainer.accumulate_grad_batches = accumulation
    # Lightning counts the interval in batches, we in optimizer steps.
    trainer.val_check_interval = settings["val_every_steps"] * accumulation

    reached = 0 if resumed_from is None else int(read_checkpoint(resumed_from)["global_step"])
    if reached >= trainer.max_steps and ((folder / "scores.json").exists() or not settings["evaluate"]):
        say(f"{folder} is finished: it has reached its {reached} steps; nothing was done")
        return
    task.configure_optimizers()  # which refuses what it cannot take now, not when the data were looked at
    _announce(trainer, datamodule, task, folder)
    if resumed_from is not None:
        log.go_on_from(reached)
        say(f"going on with {folder} from step {reached}")
    elif trainer.is_global_zero:
        _claim(folder, config)

    started = time.monotonic()
    ctrl_c = _CtrlC()
    signal.signal(signal.SIGINT, ctrl_c)
    try:
        trainer.fit(task, datamodule, ckpt_path=resumed_from, weights_only=True)
        say(f"trained to step {trainer.global_step} in {_duration(time.monotonic() - started)}")
        if settings["evaluate"]:
            trainer.test(task, datamodule, verbose=False)
            print_scores(scores.results)
    except UserError:
        if resumed_from is None and not _last(folder).exists():
            _release(folder)
        raise
    except SIGTERMException:
        command = shlex.join(["python", "-m", "deblur_lab.train", f"resume={folder}"])
        say(f"stopped by {'Ctrl-C' if ctrl_c.pressed else 'SIGTERM'}; go on with: {command}")
        sys.exit(130 if ctrl_c.pressed else 143)
    say(f"everything is in {folder}")


class _CtrlC:
    """Ctrl-C stops a run as SIGTERM does, when its step is done and saved; a second one stops it at once."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            raise KeyboardInterrupt  # Lightning does not listen yet, or no more
        os.kill(os.getpid(), signal.SIGTERM)


def _claim(folder: Path, config: DictConfig) -> None:
    """Write ``config.yaml``, which makes a folder that of a run.

    Raises:
        ConfigurationError: another run was quicker.
    """
    try:
        with (folder / "config.yaml").open("x", encoding="utf-8") as file:
            OmegaConf.save(config, file)
    except FileExistsError as error:
        raise _holds_a_run(folder) from error


def _release(folder: Path) -> None:
    """Take back what a run has written that was stopped by a mistake before its first checkpoint."""
    for name in ("config.yaml", "metrics.csv"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (folder / "checkpoints").rmdir()


def _holds_a_run(folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"output={folder} holds a run already: go on with it by resume={folder}, or name another folder"
    )


def _resolve(config: DictConfig) -> tuple[DictConfig, Path, Path | None]:
    """The configuration to run, its folder, and the checkpoint to go on from if there is one."""
    if config.resume is None:
        choices = HydraConfig.get().runtime.choices
        name = f"{time.strftime('%Y%m%d')}-{choices['model']}-{choices['data']}"
        folder = folder_for(config.output, name)
        # The other processes of a run find there what the first has written.
        if (folder / "config.yaml").exists() and "LOCAL_RANK" not in os.environ:
            raise _holds_a_run(folder)
        config.output = str(folder)
        return config, folder, None

    folder = Path(config.resume)
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise ConfigurationError(f"resume={folder} is not the folder of a run: there is no config.yaml in it")
    resumed = DictConfig(OmegaConf.load(saved))
    refused = []
    for argument in HydraConfig.get().overrides.task:
        key = argument.lstrip("+~").partition("=")[0]
        if key == "resume":
            continue
        changeable = any(key == allowed or key.startswith(f"{allowed}.") for allowed in CHANGEABLE_ON_RESUME)
        if changeable and _has(resumed, key):
            OmegaConf.update(resumed, key, OmegaConf.select(config, key), merge=False)
        else:
            refused.append(argument.lstrip("+"))
    if refused:
        raise ConfigurationError(
            f"{', '.join(refused)} would make this another run; with resume= only these may change: "
            + ", ".join(CHANGEABLE_ON_RESUME)
        )
    resumed.output = str(folder_for(str(folder), ""))
    checkpoint = _last(folder)
    if not checkpoint.exists():
        raise CheckpointError(
            f"resume={folder}: there is no {checkpoint.relative_to(folder)} to go on from; it was stopped "
            "before its first: start it again with another output="
        )
    return resumed, folder, checkpoint


def _has(config: DictConfig, key: str) -> bool:
    """Whether there is such a setting, be it set or not."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in list(node)


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
            ModelCheckpoint(
                checkpoints,
                filename="best",
                monitor="val/psnr_db",
                mode="max",
                enable_version_counter=False,
            ),
            LastCheckpoint(_last(folder), settings["checkpoint_every_steps"]),
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


def _announce(trainer: L.Trainer, datamodule: DeblurDataModule, task: RestorationTask, folder: Path) -> None:
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
