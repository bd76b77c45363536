"""Exported graphs give what their networks give, at sizes that they were not traced at."""

import io
import json

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.exporting import (
    METADATA_KEY,
    compared,
    exported,
    metadata_of,
    onnx_runs,
    program_runs,
    require_exportable,
    target_of,
    write_onnx,
    write_program,
)
from deblur_lab.models import LearnableTrajectory, M2AENet
from deblur_lab.ops.deformable import deformable_depthwise, kernel_grid, plan_motion
from tests.nets import Fade, checkpoint_of, lively, small_aibnet, small_nafnet

SIZES = ((1, 3, 1, 1), (1, 3, 37, 53), (2, 3, 64, 32), (3, 3, 16, 70))


def moving_m2aenet() -> M2AENet:
    """Its masks are mixed, and its motion reaches over several pixels and out of the frame."""
    torch.manual_seed(1)
    net = M2AENet(4, [0, 1], 0, [0, 0], predictor_stages=[2], trajectory=LearnableTrajectory())
    lively(net, seed=1)
    for analyzer in net.analyzers.values():
        nn.init.normal_(analyzer.conv.weight, std=1.0)
    return net


def split_masks(net: M2AENet) -> None:
    """Move the threshold to where half of a picture is blurred."""
    with torch.no_grad():
        found = net.analyze(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    net.threshold = float(found.stages[0].mask_logits.softmax(1)[:, 0].median())


@pytest.fixture(scope="module")
def m2aenet() -> M2AENet:
    net = moving_m2aenet()
    split_masks(net)
    return net


@pytest.fixture(scope="module")
def program(m2aenet) -> ExportedProgram:
    return exported(m2aenet)


@pytest.mark.parametrize("form", ["onnx", "torch_export"])
def test_m2aenet_at_other_sizes(m2aenet, program, form, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net"
    with path.open("wb") as file:
        made_by = {"exported_by": {"version": "1"}}
        if form == "onnx":
            write_onnx(program, file, 20, made_by)
        else:
            write_program(program, file, made_by)
    runs = onnx_runs(path) if form == "onnx" else program_runs(path)
    generator = torch.Generator().manual_seed(0)
    shares, motions = [], []
    for size in SIZES:
        blurry = torch.rand(size, generator=generator)
        with torch.no_grad():
            found = m2aenet.analyze(blurry)
            assert (runs(blurry) - found.restored).abs().max() < 1e-5
        assert (found.restored - blurry).abs().max() > 0.02
        shares.append(float(found.stages[0].mask.mean()))
        motions.append(float(found.stages[0].offsets.abs().max()))
    assert any(0.1 < share < 0.9 for share in shares)
    assert max(motions) > 2


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 1, 3, 3))
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, features, displacements):
        plan = plan_motion(displacements + kernel_grid()[:, :, None, None])
        return deformable_depthwise(features, plan, self.weight, self.bias)


def test_deformable_convolution_is_exact_in_a_graph():
    torch.manual_seed(0)
    net = Convolved()
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    moved = {0: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC, 4: torch.export.Dim.DYNAMIC}
    inputs = torch.randn(2, 5, 6, 7), torch.randn(2, 9, 2, 6, 7)
    with torch.no_grad():
        graph = torch.export.export(net, inputs, dynamic_shapes=(free, moved), strict=False).module()
        for size in ((2, 8, 9), (3, 5, 4)):
            batch, height, width = size
            # Whole pixels too, and far out of the frame.
            displacements = (4 * torch.randn(batch, 9, 2, height, width)).mul(4).round().div(4)
            features = torch.randn(batch, 5, height, width)
            expected = net(features, displacements)
            torch.testing.assert_close(graph(features, displacements), expected, atol=1e-5, rtol=1e-5)


def test_a_file_that_differs_is_refused(tmp_path):
    net = Fade()
    assert compared(net, net, tmp_path / "net.onnx") == 0
    with pytest.raises(MachineError, match=r"net\.onnx is not kept: at 128x96 it differs .* by 2\.0e-03"):
        compared(net, lambda blurry: net(blurry) + 0.002, tmp_path / "net.onnx")
    with pytest.raises(MachineError, match="differs"):
        compared(net, lambda blurry: net(blurry) * float("nan"), tmp_path / "net.onnx")
    with pytest.raises(MachineError, match="differs"):
        compared(net, lambda blurry: net(blurry)[..., 1:], tmp_path / "net.onnx")


def test_nets_that_cannot_be_exported_say_why(tmp_path):
    for net, reason in ((small_aibnet(), "AIBNet cannot be .* tracing it fixes"), (Fade(), "Fade cannot be")):
        with pytest.raises(ConfigurationError, match=reason):
            require_exportable(net, tmp_path / "last.ckpt")
    require_exportable(small_nafnet(), tmp_path / "last.ckpt")


def test_file_names(tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    assert target_of(None, checkpoint, "onnx") == tmp_path / "last.onnx"
    assert target_of(None, checkpoint, "torch_export") == tmp_path / "last.pt2"
    assert target_of("a/net.ONNX", checkpoint, "onnx").name == "net.ONNX"
    with pytest.raises(ConfigurationError, match=r"ends in \.onnx"):
        target_of("net.pt2", checkpoint, "onnx")
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ConfigurationError, match="is a folder"):
        target_of(str(tmp_path / "folder.pt2"), checkpoint, "torch_export")
    own = tmp_path / "weights.pt2"
    own.touch()
    with pytest.raises(ConfigurationError, match="is the checkpoint"):
        target_of(None, own, "torch_export")


def test_the_record_is_in_the_program(tmp_path):
    net = small_nafnet()
    checkpoint = checkpoint_of(net, tmp_path / "last.ckpt")
    record = metadata_of(net, {"commit": "abc", "version": "0.1"}, checkpoint)
    assert record["net"] == "NAFNet"
    assert record["trained_by"] == {"version": "0.1", "commit": "abc"}
    assert len(record["checkpoint_sha256"]) == 64
    file = io.BytesIO()
    write_program(exported(Fade()), file, record)
    file.seek(0)
    found = {METADATA_KEY: ""}
    torch.export.load(file, extra_files=found)
    assert json.loads(found[METADATA_KEY]) == record
