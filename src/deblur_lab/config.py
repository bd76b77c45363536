"""Where configurations lie, what they may name, and how objects are built from them.

A configuration names the classes to build by ``_target_``. Only classes that are defined in
`TRUSTED_PACKAGES` and the names in `TRUSTED_NAMES` are built, and nothing else is imported, so that a
configuration that somebody else wrote (a checkpoint carries one) cannot run what it likes;
``trusted_packages=[mypackage]`` opens a package of your own.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deblur_lab.errors import ConfigurationError

TRUSTED_PACKAGES = tuple(f"deblur_lab.{name}." for name in ("data", "losses", "metrics", "models", "tasks"))
TRUSTED_NAMES = frozenset(
    {
        "deblur_lab.tasks.warmup_cosine",
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
_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_convert_", "_recursive_"})
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_KIND_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "null",
}

Place = tuple[str | int, ...]


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
        settings = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(explain(error)) from error
    missing = [_dotted(place) for place, value in _leaves(settings) if value == "???"]
    # data.* is there to be referred to: what is missing and was not needed above need not be set.
    needed = [key for key in missing if not key.startswith("data.")]
    if needed:
        raise ConfigurationError(_unset(needed[0]))
    return settings


def explain(error: Exception) -> str:
    """What an error of OmegaConf says, in one line that names the key."""
    key = getattr(error, "full_key", None)
    first_line = str(error).strip().splitlines()[0]
    missing = re.search(r"Missing mandatory value: (\S+)", first_line)
    if missing:
        return _unset(missing[1])
    return f"{key}: {first_line}" if key and str(key) not in first_line else first_line


def _unset(key: str) -> str:
    return f"{key} is not set: give it on the command line, as {key}=..."


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """``did you mean X?`` if something known is near to what was given, or what else there is to say."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def faults(config: Mapping[str, Any] | DictConfig, trusted_packages: Sequence[str] = ()) -> list[str]:
    """Every fault in what a configuration names to be built, one line each.

    A name outside the allowlist, a name that does not exist, an argument that the class does not
    take (with the nearest one that it does) or that is of another type than it takes, and an argument
    that it needs and does not get. What refers to another setting is reported under that one's key.
    """
    if isinstance(config, DictConfig):
        settings, typed = plain(config), OmegaConf.to_container(config, resolve=False)
    else:
        settings, typed = config, config
    found = [
        fault
        for place, node in _targets(settings, ())
        for fault in _target_faults(place, node, trusted_packages, lambda place: _origin(typed, place))
    ]
    # What is referred to from two places is reported once.
    return list(dict.fromkeys(found))


def range_faults(
    settings: Mapping[str, Any], whole_numbers: Mapping[str, int], flags: Sequence[str] = ()
) -> list[str]:
    """The faults in a command's own settings, which no class takes, one line each.

    Args:
        settings: plain.
        whole_numbers: the smallest value of each, by dotted key.
        flags: the keys of those that are true or false.
    """
    found = []
    for key, smallest in whole_numbers.items():
        value: Any = settings
        for part in key.split("."):
            value = value[part]
        if not isinstance(value, int) or isinstance(value, bool):
            found.append(_wrong_kind(key, value, int))
        elif value < smallest:
            found.append(f"{key}={value}: {smallest} or more is expected")
    return found + [
        _wrong_kind(key, settings[key], bool) for key in flags if not isinstance(settings[key], bool)
    ]


def refuse(found: Iterable[str]) -> None:
    """Raise what the checks found, if anything.

    Raises:
        ConfigurationError: every fault once, a line each.
    """
    lines = list(dict.fromkeys(found))
    if lines:
        raise ConfigurationError("\n       ".join(lines))


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
    refuse(faults({key: settings} if key else settings, trusted_packages))
    try:
        return instantiate(settings, _convert_="all")
    except Exception as error:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        cause = error.__cause__ if error.__cause__ is not None else error
        if type(cause) in (ValueError, TypeError, MisconfigurationException):
            raise ConfigurationError(f"{key}: {cause}" if key else str(cause)) from error
        raise cause from None


