"""Peers: any size in, gradients everywhere, published weights read, and the costs that are printed."""

import copy
import csv
import sys
import warnings
from importlib import import_module

import pytest
import torch
from torch import nn

import deblur_lab
from deblur_lab.config import build, configuration_root
from deblur_lab.errors import CheckpointError, ConfigurationError, MachineError
from deblur_lab.losses import ReconstructionLoss
from deblur_lab.models import FFTformer, KBNetL, KBNetS, MPRNet, NAFNet, Restormer, Uformer
from deblur_lab.models.published import net_of
from deblur_lab.models.published_peers import NumbersKept, peer_of
from deblur_lab.multiply_adds import ATTENTION, counted
from deblur_lab.tasks import MultiStageDeblurring
from tests.nets import checkpoint_of

pytestmark = pytest.mark.filterwarnings("ignore:.*may not be used commercially")

ONES = (1,) * 9
# Every setting that a file must tell, in both ways.
SMALL = {
    "restormer": (Restormer, (8, (1, 2, 1, 1), 1, (1, 2, 2, 4))),
    "restormer without norms' biases": (Restormer, (6, (1, 1, 2, 1), 2, (1, 1, 1, 1), 3.0, True, "BiasFree")),
    "mprnet": (MPRNet, (8, 4, 6, 2, 4)),
    "mprnet with biases": (MPRNet, (6, 2, 2, 1, 2, True)),
    "uformer": (Uformer, (4, (1, 2, 1, 1, 1, 2, 1, 1, 1), (1, 1, 2, 4, 4, 4, 4, 2, 1), 4)),
    "uformer that attends across": (Uformer, (4, ONES, ONES, 2, 2.0, True, "fastleff", False, True)),
    "uformer of perceptrons": (Uformer, (4, ONES, ONES, 2, 3.5, False, "mlp", True)),
    "fftformer": (FFTformer, (6, (1, 2, 1), 1, 2.5)),
    "fftformer with biases": (FFTformer, (4, (1, 1, 1), 2, 3.0, True)),
    "kbnet-l": (KBNetL, (6, (1, 1, 2, 1), 1, (1, 2, 2, 4), 2.0)),
    "kbnet-s": (KBNetS, (4, (1, 2), 1, (2, 1))),
    "kbnet-s, lightweight": (KBNetS, (4, (1,), 1, (1,), 3.0, True)),
}
LIBRARIES = {
    "Restormer": ("spandrel_extra_arches.architectures.Restormer", "RestormerArch"),
    "MPRNet": ("spandrel_extra_arches.architectures.MPRNet", "MPRNetArch"),
    "Uformer": ("spandrel.architectures.Uformer", "UformerArch"),
    "FFTformer": ("spandrel.architectures.FFTformer", "FFTformerArch"),
    "KBNetL": ("spandrel.architectures.KBNet", "KBNetArch"),
    "KBNetS": ("spandrel.architectures.KBNet", "KBNetArch"),
}
DEFAULTS = (Restormer, Uformer, MPRNet, FFTformer, KBNetL, KBNetS)


def made(name: str) -> nn.Module:
    kind, settings = SMALL[name]
    torch.manual_seed(0)
    net = kind(*settings)
    for parameter in net.parameters():  # what starts as nothing, too
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


def on_meta(kind: type[nn.Module]) -> nn.Module:
    with torch.device("meta"), NumbersKept():
        return kind().eval()


@pytest.mark.parametrize("size", [(1, 1), (9, 14), (33, 24)])
@pytest.mark.parametrize("name", ["restormer", "mprnet", "uformer", "fftformer", "kbnet-l", "kbnet-s"])
def test_any_size_goes_in_and_its_restored_picture_comes_out(name, size):
    net, blurry = made(name), torch.rand(2, 3, *size)
    with torch.inference_mode():
        restored = net(blurry)
    assert restored.shape == blurry.shape
    assert restored.isfinite().all()
    assert not torch.equal(restored, blurry)


@pytest.mark.parametrize("name", ["restormer", "mprnet", "uformer", "fftformer", "kbnet-l", "kbnet-s"])
def test_where_nothing_is_padded_it_is_the_librarys_net(name):
    net = made(name)
    module, arch = LIBRARIES[type(net).__name__]
    theirs = getattr(import_module(module), arch)().load(dict(net.state_dict())).model.eval()
    side_px = net.multiple
    blurry = torch.rand(1, 3, side_px, side_px)
    with torch.inference_mode():
        expected = theirs(blurry)
        assert torch.equal(net(blurry), expected[0] if name == "mprnet" else expected)


