"""The directive ``{settings} FILE``: every key of a YAML of ``conf``, its default, and what it means.

What a key means is the comment beside it or above it; where there is none, what the class that it is an
argument of says under ``Args:``. Both are read while the site is built, so that the page cannot go stale. A
key that nobody says anything about is a warning, and thus an error.
"""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from deblur_lab.checks import OWN_SETTINGS
from deblur_lab.config import configuration_root
from deblur_lab.kinds import kinds_of, name_of
from deblur_lab.ranges import Range
from deblur_lab.stages import in_its_stage

ROOT = configuration_root()
# What other files of a group are made of: ``conf/_data.yaml``, or a file of the group.
SHARED = ("auto",)
LOG = logging.getLogger(__name__)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_COMMENT = re.compile(r"\s*#\s?(.*)")


@dataclass(frozen=True)
class Setting:
    """A key that can be given on the command line.

    Attributes:
        key: dotted, as it is typed.
        default: as it stands in the YAML; None for ``_target_``'s place, which has none of its own.
        comment: of the YAML, or "".
        target: dotted name of the class whose argument it is, or None.
        listed: whether it stands in the YAML: others are typed with a ``+``.
    """

    key: str
    default: str
    comment: str
    target: str | None
    listed: bool = True

    @property
    def argument(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]


