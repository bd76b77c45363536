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
from typing import Annotated, Any, Literal

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.kinds import kinds_of, problems
from deblur_lab.ranges import Count, Natural, Positive, Range, Weight

TRUSTED_PACKAGES = tuple(f"deblur_lab.{name}." for name in ("data", "losses", "metrics", "models", "tasks"))
TRUSTED_NAMES = frozenset(
    {
        "deblur_lab.dashboards.WeightsAndBiases",
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
_BETA = Annotated[float, Range(0, 1, open_high=True)]
_BETAS = tuple[_BETA, _BETA]
# What classes of others take: their signatures say less, or more than works here.
_KINDS_OF_OTHERS: Mapping[str, Mapping[str, Any]] = {
    "torch.optim.Adam": {"lr": Positive, "betas": _BETAS, "weight_decay": Weight, "eps": Weight},
    "torch.optim.AdamW": {"lr": Positive, "betas": _BETAS, "weight_decay": Weight, "eps": Weight},
    "torch.optim.SGD": {"lr": Positive, "weight_decay": Weight, "momentum": Weight},
    "lightning.Trainer": {
        "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
        "devices": Literal["auto", -1] | Count | list[Natural],
        "num_nodes": Count,
        # Others keep the state of a run in files of their own.
        "strategy": Literal["auto", "ddp", "ddp_find_unused_parameters_true"],
        # Losses and pooling compute in float32, which arithmetic that is no mix refuses to mix with.
        "precision": Literal["32-true", "bf16-mixed", "16-mixed"],
        "max_steps": Count,
        "gradient_clip_val": Weight | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "log_every_n_steps": Count,
    },
}
_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_convert_", "_recursive_"})
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")

Place = tuple[str | int, ...]
_MANY = 12


def configuration_root() -> Path:
    """The folder that holds ``conf`` and ``experiments``: inside the wheel, or the source tree's root."""
    package = Path(__file__).resolve().parent
    return package if (package / "conf").is_dir() else package.parents[1]


class Unresolved:
    """Stands where a value is missing or refers to nothing, so that what stands beside it is checked too."""


def plain(config: Any) -> Any:  # noqa: ANN401 - any node of a configuration
    """A configuration, resolved, as dicts, lists, strings and numbers.

    Raises:
        ConfigurationError: values are missing or refer to ones that do not exist; names the keys.
    """
    settings, found = resolved(config)
    refuse(found)
    return settings


def resolved(config: DictConfig | ListConfig) -> tuple[Any, list[str]]:
    """A configuration as dicts, lists, strings and numbers, and what could not be resolved, one line each.

    What is missing in ``data`` is no fault where nothing refers to it.
    """
    found: list[str] = []
    typed = OmegaConf.to_container(config, resolve=False)

    def told(error: OmegaConfBaseException, place: Place) -> Unresolved | str:
        # data.* is there to be referred to: what is missing and not needed elsewhere need not be set.
        needless = place[0] == "data" and _is_missing(error) == _dotted(place)
        if needless:
            return "???"
        if not _is_echo(error, _at(typed, place)):
            found.append(explain(error, config, _dotted(place)))
        return Unresolved()

    def walk(node: Any, place: Place) -> Any:  # noqa: ANN401
        if isinstance(node, DictConfig):
            return {key: value(node, key, (*place, str(key))) for key in node}
        if isinstance(node, ListConfig):
            return [value(node, number, (*place, number)) for number in range(len(node))]
        return node

    def value(node: Any, key: Any, place: Place) -> Any:  # noqa: ANN401
        try:
            return walk(node[key], place)
        except OmegaConfBaseException as error:
            return told(error, place)

    return walk(config, ()), list(dict.fromkeys(found))


def explain(error: Exception, config: Any = None, key: str = "") -> str:  # noqa: ANN401 - any node
    """What an error of OmegaConf says, in one line that names the key.

    Args:
        error: of OmegaConf.
        config: what it was raised for, whose keys are proposed where one does not exist.
        key: where it was raised, if that is known; or what the error says.
    """
    key = key or str(getattr(error, "full_key", None) or "")
    missing = _is_missing(error)
    if missing:
        return f"{missing} is not set: give it on the command line, as {missing}=..."
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    nowhere = _leads_nowhere(error)
    if nowhere:
        known = [] if config is None else dotted_keys(config)
        hint = did_you_mean(nowhere, known, "mend or remove it")
        return f"{key} refers to ${{{nowhere}}}, which does not exist: {hint}"
    first_line = re.sub(r"^\w+ raised while resolving interpolation: ", "", first_line).strip('"')
    return f"{key}: {first_line}" if key and not first_line.startswith(f"{key}:") else first_line


def _is_missing(error: Exception) -> str | None:
    """The key that an error of OmegaConf is about if it is that it has no value."""
    missing = re.search(r"Missing mandatory value: (\S+)", str(error))
    return missing[1] if missing else None


def _leads_nowhere(error: Exception) -> str | None:
    """The key that does not exist if an error of OmegaConf is that something refers to it."""
    nowhere = re.search(r"Interpolation key '(.+)' not found", str(error))
    return nowhere[1] if nowhere else None


def _is_echo(error: Exception, typed: Any) -> bool:  # noqa: ANN401 - any node
    """Whether an error of OmegaConf is about what is referred to, which is told of where that stands.

    Args:
        error: of OmegaConf.
        typed: what it was met for, not resolved.
    """
    nowhere = _leads_nowhere(error)
    if nowhere:
        return nowhere not in str(typed)
    if _is_missing(error) or "while resolving" not in str(error):
        return False
    return typed is None or _REFERENCE.fullmatch(str(typed)) is not None


def _at(typed: Any, place: Place) -> Any:  # noqa: ANN401 - any node
    """What stands at a place of a container that is not resolved; None where it refers to something else."""
    for key in place:
        if isinstance(typed, str) or typed is None:
            return None
        typed = typed[key]
    return typed


def plain_leaves(node: Any, key: str) -> dict[str, Any]:  # noqa: ANN401 - any node
    """The values below a node, by their full keys; a list of values counts as one."""
    found: dict[str, Any] = {}

    def walk(value: Any, place: str) -> None:  # noqa: ANN401 - any node
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{place}.{name}")
        elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            for number, inner in enumerate(value):
                walk(inner, f"{place}[{number}]")
        else:
            found[place] = value

    walk(node, key)
    return found


def dotted_keys(config: Any) -> list[str]:  # noqa: ANN401 - any node of a configuration
    """All keys of a configuration as they are typed, those of groups of settings included."""
    container = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    return [_dotted(place) for place, _ in _nodes(container, ()) if place]


def references(config: DictConfig) -> set[str]:
    """The keys that a configuration refers to by ``${...}``, and what else is said beside them."""
    container = OmegaConf.to_container(config, resolve=False)
    return {
        name
        for _, node in _nodes(container, (), lists=True)
        if isinstance(node, str)
        if "${" in node
        for name in re.findall(r"[\w.]+", node)
    }


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """``did you mean X?`` if something known is near to what was given, or what else there is to say.

    Nearest is what is spelt alike in the same place, then what ends as given: ``net.width`` is
    ``model.net.width``.
    """
    known = list(known)
    parent, _, name = given.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    near = [beside[match] for match in difflib.get_close_matches(name, beside, n=1)]
    near = near or sorted((key for key in known if key.endswith(f".{given}")), key=len)
    near = near or difflib.get_close_matches(given, known, n=1, cutoff=0.8)
    return f"did you mean {near[0]}?" if near else otherwise


def faults(config: Mapping[str, Any] | DictConfig, trusted_packages: Sequence[str] = ()) -> list[str]:
    """Every fault in what a configuration names to be built, one line each.

    A name outside the allowlist, a name that does not exist, an argument that the class does not
    take (with the nearest one that it does) or that is of another type than it takes, and an argument
    that it needs and does not get. What refers to another setting is reported under that one's key.
    """
    found: list[str] = []
    if isinstance(config, DictConfig):
        (settings, found), typed = resolved(config), OmegaConf.to_container(config, resolve=False)
    else:
        settings, typed = config, config
    found += [
        fault
        for place, node in _targets(settings, ())
        for fault in _target_faults(place, node, trusted_packages, lambda place: _origin(typed, place))
    ]
    # What is referred to from two places is reported once.
    return list(dict.fromkeys(found))


def own_faults(settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[str]:
    """The faults in a command's own settings, which no class takes, one line each.

    Args:
        settings: plain.
        kinds: what each must be, as an annotation, by key.
    """
    return [
        fault
        for key, kind in kinds.items()
        if key in settings
        for fault in problems(settings[key], kind, key)
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
        MachineError: a package that it needs is not installed.
    """
    settings = plain(node) if isinstance(node, DictConfig | ListConfig) else node
    refuse(faults({key: settings} if key else settings, trusted_packages))
    try:
        return instantiate(settings, _convert_="all")
    except Exception as error:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        cause = error.__cause__ if error.__cause__ is not None else error
        if isinstance(cause, ImportError):
            # As a rule in one line that says what to install.
            raise MachineError(_with_place(" ".join(str(cause).split()), key, str(error))) from error
        if type(cause) in (ValueError, TypeError, MisconfigurationException, ConfigurationError):
            raise ConfigurationError(_with_place(" ".join(str(cause).split()), key, str(error))) from error
        raise cause from None


def _with_place(message: str, key: str, of_hydra: str) -> str:
    """What a constructor said, with the key of its settings before it, if it does not begin with one.

    Args:
        message: the constructor's.
        key: of what was being built.
        of_hydra: Hydra's message, which says where below that the constructor was called.
    """
    if re.match(r"[a-z]\w*\.\w", message) or message.startswith("seed="):
        return message
    below = re.search(r"full_key: (\S+)", of_hydra)
    inside = re.sub(r"(\d+)(?=\.|$)", r"[\1]", below[1]) if below else ""
    place = ".".join(part for part in (key, inside) if part).replace("datamodule.sources", "data.sources")
    return f"{place}: {message}" if place else message


def _nodes(node: Any, place: Place, *, lists: bool = False) -> Iterator[tuple[Place, Any]]:  # noqa: ANN401
    """A node and all below it; what stands in lists, which no key leads to, only if it is asked for."""
    yield place, node
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _nodes(value, (*place, str(key)), lists=lists)
    elif lists and isinstance(node, list):
        for number, value in enumerate(node):
            yield from _nodes(value, (*place, number), lists=True)


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
        if isinstance(node, str) or (isinstance(node, Mapping) and key not in node):
            break  # it refers to nothing, which is told elsewhere
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
    if isinstance(name, Unresolved):
        return []
    if not isinstance(name, str) or not (name in TRUSTED_NAMES or name.startswith((*TRUSTED_PACKAGES, *own))):
        package = str(name).split(".")[0]
        near = did_you_mean(str(name), TRUSTED_NAMES, "")
        if package == "deblur_lab" or near:
            ours = ", ".join(prefix.rstrip(".") for prefix in TRUSTED_PACKAGES)
            return [f"{refusal}: {near or f'they are classes of {ours}'}"]
        return [f"{refusal}; if {package} is your own code, add trusted_packages=[{package}]"]
    module_name, _, attribute = name.rpartition(".")
    try:
        module = import_module(module_name)
        target = getattr(module, attribute, None)
    except Exception as error:  # whatever somebody's own module may raise
        said = " ".join(str(error).split())
        return [f"{path}._target_={name} cannot be imported: {type(error).__name__}: {said}"]
    if target is None:
        there = [other for other in dir(module) if not other.startswith("_")]
        hint = did_you_mean(attribute, there, f"{module_name} has no {attribute}")
        return [f"{path}._target_={name} cannot be imported: {hint}"]
    if name not in TRUSTED_NAMES and not name.startswith(own) and not _is_class_of_ours(target):
        # A module also holds what it imports: a path, a function that reads files.
        return [refusal]
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    kinds = kinds_of(target) | dict(_KINDS_OF_OTHERS.get(name, {}))
    lines = []
    for given, value in node.items():
        if given in _HYDRA_KEYS:
            continue
        if given not in parameters:
            some = [*parameters][:_MANY] + (["..."] if len(parameters) > _MANY else [])
            hint = did_you_mean(given, parameters, f"it takes {', '.join(some) or 'nothing'}")
            lines.append(f"{path}.{given} is not a setting of {name}: {hint}")
        elif given in kinds:
            lines += problems(value, kinds[given], origin((*place, given)))
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
