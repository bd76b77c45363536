"""What the commands say on the screen, from the first process alone."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

# Highlighting would colour every number of a path.
_console = Console(highlight=False, soft_wrap=True)

SCORE_TITLES = {
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "weighted_psnr_db": "weighted PSNR (dB)",
    "weighted_ssim": "weighted SSIM",
}


@rank_zero_only
def say(line: str) -> None:
    """Print one line, taken as it is."""
    _console.print(line, markup=False)


@rank_zero_only
def print_scores(results: Sequence[Mapping[str, Any]]) -> None:
    """Print, for each dataset, the means of the blurry input, of the restored pictures, and the gain.

    Args:
        results: as `deblur_lab.callbacks.Scores` gathers them.
    """
    for result in results:
        table = Table(title=f"{result['dataset']}, {result['split']} split, {result['images']} images")
        table.add_column("score")
        for column in ("blurry", "restored", "gain"):
            table.add_column(column, justify="right")
        for name, restored in result["scores"].items():
            blurry = result["blurry_scores"][name]
            digits = 2 if name.endswith("_db") else 4
            numbers = (f"{blurry:.{digits}f}", f"{restored:.{digits}f}", f"{restored - blurry:+.{digits}f}")
            table.add_row(
                SCORE_TITLES.get(name, name),
                *("-" if math.isnan(restored) or math.isnan(blurry) else number for number in numbers),
            )
        _console.print(table)
        protocol = result["protocol"]
        converter = f"on ({result['tlc_size_px']} px patches)" if result["tlc"] else "off"
        say(f"protocol {protocol['name']}: {protocol['description']}; test-time local converter {converter}")
        left_out = {name: count for name, count in result["left_out"].items() if count}
        for name, count in left_out.items():
            why = "no mask, no blurred pixel, or too small"
            say(f"{name}: {count} of {result['images']} images have none ({why}) and are left out")


def quieten() -> None:
    """Leave out what Lightning says on every run and nobody can act on here."""
    for message in (
        # Our samplers start where the run stopped, so that an ordinary loader is as good as a resumable one.
        ".*your dataloader is not resumable.*",
        # On two cores, workers cost more than they give.
        ".*does not have many workers.*",
        # PyTorch's tree utilities, called by Lightning.
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*Checkpoint directory .* exists and is not empty.*",
        # Gradients of depth-wise convolutions come in channels_last; DDP copies them, which is quick.
        ".*Grad strides do not match bucket view strides.*",
        # So it is where the first step overflows in half precision, and is left out.
        ".*Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`.*",
        # A training is one long epoch, counted in steps.
        ".*smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
