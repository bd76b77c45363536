"""The command ``python -m deblur_lab.data.from_video input=CLIPS output=DIR``: pairs from videos."""

from typing import TYPE_CHECKING

from deblur_lab.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Compose what was typed and do it."""
    run("data.from_video", _job)


def _job(config: "DictConfig") -> None:
    # What it needs takes time to import: not before --help has been answered.
    from deblur_lab.data.video.making import from_video

    from_video(config)


if __name__ == "__main__":
    main()
