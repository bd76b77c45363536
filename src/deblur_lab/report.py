"""The command that gathers runs: ``python -m deblur_lab.report runs=DIR``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and report."""
    run("report", _job)


def _job(config: "DictConfig") -> None:
    # What draws the page is not needed before --help has been answered.
    from deblur_lab.reporting import report

    report(config)


if __name__ == "__main__":
    main()
