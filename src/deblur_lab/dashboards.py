"""Runs on a web page: Weights & Biases, beside the CSV file that every run keeps."""

import contextlib
import math
import os
import pickle
import queue
import secrets
import shlex
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from deblur_lab.console import say
from deblur_lab.endings import STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM
from deblur_lab.errors import MachineError
from deblur_lab.logs import Exhibit
from deblur_lab.ranges import Positive
from deblur_lab.wandb_process import CLOSE_S, TABLE_S, Failed, Finished, Mode, Start, Started, Table
from deblur_lab.writing import flush_folder, replacing

STEP = "step"
HURRIED_S = 5.0  # how long W&B may take to end a run that a signal has stopped
START_PATIENCE_S = 8.0  # the first step waits no longer for W&B
START_LIMIT_S = 40.0  # a process that has not begun by then is given up
PICTURES = ("blurry", "restored", "sharp", "mask", "trajectories")


class WeightsAndBiases(Logger):
    """Records a run in Weights & Biases; https://docs.wandb.ai.

    It runs in a process of its own (`deblur_lab.wandb_process`), so that nothing that becomes of it stops or
    delays the training: what goes wrong is said in one line. Where W&B cannot be reached, or nobody is logged
    in, the run is recorded offline into its folder, and the command that uploads it is printed at the end.

    Args:
        folder: of the run; W&B's files, and the id of its run, go to ``wandb/`` in it. None: the current one.
        project: at W&B; None: ``WANDB_PROJECT``, or ``deblur_lab``.
        entity: the user or team; None: ``WANDB_ENTITY``, or the account's default.
        name: of the run; None: ``WANDB_NAME``, or the folder's name.
        group: of runs that belong together; None: ``WANDB_RUN_GROUP``, or none.
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
        self._settings = {
            "entity": entity,
            "run_name": name,
            "run_group": group,
            "run_tags": tuple(tags) or None,
        }
        self._mode: Mode = mode
        self._system_metrics = system_metrics
        self._finish_timeout_s = finish_timeout_s
        self._id = ""
        self._recorder: _Recorder | None = None
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
    def begin(self, config: Mapping[str, Any], *, resumed: bool) -> None:
        """Begin a run at W&B or, if this one goes on, go on with its run there.

        Raises:
            MachineError: ``mode`` is ``online``, and W&B cannot be reached.
        """
        if self._mode == "disabled":
            return
        id_file = self._folder / "wandb" / "run_id"
        new = not (resumed and id_file.exists())
        try:
            self._id = self._new_id(id_file) if new else id_file.read_text(encoding="utf-8").strip()
        except (OSError, MachineError) as error:
            say(f"W&B: off, as {error}; {self._kept()}")
            return
        recorder = _Recorder(self._start(config, new=new), self._environment())
        recorder.wait_begun(START_LIMIT_S if self._mode == "online" else START_PATIENCE_S)
        started = recorder.started
        if started is None and self._mode == "online":
            recorder.kill()
            started = Started("refused", f"as {recorder.trouble or 'it did not answer in time'}")
        if started is not None and started.state in ("refused", "disabled"):
            if new:
                _remove(id_file)
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
                *(_number(exhibit.before.get(name)) for name in scores),
                *(_number(exhibit.after.get(name)) for name in scores),
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
        """Log a table of numbers and words; numbers that are not finite are left out."""
        for row in rows:
            self._order("row", [_number(cell) if isinstance(cell, float) else cell for cell in row])
        self._order("table", Table(name, step, list(columns)))

    @rank_zero_only
    def log_scores(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Put the test scores beside the run; with several datasets, the first one's have the plain names."""
        summary: dict[str, Any] = {}
        for number, result in enumerate(results):
            prefix = "test/" if number == 0 else f"test/{result['dataset']}_"
            summary[f"{prefix}dataset"] = result["dataset"]
            summary[f"{prefix}protocol"] = result["protocol"]["name"]
            summary[f"{prefix}tlc"] = result["tlc"]
            summary[f"{prefix}images"] = result["images"]
            for infix, scores in (("", result["scores"]), ("blurry_", result["blurry_scores"])):
                for name, value in scores.items():
                    if _number(value) is not None:
                        summary[f"{prefix}{infix}{name}"] = value
            for name, value in _findings(result).items():
                if _number(value) is not None:
                    summary[f"{prefix}{name}"] = value
        self._order("summary", summary)

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
        id_file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(id_file) as file:
            file.write(f"{run_id}\n")
            file.flush()
            os.fsync(file.fileno())
        flush_folder(id_file.parent)
        return run_id

    def _start(self, config: Mapping[str, Any], *, new: bool) -> Start:
        machine = self._system_metrics
        # Nobody's name for a run that goes on is changed, which may have been given on the web page.
        default_name = None if not new or "WANDB_NAME" in os.environ else self._folder.resolve().name
        return Start(
            self._mode,
            str(self._folder.resolve()),
            config,
            STEP,
            settings={
                **self._settings,
                "run_name": self._settings["run_name"] or default_name,
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


def _remove(id_file: Path) -> None:
    """Take back that there is a run at W&B."""
    id_file.unlink()
    with contextlib.suppress(OSError):
        id_file.parent.rmdir()


class _Recorder:
    """W&B's process, and the thread that feeds it: nobody waits for either longer than they wish.

    Attributes:
        started: how it began; None before that, and if it never does.
        sent: whether W&B has everything, once the recorder has ended.
        missing: what W&B did not take, and why, in one line each, likewise.
        trouble: what went wrong, in words that go on after "as"; empty if nothing did.
    """

    def __init__(self, start: Start, environment: Mapping[str, str]) -> None:
        self.started: Started | None = None
        self.sent = False
        self.missing: Sequence[str] = ()
        self.trouble = ""
        self._start = start
        self._environment = dict(environment)
        self._orders: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._obeyed = 0
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._work, daemon=True, name="wandb").start()

    def order(self, verb: str, content: Any) -> None:  # noqa: ANN401
        """Have something done, later."""
        if not self._ended.is_set():
            self._orders.put((verb, content))

    def wait_begun(self, patience_s: float) -> None:
        """Wait until it is known how it began."""
        self._begun.wait(patience_s)

    def end(self, patience_s: float) -> bool:
        """Wait for the end, which ``finish`` brings, as long as something happens; then force it.

        Args:
            patience_s: how long nothing may happen.

        Returns:
            Whether it came.
        """
        obeyed = -1
        while not self._ended.wait(patience_s) and self._obeyed != obeyed:
            obeyed = self._obeyed
        in_time = self._ended.is_set()
        if in_time and self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_S + 1)
        self.kill()
        return in_time

    def kill(self) -> None:
        """End the process, if it has not ended; W&B's service, which it has started, follows."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not passed on is lost
                    assert pipe is not None
                    pipe.close()

    def _work(self) -> None:
        try:
            answer = self._begin(self._start)
            if isinstance(answer, Failed) and self._start.mode == "auto":
                # In a new process: W&B does not go offline in one that has tried to go online.
                why = f"as W&B could not begin: {answer.why}"
                answer = self._begin(replace(self._start, mode="offline"))
                answer = replace(answer, why=why) if isinstance(answer, Started) else answer
            if isinstance(answer, Started):
                self.started = answer
                self._begun.set()
                if answer.state in ("online", "offline"):
                    self._feed()
            else:
                self.trouble = f"it could not begin: {answer.why}"
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
        finally:
            self._ended.set()
            self._begun.set()

    def _begin(self, start: Start) -> Started | Failed:
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "deblur_lab.wandb_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,  # a terminal's Ctrl-C is for the training alone
        )
        limit = threading.Timer(START_LIMIT_S, process.kill)
        limit.daemon = True
        limit.start()
        try:
            answer = self._told(("start", start))
        finally:
            limit.cancel()
        if isinstance(answer, Started):
            return answer
        process.kill()
        process.wait()
        return answer if isinstance(answer, Failed) else Failed(f"it did not within {START_LIMIT_S:g} s")

    def _feed(self) -> None:
        while True:
            order = self._orders.get()
            if order[0] == "finish":
                answer = self._told(order)
                if isinstance(answer, Finished):
                    self.sent, self.missing = answer.sent, answer.missing
                    return
            else:
                answer = self._given(order)
            if answer is not None:
                self.trouble = answer.why if isinstance(answer, Failed) else str(answer)
                return
            self._obeyed += 1

    def _given(self, order: tuple[str, Any]) -> Any:  # noqa: ANN401
        """Pass an order on; None, or what the process said before it ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            pickle.dump(order, self._process.stdin)
            self._process.stdin.flush()
        except OSError:
            return self._answer() or Failed("its process has ended")
        return None

    def _told(self, order: tuple[str, Any]) -> Any:  # noqa: ANN401
        """Pass an order on, and wait for what is said to it."""
        return self._given(order) or self._answer() or Failed("its process has ended")

    def _answer(self) -> Any:  # noqa: ANN401
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return None


def _number(value: float | None) -> float | None:
    """A finite number, or None."""
    return value if value is not None and math.isfinite(value) else None


def _findings(result: Mapping[str, Any]) -> dict[str, float | None]:
    """What a result says of masks and motion, and of other thresholds, each number under a name."""
    blur, motion = result.get("blur_detection", {}), result.get("motion", {})
    found = {name: result.get(name) for name in ("threshold", "selected_share", "dilated_share")}
    found |= {f"blur_{name}": blur.get(name) for name in ("precision", "recall", "f1", "iou")}
    found["blur_calibration_error"] = blur.get("calibration_error")
    for name in (
        "epe_px",
        "zero_epe_px",
        "moving_epe_px",
        "moving_zero_epe_px",
        "orientation_error_deg",
    ):
        found[name] = motion.get(name)
    for at in result.get("thresholds", ()):
        place = f"threshold_{at['threshold']:g}"
        found |= {f"{place}/{name}": at[name] for name in ("selected_share", "dilated_share")}
        found |= {f"{place}/{name}": value for name, value in at["scores"].items()}
    return found
