"""Runs on a web page: Weights & Biases, beside the CSV file that every run keeps."""

import contextlib
import math
import os
import re
import secrets
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from deblur_lab.console import say
from deblur_lab.dashboard_values import finite, score_values
from deblur_lab.endings import STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM
from deblur_lab.errors import MachineError
from deblur_lab.logs import Exhibit, Work
from deblur_lab.ranges import Positive
from deblur_lab.run_groups import GROUP_FILE, ID_FILE, common_group, kept_group, place_of
from deblur_lab.wandb_process import CLOSE_S, TABLE_S, Files, Mode, Start, Started, Table
from deblur_lab.wandb_recorder import START_LIMIT_S, Recorder
from deblur_lab.writing import flush_folder, replacing

STEP = "step"
HURRIED_S = 5.0  # how long W&B may take to end a run that a signal has stopped
START_PATIENCE_S = 8.0  # the first step waits no longer for W&B
PICTURES = ("blurry", "restored", "sharp", "true_mask", "mask", "trajectories")


class WeightsAndBiases(Logger):
    """Records a run in Weights & Biases; https://docs.wandb.ai.

    It runs in a process of its own (`deblur_lab.wandb_process`), so that nothing that becomes of it stops or
    delays the training: what goes wrong is said in one line. Where W&B cannot be reached, or nobody is logged
    in, the run is recorded offline into its folder, and the command that uploads it is printed at the end.

    Args:
        folder: of the run; W&B's files, and the id of its run, go to ``wandb/`` in it. None: the current one.
        project: at W&B; None: ``WANDB_PROJECT``, or ``deblur_lab``.
        entity: the user or team; None: ``WANDB_ENTITY``, or the account's default.
        name: of the run; None: ``WANDB_NAME``, or of a job of a sweep its own settings, else the folder's
            name.
        group: of runs that belong together; None: the one that a resumed run has, ``WANDB_RUN_GROUP``, or
            the name of the sweep's folder, else none.
        tags: to find runs by.
        mode: ``auto`` goes offline where it must, and as ``WANDB_MODE`` says; ``online`` fails instead;
            ``offline`` records into the folder; ``disabled`` does nothing.
        system_metrics: record the use of processors, GPUs and memory, and what the machine is.
        finish_timeout_s: how long the end of a run may wait for uploading.
    """

    def __init__(
        self,
        folder: Path | None,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: Mode = "auto",
        system_metrics: bool = False,
        finish_timeout_s: Positive = 60.0,
    ) -> None:
        super().__init__()
        self._folder = Path(folder or ".")
        self._project = project or os.environ.get("WANDB_PROJECT") or "deblur_lab"
        self._settings = {"entity": entity, "run_name": name, "run_tags": tuple(tags) or None}
        self._group = group
        self._mode: Mode = mode
        self._system_metrics = system_metrics
        self._finish_timeout_s = finish_timeout_s
        self._id = ""
        self._recorder: Recorder | None = None
        self._began = False
        self._told = False

    @property
    def name(self) -> str:
        """The project's name."""
        return self._project

    @property
    def version(self) -> str:
        """The id of W&B's run, once there is one."""
        return self._id

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder)

    @rank_zero_only
    def begin(
        self,
        config: Mapping[str, Any],
        *,
        resumed: bool,
        work: Work = "train",
        of_runs: Sequence[Path] = (),
    ) -> None:
        """Begin a run at W&B or, if this one goes on, go on with its run there.

        Args:
            config: what it is, as dicts, lists, strings and numbers.
            resumed: whether it goes on with what stands in its folder.
            work: the run's job type.
            of_runs: the folders of the runs that it is about, whose group is its own if they share one.

        Raises:
            MachineError: ``mode`` is ``online``, and W&B cannot be reached.
        """
        if self._mode == "disabled":
            return
        # A report may lie in the folder of a run, whose id is not its own.
        is_report = work == "report"
        id_file = self._folder / (ID_FILE.with_name("report_id") if is_report else ID_FILE)
        new = not (resumed and id_file.exists())
        try:
            self._group = self._group_of(resumed, of_runs)
            self._id = self._new_id(id_file) if new else id_file.read_text(encoding="utf-8").strip()
            if self._group is not None and not is_report:
                _write(self._folder / GROUP_FILE, self._group)
        except (OSError, MachineError) as error:
            say(f"W&B: off, as {error}; {self._kept()}")
            return
        recorder = Recorder(self._start(config, new=new, work=work), self._environment())
        recorder.wait_begun(START_LIMIT_S if self._mode == "online" else START_PATIENCE_S)
        started = recorder.started
        if started is None and self._mode == "online":
            recorder.kill()
            started = Started("refused", f"as {recorder.trouble or 'it did not answer in time'}")
        if started is not None and started.state in ("refused", "disabled"):
            if new:
                _remove(id_file, *([] if is_report else [self._folder / GROUP_FILE]))
            if started.state == "refused":
                raise MachineError(
                    f"logger.wandb.mode=online cannot be, {started.why}: mend that, or choose "
                    "logger.wandb.mode=auto, which records offline where it must"
                )
            say(f"W&B: off, {started.why}")
            return
        self._recorder = recorder
        if started is None and not recorder.trouble:
            say(f"W&B: has not begun within {START_PATIENCE_S:g} s; nothing waits for it")
        self._tell()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Lightning's."""
        row = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        row = {key: value for key, value in row.items() if not math.isnan(value)}
        self._order("log", {**row, STEP: 0 if step is None else step})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: `begin` is given the configuration."""

    @rank_zero_only
    def log_pictures(self, exhibits: Sequence[Exhibit], step: int) -> None:
        """Log test images as the table ``test/pictures``; columns that no image has are left out."""
        if self._recorder is None or not exhibits:
            return
        pictures = [name for name in PICTURES if any(name in exhibit.pictures for exhibit in exhibits)]
        scores = list(dict.fromkeys(name for exhibit in exhibits for name in exhibit.after))
        rows = [
            [
                exhibit.name,
                exhibit.dataset,
                *(exhibit.pictures.get(name) for name in pictures),
                *(finite(exhibit.before.get(name)) for name in scores),
                *(finite(exhibit.after.get(name)) for name in scores),
            ]
            for exhibit in exhibits
        ]
        columns = ["name", "dataset", *pictures, *(f"blurry_{name}" for name in scores), *scores]
        # Row by row, so that it can be seen at the end whether W&B's process is getting on.
        for row in rows:
            self._order("row", row)
        self._order("table", Table("test/pictures", step, columns))

    @rank_zero_only
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table of numbers, words and pictures; numbers that are not finite are left out.

        Args:
            name: its key at W&B.
            columns: their names.
            rows: as long as the columns; a path is that of a picture's file.
            step: at which it is logged.
        """
        for row in rows:
            self._order("row", [_cell(cell) for cell in row])
        self._order("table", Table(name, step, list(columns)))

    @rank_zero_only
    def log_scores(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Put the test scores beside the run; with several datasets, the first one's have the plain names."""
        self._order("summary", score_values(results))

    @rank_zero_only
    def log_values(self, values: Mapping[str, Any]) -> None:
        """Put numbers and words beside the run; what is not finite is left out."""
        kept = {name: _cell(value) for name, value in values.items()}
        self._order("summary", {name: value for name, value in kept.items() if value is not None})

    @rank_zero_only
    def log_files(self, name: str, files: Sequence[Path]) -> None:
        """Keep files as an artifact of the run's own kind; a page in HTML is a panel as well.

        Args:
            name: the panel's key at W&B; the artifact has it with the folder's name.
            files: to be kept, each by its name.
        """
        folder = self._folder.resolve().name
        artifact = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{name.partition('/')[0]}-{folder}")[:120]
        paths = [str(path.resolve()) for path in files]
        self._order("files", Files(name, artifact, name.partition("/")[0], paths))

    @rank_zero_only
    def conclude(self, exit_code: int) -> None:
        """End the run at W&B, and say how to upload what is not there yet."""
        recorder = self._recorder
        if recorder is None:
            return
        recorder.order("finish", exit_code)
        # A cluster kills what does not end soon after its signal.
        hurried = exit_code in (STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM)
        patience_s = min(self._finish_timeout_s, HURRIED_S) if hurried else self._finish_timeout_s
        in_time = recorder.end((patience_s if hurried else max(patience_s, TABLE_S)) + CLOSE_S)
        if in_time:
            self._tell()
        self._recorder = None
        for line in recorder.missing:
            say(f"W&B: could not take {line}; {self._kept()}")
        started = recorder.started
        if started is None:
            if not in_time:
                say(f"W&B: off, as it never began; {self._kept()}")
            return
        unsent = started.state == "online" and not recorder.sent
        command = self._way_to_upload(Path(started.part) if unsent else None)
        if unsent:
            late = "" if self._told else f" within {patience_s:g} s"
            say(f"W&B: not everything was sent{late}; upload the rest with: {command}")
        elif command is not None:
            if not in_time:
                say(f"W&B: stopped, as it did not end within {patience_s:g} s")
            say(f"W&B: upload what was recorded offline with: {command}")

    def _order(self, verb: str, content: Any) -> None:  # noqa: ANN401 - anything that can be pickled
        if self._recorder is not None:
            self._recorder.order(verb, content)
            self._tell()

    def _tell(self) -> None:
        """Say how it began and what went wrong, each once.

        Here and not in the recorder's thread, which would garble the progress bars.
        """
        if self._recorder is None:
            return
        started = self._recorder.started
        if started is not None and not self._began:
            self._began = True
            why = f", {started.why}" if started.why else ""
            here = f"recording offline into {self._folder / 'wandb'}{why}"
            say(f"W&B: {started.url if started.state == 'online' else here}")
        if self._recorder.trouble and not self._told:
            self._told = True
            say(f"W&B: off from here on, as {self._recorder.trouble}; {self._kept()}")

    def _kept(self) -> str:
        return f"the files in {self._folder} hold everything"

    def _new_id(self, id_file: Path) -> str:
        # A sweep of W&B's own tells its jobs who they are.
        given = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
        run_id = given or secrets.token_hex(4)
        _write(id_file, run_id)
        return run_id

    def _group_of(self, resumed: bool, of_runs: Sequence[Path]) -> str | None:
        """What was asked for, or else the group that the run has by itself."""
        kept = kept_group(self._folder) if resumed else None
        asked = self._group or kept or os.environ.get("WANDB_RUN_GROUP")
        return asked or (common_group(of_runs) if of_runs else place_of(self._folder).group)

    def _start(self, config: Mapping[str, Any], *, new: bool, work: Work) -> Start:
        machine = self._system_metrics
        # Nobody's name for a run that goes on is changed, which may have been given on the web page.
        default_name = None
        if new and "WANDB_NAME" not in os.environ:
            folder = self._folder.resolve().name
            default_name = f"report of {folder}" if work == "report" else place_of(self._folder).name
        return Start(
            self._mode,
            str(self._folder.resolve()),
            config,
            STEP,
            settings={
                **self._settings,
                "run_name": self._settings["run_name"] or default_name,
                "run_group": self._group,
                "run_job_type": os.environ.get("WANDB_JOB_TYPE") or work,
                "project": self._project,
                "run_id": self._id,
                "resume": "allow",
                "console": "off",
                "disable_code": True,
                "disable_git": True,
                "save_code": False,
                "silent": True,
                "finish_timeout": self._finish_timeout_s,
                "finish_timeout_raises": True,
                "program": "deblur_lab",
                "host": None if machine else "",
            },
            private_settings={
                "use_dot_wandb": False,
                "label_disable": True,
                "x_disable_machine_info": not machine,
                "x_disable_meta": not machine,
                "x_disable_stats": not machine,
                "x_save_requirements": False,
                "x_stats_pid": os.getpid(),
                "x_transaction_log_flush_interval": 5.0,
            },
        )

    def _environment(self) -> dict[str, str]:
        """Of W&B's process: silent, and with its large files in the run's folder, not at home."""
        own = self._folder.resolve() / "wandb"
        return {
            "WANDB_DATA_DIR": str(own / "data"),  # pictures of tables, until they are uploaded
            "WANDB_CACHE_DIR": str(own / "cache"),
            "WANDB_ERROR_REPORTING": "false",
            **os.environ,
            "WANDB_SILENT": "true",
        }

    def _way_to_upload(self, unsent: Path | None) -> str | None:
        """The command that uploads what is not at W&B yet, parts that earlier starts left included.

        Args:
            unsent: the folder of an online part that W&B has not got whole, if there is one.
        """
        folder = self._folder / "wandb"
        parts = [
            path.parent
            for path in folder.glob("offline-run-*/*.wandb")
            if not Path(f"{path}.synced").exists()
        ]
        command = ["python", "-m", "wandb", "sync"]
        if unsent is not None:
            # Named one by one: other parts of this kind were sent, and would be sent again.
            command += ["--include-online", str(folder / unsent.name), *map(str, sorted(parts))]
        elif parts:
            command.append(str(folder))
        else:
            return None
        return shlex.join(command)


def _write(path: Path, text: str) -> None:
    """Write a line that outlasts a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    flush_folder(path.parent)


def _remove(*files: Path) -> None:
    """Take back that there is a run at W&B."""
    for path in files:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        files[0].parent.rmdir()


def _cell(value: Any) -> Any:  # noqa: ANN401 - any plain value
    """A value, without numbers that are not finite; a path absolute, for another process."""
    if isinstance(value, Path):
        return value.resolve()
    return finite(value) if isinstance(value, float) else value
