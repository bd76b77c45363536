"""A network as a file that other programs run: ONNX, or an exported program of PyTorch.

The graph takes pictures of any height, width and number, and pads and crops inside. It is compared with the
network that it was made from before the file takes its name.
"""

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from deblur_lab.checkpoints import load_net
from deblur_lab.config import plain
from deblur_lab.console import say
from deblur_lab.errors import CheckpointError, ConfigurationError, MachineError
from deblur_lab.images import quoted
from deblur_lab.models import AIBNet, M2AENet, NAFNet, UFPNet
from deblur_lab.provenance import provenance
from deblur_lab.writing import amount, replacing, unwritable

SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "torch_export": ".pt2"}
METADATA_KEY = "deblur_lab"
"""Of the record in the file: a property of ONNX's metadata, a file in the exported program's archive."""
LARGEST_DIFFERENCE = 1e-3
"""Of what the file and the network give, in units of [0, 1]: a quarter of a step of 8 bits.

Float32 sums in another order differ by less than a hundredth of it.
"""
CHECKED_SIZES = ((1, 96, 128), (1, 77, 101), (2, 64, 64))
"""Pictures, height and width: one that needs no padding, one of odd sides, and two pictures at once."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST_PROTOBUF_BYTES = 2**31 - 1

Runs = Callable[[Tensor], Tensor]


def export(config: DictConfig) -> None:
    """Write a network as ONNX or as an exported program of PyTorch.

    Args:
        config: ``conf/export.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: a setting does not fit, or the network is of a kind that cannot be exported.
        CheckpointError: the checkpoint cannot be used.
        MachineError: a package is missing, the file cannot be written, or what was written does not give
            what the network gives.
    """
    settings = plain(config)
    form, checkpoint = settings["format"], Path(settings["checkpoint"])
    typed = {setting.partition("=")[0] for setting in HydraConfig.get().overrides.task}
    if form == "torch_export" and "opset" in typed:
        raise ConfigurationError(f"opset={settings['opset']} has no effect with format=torch_export")
    target = target_of(settings["output"], checkpoint, form)
    if form == "onnx":
        require_packages()
        require_opset(settings["opset"])
    net, record = load_net(checkpoint, tuple(settings["trusted_packages"]))
    require_exportable(net, checkpoint)
    metadata = metadata_of(net, record, checkpoint)
    started = time.perf_counter()
    say(f"exporting {type(net).__name__}, which takes up to some minutes")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target, error) from error
    replaced = target.exists()
    with replacing(target, "wb") as file:
        if form == "onnx":
            metadata["opset"] = settings["opset"]
            write_onnx(exported(net), file, settings["opset"], metadata)
        else:
            write_program(exported(net), file, metadata)
        file.flush()
        runs = onnx_runs(Path(file.name)) if form == "onnx" else program_runs(Path(file.name))
        largest = compared(net, runs, target)
        size = os.path.getsize(file.name)
    if replaced:
        say(f"older {quoted(target)} is replaced")
    by = "ONNX Runtime" if form == "onnx" else "the program as read back"
    seconds = time.perf_counter() - started
    say(
        f"{quoted(target)}, {amount(size)}, in {seconds:.0f} s; {by} and the network differ by {largest:.1e} "
        f"at most, at {_sizes()}"
    )


def target_of(output: str | None, checkpoint: Path, form: str) -> Path:
    """The file to write.

    Raises:
        ConfigurationError: it is named as if it were of another format, is a folder, or is the checkpoint.
    """
    suffix = SUFFIXES[form]
    target = checkpoint.with_suffix(suffix) if output is None else Path(output)
    if target.suffix.lower() != suffix:
        raise ConfigurationError(
            f"output={quoted(target)}: format={form} writes a file that ends in {suffix}"
        )
    if target.is_dir():
        raise ConfigurationError(f"output={quoted(target)} is a folder: name a file in it")
    if target.exists() and checkpoint.exists() and target.samefile(checkpoint):
        raise ConfigurationError(
            f"output={quoted(target)} is the checkpoint, which would be overwritten: name another"
        )
    return target


def require_packages() -> None:
    """Refuse ONNX where what it needs is not installed.

    Raises:
        MachineError: names what is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MachineError(f"format=onnx needs {', '.join(missing)}: pip install 'deblur_lab[export]'")


def require_exportable(net: nn.Module, checkpoint: Path) -> None:
    """Refuse a network whose computation is no fixed graph, before any work.

    Raises:
        ConfigurationError: says why.
    """
    if type(net) in (NAFNet, M2AENet):
        return
    if isinstance(net, UFPNet):
        reason = "it decodes its blur kernels some pixels at a time, as often as the picture's size asks for"
    elif isinstance(net, AIBNet):
        reason = "tracing it fixes the number of pictures, which differs from use to use"
    else:
        reason = "its graph has not been tried at every size"
    raise ConfigurationError(
        f"checkpoint={quoted(checkpoint)}: {type(net).__name__} cannot be exported, for {reason}; NAFNet and "
        "M2AENet can"
    )