@pytest.mark.parametrize("name", SMALL)
def test_weights_with_the_published_names_are_read_without_a_word_of_their_size(tmp_path, name):
    net = made(name)
    of_basicsr = type(net) in (Restormer, FFTformer, KBNetL, KBNetS)
    prefix, container = ("", "params") if of_basicsr else ("module.", "state_dict")
    state = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
    torch.save({container: state, "epoch": 3}, tmp_path / "net.pth")
    found = deblur_lab.load_model(tmp_path / "net.pth")
    assert type(found) is type(net)
    assert not found.training
    blurry = torch.rand(1, 3, 18, 13)
    with torch.inference_mode():
        assert torch.equal(found(blurry), net(blurry))


@pytest.mark.parametrize("name", SMALL)
def test_the_library_finds_the_same_size(name):
    """Its detection is the oracle of ours."""
    state = dict(made(name).state_dict())
    module, arch = LIBRARIES[SMALL[name][0].__name__]
    theirs = getattr(import_module(module), arch)()
    assert theirs.detect(state)
    shapes = {key: value.shape for key, value in theirs.load(state).model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in net_of(state).state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Restormer, 26_126_644),
        (Uformer, 50_880_946),
        (MPRNet, 20_127_073),
        (FFTformer, 16_560_474),
        (KBNetL, 29_568_100),
        (KBNetS, 141_966_659),
    ],
)
def test_the_published_sizes_are_the_defaults_and_are_known_from_their_shapes(kind, parameters):
    net = on_meta(kind)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    found = peer_of(net.state_dict())
    assert type(found) is kind
    assert {key: value.shape for key, value in found.state_dict().items()} == {
        key: value.shape for key, value in net.state_dict().items()
    }


@pytest.mark.parametrize("name", ["restormer", "mprnet", "uformer", "fftformer", "kbnet-l", "kbnet-s"])
def test_gradients_reach_all_that_is_trained_in_mixed_precision_too(name):
    net = made(name).train()
    blurry = torch.rand(2, 3, 16, 16)
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            restored = sum(net.restore_in_stages(blurry)) if name == "mprnet" else net(blurry)
        restored.float().square().mean().backward()
        trained = {key: value for key, value in net.named_parameters() if value.requires_grad}
        assert [key for key, value in trained.items() if value.grad is None] == []
        assert all(value.grad.isfinite().all() for value in trained.values())
    frozen = [key for key, value in net.named_parameters() if not value.requires_grad]
    assert frozen == (["reduce_chan_level2.weight"] if name == "fftformer" else [])


def test_a_copy_is_a_net_of_its_own_that_can_be_counted():
    net, blurry = made("uformer"), torch.rand(1, 3, 9, 14)
    twin = copy.deepcopy(net)
    with torch.inference_mode():
        before = net(blurry)
        for parameter in net.parameters():
            parameter.zero_()
        assert torch.equal(twin(blurry), before)
        assert torch.equal(net(blurry), blurry)
        _, counts = counted(lambda: twin.to("meta")(blurry.to("meta")))
    assert sum(counts.values()) > 0


def test_every_stage_of_mprnet_is_judged():
    net = made("mprnet")
    task = MultiStageDeblurring(net, ReconstructionLoss(charbonnier=1.0, edge=0.05), None, None)
    batch = {"blurry": torch.rand(2, 3, 13, 18), "sharp": torch.rand(2, 3, 13, 18)}
    stages = net.restore_in_stages(batch["blurry"])
    assert len(stages) == 3
    assert torch.equal(stages[-1], net(batch["blurry"]))
    assert not torch.equal(stages[0], stages[1])
    parts = task.loss_parts(batch)
    assert parts.keys() == {"charbonnier", "edge"}
    alone = [task.loss(stage, batch["sharp"]) for stage in stages]
    for name, part in parts.items():
        torch.testing.assert_close(part, sum(of_stage[name] for of_stage in alone))
    with pytest.raises(ConfigurationError, match=r"net is a NAFNet, .*RestorationTask trains it"):
        MultiStageDeblurring(NAFNet(4, [1], 1, [1]), ReconstructionLoss(l1=1.0), None, None)


