"""How the processes of a run are started, stopped by signals, and ended together; on one device too.

Lightning's own ways are replaced where they do not do: it answers a signal by a collective in the middle of
others, asks all processes at every batch, kills itself without a word when a process fails, and leaves the
others waiting when the first one does.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from inspect import signature
from types import FrameType
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.strategies.ddp import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from lightning.pytorch.strategies.parallel import ParallelStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.nn.parallel import DistributedDataParallel

from deblur_lab import ranks
from deblur_lab.data.loading import worker_fault
from deblur_lab.errors import ConfigurationError, DataError, MachineError, UserError
from deblur_lab.machine import machine_fault

# What PyTorch's DDP calls it: newer versions deprecate the second name.
_SYNCED_AT_EACH_BATCH = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)
# How PyTorch's collectives say that another process does not answer.
_LOST = re.compile(r"gloo|nccl|socket|connect|peer|broken pipe|timed out|tcpstore|rendezvous", re.IGNORECASE)

# How long a process may take to end, once it is agreed that it does.
_ENDING_S = 10.0
# How long the first process may take to end before others, which nothing keeps from it, do.
_FIRST_S = 2.0
# How long a second Ctrl-C may take to be obeyed, before it is by force.
_HURRY_S = 3.0


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of a run as Lightning does, and watches over them.

    Args:
        environment: what Lightning found that the run is started by.
        num_processes: on this machine.
        num_nodes: the number of machines.
    """

    def __init__(self, environment: ClusterEnvironment, num_processes: int, num_nodes: int) -> None:
        super().__init__(environment, num_processes, num_nodes)
        self.watch: ranks.Watch | None = None
        self._before: dict[str, str | None] = {}

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - Lightning's signature
        trainer: L.Trainer | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Lightning's: start what is to be started, then do this process's part.

        Raises:
            ConfigurationError: what started this process did so for other numbers of devices or nodes.
        """
        environment = self.cluster_environment
        try:
            environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"trainer.devices={self.num_processes} trainer.num_nodes={self.num_nodes}: "
                f"{str(error).replace('in Lightning', 'here')}"
            ) from error
        if not environment.creates_processes_externally and self.watch is None:
            self._start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    @property
    def starts_none(self) -> bool:
        """Whether something else starts the processes."""
        ours = self.watch is not None or ranks.started_by_first()
        return self.cluster_environment.creates_processes_externally and not ours

    def end(self, patience_s: float) -> None:
        """See to it that the other processes have ended, and forget them."""
        if self.watch is None:
            return
        self.watch.let_end(patience_s)
        self.watch = None
        self.procs = []
        # Or the next job of a sweep would take itself for one that was started by this.
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _start(self) -> None:
        environment = self.cluster_environment
        shared = {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        self._before = {name: os.environ.get(name) for name in shared}
        os.environ.update(shared)
        pipes = []
        self.procs = []
        with _deaf():
            for local_rank in range(1, self.num_processes):
                reading, writing = os.pipe()
                process = subprocess.Popen(
                    [sys.executable, "-m", _module(), *sys.argv[1:]],
                    env={**os.environ, **ranks.environment_of(writing), "LOCAL_RANK": str(local_rank)},
                    pass_fds=[writing],
                )
                os.close(writing)
                pipes.append(reading)
                self.procs.append(process)
        self.watch = ranks.Watch(self.procs, pipes, environment.node_rank() * self.num_processes + 1)
        self.watch.start()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Lets what is started here ignore signals until it listens to them: this process decides until then."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _module() -> str:
    """What this process was started as, by ``python -m``; of a job of a sweep, what runs it alone."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return f"deblur_lab.{HydraConfig.get().job.config_name}"
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "the commands are modules"
    return spec.name


class Stop(Callback):
    """Stops a run on SIGTERM or Ctrl-C, when its step is done and saved; on all devices after the same step.

    In training all processes agree once a step; Lightning then raises ``SIGTERMException`` in each. A scoring
    is left where it is: on several devices each skips the rest of its part, and they meet again where rows
    are gathered, which are then too few. A second Ctrl-C ends the run at once.

    Attributes:
        asked: the signal that was received first, or None.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._working = False
        self._launcher: Launcher | None = None
        self._connector: _Signals | None = None
        self._several = False
        self._over = threading.Event()

    @property
    def exit_code(self) -> int:
        """Of a process that was stopped."""
        return 128 + (self.asked or signal.SIGTERM)

    @property
    def cause(self) -> str:
        """What stopped the run, in a word."""
        return "Ctrl-C" if self.asked == signal.SIGINT else "SIGTERM"

    @contextlib.contextmanager
    def listening(self, trainer: L.Trainer, launcher: Launcher | None) -> Iterator[None]:
        """Receive signals, for what is done with a trainer; only in the main thread."""
        self._launcher = launcher
        self._several = trainer.world_size > 1
        self._connector = trainer._signal_connector = _Signals(trainer)
        # A broadcast at every batch, for which a GPU is waited for.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.test_loop):
            loop.__class__ = _Attended
        before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        # Handlers run when the main thread comes back from what it waits for; bytes come through at once.
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        woken = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._hurry, args=(reading,), daemon=True, name="second-ctrl-c").start()
        try:
            yield
        finally:
            self._over.set()
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            writing.close()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._working = True

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Lightning's; ask the others, where the weights are about to be waited for anyway."""
        strategy = trainer.strategy
        if self._several and isinstance(strategy, ParallelStrategy):
            asked = strategy.reduce_boolean_decision(self.asked is not None, all=False)
            trainer._signal_connector.received_sigterm |= asked

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; by now all is saved."""
        self._working = False

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        self._leave_the_rest()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._working = True

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        self._leave_the_rest()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._working = False

    def _leave_the_rest(self) -> None:
        if self._several and self.asked is not None:
            raise StopIteration  # which Lightning's loop takes for the end of the pictures

    def _heard(self, number: int, frame: FrameType | None) -> None:
        again = self.asked is not None
        if not again:
            self.asked = number
            for process in self._launcher.procs if self._launcher is not None else ():
                process.send_signal(number)
        if ranks.started_by_first():
            return  # which decides
        if number == signal.SIGINT and (again or not self._working):
            raise KeyboardInterrupt
        if not self._working:
            sys.exit(self.exit_code)
        if not self._several and self._connector is not None:
            self._connector.received_sigterm = True

    def _hurry(self, reading: socket.socket) -> None:
        """Obey by force what is to be obeyed at once, where the main thread waits for what hangs."""
        pressed = 0
        with reading:
            while heard := reading.recv(1):
                pressed += heard[0] == signal.SIGINT
                at_once = pressed == 2 or (heard[0] in (signal.SIGINT, signal.SIGTERM) and not self._working)
                if at_once and not ranks.started_by_first() and not self._over.wait(_HURRY_S):
                    if self._launcher is not None and self._launcher.watch is not None:
                        self._launcher.watch.kill()
                    line = "stopped by Ctrl-C" if heard[0] == signal.SIGINT else None
                    ranks.leave(128 + heard[0], line)


class _Signals(_SignalConnector):
    """Lightning's place for signals, without its handlers."""

    def register_signal_handlers(self) -> None:
        """Nothing."""

    def teardown(self) -> None:
        """Nothing."""


