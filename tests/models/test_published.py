"""Others' weights are found, and the net's size with them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import deblur_lab
from deblur_lab.errors import CheckpointError
from deblur_lab.models import LearnableTrajectory, M2AENet, NAFNet, UFPNet
from deblur_lab.models.published import looks_like, net_of, weights_of, weights_of_encoder

from .made_up import as_published, image, made_up_ufpnet

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = [
    (4, [1], 1, [1]),
    (6, [2, 1], 3, [1, 2]),
    (8, [1, 1, 1, 4], 1, [1, 1, 1, 1]),
    # Decoders deeper than encoders, levels and middle without blocks.
    (4, [0, 1, 0], 0, [2, 3, 0]),
    (64, [0], 1, [0]),
]


def filled(sizes):
    torch.manual_seed(0)
    net = NAFNet(*sizes).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("sizes", SIZES)
def test_the_size_is_found_and_the_net_computes_the_same(sizes):
    net = filled(sizes)
    found = net_of(net.state_dict())
    assert not found.training
    blurry = torch.rand(1, 3, 13, 18)
    assert torch.equal(found(blurry), net(blurry))


def test_the_released_width_32_is_known_by_its_keys_and_shapes():
    shapes = json.loads((GOLDEN / "nafnet_w32_keys.json").read_text())
    net = net_of({key: torch.zeros(shape) for key, shape in shapes.items()})
    assert sum(parameter.numel() for parameter in net.parameters()) == 17_111_907


@pytest.mark.parametrize("container", ["", "params", "params_ema", "state_dict", "model"])
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "net.", "net._orig_mod.", "model.module.net."],
)
def test_containers_and_wrappers_are_seen_through(container, prefix):
    state = filled(SIZES[0]).state_dict()
    renamed = {f"{prefix}{key}": value for key, value in state.items()}
    found = weights_of({container: renamed, "iter": 7} if container else renamed)
    assert list(found) == list(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_wrappers_in_the_middle_of_names_are_seen_through():
    """As `torch.compile` of a part of a net leaves them."""
    state = filled(SIZES[1]).state_dict()
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        renamed[".".join([*parts[:-1], "_orig_mod", parts[-1]]) if len(parts) > 2 else key] = value
    assert "encoders.0.0.conv1._orig_mod.weight" in renamed
    assert list(weights_of(renamed)) == list(state)


def test_of_a_trainers_modules_the_net_is_taken_and_its_average_first():
    net, average = filled(SIZES[0]), filled(SIZES[0])
    torch.nn.init.ones_(average.intro.weight)
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    state["criterion.vgg.features.0.weight"] = torch.zeros(1)
    assert torch.equal(net_of({"state_dict": state}).intro.weight, net.intro.weight)
    state |= {f"net_ema.module.{key}": value for key, value in average.state_dict().items()}
    state["net_ema.n_averaged"] = torch.tensor(3)
    assert torch.equal(
        net_of({"state_dict": {**state, "n_averaged": torch.tensor(1)}}).intro.weight, average.intro.weight
    )


def test_an_averaged_model_of_pytorch_is_read():
    averaged = torch.optim.swa_utils.AveragedModel(filled(SIZES[0]))
    assert torch.equal(net_of(averaged.state_dict()).intro.weight, averaged.module.intro.weight)


def test_what_numbers_its_blocks_to_the_sky_is_refused_at_once():
    state = filled(SIZES[0]).state_dict()
    state["encoders.99999999999.0.conv1.weight"] = torch.zeros(1)
    state["decoders.0.99999999999.conv1.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"looks like a NAFNet of width 4, but .*unexpected"):
        net_of(state)


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        ({"predictor_stages": [2]}, "quadratic"),
        ({"predictor_stages": [1, 2], "mask_aware": False}, "quadratic"),
        ({"predictor_stages": [2], "motion_aware": False}, "quadratic"),
        ({"predictor_stages": [2], "trajectory": LearnableTrajectory(5)}, "learnable"),
    ],
)
def test_bare_weights_of_an_m2aenet_are_read_and_what_they_do_not_tell_is_said(choices, kind):
    net = M2AENet(4, [1, 1], 1, [1, 1], **choices).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    with pytest.warns(UserWarning, match=rf"do not tell its threshold .*: taken to be 0\.5 and {kind}"):
        found = net_of(net.state_dict())
    assert type(found) is M2AENet
    assert type(found.trajectory) is type(net.trajectory)
    blurry = torch.rand(1, 3, 13, 18)
    assert torch.equal(found(blurry), net(blurry))


def test_of_two_the_average_is_taken():
    raw, average = filled(SIZES[0]).state_dict(), filled(SIZES[1]).state_dict()
    assert list(weights_of({"params": raw, "params_ema": average})) == list(average)


def test_what_is_no_nafnet_is_described():
    with pytest.raises(
        CheckpointError,
        match=r"^it holds 1 tensors \(conv\.weight \(3, 3\)\); a NAFNet, .*intro\.weight and downs\.0\.we",
    ):
        net_of({"conv.weight": torch.zeros(3, 3)})
    with pytest.raises(CheckpointError, match=r"^it holds no weights \(only epoch\)$"):
        net_of({"epoch": 3})
    with pytest.raises(CheckpointError, match=r"^it holds no weights \(nothing at all\)$"):
        net_of({})


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", "a Swin transformer"),
        ("SCM1.main.0.main.0.weight", "a MIMO-UNet"),
        ("down_path_1.0.identity.weight", "an HINet"),
        ("fpn.inception.weight", "a DeblurGAN-v2"),
        ("layer1.0.conv1.weight", "a ResNet"),
        ("features.0.weight", "a VGG"),
    ],
)
def test_other_nets_of_the_field_are_known_by_their_names(name, net):
    with pytest.raises(CheckpointError, match=f"^it looks like {net}, and only NAFNet, .* are known$"):
        net_of({"params": {f"module.{name}": torch.zeros(2, 2)}})


@pytest.mark.parametrize(
    ("name", "net", "lacking"),
    [
        ("encoders.0.0.attgamma", "a KBNet", r"encoders\.0\.0\.conv11\.1\.weight"),
        ("encoder_level1.0.ffn.fft", "an FFTformer", r"patch_embed\.proj\.weight"),
        ("encoder_level1.0.attn.temperature", "a Restormer", r"patch_embed\.proj\.weight"),
        ("encoderlayer_0.blocks.0.attn.relative_position_bias_table", "a Uformer", r"encoderlayer_1\..*"),
        ("shallow_feat1.0.weight", "an MPRNet", r"shallow_feat1\.1\.CA\.conv_du\.0\.weight"),
    ],
)
def test_parts_of_peers_are_known_by_their_names_and_lack_what_tells_their_size(name, net, lacking):
    """KBNet's have all of NAFNet's names as well."""
    state = filled(SIZES[0]).state_dict() if name.startswith("encoders") else {}
    wrapped = {"params": {f"module.{key}": value for key, value in state.items()}}
    wrapped["params"][f"module.{name}"] = torch.zeros(2, 2)
    with pytest.raises(
        CheckpointError, match=f"^it looks like {net}, but its size cannot be told: it lacks {lacking}$"
    ):
        net_of(wrapped)


def test_the_state_of_an_optimizer_is_told_from_weights():
    state = {"epoch": 3, "iter": 7, "optimizers": [{"state": {}, "param_groups": []}], "schedulers": []}
    with pytest.raises(
        CheckpointError, match=r"^it holds the state of an optimizer and no weights: take the "
    ):
        net_of(state)


def test_what_is_missing_left_over_or_misshapen_is_named():
    state = filled(SIZES[1]).state_dict()
    del state["ending.bias"]
    state["extra"] = torch.zeros(1)
    state["intro.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError) as caught:
        net_of(state)
    message = str(caught.value)
    assert "width 6" in message
    assert "1 missing (ending.bias)" in message
    assert "1 unexpected (extra)" in message
    assert "1 of another shape (intro.bias (9,), not (6,))" in message


@pytest.fixture(scope="module")
def ufpnet() -> UFPNet:
    return made_up_ufpnet(6, [1, 2], 1, [1, 0], kernel_size_px=5, estimator_width=3)


def published(net: nn.Module) -> dict[str, torch.Tensor]:
    return {as_published(key): value for key, value in net.state_dict().items()}


@pytest.mark.parametrize("container", ["", "params", "state_dict"])
def test_a_published_ufpnet_is_read(tmp_path, ufpnet, container):
    state = published(ufpnet)
    assert any("kernel_atttion" in key for key in state)
    torch.save({container: state, "iter": 7} if container else state, tmp_path / "net.pth")
    found = deblur_lab.load_model(tmp_path / "net.pth")
    assert type(found) is UFPNet
    blurry = image(1, 1, 3, 9, 14)
    assert torch.equal(found(blurry), ufpnet(blurry))
    assert not torch.equal(found(blurry), blurry)


def test_the_released_ufpnet_is_known_by_its_keys_and_shapes():
    shapes = json.loads((GOLDEN / "ufpnet_w64_keys.json").read_text())
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    net = net_of({"params": state})
    assert type(net) is UFPNet
    assert len(net.state_dict()) == len(shapes) == 852
    assert sum(parameter.numel() for parameter in net.parameters()) == 80_343_663


def test_what_is_nearly_a_ufpnet_is_told_in_a_line(ufpnet):
    state = published(ufpnet)
    del state["flow.net.0.s_net.0.weight"]
    state["flow.net.10.beta"] = torch.zeros(25)
    state["kernel_extra.Conv_mid.body.0.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        net_of(state)
    assert str(caught.value) == (
        f"it looks like a UFPNet of width 6, but of its {len(ufpnet.state_dict())} tensors, "
        "1 missing (flow.net.0.s_net.0.weight); 1 unexpected (flow.net.10.beta); "
        "1 of another shape (kernel_extra.Conv_mid.body.0.bias (7,), not (12,))"
    )


def test_a_nafnet_with_one_name_of_a_ufpnet_is_told_in_a_line():
    state = filled(SIZES[0]).state_dict() | {"kernel_down.0.weight": torch.zeros(361, 361, 2, 2)}
    with pytest.raises(
        CheckpointError, match=r"^it looks like a UFPNet of width 4, but .*\d+ missing \(.*\)$"
    ):
        net_of(state)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("kernel_down.0.weight", ()),
        ("kernel_down.0.weight", (16, 16, 2, 2)),
        ("kernel_down.0.weight", (10**6, 0, 2, 2)),
        ("kernel_extra.Encoding_Block1.Conv_head.weight", (10**6, 0, 3, 3)),
        ("kernel_extra.Encoding_Block1.Conv_head.weight", (0, 3, 3, 3)),
    ],
)
def test_a_ufpnet_of_impossible_size_is_refused_at_once(ufpnet, name, shape):
    with pytest.raises(CheckpointError, match=r"^it looks like a UFPNet of width 6, but "):
        net_of({**published(ufpnet), name: torch.zeros(shape)})


def test_a_ufpnet_without_a_guided_stage_is_refused(ufpnet):
    state = {key: value for key, value in published(ufpnet).items() if not key.startswith("encoders.0")}
    with pytest.raises(CheckpointError, match=r"of impossible size: encoder_blocks is \[0, 2\]"):
        net_of(state)


def aibnet_of(encoder: NAFNet) -> dict[str, torch.Tensor]:
    """What the weights of an AIBNet look like, to whom reads their names."""
    own = {
        key: value
        for key, value in encoder.state_dict().items()
        if not key.startswith(("ups.", "decoders.", "ending."))
    }
    state = {f"encoder.{key}": value for key, value in own.items()}
    return state | {f"sub_decoders.{index}.ending.weight": torch.zeros(1) for index in range(2)}


@pytest.mark.parametrize("prefix", ["", "net.", "module."])
def test_an_aibnet_is_known_and_not_taken_for_its_encoder(ufpnet, prefix):
    state = {f"{prefix}{key}": value for key, value in aibnet_of(ufpnet).items()}
    state = {"state_dict": state | ({"criterion.vgg.weight": torch.zeros(1)} if prefix == "net." else {})}
    assert len(weights_of(state)) == len(aibnet_of(ufpnet))
    assert looks_like(state) == "looks like an AIBNet of width 6 with 2 sub-decoders"
    with pytest.raises(
        CheckpointError, match=r"^it looks like an AIBNet .* take the checkpoint that the run"
    ):
        net_of(state)


@pytest.mark.parametrize("of", ["published", "ours", "averaged", "aibnet"])
@pytest.mark.parametrize("kind", ["NAFNet", "UFPNet"])
def test_the_encoder_alone_is_found_in_any_file(ufpnet, of, kind):
    net = ufpnet if kind == "UFPNet" else filled(SIZES[1])
    state = net.state_dict()
    files = {
        "published": {"params": published(net)},
        "ours": {"state_dict": {f"net.{key}": value for key, value in state.items()}},
        "averaged": {
            "state_dict": {f"net.{key}": torch.zeros_like(value) for key, value in state.items()}
            | {f"ema.module.{key}": value for key, value in state.items()}
        },
        "aibnet": {"state_dict": {f"net.{key}": value for key, value in aibnet_of(net).items()}},
    }
    encoder = made_up_ufpnet(6, [1, 2], 1, [1, 0], kernel_size_px=5, estimator_width=3)
    encoder = encoder if kind == "UFPNet" else filled(SIZES[1])
    encoder.drop_decoder()
    nn.init.zeros_(encoder.intro.weight)
    encoder.load_state_dict(weights_of_encoder(files[of]))
    assert torch.equal(encoder.intro.weight, net.intro.weight)
