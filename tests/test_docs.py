"""What the documentation says is so: links lead somewhere, commands are understood, names exist."""

import ast
import contextlib
import copy
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deblur_lab import checks, experiments
from deblur_lab.checks import OWN_SETTINGS, command_faults
from deblur_lab.command_line import as_typed
from deblur_lab.config import configuration_root, faults, own_faults, plain
from deblur_lab.data import synthesize
from deblur_lab.errors import ConfigurationError
from deblur_lab.stages import stages_of

ROOT = configuration_root()
SOURCES = ROOT / "src" / "deblur_lab"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "experiments" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMANDS = sorted(path.stem for path in (ROOT / "conf").glob("[!_]*.yaml"))
GROUPS = ("model", "data", "trainer", "logger", "protocol")


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page: its language (or directive) and its lines."""

    page: Path
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command that a page shows, as `python -m deblur_lab.MODULE ARGUMENT ...`."""

    page: Path
    module: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}: {self.module} {shlex.join(self.arguments)}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def parts(page: Path) -> tuple[str, tuple[Fence, ...]]:
    """A page without its fenced blocks, and these."""
    prose, fences, block, fence = [], [], [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        mark = re.match(r"\s*(```+)(.*)", line)
        if fence is None and mark:
            fence = mark
        elif mark and fence is not None and mark[1] == fence[1] and not mark[2].strip():
            fences.append(Fence(page, fence[2].strip(), tuple(block)))
            fence, block = None, []
        elif fence is not None:
            block.append(line)
        else:
            prose.append(line)
    assert fence is None, f"{page}: a block has no end"
    return "\n".join(prose), tuple(fences)


def spans(text: str) -> list[str]:
    """What is quoted as code within sentences."""
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", text)]


def tables(text: str) -> Iterator[list[dict[str, str]]]:
    """The rows of each table, by the names of its columns."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()
        ]
        yield [dict(zip(head, row, strict=True)) for row in rows]


# Links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+)$", parts(page)[0], re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    prose = re.sub(r"`[^`]*`", "", parts(page)[0])
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} does not exist"
        assert there.is_relative_to(ROOT), f"{target} is outside the project"
        if anchor:
            assert anchor in anchors(there), f"{target}: {sorted(anchors(there))}"


def test_every_page_can_be_reached_from_the_readme():
    seen, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", parts(page)[0])
        left += [(page.parent / link).resolve() for link in links if not link.startswith("http")]
    assert {name_of(page) for page in PAGES} - {name_of(page) for page in seen} == set()


# Commands and settings


@pytest.fixture(scope="module", autouse=True)
def _experiments_are_found() -> None:
    experiments.register()


@pytest.fixture(scope="module", autouse=True)
def _each_network_is_made_once() -> Iterator[None]:
    """Most pages show the same few; making a large one, even without memory, takes a second."""
    refused, known = checks._refused_by_constructors, {}

    def once(settings: dict[str, Any]) -> list[str]:
        data = settings["data"]["patch_size"], settings["datamodule"]
        key = repr((settings["model"], data, settings["init_from"], settings["trusted_packages"]))
        if key not in known:
            known[key] = refused(settings)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_refused_by_constructors", once)
        yield


@cache
def shown() -> list[Command]:
    """Every command in a fenced block or in a sentence."""
    found = {}
    for page in PAGES:
        prose, fences = parts(page)
        blocks = "\n".join(expanded("\n".join(fence.lines)) for fence in fences).replace("\\\n", " ")
        for line in [*blocks.splitlines(), *spans(prose)]:
            match = re.search(r"\bpython -m (deblur_lab\.[\w.]+)(.*)", line)
            # A command's name alone, within a sentence, is no example.
            if match and match[2].strip() and "..." not in match[2]:
                arguments = tuple(shlex.split(match[2], comments=True))
                found.setdefault((match[1], arguments), Command(page, match[1], arguments))
    return list(found.values())


def expanded(script: str) -> str:
    """A block with its shell variables filled in."""
    for name, value in re.findall(r"^(\w+)=(\S+)$", script, re.MULTILINE):
        script = script.replace(f'"${name}"', value)
    for name, value in re.findall(r"^(\w+)=\((.*?)\)$", script, re.MULTILINE | re.DOTALL):
        script = script.replace(f'"${{{name}[@]}}"', " ".join(value.split()))
    return script


def test_commands_and_messages_are_found():
    assert {command.module for command in shown()} >= {f"deblur_lab.{name}" for name in COMMANDS}
    assert len(messages()) > 20


@pytest.mark.parametrize("command", shown(), ids=str)
def test_every_command_is_understood(command, tmp_path):
    import_module(command.module)
    arguments = list(command.arguments)
    if "--help" in arguments:
        return
    if command.module == "deblur_lab.data.synthesize":
        synthesize.parse(arguments)
        return
    folder = None
    if "--config-dir" in arguments:
        at = arguments.index("--config-dir")
        folder = own_yamls(command.page, arguments[at + 1], tmp_path)
        del arguments[at : at + 2]
    for typed in jobs(arguments):
        name = command.module.removeprefix("deblur_lab.")
        # A resumed run has the configuration of the old one.
        if not any(argument.startswith("resume=") for argument in typed):
            assert problems(name, composed(name, typed, folder)) == []


def jobs(arguments: list[str]) -> list[list[str]]:
    """What the first and the last job of a sweep are given; of what is no sweep the one."""
    if "-m" not in arguments:
        return [arguments]
    return [[one_of(argument, number) for argument in arguments if argument != "-m"] for number in (0, -1)]


def one_of(argument: str, number: int) -> str:
    """What a setting of a sweep is in one of its jobs."""
    key, _, value = argument.partition("=")
    within = re.search(r"\b(?:interval|range)\(([^()]+)\)", value)  # of a search
    if within:
        return f"{key}={within[1].split(',')[0]}"
    return argument if "[" in value else f"{key}={value.split(',')[number]}"


def own_yamls(page: Path, folder: str, place: Path) -> Path:
    """The YAMLs that a page tells to write, with the place in the first line, or below Hydra's, written."""
    for fence in parts(page)[1]:
        first = [line for line in fence.lines[:2] if line != "# @package _global_"]
        named = re.fullmatch(rf"# {folder}/([\w/]+\.yaml)", first[0]) if first else None
        if fence.language == "yaml" and named:
            path = place / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(fence.lines), encoding="utf-8")
    assert list(place.rglob("*.yaml")), f"{page} shows no file of {folder}"
    return place


