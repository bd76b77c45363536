"""How samples come from worker processes, and what is said when a worker dies, hangs or meets a mistake."""

import contextlib
import multiprocessing
import multiprocessing.util
import os
import re
import signal
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from deblur_lab.errors import MachineError, UserError
from deblur_lab.ranks import end_with_parent, name_of

Sample = dict[str, Any]

_KILLED = re.compile(r"DataLoader worker \(pid(?:\(s\))? (\d+)")
_TIMED_OUT = re.compile(r"DataLoader timed out after")
_SHOWN = 5

# The workers of all loaders of this process, by their own: number, of how many, and the process.
_workers: dict[int, tuple[int, int, multiprocessing.process.BaseProcess]] = {}


class NamedSamples(Protocol):
    """Samples that have a name which is known before they are read."""

    def __getitem__(self, key: Any) -> Sample:  # noqa: ANN401 - what its sampler gives
        """A sample."""
        ...

    def name(self, key: Any) -> str:  # noqa: ANN401
        """The name of a sample, without reading it."""
        ...


class SampleLoader(DataLoader[Sample]):
    """A loader that raises here, as they are, the mistakes that its workers meet, and that names samples.

    Args:
        samples: to load.
        sampler: of keys, each a batch of its own; or None.
        batch_sampler: of lists of keys; or None.
        num_workers: processes that read; 0 reads in this one.
        timeout_s: how long to wait for a batch before the worker that reads it counts as hung; 0 waits on.
        seed: of the loader's own generator; it would else draw from the one that nets draw from.
    """

    def __init__(
        self,
        samples: NamedSamples,
        *,
        sampler: Sampler[int] | None = None,
        batch_sampler: Sampler[list[Any]] | None = None,
        num_workers: int = 0,
        timeout_s: float = 0,
        seed: int = 0,
    ) -> None:
        self._samples = samples
        self._awaited: deque[Any] = deque()
        workers = min(num_workers, os.cpu_count() or 1)
        self._timeout_s = timeout_s if workers else 0
        super().__init__(
            _Guarded(samples),
            collate_fn=_collated,
            batch_size=1,
            sampler=None if sampler is None else _Noting(sampler, self._awaited),
            batch_sampler=None if batch_sampler is None else _Noting(batch_sampler, self._awaited),
            num_workers=workers,
            timeout=self._timeout_s,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(seed),
        )

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]  # a narrower promise than torch's class
        """The batches.

        Raises:
            UserError: What a sample could not be made for.
            MachineError: A worker was killed, or hangs.
        """
        self._awaited.clear()
        try:
            batches = super().__iter__()
            self._remember_workers()
            for batch in batches:
                if isinstance(batch, UserError):
                    self._end()
                    try:
                        raise batch
                    finally:
                        del batch  # or the error would hold this frame, the frame the error, both the workers
                self._awaited.popleft()
                yield batch
        except RuntimeError as error:
            fault = self._hung() if _TIMED_OUT.match(str(error)) else worker_fault(error)
            if fault is None:
                raise
            raise fault from error

    def state_dict(self) -> dict[str, Any]:
        """Nothing; with this Lightning knows that the stream can be resumed, which begins at its own step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing; see `state_dict`."""

    def _end(self) -> None:
        """Kill this loader's workers; left to Python's collector, they may be waited for in vain."""
        _kill(getattr(self._iterator, "_workers", ()))
        self._iterator = None

    def _remember_workers(self) -> None:
        if self.num_workers and not any(map(_is_alive, _processes())):
            # When this process ends, Python sends the workers a SIGTERM, which they ignore, and waits.
            multiprocessing.util.Finalize(None, end_workers, exitpriority=100)
        for number, worker in enumerate(getattr(self._iterator, "_workers", ())):
            _workers[worker.pid] = (number, self.num_workers, worker)

    def _hung(self) -> MachineError:
        """Kill the workers, which may wait for ever, and say what was waited for."""
        first = self._awaited[0] if self._awaited else []
        keys = first if isinstance(first, list) else [first]
        names = [self._samples.name(key) for key in keys]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        end_workers()
        return MachineError(
            f"a data worker hangs: {', '.join(names[:_SHOWN])}{more} did not come in {self._timeout_s:g} s: "
            "look at these pictures and the disk or network that they lie on, or raise data.worker_timeout_s"
        )


class _Noting(Sampler[Any]):
    """What another sampler gives, noted down until the loader has it."""

    def __init__(self, sampler: Sampler[Any], noted: deque[Any]) -> None:
        self.sampler = sampler
        self._noted = noted

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]  # ours have a length

    def __iter__(self) -> Iterator[Any]:
        for given in self.sampler:
            self._noted.append(given)
            yield given


class _Guarded(Dataset[Any]):
    """Samples, or in place of a sample the error: torch buries what a worker raises in a traceback."""

    def __init__(self, samples: NamedSamples) -> None:
        self.samples = samples

    def __getitem__(self, key: Hashable) -> Sample | UserError:
        try:
            return self.samples[key]
        except UserError as error:
            return error

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]  # of pictures; training never asks


def _collated(samples: list[Sample | UserError]) -> Sample | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    batch: Sample = default_collate(samples)
    return batch


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # Ctrl-C and a cluster's SIGTERM reach the whole process group: the training process finishes its step
    # and saves first, and ends its workers then. When it is killed they end with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def worker_fault(error: BaseException) -> MachineError | None:
    """What happened to a data worker, if that is what an error of PyTorch is about."""
    found = _KILLED.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    process = int(found[1])
    known = _workers.get(process)
    who, code = f"a data worker (process {process})", None
    if known is not None:
        number, count, worker = known
        worker.join(1)
        who, code = f"data worker {number} of {count} (process {process})", worker.exitcode
    end_workers()
    if code is None or code >= 0:
        return MachineError(f"{who} ended with exit code {code}: try data.num_workers=0, which tells more")
    if code == -signal.SIGBUS:
        return MachineError(
            f"{who} was killed by SIGBUS, as shared memory (/dev/shm) is too small for what it hands over: "
            "give the container more (docker run --shm-size=8g), or set data.num_workers=0; where prepared "
            "tiles are read, their disk may have failed: data.prepared=false reads the pictures"
        )
    if code == -signal.SIGKILL:
        advice = ", as the system does when memory runs out: try fewer data.num_workers"
    else:
        advice = ": try data.num_workers=0"
    return MachineError(f"{who} was killed by {name_of(-code)}{advice}")


def end_workers() -> None:
    """Kill the data workers that are left, whatever they do; they only read, and leave nothing half done."""
    _kill(_processes())


def _kill(workers: Iterable[multiprocessing.process.BaseProcess]) -> None:
    alive = list(filter(_is_alive, workers))
    if not alive:
        return
    # PyTorch would take it for a fault.
    with _children_may_end():
        for worker in alive:
            worker.kill()
        for worker in alive:
            worker.join(5)


def _processes() -> list[multiprocessing.process.BaseProcess]:
    return [worker for _, _, worker in _workers.values()]


def _is_alive(worker: multiprocessing.process.BaseProcess) -> bool:
    try:
        return worker.is_alive()
    except (ValueError, AssertionError):  # it was closed, or is another process's
        return False


@contextlib.contextmanager
def _children_may_end() -> Iterator[None]:
    try:
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except ValueError:  # not in the main thread, where no signal is handled
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
