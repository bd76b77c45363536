"""LPIPS: what is said where its weights are not there, and its numbers; nothing is ever downloaded."""

import importlib
import math

import pytest
import torch
import torchmetrics.functional.image.lpips as of_torchmetrics
from torch import nn
from torchvision.models import alexnet

from deblur_lab.metrics import DEFINITIONS, GoProProtocol, lpips_available, lpips_missing

# `deblur_lab.metrics.lpips` as an attribute may be shadowed; the module is meant.
module = importlib.import_module("deblur_lab.metrics.lpips")


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    module._net.cache_clear()
    yield tmp_path
    module._net.cache_clear()


@pytest.fixture
def backbone(empty_hub, monkeypatch):
    """AlexNet's weights, as far as anyone looks; made up, as the file has 244 MB."""
    path = module.backbone_path()
    path.parent.mkdir(parents=True)
    path.touch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device("meta"):
            whole = alexnet()
        features = whole.features.to_empty(device="cpu")
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
    monkeypatch.setattr(of_torchmetrics, "_get_tv_model_features", lambda *_, **__: features)


def pictures(side=64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, side, side, generator=generator).double()


def test_without_the_weights_it_is_said_where_they_belong(empty_hub, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("something is downloaded"))
    assert not lpips_available()
    message = lpips_missing()
    assert str(empty_hub / "hub" / "checkpoints") in message
    assert "alexnet-owt-7be5be79.pth" in message
    assert "\n" not in message
    assert DEFINITIONS["lpips"].missing() == message
    assert math.isnan(module.lpips(*pictures()))


@pytest.mark.parametrize("package", ["torchmetrics", "torchvision"])
def test_without_a_package_it_is_said_which(backbone, monkeypatch, package):
    real = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else real(name))
    assert lpips_missing() == f"{package} is not installed: pip install {package}"


def test_the_distance_is_that_of_torchmetrics(backbone):
    restored, sharp = pictures()
    assert lpips_available()
    expected = of_torchmetrics.learned_perceptual_image_patch_similarity(
        restored[None].float(), sharp[None].float(), net_type="alex", normalize=True
    )
    assert module.lpips(restored, sharp) == pytest.approx(expected.item(), abs=1e-6)
    assert module.lpips(sharp, sharp) == 0
    nearer = module.lpips(sharp + 0.1 * (restored - sharp), sharp)
    assert 0 < nearer < module.lpips(restored, sharp)


def test_it_is_among_the_definitions_and_lower_is_better(backbone):
    restored, sharp = pictures()
    definitions = GoProProtocol().examine(restored, sharp, all_definitions=True).definitions
    assert definitions["lpips"] > 0
    assert DEFINITIONS["lpips"].higher_is_better is False


def test_a_small_picture_has_none(backbone):
    assert math.isnan(module.lpips(*pictures(30)))
    assert math.isfinite(module.lpips(*pictures(31)))