def composed(command: str, typed: list[str], folder: Path | None = None) -> DictConfig:
    search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(command, [*search, *(as_typed(argument) for argument in typed)])


def problems(command: str, config: DictConfig) -> list[str]:
    """The faults in a configuration, as if all paths that it needs had been given."""
    return command_faults(command, with_paths(config))


def with_paths(config: DictConfig) -> DictConfig:
    for node in (config, config.get("data", {})):
        for key in [key for key in node if OmegaConf.is_missing(node, key) and key != "sources"]:
            node[key] = "somewhere"
    return config


@cache
def with_choice(command: str, choice: str | None) -> DictConfig:
    """What a command has with a choice of a group; not to be changed."""
    return composed(command, [choice] if choice else [])


@cache
def keys_by_choice() -> dict[tuple[str, str | None], frozenset[str]]:
    """Every key of each command, and of one that has it with each choice of a group; the default first."""
    chosen: list[tuple[str, str | None]] = [("train", None), *((command, None) for command in COMMANDS)]
    for path in sorted(path for group in GROUPS for path in (ROOT / "conf" / group).glob("*.yaml")):
        command = "evaluate" if path.parent.name == "protocol" else "train"
        chosen.append((command, f"{path.parent.name}={path.stem}"))
    return {
        (command, choice): frozenset(keys_in(with_choice(command, choice), "")) for command, choice in chosen
    }


def keys_in(node: object, place: str) -> Iterator[str]:
    """Every dotted key below a place."""
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for name, value in items:
        key = f"{place}.{name}".lstrip(".")
        yield key
        yield from keys_in(value, key)


@cache
def known_keys() -> frozenset[str]:
    """Every key of every command, and the groups' own names."""
    others = re.findall(r"^  (\w+)=", synthesize.help_text(), re.MULTILINE)
    return frozenset({*GROUPS, "experiment", *others, *keys_of_hydra()}.union(*keys_by_choice().values()))


def keys_of_hydra() -> Iterator[str]:
    """What sets how a sweep is searched, or run by a cluster."""
    for choice, package in {"sweeper=optuna": "optuna", "launcher=submitit_slurm": "submitit"}.items():
        if find_spec(package):
            with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                own = compose("train", [f"hydra/{choice}"], return_hydra_config=True).hydra
            kind = choice.partition("=")[0]
            yield from (f"hydra.{kind}.{key}" for key in keys_in(own[kind], ""))


@cache
def settings_named() -> list[tuple[str, str]]:
    """Every `key=value` and every dotted key that a page quotes, with the page."""
    found = {}
    for page in PAGES:
        for code in spans(parts(page)[0]):
            with contextlib.suppress(ValueError):
                for word in shlex.split(code):
                    key = re.match(r"(\+?[a-z]\w*(?:\.\w+)*)(=|$)", word)
                    dotted = key and key[1].lstrip("+").split(".")[0] in GROUPS and "." in key[1]
                    if key and (dotted or (key[2] and not code.startswith(("make ", "pip ")))):
                        found.setdefault(word.rstrip(":,"), name_of(page))
    return sorted(found.items())


