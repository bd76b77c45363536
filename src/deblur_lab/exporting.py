"""A network as a file that other programs run."""

from omegaconf import DictConfig


def export(config: DictConfig) -> None:
    """Write a network as ONNX or as an exported program of PyTorch.

    Args:
        config: ``conf/export.yaml``, composed and checked (`deblur_lab.command_line.run`).
    """
    raise NotImplementedError
