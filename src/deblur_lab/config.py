"""Where configurations lie, what they may name, and how objects are built from them.

A configuration names the classes to build by ``_target_``. Only names below the prefixes of
`TRUSTED_PREFIXES` or in `TRUSTED_NAMES` are ever imported, so that a configuration that somebody
else wrote (a checkpoint carries one) cannot run what it likes; ``trusted_packages=[mypackage]``
opens a package of your own.
"""

import difflib
import inspect
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deblur_lab.errors import ConfigurationError

TRUSTED_PREFIXES = ("deblur_lab.",)
TRUSTED_NAMES = frozenset(
    {
        "lightning.Trainer",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "torch.optim.Adam",
        "torch.optim.AdamW",
        "torch.optim.SGD",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torch.optim.lr_scheduler.ConstantLR",
    }
)
_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_convert_", "_recursive_", "_args_"})


def configuration_root() -> Path:
    """The folder that holds ``conf`` and ``experiments``: inside the wheel, or the source tree's root."""
    package = Path(__file__).resolve().parent
    return package if (package / "conf").is_dir() else package.parents[1]


def plain(config: Any) -> Any:  # noqa: ANN401 - any node of a configuration
    """A configuration, resolved, as dicts, lists, strings and numbers.

    Raises:
        ConfigurationError: a value is missing or refers to one that does not exist; names the key.
    """
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(explain(error)) from error


def explain(error: Exception) -> str:
    """What an error of OmegaConf says, in one line that names the key."""
    key = getattr(error, "full_key", None)
    first_line = str(error).strip().splitlines()[0]
    if "Missing mandatory value" in first_line:
        return f"{key} is not set: give it on the command line, as {key}=..."
    return f"{key}: {first_line}" if key and str(key) not in first_line else first_line


def faults(config: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> list[str]:
    """Every fault in what a plain configuration names to be built, one line each.

    A name outside the allowlist, a name that does not exist, an argument that the class does not
    take (with the nearest one that it does) and an argument that it needs and does not get.
    """
    return [
        fault for path, node in _targets(config, "") for fault in _target_faults(path, node, trusted_packages)
    ]


def build(node: Any, trusted_packages: Sequence[str] = (), *, key: str = "") -> Any:  # noqa: ANN401
    """Build the object that a node names, and all that it holds.

    Args:
        node: a configuration with ``_target_``, plain or OmegaConf's.
        trusted_packages: packages beside ours whose names may be built.
        key: where the node stands in the whole configuration; for messages.

    Raises:
        ConfigurationError: with every fault of the node, or what the constructor said of its arguments.
    """
    settings = plain(node) if isinstance(node, DictConfig | ListConfig) else node
    found = [line for line in faults({key: settings} if key else settings, trusted_packages)]
    if found:
        raise ConfigurationError("; ".join(found))
    try:
        return instantiate(settings, _convert_="all")
    except Exception as error:
        cause = error.__cause__ if error.__cause__ is not None else error
        if isinstance(cause, ConfigurationError) or not isinstance(cause, ValueError | TypeError):
            raise cause from None
        if type(cause) in (ValueError, TypeError):
            raise ConfigurationError(f"{key}: {cause}" if key else str(cause)) from error
        raise cause from None


def commit() -> str | None:
    """The commit of the source tree that this package runs from, ``+changes`` if it was edited, or None."""
    root = configuration_root()
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _targets(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for name, value in node.items():
            yield from _targets(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _targets(value, f"{path}[{number}]")


def _target_faults(path: str, node: Mapping[str, Any], trusted_packages: Sequence[str]) -> list[str]:
    name = node["_target_"]
    prefixes = (*TRUSTED_PREFIXES, *(f"{package}." for package in trusted_packages))
    if not isinstance(name, str) or not (name in TRUSTED_NAMES or name.startswith(prefixes)):
        package = str(name).split(".")[0]
        return [
            f"{path}._target_={name} is not among the names that may be built; "
            f"if {package} is your own code, add trusted_packages=[{package}]"
        ]
    try:
        module, _, attribute = name.rpartition(".")
        target = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        return [f"{path}._target_={name} cannot be imported: {error}"]
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    lines = []
    for given in node:
        if given not in parameters and given not in _HYDRA_KEYS:
            near = difflib.get_close_matches(given, parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(parameters)}"
            lines.append(f"{path}.{given} is not a setting of {name}: {hint}")
    if not node.get("_partial_", False):
        lines += [
            f"{path}.{parameter.name} is not set, and {name} needs it"
            for parameter in parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_POSITIONAL
            and parameter.name not in node
            and "_args_" not in node
        ]
    return lines
