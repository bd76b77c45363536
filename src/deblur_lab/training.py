"""One training run, from a composed configuration to weights, scores and pictures in a folder."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig, OmegaConf

from deblur_lab import budgets, ranks
from deblur_lab.announcing import Telling, remedy
from deblur_lab.callbacks import Bars, PeakMemory, Record, Skipped, write_json
from deblur_lab.checkpoint_names import LAST
from deblur_lab.checks import command_faults, require_device
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, plain, refuse
from deblur_lab.console import quieten, say
from deblur_lab.dashboard_values import training_values
from deblur_lab.data import plan_batches
from deblur_lab.errors import DivergedError, UserError
from deblur_lab.final_scores import FinalScores, MeasuredScores, RestoredScores, trained_on
from deblur_lab.folder_lock import FolderLock, kept_for_this_run
from deblur_lab.logs import dashboards, recorded
from deblur_lab.metrics_file import MetricsFile
from deblur_lab.processes import Stop, together
from deblur_lab.provenance import provenance
from deblur_lab.run_folders import (
    CHANGEABLE_ON_RESUME,
    Reached,
    claim,
    has_saved,
    make_free,
    newest_checkpoint,
    other_machine,
    release,
    require_same_settings,
    resumed_settings,
    run_of,
    set_aside,
)
from deblur_lab.run_groups import about_training
from deblur_lab.saving import AtomicCheckpoints, BestCheckpoint, LastCheckpoint, require_room
from deblur_lab.stage_folders import (
    COSTS,
    TAKEN,
    begin,
    can_go_on,
    clear,
    is_complete,
    put_results,
    rows_of,
    unfinished,
)
from deblur_lab.stage_table import columns_of, print_rows, row_of, values_of, write_rows
from deblur_lab.stages import STAGES, Stage, stages_of
from deblur_lab.tasks import TrainingTask
from deblur_lab.writing import duration, writing


def train(config: DictConfig) -> None:
    """Train, then score the test split with the last weights; in stages, if the configuration has any.

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
            if config[STAGES]:
                if resumes:
                    refuse(command_faults("train", config))
                _train_in_stages(config, folder, setting, is_first=lock is not None)
                return
            reached = newest_checkpoint(folder) if resumes else None
            if reached is not None:  # what is composed was checked; this comes from the folder
                refuse(command_faults("train", config))
            _train(config, folder, reached, lock)
    except UserError:
        # If it came to nothing, the same command, put right, finds its place free.
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _train_in_stages(config: DictConfig, folder: Path, setting: str, *, is_first: bool) -> None:
    """Train those stages that are not done yet, and put what the last one left into the whole's folder."""
    stages = stages_of(config)
    if not unfinished(stages) and is_complete(folder):
        say(f"{folder} is finished: its {len(stages)} stages are done; nothing was done")
        return
    if is_first and not (folder / "config.yaml").exists():
        claim(folder, config)
    try:
        begin(stages, config.init_from, tuple(config.trusted_packages))
        for stage in unfinished(stages):
            _train_stage(stage, stages, setting)
            if ranks.started_by_first():
                return  # each stage has processes of its own
    except (UserError, SystemExit):
        if is_first and not has_saved(folder):
            release(folder)
        raise
    if is_first:
        write_rows(folder, rows_of(stages))
        put_results(stages[-1])
    say(f"everything is in {folder}")


def _train_stage(stage: Stage, stages: Sequence[Stage], setting: str) -> None:
    with writing(stage.folder):
        stage.folder.mkdir(parents=True, exist_ok=True)
    try:
        with kept_for_this_run(stage.folder, setting) as lock:
            reached = newest_checkpoint(stage.folder) if can_go_on(stage) else None
            if lock is not None and reached is None:
                clear(stage)
                make_free(stage.folder)
            _train(stage.config, stage.folder, reached, lock, stage, stages)
    except UserError as error:
        if stage.title not in str(error):  # as another process of the run has said it
            error.args = (f"{stage.title}: {error}",)
        raise


