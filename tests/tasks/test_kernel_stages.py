"""UFPNet from nothing: prior, estimator, the network that they guide; what is frozen stays as it is."""

import functools
import json
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader

from deblur_lab.callbacks import Measures
from deblur_lab.data import MotionKernels
from deblur_lab.data.light import to_light, to_srgb
from deblur_lab.errors import ConfigurationError
from deblur_lab.losses import ReconstructionLoss
from deblur_lab.models import UFPNet
from deblur_lab.ops.pixel_kernels import convolve_per_pixel, normalise_kernels
from deblur_lab.tasks import FlowPrior, KernelEstimation, KernelGuidedDeblurring, warmup_cosine
from deblur_lab.tasks.kernel_estimation import _light, _stored, psnr_db
from deblur_lab.tasks.measuring import summed

SIDE = 5


def net():
    torch.manual_seed(0)
    made = UFPNet(4, (1, 1), 1, (1, 1), kernel_size_px=SIDE, estimator_width=4)
    # A flow as a prior has it: dark but for the middle, and not the same for every code.
    with torch.no_grad():
        for parameter in made.flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        last = made.flow.net[-1]
        last.running_mean.fill_(-4.0)
        last.running_mean[SIDE * SIDE // 2] = 3.0
    return made


def task(kind, made=None, lr=0.01, **settings):
    loss = {} if kind is FlowPrior else {"loss": ReconstructionLoss(psnr=1.0)}
    return kind(
        made or net(),
        optimizer=functools.partial(torch.optim.Adam, lr=lr),
        scheduler=functools.partial(warmup_cosine, total_steps=100),
        **loss,
        **settings,
    )


def moved_right(size=24, count=2):
    """Pictures, and the same blurred over three pixels across."""
    wide = torch.rand(count, 3, size, size + 2, generator=torch.Generator().manual_seed(1))
    blurry = (wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]) / 3
    return wide[..., 1:-1].contiguous(), blurry


def batch(seed=1, size=24):
    sharp, blurry = moved_right(size)
    mask = torch.zeros(2, 1, size, size)
    mask[..., : size // 2] = 1
    return {
        "blurry": blurry,
        "sharp": sharp,
        "mask": mask,
        "mask_known": torch.tensor([True, False]),
        "seed": torch.tensor([seed, seed + 1]),
        "index": torch.tensor([0, 1]),
        "name": ["a", "b"],
    }


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def trainer(steps, **settings):
    return L.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, **settings,
    )  # fmt: skip


def fit(trained, batches):
    trainer(len(batches)).fit(trained, DataLoader(batches, batch_size=None))
    return trained


def kernels(count=8):
    drawn = torch.rand(count, SIDE**2, generator=torch.Generator().manual_seed(0))
    return {"kernel": drawn / drawn.sum(1, keepdim=True)}


@pytest.mark.parametrize(
    ("kind", "given", "trained"),
    [
        (FlowPrior, kernels, "flow."),
        (KernelEstimation, batch, "kernel_extra."),
        (KernelGuidedDeblurring, batch, ""),
    ],
)
def test_what_is_frozen_is_bit_identical_afterwards_and_all_else_is_trained(kind, given, trained):
    made = net()
    before = state(made)
    training = fit(task(kind, made), [given() for _ in range(3)])
    moved = changed(before, made)
    assert all(name.startswith(trained) for name in moved)
    if kind is KernelGuidedDeblurring:
        assert not any(name.startswith(("flow.", "kernel_extra.")) for name in moved)
    wanted = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert wanted
    if kind is not KernelGuidedDeblurring:  # whose masked and last layers begin at zero
        assert {name for name in wanted if name.startswith(trained)} == wanted
    optimised = {id(parameter) for parameter in training.optimizers().param_groups[0]["params"]}
    assert optimised == {id(parameter) for parameter in made.parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("kind", "given"), [(FlowPrior, kernels), (KernelEstimation, batch)])
def test_every_parameter_that_is_trained_gets_a_gradient_as_ddp_asks(kind, given):
    training = task(kind).train()
    training.losses(given())[0].backward()
    for name, parameter in training.net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_guided_networks_parameters_get_gradients_too():
    training = task(KernelGuidedDeblurring).train()
    training.losses(batch())[0].backward()
    for name, parameter in training.net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_frozen_parts_are_in_eval_mode_while_the_rest_trains():
    training = task(KernelEstimation).train()
    assert training.net.kernel_extra.training
    assert not any(part.training for part in training.net.flow.modules())
    guided = task(KernelGuidedDeblurring).train()
    assert guided.net.encoders.training
    assert not guided.net.kernel_extra.training
    assert not guided.net.flow.training


