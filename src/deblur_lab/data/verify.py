"""The command that looks through a dataset: ``python -m deblur_lab.data.verify data=gopro data.root=DIR``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and do it."""
    # Not above: the processes that read pictures import this file, and need none of what that imports.
    from deblur_lab.command_line import run

    run("data.verify", _job)


def _job(config: "DictConfig") -> None:
    # What it needs takes time to import: not before --help has been answered.
    from deblur_lab.data.verification import verify

    verify(config)


if __name__ == "__main__":
    main()
