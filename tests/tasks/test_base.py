"""What every task does around its network: averages, factories, what is restored."""

import functools

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from deblur_lab.errors import DivergedError
from deblur_lab.losses import LocalBlurLoss, ReconstructionLoss
from deblur_lab.models import M2AENet, NAFNet
from deblur_lab.restorations import mask_threshold, restore
from deblur_lab.tasks import EvaluationTask, LocalDeblurring, RestorationTask, warmup_cosine

SMALL = (4, [1, 1], 1, [1, 1])


def batch(seed=0, size=16):
    rng = torch.Generator().manual_seed(seed)
    return {
        "blurry": torch.rand(2, 3, size, size, generator=rng),
        "sharp": torch.rand(2, 3, size, size, generator=rng),
        "mask": torch.rand(2, 1, size, size, generator=rng).round(),
        "mask_known": torch.tensor([True, False]),
        "seed": torch.tensor([1, 2]),
    }


def task(net=None, loss=None, kind=RestorationTask, **settings):
    torch.manual_seed(0)
    return kind(
        net or NAFNet(*SMALL),
        loss or ReconstructionLoss(l1=1.0),
        functools.partial(torch.optim.SGD, lr=0.1),
        functools.partial(warmup_cosine, total_steps=100),
        **settings,
    )


def fit(trained, steps, accumulate=1):
    trainer = L.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(trained, DataLoader([batch(seed) for seed in range(steps * accumulate)], batch_size=None))
    return trained


def weights(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def test_the_average_is_the_weights_after_its_first_update_and_decays_from_then_on():
    trained = task(ema_decay=0.5)
    history = []
    step = trained.optimizer_step

    def recorded(*args, **kwargs):
        step(*args, **kwargs)
        history.append(weights(trained.net))

    trained.optimizer_step = recorded
    fit(trained, 3)
    average = history[0]
    for after in history[1:]:
        average = {key: 0.5 * average[key] + 0.5 * after[key] for key in after}
    for key, value in trained.evaluated_net.state_dict().items():
        torch.testing.assert_close(value, average[key])
    assert not torch.equal(trained.net.ending.weight, trained.evaluated_net.ending.weight)


def test_the_average_follows_optimizer_steps_not_batches():
    trained = fit(task(ema_decay=0.5), 2, accumulate=3)
    assert trained.ema is not None
    assert trained.ema.n_averaged == 2


def test_without_an_average_the_network_itself_is_scored():
    trained = task()
    assert trained.evaluated_net is trained.net


@pytest.mark.parametrize("decay", [0, 1, -0.5, 2])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=f"ema_decay={decay}"):
        task(ema_decay=decay)


def test_training_on_a_batch_twice_as_large_is_accumulating_two():
    whole, halves = task(), task()
    one = batch()
    larger = {key: torch.cat([one[key], batch(1)[key]]) for key in one}
    trainer = functools.partial(
        L.Trainer, max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer().fit(whole, DataLoader([larger], batch_size=None))
    trainer(accumulate_grad_batches=2).fit(halves, DataLoader([one, batch(1)], batch_size=None))
    for key, value in whole.net.state_dict().items():
        torch.testing.assert_close(value, halves.net.state_dict()[key], rtol=1e-5, atol=1e-7)


def test_m2aenets_parts_are_all_there_and_the_unknown_mask_counts_for_nothing():
    net = M2AENet(*SMALL, predictor_stages=[2])
    trained = task(net, LocalBlurLoss(), LocalDeblurring).train()
    given = batch()
    parts = trained.loss_parts(given)
    assert set(parts) == {"l1", "ssim", "fft", "mask", "reblur", "tv"}
    torch.manual_seed(0)
    other = {**given, "mask": torch.stack([given["mask"][0], 1 - given["mask"][1]])}
    torch.testing.assert_close(trained.loss_parts(other)["mask"], parts["mask"])
    flipped = {**given, "mask": torch.stack([1 - given["mask"][0], given["mask"][1]])}
    assert trained.loss_parts(flipped)["mask"] != parts["mask"]


def test_gumbel_noise_comes_with_the_sample_not_from_the_global_generator():
    trained = task(M2AENet(*SMALL, predictor_stages=[2]), LocalBlurLoss(), LocalDeblurring).train()
    first = trained.loss_parts(batch())
    torch.rand(7)
    second = trained.loss_parts(batch())
    for name, part in first.items():
        assert torch.equal(part, second[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_samples():
    trained = task()
    before = weights(trained.net)
    poisoned = {**batch(), "name": ["a.png", "b.png"]}
    poisoned["sharp"][1, 0, 3, 3] = float("nan")
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"not finite at step 0, on a\.png, b\.png"):
        trainer.fit(trained, DataLoader([poisoned], batch_size=None))
    assert all(torch.equal(value, before[key]) for key, value in trained.net.state_dict().items())


def test_patches_that_the_network_would_pad_are_refused():
    trained = task(M2AENet(*SMALL, predictor_stages=[2]), LocalBlurLoss(), LocalDeblurring)
    with pytest.raises(ValueError, match=r"data\.patch_size=18: a multiple of 4"):
        trained.loss_parts(batch(size=18))


def test_networks_that_explain_themselves_are_asked():
    blurry = batch()["blurry"]
    said = restore(M2AENet(*SMALL, predictor_stages=[2]).eval(), blurry)
    assert said.probability.shape == (2, 1, 16, 16)
    assert said.motion.shape == (2, 9, 2, 16, 16)
    assert said.selected_share.shape == said.dilated_share.shape == (2,)
    silent = restore(NAFNet(*SMALL).eval(), blurry)
    assert silent[1:] == (None, None, None, None)


def test_the_ends_of_the_motion_are_those_of_all_its_instants():
    net, blurry = M2AENet(*SMALL, predictor_stages=[2]).eval(), batch()["blurry"]
    both, every = restore(net, blurry, instants=2), restore(net, blurry)
    torch.testing.assert_close(both.motion, every.motion[:, [0, -1]])
    assert torch.equal(both.restored, every.restored)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_test_restores_as_the_evaluated_network_does_and_says_what_it_saw(averaged):
    net = M2AENet(*SMALL, predictor_stages=[2])
    trained = task(net, LocalBlurLoss(), LocalDeblurring, ema_decay=0.5 if averaged else None).eval()
    for one in (trained, EvaluationTask(trained.evaluated_net).eval()):
        with torch.no_grad():
            said = one.test_step(batch(), 0)
            assert torch.equal(said.restored, trained.evaluated_net(batch()["blurry"]))
        assert said.motion.shape == (2, 2, 2, 16, 16)


def test_a_threshold_is_that_of_a_network_with_masks():
    assert mask_threshold(M2AENet(*SMALL, predictor_stages=[2], threshold=0.3)) == 0.3
    assert mask_threshold(M2AENet(*SMALL, predictor_stages=[2], mask_aware=False)) is None
    assert mask_threshold(NAFNet(*SMALL)) is None


def test_compiled_blocks_compute_the_same():
    plain, compiled = task(), task(compile_blocks=True)
    for net in (plain.net, compiled.net):
        torch.manual_seed(1)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    blurry = batch()["blurry"]
    torch.testing.assert_close(compiled.net(blurry), plain.net(blurry), rtol=1e-4, atol=1e-4)
    assert list(compiled.state_dict()) == list(plain.state_dict())
