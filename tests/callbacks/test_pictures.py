"""Pictures of test images, from data to files and dashboards."""

import lightning as L
import numpy as np
import pytest

from deblur_lab.callbacks import Pictures, Scores, pictures
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


def test_pictures_show_the_scores_that_are_made_anyway(tmp_path, scenes, monkeypatch):
    examined, shown = [], []
    examine = LocalProtocol.examine
    monkeypatch.setattr(
        LocalProtocol, "examine", lambda *given, **how: examined.append(1) or examine(*given, **how)
    )
    panel = pictures.comparison_panel
    monkeypatch.setattr(
        pictures,
        "comparison_panel",
        lambda *given, **how: shown.append(how["scores"]) or panel(*given, **how),
    )
    scores = Scores(None)
    for callbacks in ([Pictures(tmp_path)], [scores, Pictures(tmp_path, scores=scores)]):
        trainer = L.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, callbacks=callbacks,
        )  # fmt: skip
        trainer.test(EvaluationTask(small_m2aenet()), scenes, verbose=False)
        assert len(examined) == 2  # the blurry and the restored picture
        examined.clear()
    (result,) = scores.results
    assert shown[1] == {"blurry": result["blurry_scores"], "restored": result["scores"]}
    assert shown[0].keys() == shown[1].keys()


def test_what_sub_decoders_do_is_drawn(tmp_path, scenes):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[Pictures(tmp_path)],
    )  # fmt: skip
    trainer.test(EvaluationTask(small_aibnet()), scenes, verbose=False)
    found = sorted(path.name.partition(".")[2] for path in tmp_path.iterdir())
    assert found == ["attention.png", "features.png", "png", "sub_decoders.png"]
