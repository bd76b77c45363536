"""The command that writes a network for other programs: ``python -m deblur_lab.export checkpoint=PATH``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and export."""
    run("export", _job)


def _job(config: "DictConfig") -> None:
    # PyTorch takes seconds to import: not before --help has been answered.
    from deblur_lab.exporting import export

    export(config)


if __name__ == "__main__":
    main()
