"""The directive ``{modules} PACKAGE ...``: what the docstrings of these modules say, a section a module.

It stands on the pages in ``docs/api``, which a code host shows as they are. ``{modules} others`` stands for
all modules that no other page names, so that a new module is never left out.
"""

import inspect
import pkgutil
import re
from functools import cache
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx

import deblur_lab

_DIRECTIVE = re.compile(r"^```\{modules\} ([\w. ]+)\n```$", re.MULTILINE)


@cache
def documented() -> tuple[str, ...]:
    """Every module of deblur_lab that defines something public; not the commands, which only start others."""
    found = []
    for module in pkgutil.walk_packages(deblur_lab.__path__, "deblur_lab."):
        if not module.ispkg and _defines(module.name) and not _is_command(module.name):
            found.append(module.name)
    return tuple(found)


def _defines(name: str) -> bool:
    members = vars(import_module(name)).items()
    return any(getattr(member, "__module__", None) == name and key[0] != "_" for key, member in members)


def _is_command(name: str) -> bool:
    return list(inspect.signature(getattr(import_module(name), "main", len)).parameters) == []


def _below(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def _linked(package: str, name: str) -> str:
    """Markdown: a name that a package offers, linked to where it is documented."""
    member = getattr(import_module(package), name)
    place = f"{getattr(member, '__module__', package)}.{getattr(member, '__qualname__', name)}"
    return f"{{py:obj}}`{name} <{place}>`"


def _sections(packages: list[str], claimed: frozenset[str]) -> str:
    """Markdown: a heading and an ``automodule`` for each module."""
    if packages == ["others"]:
        names = [name for name in documented() if not any(_below(name, package) for package in claimed)]
    else:
        names = [name for package in packages for name in documented() if _below(name, package)]
    text = ""
    for package in packages:
        exported = getattr(import_module(package), "__all__", ()) if package != "others" else ()
        if exported:
            offered = ", ".join(_linked(package, name) for name in exported)
            text += f"\n`{package}` offers {offered}.\n"
    for name in names:
        text += f"\n## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"
    return text


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    if not page.startswith("docs/api/"):
        return
    folder = Path(app.srcdir) / "docs" / "api"
    claimed = frozenset(
        package
        for path in folder.glob("*.md")
        for packages in _DIRECTIVE.findall(path.read_text(encoding="utf-8"))
        for package in packages.split()
        if package != "others"
    )
    source[0] = _DIRECTIVE.sub(lambda found: _sections(found[1].split(), claimed), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
