"""``python -m deblur_lab``: which commands there are."""

import sys

from deblur_lab import __version__
from deblur_lab.config import did_you_mean
from deblur_lab.errors import ConfigurationError

COMMANDS = {
    "train": "train a network on a dataset, and score it",
    "evaluate": "score a checkpoint on a dataset's test split, by its published protocol",
    "predict": "restore a photo, or a folder of photos, of any size",
    "profile": "count a network's parameters and multiply-adds, measure its latency and peak memory",
    "report": "gather scores, curves and pictures of runs into one page",
    "export": "write a network as ONNX or as an exported program of PyTorch",
    "demo": "try a checkpoint on photos of your own, on a page in the browser",
    "data.verify": "look through a dataset's folder for all that is wrong with it",
    "data.prepare": "write training pictures as memory-mapped tiles, which are read much faster",
    "data.from_video": "turn fast videos into pairs of blurry and sharp pictures",
    "data.synthesize": "write a small synthetic dataset in the layout of a real one",
}


def main() -> int:
    """List the commands; they are called by names of their own."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("--version", "-V"):
        sys.stdout.write(f"deblur_lab {__version__}\n")
        return 0
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  python -m deblur_lab.{name:{width}}  {does}" for name, does in COMMANDS.items()]
        text = "\n".join(["Motion deblurring. The commands; each lists its settings by --help:", "", *lines])
        # As with other tools, to ask for nothing is no success.
        (sys.stdout if arguments else sys.stderr).write(f"{text}\n")
        return 0 if arguments else ConfigurationError.exit_code
    name = f"data.{arguments[0]}" if f"data.{arguments[0]}" in COMMANDS else arguments[0]
    hint = did_you_mean(name, COMMANDS, f"there are {', '.join(COMMANDS)}")
    if name in COMMANDS:
        hint = f"call python -m deblur_lab.{name}"
    sys.stderr.write(f"error: {arguments[0]!r} does not follow python -m deblur_lab: {hint}\n")
    return ConfigurationError.exit_code


if __name__ == "__main__":
    sys.exit(main())
