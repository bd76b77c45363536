"""What is seen inside an AIBNet, of a batch and of a large photo in tiles."""

import numpy as np
import torch

from deblur_lab.images import to_tensor
from deblur_lab.inside import insight, look_inside
from deblur_lab.models import AIBNet, DifferentialAttention, FrequencySelection, NAFNet, TopKAttention
from deblur_lab.restoring import Restorer, can_explain
from tests.nets import small_aibnet
from tests.test_restoring import scene

CPU = torch.device("cpu")


def test_maps_are_those_of_the_last_sub_decoder_at_the_full_resolution():
    net, blurry = small_aibnet(), torch.rand(2, 3, 21, 30)
    look = look_inside(net, blurry)
    assert torch.equal(look.restored, net(blurry))
    kept = [[None if one is None else one[1] for one in scales] for scales in look.kept]
    seen = insight(net, look.restored[1], look.planes[1], kept)
    expected = [one[1].clamp(0, 1) for one in net.restorations(blurry)]
    assert len(seen.restorations) == 2
    for restored, one in zip(seen.restorations, expected, strict=True):
        assert torch.allclose(restored, one)
    maps = net.inspect(blurry).maps[-1][0]
    assert [[one.name for one in row.maps] for row in seen.rows] == [
        ["before SFEM", "after SFEM"],
        ["channel attention (SCA)", "SFEM"],
        ["before HFSBlock", "after HFSBlock"],
        ["after less before HFSBlock"],
    ]
    drawn = [one.values for row in seen.rows for one in row.maps]
    features = (
        maps.before, maps.before + maps.sfem, maps.sca, maps.sfem,
        maps.before_hfs, maps.after_hfs, maps.after_hfs - maps.before_hfs,
    )  # fmt: skip
    for values, one in zip(drawn, features, strict=True):
        assert torch.allclose(values[0], one[1].abs().mean(0)[:21, :30], atol=1e-6)
    assert [len(row) for row in seen.kept] == [2, 2]
    for block in (block for row in seen.kept for block in row):
        assert len(block.attention) == len(block.entries) == len(block.weights) == 4
        assert list(block.attention) == sorted(block.attention)
        both = zip(block.entries, block.attention, strict=True)
        assert all(0 <= few <= share + 1e-6 <= 1 + 2e-6 for few, share in both)
    assert seen.kept[1][1].name == "sub-decoder 2, 1/2 of the resolution"


def test_other_parts_in_their_places_have_their_own_names():
    for settings, names in (
        ({"spatial": None, "frequency": None}, [["channel attention (SCA)"]]),
        (
            {"spatial": FrequencySelection(), "frequency": TopKAttention()},
            [
                ["before HFSBlock", "after HFSBlock"],
                ["channel attention (SCA)", "HFSBlock"],
                ["before TKSA", "after TKSA"],
                ["after less before TKSA"],
            ],
        ),
        (
            {"frequency": DifferentialAttention()},
            [
                ["before SFEM", "after SFEM"],
                ["channel attention (SCA)", "SFEM"],
                ["before SFEM", "after SFEM"],
                ["after less before SFEM"],
            ],
        ),
        ({"blocks": 0, "frequency": None}, []),
    ):
        net = AIBNet(NAFNet(8, [1], 1, [1]), **{"blocks": 1, **settings}).eval()
        look = look_inside(net, torch.rand(1, 3, 8, 8))
        kept = [[None if one is None else one[0] for one in scales] for scales in look.kept]
        seen = insight(net, look.restored[0], look.planes[0], kept)
        assert [[one.name for one in row.maps] for row in seen.rows] == names
        assert seen.kept == ((),)


def test_a_photo_is_explained_whole_reduced_and_in_tiles(monkeypatch):
    net, pixels = small_aibnet(), scene(60, 90)
    assert can_explain(net)
    look = look_inside(net, to_tensor(pixels)[None])
    at_once = Restorer(net, CPU).explain(pixels)
    assert at_once.probability is None
    assert at_once.motion is None
    assert np.array_equal(at_once.pixels, Restorer(net, CPU).restore(pixels))
    assert torch.allclose(at_once.insight.rows[0].maps[0].values[0], look.planes[0, 3], atol=1e-5)
    shares = [block.attention for row in at_once.insight.kept for block in row]
    monkeypatch.setattr("deblur_lab.restoring.EXPLAINED_PX", 40)
    reduced = Restorer(net, CPU, tile_px=64, overlap_px=16).explain(pixels)
    assert reduced.reduction == 3
    assert [one.shape for one in reduced.insight.restorations] == [(3, 20, 30)] * 2
    assert {one.values.shape for row in reduced.insight.rows for one in row.maps} == {(1, 20, 30)}
    in_tiles = [block.attention for row in reduced.insight.kept for block in row]
    np.testing.assert_allclose(in_tiles, shares, atol=0.2)