def metadata_of(net: nn.Module, record: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """What is recorded in the file, so that it is known what it is and what it takes."""
    made = provenance("cpu")
    try:
        with checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"checkpoint {quoted(checkpoint)} cannot be read: {error.strerror}") from error
    return {
        "net": type(net).__name__,
        "settings": record.get("config", {}).get("model", {}).get("net"),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": digest,
        "trained_by": {key: record.get(key) for key in ("version", "commit")},
        "exported_by": {key: made[key] for key in ("version", "commit", "torch")},
        "input": {"name": "blurry", "shape": "(B, 3, H, W)", "type": "float32", "range": "RGB in [0, 1]"},
        "output": {"name": "restored", "shape": "(B, 3, H, W)", "type": "float32", "range": "not clamped"},
    }


def exported(net: nn.Module) -> ExportedProgram:
    """The graph of a network, in eval mode and dense, for any number, height and width of pictures.

    Args:
        net: (B, 3, H, W) to the same; an M2AENet is set to ``pruning="dense"``.
    """
    if isinstance(net, M2AENet):
        net.pruning = "dense"
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    example = torch.rand(2, 3, 50, 70)
    with torch.no_grad():
        program = torch.export.export(net.eval(), (example,), dynamic_shapes=(free,), strict=False)
    # What the tracer notes of the example's size is about how tensors lie in memory (that it needs padding,
    # say), not about what is computed; left in, it refuses each picture that differs in that. `compared`
    # proves the graph at sizes that do.
    program._guards_code = []
    return program


def require_opset(opset: int) -> None:
    """Refuse a version of ONNX's operators that is not known here.

    Raises:
        ConfigurationError: names the newest.
    """
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    if opset > newest:
        raise ConfigurationError(f"opset={opset}: the onnx package here knows versions up to {newest}")


def write_onnx(program: ExportedProgram, file: IO[bytes], opset: int, metadata: Mapping[str, Any]) -> None:
    """Write ONNX, weights and all, in one file.

    Raises:
        ConfigurationError: the graph comes out as another opset, or is too large for one file.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if weights > _LARGEST_PROTOBUF_BYTES * 0.95:
        raise ConfigurationError(
            f"format=onnx: {amount(weights)} of weights do not fit into one ONNX file, 2 GB"
        )
    with _quiet():
        translated = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=["blurry"],
            output_names=["restored"],
            verbose=False,
        )
    assert translated is not None
    model = translated.model_proto
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions[""] != opset:
        raise ConfigurationError(
            f"opset={opset}: this network's graph comes out as {versions['']}, give that"
        )
    named = ("pictures", None, "height", "width")
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, named, strict=True):
            if name is not None:
                dimension.dim_param = name
    model.producer_name, model.producer_version = "deblur_lab", metadata["exported_by"]["version"]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(metadata)
    file.write(model.SerializeToString())


def write_program(program: ExportedProgram, file: IO[bytes], metadata: Mapping[str, Any]) -> None:
    """Write an exported program of PyTorch, with the record beside it in the archive."""
    with _quiet():
        torch.export.save(program, file, extra_files={METADATA_KEY: json.dumps(metadata)})


def onnx_runs(path: Path) -> Runs:
    """The file in ONNX Runtime, on the CPU.

    Raises:
        MachineError: ONNX Runtime does not take it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, none of which is public
        reason = str(error).splitlines()[0]
        raise MachineError(
            f"ONNX Runtime {onnxruntime.__version__} does not take the file ({reason}); it is not kept: try "
            "opset=18"
        ) from error
    return lambda blurry: torch.from_numpy(session.run(None, {"blurry": blurry.numpy()})[0])


def program_runs(path: Path) -> Runs:
    """The exported program, as read back."""
    with path.open("rb") as file, _quiet():
        module = torch.export.load(file).module()
    return lambda blurry: module(blurry)


def compared(net: nn.Module, runs: Runs, target: Path) -> float:
    """The largest difference between what a file gives and what its network does, at `CHECKED_SIZES`.

    Raises:
        MachineError: it is above `LARGEST_DIFFERENCE`, not finite, or a size cannot be run.
    """
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for pictures, height, width in CHECKED_SIZES:
        blurry = _made_up(pictures, height, width, generator)
        with torch.no_grad():
            expected = net(blurry)
        try:
            with torch.no_grad():
                found = runs(blurry)
        except Exception as error:  # whatever a runtime may raise
            reason = str(error).splitlines()[0]
            raise MachineError(
                f"{quoted(target)} is not kept: it does not run at {width}x{height} ({reason})"
            ) from error
        difference = float((found - expected).abs().max()) if found.shape == expected.shape else float("nan")
        # Of a network that is not trained, or diverged, values may be large.
        allowed = LARGEST_DIFFERENCE * max(1.0, float(expected.abs().max()))
        if not difference <= allowed:
            raise MachineError(
                f"{quoted(target)} is not kept: at {width}x{height} it differs from the network by "
                f"{difference:.1e}, more than {allowed:.1e}"
            )
        largest = max(largest, difference)
    return largest


def _made_up(pictures: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Pictures with smooth parts and noise, (B, 3, H, W) in [0, 1]."""
    coarse = torch.rand(pictures, 3, height // 12 + 1, width // 12 + 1, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (smooth + 0.1 * (torch.rand(smooth.shape, generator=generator) - 0.5)).clamp(0, 1)


def _sizes() -> str:
    """The sizes compared, in words."""
    return ", ".join(
        f"{width}x{height}" + (f" ({pictures} pictures)" if pictures > 1 else "")
        for pictures, height, width in CHECKED_SIZES
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep away what the exporters say of their own workings, which tells a user nothing."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
