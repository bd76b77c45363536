"""Progressive training: what is frozen stays bit by bit, what it starts from, and what is refused."""

import functools

import pytest
import torch

from deblur_lab.errors import CheckpointError, ConfigurationError
from deblur_lab.losses import ReconstructionLoss
from deblur_lab.models import AIBNet, NAFNet, UFPNet
from deblur_lab.tasks import EncoderStart, ProgressiveDeblurring, warmup_cosine
from deblur_lab.tasks.progressive import fill_encoder
from tests.tasks.test_base import batch, fit

BLOCKS = ([1, 1], 1, [1, 1])


def nafnet(width=8):
    return NAFNet(width, *BLOCKS)


def ufpnet(width=8):
    return UFPNet(width, *BLOCKS, kernel_size_px=5, estimator_width=4)


def aibnet(encoder=None, sub_decoders=1):
    torch.manual_seed(0)
    return AIBNet(encoder or nafnet(), sub_decoders, blocks=1)


def task(net=None, trained="last", loss=None, **encoder):
    return ProgressiveDeblurring(
        net or aibnet(),
        loss or ReconstructionLoss(charbonnier=1.0, edge=0.05, fft=0.1),
        functools.partial(torch.optim.Adam, lr=1e-3),
        functools.partial(warmup_cosine, total_steps=100),
        EncoderStart(**encoder),
        trained,
    )


def copied(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained_names(one):
    return {name for name, parameter in one.net.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("make", [nafnet, ufpnet])
def test_all_but_the_last_sub_decoder_is_bit_identical_after_training(make):
    trained = task(aibnet(make(), 3), checkpoint="x.ckpt")
    # Statistics of the batch norms, too: they are told apart from their start.
    for name, buffer in trained.net.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.5)
    before = copied(trained.net)
    fit(trained, 3)
    after = trained.net.state_dict()
    moved = changed(before, after)
    assert moved
    assert all(name.startswith("sub_decoders.2.") for name in moved)
    assert any(name.endswith("running_mean") for name in moved), "the trained one's statistics follow"
    parts = {name.split(".")[2] for name in moved}
    assert parts >= {"ups", "decoders", "frequencies", "ending"}


def test_what_is_frozen_has_no_gradient_no_optimizer_state_and_is_in_eval_mode():
    trained = task(aibnet(ufpnet(), 2), checkpoint="x.ckpt")
    fit(trained, 2)
    trained.train()
    net = trained.net
    for part in (net.encoder, net.sub_decoders[0]):
        assert not any(module.training for module in part.modules())
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())
    assert all(module.training for module in net.sub_decoders[1].modules())
    optimizer = trained.optimizers().optimizer
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.sub_decoders[1].parameters()}
    assert len(optimizer.state) == len(held)


def test_an_untrained_encoder_is_trained_with_the_first_sub_decoder_and_frozen_with_it():
    first = trained_names(task(aibnet(nafnet(), 1), untrained=True))
    assert {name.split(".")[0] for name in first} == {"encoder", "sub_decoders"}
    second = trained_names(task(aibnet(nafnet(), 2), untrained=True))
    assert all(name.startswith("sub_decoders.1.") for name in second)


def test_the_flow_is_never_trained_and_the_kernel_estimator_only_from_nothing():
    trainable = trained_names(task(aibnet(ufpnet()), checkpoint="x.ckpt", frozen=False))
    assert any(name.startswith("encoder.encoders") for name in trainable)
    assert not any(name.startswith(("encoder.flow", "encoder.kernel_extra")) for name in trainable)
    anew = trained_names(task(aibnet(ufpnet()), untrained=True))
    assert any(name.startswith("encoder.kernel_extra") for name in anew)
    assert not any(name.startswith("encoder.flow") for name in anew)


