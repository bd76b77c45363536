"""W&B in a process of its own: ``python -m deblur_lab.wandb_process``, which `deblur_lab.dashboards` starts.

Whatever becomes of W&B (no network, no account, a full disk, a service that crashes or hangs), the training
is another process and never waits for it. Nothing else in this package imports wandb; nothing here imports
PyTorch, so that this starts in a second.

Orders come pickled through standard input, each a verb and what it is about; answers go to standard output:

``start``      `Start`: decide between online and offline, begin the run; answered by a `Started`.
``log``        a row: numbers by name.
``summary``    what to show beside the run: values by name.
``row``        of a table: strings, numbers, None, and pictures: uint8, (height, width, 3), or files' paths.
``table``      `Table`, of the rows so far.
``files``      `Files`, to be kept with the run.
``finish``     the exit code of the run; answered by a `Finished`.

Whatever fails is answered by a `Failed`, which is the last. If the orders end without ``finish``, the
training was killed, and its run is marked as failed.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

PROBE_S = 3.0  # how long the host may take to answer
INIT_S = 25.0  # and W&B, to begin a run on it
TABLE_S = 20.0  # and it, to take a table, for which its host is asked
CLOSE_S = 3.0  # and a run, to be closed when something failed

_WANDB_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")
# What wandb raises when the service that it has started is gone.
_LOST = ("HandleAbandonedError", "MailboxClosedError")

Mode = Literal["auto", "online", "offline", "disabled"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Start:
    """What a run is begun with.

    Attributes:
        mode: ``auto`` goes offline where W&B cannot be reached; ``online`` then fails.
        folder: absolute; W&B's files go to ``wandb/`` in it.
        config: of dicts, lists, strings and numbers.
        step: the name of the numbers that rows are drawn over.
        settings: of ``wandb.Settings``: what is not None wins over the environment.
        private_settings: of the same, but only those that the installed version has.
    """

    mode: Mode
    folder: str
    config: Mapping[str, Any]
    step: str
    settings: Mapping[str, Any]
    private_settings: Mapping[str, Any]


@dataclass(frozen=True)
class Started:
    """How it went.

    Attributes:
        state: what became of it; ``refused`` where online was asked for and cannot be.
        why: it is not online; empty if that is what was asked for.
        url: of the run, if it is online.
        part: the folder to which this process writes; absolute.
    """

    state: Literal["online", "offline", "disabled", "refused"]
    why: str = ""
    url: str = ""
    part: str = ""


@dataclass(frozen=True)
class Finished:
    """What became of what was recorded.

    Attributes:
        sent: all of it is at W&B.
        missing: what could not be recorded, and why, in one line each.
    """

    sent: bool
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Failed:
    """What went wrong, in one line."""

    why: str


@dataclass(frozen=True)
class Table:
    """What rows are shown as.

    Attributes:
        key: its name.
        step: at which it is logged.
        columns: their names.
    """

    key: str
    step: int
    columns: Sequence[str]


@dataclass(frozen=True)
class Files:
    """Files that are kept with a run; a page among them can be looked at there.

    Attributes:
        key: what the page is shown as.
        artifact: the name of the artifact that they are.
        kind: of the artifact.
        paths: absolute.
    """

    key: str
    artifact: str
    kind: str
    paths: Sequence[str]


def main() -> None:
    """Obey orders until there are no more."""
    # What a terminal or a cluster sends to all processes is for the training to answer, which then says so.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    orders, answers = _own_pipes()
    runs: list[Any] = []
    code = 0
    try:
        _obey(orders, answers, runs)
    except Exception as error:
        code = 1
        _answer(answers, Failed(first_line(error)))
        # What was recorded so far is closed if that is possible.
        with contextlib.suppress(Exception):
            within(CLOSE_S, lambda: [_finish(run, 1) for run in runs])
    finally:
        with contextlib.suppress(Exception):
            within(CLOSE_S, _close_service)
        # Not through W&B's own clearing up, which may wait forever.
        os._exit(code)


def within(patience_s: float, work: Callable[[], Result]) -> Result:
    """What some work comes to, which is left to itself if it takes too long.

    Raises:
        TimeoutError: it does.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def do() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(patience_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"it takes more than {patience_s:g} s")
    return results[0]


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, ConnectionError) or type(error).__name__ in _LOST:
        return "its service has ended"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _own_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for ourselves: what W&B starts or prints shall not touch them."""
    orders, answers = (os.fdopen(os.dup(number), how) for number, how in ((0, "rb"), (1, "wb")))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    return orders, answers


def _close_service() -> None:
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def _answer(answers: IO[bytes], words: object) -> None:
    try:
        pickle.dump(words, answers)
        answers.flush()
    except OSError:  # nobody listens any more
        pass


def _obey(orders: IO[bytes], answers: IO[bytes], runs: list[Any]) -> None:
    _, start = pickle.load(orders)
    if start.mode == "online":
        os.environ["WANDB_MODE"] = "online"  # what is asked for here wins
    import wandb  # takes half a second

    run, started = _begin(wandb, start)
    if run is not None:
        runs.append(run)
    _answer(answers, started)
    if run is None:
        return
    rows: list[list[Any]] = []
    missing: list[str] = []
    while True:
        try:
            verb, content = pickle.load(orders)
        except (EOFError, pickle.UnpicklingError):
            _finish(run, 1)
            return
        if verb == "log":
            run.log(dict(content))
        elif verb == "summary":
            run.summary.update(dict(content))
        elif verb == "row":
            rows.append([_cell(wandb, value) for value in content])
        elif verb == "table":
            table = wandb.Table(columns=list(content.columns), data=rows)
            missing += _log_table(run, content.key, {content.key: table, start.step: content.step})
            rows = []
        elif verb == "files":
            missing += _log_files(wandb, run, content)
        else:
            assert verb == "finish", verb
            sent = _finish(run, content)
            _answer(answers, Finished(sent and started.state == "online", missing))
            return


def _begin(wandb: Any, start: Start) -> tuple[Any, Started]:  # noqa: ANN401 - a module that has its types late
    state, why = _state(wandb, start.mode)
    if state not in ("online", "offline"):
        return None, Started(state, why)
    folder = Path(start.folder, "wandb")
    folder.mkdir(parents=True, exist_ok=True)
    # What W&B's service says when it breaks is of use to those who mend it, not between progress bars.
    said = os.open(folder / "service.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in (1, 2):
        os.dup2(said, number)
    os.close(said)
    known = wandb.Settings.model_fields
    settings = {
        **{name: value for name, value in start.settings.items() if value is not None},
        **{name: value for name, value in start.private_settings.items() if name in known},
        "mode": state,
        "init_timeout": INIT_S,
        "root_dir": start.folder,
    }
    if "stop_fn" in known:
        # The button of the web page stops the training as Ctrl-C does.
        training = os.getppid()
        settings["stop_fn"] = lambda: os.kill(training, signal.SIGINT)
    run = wandb.init(config=dict(start.config), settings=wandb.Settings(**settings))
    # The axis is the optimizer step. W&B's own, which only grows, would drop what a resumed run does again.
    run.define_metric(start.step)
    run.define_metric("*", step_metric=start.step, step_sync=False)
    return run, Started(state, why, run.url or "", str(Path(run.dir).parent))


def _state(wandb: Any, mode: Mode) -> tuple[Literal["online", "offline", "disabled", "refused"], str]:  # noqa: ANN401
    """What to do, and why it is not online."""
    if mode == "auto":
        asked = os.environ.get("WANDB_MODE", "online")
        if asked not in _WANDB_MODES:
            del os.environ["WANDB_MODE"]  # or wandb would not start at all
            return "offline", f"as WANDB_MODE={asked} is none of {', '.join(_WANDB_MODES)}"
        found = wandb.setup().settings.mode  # from WANDB_MODE, or from `wandb offline`
        if found == "disabled":
            return "disabled", "as WANDB_MODE says"
        if found in ("offline", "dryrun"):
            return "offline", "as WANDB_MODE says"
    elif mode != "online":
        return mode, ""
    obstacle = _obstacle(wandb)
    if obstacle is None:
        return "online", ""
    return ("offline" if mode == "auto" else "refused"), f"as {obstacle}"


def _obstacle(wandb: Any) -> str | None:  # noqa: ANN401
    """Why no run can be begun online; None if nothing speaks against it. Nothing is ever asked."""
    try:
        if not wandb.login(verify=False, prompt=False):
            return "no API key is configured (WANDB_API_KEY, or `wandb login`)"
    except Exception as error:
        return f"the API key cannot be used: {first_line(error)}"
    settings = wandb.setup().settings
    return probe(settings.base_url, settings.api_key)


def probe(url: str, key: str | None, patience_s: float = PROBE_S) -> str | None:
    """Why no run can be begun on a host, if that is known; answered in time, whatever the network does.

    Args:
        url: of the host.
        key: of the account, or None if another kind of credentials is used.
        patience_s: for the answer.
    """
    try:
        # Not the timeout of the request alone: finding out a host's address knows none.
        return within(patience_s, lambda: _asked(url, key, patience_s))
    except TimeoutError:
        return f"{url} does not answer within {patience_s:g} s"


def _asked(url: str, key: str | None, patience_s: float) -> str | None:
    import requests

    try:
        answer = requests.post(
            f"{url}/graphql",
            json={"query": "query Viewer { viewer { id } }"},
            auth=None if key is None else ("api", key),
            timeout=patience_s,
        )
    except requests.exceptions.SSLError:
        return None  # W&B's service may know certificates that Python does not
    except requests.exceptions.Timeout:
        return f"{url} does not answer within {patience_s:g} s"
    except (requests.exceptions.RequestException, OSError) as error:
        return f"{url} cannot be reached ({_reason(error)})"
    if answer.status_code in (401, 403):
        return None if key is None else f"{url} refuses the API key"
    if not answer.ok:
        return f"{url} answers HTTP {answer.status_code}"
    try:
        viewer = answer.json()["data"]["viewer"]
    except (ValueError, KeyError, TypeError):
        return f"{url} does not answer as W&B does"
    return f"{url} does not know the API key" if key is not None and viewer is None else None


def _reason(error: BaseException) -> str:
    """The innermost of an error's causes, which tells most: a connection refused, a name not known."""
    cause: BaseException | None = error
    while cause is not None:
        error = cause
        inner = getattr(error, "reason", None)
        nested = inner if isinstance(inner, BaseException) else error.args[0] if error.args else None
        cause = (
            error.__cause__ or error.__context__ or (nested if isinstance(nested, BaseException) else None)
        )
    return (error.strerror or "") if isinstance(error, OSError) and error.strerror else first_line(error)


