"""``python -m deblur_lab`` says which commands there are."""

import subprocess
import sys
from importlib import import_module

import pytest

from deblur_lab import __version__
from deblur_lab.__main__ import COMMANDS, main
from deblur_lab.config import configuration_root


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*typed):
        monkeypatch.setattr(sys, "argv", ["deblur_lab", *typed])
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_every_command_is_listed(call):
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert call() == (2, "", out)
    assert all(f"  python -m deblur_lab.{name} " in out for name in COMMANDS)
    composed = {path.stem for path in (configuration_root() / "conf").glob("[!_]*.yaml")}
    assert set(COMMANDS) == composed | {"data.synthesize"}
    assert all(callable(import_module(f"deblur_lab.{name}").main) for name in COMMANDS)


def test_commands_that_train_nothing_do_not_wait_for_lightning():
    """Importing it takes longer than everything else that they load."""
    modules = ("prediction", "reporting", "exporting", "profiling", "demonstration", "deblurring")
    code = "".join(f"import deblur_lab.{name}\n" for name in modules)
    code += "import sys\nprint('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_report_does_not_wait_for_pytorch():
    """Nor does what sweeps are planned by: their jobs load it."""
    code = "import sys, deblur_lab.reporting, deblur_lab.sweeps\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_version(call):
    assert call("--version") == (0, f"deblur_lab {__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("train", "call python -m deblur_lab.train"),
        ("evalute", "did you mean evaluate?"),
        ("synthesize", "call python -m deblur_lab.data.synthesize"),
        ("model=x", f"there are {', '.join(COMMANDS)}"),
    ],
)
def test_what_does_not_follow(call, typed, hint):
    code, out, err = call(typed, "seed=3")
    assert (code, out) == (2, "")
    assert err == f"error: {typed!r} does not follow python -m deblur_lab: {hint}\n"
