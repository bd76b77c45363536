"""From what a person typed to a composed configuration, and from an error to one line and an exit code."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from deblur_lab import experiments
from deblur_lab.config import configuration_root, did_you_mean, explain
from deblur_lab.errors import ConfigurationError, UserError

# Settings that hold a path: taken as typed, for Hydra's grammar refuses spaces, brackets and "=" in a value.
PATH_KEYS = frozenset(
    {
        "checkpoint",
        "data.gopro_root",
        "data.reloblur_root",
        "data.root",
        "init_from",
        "input",
        "output",
        "resume",
        "runs",
    }
)


def as_typed(argument: str) -> str:
    """One command-line argument, quoted for Hydra if it sets a path.

    >>> as_typed("data.root=/data/My Photos (1)=x")
    "data.root='/data/My Photos (1)=x'"
    """
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in PATH_KEYS or value in ("", "null", "???"):
        return argument
    # Not an interpolation; and in Hydra's single quotes only a quote is special, and backslashes before one.
    quoted = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", value.replace("${", r"\${"))
    trailing = len(quoted) - len(quoted.rstrip("\\"))
    return f"{key}='{quoted}{chr(92) * trailing}'"


def run(configuration: str, job: Callable[[DictConfig], None]) -> None:
    """Compose ``conf/<configuration>.yaml`` with what was typed, and run the job with it.

    A user's mistake ends in one line on standard error and the exit code of its kind, never a traceback.
    """
    # Hydra then raises what it would otherwise print over several lines and end with exit code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Read when PyTorch is loaded, which is after this. By default, threads that wait for each other spin for
    # long: where something else runs on the same cores, a step then takes many times as long, and steps of
    # two runs may crawl. A short spin costs next to nothing (benchmarks/waiting_threads.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    experiments.register()
    typed = sys.argv[:]
    quoted = [as_typed(argument) for argument in typed[1:]]
    if any(argument.startswith("resume=") and argument != "resume=null" for argument in quoted):
        # What is composed here is not what the run that goes on has (data.root, say): it judges for itself.
        quoted = [f"++{argument}" if re.match(r"\w+\.[\w.]+=", argument) else argument for argument in quoted]
    sys.argv = [typed[0], *quoted]
    command = hydra.main(
        version_base="1.3", config_path=str(configuration_root() / "conf"), config_name=configuration
    )

    def guarded(config: DictConfig) -> None:
        # A run on several devices starts its other processes with what stands here, and they quote it again.
        sys.argv = typed
        # Errors are met inside the job, before Hydra sees them, which would print a line of its own.
        try:
            job(config)
        except UserError as error:
            fail(str(error), error.exit_code)
        except SystemExit as ended:
            # Lightning makes an exit code of 1 of Ctrl-C.
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise ended.__context__ from None
            raise

    try:
        command(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        fail(_one_line(error), ConfigurationError.exit_code)
    except KeyboardInterrupt:
        fail("stopped by Ctrl-C", 130)


def fail(message: str, exit_code: int) -> NoReturn:
    """Print what is wrong on standard error and leave."""
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(exit_code)


def folder_for(output: str | None, default_name: str) -> Path:
    """The folder that a command writes to, made and proven writable.

    Args:
        output: what the user asked for, or None for ``runs/<default_name>``, numbered if it exists.
        default_name: of the folder, if the user asked for none.

    Raises:
        MachineError: it cannot be made or written to.
    """
    from deblur_lab.errors import MachineError

    # A run on several devices starts one process a device; all must write to the folder of the first.
    shared = os.environ.get("DEBLUR_LAB_OUTPUT")
    if shared and "LOCAL_RANK" in os.environ:
        return Path(shared)
    folder = Path(output) if output else _numbered(Path("runs") / default_name)
    try:
        if folder.exists() and not folder.is_dir():
            raise MachineError(f"output={folder} is a file: name a folder, or one that does not exist yet")
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise MachineError(f"output={folder} cannot be written to: {error.strerror or error}") from error
    os.environ["DEBLUR_LAB_OUTPUT"] = str(folder)
    return folder


def _numbered(folder: Path) -> Path:
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


def _one_line(error: Exception) -> str:
    """What Hydra says, without its stack, its search path and its advice to set HYDRA_FULL_ERROR."""
    if isinstance(error, OmegaConfBaseException):
        return explain(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: settings are given as key=value, or 'key=\"a value\"'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.partition("/")
        options = f"there are {', '.join(error.options)}"
        return f"there is no {group}={name}: {did_you_mean(name, error.options, options)}"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and lines[0].startswith("Could not override"):
        # Hydra's advice to append the key by a plus would hide that it is misspelt.
        known = list(cause.parent_node) if isinstance(cause.parent_node, DictConfig) else []
        there = [str(key) for key in known if key != "hydra" and not str(key).startswith("_")]
        if cause.full_key == "data.root":
            return "there is no setting data.root, as these data read no folder: choose data=reloblur, ..."
        return f"there is no setting {cause.full_key}: " + did_you_mean(
            str(cause.key), there, f"there are {', '.join(there)}" if there else "nothing can be set there"
        )
    return " ".join(line for line in lines if not line.startswith(("full_key", "object_type")))
