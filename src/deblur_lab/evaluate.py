"""The command that scores: ``python -m deblur_lab.evaluate checkpoint=PATH data=reloblur data.root=DIR``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and evaluate."""
    run("evaluate", _job)


def _job(config: "DictConfig") -> None:
    # PyTorch takes seconds to import: not before --help has been answered.
    from deblur_lab.evaluation import evaluate

    evaluate(config)


if __name__ == "__main__":
    main()