def test_every_setting_that_is_named_exists():
    assert len(settings_named()) > 80
    unknown = []
    for word, page in settings_named():
        key = word.partition("=")[0]
        if key in known_keys() or word == "key=value" or _is_module(key):
            continue
        if key.startswith("hydra.launcher.") and not find_spec("submitit"):
            continue
        beside = [other for other, there in settings_named() if there == page]
        if not (key.startswith("+") and taken(word, beside)):
            unknown.append(f"{page}: {word}")
    assert unknown == []


def test_every_value_that_is_named_is_one_that_the_setting_takes():
    together: dict[tuple[tuple[str, str | None], int], dict[str, str]] = {}
    for word, _ in settings_named():
        key, _, value = word.partition("=")
        if key in GROUPS and value and not value.startswith("your"):
            for choice in re.split(r"[,|]", value):
                assert (ROOT / "conf" / key / f"{choice}.yaml").exists(), word
        # DIR, N and dots stand for values.
        if not value or re.fullmatch(r"[A-Z]+|.*\.\.\..*", value):
            continue
        home = next((choice for choice, keys in keys_by_choice().items() if key in keys), None)
        if home is not None and key not in GROUPS:
            # Many at once, as composing takes long; each key once.
            number = next(n for n in range(99) if key not in together.setdefault((home, n), {}))
            together[home, number][key] = value
    assert sum(map(len, together.values())) > 60
    for ((command, choice), _), typed in together.items():
        words = [one_of(f"{key}={value}", 0) for key, value in typed.items()]
        for fault in faults_of_kind(command, [*([choice] if choice else []), *words]):
            # A setting may be of one kind with one choice and of another with another, as `data.layout` is,
            # or with one command, as `format` is.
            key = fault.partition("=")[0]
            assert key in typed, fault
            word = one_of(f"{key}={typed[key]}", 0)
            others = [home for home, keys in keys_by_choice().items() if key in keys]
            assert any(
                faults_of_kind(of, [*([other] if other else []), word]) == [] for of, other in others
            ), fault


def faults_of_kind(command: str, typed: list[str]) -> list[str]:
    """The values that are of the wrong kind or out of range; they need not fit each other."""
    return kinds_of_faults(command, with_paths(composed(command, typed)))


def kinds_of_faults(command: str, config: DictConfig) -> list[str]:
    parts = (
        [stage.config for stage in stages_of(config)] if command == "train" and config.stages else [config]
    )
    return [
        fault for part in parts for fault in (*faults(part), *own_faults(plain(part), OWN_SETTINGS[command]))
    ]


def _is_module(name: str) -> bool:
    with contextlib.suppress(ImportError):
        return import_module(f"deblur_lab.{name}") is not None
    return False


def taken(setting: str, beside: list[str]) -> bool:
    """Whether some choice of model or data takes a setting that no YAML lists, as a page names it.

    Args:
        setting: with its plus; N stands for a number.
        beside: settings that the page names as well: one may choose the class that takes it.
    """
    key, _, value = setting.partition("=")
    typed = f"{key}={'9' if value in ('', 'N') else value}"
    classes = [other for other in beside if "_target_=" in other]
    parent = key.lstrip("+").rpartition(".")[0]
    choices = [choice for (_, choice), keys in keys_by_choice().items() if choice and parent in keys]
    # Composing takes long: a setting that most choices refuse is put into what they are already.
    return any(
        is_taken(choice, [*more, typed])
        for more in [[], *([other] for other in classes)]
        for choice in choices
    )


def is_taken(choice: str, typed: list[str]) -> bool:
    """Whether a choice, as `composed`, has no fault of kind with these settings."""
    config = copy.deepcopy(with_choice("train", choice))
    try:
        for setting in typed:
            parsed = OverridesParser.create().parse_override(as_typed(setting))
            OmegaConf.update(config, parsed.key_or_group, parsed.value(), force_add=parsed.is_add())
        return kinds_of_faults("train", with_paths(config)) == []
    except (OmegaConfBaseException, ConfigurationError):
        return False


# Names in the code


