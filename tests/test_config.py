"""What a configuration may name, and what is said of one that is wrong."""

import pytest
import torch
from omegaconf import OmegaConf

from deblur_lab.config import build, faults, plain, range_faults
from deblur_lab.errors import ConfigurationError


def test_names_outside_the_allowlist_are_refused_before_they_are_imported(tmp_path):
    victim = tmp_path / "precious"
    victim.touch()
    node = {"_target_": "pathlib.Path.unlink", "_args_": [str(victim)]}
    with pytest.raises(ConfigurationError, match=r"pathlib\.Path\.unlink is not among the names"):
        build(node)
    assert victim.exists()


@pytest.mark.parametrize(
    "name",
    [
        "deblur_lab.config.build",  # would build again, with packages of its own choice trusted
        "deblur_lab.config.Path",
        "deblur_lab.checkpoints.read_checkpoint",
        "deblur_lab.callbacks.write_json",
        "deblur_lab.data.sources.Path",  # a module holds what it imports
        "deblur_lab.images.write_png",
        "deblur_lab.data.datamodule.signal.signal",
        "deblur_lab.models.nafnet.torch.load",
        "deblur_lab.tasks.base.torch",
    ],
)
def test_of_ours_only_classes_of_the_public_packages_are_built(name):
    with pytest.raises(ConfigurationError, match=r"not among the names|cannot be imported"):
        build({"_target_": name})


def test_positional_arguments_are_no_way_around_the_signature():
    assert any("_args_" in line for line in faults({"_target_": "deblur_lab.models.NAFNet", "_args_": [8]}))


def test_what_may_be_anything_is_taken():
    told = faults({"_target_": "deblur_lab.data.SyntheticSource", "kind": None, "protocol": 1})
    assert [line.partition("=")[0] for line in told] == ["kind"]


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
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    node = {"_target_": "deblur_lab.tasks.warmup_cosine", "optimizer": optimizer, "total_steps": 0}
    with pytest.raises(ConfigurationError, match=r"^model\.scheduler: warmup_steps=0"):
        build(node, key="model.scheduler")


def test_a_missing_value_says_how_to_give_it():
    config = OmegaConf.create({"data": {"root": "???", "sources": [{"root": "${data.root}"}]}})
    with pytest.raises(
        ConfigurationError, match=r"data\.root is not set: give it on the command line, as data\.root="
    ):
        plain(config)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"width": "x"}, "net.width=x: a whole number is expected"),
        ({"width": 2.5}, "net.width=2.5: a whole number is expected"),
        ({"width": True}, "net.width=true: a whole number is expected"),
        ({"width": None}, "net.width=null: a whole number is expected"),
        ({"width": {"a": 1}}, "net.width={'a': 1}: a whole number is expected"),
        ({"encoder_blocks": 4}, "net.encoder_blocks=4: [a whole number, ...] is expected"),
        ({"encoder_blocks": [1, "x"]}, "net.encoder_blocks=[1, 'x']: [a whole number, ...] is expected"),
    ],
)
def test_a_value_of_another_type_is_told_with_what_is_expected(given, told):
    assert faults({"net": {"_target_": "deblur_lab.models.NAFNet", **given}}) == [told]


def test_types_are_taken_as_constructors_take_them():
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1, "betas": [0.9, 0.9]}
    assert faults({"optimizer": optimizer}) == []
    trainer = {"_target_": "lightning.Trainer", "devices": [0, 1], "precision": 32, "max_time": None}
    assert faults({"trainer": trainer}) == []
    source = {"_target_": "deblur_lab.data.GoPro", "root": "a", "protocol": object(), "blur": "blurr"}
    assert faults({"source": source}) == ["source.blur=blurr: one of blur, blur_gamma is expected"]


def test_a_fault_is_told_once_under_the_key_that_was_typed():
    config = OmegaConf.create(
        {
            "size": "x",
            "data": {"nets": [{"_target_": "deblur_lab.models.NAFNet", "width": "${size}", "widht": 3}]},
            "module": {"nets": "${data.nets}", "again": "${module.nets}"},
        }
    )
    assert [line.split(":")[0] for line in faults(config)] == [
        "size=x",
        "data.nets[0].widht is not a setting of deblur_lab.models.NAFNet",
    ]


def test_what_was_missing_and_not_needed_need_not_be_set():
    config = OmegaConf.create({"data": {"root": "???", "own": "${data.root}/own"}, "used": "${data.own}"})
    with pytest.raises(ConfigurationError, match=r"^data\.root is not set"):
        plain(config)
    config.data.own = "elsewhere"
    assert plain(config)["used"] == "elsewhere"
    with pytest.raises(ConfigurationError, match=r"^checkpoint is not set"):
        plain(OmegaConf.create({"checkpoint": "???"}))


def test_a_commands_own_settings_have_types_and_ranges():
    settings = {"pictures": -1, "seed": "x", "trainer": {"max_steps": 0}, "evaluate": "yes", "fine": 0}
    smallest = {"pictures": 0, "seed": 0, "trainer.max_steps": 1, "fine": 0}
    assert range_faults(settings, smallest, ["evaluate"]) == [
        "pictures=-1: 0 or more is expected",
        "seed=x: a whole number is expected",
        "trainer.max_steps=0: 1 or more is expected",
        "evaluate=yes: true or false is expected",
    ]