def _train(
    config: DictConfig,
    folder: Path,
    resumed_from: Reached | None,
    lock: FolderLock | None,
    stage: Stage | None = None,
    stages: Sequence[Stage] = (),
) -> None:
    settings = plain(config)
    trusted = tuple(settings["trusted_packages"])
    require_device(settings["trainer"])
    if resumed_from is not None:
        known = resumed_from.record.get("config", settings)
        # A run from before there were budgets knows of none.
        same = {key: node for key, node in settings.items() if key != budgets.BUDGET or key in known}
        require_same_settings(folder, resumed_from, same, CHANGEABLE_ON_RESUME)

    memory = PeakMemory()
    L.seed_everything(settings["seed"], verbose=False)
    telling = Telling(folder, stage, trusted)
    task: TrainingTask = build(settings["model"], trusted, key="model")
    datamodule = build(settings["datamodule"], trusted, key="datamodule")
    task.check_patch(settings["data"]["patch_size"], settings["data"]["patch_size"])
    if resumed_from is None:
        for line in task.start(Path(settings["init_from"]) if settings["init_from"] else None):
            telling.say(line)

    made_by = provenance(settings["trainer"]["accelerator"])
    about = {
        "checkpoint": str(_last(folder)),
        "experiment": settings.get("experiment", []),
        "seed": settings["seed"],
        "max_steps": settings["trainer"]["max_steps"],
        "budget": _spent(config, stage, stages).as_json(),
        "precision": settings["trainer"]["precision"],
        **made_by,
    }
    scores: FinalScores = (
        RestoredScores(folder, about, settings["data"]["patch_size"], settings["pictures"])
        if task.restores
        else MeasuredScores(folder, about)
    )
    record = Record({"config": settings, **made_by})
    callbacks = [
        Skipped(folder / "skipped.txt"),
        record,
        *scores.callbacks,
        memory,
        BestCheckpoint(folder / "checkpoints", *task.monitor),
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
    if stage is None and reached >= trainer.max_steps and (scores.file.exists() or not settings["evaluate"]):
        say(f"{folder} is finished: it has reached its {reached} steps; nothing was done")
        return
    task.configure_optimizers()  # which refuses what it cannot take now, not when the data were looked at
    telling.announce(trainer, datamodule, task)
    trained = {"trained_on": trained_on(datamodule)}
    record.record |= trained
    scores.add(trained)
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
        telling.say(f"going on with {folder} from step {reached}")
    elif trainer.is_global_zero:
        claim(folder, config)

    started = time.monotonic()
    ranks.show_way_on(telling.way_on, f"nothing was saved yet: remove {telling.resumable} and start again")
    try:
        with (
            recorded(
                trainer.loggers,
                {
                    **settings,
                    "about": about_training(
                        settings,
                        trained["trained_on"],
                        folder,
                        is_last=stage is None or stage.number == stage.count,
                    ),
                    "provenance": made_by,
                },
                resumed=resumed_from is not None,
                stopped=lambda: stop.exit_code,
            ),
            _told_before_dashboards_end(stop, telling),
            together(
                trainer,
                stop,
                remedy(trainer, datamodule, task),
                more_follows=stage is not None and stage.number < stage.count,
            ),
        ):
            newest = None if resumed_from is None else resumed_from.checkpoint
            trainer.fit(task, datamodule, ckpt_path=newest, weights_only=True)
            telling.say(f"trained to step {trainer.global_step} in {duration(time.monotonic() - started)}")
            if settings["evaluate"]:
                trainer.test(task, datamodule, verbose=False)
                scores.show(trainer)
            if trainer.is_global_zero:
                row = row_of(
                    None if stage is None else stage.name,
                    trainer.global_step,
                    task.net,
                    memory.peak_bytes,
                    memory.seconds,
                    scores.means(),
                )
                write_json(folder / COSTS, row)
                for dashboard in dashboards(trainer.loggers):
                    dashboard.log_values(training_values(row))
                if stage is not None:
                    _show_stages(stages, trainer)
    except UserError as error:
        if isinstance(error, DivergedError) and error.record and trainer.is_global_zero:
            error = telling.written_down(error, datamodule)
        if resumed_from is None:
            _release_if_unsaved(trainer, folder)
        raise error from None
    except SystemExit as ended:
        if resumed_from is None:
            _release_if_unsaved(trainer, folder)
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise  # there was no time to save
        sys.exit(ended.code or stop.exit_code)
    if stage is None:
        say(f"everything is in {folder}")


def _spent(config: DictConfig, stage: Stage | None, stages: Sequence[Stage]) -> budgets.Spent:
    """What a training takes from nothing to its end, the stages before it included.

    A stage for which a checkpoint stands was not trained here.
    """
    if stage is None:
        return budgets.spent([("", config)])
    done = stages[: stage.number]
    taken = [one for one in done if (one.folder / TAKEN).is_file()]
    total = budgets.spent([(one.name, one.config) for one in done if one not in taken])
    total.besides += [f"{one.title}, for which a checkpoint stands" for one in taken]
    return total


def _show_stages(stages: Sequence[Stage], trainer: L.Trainer) -> None:
    """The table of all stages so far: on the screen, in the whole's folder, and on dashboards."""
    rows = rows_of(stages)
    write_rows(stages[0].whole, rows)
    print_rows(rows, f"stages of {stages[0].whole}")
    columns = columns_of(rows)
    for dashboard in dashboards(trainer.loggers):
        values = [values_of(row, columns) for row in rows]
        dashboard.log_table(STAGES, columns, values, max(0, trainer.global_step - 1))


@contextlib.contextmanager
def _told_before_dashboards_end(stop: Stop, telling: Telling) -> Iterator[None]:
    """Say how to go on as soon as a signal has stopped the run: a cluster may kill what takes its time."""
    try:
        yield
    except SystemExit as ended:
        if not isinstance(ended.__context__, KeyboardInterrupt):
            way_on = telling.way_on()
            saved = "it is saved" if ranks.told_by_sweep() else way_on
            telling.say(f"stopped by {stop.cause}; {saved if way_on else 'nothing was saved yet'}")
        raise


def _release_if_unsaved(trainer: L.Trainer, folder: Path) -> None:
    """Let the same command find the folder free, where a run ended before it had saved anything."""
    if trainer.is_global_zero and not _last(folder).exists():
        release(folder)


def _resolve(config: DictConfig) -> tuple[DictConfig, Path, list[str] | None]:
    """The configuration to run, its folder, and what a resumed run does differently; None for a new one."""
    if config.resume is None:
        choices = HydraConfig.get().runtime.choices
        name = f"{time.strftime('%Y%m%d')}-{choices['model']}-{choices['data']}"
        folder = folder_for(config.output, name)
        config.output = str(folder)
        for line in budgets.apply(config, HydraConfig.get().overrides.task):
            say(line)
        return config, folder, None

    folder = run_of(config.resume)
    resumed = DictConfig(OmegaConf.load(folder / "config.yaml"))
    # A folder that came from elsewhere must not say itself whose code it may run.
    resumed.trusted_packages = config.trusted_packages
    if STAGES not in resumed:  # of a run from before there were any
        resumed[STAGES] = {}
    if budgets.BUDGET not in resumed:
        resumed[budgets.BUDGET] = dict(budgets.NOT_SET)
    budgets.apply(config, HydraConfig.get().overrides.task)  # of an experiment that is typed again
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
    node = {
        **settings["trainer"],
        "val_check_interval": settings["val_every_steps"],
        "callbacks": [
            *callbacks,
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