def _log_table(run: Any, key: str, row: dict[str, Any]) -> list[str]:  # noqa: ANN401
    """Log a row that holds a table; what is missing then, and why."""
    try:
        within(TABLE_S, lambda: run.log(row))
    except Exception as error:
        return [f"{key}, as {first_line(error)}"]
    return []


def _cell(wandb: Any, value: Any) -> Any:  # noqa: ANN401
    """What a table shows: a picture, or the value as it is."""
    if isinstance(value, Path):
        return wandb.Image(str(value))
    return wandb.Image(value) if hasattr(value, "ndim") else value


def _log_files(wandb: Any, run: Any, files: Files) -> list[str]:  # noqa: ANN401
    """Keep files with a run, and show a page among them; what is missing then, and why."""

    def log() -> None:
        artifact = wandb.Artifact(files.artifact, type=files.kind)
        for path in files.paths:
            artifact.add_file(path, name=Path(path).name)
        run.log_artifact(artifact)
        for path in files.paths:
            if path.endswith(".html"):
                # As it is: it needs nothing that W&B would put in.
                run.log({files.key: wandb.Html(Path(path), inject=False)})

    try:
        within(TABLE_S, log)
    except Exception as error:
        return [f"{files.key}, as {first_line(error)}"]
    return []


def _finish(run: Any, exit_code: int) -> bool:  # noqa: ANN401
    """End the run; whether W&B has taken all of it, which an offline one always says."""
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        return False
    return True


if __name__ == "__main__":
    # What is pickled belongs to the module's own name, not to __main__.
    from deblur_lab.wandb_process import main as run_main

    run_main()
