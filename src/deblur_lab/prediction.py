"""A person's own pictures, restored."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from deblur_lab.checkpoints import load_net
from deblur_lab.command_line import folder_for
from deblur_lab.config import plain, range_faults, refuse
from deblur_lab.console import say
from deblur_lab.errors import ConfigurationError, DataError, DivergedError
from deblur_lab.images import PICTURE_SUFFIXES, read_rgb, restore_tiled, to_tensor, to_uint8, write_png
from deblur_lab.pictures import mask_overlay, trajectory_overlay
from deblur_lab.tasks import Explaining, Restoration, restore


def predict(config: DictConfig) -> None:
    """Restore a photo, or all photos of a folder, into another folder.

    Args:
        config: ``conf/predict.yaml``, composed.

    Raises:
        ConfigurationError: a setting is out of range.
        CheckpointError: the checkpoint cannot be used.
        DataError: there is no picture, or some could not be read (after all others are restored).
    """
    settings = plain(config)
    refuse(range_faults(settings, {"tile_px": 1, "overlap_px": 0}, ["explain"]))
    tile_px, overlap_px = settings["tile_px"], settings["overlap_px"]
    if tile_px <= 2 * overlap_px:
        raise ConfigurationError(
            f"tile_px={tile_px}, overlap_px={overlap_px}: tiles of over twice the overlap are expected"
        )
    source = Path(settings["input"])
    inputs = pictures_in(source, Path(settings["output"]))
    device = _device(settings["device"])
    net, _ = load_net(Path(settings["checkpoint"]), tuple(settings["trusted_packages"]))
    net.to(device)
    if settings["explain"] and not isinstance(net, Explaining):
        raise ConfigurationError(f"explain=true: {type(net).__name__} cannot say where it sees blur")
    folder = folder_for(settings["output"], "")
    targets = _targets(inputs, source, folder)

    started, failures, restored_count = time.monotonic(), [], 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("restoring", total=len(inputs))
        for path, target in zip(inputs, targets, strict=True):
            try:
                picture = read_rgb(path)
            except DataError as error:
                failures.append(str(error))
            else:
                _write(
                    target, picture, restore_picture(net, picture, tile_px, overlap_px, settings["explain"])
                )
                restored_count += 1
            progress.advance(bar)
    say(f"{restored_count} of {len(inputs)} restored in {time.monotonic() - started:.1f} s, in {folder}")
    if failures:
        raise DataError(f"{len(failures)} could not be restored:\n       " + "\n       ".join(failures))


def pictures_in(source: Path, output: Path) -> list[Path]:
    """The picture that `source` is, or those below the folder that it is, in order of their paths.

    What lies in the folder `output` was restored by an earlier call, and is left out.

    Raises:
        DataError: it does not exist, or holds no picture.
        ConfigurationError: it is the output as well.
    """
    if not source.exists():
        raise DataError(f"input={source} does not exist")
    if source.is_file():
        return [source]
    written = output.absolute()
    if written == source.absolute():
        raise ConfigurationError(f"output={output} is the input, which would be overwritten: name another")
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
        and written not in path.absolute().parents
    )
    if not found:
        raise DataError(f"input={source} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return found


def restore_picture(
    net: nn.Module, picture: NDArray[np.uint8], tile_px: int, overlap_px: int, explained: bool = False
) -> Restoration:
    """Restore one picture, in tiles if a side is longer than `tile_px`.

    Args:
        net: in eval mode; images in, restored images out.
        picture: (H, W, 3) uint8.
        tile_px: side of a tile.
        overlap_px: by how much neighbouring tiles overlap.
        explained: whether to ask the network for the blur and the motion that it sees too.

    Returns:
        Of one picture, on the CPU, in float32.
    """
    device = next(net.parameters()).device
    instants: int | None = None
    probable = False

    def run(tile: Tensor) -> Tensor:
        # What the network says is laid out as further channels, so that tiles are blended in it too.
        nonlocal instants, probable
        with torch.inference_mode():
            said = restore(net, tile.to(device)) if explained else Restoration(net(tile.to(device)))
        probable = said.probability is not None
        instants = None if said.motion is None else said.motion.shape[1]
        maps = [said.restored, said.probability, None if said.motion is None else said.motion.flatten(1, 2)]
        return torch.cat([part.float().cpu() for part in maps if part is not None], dim=1)

    blurry = to_tensor(picture)[None]
    large = max(picture.shape[:2]) > tile_px
    maps = restore_tiled(run, blurry, tile_px=tile_px, overlap_px=overlap_px) if large else run(blurry)
    return Restoration(
        maps[:, :3],
        maps[:, 3:4] if probable else None,
        None if instants is None else maps[:, -2 * instants :].reshape(1, instants, 2, *maps.shape[-2:]),
    )


def _write(target: Path, picture: NDArray[np.uint8], said: Restoration) -> None:
    if not said.restored.isfinite().all():
        raise DivergedError(f"what the network made of {target.name} is not finite: its weights are damaged")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_png(target, to_uint8(said.restored[0]))
    shown = [picture]
    probability = None if said.probability is None else said.probability[0]
    if probability is not None:
        shown.append(mask_overlay(picture, probability))
    if said.motion is not None:
        shown.append(trajectory_overlay(picture, said.motion[0], probability))
    if len(shown) > 1:
        write_png(target.with_suffix(".explained.png"), np.concatenate(shown, axis=1))


def _targets(inputs: list[Path], source: Path, folder: Path) -> list[Path]:
    """Where each restored picture goes: the same place below `folder`, as PNG."""
    below = [path.relative_to(source) if path != source else Path(path.name) for path in inputs]
    targets = [folder / path.with_suffix(".png") for path in below]
    taken: dict[Path, Path] = {}
    for path, target in zip(inputs, targets, strict=True):
        if target in taken:
            raise DataError(f"{taken[target]} and {path} would both be written to {target}: rename one")
        if target.exists() and target.samefile(path):
            raise ConfigurationError(f"output={folder} would overwrite {path}: name another folder")
        taken[target] = path
    return targets


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device={name}: auto, cpu or cuda is expected") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device={name} cannot be used here: {reason}") from error
    return device