def read(path: Path) -> tuple[str, list[Setting]]:
    """The comment at the top of a YAML of ``conf`` or ``experiments``, and its settings."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    at_top = []
    for line in lines:
        if not line.startswith("#"):
            break
        at_top.append(line.lstrip("# "))
    package = "" if path.parent.name in ("conf", "experiments") else path.parent.name
    if path.stem.startswith("_"):
        package = path.stem.removeprefix("_")
    if at_top and at_top[0].startswith("@package"):
        package = "" if "_global_" in at_top.pop(0) else package
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    settings = [
        setting
        for setting in _settings(node, package, lines, None)
        # What is composed, what is Hydra's own, and what is only handed on.
        if not {"defaults", "hydra", "datamodule"}.intersection(setting.key.split(".")[:2])
    ]
    return " ".join(at_top), settings


def _settings(node: yaml.Node, key: str, lines: list[str], target: str | None) -> Iterator[Setting]:
    """The settings at a node and below it."""
    if isinstance(node, yaml.SequenceNode) and any(isinstance(item, yaml.MappingNode) for item in node.value):
        for number, item in enumerate(node.value):
            yield from _settings(item, f"{key}.{number}", lines, None)
        return
    if not isinstance(node, yaml.MappingNode):
        yield Setting(key, _as_typed(node), _comment(node, lines), target)
        return
    own = next((value.value for name, value in node.value if name.value == "_target_"), None)
    if own is not None:
        beside = _comment(next(value for name, value in node.value if name.value == "_target_"), lines)
        yield Setting(f"{key}._target_", own, beside, None)
    for name, value in node.value:
        if name.value in ("_target_", "_partial_") or _REFERENCE.fullmatch(str(value.value)):
            continue
        yield from _settings(value, f"{key}.{name.value}".lstrip("."), lines, own)
    if own is not None and own.startswith("deblur_lab."):
        given = {name.value for name, _ in node.value}
        for parameter in inspect.signature(_imported(own)).parameters.values():
            if parameter.name not in given and parameter.default is not parameter.empty:
                yield Setting(f"{key}.{parameter.name}", _default_of(parameter), "", own, listed=False)


def _as_typed(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return f"[{','.join(_as_typed(item) for item in node.value)}]"
    return str(node.value) if node.value != "" else '""'


def _default_of(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "built in" if type(value).__module__ != "builtins" else str(value).replace(" ", "")


def _comment(node: yaml.Node, lines: list[str]) -> str:
    """What stands beside a value, or else in lines of their own above it."""
    number, column = node.end_mark.line, node.end_mark.column
    beside = _COMMENT.fullmatch(lines[number][column:]) if number < len(lines) else None
    if beside:
        return beside[1]
    above = []
    for line in reversed(lines[: node.start_mark.line]):
        found = _COMMENT.fullmatch(line)
        if not found or not line.startswith(" "):
            break
        above.insert(0, found[1])
    return " ".join(above)


def _imported(name: str) -> Any:  # noqa: ANN401 - a class or a function
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


@cache
def arguments(name: str) -> Mapping[str, str]:
    """What a class or function says under ``Args:`` or ``Attributes:``, by argument."""
    target = _imported(name)
    found: dict[str, str] = {}
    for documented in (target, getattr(target, "__init__", None)):
        text = inspect.getdoc(documented) or ""
        for block in re.findall(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n|\n)+)", text + "\n", re.MULTILINE):
            told: list[str] = []
            for line in inspect.cleandoc(block).splitlines():
                start = re.match(r"(\w+(?:, \w+)*)(?: \([^)]*\))?: *(.*)", line)
                if start:
                    told = start[1].split(", ")
                    found.update(dict.fromkeys(told, start[2].strip()))
                else:
                    found.update({argument: f"{found[argument]} {line.strip()}".strip() for argument in told})
    return {argument: _looked_up(said, argument, target) for argument, said in found.items()}


def _looked_up(said: str, argument: str, target: Any) -> str:  # noqa: ANN401
    """What is said there, where a class says no more than "as in `Another`"."""
    other = re.match(r"[Aa]s (?:in )?`(\w+)`(?:'s)?", said)
    named = getattr(import_module(target.__module__), other[1], None) if other else None
    if other is None or named is None:
        return said
    there = arguments(f"{named.__module__}.{named.__qualname__}").get(argument, "")
    return f"{there.rstrip('.')}{said[other.end() :]}" if there else said


@cache
def _said_elsewhere() -> Mapping[str, str]:
    """What is said of each key in some file, or of the argument that it is handed to (``${data.seed}``)."""
    found: dict[str, str] = {}

    # Where several say something, what others are made of says it best, and a recipe of one model worst.
    paths = sorted(
        (ROOT / "conf").rglob("*.yaml"),
        key=lambda path: (path.parent.name == "model", path.stem not in SHARED and path.stem[0] != "_", path),
    )
    for path in paths:
        for setting in read(path)[1]:
            if setting.listed and _said_there(setting):
                found.setdefault(setting.key, _said_there(setting))
    for key, (target, argument) in _handed_to().items():
        found.setdefault(key, arguments(target).get(argument, ""))
    return found


def _said_there(setting: Setting) -> str:
    if setting.comment or not setting.target:
        return setting.comment
    said = arguments(setting.target).get(setting.argument, "")
    if setting.target.startswith("deblur_lab."):
        return said
    # Of other projects the first sentence, without roles and without a default that is not ours.
    plain = re.sub(r" ?\(default: [^)]*\)", "", re.sub(r":\w+:`~?([^`]*)`", r"`\1`", said))
    return re.split(r"(?<=\.)\s", plain)[0]


def meaning(setting: Setting) -> str:
    """What is said of a setting, or ""."""
    # What the whole sets, a stage may set for itself.
    elsewhere = _said_elsewhere().get(setting.key) or _said_elsewhere().get(in_its_stage(setting.key), "")
    said = (_said_there(setting) or elsewhere).strip()
    first_word = said.split(" ")[0]
    if re.fullmatch(r"[A-Z][a-z]*", first_word):
        said = said[0].lower() + said[1:]
    return said if re.search(r"\.\s", said) else said.removesuffix(".")


@cache
def _handed_to() -> Mapping[str, tuple[str, str]]:
    """The class and the argument that a setting is handed to, by its key."""
    found: dict[str, tuple[str, str]] = {}

    def look(node: Any) -> None:  # noqa: ANN401 - any node
        if isinstance(node, dict):
            for name, value in node.items():
                reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
                if reference and str(node.get("_target_", "")).startswith("deblur_lab."):
                    found.setdefault(reference[1], (node["_target_"], name))
                look(value)
        elif isinstance(node, list):
            for item in node:
                look(item)

    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        look(yaml.safe_load(path.read_text(encoding="utf-8")))
    return found


def expected(setting: Setting, file: str) -> str:
    """What a value must be, in words, as far as the command or the class that takes it says so."""
    own = OWN_SETTINGS.get(Path(file).stem, {}) if file.endswith(".yaml") else {}
    if setting.key in own:
        return _in_words(own[setting.key])
    place = (setting.target, setting.argument) if setting.target else _handed_to().get(setting.key)
    if place is None or not place[0].startswith("deblur_lab."):
        return ""
    return _in_words(kinds_of(_imported(place[0])).get(place[1]))


def _in_words(kind: Any) -> str:  # noqa: ANN401 - an annotation
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = " and ".join(str(part) for part in parts[1:] if isinstance(part, Range))
        return bounds if bounds.startswith("a number") else f"{name_of(parts[0])}, {bounds}"
    if origin in (Union, UnionType):
        return " or ".join(filter(None, map(_in_words, parts)))
    if origin is Literal:
        # YAML takes on and off for true and false, which is why these are among what is taken.
        words = [part for part in parts if not isinstance(part, bool)] or parts
        return f"one of {', '.join(map(str, words))}"
    if kind in (bool, int, float, str, Path, NoneType):
        return name_of(kind)
    if origin is not None and len(parts) > 0 and _in_words(parts[0]):
        return f"a list, each {_in_words(parts[0])}"
    return ""


@cache
def _defaults(command: str) -> Mapping[str, str]:
    """What a command takes of each group if nothing is typed."""
    listed = yaml.safe_load((ROOT / "conf" / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: choice for entry in listed if isinstance(entry, dict) for group, choice in entry.items()}


def _inline(text: str) -> list[nodes.Node]:
    """Text as it stands, but for what is quoted as code."""
    parts = re.split(r"`{1,2}([^`]+)`{1,2}", text)
    return [nodes.literal("", part) if number % 2 else nodes.Text(part) for number, part in enumerate(parts)]


class Settings(SphinxDirective):
    """Settings of a YAML, or of all in a folder: ``conf/train.yaml``, ``conf/data``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        place = ROOT / self.arguments[0]
        if place.is_dir():
            # What the others are made of comes first.
            shared = place.with_name(f"_{place.name}.yaml")
            paths = sorted(place.rglob("*.yaml"), key=lambda path: (path.stem not in SHARED, path))
            return [self._section(path) for path in ([shared, *paths] if shared.exists() else paths)]
        return self._body(place)

    def _section(self, path: Path) -> nodes.section:
        group = self.arguments[0].rpartition("/")[2].removesuffix("s")
        name = path.stem if path.stem.startswith("_") else str(path.relative_to(ROOT / self.arguments[0]))
        choice = f"{group}={name.removesuffix('.yaml')}"
        title = nodes.title("", "", nodes.literal("", choice))
        if path.stem.startswith("_"):
            title = nodes.title("", "What all have")
        elif _defaults("train").get(group) == path.stem:
            title += nodes.Text(", the default")
        section = nodes.section("", title, names=[choice])
        section["ids"] = [nodes.make_id(choice)]
        section += self._body(path)
        return section

    def _body(self, path: Path) -> list[nodes.Node]:
        self.env.note_dependency(str(path))
        introduction, settings = read(path)
        listed = [setting for setting in settings if setting.listed]
        more = [setting for setting in settings if not setting.listed]
        body: list[nodes.Node] = []
        if introduction and (path.parent.name != "conf" or path.stem.startswith("_")):
            body.append(nodes.paragraph("", "", *_inline(introduction)))
        if listed:
            body.append(self._list(listed))
        if more:
            note = "These stand in no file, and are added with a plus:"
            body += [nodes.paragraph("", note), self._list(more)]
        return body

    def _list(self, settings: list[Setting]) -> nodes.definition_list:
        items = nodes.definition_list(classes=["settings"])
        for setting in settings:
            key = setting.key if setting.listed else f"+{setting.key}"
            if setting.default == "???":
                default: nodes.Node = nodes.emphasis("", "to be given")
            elif setting.default == "built in":
                default = nodes.emphasis("", "an object")
            elif setting.argument == "_target_" and setting.default.startswith("deblur_lab."):
                default = self._link(setting.default)
            else:
                default = nodes.literal("", setting.default, classes=["default"])
            said = meaning(setting)
            if not said and setting.argument != "_target_":
                LOG.warning(
                    "%s: nothing is said of %s",
                    self.arguments[0],
                    key,
                    type="settings",
                    location=self.get_location(),
                )
            term = nodes.term("", "", nodes.literal("", f"{key}=", classes=["key"]), default)
            asked_for = expected(setting, self.arguments[0])
            explained = nodes.paragraph("", "", *_inline(said))
            if asked_for:
                explained += nodes.inline("", f" ({asked_for})" if said else asked_for, classes=["expected"])
            shown = [explained] if said or asked_for else []
            items += nodes.definition_list_item("", term, nodes.definition("", *shown))
        return items

    def _link(self, name: str) -> nodes.Node:
        target = _imported(name)
        place = f"{target.__module__}.{target.__qualname__}"
        return pending_xref(
            "",
            nodes.literal("", name, classes=["default"]),
            refdomain="py",
            reftype="obj",
            reftarget=place,
            refdoc=self.env.docname,
        )


class Printed(SphinxDirective):
    """The directive ``{printed} MODULE``: what ``python -m MODULE --help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the nodes."""
        command = [sys.executable, "-m", self.arguments[0], "--help"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip()
        block = nodes.literal_block(told, told)
        block["language"] = "text"
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_directive("settings", Settings)
    app.add_directive("printed", Printed)
    return {"parallel_read_safe": True}
