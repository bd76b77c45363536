"""Checkpoints are whole or absent, run nothing, and say what is wrong with them."""

import argparse
import io
import os
import pickle
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from deblur_lab import load_model
from deblur_lab.checkpoints import RefusedError, load_net, load_weights, read_checkpoint
from deblur_lab.errors import CheckpointError, UserError
from deblur_lab.models import M2AENet, NAFNet


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_what_would_execute_code_is_refused_and_does_not_run(tmp_path):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    torch.save({"state_dict": Trap(f"touch {trace}")}, path)
    refusal = (
        r"evil\.ckpt is refused: besides plain containers and tensors it holds posix\.system, and could "
    )
    with pytest.raises(RefusedError, match=refusal):
        read_checkpoint(path)
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(Trap(f"touch {trace}"), protocol))
        with pytest.raises(RefusedError, match=refusal):
            read_checkpoint(path)
    torch.save({"state_dict": Trap(f"touch {trace}")}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(RefusedError, match=refusal):
        read_checkpoint(path)
    assert not trace.exists()


def test_a_whole_module_or_what_a_script_keeps_beside_weights_is_refused_by_name(tmp_path):
    path = tmp_path / "net.pth"
    for contents in (NAFNet(4, [1], 1, [1]), {"params": {}, "args": argparse.Namespace(lr=1)}):
        for zipped in (True, False):
            torch.save(contents, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(
                CheckpointError, match=r"holds .*(models\.nafnet\.NAFNet|argparse\.Namespace)"
            ):
                read_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_named(tmp_path, kept):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"last\.ckpt") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_seen_wherever_there_are_weights(tmp_path, place):
    """PyTorch itself loads such a file without a word."""
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.rand(10_000)}}, path)
    assert set(read_checkpoint(path)) == {"state_dict"}
    altered = bytearray(path.read_bytes())
    altered[int(place * len(altered))] ^= 4
    path.write_bytes(altered)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt cannot be read, it is truncated or damaged \(wrong che"
    ):
        read_checkpoint(path)


def read_or_told(path):
    """What a checkpoint holds, or why it is not read."""
    try:
        return read_checkpoint(path), ""
    except CheckpointError as error:
        return None, str(error)


def test_a_bit_flipped_anywhere_is_named_or_harmless(tmp_path):
    """Names and padding have no checksum; what is in them is needed to load, or is not."""
    path = tmp_path / "last.ckpt"
    contents = {"step": 7, "a": torch.arange(50.0)}
    torch.save(contents, path)
    whole = path.read_bytes()
    seen = 0
    for place in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        found, told = read_or_told(path)
        if found is None:
            assert "last.ckpt" in told
            assert "\n" not in told
            seen += 1
        else:
            assert found["step"] == 7
            assert torch.equal(found["a"], contents["a"])
    assert seen > 100


def scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), file)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"", "is empty: its download or copy failed"),
        (
            b"\n<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>",
            "is a web page, not weights: ",
        ),
        (b"\xef\xbb\xbf<HTML><body>404", "is a web page, not weights: the download failed"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML message"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a Git LFS pointer: .*git lfs pull",
        ),
        (b"Not Found", 'is text, not weights; it begins "Not Found"$'),
        (b"\x1f\x8b\x08" + b"\0" * 100, "is a gzip archive: unpack it"),
        (b"\x89HDF\r\n" + b"\0" * 100, "is an HDF5 file"),
        (scripted, "is a TorchScript program, not weights: save its state_dict"),
        (lambda: zipped("NAFNet/net.pth"), r"is a zip archive of NAFNet/net\.pth: unpack it and name the"),
        (lambda: zipped("intro.weight.npy"), "is an archive of NumPy arrays"),
    ],
)
def test_what_is_often_met_under_the_name_of_a_checkpoint_is_told(tmp_path, contents, told):
    path = tmp_path / "net.pth"
    path.write_bytes(contents() if callable(contents) else contents)
    with pytest.raises(CheckpointError, match=rf"^checkpoint .*net\.pth {told}") as caught:
        load_net(path)
    assert "\n" not in str(caught.value)


