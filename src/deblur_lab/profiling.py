"""What a net costs: parameters, multiply-adds, time and peak memory, pruned and dense, beside NAFNet-32."""

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from deblur_lab.candidates import Candidate, Comparison, blob_mask, compare, has_masks
from deblur_lab.checkpoints import load_net
from deblur_lab.checks import picture_size_px
from deblur_lab.command_line import folder_for
from deblur_lab.config import build, plain
from deblur_lab.console import say
from deblur_lab.cost_tables import print_costs
from deblur_lab.errors import ConfigurationError, UserError
from deblur_lab.machine import machine_fault
from deblur_lab.models import AIBNet, M2AENet, NAFNet, UFPNet
from deblur_lab.provenance import processor, provenance
from deblur_lab.published_costs import AIBNET_SIZE_PX, Published, published_costs, shapes_of
from deblur_lab.restoring import device_named
from deblur_lab.writing import write_json


def profile(config: DictConfig) -> None:
    """Count and measure a net; print a table, write ``profile.json``.

    Args:
        config: ``conf/profile.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        UserError: of the kind that fits, in one line.
    """
    # The stages of a recipe refer to what a profile does not know.
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "stages"])
    settings: dict[str, Any] = plain(config)
    hydra = HydraConfig.get()
    typed = {setting.lstrip("+~").partition("=")[0] for setting in hydra.overrides.task}
    _refuse_unread(settings, typed)
    device = device_named(settings["device"])
    torch.manual_seed(settings["seed"])
    net, name = _net(settings, str(hydra.runtime.choices["model"]))
    if "size" not in typed and isinstance(net, AIBNet | UFPNet):
        settings["size"] = "x".join(map(str, AIBNET_SIZE_PX))
        say(f"size={settings['size']}, for which AIBNet's paper counts")
    if "blurred" in typed and not has_masks(net):
        raise ConfigurationError(
            f"blurred={settings['blurred']} has no effect: {type(net).__name__}, as set, predicts no masks"
        )
    folder = folder_for(settings["output"], f"{time.strftime('%Y%m%d')}-profile-{name}")
    if (folder / "profile.json").exists():
        say(f"older profile.json in {folder} is replaced")
    try:
        contents = _profiled(net.to(device), settings, device)
        write_json(folder / "profile.json", contents)
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # where nothing was written
        raise
    say(f"profile.json is in {folder}")


def _refuse_unread(settings: Mapping[str, Any], typed: set[str]) -> None:
    """Refuse a model beside a checkpoint, which knows its own."""
    models = sorted(key for key in typed if key.split(".")[0] == "model")
    if settings["checkpoint"] is not None and models:
        raise ConfigurationError(f"{models[0]}= has no effect with checkpoint=, which knows its model")


def _net(settings: Mapping[str, Any], choice: str) -> tuple[nn.Module, str]:
    """The net in eval mode, and what to call it in the name of a folder."""
    trusted = tuple(settings["trusted_packages"])
    if settings["checkpoint"] is not None:
        net, _ = load_net(Path(settings["checkpoint"]), trusted)
        return net.eval(), type(net).__name__.lower()
    net = build(settings["model"]["net"], trusted, key="model.net")
    _enliven(net)
    return net.eval(), choice


def _enliven(net: nn.Module) -> None:
    """Let all weights count: many start at zero, and then whole blocks change nothing, however computed."""
    for parameter in net.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)