def test_all_parameters_of_an_encoder_from_nothing_get_a_gradient():
    """DDP waits for the gradient of every parameter that is trained."""
    trained = task(aibnet(ufpnet()), untrained=True)
    with torch.no_grad():  # a new sub-decoder ends in zeros, which let nothing through
        trained.net.sub_decoders[0].ending.weight.add_(0.1)
    trained.train()
    total, _ = trained.losses(batch())
    total.backward()
    missing = [n for n, p in trained.net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_all_at_once_trains_every_sub_decoder_by_the_sum_of_their_losses():
    trained = task(aibnet(sub_decoders=3), "all", ReconstructionLoss(l1=1.0), checkpoint="x.ckpt")
    with torch.no_grad():
        for number, decoder in enumerate(trained.net.sub_decoders):
            decoder.ending.bias.fill_(0.1 * number)
    parts = trained.loss_parts(batch())
    one = batch()
    with torch.no_grad():
        expected = sum((r - one["sharp"]).abs().mean() for r in trained.net.restorations(one["blurry"]))
    assert parts["l1"].item() == pytest.approx(expected.item())
    before = copied(trained.net)
    fit(trained, 2)
    moved = {".".join(n.split(".")[:2]) for n in changed(before, trained.net.state_dict())}
    assert moved == {"sub_decoders.0", "sub_decoders.1", "sub_decoders.2"}


def test_a_new_sub_decoder_restores_what_it_is_given():
    net = aibnet(sub_decoders=2)
    blurry = batch()["blurry"]
    assert torch.equal(net(blurry), blurry)


def test_no_encoder_checkpoint_is_refused_unless_told():
    with pytest.raises(ConfigurationError, match=r"encoder\.checkpoint is not set.*model=nafnet.*untrained"):
        task().check_start(None)
    task(untrained=True).check_start(None)
    task().check_start("previous.ckpt")
    with pytest.raises(ConfigurationError, match="exclude each other"):
        EncoderStart("x.ckpt", untrained=True)


def test_earlier_sub_decoders_that_would_stay_untrained_are_refused():
    with pytest.raises(ConfigurationError, match=r"sub_decoders=2.*init_from"):
        task(aibnet(sub_decoders=2), checkpoint="x.ckpt").check_start(None)
    task(aibnet(sub_decoders=2), "all", checkpoint="x.ckpt").check_start(None)
    task(aibnet(sub_decoders=2), checkpoint="x.ckpt").check_start("before.ckpt")


@pytest.mark.parametrize("make", [nafnet, ufpnet])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_encoder_is_that_of_the_checkpoint(make, wrapped, tmp_path):
    torch.manual_seed(1)
    whole = make()
    path = tmp_path / "net.pth"
    state = whole.state_dict()
    torch.save({"state_dict": {f"net.{k}": v for k, v in state.items()}} if wrapped else state, path)
    trained = task(aibnet(make()), checkpoint=str(path))
    lines = trained.start(None)
    assert "frozen" in lines[0]
    own = trained.net.encoder.state_dict()
    assert own
    assert all(torch.equal(own[name], state[name]) for name in own)


def test_the_encoder_of_an_aibnet_serves_too(tmp_path):
    other = AIBNet(ufpnet(), 1, blocks=1)
    torch.save(other.state_dict(), tmp_path / "aibnet.pth")
    encoder = aibnet(ufpnet()).encoder
    fill_encoder(encoder, tmp_path / "aibnet.pth")
    assert not changed(encoder.state_dict(), other.encoder.state_dict())


def refusal(encoder, path):
    with pytest.raises(CheckpointError) as caught:
        fill_encoder(encoder, path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model.encoder.checkpoint")
    return message


def test_an_encoder_checkpoint_that_does_not_fit_is_told_in_one_line(tmp_path):
    encoder = aibnet(ufpnet()).encoder
    path = tmp_path / "other.pth"
    assert "does not exist" in refusal(encoder, path)
    torch.save(ufpnet(16).state_dict(), path)
    told = refusal(encoder, path)
    assert "a UFPNet of width 8 is expected" in told
    assert "model.net.encoder.width=16" in told
    torch.save(nafnet().state_dict(), path)
    told = refusal(encoder, path)
    assert "NAFNet of width 8" in told
    assert "_target_=deblur_lab.models.NAFNet" in told
    torch.save({"head.weight": torch.zeros(3, 3)}, path)
    assert "is expected" in refusal(encoder, path)
    torch.save({k: v for k, v in ufpnet().state_dict().items() if "flow.net.0.s_net" not in k}, path)
    assert "missing" in refusal(encoder, path)


def test_it_trains_in_bfloat16():
    trained = task(aibnet(ufpnet(), 1), checkpoint="x.ckpt")
    trained.train()
    with torch.autocast("cpu", torch.bfloat16):
        total, parts = trained.losses(batch())
    total.backward()
    assert torch.isfinite(total)
    assert set(parts) == {"charbonnier", "edge", "fft"}


def test_a_stage_that_was_left_out_is_refused(tmp_path):
    torch.save(aibnet(sub_decoders=1).state_dict(), tmp_path / "s.pth")
    with pytest.raises(ConfigurationError, match="of what is frozen"):
        task(aibnet(sub_decoders=3)).start(tmp_path / "s.pth")
    assert "start anew" in task(aibnet(sub_decoders=2)).start(tmp_path / "s.pth")[0]


def test_an_encoder_that_is_not_read_is_told(tmp_path):
    torch.save(aibnet(sub_decoders=1).state_dict(), tmp_path / "s.pth")
    lines = task(aibnet(sub_decoders=2), checkpoint="x.ckpt").start(tmp_path / "s.pth")
    assert "not that of x.ckpt" in lines[-1]


def test_another_kernel_size_is_told(tmp_path):
    torch.save(ufpnet().state_dict(), tmp_path / "u.pth")
    other = aibnet(UFPNet(8, *BLOCKS, kernel_size_px=7, estimator_width=4)).encoder
    assert "kernel_size_px=5" in refusal(other, tmp_path / "u.pth")


def test_all_sizes_of_an_encoder_that_differ_are_told_at_once(tmp_path):
    torch.save(UFPNet(16, [1, 1, 2], 1, [1, 1, 1], 7, 8).state_dict(), tmp_path / "u.pth")
    told = refusal(aibnet(ufpnet()).encoder, tmp_path / "u.pth")
    for setting in (
        "model.net.encoder.width=16",
        "'model.net.encoder.encoder_blocks=[1,1,2]'",
        "'model.net.encoder.decoder_blocks=[1,1,1]'",
        "+model.net.encoder.kernel_size_px=7",
        "+model.net.encoder.estimator_width=8",
    ):
        assert setting in told


def test_a_stage_in_which_the_encoder_was_not_trained_is_refused(tmp_path):
    record = {"config": {"model": {"_target_": "deblur_lab.tasks.FlowPrior"}}}
    state = {f"net.{name}": value for name, value in ufpnet().state_dict().items()}
    torch.save({"state_dict": state, "deblur_lab": record}, tmp_path / "flow.ckpt")
    assert "not trained yet" in refusal(aibnet(ufpnet()).encoder, tmp_path / "flow.ckpt")
