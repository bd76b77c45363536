"""Who writes to a folder: one process, whose name a second one is told."""

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deblur_lab import ranks
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.writing import writing

LOCK = "run.lock"

# A run shows that it lives so often; one on another machine that has not for so long is gone.
BEAT_S = 5.0
PATIENCE_S = 30.0

# What a run that was killed may have left of its writing.
_LEFT = re.compile(
    r"\.((last|previous|best)\.ckpt|config\.yaml|metrics\.csv|(scores|stages)\.(json|csv)"
    r"|(costs|measures|taken)\.json|run\.lock)(\.[0-9a-f]+)?\.tmp"
)


@dataclass(frozen=True)
class Owner:
    """Who writes to a folder.

    Attributes:
        host: the machine's name.
        pid: the process.
        machine: tells machines (and containers) apart, whatever they are called.
        born: tells processes apart that had the same number one after the other; empty if that is not known.
        since: when it began, by its clock; for messages.
        token: no other has.
    """

    host: str
    pid: int
    machine: str
    born: str
    since: str
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        """This one."""
        pid = os.getpid()
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), pid, _machine(), _born(pid), now, secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class FolderLock:
    """Keeps a folder for one process: a second one is refused, and told who has it.

    The owner stands in ``run.lock``, which goes when it ends. If it was killed the file stays. On the same
    machine it is then seen that there is no such process; on another one, that it has not touched the file
    for `PATIENCE_S`, by comparing the file's time with itself, and with no clock. Locks of the file system
    are not relied on: where they do not reach other machines they would be granted to each.

    Args:
        folder: which exists.
        setting: that named it, as ``output=DIR``; for messages.
        patience_s: how long to watch an owner on another machine.
    """

    def __init__(self, folder: Path, setting: str, *, patience_s: float = PATIENCE_S) -> None:
        self.path = folder / LOCK
        self.setting = setting
        self.patience_s = patience_s
        self._own = Owner.this_process()
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> "FolderLock":
        """Take the folder, and clean up after an owner that is gone.

        Raises:
            ConfigurationError: somebody else has it.
            MachineError: it cannot be written to.
        """
        with writing(self.path):
            while not self._created():
                owner = self._owner()
                if owner is not None and self._is_alive(owner):
                    raise ConfigurationError(
                        f"{self.setting}: another run writes to this folder: {owner}; wait until it has "
                        "ended, or stop it, or name another folder"
                    )
                self._remove_abandoned(owner)
            self._clean()
        self._beating = threading.Thread(target=self._beat, daemon=True, name="run.lock")
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Free the folder."""
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        with contextlib.suppress(OSError):
            if self._owner() == self._own:
                self.path.unlink()

    def require(self) -> None:
        """See that the folder is still this process's, before something in it is replaced.

        Raises:
            MachineError: it was deleted; or this process was halted for so long that another one took over.
        """
        try:
            owner: Owner | None = Owner(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            # Somebody deleted the file, and perhaps the folder. It is ours if it can be made again.
            if not self.path.parent.is_dir():
                raise MachineError(f"{self.path.parent} was deleted while the run wrote to it") from None
            if self._created():
                return
            owner = self._owner()
        except (OSError, ValueError, TypeError):
            return  # not now; it is there
        if owner != self._own:
            raise MachineError(
                f"{self.path.parent} was taken over by another run ({owner}) while this one was halted: it "
                "writes no more"
            )

    def _created(self) -> bool:
        """Whether there was no lock, and now is ours: in one step, with its contents."""
        temporary = self.path.with_name(f".{LOCK}.{self._own.token}.tmp")
        try:
            temporary.write_text(json.dumps(asdict(self._own)) + "\n", encoding="utf-8")
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                return False
            except OSError:
                # A file system without links.
                try:
                    descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                except FileExistsError:
                    return False
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(temporary.read_text(encoding="utf-8"))
            return True
        finally:
            temporary.unlink(missing_ok=True)

    def _owner(self) -> Owner | None:
        """Who has the folder; None if nobody has, or if that cannot be read."""
        try:
            return Owner(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _is_alive(self, owner: Owner) -> bool:
        if owner.machine and owner.machine == self._own.machine:
            return _runs(owner)
        seen = self._touched_ns()
        deadline = time.monotonic() + self.patience_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self.patience_s / 10))
            now = self._touched_ns()
            if now != seen:
                return now is not None
        return False

    def _touched_ns(self) -> int | None:
        # Opening makes a network file system ask its server.
        try:
            with self.path.open("rb") as file:
                return os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return None

    def _remove_abandoned(self, owner: Owner | None) -> None:
        """Remove the lock of an owner that is gone, unless somebody else was quicker to."""
        with _one_at_a_time(self.path.parent):
            if owner is None and self.path.exists():
                # Being written this moment on a file system without links, or torn.
                time.sleep(0.2)
            if self.path.exists() and self._owner() == owner:
                self.path.unlink(missing_ok=True)

    def _clean(self) -> None:
        for folder in (self.path.parent, self.path.parent / "checkpoints"):
            if folder.is_dir():
                for left in folder.iterdir():
                    if _LEFT.fullmatch(left.name):
                        left.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                if self._owner() == self._own:
                    os.utime(self.path)


@contextlib.contextmanager
def kept_for_this_run(folder: Path, setting: str) -> Iterator[FolderLock | None]:
    """Holds a `FolderLock` in the first of a run's processes, and nothing in the others.

    Raises:
        ConfigurationError: another run has the folder.
        MachineError: it cannot be written to.
    """
    if ranks.is_first():
        with FolderLock(folder, setting) as lock:
            yield lock
    else:
        yield None


def _machine() -> str:
    """This start of this machine, seen from this container; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process of this machine began, in its own count; empty if there is none or that is not told."""
    try:
        # After the command's name, which may hold anything, in parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _runs(owner: Owner) -> bool:
    return bool(owner.born) and _born(owner.pid) == owner.born


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps two processes apart where the file system can; elsewhere they are apart in all likelihood."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
