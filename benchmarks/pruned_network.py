"""Score and time a trained M2AENet, pruned against dense, for masks of given shares; print one JSON.

    python benchmarks/pruned_network.py --checkpoint runs/DIR/checkpoints/last.ckpt [--output FILE]

Each synthetic scene is restored under made masks, discs that cover 5 to 100 % of it, once dense and once
pruned, and both results are scored against the sharp picture, by all scores of the local protocol and with
the scene's true mask: neither pictures nor scores may differ, of any scene. Scores under masks that do not
follow the blur say nothing of the network; only their difference is meant. So, too, under the network's own
masks.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import measuring
import torch
from torch import Tensor

from deblur_lab import load_model
from deblur_lab.data import LocalMotion, Scene, SyntheticSource
from deblur_lab.images import to_tensor
from deblur_lab.metrics import LocalProtocol
from deblur_lab.models import M2AENet

SHARES = (0.05, 0.1, 0.3, 0.6, 1.0)
TOLERANCE = 1e-4  # of a pixel of [0, 1], of a score in dB, and of an SSIM


class Example(NamedTuple):
    """A scene as tensors: the pictures, (1, 3, H, W), and the true mask, (1, 1, H, W)."""

    blurry: Tensor
    sharp: Tensor
    mask: Tensor


def restored(net: M2AENet, blurry: Tensor, mask: Tensor | None, pruning: str) -> Tensor:
    """The restored picture, under a given mask or the net's own."""
    net.pruning = pruning
    return net.analyze(blurry, mask=mask).restored


def example(scene: Scene) -> Example:
    """Bring a scene to tensors."""
    assert scene.mask is not None, "synthetic scenes know what is blurred"
    mask = torch.tensor(scene.mask, dtype=torch.float32)[None, None]
    return Example(to_tensor(scene.blurry)[None], to_tensor(scene.sharp)[None], mask)


def measure(net: M2AENet, examples: Sequence[Example], share: float | None, turns: int) -> dict[str, object]:
    """Compare dense, pruned and automatic under masks of a share; None: under the net's own."""
    protocol = LocalProtocol()
    side = examples[0].blurry.shape[-1]
    masks = [
        None if share is None else measuring.discs((side, side), share, (side / 20, side / 8), seed)
        for seed in range(len(examples))
    ]
    scores: dict[str, list[dict[str, float]]] = {"dense": [], "pruned": []}
    differences = []
    for (blurry, sharp, truth), mask in zip(examples, masks, strict=True):
        found = {pruning: restored(net, blurry, mask, pruning) for pruning in scores}
        differences.append((found["dense"] - found["pruned"]).abs().max().item())
        for pruning, picture in found.items():
            scores[pruning].append(protocol.score(picture, sharp, truth))
    names = list(protocol.higher_is_better)
    by_score = {
        name: [abs(dense[name] - pruned[name]) for dense, pruned in zip(*scores.values(), strict=True)]
        for name in names
    }
    assert max(differences) < TOLERANCE, f"dense and pruned pictures differ: {differences}"
    # Each by itself: means would hide what cancels out, and max() what is not a number.
    equal = all(one <= TOLERANCE for of_scenes in by_score.values() for one in of_scenes)
    assert equal, f"dense and pruned scores differ: {by_score}"
    blurry, mask = examples[0].blurry, masks[0]
    (stage,) = net.analyze(blurry, mask=mask).stages
    times = measuring.in_turn(
        {name: lambda name=name: restored(net, blurry, mask, name) for name in ("dense", "pruned", "auto")},
        turns,
    )
    assert stage.mask is not None
    return {
        "mask": "as predicted" if share is None else f"discs, {share:.0%}",
        "selected_share": round(stage.mask.mean().item(), 4),
        "scores": {
            pruning: {name: fmean(one[name] for one in of_scenes) for name in names}
            for pruning, of_scenes in scores.items()
        },
        "largest_score_differences": {name: max(of_scenes) for name, of_scenes in by_score.items()},
        "largest_pixel_difference": max(differences),
        "milliseconds": measuring.milliseconds(times),
        "pruned_over_dense": measuring.spread(measuring.ratios(times, "pruned", "dense")),
        "auto_over_dense": measuring.spread(measuring.ratios(times, "auto", "dense")),
    }


def main() -> None:
    """Read the command line, measure and print the JSON."""
    parser = measuring.parser("Score and time a trained M2AENet, pruned against dense.")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="of an M2AENet with one predictor stage"
    )
    parser.add_argument("--size", type=int, default=768, help="side of the scenes in px (default: 768)")
    parser.add_argument("--scenes", type=int, default=4, help="how many are scored (default: 4)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    net = load_model(arguments.checkpoint)
    assert isinstance(net, M2AENet), "this is for M2AENet"
    made = SyntheticSource(
        LocalMotion(4, 10), LocalProtocol(), size_px=arguments.size, test_scenes=arguments.scenes
    ).scenes("test")
    examples = [example(made.load(index)) for index in range(arguments.scenes)]
    with torch.inference_mode():
        results = [measure(net, examples, share, arguments.turns) for share in (*SHARES, None)]
    about = {
        "checkpoint": str(arguments.checkpoint),
        "data": f"{arguments.scenes} synthetic scenes of {arguments.size} px, blur of 4 to 10 px, seed 0",
        "results": results,
    }
    measuring.report("M2AENet, pruned and dense", arguments, about)


if __name__ == "__main__":
    main()
