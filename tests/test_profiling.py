"""What a profile counts, measures and says, each part against what is known by hand."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab import measuring
from deblur_lab.candidates import (
    Candidate,
    _compared,
    _count,
    _counted_without_numbers,
    _prepare,
    _shares,
    _turns_that_fit,
    blob_mask,
    compare,
)
from deblur_lab.checks import picture_size_px
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.measuring import available_bytes, measured
from deblur_lab.models import AIBNet, DownwardFusion, M2AENet, NAFNet, UFPNet
from deblur_lab.multiply_adds import counted
from deblur_lab.net_parts import SUB_DECODER, counted_parts, linear, summed
from deblur_lab.profiling import _profiled
from deblur_lab.published_costs import AIBNET_SIZE_PX, SIZE_PX, SUB_DECODERS_G, published_costs
from tests.nets import lively, small_m2aenet, small_nafnet

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


# Counting.


def test_convolutions_and_matrix_products():
    def run() -> None:
        picture = torch.rand(2, 6, 8, 10)
        F.conv2d(picture, torch.rand(4, 6, 3, 3), padding=1)
        F.conv2d(picture, torch.rand(6, 1, 3, 3), groups=6)  # depth-wise, without padding
        F.linear(torch.rand(5, 7, 6), torch.rand(3, 6), torch.rand(3))
        torch.relu(picture) + picture.mean()

    _, counts = counted(run)
    assert counts == {
        "convolution": 2 * 8 * 10 * 4 * 6 * 9 + 2 * 6 * 8 * 6 * 9,
        "matrix product": 5 * 7 * 6 * 3,
    }


def test_attention_in_one_operation_or_in_two():
    query, key = torch.rand(3, 2, 10, 4), torch.rand(3, 2, 7, 4)

    def in_two() -> Tensor:
        return (query @ key.transpose(-1, -2)).softmax(-1) @ key

    together, counts = counted(lambda: F.scaled_dot_product_attention(query, key, key, scale=1.0))
    apart, same = counted(in_two)
    assert counts == same == {"attention product": 2 * 3 * 2 * 10 * 7 * 4}
    torch.testing.assert_close(together, apart)


def test_fourier_transforms_and_back():
    picture = torch.rand(2, 3, 8, 16)
    log = math.log2(8 * 16)
    _, real = counted(lambda: torch.fft.irfft2(torch.fft.rfft2(picture)))
    assert real == {"Fourier transform": round(2 * picture.numel() * log)}
    _, complex_too = counted(lambda: torch.fft.fft2(picture.to(torch.complex64)))
    assert complex_too == {"Fourier transform": round(2 * picture.numel() * log)}


def test_nothing_costs_nothing():
    assert counted(lambda: torch.rand(3) + 1)[1] == {}
    assert counted(lambda: torch.fft.fft(torch.rand(3, 1)))[1] == {}


def test_a_net_is_counted_alike_with_and_without_numbers(monkeypatch):
    ran_on: list[str] = []
    restore = Candidate.restore

    def noted(candidate: Candidate, blurry: Tensor, mask: Tensor | None) -> Tensor:
        ran_on.append(blurry.device.type)
        return restore(candidate, blurry, mask)

    picture = torch.rand(1, 3, 40, 24)
    mask = torch.ones(1, 1, 40, 24)
    for candidate in (
        Candidate("NAFNet", small_nafnet()),
        Candidate("without masks", lively(M2AENet(4, [1, 1], 1, [1, 1], [2], mask_aware=False))),
        Candidate("dense", small_m2aenet(), "dense"),
    ):
        _, counts = counted(partial(candidate.restore, picture, mask))
        with monkeypatch.context() as patch:
            patch.setattr(Candidate, "restore", noted)
            assert _counted_without_numbers(candidate, picture, mask) == counts
    assert ran_on == ["meta"] * 3


def test_a_net_that_needs_numbers_is_counted_as_it_runs():
    class Choosy(nn.Module):
        def forward(self, blurry: Tensor) -> Tensor:
            return F.conv2d(blurry, torch.ones(1, 3, 1, 1)) if blurry.max() > 0 else blurry

    counts = _counted_without_numbers(Candidate("choosy", Choosy()), torch.rand(1, 3, 4, 4), None)
    assert counts == {"convolution": 48}


def test_the_published_counts_are_met_where_they_count_the_same():
    with torch.device("meta"):
        nafnet, picture = NAFNet(), torch.empty(1, 3, 1436, 2152)
    _, counts = counted(lambda: nafnet(picture))
    assert counts == {"convolution": 757_185_540_096}
    # One more for each bias and for each number that is averaged is what the paper's NAFNet has.
    more = 0
    for module in nafnet.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.register_forward_hook(lambda _, __, output: add(output.numel()))
        elif type(module).__name__ == "AveragePool":
            module.register_forward_hook(lambda _, inputs, __: add(inputs[0].numel()))

    def add(numbers: int) -> None:
        nonlocal more
        more += numbers

    nafnet(picture)
    published = published_costs(nafnet, SIZE_PX)
    assert published is not None
    assert published.multiply_adds_t == {"NAFNet-32": round((counts["convolution"] + more) / 1e12, 3)}


def test_what_pruning_saves_is_what_it_leaves_out():
    net, picture = small_m2aenet(), torch.rand(1, 3, 64, 48)
    mask = torch.zeros(1, 1, 64, 48)
    mask[..., 16:32, 8:20] = 1  # 4 x 3 of the 16 x 12 pixels of the third stage, which has one block
    dense, pruned = (Candidate(how, net, how) for how in ("dense", "pruned"))
    restored = _count([dense, pruned], picture, mask, lambda what: None)
    found = _compared(dense, dense.restore(picture, mask), restored, picture, mask)
    selected, dilated, pixels, channels = 12, 30, 192, 16
    assert (found.selected_share, found.dilated_share) == (selected / pixels, dilated / pixels)
    pointwise, depthwise = channels * 2 * channels, 2 * channels * 9
    left = {
        name: pruned.multiply_adds.get(name, 0) - dense.multiply_adds.get(name, 0)
        for name in pruned.multiply_adds
    }
    outside = left.pop("matrix product") - dilated * pointwise
    assert outside in (0, pointwise)  # the frame's row of zeros
    assert left == {
        "convolution": -pixels * (pointwise + depthwise),
        "masked depth-wise convolution": selected * depthwise,
        "deformable sampling": 0,
        "deformable kernel": 0,
    }
    assert dense.multiply_adds["deformable sampling"] == 4 * dense.multiply_adds["deformable kernel"]
    assert dense.multiply_adds["deformable kernel"] == pixels * depthwise


# What is compared.


def test_pruned_and_dense_that_differ_are_no_result():
    class Wrong(M2AENet):
        def analyze(self, blurry, noise_seeds=None, mask=None):
            analysis = super().analyze(blurry, noise_seeds, mask)
            return analysis._replace(restored=analysis.restored + 0.01 * (self.pruning == "pruned"))

    net = lively(Wrong(4, [1, 1], 1, [1, 1], [2]))
    candidates = [Candidate(how, net, how) for how in ("dense", "pruned")]
    picture, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    for precision in ("32-true", "bf16-mixed"):
        with pytest.raises(AssertionError, match="pruned and dense differ by"):
            compare(candidates, picture, mask, precision, 1)


@pytest.mark.parametrize("stages", [[3], [1, 2]])
@pytest.mark.parametrize("size", [(64, 48), (61, 43), (1, 1), (5, 70)])
@pytest.mark.parametrize("share", [0.0, 0.11, 0.5, 1.0])
def test_a_made_mask_selects_the_share_at_the_stages(stages, size, share):
    net = lively(M2AENet(4, [1, 1, 1], 1, [1, 0, 1], stages))
    mask = blob_mask(net, size, share, torch.Generator().manual_seed(0))
    assert mask.shape == (1, 1, *size)
    assert set(mask.unique().tolist()) <= {0, 1}
    found = net.analyze(torch.rand(1, 3, *size), mask=mask).stages
    pixels = sum(stage.mask.numel() for stage in found)
    selected = sum(float(stage.mask.sum()) for stage in found) / pixels
    assert _shares(net, mask)[0] == pytest.approx(selected)
    if size != (1, 1):  # of which no stage but the first has a pixel by half
        scale_px = 2 ** (stages[-1] - 1)
        inside = math.prod(math.ceil(side / scale_px - 0.5) for side in size)
        assert float(found[-1].mask.sum()) == round(share * inside)


def test_made_masks_are_of_blobs_and_of_their_seed():
    net = M2AENet(4, [1, 1, 1, 1], 1, [1, 0, 1, 1])
    masks = [blob_mask(net, (720, 1080), 0.11, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    selected, dilated = _shares(net, masks[0])
    assert selected == pytest.approx(0.11, abs=1e-3)
    assert dilated < 1.5 * selected  # at random places it would be 0.65


def test_a_turn_is_repeated_as_often_as_time_allows():
    assert _turns_that_fit(a_turn_s=60, left_s=70) == 2
    assert _turns_that_fit(a_turn_s=20, left_s=100) == 5
    assert _turns_that_fit(a_turn_s=0.0, left_s=100) == 20
    assert _turns_that_fit(a_turn_s=60, left_s=-1) == 2


# What is measured.


def test_the_peak_is_what_a_pass_needs_beyond_what_was_there():
    def needs(mebibytes: int) -> int:
        def run() -> Tensor:
            return torch.ones(mebibytes * 2**18).sum()

        total, took = measured(run, CPU)
        assert total == mebibytes * 2**18
        assert took.seconds > 0
        assert took.peak_bytes is not None
        return round(took.peak_bytes / 2**20)

    needs(400)  # what happens only once
    # What others needed before, and have freed, counts neither for nor against it. Linux adds up what each
    # thread has touched after some dozens of pages, which may be of 2 MiB.
    for mebibytes in (900, 400, 700):
        assert needs(mebibytes) == pytest.approx(mebibytes, abs=200)


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "_CLEAR", tmp_path / "no" / "where")
    assert measured(lambda: 0, CPU)[1].peak_bytes is None
    monkeypatch.setattr(measuring, "_MACHINE", tmp_path / "nothing")
    monkeypatch.setattr(measuring, "_CONTAINER", ())
    assert available_bytes() is None


def test_a_container_may_have_less_than_the_machine(monkeypatch, tmp_path):
    limit, used = tmp_path / "limit", tmp_path / "used"
    monkeypatch.setattr(measuring, "_CONTAINER", ((limit, used),))
    whole = available_bytes()
    used.write_text("300\n")
    limit.write_text("max\n")
    assert available_bytes() == pytest.approx(whole, rel=0.5)
    limit.write_text("1000\n")
    assert available_bytes() == 700


def test_a_picture_that_would_take_all_memory_is_refused_before(monkeypatch):
    monkeypatch.setattr("deblur_lab.candidates.available_bytes", lambda: 1000)
    candidate = Candidate("NAFNet", small_nafnet())
    with pytest.raises(MachineError, match=r"size=600x512: about .* would be needed, and 1 kB are free"):
        _prepare([candidate], torch.rand(1, 3, 512, 600), None, lambda what: None)


def test_memory_that_runs_out_is_told_in_one_line():
    class Greedy(nn.Module):
        def forward(self, blurry: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    settings = {"size": "8x8", "seed": 0, "precision": "32-true", "repeats": 1}
    with pytest.raises(MachineError, match=r"out of memory; .* try a smaller size=, or precision=bf16-mixed"):
        _profiled(Greedy(), settings, CPU)


# What is said.


@pytest.mark.parametrize(("typed", "size"), [("2152x1436", (2152, 1436)), ("1X2", (1, 2))])
def test_sizes(typed, size):
    assert picture_size_px(typed) == size


@pytest.mark.parametrize("typed", ["0x0", "abc", "3x", "3x4x5", "-1x2", "1.5x2", "99999x1", 640, None, "٣x٤"])
def test_no_sizes(typed):
    with pytest.raises(ConfigurationError, match=r"size=.*: WIDTHxHEIGHT in pixels is expected"):
        picture_size_px(typed)


def test_the_papers_counts_stand_beside_its_own_configurations_alone():
    with torch.device("meta"):
        paper, all_positions = M2AENet(), M2AENet(mask_positions=(1, 2, 3))
        others = (M2AENet(width=16), M2AENet(mask_aware=False), M2AENet(mask_deformable=True), NAFNet(16))
    published = published_costs(paper, SIZE_PX)
    assert published is not None
    assert published.multiply_adds_t == {"NAFNet-32": 0.764, "dense": 0.995, "pruned": 0.759}
    assert published.parameters_m["pruned"] == round(sum(p.numel() for p in paper.parameters()) / 1e6, 2)
    of_all = published_costs(all_positions, SIZE_PX)
    assert of_all is not None
    assert of_all.multiply_adds_t["pruned"] == 0.568
    assert published_costs(paper, (1436, 2152)) is None
    assert [published_costs(net, SIZE_PX) for net in others] == [None] * 4


# Parts of a net.


def test_the_sub_decoders_are_those_of_the_papers_tables():
    # Sub-decoders of the full width; of the encoder its sizes alone matter, so that a short one does.
    net = AIBNet(NAFNet(64, (1, 1, 1, 1), 1, (1, 1, 1, 1)), sub_decoders=2).eval()
    parts = counted_parts(net, torch.rand(1, 3, 256, 256))
    assert [part.name for part in parts] == ["encoder", "sub-decoder 1", "sub-decoder 2"]
    decoders = [part for part in parts if part.name.startswith(SUB_DECODER)]
    published = published_costs(net, AIBNET_SIZE_PX)
    assert published is not None
    assert published.sub_decoders_g == {"AIBNet": 228}
    assert {count: 114 * count for count in (1, 2, 4)} == SUB_DECODERS_G
    for part in decoders:
        assert linear(part.multiply_adds) / 1e9 == pytest.approx(114, rel=0.01)
        assert part.parameters / 1e6 == pytest.approx(published.trained_m["AIBNet"], rel=0.01)
    # SFEM has two products of queries and keys and one with the values, HFSBlock one of each.
    scales = [(64 * 2**level, 256 // 2**level) for level in range(4)]
    products = sum(side**2 * channels**2 for channels, side in scales) * (8 * 3 + 2)
    assert all(part.multiply_adds["attention product"] == products for part in decoders)


def test_the_encoder_is_the_published_one():
    with torch.device("meta"):
        encoder = AIBNet(UFPNet()).encoder
    guiding = sum(
        parameter.numel() for part in (encoder.kernel_extra, encoder.flow) for parameter in part.parameters()
    )
    whole = sum(parameter.numel() for parameter in encoder.parameters())
    assert guiding / 1e6 == pytest.approx(5.62 + 0.19, abs=0.01)
    assert (whole - guiding) / 1e6 == pytest.approx(69.3, abs=0.05)


@pytest.mark.parametrize(
    "net",
    [
        AIBNet(UFPNet(8, [1, 2], 1, [1, 1], kernel_size_px=5, estimator_width=4), sub_decoders=2, blocks=1),
        UFPNet(8, [1, 2], 1, [1, 1], kernel_size_px=5, estimator_width=4),
        AIBNet(NAFNet(8, [1], 1, [1]), sub_decoders=2, blocks=1, fusion=DownwardFusion()),
    ],
)
def test_all_that_runs_is_in_one_of_the_parts(net):
    net, picture = net.eval(), torch.rand(1, 3, 21, 30)
    parts = counted_parts(net, picture)
    assert summed(parts) == counted(lambda: net(picture))[1]
    assert sum(part.parameters for part in parts) == sum(parameter.numel() for parameter in net.parameters())


def test_nets_without_parts_have_none():
    assert counted_parts(small_nafnet(), torch.rand(1, 3, 8, 8)) == []


def test_other_sizes_of_aibnet_are_not_the_papers():
    with torch.device("meta"):
        others = [
            AIBNet(NAFNet(32, (1,) * 4, 1, (1,) * 4)),
            AIBNet(NAFNet(64, (1,) * 4, 1, (1,) * 4), blocks=4),
            AIBNet(NAFNet(64, (1,) * 4, 1, (1,) * 4), sub_decoders=3),
            AIBNet(NAFNet(64, (1,) * 4, 1, (1,) * 4), spatial=None),
        ]
        paper = AIBNet(NAFNet(64, (1,) * 4, 1, (1,) * 4))
    assert [published_costs(net, AIBNET_SIZE_PX) for net in others] == [None] * 4
    assert published_costs(paper, SIZE_PX) is None
