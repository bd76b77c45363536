"""Time what each command loads before it begins to work, in fresh processes; print one JSON.

    python benchmarks/start_up.py [--against DIR] [--turns 7] [--output FILE]

With ``--against``, the same of another checkout of this project, by the same Python, in turn with this one.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import measuring

COMMANDS = {
    "train": "training",
    "evaluate": "evaluation",
    "predict": "prediction",
    "profile": "profiling",
    "report": "reporting",
    "export": "exporting",
    "demo": "demonstration",
}
HERE = Path(__file__).resolve().parent.parent


def load(module: str, checkout: Path) -> None:
    """Import a command's work in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    subprocess.run(
        [sys.executable, "-c", f"import deblur_lab.{module}"], env=environment, cwd=checkout, check=True
    )


def main() -> None:
    """Measure, print, and save if asked to."""
    parser = measuring.parser(__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, to be timed as well")
    arguments = parser.parse_args()
    checkouts = {"this": HERE}
    if arguments.against is not None:
        checkouts["other"] = arguments.against.resolve()
    results = {}
    for command, module in COMMANDS.items():
        calls = {name: functools.partial(load, module, checkout) for name, checkout in checkouts.items()}
        times = measuring.in_turn(calls, arguments.turns)
        results[command] = {"milliseconds": measuring.milliseconds(times)}
        if len(times) > 1:
            ratio = measuring.spread(measuring.ratios(times, "other", "this"))
            results[command]["times_as_long_in_the_other"] = ratio
    measuring.report("loading each command's work", arguments, {"results": results})


if __name__ == "__main__":
    main()
