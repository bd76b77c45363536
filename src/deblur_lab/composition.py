"""What a person typed, composed to a configuration by Hydra, with every fault in it at once."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deblur_lab import experiments
from deblur_lab.config import configuration_root, did_you_mean, dotted_keys, explain
from deblur_lab.stages import SETTINGS, STAGES

# What there is no setting for in a command, though there is in another, and what to do instead.
_ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("evaluate", "model"): "the checkpoint knows its model",
    ("evaluate", "experiment"): "the checkpoint knows its model; choose data= and trainer=",
    ("predict", "model"): "the checkpoint knows its model",
    ("predict", "data"): "give the photo, or the folder of photos, as input=",
    ("predict", "trainer"): "choose device=cpu or device=cuda",
    ("profile", "data"): "give the size of a picture, as size=2152x1436",
    ("profile", "experiment"): "choose model=, and set what differs, as model.net.width=64",
    ("profile", "trainer"): "choose device=cpu or device=cuda, and precision=",
}


# Hydra's own choice `none`, which all our commands make.
_NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}


def trust_faults(config: DictConfig, typed: Sequence[str]) -> list[str]:
    """What a YAML decides though it is not its to decide: what Hydra itself runs, and whose code is trusted.

    Args:
        config: composed, with what Hydra keeps in it.
        typed: the settings of the command line.

    Returns:
        One line each.
    """
    found = []
    for key, harmless in (("callbacks", {}), ("job_logging", _NO_LOGGING), ("hydra_logging", _NO_LOGGING)):
        if OmegaConf.select(config, f"hydra.{key}") not in (None, harmless):
            found.append(f"hydra.{key} could run any code: take it out of the YAML that sets it")
    for key in ("launcher", "sweeper"):
        target = str(OmegaConf.select(config, f"hydra.{key}._target_"))
        if key == "sweeper" and is_search(config):
            continue
        if not target.startswith(("hydra._internal.core_plugins.", "hydra_plugins.")):
            found.append(f"hydra.{key}._target_={target} is none of Hydra's: choose hydra/{key}=basic")
    if OmegaConf.select(config, "hydra.mode") is not None:
        found.append("hydra.mode is set: leave it out, and add -m to run a sweep")
    opened = config.get("trusted_packages") or []
    if opened and not any(re.match(r"\+*trusted_packages=", setting) for setting in typed):
        names = ",".join(map(str, opened))
        found.append(f"trusted_packages=[{names}] stands in a YAML: type it, if you trust their code")
    return found


def is_search(config: DictConfig) -> bool:
    """Whether a configuration asks for a search in place of a sweep, as ``hydra/sweeper=optuna`` does.

    Args:
        config: composed, with what Hydra keeps in it.
    """
    return str(OmegaConf.select(config, "hydra.sweeper._target_")) == "deblur_lab.search.Search"


# Where a YAML says, in Hydra's way, what it sweeps over; and what is not its to say.
_SWEEP = "hydra.sweeper.params."
_NOT_SWEPT = ("hydra", "trusted_packages", "output", "resume", experiments.GROUP)


def _sweep_of(config: DictConfig) -> dict[str, str]:
    """What the YAMLs of a configuration sweep over: values as they are typed, by setting."""
    params = OmegaConf.select(config, _SWEEP.rstrip("."))
    # References are to the settings of the run: `${model.loss.mask},0` is what there is, and without.
    return {} if params is None else {str(key): str(params[key]) for key in params}


def _as_written(value: str) -> str:
    """A value of a sweep as a person writes it: Hydra has True for true."""
    return value.lower() if value in ("True", "False") else value


def _key(override: Override) -> str:
    """What an override sets, as it is looked up."""
    return override.get_key_element().lstrip("+~")


class Composer:
    """Composes configurations of one command; made by `composing`.

    Args:
        command: whose ``conf/<command>.yaml`` is composed.
        folder: a folder of a person's own YAMLs, searched after ours; or None.
        loader: Hydra's.
    """

    def __init__(self, command: str, folder: Path | None, loader: ConfigLoader) -> None:
        self._command = command
        self._folder = folder
        self._loader = loader
        self._search = (
            [] if folder is None else [f"hydra.searchpath=[{_quoted(f'file://{folder.absolute()}')}]"]
        )
        self._swept: list[Override] = []

    def parse(self, settings: Sequence[str]) -> tuple[list[Override], list[str]]:
        """What can be read of the settings, choices of YAMLs first, and a line for each that cannot.

        One that is given twice, with two values, is told as well: the last would win silently.
        """
        parser = OverridesParser.create(config_loader=self._loader)
        parsed: list[Override] = []
        found = []
        for setting in settings:
            try:
                override = parser.parse_override(setting)
            except HydraException:
                found.append(f"{setting} cannot be read: {_how_to_type(setting)}")
                continue
            if setting.endswith("=") and not override.is_delete():
                key = setting.rstrip("=")
                found.append(f"{key} has no value: give it as {key}=..., or {key}=null for none")
                continue
            if override.key_or_group.startswith("datamodule."):
                name = override.key_or_group.removeprefix("datamodule.")
                given = name if name == "seed" else f"data.{name}"
                found.append(f"datamodule.{name} follows {given}: give {given}=... instead")
                continue
            listed = isinstance(override.value(), list) and not override.is_sweep_override()
            several = (experiments.GROUP, "logger")  # of which there may be more than one
            if listed and self._is_group(override) and override.key_or_group not in several:
                there = ", ".join(self._options(override))
                found.append(f"{setting}: one choice is expected: there are {there}")
                continue
            if override.is_delete() and self._is_group(override):
                key, options = override.key_or_group, self._options(override)
                found.append(f"~{key}: one of {', '.join(options)} is needed: choose it by {key}=...")
                continue
            parsed.append(override)
        typed: dict[str, Override] = {}
        for override in parsed:
            key = _key(override)
            other = typed.setdefault(key, override)
            if other.input_line != override.input_line:
                found.append(f"{key} is given twice, as {other.input_line} and as {override.input_line}")
        # A setting may be one that another choice of YAML has.
        return sorted(typed.values(), key=lambda override: not self._is_group(override)), found

    def with_sweep(self, parsed: Sequence[Override]) -> tuple[list[Override], list[str]]:
        """The settings of a sweep: the values that the chosen YAMLs sweep over, and what was typed.

        What a YAML sweeps over stands in its ``hydra.sweeper.params``, as Hydra has it: a setting, and its
        values as they would be typed after ``-m``. A setting that is typed is not swept over. What follows
        in the list wins, and varies the fastest.

        Args:
            parsed: what was typed, as `parse` gives it.

        Returns:
            All settings, and a line for each sweep that cannot be.
        """
        alone = [str(override.input_line) for override in parsed if not override.is_discrete_sweep()]
        config = self.compose(alone)[0]  # what does not fit is met again where the jobs are composed
        if config is None:
            return list(parsed), []
        try:
            values = _sweep_of(config)
        except OmegaConfBaseException as error:
            return list(parsed), [explain(error)]
        typed = {_key(override) for override in parsed}
        parser, found = OverridesParser.create(config_loader=self._loader), []
        for key, value in values.items():
            if key in typed:
                continue
            setting = f"{key}={value}"
            if key.lstrip("+~").partition(".")[0] in _NOT_SWEPT:
                found.append(f"hydra.sweeper.params.{key}: a YAML cannot sweep over it: take it out")
                continue
            try:
                self._swept.append(parser.parse_override(setting))
            except HydraException:
                found.append(f"hydra.sweeper.params.{key}={value} cannot be read: {_how_to_type(setting)}")
        # Not by value: a choice of a YAML goes first, be it typed or swept over.
        return sorted([*self._swept, *parsed], key=lambda override: not self._is_group(override)), found

    def not_swept(self, config: DictConfig, settings: Sequence[str]) -> list[str]:
        """What a YAML sweeps over in vain, as a run has not been given one value of it.

        Args:
            config: of the run.
            settings: of the run.
        """
        given = {setting.lstrip("+~").partition("=")[0] for setting in settings}
        try:
            return [key for key in _sweep_of(config) if key.lstrip("+~") not in given]
        except OmegaConfBaseException as error:
            return [explain(error)]

    def with_settings_of_stages(self, settings: Sequence[str]) -> list[str]:
        """The same, but what a stage does not set yet, and the whole training does, is added to the stage.

        Args:
            settings: as typed, ``stages.NAME.trainer.max_steps=50`` among them.
        """
        of_stages = [setting for setting in settings if re.match(r"stages\.\w+\.[\w.]+=", setting)]
        if not of_stages:
            return list(settings)
        config = self.compose([setting for setting in settings if setting not in of_stages])[0]
        known = set() if config is None else set(_keys_of_stages(config))
        return [
            f"++{setting}" if setting in of_stages and setting.partition("=")[0] in known else setting
            for setting in settings
        ]

    def typed(self, settings: Sequence[str]) -> list[str]:
        """Those settings of a run that no YAML swept over: a person typed them."""
        swept = {_key(override) for override in self._swept}
        return [setting for setting in settings if setting.lstrip("+~").partition("=")[0] not in swept]

    def jobs(self, parsed: Sequence[Override], sweep: bool) -> list[list[str]]:
        """The settings of each run: of all combinations, if several values are given to sweep over."""
        each = [
            [f"{override.get_key_element()}={_as_written(v)}" for v in override.sweep_string_iterator()]
            if sweep and override.is_discrete_sweep()
            else [str(override.input_line)]
            for override in parsed
        ]
        return [list(job) for job in itertools.product(*each)]

    def compose(self, settings: Sequence[str]) -> tuple[DictConfig | None, list[str], list[str]]:
        """Compose what can be composed.

        Returns:
            The configuration, or None if there is none even without settings; the settings that it is made
            of; and a line for each of the others.
        """
        try:
            return self._composed(settings), list(settings), []
        except Exception:  # whatever it is, it is met again below, by what causes it
            pass
        try:
            config = self._composed([])
        except Exception as error:
            return None, [], [brief(error)]
        kept: list[str] = []
        found = []
        for setting in settings:
            try:
                config = self._composed([*kept, setting])
                kept.append(setting)
            except Exception as error:
                override = OverridesParser.create(config_loader=self._loader).parse_override(setting)
                fault = self._fault(override, error, config)
                found += [fault] if self.typed([setting]) else self.place([fault], kept)
        return config, kept, found

    def launcher(
        self, settings: Sequence[str], folder: Path, task: TaskFunction
    ) -> tuple[Launcher, DictConfig]:
        """What Hydra runs the jobs of a sweep with, and the configuration that it makes of the sweep itself.

        Args:
            settings: all of them, with what they sweep over.
            folder: of the sweep.
            task: what to call with the configuration of each job.
        """
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        own = [f"hydra.sweep.dir={_quoted(str(folder))}", "hydra.mode=MULTIRUN"]
        kept = [setting for setting in settings if not setting.lstrip("+").startswith("hydra.sweep.dir=")]
        config = hydra.compose_config(
            self._command, [*kept, *self._search, *own], RunMode.MULTIRUN, from_shell=False
        )
        context = HydraContext(config_loader=self._loader, callbacks=Callbacks(config))
        return Plugins.instance().instantiate_launcher(context, task, config), config

    def place(self, faults: Sequence[str], settings: Sequence[str]) -> list[str]:
        """The faults, each with the file in which it stands if a person wrote that.

        The first key that a fault names is what it is about.
        """
        files = self._own_files(settings) if faults else []  # reading them takes a while
        placed = []
        for fault in faults:
            words = [word.strip(".:") for word in re.findall(r"[\w.:]+", fault)]
            missing = " is not set: " in fault  # and not where it could be
            where = [path for path, keys in files for word in words[:6] if word in keys and not missing]
            placed.append(f"{fault} (in {where[-1]})" if where else fault)
        return placed

    def _composed(self, settings: Sequence[str]) -> DictConfig:
        return compose(self._command, [*settings, *self._search], return_hydra_config=True)

    def _own_files(self, settings: Sequence[str]) -> list[tuple[Path, set[str]]]:
        """The YAMLs that a person wrote and that are in use, with the keys that they set."""
        overrides = [*settings, *self._search]
        defaults = self._loader.compute_defaults_list(self._command, overrides, RunMode.RUN).defaults
        roots = [configuration_root(), *([self._folder] if self._folder else [])]
        swept = {_key(override) for override in self._swept}
        typed = {setting.lstrip("+~").partition("=")[0] for setting in settings} - swept
        files = []
        for default in defaults:
            path = next((p for root in roots if (p := root / f"{default.config_path}.yaml").is_file()), None)
            # An experiment of ours lies in `experiments`, where one may put one's own as well.
            if default.config_path and default.config_path.startswith("experiment/"):
                name = default.config_path.removeprefix("experiment/")
                own = configuration_root() / "experiments" / f"{name}.yaml"
                path = own if own.is_file() else path
            if path is None:
                continue
            inside = dotted_keys(OmegaConf.load(path))
            prefix = f"{default.package}." if default.package not in (None, "", "_global_") else ""
            keys = {f"{prefix}{key}" for key in inside}
            # What it sweeps over it sets.
            keys |= {key.removeprefix(_SWEEP) for key in keys if key.startswith(_SWEEP)} & swept
            # What is typed wins over a file, and is then the fault of what it is a part of.
            files.append(
                (path, {key for key in keys if not any(f"{t}.".startswith(f"{key}.") for t in typed)})
            )
        return files

    def _is_group(self, override: Override) -> bool:
        return bool(self._options(override))

    def _options(self, override: Override) -> list[str]:
        group, command = override.key_or_group, self._command
        return self._loader.get_group_options(group, config_name=command, overrides=self._search)

    def _fault(self, override: Override, error: Exception, config: DictConfig) -> str:
        """What is wrong with the setting that composition failed by."""
        key, typed = override.key_or_group, str(override.input_line)
        options = self._options(override)
        if key == experiments.GROUP:
            options = sorted({*options, *experiments.names()})
        if str(error).startswith("Could not override") and (options or key not in dotted_keys(config)):
            return self._unknown(key, config)
        if override.is_sweep_override():
            as_list = "" if options else f" (a list is written {key}=[1,2])"
            return f"{typed}: several values make several runs: add -m{as_list}"
        if options and override.is_add():
            return f"{typed}: {key} is chosen already: leave the + out"
        if options:
            name = override.get_value_element_as_str()
            if name not in options:
                hint = did_you_mean(name, options, f"there are {', '.join(options)}")
                return f"there is no {key}={name}: {hint}"
            return f"{typed}: {brief(error)}"
        if str(error).startswith("Could not delete") and key not in dotted_keys(config):
            return self._unknown(key, config)
        if "Could not append" in str(error):
            return f"{typed}: there is such a setting: leave the + out"
        return f"{typed}: {brief(error)}"

    def _unknown(self, key: str, config: DictConfig) -> str:
        if key.startswith(f"{experiments.GROUP}/"):
            return f"there is no setting {key}: experiments are chosen by {key.replace('/', '=', 1)}/NAME"
        if (self._command, key) in _ELSEWHERE:
            return f"there is no setting {key} in {self._command}: {_ELSEWHERE[self._command, key]}"
        return unknown_setting(key, config)


def by_job(faults: Sequence[Sequence[str]], jobs: Sequence[Sequence[str]]) -> list[str]:
    """Each fault of several jobs once; one that some have not with the settings of those that have it.

    Args:
        faults: of each job, one line each.
        jobs: the settings of each.

    >>> by_job([["seed=x: no"], ["seed=x: no", "lr=9: no"]], [["model=a", "seed=x"], ["model=b", "seed=x"]])
    ['seed=x: no', 'model=b: lr=9: no']
    """
    settings = [{one.lstrip("+~").partition("=")[0]: one.lstrip("+~") for one in job} for job in jobs]
    lines = []
    for fault in dict.fromkeys(itertools.chain(*faults)):
        theirs = [job for job, told in zip(settings, faults, strict=True) if fault in told]
        values = {
            key: list(dict.fromkeys(job[key] for job in theirs if key in job))
            for job in theirs
            for key in job
        }
        telling = {
            key: of_key
            for key, of_key in values.items()
            if any(job.get(key) not in of_key for job in settings)
        }
        # Which of the jobs would be meant: it may be no whole part of all combinations.
        meant = [job for job in settings if all(job.get(key) in of_key for key, of_key in telling.items())]
        if len(meant) != len(theirs):
            own = [
                " ".join(one for key, one in job.items() if len(values[key]) > 1 or key in telling)
                for job in theirs
            ]
            named = f"{own[0]}{f' and {len(own) - 1} more' if len(own) > 1 else ''}"
        else:
            named = " ".join(
                f"{key}={','.join(one.partition('=')[2] for one in of_key)}"
                for key, of_key in telling.items()
            )
        # Of what it is already about it is not said again.
        is_about = len(telling) == 1 and re.match(rf"{re.escape(next(iter(telling)))}[=: ]", fault)
        lines.append(fault if len(theirs) == len(settings) or is_about or not named else f"{named}: {fault}")
    return lines


def unknown_setting(key: str, config: DictConfig) -> str:
    """That there is no setting of a dotted key, and which one may be meant."""
    if key == "data.root":
        return "there is no setting data.root, as these data read no folder: choose data=reloblur, ..."
    if key.startswith("hydra.sweeper.") and is_search(config):
        names = [str(name) for name in config.hydra.sweeper if not str(name).startswith("_")]
        hint = did_you_mean(key, [f"hydra.sweeper.{name}" for name in names], f"there are {', '.join(names)}")
        return f"there is no setting {key}: {hint}"
    known = [known for known in dotted_keys(config) if known.partition(".")[0] != "hydra"]
    if key.startswith(f"{STAGES}."):
        known = list(dict.fromkeys([*known, *_keys_of_stages(config)]))
        stages = [f"{STAGES}.{name}" for name in config.get(STAGES) or ()]
        named = ".".join(key.split(".")[:2])
        if named not in stages:
            hint = did_you_mean(named, stages, f"there are {', '.join(stages) or 'no stages'}")
            return f"there is no setting {key}: {hint}"
    parent = key.rpartition(".")[0]
    beside = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == parent]
    beside = [other for other in beside if not other.startswith("_")]
    hint = did_you_mean(
        key, known, f"there are {', '.join(beside)}" if beside else "nothing can be set there"
    )
    return f"there is no setting {key}: {hint}"


def _keys_of_stages(config: DictConfig) -> list[str]:
    """All keys that can be typed of the stages that there are, whether these set them or only the whole."""
    if not OmegaConf.is_dict(config.get(STAGES)):
        return []
    of_all = [key for key in dotted_keys(config) if key.partition(".")[0] in SETTINGS]
    return [f"{STAGES}.{name}.{key}" for name in config[STAGES] for key in of_all]


@contextmanager
def composing(command: str, folder: Path | None = None) -> Iterator[Composer]:
    """Compose configurations of a command; see `Composer`."""
    conf = str(configuration_root() / "conf")
    with initialize_config_dir(conf, job_name=command, version_base="1.3"):
        yield Composer(command, folder, GlobalHydra.instance().config_loader())


def _how_to_type(setting: str) -> str:
    """What may be wrong with a setting that Hydra cannot read."""
    key, equals, _ = setting.partition("=")
    if not equals or not key.strip():
        return "settings are given as key=value"
    if "[" in key:
        item = re.sub(r"\[(\d+)\]", r".\1", key)
        return f"an item of a list is given as {item}=..."
    return f"text with special characters is quoted, as {key}='a value'"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def brief(error: BaseException) -> str:
    """What an error of Hydra says, in one line: without its search path, advice and stack."""
    if isinstance(error, RecursionError):
        return "a YAML includes itself"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        hint = did_you_mean(name, error.options, f"there are {', '.join(error.options)}")
        return f"there is no {group}={name}: {hint}"
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{mark.name}, line {mark.line + 1} cannot be read as YAML: {getattr(error, 'problem', error)}"
    if isinstance(error, OmegaConfBaseException):
        return explain(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or lines[0].startswith("Error merging override"):
        return brief(error.__cause__) if error.__cause__ is not None else type(error).__name__
    told = itertools.takewhile(lambda line: not re.match(r"(Config s|S)earch path", line), lines)
    return " ".join(line for line in told if not re.match(r"full_key|object_type|reference_type", line))
