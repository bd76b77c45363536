"""The command that restores: ``python -m deblur_lab.predict checkpoint=PATH input=PATH output=DIR``."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and predict."""
    run("predict", _job)


def _job(config: "DictConfig") -> None:
    # PyTorch takes seconds to import: not before --help has been answered.
    from deblur_lab.prediction import predict

    predict(config)


if __name__ == "__main__":
    main()