def test_the_flow_learns_what_goes_together():
    torch.manual_seed(0)
    prior = task(FlowPrior, UFPNet(4, (1, 1), 1, (1, 1), kernel_size_px=SIDE, estimator_width=4), lr=0.02)
    data = MotionKernels(SIDE, batch_size=64, val_kernels=128, test_kernels=128)
    run = trainer(60, check_val_every_n_epoch=None, limit_val_batches=0)
    run.fit(prior, data)
    (measured,) = run.test(prior, data, verbose=False)
    assert measured["test/nll_bits"] < measured["test/independent_nll_bits"] - 0.1
    assert 0.8 < measured["test/sample_sum"] < 1.3
    assert measured["test/sample_connected"] > 0.8


def test_the_independent_prior_is_what_gaussians_of_the_logits_say():
    training = task(FlowPrior)
    given = kernels(64)["kernel"]
    (measured,) = trainer(1).test(
        training, DataLoader([{"kernel": given[:40]}, {"kernel": given[40:]}], batch_size=None), verbose=False
    )
    squeezed = 1e-6 + (1 - 2e-6) * given.double()
    logits = torch.logit(squeezed)
    normal = torch.distributions.Normal(logits.mean(0), logits.std(0, correction=0))
    jacobian = ((1 - 2e-6) / (squeezed * (1 - squeezed))).log()
    expected = -(normal.log_prob(logits) + jacobian).mean() / math.log(2)
    assert measured["test/independent_nll_bits"] == pytest.approx(float(expected), rel=1e-5)
    training.eval()
    likelihood = training.net.flow.log_likelihood(given).mean() / (SIDE**2 * math.log(2))
    assert measured["test/nll_bits"] == pytest.approx(-likelihood.item(), rel=1e-5)


