"""Numbers and words that dashboards show beside a run, by name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# What stands in a run's ``costs.json``, by what it is called on a dashboard.
_TOOK = {
    "trained_parameters": "trained_parameters",
    "peak_memory_bytes": "train_peak_memory_bytes",
    "seconds": "train_seconds",
}


def finite(value: float | None) -> float | None:
    """A finite number, or None."""
    return value if value is not None and math.isfinite(value) else None


def score_values(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Test scores; with several datasets, the first one's have the plain names.

    Args:
        results: as `deblur_lab.callbacks.Scores` gathers them.
    """
    values: dict[str, Any] = {}
    for number, result in enumerate(results):
        prefix = "test/" if number == 0 else f"test/{result['dataset']}_"
        values[f"{prefix}dataset"] = result["dataset"]
        values[f"{prefix}protocol"] = result["protocol"]["name"]
        values[f"{prefix}tlc"] = result["tlc"]
        values[f"{prefix}images"] = result["images"]
        for infix, scores in (("", result["scores"]), ("blurry_", result["blurry_scores"])):
            for name, value in scores.items():
                if finite(value) is not None:
                    values[f"{prefix}{infix}{name}"] = value
        for name, value in _findings(result).items():
            if finite(value) is not None:
                values[f"{prefix}{name}"] = value
    return values


def cost_values(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a net costs and what its training used, as far as that is known.

    Args:
        about: what stands beside the scores in ``scores.json``: ``cost`` and ``budget``.
    """
    cost, used = about.get("cost") or {}, about.get("budget") or {}
    values = {f"cost/{name}": cost.get(name) for name in ("net", "parameters", "multiply_adds")}
    size_px = cost.get("size_px")
    values["cost/size_px"] = None if size_px is None else "x".join(map(str, size_px))
    values |= {f"used/{name}": used.get(name) for name in ("steps", "patches", "multiply_adds")}
    return {name: value for name, value in values.items() if value is not None}


def training_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a training took.

    Args:
        row: as `deblur_lab.stage_table.row_of` has it.
    """
    return {f"cost/{shown}": row[name] for name, shown in _TOOK.items() if row.get(name) is not None}


def _findings(result: Mapping[str, Any]) -> dict[str, float | None]:
    """What a result says of masks and motion, and of other thresholds, each number under a name."""
    blur, motion = result.get("blur_detection", {}), result.get("motion", {})
    found = {name: result.get(name) for name in ("threshold", "selected_share", "dilated_share")}
    found |= {f"blur_{name}": blur.get(name) for name in ("precision", "recall", "f1", "iou")}
    found["blur_calibration_error"] = blur.get("calibration_error")
    for name in (
        "epe_px",
        "zero_epe_px",
        "moving_epe_px",
        "moving_zero_epe_px",
        "orientation_error_deg",
    ):
        found[name] = motion.get(name)
    for at in result.get("thresholds", ()):
        place = f"threshold_{at['threshold']:g}"
        found |= {f"{place}/{name}": at[name] for name in ("selected_share", "dilated_share")}
        found |= {f"{place}/{name}": value for name, value in at["scores"].items()}
    return found
