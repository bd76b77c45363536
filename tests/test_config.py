"""What a configuration may name, and what is said of one that is wrong."""

import pytest
from omegaconf import OmegaConf

from deblur_lab.config import build, faults, plain
from deblur_lab.errors import ConfigurationError


def test_names_outside_the_allowlist_are_refused_before_they_are_imported(tmp_path):
    victim = tmp_path / "precious"
    victim.touch()
    node = {"_target_": "pathlib.Path.unlink", "_args_": [str(victim)]}
    with pytest.raises(ConfigurationError, match=r"pathlib\.Path\.unlink is not among the names"):
        build(node)
    assert victim.exists()


def test_the_allowlist_holds_at_any_depth():
    node = {"net": {"_target_": "deblur_lab.models.NAFNet", "width": {"_target_": "os.getcwd"}}}
    assert any("net.width._target_=os.getcwd" in line for line in faults(node))


def test_a_prefix_is_a_package_not_the_beginning_of_a_word():
    assert faults({"_target_": "deblur_labyrinth.run"})
    assert faults({"_target_": "torch.load", "f": "x"})


def test_trusted_packages_open_ones_own_code(tmp_path, monkeypatch):
    source = "class Net:\n    def __init__(self, width):\n        self.width = width\n"
    (tmp_path / "my_nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "my_nets.Net", "width": 3}
    assert "trusted_packages=[my_nets]" in faults(node)[0]
    assert build(node, ("my_nets",)).width == 3


def test_every_fault_is_told_at_once_with_its_key_and_the_nearest_name():
    node = {
        "model": {
            "net": {"_target_": "deblur_lab.models.NAFNet", "widht": 8},
            "loss": {"_target_": "deblur_lab.losses.NoSuchLoss"},
        }
    }
    told = faults(node)
    assert len(told) == 2
    assert "model.net.widht" in told[0]
    assert "did you mean width?" in told[0]
    assert "model.loss._target_" in told[1]


def test_what_a_constructor_refuses_names_the_key():
    node = {"_target_": "deblur_lab.tasks.warmup_cosine", "optimizer": None, "total_steps": 0}
    with pytest.raises(ConfigurationError, match=r"^model\.scheduler: warmup_steps=0"):
        build(node, key="model.scheduler")


def test_a_missing_value_says_how_to_give_it():
    config = OmegaConf.create({"data": {"root": "???", "sources": [{"root": "${data.root}"}]}})
    with pytest.raises(
        ConfigurationError, match=r"data\.root is not set: give it on the command line, as data\.root="
    ):
        plain(config)