def _leaves(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:  # noqa: ANN401
    if isinstance(node, Mapping | list):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _leaves(value, (*place, key))
    else:
        yield place, node


def _targets(node: Any, place: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:  # noqa: ANN401
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield place, node
        for name, value in node.items():
            yield from _targets(value, (*place, str(name)))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _targets(value, (*place, number))


def _origin(typed: Any, place: Place) -> str:  # noqa: ANN401 - any node
    """The key under which a user gives what stands at a place: where it refers to, if it refers."""
    node = typed
    for depth, key in enumerate(place, start=1):
        reference = _REFERENCE.fullmatch(node[key]) if isinstance(node[key], str) else None
        if reference:
            return _origin(typed, (*reference[1].split("."), *place[depth:]))
        node = node[key]
    return _dotted(place)


def _dotted(place: Place) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


def _target_faults(
    place: Place, node: Mapping[str, Any], trusted_packages: Sequence[str], origin: Callable[[Place], str]
) -> list[str]:
    name = node["_target_"]
    path = origin(place)
    own = tuple(f"{package}." for package in trusted_packages)
    refusal = f"{path}._target_={name} is not among the names that may be built"
    if not isinstance(name, str) or not (name in TRUSTED_NAMES or name.startswith((*TRUSTED_PACKAGES, *own))):
        package = str(name).split(".")[0]
        return [f"{refusal}; if {package} is your own code, add trusted_packages=[{package}]"]
    try:
        module, _, attribute = name.rpartition(".")
        target = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        return [f"{path}._target_={name} cannot be imported: {error}"]
    if name not in TRUSTED_NAMES and not name.startswith(own) and not _is_class_of_ours(target):
        # A module also holds what it imports: a path, a function that reads files.
        return [refusal]
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    kinds = _kinds(target)
    lines = []
    for given, value in node.items():
        if given in _HYDRA_KEYS:
            continue
        if given not in parameters:
            hint = did_you_mean(given, parameters, f"it takes {', '.join(parameters)}")
            lines.append(f"{path}.{given} is not a setting of {name}: {hint}")
        elif given in kinds and not _fits(value, kinds[given]):
            key = origin((*place, given))
            lines.append(_wrong_kind(key, value, kinds[given]))
    if not node.get("_partial_", False):
        lines += [
            f"{path}.{parameter.name} is not set, and {name} needs it"
            for parameter in parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_POSITIONAL
            and parameter.name not in node
        ]
    return lines


def _is_class_of_ours(target: Any) -> bool:  # noqa: ANN401
    return inspect.isclass(target) and f"{target.__module__}.".startswith(TRUSTED_PACKAGES)


def _kinds(target: Any) -> dict[str, Any]:  # noqa: ANN401 - a class or a function
    """What its signature asks for, by argument; nothing if that cannot be told."""
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (AttributeError, NameError, TypeError):
        return {}


def _fits(value: Any, kind: Any) -> bool:  # noqa: ANN401
    """Whether a plain value is what an annotation asks for; true where that cannot be told."""
    if kind is Any:
        return True
    plain_dict = isinstance(value, dict) and "_target_" not in value
    if not plain_dict and not isinstance(value, str | int | float | list | None):
        return True  # an object, or what one will be built from
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    family = origin or kind
    if isinstance(value, list):
        # Constructors take a list for a tuple, which YAML does not have.
        sequence = family is tuple or _is_a(list, family)
        return sequence and all(_fits(item, part) for part in parts[:1] for item in value)
    if parts and not plain_dict:
        return False
    if isinstance(value, str) and kind is Path:
        return True
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        return True
    if isinstance(value, bool) and kind is int:
        return False
    return not inspect.isclass(family) or _is_a(type(value), family)


def _is_a(kind: type, family: Any) -> bool:  # noqa: ANN401
    try:
        return issubclass(kind, family)
    except TypeError:  # no class; or a Protocol, which nothing plain is
        return False


def _wrong_kind(key: str, value: Any, kind: Any) -> str:  # noqa: ANN401
    shown = str(value).lower() if isinstance(value, bool) else "null" if value is None else value
    return f"{key}={shown}: {_kind_name(kind)} is expected"


def _kind_name(kind: Any) -> str:  # noqa: ANN401
    """What an annotation asks for, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        # Of what a number may be as well (a Tensor, for AdamW), nothing can be typed.
        typeable = [part for part in parts if part in _KIND_NAMES or get_args(part)]
        return " or ".join(dict.fromkeys(_kind_name(part) for part in typeable or parts))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if parts:
        return f"[{_kind_name(parts[0])}, ...]"
    return _KIND_NAMES.get(kind, getattr(kind, "__name__", str(kind)))
