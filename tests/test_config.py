"""What a configuration may name, and what is said of one that is wrong."""

import pytest
import torch
from omegaconf import OmegaConf

from deblur_lab.config import build, did_you_mean, faults, own_faults, plain, resolved
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.ranges import Count, Natural


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
    node = {"_target_": "deblur_lab.tasks.warmup_cosine", "optimizer": optimizer}
    node |= {"total_steps": 5, "warmup_steps": 5}
    with pytest.raises(ConfigurationError, match=r"^model\.scheduler: warmup_steps=5"):
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
        ({"width": 0}, "net.width=0: 1 or more is expected"),
        ({"encoder_blocks": [1, -1]}, "net.encoder_blocks[1]=-1: 0 or more is expected"),
        ({"threshold": 1.5}, "net.threshold=1.5: a number from 0 to 1 is expected"),
        ({"threshold": float("nan")}, "net.threshold=nan: a number from 0 to 1 is expected"),
        ({"trajectory": 3}, "net.trajectory=3: Trajectory by _target_ or null is expected"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_told_with_what_is_expected(given, told):
    assert faults({"net": {"_target_": "deblur_lab.models.M2AENet", **given}}) == [told]


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("torch.optim.AdamW", {"lr": 0}, "node.lr=0: more than 0 is expected"),
        ("torch.optim.AdamW", {"lr": float("inf")}, "node.lr=inf: more than 0 is expected"),
        ("torch.optim.AdamW", {"betas": [0.9]}, "node.betas=[0.9]: [a number, a number] is expected"),
        (
            "torch.optim.AdamW",
            {"betas": [0.9, 1]},
            "node.betas[1]=1: a number from 0 to below 1 is expected",
        ),
        (
            "lightning.Trainer",
            {"precision": "bf16-true"},
            "node.precision=bf16-true: one of 32-true, bf16-mixed, 16-mixed is expected",
        ),
        ("lightning.Trainer", {"devices": 0}, "node.devices=0: 1 or more is expected"),
        (
            "deblur_lab.tasks.RestorationTask",
            {"ema_decay": 1.0},
            "node.ema_decay=1.0: a number between 0 and 1 is expected",
        ),
    ],
)
def test_ranges_of_what_others_wrote_and_of_what_may_be_null(name, given, told):
    assert faults({"node": {"_target_": name, "_partial_": True, **given}}) == [told]


def test_types_are_taken_as_constructors_take_them():
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1, "betas": [0.9, 0.9]}
    assert faults({"optimizer": optimizer}) == []
    trainer = {"_target_": "lightning.Trainer", "devices": [0, 1], "precision": "32-true", "max_time": None}
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
    assert plain(config) == {"data": {"root": "???", "own": "elsewhere"}, "used": "elsewhere"}
    with pytest.raises(ConfigurationError, match=r"^checkpoint is not set"):
        plain(OmegaConf.create({"checkpoint": "???"}))


def test_a_commands_own_settings_have_types_and_ranges():
    settings = {"pictures": -1, "seed": "x", "evaluate": "yes", "fine": 0, "packages": "mine"}
    kinds = {"pictures": Natural, "seed": Natural, "evaluate": bool, "fine": Natural, "packages": list[str]}
    assert own_faults(settings, {**kinds, "absent": Count}) == [
        "pictures=-1: 0 or more is expected",
        "seed=x: a whole number is expected",
        "evaluate=yes: true or false is expected",
        "packages=mine: [text, ...] is expected",
    ]


def test_all_that_leads_nowhere_is_told_once_where_it_stands():
    config = OmegaConf.create(
        {
            "data": {"batch_size": 1, "sources": [{"seed": "${sed}", "size": "${data.batch}"}]},
            "seed": 0,
            "again": "${data.sources}",
            "depends": "${data.sources[0].seed}",
            "own": "${oc.env:NO_SUCH_VARIABLE}",
            "same": "${own}",
            "round": "${round}",
        }
    )
    settings, told = resolved(config)
    assert told == [
        "data.sources[0].seed refers to ${sed}, which does not exist: did you mean seed?",
        "data.sources[0].size refers to ${data.batch}, which does not exist: did you mean data.batch_size?",
        "own: Environment variable 'NO_SUCH_VARIABLE' not found",
        "round: Recursive interpolation detected",
    ]
    assert settings["data"]["batch_size"] == 1


def test_what_does_not_resolve_hides_no_other_fault():
    net = {"_target_": "deblur_lab.models.NAFNet", "width": "${nowhere}", "middle_blocks": -1}
    told = faults(OmegaConf.create({"net": net}))
    assert [line.partition(":")[0] for line in told] == [
        "net.width refers to ${nowhere}, which does not exist",
        "net.middle_blocks=-1",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("model.net.widht", "did you mean model.net.width?"),
        ("net.width", "did you mean model.net.width?"),
        ("width", "did you mean model.net.width?"),
        ("seeed", "did you mean seed?"),
        ("quantum", "none"),
    ],
)
def test_the_nearest_name_is_beside_or_ends_alike(given, told):
    assert did_you_mean(given, ["seed", "model", "model.net", "model.net.width"], "none") == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("deblur_lab.models.NAFNt", "cannot be imported: did you mean NAFNet?"),
        ("torch.optim.AdamWW", "not among the names that may be built: did you mean torch.optim.AdamW?"),
        ("deblur_lab.model.NAFNet", "they are classes of deblur_lab.data, deblur_lab.losses, "),
    ],
)
def test_a_misspelt_class_gets_the_nearest(name, told):
    assert told in faults({"_target_": name})[0]


def test_a_module_of_ones_own_that_is_broken(tmp_path, monkeypatch):
    (tmp_path / "broken_nets.py").write_text("class Net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"net": {"_target_": "broken_nets.Net"}}
    assert faults(node, ["broken_nets"])[0].startswith(
        "net._target_=broken_nets.Net cannot be imported: SyntaxError: "
    )


def test_a_package_that_is_not_installed_is_the_machines_fault(tmp_path, monkeypatch):
    source = "class Net:\n    def __init__(self):\n        raise ModuleNotFoundError('install einops')\n"
    (tmp_path / "needy_nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MachineError, match=r"^model\.net: install einops$"):
        build({"_target_": "needy_nets.Net"}, ("needy_nets",), key="model.net")


def test_what_a_constructor_says_of_a_part_names_the_part():
    net = {"_target_": "deblur_lab.models.M2AENet", "width": 4, "predictor_stages": [9]}
    mixture = {"_target_": "deblur_lab.data.Mixture", "kinds": [net], "shares": [1.0]}
    with pytest.raises(
        ConfigurationError, match=r"^data\.kind\.kinds\[0\]: predictor_stages is \[9\]: give "
    ):
        build({"kind": mixture}, key="data")
