"""Pictures of test images, from data to files and dashboards."""

import lightning as L
import numpy as np
import pytest

from deblur_lab.callbacks import Pictures, pictures
from deblur_lab.data import DeblurDataModule, LocalMotion, SyntheticSource
from deblur_lab.images import read_rgb
from deblur_lab.metrics import LocalProtocol
from deblur_lab.tasks import EvaluationTask
from tests.nets import small_aibnet, small_m2aenet


@pytest.fixture(scope="module")
def scenes():
    source = SyntheticSource(
        LocalMotion(min_blur_px=4.0, max_blur_px=8.0), LocalProtocol(), size_px=48, test_scenes=1
    )
    return DeblurDataModule([source], patch_size=32, batch_size=1, num_workers=0)


def test_pictures_are_drawn_with_the_threshold_of_the_net(tmp_path, scenes, monkeypatch):
    drawn = []
    for name in ("comparison_panel", "blur_figure", "motion_figure"):
        draw = getattr(pictures, name)

        def noted(*given, _name=name, _draw=draw, **settings):
            drawn.append((_name, settings["threshold"]))
            return _draw(*given, **settings)

        monkeypatch.setattr(pictures, name, noted)
    net = small_m2aenet()
    panels = []
    for threshold in (0.0, 1.0):
        net.threshold = threshold
        trainer = L.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, callbacks=[Pictures(tmp_path)],
        )  # fmt: skip
        trainer.test(EvaluationTask(net), scenes, verbose=False)
        (file,) = tmp_path.glob("*.png")
        panels.append(read_rgb(file))
    names = ("comparison_panel", "blur_figure", "motion_figure")
    assert drawn == [(name, threshold) for threshold in (0.0, 1.0) for name in names]
    assert np.any(panels[0] != panels[1])


def test_what_sub_decoders_do_is_drawn(tmp_path, scenes):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[Pictures(tmp_path)],
    )  # fmt: skip
    trainer.test(EvaluationTask(small_aibnet()), scenes, verbose=False)
    found = sorted(path.name.partition(".")[2] for path in tmp_path.iterdir())
    assert found == ["attention.png", "features.png", "png", "sub_decoders.png"]
