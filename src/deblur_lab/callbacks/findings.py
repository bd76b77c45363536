"""What a network says of blur and motion, held against the truth where the data know it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deblur_lab.callbacks.rows import Row
from deblur_lab.metrics import (
    THRESHOLDS,
    calibration,
    calibration_error,
    mask_scores,
    motion_scores,
    pool_blur,
    tally_blur,
    tally_motion,
)
from deblur_lab.restorations import USUAL_THRESHOLD, Restoration


def findings(
    outputs: Restoration, batch: Mapping[str, Any], position: int, threshold: float | None
) -> dict[str, Any]:
    """What is kept of an image, to be pooled by `pooled_findings`.

    Args:
        outputs: what the network says of the batch; of its motion, the first and the last instant count.
        batch: as the data module makes it.
        position: of the image in the batch.
        threshold: the network's own; None if it has none.

    Returns:
        `selected_share` and `dilated_share`, if the network has masks; and, where the true mask is known,
        `blur`, a `deblur_lab.metrics.BlurTally`, and, where the true motion is known, `motion`, a
        `deblur_lab.metrics.MotionTally`, of what the network tells.
    """
    found: dict[str, Any] = {}
    if outputs.selected_share is not None and outputs.dilated_share is not None:
        found["selected_share"] = float(outputs.selected_share[position])
        found["dilated_share"] = float(outputs.dilated_share[position])
    if not bool(batch["mask_known"][position]):
        return found  # the mask of ones says nothing
    mask = batch["mask"][position]
    if outputs.probability is not None:
        own = USUAL_THRESHOLD if threshold is None else threshold
        found["blur"] = tally_blur(outputs.probability[position], mask, (own, *THRESHOLDS))
    if outputs.motion is not None and "start" in batch and "end" in batch:
        start, end = (batch[name][position] for name in ("start", "end"))
        found["motion"] = tally_motion(outputs.motion[position], start, end, mask)
    return found


def pooled_findings(rows: Sequence[Row], threshold: float | None) -> dict[str, Any]:
    """The entries of a dataset's result that tell of masks and motion.

    Args:
        rows: its images, with their `findings`.
        threshold: the network's own; None if it has none.

    Returns:
        `threshold`, `selected_share` and `dilated_share`, means over the images, or None without masks; and,
        if any image has such a truth, `blur_detection` and `motion`, over all of their pixels.
    """
    result: dict[str, Any] = {"threshold": threshold}
    for name in ("selected_share", "dilated_share"):
        shares = [row[name] for row in rows if name in row]
        result[name] = math.fsum(shares) / len(shares) if shares else None
    blur = [row["blur"] for row in rows if "blur" in row]
    if blur:
        pooled = pool_blur(blur)
        bins = calibration(pooled)
        own = pooled.thresholds[0]
        result["blur_detection"] = {
            "threshold": own,
            **asdict(mask_scores(pooled, own)),
            "images": len(blur),
            "by_threshold": [{"threshold": at, **asdict(mask_scores(pooled, at))} for at in THRESHOLDS],
            "calibration": [
                {
                    "from": part.low,
                    "to": part.high,
                    "pixels": part.pixels,
                    "predicted": part.predicted,
                    "blurred": part.blurred,
                }
                for part in bins
            ],
            "calibration_error": calibration_error(bins),
        }
    motion = [row["motion"] for row in rows if "motion" in row]
    if motion:
        result["motion"] = {**asdict(motion_scores(motion)), "images": len(motion)}
    return result


def shown_findings(row: Row) -> dict[str, float]:
    """What a table of images tells of one: numbers by name, NaN where there is none."""
    shown: dict[str, float] = {name: row[name] for name in ("selected_share", "dilated_share") if name in row}
    if "blur" in row:
        shown["blur_iou"] = mask_scores(row["blur"], row["blur"].thresholds[0]).iou
    if "motion" in row:
        scores = motion_scores([row["motion"]])
        shown |= {"epe_px": scores.epe_px, "zero_epe_px": scores.zero_epe_px}
    return shown
