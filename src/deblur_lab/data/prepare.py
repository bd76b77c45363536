"""The command that writes training pictures as tiles: ``python -m deblur_lab.data.prepare data=...``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and do it."""
    run("data.prepare", _job)


def _job(config: "DictConfig") -> None:
    # What it needs takes time to import: not before --help has been answered.
    from deblur_lab.data.prepared.making import prepare

    prepare(config)


if __name__ == "__main__":
    main()
