"""The thread and the process that record a run at W&B, beside the one that does the work."""

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from deblur_lab.wandb_process import CLOSE_S, Failed, Finished, Start, Started

START_LIMIT_S = 40.0
"""A process that has not begun by then is given up."""


class Recorder:
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
