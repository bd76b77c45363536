"""The command that counts and measures: ``python -m deblur_lab.profile model=m2aenet size=2152x1436``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and profile."""
    run("profile", _job)


def _job(config: "DictConfig") -> None:
    # PyTorch takes seconds to import: not before --help has been answered.
    from deblur_lab.profiling import profile

    profile(config)


if __name__ == "__main__":
    main()
