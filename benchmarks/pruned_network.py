"""Score and time a trained M2AENet, pruned against dense, for masks of given shares; print one JSON.

    python benchmarks/pruned_network.py --checkpoint runs/DIR/checkpoints/last.ckpt [--output FILE]

Each synthetic scene is restored under made masks, discs that cover 5 to 100 % of it, once dense and once
pruned, and both results are scored against the sharp picture: the scores may not differ. Scores under masks
that do not follow the blur say nothing of the network; only their difference is meant. So, too, under the
network's own masks.
"""

from pathlib import Path

import measuring
import numpy as np
import torch
from torch import Tensor

from deblur_lab import load_model
from deblur_lab.data import LocalMotion, SyntheticSource
from deblur_lab.images import to_tensor
from deblur_lab.metrics import LocalProtocol
from deblur_lab.models import M2AENet

SHARES = (0.05, 0.1, 0.3, 0.6, 1.0)
TOLERANCE_DB = 1e-4


def discs(side: int, share: float, seed: int) -> Tensor:
    """Discs of a twentieth to an eighth of the side, added until they cover a share: (1, 1, side, side)."""
    rng = np.random.default_rng(seed)
    mask = np.full((side, side), share >= 1)
    y, x = np.mgrid[:side, :side]
    while mask.mean() < share:
        row, column, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(side / 20, side / 8)
        mask |= (y - row) ** 2 + (x - column) ** 2 < radius**2
    return torch.from_numpy(mask)[None, None].float()


def restored(net: M2AENet, blurry: Tensor, mask: Tensor | None, pruning: str) -> Tensor:
    """The restored picture, under a given mask or the net's own."""
    net.pruning = pruning
    return net.analyze(blurry, mask=mask).restored


def measure(
    net: M2AENet, scenes: list[tuple[Tensor, Tensor]], share: float | None, turns: int
) -> dict[str, object]:
    """Compare dense, pruned and automatic under masks of a share; None: under the net's own."""
    protocol = LocalProtocol()
    blurry, sharp = scenes[0]
    side = blurry.shape[-1]
    masks = [None if share is None else discs(side, share, seed) for seed in range(len(scenes))]
    scores: dict[str, list[float]] = {"dense": [], "pruned": []}
    largest = 0.0
    for (blurry, sharp), mask in zip(scenes, masks, strict=True):
        found = {pruning: restored(net, blurry, mask, pruning) for pruning in scores}
        largest = max(largest, (found["dense"] - found["pruned"]).abs().max().item())
        for pruning, picture in found.items():
            scores[pruning].append(protocol.score(picture, sharp)["psnr_db"])
    psnr_db = {pruning: float(np.mean(values)) for pruning, values in scores.items()}
    difference_db = abs(psnr_db["dense"] - psnr_db["pruned"])
    assert difference_db <= TOLERANCE_DB, f"dense and pruned differ: {psnr_db}"
    blurry, mask = scenes[0][0], masks[0]
    (stage,) = net.analyze(blurry, mask=mask).stages
    times = measuring.in_turn(
        {name: lambda name=name: restored(net, blurry, mask, name) for name in ("dense", "pruned", "auto")},
        turns,
    )
    assert stage.mask is not None
    return {
        "mask": "as predicted" if share is None else f"discs, {share:.0%}",
        "selected_share": round(stage.mask.mean().item(), 4),
        "psnr_db": psnr_db,
        "difference_db": difference_db,
        "largest_difference": largest,
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
    pairs = [made.load(index) for index in range(arguments.scenes)]
    scenes = [(to_tensor(scene.blurry)[None], to_tensor(scene.sharp)[None]) for scene in pairs]
    with torch.inference_mode():
        results = [measure(net, scenes, share, arguments.turns) for share in (*SHARES, None)]
    about = {
        "checkpoint": str(arguments.checkpoint),
        "data": f"{arguments.scenes} synthetic scenes of {arguments.size} px, blur of 4 to 10 px, seed 0",
        "results": results,
    }
    measuring.report("M2AENet, pruned and dense", arguments, about)


if __name__ == "__main__":
    main()
