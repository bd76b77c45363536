"""What the export writes and says, and refuses before any work."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deblur_lab import load_model
from deblur_lab.exporting import METADATA_KEY, export
from deblur_lab.models import NAFNet
from tests.nets import checkpoint_of, lively, small_aibnet

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
SIZES = {"width": 4, "encoder_blocks": [0], "middle_blocks": 1, "decoder_blocks": [0]}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return checkpoint_of(lively(NAFNet(4, [0], 1, [0])), tmp_path / "my net=1.ckpt", **SIZES)


def test_onnx_and_the_example_of_the_docs(command, checkpoint, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    target = tmp_path / "last.onnx"
    target.write_text("old")
    code, out, lines = command("export", f"checkpoint={checkpoint}", f"output={target}", job=export)
    assert (code, lines) == (0, [])
    assert f"older {target} is replaced" in out
    assert "differ by" in out
    assert "128x96, 101x77, 64x64 (2 pictures)" in out
    assert not list(tmp_path.glob(".*"))  # nothing unfinished
    model = onnx.load(target)
    onnx.checker.check_model(model)
    record = json.loads({entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY])
    assert (record["net"], record["opset"], record["checkpoint"]) == ("NAFNet", 20, checkpoint.name)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    assert record["settings"]["width"] == 4

    import cv2

    photo = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), photo[..., ::-1])
    example = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example[1], str(DOCS), "exec"), {})
    found = cv2.imread(str(tmp_path / "restored.png"))[..., ::-1]
    blurry = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = (load_model(checkpoint)(blurry)[0].clamp(0, 1) * 255).round().permute(1, 2, 0)
    assert np.abs(found - expected.numpy()).max() <= 1


def test_mistakes_leave_no_file(command, checkpoint, tmp_path, monkeypatch):
    def told(*typed: str) -> tuple[int, str]:
        code, _, lines = command("export", *typed, job=export)
        assert len(lines) == 1
        return code, lines[0]

    code, line = told(f"checkpoint={checkpoint}", "opset=99")
    assert (code, line.split(":")[0]) == (2, "opset=99")
    code, line = told(f"checkpoint={checkpoint}", "opset=18", "format=torch_export")
    assert (code, "has no effect" in line) == (2, True)
    code, line = told("checkpoint=none.ckpt")
    assert (code, "none.ckpt does not exist" in line) == (4, True)
    other = checkpoint_of(
        small_aibnet(),
        tmp_path / "aibnet.ckpt",
        encoder={
            "_target_": "deblur_lab.models.NAFNet",
            "width": 8,
            "encoder_blocks": [1, 1],
            "middle_blocks": 1,
            "decoder_blocks": [1, 1],
        },
        sub_decoders=2,
        blocks=1,
    )
    code, line = told(f"checkpoint={other}")
    assert (code, "AIBNet cannot be exported" in line) == (2, True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("deblur_lab.exporting.find_spec", lambda name: None)
    code, line = told(f"checkpoint={checkpoint}")
    assert (code, "pip install 'deblur_lab[export]'" in line) == (5, True)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".ckpt"]
