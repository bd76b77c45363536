"""Checkpoints are whole or absent, run nothing, and say what is wrong with them."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from deblur_lab import load_model
from deblur_lab.checkpoints import AtomicCheckpoints, load_net, load_weights, read_checkpoint
from deblur_lab.errors import CheckpointError, MachineError, UserError
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
    with pytest.raises(CheckpointError, match=r"evil\.ckpt is refused: .* holds posix\.system$"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Trap(f"touch {trace}")))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_named(tmp_path, kept):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"last\.ckpt") as caught:
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
    with pytest.raises(CheckpointError, match=r"other\.ckpt is of no network that is known here: 0 tensors"):
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


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net=32 [final].ckpt"])
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


def test_the_average_of_the_weights_is_taken_where_there_is_one(tmp_path):
    net = NAFNet(4, [1], 1, [1])
    trained = {f"net.{key}": torch.zeros_like(value) for key, value in net.state_dict().items()}
    average = {f"ema.module.{key}": torch.ones_like(value) for key, value in net.state_dict().items()}
    load_weights(net, {"state_dict": trained | average}, tmp_path / "x.ckpt")
    assert all(torch.equal(value, torch.ones_like(value)) for value in net.state_dict().values())


def test_a_folder_that_cannot_be_written_to_keeps_the_old_file_and_no_other(tmp_path):
    writer, path = AtomicCheckpoints(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)

    class Unpicklable:
        def __reduce__(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match=r"last\.ckpt cannot be written.*No space left"):
        writer.save_checkpoint({"step": Unpicklable()}, path)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert read_checkpoint(path) == {"step": 1}


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    writer, path = AtomicCheckpoints(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt is not written: .*torch\.torch_version\.TorchVersion"
    ):
        writer.save_checkpoint({"torch": torch.__version__}, path)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert read_checkpoint(path) == {"step": 1}


def test_what_a_killed_process_left_is_removed_and_no_other(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f".last.ckpt.{gone.pid}.tmp", f".last.ckpt.{os.getppid()}.tmp", ".last.ckpt.mine.tmp"):
        (tmp_path / name).touch()
    AtomicCheckpoints().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    kept = {"last.ckpt", f".last.ckpt.{os.getppid()}.tmp", ".last.ckpt.mine.tmp"}
    assert set(os.listdir(tmp_path)) == kept


WRITER = """
import sys, torch
from deblur_lab.checkpoints import AtomicCheckpoints
step, path = 0, sys.argv[1]
while True:
    step += 1
    AtomicCheckpoints().save_checkpoint({"step": step, "weights": torch.full((500_000,), float(step))}, path)
    print(step, flush=True)
"""


def test_a_kill_while_writing_leaves_the_newest_checkpoint_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # Kill it in the middle of its work: at a moment that differs from run to run.
    printed = [process.stdout.readline() for _ in range(5)]
    time.sleep(0.003 * (os.getpid() % 7))
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    printed += process.stdout.read().splitlines()
    process.stdout.close()
    contents = read_checkpoint(path)
    assert contents["step"] >= int(printed[-1])
    assert torch.equal(contents["weights"], torch.full((500_000,), float(contents["step"])))