@cache
def paths_in_the_project() -> frozenset[str]:
    """Every file and folder that a page may name: from the root, from the package, or by its own name."""
    below = [
        path
        for folder in ("src", "conf", "docs", "experiments", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if "__pycache__" not in path.parts
    ]
    names = {str(path.relative_to(ROOT)) for path in [*below, *ROOT.glob("*")]} | {
        path.name for path in below
    }
    return frozenset(
        names | {str(path.relative_to(SOURCES)) for path in below if path.is_relative_to(SOURCES)}
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_source_file_that_is_named_exists(page):
    ends = (".py", ".yaml")
    for code in spans(parts(page)[0]):
        if re.fullmatch(r"[\w/.-]+", code) and (code.endswith(ends) or code.startswith(("conf/", "src/"))):
            if code in ("config.yaml", "multirun.yaml", "folder/name.yaml"):
                continue  # what a run, or a sweep, writes; any
            there = code.rstrip("/") in paths_in_the_project() or (page.parent / code).exists()
            assert there or page_shows(page, code), code


def page_shows(page: Path, path: str) -> bool:
    """Whether a page tells the reader to write a file."""
    return any(fence.lines and fence.lines[0].endswith(path) for fence in parts(page)[1])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_dotted_name_can_be_imported(page):
    prose, fences = parts(page)
    python = "\n".join("\n".join(fence.lines) for fence in fences if fence.language == "python")
    for name in set(re.findall(r"\bdeblur_lab(?:\.[A-Za-z_]\w*)+", "\n".join([*spans(prose), python]))):
        imported(name)


def imported(name: str) -> object:
    """A module, or what is in it."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(imported(module), attribute)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_example_can_be_read(page):
    for fence in parts(page)[1]:
        if fence.language == "python":
            ast.parse("\n".join(fence.lines))


def test_the_map_of_the_papers_names_what_there_is():
    named = 0
    for table in tables(parts(ROOT / "docs" / "papers.md")[0]):
        for row in table:
            files = [code for code in spans(row.get("file", "")) if code.endswith(".py")]
            for code in spans(row.get("class or function", "")):
                homes = [f"deblur_lab.{file.removesuffix('.py').replace('/', '.')}" for file in files]
                homes = homes or ["deblur_lab.tasks"]
                assert any(_has(home, code) for home in homes), f"{code} is in none of {homes}"
                named += 1
            # `models/layers.py`, `NAFBlock`
            for file, names in re.findall(r"`([\w/]+\.py)`,((?: `\w+`,?)+)", row.get("here", "")):
                for code in spans(names):
                    assert _has(f"deblur_lab.{file.removesuffix('.py').replace('/', '.')}", code), code
                    named += 1
            # `NAFBlock` of `models/layers.py`
            for names, file in re.findall(r"((?:`\w+`,? )+)of `([\w/]+\.py)`", row.get("here", "")):
                for code in spans(names):
                    assert _has(f"deblur_lab.{file.removesuffix('.py').replace('/', '.')}", code), code
                    named += 1
    assert named > 40


def _has(module: str, dotted: str) -> bool:
    there: object = import_module(module)
    for name in dotted.split("."):
        if not hasattr(there, name):
            return False
        there = getattr(there, name)
    return True


@pytest.mark.parametrize(
    ("heading", "equations", "listed"),
    [("M2AENet: equations", 12, range(1, 7)), ("AIBNet", 8, range(1, 11))],
)
def test_the_map_of_the_papers_has_every_equation_and_table(heading, equations, listed):
    text = parts(ROOT / "docs" / "papers.md")[0]
    rest = text.split(f"## {heading}\n")[1]
    numbered = next(tables(rest))
    assert [int(row["eq."]) for row in numbered if row["eq."].isdigit()] == list(range(1, equations + 1))
    where = " ".join(row["where"] for row in [*tables(rest)][1])
    assert {int(number) for number in re.findall(r"\btable (\d+)", where)} == set(listed)


# Messages


@cache
def said_in_the_code() -> str:
    """All text that the code is made of, the places of values left open."""
    texts = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def messages() -> list[tuple[str, str]]:
    """The messages that a page lists with what to do about them."""
    return [
        (name_of(page), code)
        for page in PAGES
        for table in tables(parts(page)[0])
        for row in table
        for code in spans(row.get("message", ""))
    ]


@pytest.mark.parametrize(("page", "message"), messages())
def test_every_message_that_is_listed_is_one_that_the_code_has(page, message):
    # Capital letters and numbers stand for values, as do dots.
    pieces = [piece.strip(" ();:,") for piece in re.split(r"\.\.\.|\b[A-Z]\b|\b\d+\b|=\S+", message)]
    pieces = [piece for piece in pieces if len(piece) > 3]
    assert pieces, f"{message} says nothing that could be found"
    for piece in pieces:
        # A word may be a value's, but not all may be.
        words = piece.split()
        pattern = r"\s+".join(rf"(?:{re.escape(word)}|\0[(),:;]?)" for word in words)
        found = [match[0] for match in re.finditer(pattern, said_in_the_code())]
        most = max((len(text.replace("\0", " ").split()) for text in found), default=0)
        assert 2 * most > len(words), f"{page}: nothing says {piece!r}"
