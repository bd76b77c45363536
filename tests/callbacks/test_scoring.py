"""Images scored in threads, as if one after the other."""

import threading
import time

import cv2
import lightning as L
import pytest
import torch
from torch import nn

from deblur_lab.callbacks import Converter, Scores
from deblur_lab.callbacks.scoring import ScoringThreads
from deblur_lab.data import CameraShake, DeblurDataModule, SyntheticSource
from deblur_lab.errors import DivergedError
from deblur_lab.metrics import RealBlurProtocol
from deblur_lab.tasks import EvaluationTask


def test_rows_come_in_the_order_in_which_they_were_asked_for():
    threads = ScoringThreads(4)
    for number in range(20):

        def make(number=number):
            time.sleep(0.01 * (number % 3 == 0))
            return {"number": number}

        threads.submit(make)
    assert [row["number"] for row in threads.rows()] == list(range(20))
    assert threads.rows() == []


def test_no_more_images_are_held_than_are_in_work_and_a_few():
    threads = ScoringThreads(2)
    go, alive, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def make():
        nonlocal alive
        go.wait(10)
        with lock:
            alive -= 1
        return {}

    def release():
        time.sleep(0.2)
        go.set()

    threading.Thread(target=release).start()
    for _ in range(10):
        threads.submit(make)
        with lock:
            alive += 1
            most = max(most, alive)
        if not go.is_set():
            assert most <= 2 + 2
    assert len(threads.rows()) == 10


def test_each_thread_computes_alone_and_nothing_of_that_is_left():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    try:
        threads = ScoringThreads(2)
        inside = {}

        def make():
            inside["torch"], inside["cv2"] = torch.get_num_threads(), cv2.getNumThreads()
            inside["gradients"] = torch.is_grad_enabled()
            return {}

        threads.submit(make)
        threads.rows()
        assert inside == {"torch": 1, "cv2": 1, "gradients": False}
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
        started = []
        thread = threading.Thread(target=lambda: started.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert started == [2]  # what others start later computes as before
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_what_goes_wrong_comes_out_and_ends_the_rest():
    threads = ScoringThreads(1)
    made = []

    def fail():
        raise DivergedError("not finite")

    def submit_many():
        for number in range(50):
            threads.submit(lambda number=number: made.append(number) or {})

    threads.submit(fail)
    with pytest.raises(DivergedError, match="not finite"):
        submit_many()
    assert len(made) < 10
    assert threads.rows() == []


@pytest.fixture(scope="module")
def scenes():
    source = SyntheticSource(CameraShake(), RealBlurProtocol(), size_px=48, test_scenes=5)
    return DeblurDataModule([source], patch_size=32, batch_size=1, num_workers=0)


def results_with(net, scenes, scores, monkeypatch, threads):
    monkeypatch.setattr("deblur_lab.callbacks.scores.share_of_cores", lambda processes: threads)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, callbacks=[scores.converter, scores],
    )  # fmt: skip
    trainer.test(EvaluationTask(net), scenes, verbose=False)
    return scores.results


def test_scores_do_not_depend_on_the_number_of_threads(tmp_path, scenes, monkeypatch):
    net = nn.Conv2d(3, 3, 5, padding=2, padding_mode="replicate", bias=False)
    nn.init.dirac_(net.weight)
    net.weight.data += 0.02
    by_threads = []
    for threads in (1, 3):
        scores = Scores(Converter(32), tmp_path / str(threads), all_definitions=True)
        scores.folder.mkdir()
        by_threads.append(results_with(net, scenes, scores, monkeypatch, threads))
    assert repr(by_threads[0]) == repr(by_threads[1])
    for name in ("scores.json", "scores.csv", "definitions.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    (result,) = by_threads[0]
    assert result["alignment_failures"] is not None
    assert result["made_up"]


def test_an_image_that_is_not_finite_stops_the_scoring(tmp_path, scenes, monkeypatch):
    class Diverged(nn.Module):
        def forward(self, image):
            return image * float("nan")

    scores = Scores(Converter(32), tmp_path)
    with pytest.raises(DivergedError, match="not finite"):
        results_with(Diverged(), scenes, scores, monkeypatch, 2)
    assert not list(tmp_path.iterdir())