def _profiled(net: nn.Module, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Count, measure and print."""
    width_px, height_px = picture_size_px(settings["size"])
    candidates = _candidates(net, device)
    generator = torch.Generator().manual_seed(settings["seed"])
    remedy = "a smaller size=" + (
        "" if settings["precision"] == "bf16-mixed" else ", or precision=bf16-mixed"
    )
    try:
        with torch.no_grad():
            blurry = torch.rand(1, 3, height_px, width_px, generator=generator).to(device)
            mask = None
            if has_masks(net):
                assert isinstance(net, M2AENet), "no other net has masks"
                mask = blob_mask(net, (height_px, width_px), settings["blurred"], generator).to(device)
            comparison = compare(candidates, blurry, mask, settings["precision"], settings["repeats"])
    except UserError:
        raise
    except Exception as error:
        fault = machine_fault(error, device, remedy)
        if fault is not None:
            raise fault from error
        if isinstance(error, ValueError):  # more pixels than an operation can address
            raise ConfigurationError(f"size={settings['size']}: {error}") from error
        raise
    published = published_costs(net, (width_px, height_px))
    padded = _padded_size(net, (width_px, height_px))
    contents = _contents(candidates, settings, device, comparison, published, padded)
    print_costs(contents, published)
    return contents


def _candidates(net: nn.Module, device: torch.device) -> list[Candidate]:
    """The columns: the net pruned and dense if it has masks, and NAFNet-32 if it is not that itself."""
    name = type(net).__name__
    if has_masks(net):
        columns = [Candidate(f"{name}, dense", net, "dense"), Candidate(f"{name}, pruned", net, "pruned")]
    else:
        columns = [Candidate(name, net)]
    nafnet = NAFNet().eval().to(device)
    if type(net) is NAFNet and shapes_of(net) == shapes_of(nafnet):
        columns[0].name = "NAFNet-32"
        return columns
    _enliven(nafnet)
    return [*columns, Candidate("NAFNet-32", nafnet)]


def _padded_size(net: nn.Module, size_px: tuple[int, int]) -> tuple[int, int] | None:
    """Width and height of what the net works on, if that is known."""
    if not isinstance(net, NAFNet | AIBNet):
        return None
    width_px, height_px = size_px
    backbone = net.encoder if isinstance(net, AIBNet) else net
    padded = backbone.pad(torch.empty(1, 3, height_px, width_px, device="meta"))
    return padded.shape[3], padded.shape[2]


def _contents(
    candidates: Sequence[Candidate],
    settings: Mapping[str, Any],
    device: torch.device,
    comparison: Comparison | None,
    published: Published | None,
    padded: tuple[int, int] | None,
) -> dict[str, Any]:
    """What is written to ``profile.json``."""
    net = candidates[0].net
    typed = None if settings["checkpoint"] is not None else settings["model"]["net"]
    return {
        "model": type(net).__name__,
        "net": typed,
        "checkpoint": settings["checkpoint"],
        "size_px": list(picture_size_px(settings["size"])),
        "padded_size_px": None if padded is None else list(padded),
        "blurred": None if comparison is None else settings["blurred"],
        "selected_share": None if comparison is None else comparison.selected_share,
        "dilated_share": None if comparison is None else comparison.dilated_share,
        "difference_pruned_dense": None if comparison is None else comparison.difference,
        "precision": settings["precision"],
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "seed": settings["seed"],
        "passes": len(candidates[0].passes),
        **provenance("cpu" if device.type == "cpu" else "auto"),
        "results": [_result(candidate) for candidate in candidates],
        "time_ratios": _ratios(candidates),
        "published": None if published is None else published.as_json(),
    }


def _result(candidate: Candidate) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "parameters": candidate.parameters,
        "multiply_adds": sum(candidate.multiply_adds.values()),
        "multiply_adds_by_operation": candidate.multiply_adds,
        "parts": [part.as_json() for part in candidate.parts],
        "seconds": {**_spread(candidate.seconds), "all": candidate.seconds},
        "peak_memory_bytes": candidate.peak_bytes,
    }


def _ratios(candidates: Sequence[Candidate]) -> dict[str, dict[str, float]]:
    """Times over those of others in the same turn, by what they are of."""
    by_name = {candidate.name: candidate for candidate in candidates}
    names = list(by_name)
    # Pruned over dense, and each over NAFNet-32, which comes last.
    pairs = [(names[1], names[0])] if len(names) == 3 else []
    pairs += [(name, names[-1]) for name in names[:-1]]
    return {
        f"{over} / {under}": _spread(
            [
                above / below
                for above, below in zip(by_name[over].seconds, by_name[under].seconds, strict=True)
            ]
        )
        for over, under in pairs
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