def test_the_loss_of_reblurring_falls():
    training = task(KernelEstimation, lr=0.01, doubt=1e-3).train()
    given = batch()
    optimizer = torch.optim.Adam(training.net.kernel_extra.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, parts = training.losses(given)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert set(parts) == {"psnr", "doubt", "outliers"}
    assert losses[-1] < losses[0] - 2.0, "two decibels"


def test_the_noise_is_the_samples_own():
    training = task(KernelEstimation).train()
    first = training.losses(batch())[0]
    torch.rand(3)
    assert torch.equal(training.losses(batch())[0], first)
    assert not torch.equal(training.losses(batch(seed=5))[0], first)


def test_codes_far_from_all_that_the_flow_knows_are_charged_for():
    training = task(KernelEstimation).train()
    given = batch()
    assert training.losses(given)[1]["outliers"] < 0.01
    with torch.no_grad():
        training.net.kernel_extra.Conv_tail["mean"][-1].bias[3] += 20
    # One entry is 5, the standardised only one that is not zero.
    assert training.losses(given)[1]["outliers"].item() == pytest.approx((4.8 - 4) ** 2 / 25, rel=1e-3)


def test_the_outer_part_of_a_patch_is_not_judged():
    judged = []

    class Loss(ReconstructionLoss):
        def forward(self, restored, sharp):
            judged.append((restored, sharp))
            return super().forward(restored, sharp)

    training = task(KernelEstimation).train()
    training.loss = Loss(psnr=1.0)
    given = batch()
    training.losses(given)
    ((reblurred, blurry),) = judged
    assert torch.equal(blurry, given["blurry"][..., 2:-2, 2:-2])
    assert reblurred.shape == blurry.shape


def test_in_light_a_blur_is_averaged_as_a_sensor_does():
    training = task(KernelEstimation, in_light=True)
    sharp = torch.zeros(1, 3, 1, 8)
    sharp[..., 4:] = 1
    kernel = torch.zeros(1, SIDE**2, 1, 8)
    kernel[:, 12:14] = 1
    assert training.reblurred(sharp, kernel)[0, 0, 0, 3] == pytest.approx(0.7354, abs=1e-3)
    plain = task(KernelEstimation)
    assert plain.reblurred(sharp, kernel)[0, 0, 0, 3] == pytest.approx(0.5)


def test_the_curve_of_light_is_that_of_the_data():
    values = torch.arange(256, dtype=torch.uint8).view(1, 256, 1).numpy()
    stored = torch.from_numpy(values).float() / 255
    torch.testing.assert_close(_light(stored), torch.from_numpy(to_light(values)).view(1, 256, 1))
    torch.testing.assert_close(_stored(_light(stored)), stored, atol=1e-5, rtol=0)
    assert (to_srgb(_light(stored).numpy()) == values).all()
    dark = torch.zeros(1, requires_grad=True)
    _stored(dark).sum().backward()
    assert dark.grad.isfinite().all()


def test_measures_are_of_whole_pictures_and_of_what_is_blurred(tmp_path):
    training = task(KernelEstimation)
    one, other = batch(), {**batch(), "mask_known": torch.tensor([False, False])}
    measures = Measures(tmp_path, {"seed": 3})
    run = trainer(1, callbacks=[measures])
    (measured,) = run.test(training, DataLoader([one, other], batch_size=None), verbose=False)
    training.eval()
    with torch.no_grad():
        seen = training.reblurred(one["sharp"], training.net.kernels(one["blurry"])).clamp(0, 1)
    whole = [psnr_db(seen[k], one["blurry"][k], torch.ones(1, 24, 24)) for k in range(2)]
    assert measured["test/reblurred_psnr_db"] == pytest.approx(sum(whole) / 2, rel=1e-5)
    masked = psnr_db(seen[0], one["blurry"][0], one["mask"][0])
    assert measured["test/reblurred_weighted_psnr_db"] == pytest.approx(masked, rel=1e-5)
    sharp = [psnr_db(one["sharp"][k], one["blurry"][k], torch.ones(1, 24, 24)) for k in range(2)]
    assert measured["test/sharp_psnr_db"] == pytest.approx(sum(sharp) / 2, rel=1e-5)
    with torch.no_grad():
        kernels = normalise_kernels(training.net.kernels(one["blurry"]))
        mean = kernels.mean((2, 3), keepdim=True).expand_as(kernels)
        seen = convolve_per_pixel(one["sharp"], mean).clamp(0, 1)
    uniform = [psnr_db(seen[k], one["blurry"][k], torch.ones(1, 24, 24)) for k in range(2)]
    assert measured["test/uniform_psnr_db"] == pytest.approx(sum(uniform) / 2, rel=1e-5)
    assert measures.results == pytest.approx(measured)
    written = json.loads((tmp_path / "measures.json").read_text())
    assert written == {"seed": 3, "measures": measures.results}


def test_psnr_is_weighted_by_the_mask_and_bounded():
    target, mask = torch.zeros(3, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    picture = torch.tensor([[0.1, 1.0], [0.1, 1.0]]).expand(3, 2, 2)
    assert psnr_db(picture, target, mask) == pytest.approx(20.0, abs=1e-5)
    assert psnr_db(target, target, mask) == pytest.approx(100.0)


def alone(others, batches=0):
    """A trainer with other processes, that have sent what they have."""

    def reduce(own, reduce_op):
        assert reduce_op == "sum"
        return own + torch.cat([others, torch.tensor([batches, 1.0], dtype=torch.float64)])

    strategy = SimpleNamespace(reduce=reduce, root_device=torch.device("cpu"))
    return SimpleNamespace(world_size=2, strategy=strategy)


def test_sums_are_of_all_processes_and_miss_nobodys_part():
    others = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    own = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert summed(alone(others, batches=1), own, 2, 2).tolist() == [[2, 3], [4, 5]]
    with pytest.raises(SIGTERMException):
        summed(alone(others, batches=0), own, 2, 2)


def test_patches_too_small_for_the_kernels_are_refused():
    with pytest.raises(ConfigurationError, match=r"data\.patch_size=9: at least 10"):
        task(KernelEstimation).check_patch(9, 9)
    task(KernelEstimation).check_patch(10, 10)


@pytest.mark.parametrize("kind", [KernelEstimation, KernelGuidedDeblurring])
def test_what_must_have_been_trained_before_is_asked_for(kind):
    with pytest.raises(ConfigurationError, match=r"init_from is not set.* UFPNet whose flow"):
        task(kind).check_start(None)
    task(kind).check_start("flow.ckpt")
    task(FlowPrior).check_start(None)
