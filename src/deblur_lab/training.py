"""One training run, from a composed configuration to weights, scores and pictures in a folder."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig, OmegaConf

from deblur_lab import ranks
from deblur_lab.callbacks import (
    Bars,
    Converter,
    Pictures,
    Record,
    Scores,
    Skipped,
    write_json,
)
from deblur_lab.checkpoints import load_weights, read_checkpoint
from deblur_lab.checks import command_faults, require_device
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, plain, refuse
from deblur_lab.console import print_scores, quieten, say
from deblur_lab.data import DeblurDataModule, plan_batches
from deblur_lab.errors import DivergedError, UserError
from deblur_lab.folder_lock import FolderLock, kept_for_this_run
from deblur_lab.logs import MetricsFile, dashboards, recorded
from deblur_lab.processes import Stop, together
from deblur_lab.provenance import provenance
from deblur_lab.run_folders import (
    CHANGEABLE_ON_RESUME,
    Reached,
    claim,
    make_free,
    newest_checkpoint,
    other_machine,
    release,
    require_same_settings,
    resumed_settings,
    run_of,
    set_aside,
)
from deblur_lab.saving import LAST, AtomicCheckpoints, BestCheckpoint, LastCheckpoint, require_room
from deblur_lab.tasks import RestorationTask


def train(config: DictConfig) -> None:
    """Train, then score the test split with the last weights.

    Args:
        config: ``conf/train.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        UserError: of the kind that fits, in one line.
    """
    quieten()
    config, folder, changed = _resolve(config)
    resumes = changed is not None
    setting = f"{'resume' if resumes else 'output'}={folder}"
    try:
        with kept_for_this_run(folder, setting) as lock:
            if lock is not None and not resumes:
                make_free(folder)
            if changed:
                say(f"other settings than before: {', '.join(changed)}")
            _train(config, folder, newest_checkpoint(folder) if resumes else None, lock)
    except UserError:
        # If it came to nothing, the same command, put right, finds its place free.
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _train(config: DictConfig, folder: Path, resumed_from: Reached | None, lock: FolderLock | None) -> None:
    if resumed_from is not None:  # what is composed was checked; this comes from the folder
        refuse(command_faults("train", config))
    settings = plain(config)
    trusted = tuple(settings["trusted_packages"])
    require_device(settings["trainer"])
    if resumed_from is not None:
        require_same_settings(folder, resumed_from, settings, CHANGEABLE_ON_RESUME)

    L.seed_everything(settings["seed"], verbose=False)
    task: RestorationTask = build(settings["model"], trusted, key="model")
    datamodule: DeblurDataModule = build(settings["datamodule"], trusted, key="datamodule")
    task.check_patch(settings["data"]["patch_size"], settings["data"]["patch_size"])
    if settings["init_from"] and resumed_from is None:
        path = Path(settings["init_from"])
        fresh = load_weights(task.net, read_checkpoint(path), path, in_part=True)
        say(f"starting from {path}" + (f"; {len(fresh)} tensors that it lacks start anew" if fresh else ""))

    made_by = provenance(settings["trainer"]["accelerator"])
    about = {
        "checkpoint": str(_last(folder)),
        "experiment": settings.get("experiment", []),
        "seed": settings["seed"],
        "max_steps": settings["trainer"]["max_steps"],
        "precision": settings["trainer"]["precision"],
        **made_by,
    }
    converter = Converter(settings["data"]["patch_size"])
    scores = Scores(converter, folder, about)
    callbacks = [
        Skipped(folder / "skipped.txt"),
        Record({"config": settings, **made_by}),
        converter,
        scores,
        Pictures(folder / "pictures", settings["pictures"]),
    ]
    saving = AtomicCheckpoints(lock.require) if lock is not None else AtomicCheckpoints()
    stop = Stop()
    trainer, log = _trainer(settings, trusted, folder, [*callbacks, stop], saving)
    _, accumulation = plan_batches(
        settings["data"]["batch_size"], settings["data"]["micro_batch_size"], trainer.world_size
    )
    trainer.accumulate_grad_batches = accumulation
    # Lightning counts the interval in batches, we in optimizer steps.
    trainer.val_check_interval = settings["val_every_steps"] * accumulation

    reached = 0 if resumed_from is None else resumed_from.step
    if reached >= trainer.max_steps and ((folder / "scores.json").exists() or not settings["evaluate"]):
        say(f"{folder} is finished: it has reached its {reached} steps; nothing was done")
        return
    task.configure_optimizers()  # which refuses what it cannot take now, not when the data were looked at
    _announce(trainer, datamodule, task, folder)
    if trainer.is_global_zero:
        require_room(folder / "checkpoints", task)
    if resumed_from is not None:
        if resumed_from.passed_over:
            say(f"{resumed_from.passed_over}: {resumed_from.checkpoint} of step {reached} is taken instead")
        differs = other_machine(resumed_from.record, made_by)
        if differs:
            say(f"other than when it was saved: {differs}")
        if trainer.is_global_zero:
            set_aside(folder, resumed_from)
        log.go_on_from(reached)
        say(f"going on with {folder} from step {reached}")
    elif trainer.is_global_zero:
        claim(folder, config)

    started = time.monotonic()
    ranks.show_way_on(
        lambda: _way_on(folder, trusted), f"nothing was saved yet: remove {folder} and start again"
    )
    try:
        with (
            recorded(
                trainer.loggers,
                {**settings, "provenance": made_by},
                resumed=resumed_from is not None,
                stopped=lambda: stop.exit_code,
            ),
            _told_before_dashboards_end(stop, lambda: _way_on(folder, trusted)),
            together(trainer, stop, _remedy(trainer, datamodule)),
        ):
            newest = None if resumed_from is None else resumed_from.checkpoint
            trainer.fit(task, datamodule, ckpt_path=newest, weights_only=True)
            say(f"trained to step {trainer.global_step} in {_duration(time.monotonic() - started)}")
            if settings["evaluate"]:
                trainer.test(task, datamodule, verbose=False)
                print_scores(scores.results)
                for dashboard in dashboards(trainer.loggers):
                    dashboard.log_scores(scores.results)
    except UserError as error:
        if isinstance(error, DivergedError) and error.record and trainer.is_global_zero:
            error = _written_down(error, folder, datamodule)
        if resumed_from is None:
            _release_if_unsaved(trainer, folder)
        raise error from None
    except SystemExit as ended:
        if resumed_from is None:
            _release_if_unsaved(trainer, folder)
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise  # there was no time to save
        sys.exit(ended.code or stop.exit_code)
    say(f"everything is in {folder}")


@contextlib.contextmanager
def _told_before_dashboards_end(stop: Stop, way_on: Callable[[], str]) -> Iterator[None]:
    """Say how to go on as soon as a signal has stopped the run: a cluster may kill what takes its time."""
    try:
        yield
    except SystemExit as ended:
        if not isinstance(ended.__context__, KeyboardInterrupt):
            say(f"stopped by {stop.cause}; {way_on() or 'nothing was saved yet'}")
        raise


def _way_on(folder: Path, trusted: Sequence[str]) -> str:
    """How to go on with a run that was ended; nothing if it has saved nothing yet."""
    own_code = [f"trusted_packages=[{','.join(trusted)}]"] if trusted else []
    command = shlex.join(["python", "-m", "deblur_lab.train", f"resume={folder}", *own_code])
    return f"go on with: {command}" if _last(folder).exists() else ""


def _release_if_unsaved(trainer: L.Trainer, folder: Path) -> None:
    """Let the same command find the folder free, where a run ended before it had saved anything."""
    if trainer.is_global_zero and not _last(folder).exists():
        release(folder)


def _remedy(trainer: L.Trainer, datamodule: DeblurDataModule) -> str:
    """What to try where memory runs out, most promising first."""
    micro = datamodule.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
    smaller = max((size for size in range(1, micro) if micro % size == 0), default=None)
    return ", ".join(
        [
            *([f"data.micro_batch_size={smaller} (which changes no result)"] if smaller else []),
            f"a data.patch_size below {datamodule.patch_size}",
            *(["trainer.precision=bf16-mixed"] if trainer.precision == "32-true" else []),
        ]
    )


def _written_down(error: DivergedError, folder: Path, datamodule: DeblurDataModule) -> DivergedError:
    """The same error, that says where its record is."""
    path = folder / "diverged.json"
    names = [
        name
        for process in error.record["processes"]
        for batch in process["batches"]
        for name in batch["samples"]
    ]
    files = {name: datamodule.files_of(name) for name in dict.fromkeys(names)}
    write_json(path, {**error.record, "files": files})
    weights = _last(folder)
    anew = f"start anew from init_from={weights} with" if weights.exists() else "try"
    return DivergedError(
        f"{error}; all samples of the step are in {path}: look at them, or {anew} a smaller "
        "model.optimizer.lr or trainer.gradient_clip_val"
    )


def _resolve(config: DictConfig) -> tuple[DictConfig, Path, list[str] | None]:
    """The configuration to run, its folder, and what a resumed run does differently; None for a new one."""
    if config.resume is None:
        choices = HydraConfig.get().runtime.choices
        name = f"{time.strftime('%Y%m%d')}-{choices['model']}-{choices['data']}"
        folder = folder_for(config.output, name)
        config.output = str(folder)
        return config, folder, None

    folder = run_of(config.resume)
    resumed = DictConfig(OmegaConf.load(folder / "config.yaml"))
    # A folder that came from elsewhere must not say itself whose code it may run.
    resumed.trusted_packages = config.trusted_packages
    changed = resumed_settings(resumed, config, HydraConfig.get().overrides.task, CHANGEABLE_ON_RESUME)
    resumed.output = str(folder_for(str(folder), ""))
    return resumed, folder, changed


def _trainer(
    settings: dict[str, Any],
    trusted: tuple[str, ...],
    folder: Path,
    callbacks: Sequence[Callback],
    saving: AtomicCheckpoints,
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
            BestCheckpoint(checkpoints),
            LastCheckpoint(_last(folder), settings["checkpoint_every_steps"]),
            Bars(leave=True),
        ],
        "logger": loggers,
        "plugins": [saving],
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
    return folder / "checkpoints" / LAST


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
    every = int(trainer.val_check_interval) // trainer.accumulate_grad_batches
    if every > trainer.max_steps:
        say(f"val_every_steps={every} comes after the last step: there is no validation and no best.ckpt")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
