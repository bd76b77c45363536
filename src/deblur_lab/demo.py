"""The command that opens a page to try a checkpoint on: ``python -m deblur_lab.demo checkpoint=PATH``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and demonstrate."""
    run("demo", _job)


def _job(config: "DictConfig") -> None:
    # PyTorch takes seconds to import: not before --help has been answered.
    from deblur_lab.demonstration import demonstrate

    demonstrate(config)


if __name__ == "__main__":
    main()
