"""The command that trains: ``python -m deblur_lab.train model=m2aenet data=reloblur data.root=DIR``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and train."""
    run("train", _job)


def _job(config: "DictConfig") -> None:
    # PyTorch and Lightning take seconds to import: not before --help has been answered.
    from deblur_lab.training import train

    train(config)


if __name__ == "__main__":
    main()