def test_a_file_is_known_by_its_contents_whatever_its_name(tmp_path):
    state = NAFNet(4, [1], 1, [1]).state_dict()
    save_file(state, tmp_path / "net.pth")
    torch.save(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("net.pth", "net.safetensors", "old.ckpt"):
        assert list(load_net(tmp_path / name)[0].state_dict()) == list(state)


def test_a_cut_off_file_of_the_old_format_is_named(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(NAFNet(4, [1], 1, [1]).state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for kept in (30, len(whole) // 4, len(whole) - 10):
        path.write_bytes(whole[:kept])
        with pytest.raises(
            CheckpointError, match=r"old\.pth cannot be read, it is truncated or damaged"
        ) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_missing_files_folders_and_other_contents_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"is a folder.*last\.ckpt"):
        read_checkpoint(tmp_path)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(tmp_path / "list.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt holds no network that can be built: it holds no"):
        load_net(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        ({"_target_": "deblur_lab.config.build", "node": {"_target_": "torch.load"}}, "not among the names"),
        ({"_target_": "deblur_lab.models.NAFNet", "width": "${oc.env:HOME}"}, "refers to what is outside"),
        ({"_target_": "deblur_lab.metrics.LocalProtocol"}, "names a LocalProtocol as its network"),
        (None, "does not say of which network"),
    ],
)
def test_a_checkpoints_own_configuration_cannot_run_what_it_likes(tmp_path, net, reason):
    config = {} if net is None else {"model": {"net": net}}
    torch.save({"state_dict": {}, "deblur_lab": {"config": config}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=reason):
        load_net(tmp_path / "x.ckpt")


def test_a_record_of_another_shape_is_refused(tmp_path):
    config = {"model": {"net": {"_target_": "deblur_lab.models.NAFNet"}}, "data": 5}
    torch.save({"state_dict": {}, "deblur_lab": {"config": config}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="does not say on which data its network was trained"):
        load_net(tmp_path / "x.ckpt")


def test_weights_of_nafnet_start_an_m2aenet(tmp_path):
    sizes = (4, [1, 1], 1, [1, 1])
    nafnet, started = NAFNet(*sizes), M2AENet(*sizes, predictor_stages=[2])
    torch.nn.init.ones_(nafnet.intro.weight)
    state = {f"net.{key}": value for key, value in nafnet.state_dict().items()}
    left = load_weights(started, {"state_dict": state}, tmp_path / "x.ckpt", in_part=True)
    assert torch.equal(started.intro.weight, nafnet.intro.weight)
    assert left
    assert all(key.startswith(("mask_predictors", "analyzers")) or ".dconv." in key for key in left)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(started, {"state_dict": state}, tmp_path / "x.ckpt")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net=32 [final].ckpt", "日本 (1)\n'net'.pth"])
def test_published_weights_are_loaded_from_any_kind_of_file(tmp_path, name):
    net = NAFNet(4, [1, 2], 1, [1, 1]).eval()
    torch.nn.init.normal_(net.ending.weight)
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save({"params": net.state_dict()}, path)
    blurry = torch.rand(1, 3, 9, 14)
    assert torch.equal(load_model(path)(blurry), net(blurry))
    started = NAFNet(4, [1, 2], 1, [1, 1])
    assert load_weights(started, read_checkpoint(path), path) == []
    assert torch.equal(started.ending.weight, net.ending.weight)


def test_a_damaged_safetensors_file_is_named(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(NAFNet(4, [1], 1, [1]).state_dict(), path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=r"net\.safetensors cannot be read"):
        read_checkpoint(path)


def test_weights_of_another_size_are_told_apart(tmp_path):
    small, large = NAFNet(4, [1], 1, [1]), NAFNet(8, [1], 1, [1])
    state = {f"net.{key}": value for key, value in small.state_dict().items()}
    del state["net.intro.bias"]
    state["net.extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_weights(large, {"state_dict": state}, tmp_path / "x.ckpt")
    message = str(caught.value)
    assert "1 missing (intro.bias)" in message
    assert "1 unexpected (extra)" in message
    assert "intro.weight (4, 3, 3, 3), not (8, 3, 3, 3)" in message
    # Of many, five.
    assert re.search(r"\d\d of another shape \(([^()]+(\([^()]*\)[^()]*){2}, ){5}\.\.\.\)", message), message
    assert message.endswith("; the file looks like a NAFNet of width 4")


def test_the_average_of_the_weights_is_taken_where_there_is_one(tmp_path):
    net = NAFNet(4, [1], 1, [1])
    trained = {f"net.{key}": torch.zeros_like(value) for key, value in net.state_dict().items()}
    average = {f"ema.module.{key}": torch.ones_like(value) for key, value in net.state_dict().items()}
    load_weights(net, {"state_dict": trained | average}, tmp_path / "x.ckpt")
    assert all(torch.equal(value, torch.ones_like(value)) for value in net.state_dict().values())