class _Attended(_EvaluationLoop):
    """Lightning's loop over pictures, in which a process takes part that has none: the others wait for it."""

    @property
    def skip(self) -> bool:
        """Lightning's."""
        return super().skip and self.trainer.world_size == 1


def _nothing() -> None:
    """Nothing."""


@contextlib.contextmanager
def together(trainer: L.Trainer, stop: Stop, remedy: str, *, more_follows: bool = False) -> Iterator[None]:
    """Runs what a trainer does, on one device or several, so that all processes end with it, in one line.

    What the machine lacked, and a process that was killed, become a `MachineError`. If the run can be gone on
    with, it is said how (see `ranks.show_way_on`).

    Args:
        trainer: that was built for this.
        stop: which is among its callbacks.
        remedy: what to try where memory runs out; continues "try ...".
        more_follows: whether processes that something else has started will work together again.

    Raises:
        UserError: what ended the run.
        SystemExit: it was stopped by a signal.
    """
    strategy = trainer.strategy
    launcher = None
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise ConfigurationError("trainer.strategy: processes are started by ddp here, not by spawn or fork")
    if isinstance(strategy.launcher, _SubprocessScriptLauncher):
        old = strategy.launcher
        launcher = Launcher(old.cluster_environment, old.num_processes, old.num_nodes)
        strategy._launcher = launcher
    if isinstance(strategy, DDPStrategy):
        # Tasks do that, before pictures are scored (`TrainingTask`): DDP would at each batch, and wait for
        # ever for a process that has none.
        strategy._ddp_kwargs[_SYNCED_AT_EACH_BATCH] = False
    patience_s = 0.0
    try:
        with stop.listening(trainer, launcher):
            yield
            _part(trainer, stay=more_follows and (launcher is None or launcher.starts_none))
        patience_s = _ENDING_S
    except MachineError as error:
        raise MachineError(ranks.with_way_on(str(error))) from error
    except DataError as error:
        raise DataError(ranks.with_way_on(str(error))) from error
    except SIGTERMException:  # in all of them, as agreed
        _part(trainer)
        patience_s = _ENDING_S
        if not ranks.is_first() and not ranks.started_by_first():
            # torchrun and srun end all processes when one has ended; the first has more to write and to say.
            time.sleep(_FIRST_S)
        raise
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        fault = worker_fault(error) or machine_fault(error, strategy.root_device, remedy)
        if fault is not None:
            raise MachineError(ranks.with_way_on(str(fault))) from error
        if trainer.world_size > 1:
            _because_of_another(error, launcher, trainer.global_rank)
        raise
    finally:
        if launcher is not None:
            launcher.end(patience_s)


def _part(trainer: L.Trainer, *, stay: bool = False) -> None:
    """Wait for each other, so that none is gone before the others have all that it sent, and disconnect.

    Args:
        trainer: of the run.
        stay: connected.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        with contextlib.suppress(Exception):  # all is done
            trainer.strategy.barrier()
            if not stay:
                torch.distributed.destroy_process_group()


def _because_of_another(error: Exception, launcher: Launcher | None, rank: int) -> None:
    """Find out whether another process ended this one's work.

    Raises:
        UserError: what ended the other process.
        SystemExit: the other was stopped by a signal.
    """
    lost = isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    )
    if ranks.started_by_first():
        # The first process hears of it as well, and ends this one. What is this one's own fault comes out.
        time.sleep(_ENDING_S if lost else 1.0)
        return
    fate = None
    if launcher is not None and launcher.watch is not None:
        fate = launcher.watch.fate(3.0 if lost else 0.5)
    if isinstance(fate, int):
        raise SystemExit(fate) from error
    if fate is not None:
        raise fate from error
    if lost:
        # Without the line of its source, and what may be typical.
        reason = re.sub(r"^\[\S*\] ", "", str(error).strip()).splitlines()[0].split(". ")[0]
        line = f"rank {rank} lost another process of the run, which was killed, failed or hangs ({reason})"
        raise MachineError(ranks.with_way_on(line)) from error
