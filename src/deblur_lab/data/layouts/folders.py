"""A folder that a dataset is looked for in: its pictures and folders by name, and links that leave it."""

import os
import re
from pathlib import Path

from deblur_lab.data.layouts.faults import Fault
from deblur_lab.errors import DataError
from deblur_lab.images import PICTURE_SUFFIXES, quoted


class DataFolder:
    """A folder that is looked through by names, and the links met in it that leave it.

    Args:
        path: The folder; links that lead to it are followed.
        follow_links: Whether links in it may leave it, as where a dataset is put together from links.
    """

    def __init__(self, path: Path, *, follow_links: bool = False) -> None:
        self.path = path.resolve()
        self.follow_links = follow_links
        self._inside = [self.path]
        self._leaving: dict[Path, Path] = {}

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The links met so far that leave the folder, each in one line; none if they may."""
        return tuple(
            Fault(
                f"{quoted(link)} is a link to {quoted(target)}, outside the data folder {quoted(self.path)}: "
                "copy that into it, or allow such links by data.follow_links=true",
                "leaving_link",
            )
            for link, target in self._leaving.items()
        )

    def below(self, name: str) -> "DataFolder":
        """A folder in it, to be looked through by itself; all of this one counts as inside."""
        folder = DataFolder(self.path / name, follow_links=self.follow_links)
        folder._inside += self._inside
        folder._leaving = self._leaving
        return folder

    def is_folder(self, path: Path) -> bool:
        """Whether a path is that of a folder."""
        if not os.path.isdir(path):
            return False
        self._note(path)
        return True

    def pictures(self, folder: Path) -> list[Path]:
        """The pictures that lie directly in a folder, sorted by name.

        Raises:
            DataError: It cannot be listed.
        """
        return [
            Path(entry.path)
            for entry in self.entries(folder)
            if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES and not entry.is_dir()
        ]

    def folders(self, folder: Path) -> list[Path]:
        """The folders that lie directly in a folder, sorted by name.

        Raises:
            DataError: It cannot be listed.
        """
        return [Path(entry.path) for entry in self.entries(folder) if entry.is_dir()]

    def named(self, pattern: re.Pattern[str]) -> list[Path]:
        """The folders that lie directly in it and whose whole names match a pattern, sorted by name.

        What else lies beside them, links that leave among it, is not looked at.

        Raises:
            DataError: It cannot be listed.
        """
        matching = [path for path in self.unnoted(self.path) if pattern.fullmatch(path.name)]
        return [path for path in matching if self.is_folder(path)]

    def unnoted(self, folder: Path) -> list[Path]:
        """What lies directly in a folder, sorted by name, but for what is hidden; links are not looked at.

        Raises:
            DataError: It cannot be listed.
        """
        return [Path(entry.path) for entry in self._scan(folder)]

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What lies directly in a folder, sorted by name, but for what is hidden.

        Raises:
            DataError: It cannot be listed.
        """
        entries = self._scan(folder)
        for entry in entries:
            if entry.is_symlink():
                self._note(Path(entry.path))
        return entries

    def _scan(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                visible = [entry for entry in found if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{quoted(folder)} cannot be listed: {error.strerror or error}") from error
        return sorted(visible, key=lambda entry: entry.name)

    def _note(self, path: Path) -> None:
        if self.follow_links:
            return
        if self._is_inside(path):
            return
        # The link that leaves is the path itself or a folder above it.
        within = [above for above in (*reversed(path.parents), path) if above.is_relative_to(self.path)]
        link = next(above for above in within if not self._is_inside(above))
        self._leaving.setdefault(link, Path(os.path.realpath(link)))

    def _is_inside(self, path: Path) -> bool:
        target = Path(os.path.realpath(path))
        return any(target.is_relative_to(inside) for inside in self._inside)


def open_root(root: str | Path, root_key: str = "data.root", *, follow_links: bool = False) -> DataFolder:
    """The data folder; messages call it `root_key`.

    Raises:
        DataError: There is no such folder.
    """
    if not str(root):
        raise DataError(f"{root_key} is empty: give the folder that holds the dataset")
    path = Path(os.path.expanduser(root))
    if not os.path.isdir(path):
        state = "is not a folder" if os.path.exists(path) else "does not exist"
        raise DataError(f"{root_key}={quoted(path)} {state}: give the folder that holds the dataset")
    return DataFolder(path, follow_links=follow_links)