# Table 2 prints what Restormer's convolutions take on a picture that is padded to multiples of 32, and of
# Uformer more than its products come to on one; docs/peers.md tells of it.
@pytest.mark.parametrize(
    ("kind", "with_attention", "tolerance"), [(Restormer, False, 1e-3), (Uformer, True, 0.06)]
)
def test_costs_are_those_that_m2aenets_table_2_prints(kind, with_attention, tolerance):
    path = configuration_root() / "experiments" / "m2aenet" / "table2.csv"
    with path.open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["label"] == kind.__name__)
    net = on_meta(kind)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert f"{parameters / 1e6:.2f}" == row["parameters_m"]
    side_px = 256
    with torch.inference_mode():
        _, counts = counted(lambda: net(torch.empty(1, 3, side_px, side_px, device="meta")))
    taken = sum(counts.values()) - (0 if with_attention else counts[ATTENTION])
    scale = 2176 * 1440 / side_px**2  # every layer takes as much of each pixel
    assert taken * scale / 1e12 == pytest.approx(float(row["multiply_adds_t"]), rel=tolerance)


def test_a_checkpoint_of_ours_is_read(tmp_path):
    net = made("restormer")
    path = checkpoint_of(
        net, tmp_path / "last.ckpt", width=8, blocks=[1, 2, 1, 1], refinement_blocks=1, heads=[1, 2, 2, 4]
    )
    blurry = torch.rand(1, 3, 9, 14)
    with torch.inference_mode():
        assert torch.equal(deblur_lab.load_model(path)(blurry), net(blurry))


def test_its_licence_is_told_once_in_a_line_of_ours(monkeypatch):
    monkeypatch.setattr("deblur_lab.models.peers._told", set())
    with pytest.warns(
        UserWarning, match="Restormer: its authors' code and weights may not be used comm"
    ) as told:
        made("restormer")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made("restormer")
        made("uformer")
        made("fftformer")


@pytest.mark.parametrize("name", ["restormer", "uformer"])
def test_without_the_extra_a_line_says_what_to_install(monkeypatch, name):
    package = "spandrel_extra_arches" if name == "restormer" else "spandrel"
    state = made(name).state_dict()
    for module in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    line = rf"^{name.title()} needs the package {package}: pip install 'deblur_lab\[peers\]'$"
    with pytest.raises(MachineError, match=line):
        net_of(state)
    with pytest.raises(MachineError, match=line):
        build({"_target_": f"deblur_lab.models.{name.title()}"}, key="model.net")


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (Restormer, {"heads": (1, 2, 4, 5)}, r"heads=\[1, 2, 4, 5\]: 5 heads cannot share 384 channels"),
        (Uformer, {"window": 3}, "window=3: 2, 4 or 8 is expected"),
        (MPRNet, {"width": 3}, "reduction=4: at most width=3 is expected"),
        (KBNetL, {"width": 32}, "width=32, expansion=1.5: the kernels of 32 channels cannot be grouped"),
        (KBNetS, {"width": 6}, "width=6, expansion=2: the kernels of 6 channels cannot be grouped"),
        (KBNetS, {"decoder_blocks": (1,)}, "encoder_blocks has 4 stages and decoder_blocks 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(kind, settings, told):
    with pytest.raises(ConfigurationError, match=told):
        kind(**settings)


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("restormer", "refinement.99999999999.attn.temperature", torch.zeros(1), "unexpected"),
        ("restormer", "patch_embed.proj.weight", torch.zeros(8, 6, 3, 3), r"of another shape \(patch_embed"),
        ("restormer", "patch_embed.proj.weight", torch.zeros(10**6, 0), "of another shape"),
        ("restormer", "encoder_level1.0.attn.temperature", torch.tensor(1.0), "a tensor lacks a dimension"),
        ("mprnet", "tail.weight", torch.zeros(3, 8, 3, 3), "of another shape"),
        ("uformer", "input_proj.proj.0.weight", torch.zeros(10**6, 0), "of another shape"),
        (
            "kbnet-s",
            "intro.weight",
            torch.zeros(0, 3, 3, 3),
            "lacks a dimension|impossible size|another shape",
        ),
    ],
)
def test_what_is_nearly_a_peer_is_told_in_a_line(name, key, value, told):
    state = {**made(name).state_dict(), key: value}
    with pytest.raises(CheckpointError, match=told) as caught:
        net_of(state)
    assert str(caught.value).startswith("it looks like ")
    assert "\n" not in str(caught.value)
