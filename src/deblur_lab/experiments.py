"""Lets ``experiment=NAME`` find ``experiments/NAME.yaml``, which lies beside ``conf``, not in it."""

from collections.abc import Iterable
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from deblur_lab.config import configuration_root

GROUP = "experiment"


class ExperimentsSource(ConfigSource):
    """The folder ``experiments`` as Hydra's configuration group ``experiment``, subfolders included."""

    @staticmethod
    def scheme() -> str:
        """What stands before ``://`` in a search path of this kind."""
        return "experiments"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read an experiment's YAML and its ``# @package`` line.

        Raises:
            ConfigLoadError: there is no such experiment.
        """
        path = self._file(config_path)
        if path is None or not path.is_file():
            raise ConfigLoadError(f"there is no experiment {config_path.removeprefix(f'{GROUP}/')}")
        text = path.read_text(encoding="utf-8")
        return ConfigResult(
            config=OmegaConf.create(text),
            path=self.full_path(),
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )

    def available(self) -> bool:
        """Whether there are experiments."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Whether a path is the group or one of its subfolders."""
        folder = self._folder(config_path)
        return config_path == "" or (folder is not None and folder.is_dir())

    def is_config(self, config_path: str) -> bool:
        """Whether a path is an experiment."""
        path = self._file(config_path)
        return path is not None and path.is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names in a group, with or without its subgroups."""
        if config_path == "":
            return [] if results_filter == ObjectType.CONFIG else [GROUP]
        folder = self._folder(config_path)
        found: list[str] = []
        for path in folder.iterdir() if folder is not None and folder.is_dir() else ():
            if path.is_dir() and results_filter in (None, ObjectType.GROUP):
                found.append(path.name)
            elif path.suffix == ".yaml" and results_filter in (None, ObjectType.CONFIG):
                found.append(path.stem)
        return sorted(found)

    def _folder(self, config_path: str) -> Path | None:
        group, _, below = config_path.partition("/")
        return Path(self.path) / below if group == GROUP else None

    def _file(self, config_path: str) -> Path | None:
        folder = self._folder(self._normalize_file_name(config_path))
        return None if folder is None or folder == Path(self.path) else folder


class ExperimentsSearchPath(SearchPathPlugin):
    """Appends the experiments to what Hydra searches."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Hydra's."""
        folder = configuration_root() / "experiments"
        search_path.append(provider="deblur_lab", path=f"{ExperimentsSource.scheme()}://{folder}")


def register() -> None:
    """Make both known to Hydra."""
    Plugins.instance().register(ExperimentsSource)
    Plugins.instance().register(ExperimentsSearchPath)


def names() -> list[str]:
    """All experiments that there are, those in folders as ``folder/name``."""
    folder = configuration_root() / "experiments"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def chosen(settings: Iterable[str]) -> list[str]:
    """The experiments that settings choose: one (``experiment=demo``), or several in a list.

    Args:
        settings: of one run, as they are typed.
    """
    parser = OverridesParser.create()
    for setting in settings:
        if setting.lstrip("+").startswith(f"{GROUP}="):
            value = parser.parse_override(setting).value()
            names = value if isinstance(value, list) else [value]
            return [str(name) for name in names if name is not None]
    return []
