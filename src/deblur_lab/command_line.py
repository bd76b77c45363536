"""From what a person typed to a composed and checked configuration, and to the folder of a command."""

import os
import re
import signal
import sys
import warnings
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from deblur_lab import __version__, experiments, ranks
from deblur_lab.composition import Composer, brief, by_job, composing, is_search, trust_faults
from deblur_lab.config import configuration_root, did_you_mean
from deblur_lab.endings import on_sigterm, reporting
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.stages import in_its_stage, unheard

# Settings that hold a path: taken as typed, for Hydra's grammar refuses spaces, brackets and "=" in a value.
PATH_KEYS = frozenset(
    {
        "checkpoint",
        "data.gopro_root",
        "data.prepared",
        "data.reloblur_root",
        "data.root",
        "init_from",
        "input",
        "model.encoder.checkpoint",
        "output",
        "resume",
        "runs",
    }
)


def as_typed(argument: str) -> str:
    """One command-line argument, quoted for Hydra if it sets a path; `~` is the person's home.

    >>> as_typed("data.root=/data/My Photos (1)=x")
    "data.root='/data/My Photos (1)=x'"
    """
    key, equals, value = argument.partition("=")
    setting = in_its_stage(key.lstrip("+"))
    if not equals or setting not in PATH_KEYS or value in ("", "null", "???"):
        return argument
    if value == "~" or value.startswith("~/"):  # which shells leave as it is behind a key, or in quotes
        value = os.path.expanduser(value)
    # Not an interpolation; and in Hydra's single quotes only a quote is special, and backslashes before one.
    quoted = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", value.replace("${", r"\${"))
    trailing = len(quoted) - len(quoted.rstrip("\\"))
    return f"{key}='{quoted}{chr(92) * trailing}'"


def typed_again(setting: str) -> str:
    """The reverse of `as_typed`: a setting that Hydra reads, as a person types it.

    >>> typed_again("data.root='/data/My Photos (1)=x'")
    'data.root=/data/My Photos (1)=x'
    """
    key, _, value = setting.partition("=")
    if in_its_stage(key.lstrip("+")) not in PATH_KEYS or not value.startswith("'"):
        return setting
    read = OverridesParser.create().parse_override(setting).value()
    return f"{key}={OmegaConf.create({'path': read}).path}"  # which takes its backslash from an escaped $


def run(command: str, job: Callable[[DictConfig], None]) -> None:
    """Compose ``conf/<command>.yaml`` with what was typed, check it, and run the job with it.

    All that is wrong with what was typed is told at once, before anything is built. A user's mistake ends in
    one line (a line for each mistake) on standard error and the exit code of its kind, never a traceback; a
    fault of ours ends in a traceback and exit code 1.
    """
    with ranks.following_first(), reporting():
        # Training and scoring listen for themselves while there is something to save or to leave orderly.
        signal.signal(signal.SIGTERM, on_sigterm)
        _run(command, job)


def _run(command: str, job: Callable[[DictConfig], None]) -> None:
    # Hydra then raises what it would otherwise print over several lines and end with exit code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    warnings.formatwarning = formatted_warning
    # Read when PyTorch is loaded, which is after this. By default, threads that wait for each other spin for
    # long: where something else runs on the same cores, a step then takes many times as long, and steps of
    # two runs may crawl. A short spin costs next to nothing (benchmarks/waiting_threads.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    experiments.register()
    typed = sys.argv[:]
    flags, settings = _sorted_out(typed[1:])
    if flags.version:
        sys.stdout.write(f"deblur_lab {__version__}\n")
        return
    quoted = [as_typed(setting) for setting in settings]
    flag_words = [argument for argument in typed[1:] if argument not in settings]
    if flags.multirun:
        quoted = _spread(command, quoted)
    if any(setting.startswith("resume=") and setting != "resume=null" for setting in quoted):
        # What is composed here is not what the run that goes on has (data.root, say): it judges for itself.
        quoted = [_forced(setting) for setting in quoted]
    if not flags.hydra_help and not flags.shell_completion:
        quoted, jobs, parsed = _checked(command, quoted, flags)
        if flags.multirun and not flags.help:
            if is_search(jobs[0][1]):
                _search(command, parsed, jobs[0][1], flags, job)
            else:
                _sweep(command, typed[1:], quoted, jobs, flags, partial(attempt, job))
            return

    sys.argv = [typed[0], *flag_words, *quoted]
    composed = hydra.main(
        version_base="1.3", config_path=str(configuration_root() / "conf"), config_name=command
    )

    def alone(config: DictConfig) -> None:
        # A run on several devices starts its other processes with what stands here, and they quote it again.
        sys.argv = typed
        # The page to try a checkpoint on is there until it is stopped: that is no error.
        attempt(job, config, is_to_be_stopped=command == "demo")

    try:
        composed(alone)()
    except OSError:
        raise
    except Exception as error:
        # What the job raises does not come so far: this is of Hydra's own.
        raise ConfigurationError(brief(error)) from error


def attempt(job: Callable[[DictConfig], None], config: DictConfig, *, is_to_be_stopped: bool = False) -> None:
    """Do the work of a job, and end as a command does.

    Errors are met here, before Hydra sees them, which would print lines of its own.

    Args:
        job: does it.
        config: composed.
        is_to_be_stopped: see `reporting`.

    Raises:
        SystemExit: it failed, or was stopped.
    """
    with reporting(is_to_be_stopped=is_to_be_stopped):
        try:
            names = experiments.chosen(HydraConfig.get().overrides.task)
            if names:
                with open_dict(config):
                    config[experiments.GROUP] = names
            job(config)
        except SystemExit as ended:
            # Lightning makes an exit code of 1 of Ctrl-C.
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise ended.__context__ from None
            raise


def _sweep(
    command: str,
    typed: Sequence[str],
    settings: Sequence[str],
    jobs: Sequence[tuple[list[str], DictConfig]],
    flags: Namespace,
    work: Callable[[DictConfig], None],
) -> None:
    """Run all jobs of a sweep."""
    from deblur_lab import sweeps

    folder = Path(str(OmegaConf.select(jobs[0][1], "hydra.sweep.dir")))
    if not any(setting.startswith("hydra.sweep.dir=") for setting in settings):
        folder = _made(folder)
    own = None if flags.config_dir is None else Path(flags.config_dir)
    sweeps.run(sweeps.Sweep(command, typed, settings, jobs, folder, own, typed_again, work))


def _search(
    command: str,
    parsed: Sequence[Override],
    config: DictConfig,
    flags: Namespace,
    work: Callable[[DictConfig], None],
) -> None:
    """Search for the best settings."""
    from deblur_lab import search, search_space, trials

    folder = Path(str(OmegaConf.select(config, "hydra.sweep.dir")))
    if not any(str(override.input_line).startswith("hydra.sweep.dir=") for override in parsed):
        folder = _made(folder)
    fixed = [] if flags.config_dir is None else ["--config-dir", flags.config_dir]
    for override in parsed:
        if not override.is_sweep_override() and not override.get_key_element().startswith("hydra"):
            fixed.append(typed_again(str(override.input_line)))
    runner = trials.runner(command, config, fixed, folder, partial(_alone, command, work))
    settings, space = search.settings_of(config), search_space.space_of(parsed)[0]
    with composing(command, None if flags.config_dir is None else Path(flags.config_dir)) as composer:
        # What is typed of it is of the trials, and left out where the best is trained anew.
        others = [one for one in parsed if not one.is_sweep_override() and _key(one) != "evaluate"]
        anew = composer.compose([str(override.input_line) for override in others])[0]
    evaluates = anew is None or bool(anew.evaluate)
    code = search.Search(settings, space, fixed, folder, runner, evaluates=evaluates).run()
    if code:
        sys.exit(code)


def _alone(command: str, job: Callable[[DictConfig], None], arguments: Sequence[str]) -> int:
    """Run a command within this one, and end it as it would end by itself.

    Returns:
        Its exit code.
    """
    before = sys.argv
    sys.argv = [before[0], *arguments]
    ranks.show_way_on(str)  # not what one before it has said
    try:
        with ranks.within_sweep(), reporting():
            _run(command, job)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.argv = before
    return 0


_usual_format = warnings.formatwarning


def formatted_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours as one line, without the code that gave it, which tells a user nothing."""
    if Path(filename).is_relative_to(Path(__file__).parent):
        return f"warning: {message}\n"
    return _usual_format(message, category, filename, lineno, line)


def _sorted_out(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """The flags, and the settings, wherever they stand among them.

    Raises:
        ConfigurationError: there is no such flag, one lacks its value, or two exclude each other.
    """
    parser = ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for names in (("--help", "-h"), ("--hydra-help",), ("--version",), ("--resolve",), ("--run", "-r")):
        parser.add_argument(*names, action="store_true")
    for names in (("--multirun", "-m"), ("--shell-completion", "-sc")):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=_INFO)
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd")
    known = [name for action in parser._actions for name in action.option_strings]
    try:
        flags, rest = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise ConfigurationError(f"{error.argument_name}: {error.message}") from error
    for argument in rest:
        if argument.startswith("-") and argument != "-":
            name, equals, value = argument.lstrip("-").partition("=")
            setting = f"{name.replace('-', '_')}={value if equals else '...'}"
            flag = did_you_mean(name, [flag[2:] for flag in known if flag.startswith("--")], "")
            hint = flag.replace("did you mean ", "did you mean --") or f"settings have no dashes: {setting}"
            raise ConfigurationError(f"there is no flag {argument}: {hint}")
    modes = [mode for mode in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(flags, mode)]
    if len(modes) > 1:
        given = " and ".join(f"--{mode.replace('_', '-')}" for mode in modes)
        raise ConfigurationError(f"{given} exclude each other: give one of them")
    if flags.resolve and not (flags.cfg or flags.help):
        raise ConfigurationError("--resolve goes with --cfg or --help")
    if flags.package and not flags.cfg:
        raise ConfigurationError("--package goes with --cfg")
    if flags.config_dir is not None and not Path(flags.config_dir).is_dir():
        raise ConfigurationError(f"--config-dir {flags.config_dir} is no folder: name the one of your YAMLs")
    return flags, rest


_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def _spread(command: str, settings: Sequence[str]) -> list[str]:
    """The settings of a sweep: each job has a folder of its own below `output`.

    Raises:
        ConfigurationError: the command runs no sweeps.
    """
    if command != "train":
        raise ConfigurationError(f"-m runs several trainings: call {command} once for each")
    if any(setting.startswith("resume=") and setting != "resume=null" for setting in settings):
        raise ConfigurationError("resume= goes on with one run: leave -m out")
    return [re.sub(r"^output=(?!null$)", "hydra.sweep.dir=", setting) for setting in settings]


def _checked(
    command: str, settings: Sequence[str], flags: Namespace
) -> tuple[list[str], list[tuple[list[str], DictConfig]], list[Override]]:
    """The settings to run with, and those of each job, of which there is one if no sweep is asked for.

    With the settings of a job stands what was composed of them; last come all settings, as they were read.
    The jobs of a search are none that will be run, but try out all that is searched.

    Raises:
        ConfigurationError: with every fault in them.
    """
    shown_alone = bool(flags.help or flags.cfg or flags.info)
    folder = None if flags.config_dir is None else Path(flags.config_dir)
    with composing(command, folder) as composer:
        settings = composer.with_settings_of_stages(settings)
        parsed, found = composer.parse(settings)
        if flags.multirun:
            parsed, told = composer.with_sweep(parsed)
            found += told
            # What is swept over is written out; Hydra, which runs the jobs, shall not look for it again.
            settings = [_forced(str(override.input_line)) for override in parsed]
            settings.append("hydra.sweeper.params=null")
        if flags.multirun:
            jobs, told = _jobs_of(composer, parsed)
            found += told
        else:
            jobs = composer.jobs(parsed, sweep=False)
        configs: list[DictConfig] = []
        of_jobs: list[list[str]] = []
        for job in jobs:
            config, fitting, told = composer.compose(job)
            composes = not told
            of_jobs.append(told)
            if config is None:
                continue
            configs.append(config)
            told += trust_faults(config, composer.typed(job))
            if not shown_alone and (command != "train" or config.resume is None):
                if composes:
                    told += _sweeps_in_vain(composer.not_swept(config, job), job, flags.multirun)
                # Its imports take seconds: not before --help has been answered.
                from deblur_lab.checks import budgeted_faults

                told += composer.place(budgeted_faults(command, config, job), fitting)
                if not found and not told and command == "train" and config.stages:
                    told += unheard(config, composer.typed(job))
            if flags.package and OmegaConf.select(config, flags.package) is None:
                told.append(f"--package {flags.package}: there is no such part of the configuration")
        found += by_job(of_jobs, jobs)
        if flags.multirun and not found:
            from deblur_lab.cluster import launch_faults
            from deblur_lab.sweep_jobs import sweep_faults

            found += sweep_faults(configs) + launch_faults(configs)
    lines = list(dict.fromkeys(found))
    if lines:
        raise ConfigurationError("\n       ".join(lines))
    return list(settings), list(zip(jobs, configs, strict=True)), parsed


def _jobs_of(composer: Composer, parsed: Sequence[Override]) -> tuple[list[list[str]], list[str]]:
    """The settings of each job of a sweep, or of those that try out a search; and a line for each fault."""
    fixed = [override for override in parsed if not override.is_sweep_override()]
    config = composer.compose([str(override.input_line) for override in fixed])[0]
    if config is not None and is_search(config):
        from deblur_lab import search, search_space

        space, found = search_space.space_of(parsed)
        found += search.search_faults(config)
        words = [str(override.input_line) for override in fixed]
        return [[*words, *tried] for tried in search_space.samples(space) or [[]]], found
    # What lies between two numbers are too many to run through.
    ranges = [str(override.input_line) for override in parsed if _is_range(override)]
    found = [f"{typed}: a sweep takes single values: add hydra/sweeper=optuna to search" for typed in ranges]
    return composer.jobs([override for override in parsed if not _is_range(override)], sweep=True), found


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _is_range(override: Override) -> bool:
    return override.is_sweep_override() and not override.is_discrete_sweep()


def _forced(setting: str) -> str:
    """A setting that is set whether there is one of its key or not.

    Hydra composes a sweep once without what is swept over, where there need be no ``data.root``, say; that
    the jobs have it has been checked then.
    """
    return f"++{setting}" if re.match(r"(?!hydra\.)\w+\.[\w.]+=", setting) else setting


def _sweeps_in_vain(keys: Sequence[str], job: Sequence[str], sweeps: bool) -> list[str]:
    """That an experiment sweeps over settings of which a run was given no value, in one line if so."""
    if not keys:
        return []
    names = ",".join(experiments.chosen(job)) or "..."
    what = f"experiment={names} sweeps over {', '.join(keys)}"
    if sweeps:
        return [f"{what}, as do others that it is swept with: give one of them at a time"]
    return [f"{what}: add -m, or give one value of each"]


def folder_for(output: str | None, default_name: str) -> Path:
    """The folder that a command writes to, made and proven writable.

    Args:
        output: what the user asked for, or None for ``runs/<default_name>``, numbered if it exists.
        default_name: of the folder, if the user asked for none.

    Raises:
        MachineError: it cannot be made or written to.
        ConfigurationError: the processes of a run would each find a name of their own.
    """
    # A run on several devices starts one process a device; all must write to the folder of the first.
    shared = os.environ.get("DEBLUR_LAB_OUTPUT")
    if shared and ranks.started_by_first():
        return Path(shared)
    if output is None and ranks.started_elsewhere():
        raise ConfigurationError(
            "output= is not set: processes that torchrun or srun starts, or a person on several nodes, "
            "cannot agree on a new folder: name one, as output=runs/NAME"
        )
    try:
        folder = Path(output) if output else _made(Path("runs") / default_name)
    except OSError as error:
        raise MachineError(f"{Path('runs').absolute()} cannot be written to: {error.strerror}") from error
    try:
        if folder.exists() and not folder.is_dir():
            raise MachineError(f"output={folder} is a file: name a folder, or one that does not exist yet")
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise MachineError(f"output={folder} cannot be written to: {error.strerror or error}") from error
    os.environ["DEBLUR_LAB_OUTPUT"] = str(folder)
    return folder


def _made(folder: Path) -> Path:
    """A new folder, numbered if there is one of this name already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = folder, 2
    while True:
        try:
            candidate.mkdir()  # of two runs that are started at once, one has it
            return candidate
        except FileExistsError:
            candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
