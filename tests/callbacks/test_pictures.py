"""Pictures of test images, from data to files and dashboards."""

import json

import lightning as L
import numpy as np
import pytest

from deblur_lab.callbacks import Pictures, Scores, pictures
from deblur_lab.data import DeblurDataModule, LocalMotion, SyntheticSource
from deblur_lab.errors import DataError
from deblur_lab.exhibits import read_exhibits, stem_of, write_exhibit
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
    for name in ("comparison_panel", "mask_layer", "trajectory_layer"):
        draw = getattr(pictures, name)

        def noted(*given, _name=name, _draw=draw, **settings):
            drawn.append((_name, settings["threshold"] if settings else given[-1]))
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
    names = ("comparison_panel", "mask_layer", "trajectory_layer")
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
    found = sorted(path.name.partition(".")[2] for path in tmp_path.glob("*.png"))
    assert found == ["attention.png", "features.png", "png", "sub_decoders.png"]
    # It predicts neither a mask nor motion: there is the truth alone.
    (exhibit,) = read_exhibits(tmp_path / "exhibits")
    assert {*exhibit.files} == {"blurry", "restored", "sharp", "true_mask"}


def test_each_picture_is_kept_alone_and_so_are_the_worst_images(tmp_path):
    source = SyntheticSource(
        LocalMotion(min_blur_px=4.0, max_blur_px=8.0), LocalProtocol(), size_px=48, test_scenes=6
    )
    data = DeblurDataModule([source], patch_size=32, batch_size=1, num_workers=0)

    def tested(count):
        scores = Scores(None)
        trainer = L.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False,
            callbacks=[scores, Pictures(tmp_path, count, scores)],
        )  # fmt: skip
        trainer.test(EvaluationTask(small_m2aenet()), data, verbose=False)
        gains = {row["name"]: row["restored"]["psnr_db"] - row["blurry"]["psnr_db"] for row in scores.rows}
        return scores, sorted(gains, key=gains.get), read_exhibits(tmp_path / "exhibits")

    scores, by_gain, kept = tested(2)
    names = sorted(by_gain)
    # Evenly spread, the first and the fourth of six; and no more of the worst than those are.
    assert {exhibit.name for exhibit in kept} == {names[0], names[3], *by_gain[:2]}
    rows = {row["name"]: row for row in scores.rows}
    for exhibit in kept:
        assert {*exhibit.files} == {"blurry", "restored", "sharp", "true_mask", "mask", "trajectories"}
        assert {*exhibit.legends} == {"true_mask", "mask", "trajectories"}
        assert exhibit.restored_scores == pytest.approx(rows[exhibit.name]["restored"])
        assert exhibit.blurry_scores == pytest.approx(rows[exhibit.name]["blurry"])
        # The pictures are those that were scored, to the last level.
        restored, sharp = (read_rgb(exhibit.files[kind]) for kind in ("restored", "sharp"))
        error = np.mean((restored.astype(float) - sharp) ** 2)
        assert 10 * np.log10(255**2 / error) == pytest.approx(exhibit.restored_scores["psnr_db"], abs=1e-3)
    # A later test in the same folder leaves none of an older one, and laid out are only those spread.
    assert len({path.name for path in tmp_path.glob("*.png")}) == 2
    _, by_gain, kept = tested(1)
    assert {exhibit.name for exhibit in kept} == {names[0], by_gain[0]}
    assert tested(0)[2] == []


def test_an_exhibit_that_was_not_finished_is_none_and_a_damaged_one_is_named(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    write_exhibit(
        tmp_path, "gopro", "a/b", {"blurry": picture, "mask": picture}, {"psnr_db": 20.0}, {"psnr_db": np.nan}
    )
    (exhibit,) = read_exhibits(tmp_path)
    assert (exhibit.dataset, exhibit.name, exhibit.restored_scores) == ("gopro", "a/b", {})
    write_exhibit(tmp_path, "gopro", "a/b", {"blurry": picture}, {}, {})
    (exhibit,) = read_exhibits(tmp_path)
    assert {*exhibit.files} == {"blurry"}  # an older mask is no longer its own
    about = tmp_path / "gopro-a~b" / "exhibit.json"
    about.write_text('{"dataset": "gopro"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"gopro-a~b/exhibit.json is damaged: KeyError\('scores'\)"):
        read_exhibits(tmp_path)
    about.unlink()
    assert read_exhibits(tmp_path) == []


def test_no_two_images_share_a_folder():
    images = [
        ("a", "b/c"),
        ("a", "b-c"),
        ("a", "b~c"),
        ("a-b", "c"),
        ("a", "b=7Ec"),
        ("a/b", "c"),
        ("a", "b-/c"),
    ]
    images += [("a", "b/-c"), ("a=2Db", "c"), ("a", "b~/c"), ("a", "b/~c")]
    stems = [stem_of(*image) for image in images]
    assert len({*stems}) == len(images)
    assert not any("/" in stem for stem in stems)


def test_a_mask_of_the_first_version_that_was_the_truths_is_not_a_prediction(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    for name, kinds in (("a", ("blurry", "mask")), ("b", ("blurry", "mask", "trajectories"))):
        write_exhibit(tmp_path, "gopro", name, dict.fromkeys(kinds, picture), {}, {})
        about = tmp_path / f"gopro-{name}" / "exhibit.json"
        told = json.loads(about.read_text())
        del told["legends"]
        about.write_text(json.dumps(told))
    first, second = read_exhibits(tmp_path)
    assert {*first.files} == {"blurry"}
    assert {*second.files} == {"blurry", "mask", "trajectories"}
