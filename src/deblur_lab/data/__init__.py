"""Pictures from folders or from nothing: layouts, sources, transforms, sampling and the one DataModule.

The names are loaded when they are first used: `deblur_lab.data.synthesize` answers ``--help`` without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deblur_lab.data.datamodule import DeblurDataModule, plan_batches
    from deblur_lab.data.kernels import MotionKernels
    from deblur_lab.data.light import SensorNoise
    from deblur_lab.data.samples import SampleKey, Scene, SceneSet, Source
    from deblur_lab.data.scenes import CameraShake, Exposure, LocalMotion, Mixture
    from deblur_lab.data.sources import HIDE, Folder, GoPro, RealBlur, ReLoBlur
    from deblur_lab.data.synthetic import SyntheticSource

_MODULES = {
    "HIDE": "sources",
    "CameraShake": "scenes",
    "DeblurDataModule": "datamodule",
    "Exposure": "scenes",
    "Folder": "sources",
    "GoPro": "sources",
    "LocalMotion": "scenes",
    "Mixture": "scenes",
    "MotionKernels": "kernels",
    "ReLoBlur": "sources",
    "RealBlur": "sources",
    "SampleKey": "samples",
    "Scene": "samples",
    "SceneSet": "samples",
    "SensorNoise": "light",
    "Source": "samples",
    "SyntheticSource": "synthetic",
    "plan_batches": "datamodule",
}

__all__ = [
    "HIDE",
    "CameraShake",
    "DeblurDataModule",
    "Exposure",
    "Folder",
    "GoPro",
    "LocalMotion",
    "Mixture",
    "MotionKernels",
    "ReLoBlur",
    "RealBlur",
    "SampleKey",
    "Scene",
    "SceneSet",
    "SensorNoise",
    "Source",
    "SyntheticSource",
    "plan_batches",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
