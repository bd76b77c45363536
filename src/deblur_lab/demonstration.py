"""A page in the browser on which a checkpoint is tried."""

from omegaconf import DictConfig


def demonstrate(config: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: ``conf/demo.yaml``, composed and checked (`deblur_lab.command_line.run`).
    """
    raise NotImplementedError
