"""Help comes at once: it waits for no PyTorch."""

import re
import resource
from typing import get_args

import pytest

from deblur_lab.checks import OWN_SETTINGS
from deblur_lab.config import configuration_root
from tests.commands.processes import Running, python_m

COMMANDS = sorted(path.stem for path in (configuration_root() / "conf").glob("[!_]*.yaml"))


def seconds_of_children() -> float:
    """What processes that have ended have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", [*COMMANDS, "data.synthesize"])
def test_help_is_quick_and_tells_all_settings(tmp_path, command):
    before = seconds_of_children()
    tells_imports = {"PYTHONPROFILEIMPORTTIME": "1"}
    ended = Running(f"deblur_lab.{command}", "--help", cwd=tmp_path, env=tells_imports).ended().succeeded()
    # Seconds of a processor: others may be at work here.
    assert seconds_of_children() - before < 3
    assert re.search(r"\| +deblur_lab\n", ended.stderr)
    assert not re.search(r"\| +(torch|lightning)\n", ended.stderr)
    said = ended.stdout
    assert f"python -m deblur_lab.{command}" in said
    if command in COMMANDS:
        text = (configuration_root() / "conf" / f"{command}.yaml").read_text(encoding="utf-8")
        own = re.findall(r"^(\w+):", text.partition("\nhydra:")[0], flags=re.MULTILINE)
        assert [key for key in own if key != "defaults" and f"\n{key}:" not in said] == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["data.verify", "data.prepare"])
def test_help_of_what_reads_datasets_names_those_that_there_are(tmp_path, command):
    said = python_m(f"deblur_lab.{command}", "--help", cwd=tmp_path).succeeded().stdout
    (line,) = [line for line in said.splitlines() if line.startswith("data= ")]
    there = {path.stem for path in (configuration_root() / "conf" / "data").glob("*.yaml")} - {"synthetic"}
    assert set(re.findall(r"\w+", line)) >= there
    if command == "data.verify":
        for value in get_args(OWN_SETTINGS[command]["expected"]):
            assert re.search(rf"\b{value} \(", said)
