from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from deblur_lab.data.datamodule import DeblurDataModule, EvaluationPictures, TrainingPatches, plan_batches
from deblur_lab.data.samples import SampleKey, Scene, Source, Split
from deblur_lab.data.scenes import CameraShake, LocalMotion
from deblur_lab.data.sources import Folder
from deblur_lab.data.synthetic import SyntheticSource
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import ImageError


class MemoryScenes:
    """Scenes of noise whose sharp picture and mask tell by their values what was done to the blurry one."""

    def __init__(self, name: str, count: int, *, masks: bool = True, motion: bool = False) -> None:
        self.dataset = name
        self.count = count
        self.masks = masks
        self.motion = motion

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{self.dataset}-{index}"

    def load(self, index: int, epoch: int = 0) -> Scene:
        rng = np.random.default_rng([index, epoch])
        blurry = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        mask = (blurry[..., 0] > 120).astype(np.uint8) if self.masks else None
        rows, columns = np.mgrid[:20, :30].astype(np.float32)
        motion = np.stack([columns, rows], axis=2) if self.motion else None
        return Scene(
            self.name(index), blurry, 255 - blurry, mask, motion, None if motion is None else -motion
        )


class MemorySource:
    protocol = None

    def __init__(self, name: str, count: int, *, masks: bool = True, motion: bool = False) -> None:
        self.name = name
        self.count = count
        self.masks = masks
        self.motion = motion

    def scenes(self, split: Split) -> MemoryScenes:
        count = self.count if split == "train" else 3
        return MemoryScenes(self.name, count, masks=self.masks, motion=self.motion)


def two_sources() -> list[Source]:
    return [MemorySource("one", 5, motion=True), MemorySource("two", 7, masks=False)]


def module(sources: Sequence[Source] | None = None, **options: Any) -> DeblurDataModule:
    return DeblurDataModule(two_sources() if sources is None else sources, **{"patch_size": 8} | options)


def attached(data: DeblurDataModule, stage: str = "fit", **trainer: int) -> DeblurDataModule:
    known = {
        "world_size": 1,
        "global_rank": 0,
        "global_step": 0,
        "max_steps": 6,
        "accumulate_grad_batches": 1,
    }
    data.trainer = SimpleNamespace(**known | trainer)
    data.setup(stage)
    return data


def batches(data: DeblurDataModule, **trainer: int) -> list[dict[str, Any]]:
    return list(attached(data, **trainer).train_dataloader())


def samples_of(batch_list: Sequence[dict[str, Any]]) -> list[tuple[str, int, bytes, bytes, bytes]]:
    return [
        (
            batch["name"][place],
            int(batch["seed"][place]),
            batch["blurry"][place].numpy().tobytes(),
            batch["sharp"][place].numpy().tobytes(),
            batch["mask"][place].numpy().tobytes(),
        )
        for batch in batch_list
        for place in range(len(batch["name"]))
    ]


# Sharing out a batch


@pytest.mark.parametrize(
    ("batch", "micro", "world", "expected"),
    [(8, None, 1, (8, 1)), (8, None, 4, (2, 1)), (8, 2, 1, (2, 4)), (8, 1, 2, (1, 4)), (6, 3, 2, (3, 1))],
)
def test_batches_are_shared_out(batch: int, micro: int | None, world: int, expected: tuple[int, int]) -> None:
    assert plan_batches(batch, micro, world) == expected
    assert expected[0] * expected[1] * world == batch


@pytest.mark.parametrize(
    ("batch", "micro", "world", "message"),
    [
        (8, None, 3, r"data\.batch_size=8 .* cannot be shared by 3: choose a multiple of 3"),
        (2, None, 4, r"data\.batch_size=2 "),
        (0, None, 1, r"data\.batch_size=0 "),
        (8, 3, 1, r"data\.micro_batch_size=3 does not divide 8"),
        (8, 8, 2, r"data\.micro_batch_size=8 does not divide 4, each device's share of data\.batch_size=8"),
        (8, 0, 1, r"data\.micro_batch_size=0 "),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(
    batch: int, micro: int | None, world: int, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        plan_batches(batch, micro, world)


# Training samples


def test_a_training_batch_holds_what_tasks_expect() -> None:
    batch = batches(module(batch_size=4))[0]
    assert batch["blurry"].shape == batch["sharp"].shape == (4, 3, 8, 8)
    assert batch["mask"].shape == (4, 1, 8, 8)
    assert batch["blurry"].dtype == batch["mask"].dtype == torch.float32
    assert batch["mask_known"].dtype == torch.bool
    assert batch["mask_known"].tolist() == [True, False, True, False]
    assert batch["seed"].dtype == torch.int64
    assert (batch["seed"] >= 0).all()
    assert len(set(batch["seed"].tolist())) == 4
    assert [name[:3] for name in batch["name"]] == ["one", "two", "one", "two"]
    # Every map is cut and turned alike.
    assert torch.allclose(batch["sharp"], 1 - batch["blurry"], atol=1e-6)
    assert torch.equal(batch["mask"][::2], (batch["blurry"][::2, :1] > 120.5 / 255).float())
    assert (batch["mask"][1::2] == 1).all()


def test_a_patch_is_part_of_its_scene() -> None:
    scenes = MemoryScenes("one", 5)
    sample = TrainingPatches([scenes], 8, seed=0, augment=False)[SampleKey(0, 2, 4)]
    whole = torch.from_numpy(scenes.load(2, 4).blurry).permute(2, 0, 1).float() / 255
    windows = whole.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4)
    assert sum(torch.allclose(window, sample["blurry"]) for row in windows for window in row) == 1


def test_samples_are_functions_of_seed_and_key() -> None:
    scenes = [MemoryScenes("one", 5), MemoryScenes("two", 5)]
    patches = TrainingPatches(scenes, 8, seed=3)
    keys = [SampleKey(0, 2, 4), SampleKey(0, 2, 5), SampleKey(0, 3, 4), SampleKey(1, 2, 4)]
    seeds = {int(patches[key]["seed"]) for key in keys}
    assert len(seeds) == 4
    again = TrainingPatches(scenes, 8, seed=3)[keys[0]]
    assert int(again["seed"]) == int(patches[keys[0]]["seed"])
    assert torch.equal(again["blurry"], patches[keys[0]]["blurry"])
    assert int(TrainingPatches(scenes, 8, seed=4)[keys[0]]["seed"]) not in seeds


def test_a_patch_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(DataError, match=r"one-0 is 30 x 20, but data\.patch_size=21 needs .* 21 x 21"):
        TrainingPatches([MemoryScenes("one", 1)], 21, seed=0)[SampleKey(0, 0, 0)]


def test_workers_change_nothing() -> None:
    alone, helped = module(batch_size=2), module(batch_size=2, num_workers=2)
    random_state = torch.random.get_rng_state()
    assert samples_of(batches(alone)) == samples_of(batches(helped))
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_devices_and_accumulation_change_nothing() -> None:
    alone = samples_of(batches(module(batch_size=4)))
    assert len(alone) == 24
    accumulated = batches(module(batch_size=4, micro_batch_size=2), accumulate_grad_batches=2)
    assert len(accumulated) == 12
    assert samples_of(accumulated) == alone
    parts = [batches(module(batch_size=4), world_size=2, global_rank=rank) for rank in range(2)]
    assert samples_of([batch for pair in zip(*parts, strict=True) for batch in pair]) == alone


def test_a_trainer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"accumulate_grad_batches=1, but data\.batch_size=4 .* needs 2"
    ):
        batches(module(batch_size=4, micro_batch_size=2))
    with pytest.raises(ConfigurationError, match=r"trainer\.max_steps=-1: give the number of steps"):
        batches(module(), max_steps=-1)


class Recorder(L.LightningModule):
    """Trains one number, and writes down the samples that it was given."""

    def __init__(self, checkpoint: Path | None = None) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.checkpoint = checkpoint
        self.seen: list[tuple[int, list[int]]] = []
        self.scored: list[tuple[int, str]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.seen.append((batch_idx, batch["seed"].tolist()))
        return (self.number - batch["blurry"].mean()) ** 2

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.scored.append((dataloader_idx, batch["name"][0]))

    def on_train_batch_end(self, *_: Any) -> None:
        if self.checkpoint is not None and self.global_step == 3 and not self.checkpoint.exists():
            self.trainer.save_checkpoint(self.checkpoint)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(recorder: Recorder, checkpoint: Path | None = None) -> Recorder:
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=6,
        max_epochs=-1,
        accumulate_grad_batches=2,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = module(batch_size=4, micro_batch_size=2)
    trainer.fit(recorder, data, ckpt_path=checkpoint, weights_only=True)
    assert trainer.global_step == 6
    return recorder


def test_a_resumed_run_goes_on_with_the_samples_that_were_next(tmp_path: Path) -> None:
    whole = trained(Recorder(tmp_path / "three.ckpt"))
    assert len(whole.seen) == 12
    resumed = trained(Recorder(), tmp_path / "three.ckpt")
    assert resumed.seen == whole.seen[6:]
    assert torch.equal(resumed.number, whole.number)
    assert whole.scored[:6] == [
        (0, "one-0"),
        (0, "one-1"),
        (0, "one-2"),
        (1, "two-0"),
        (1, "two-1"),
        (1, "two-2"),
    ]


# Evaluation


def test_pictures_are_scored_whole_one_loader_a_source() -> None:
    data = attached(module(), "test")
    first, second = data.test_dataloader()
    pictures = list(first)
    assert [picture["name"] for picture in pictures] == [["one-0"], ["one-1"], ["one-2"]]
    assert [picture["index"].tolist() for picture in pictures] == [[0], [1], [2]]
    picture = pictures[1]
    scene = MemoryScenes("one", 3, motion=True).load(1)
    assert picture["blurry"].shape == (1, 3, 20, 30)
    assert np.array_equal((picture["sharp"][0] * 255).round().permute(1, 2, 0), scene.sharp)
    assert np.array_equal(picture["mask"][0, 0], scene.mask)
    assert picture["mask_known"].tolist() == [True]
    assert picture["start"].shape == (1, 2, 20, 30)
    assert picture["start"][0, :, 4, 7].tolist() == [7, 4]  # x, then y
    assert picture["end"][0, :, 4, 7].tolist() == [-7, -4]
    other = next(iter(second))
    assert "start" not in other
    assert other["mask_known"].tolist() == [False]
    assert (other["mask"] == 1).all()


def test_evaluation_is_shared_out_without_repeats() -> None:
    names: list[str] = []
    for rank in range(4):
        data = attached(module(), "validate", world_size=4, global_rank=rank)
        assert data.allow_zero_length_dataloader_with_multiple_devices
        names += [picture["name"][0] for loader in data.val_dataloader() for picture in loader]
    assert sorted(names) == ["one-0", "one-1", "one-2", "two-0", "two-1", "two-2"]


def test_evaluation_does_not_depend_on_workers() -> None:
    lists = []
    for num_workers in (0, 2):
        data = attached(module(num_workers=num_workers), "validate")
        lists.append([picture for loader in data.val_dataloader() for picture in loader])
    assert [picture["name"] for picture in lists[0]] == [picture["name"] for picture in lists[1]]
    assert all(torch.equal(first["blurry"], second["blurry"]) for first, second in zip(*lists, strict=True))


# Files


def write_pairs(root: Path, count: int, size: tuple[int, int] = (16, 12)) -> None:
    for number in range(count):
        for folder in ("blurry", "sharp"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / folder / f"{number}.png")


def folders(root: Path) -> list[Source]:
    for name in ("a", "b"):
        for split in ("train", "test"):
            write_pairs(root / name / split, 2)
    return [Folder(root / name, None, name=name) for name in ("a", "b")]


def test_whatever_is_wrong_with_files_is_said_before_training(tmp_path: Path) -> None:
    sources = folders(tmp_path)
    module(sources).setup("fit")
    (tmp_path / "a/train/blurry/0.png").write_bytes(b"")
    (tmp_path / "b/test/sharp/1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        module(sources).setup("fit")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "a/train/blurry/0.png: the file is empty" in lines[1]
    assert "b/test/sharp/1.png: not a picture" in lines[2]
    module(sources, check_files=False).setup("fit")
    with pytest.raises(DataError, match=r"smaller than data\.patch_size=13: data\.patch_size=12 at most"):
        module(folders(tmp_path), patch_size=13).setup("fit")
    module(folders(tmp_path), patch_size=13).setup("test")


def test_a_patch_larger_than_synthetic_scenes_is_refused_before_training() -> None:
    def source(**options: Any) -> SyntheticSource:
        return SyntheticSource(LocalMotion(), None, size_px=(64, 48), train_scenes=2, **options)

    data = module([MemorySource("one", 2), source(name="made up")], patch_size=49, check_files=False)
    with pytest.raises(
        DataError, match=r"^each scene of made up is 64 x 48, but data\.patch_size=49 .* 49 x 49"
    ) as caught:
        data.setup("fit")
    assert "\n" not in str(caught.value)
    data.setup("test")
    module([source()], patch_size=48).setup("fit")


def test_evaluation_needs_no_training_files(tmp_path: Path) -> None:
    write_pairs(tmp_path / "test", 2)
    data = attached(module([Folder(tmp_path, None)]), "test")
    assert len(data.test_dataloader()[0]) == 2
    with pytest.raises(DataError, match="has no train split"):
        data.setup("fit")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_breaks_during_a_run_is_named_in_one_line(tmp_path: Path, num_workers: int) -> None:
    data = module(folders(tmp_path)[:1], batch_size=1, num_workers=num_workers)
    attached(data, max_steps=50)
    for path in (tmp_path / "a/train/sharp").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ImageError, match=r"^/.*/a/train/sharp/[01]\.png: cannot be read as a picture"
    ) as caught:
        list(data.train_dataloader())
    assert "\n" not in str(caught.value)


class HoledScenes(MemoryScenes):
    """Scenes of which some cannot be read."""

    def __init__(self, holes: set[int]) -> None:
        super().__init__("holed", 30)
        self.holes = holes

    def load(self, index: int, epoch: int = 0) -> Scene:
        if index in self.holes:
            raise DataError(f"{self.name(index)}: is broken")
        return super().load(index, epoch)


def test_what_cannot_be_read_is_skipped_if_that_is_asked_for_and_nothing_else_changes() -> None:
    def patches(holes: set[int], *, skip: bool) -> TrainingPatches:
        return TrainingPatches([HoledScenes(holes)], 8, seed=1, skip_unreadable=skip)

    key = SampleKey(0, 4, 2)
    whole = patches(set(), skip=False)
    holed = patches({4, 5}, skip=True)
    with pytest.raises(DataError, match="holed-4: is broken"):
        patches({4}, skip=False)[key]
    stand_in = holed[key]
    assert stand_in["skipped"] == "holed-4: is broken"
    # The same each time, another for another epoch, and not that which would have come as its own.
    assert samples_of([torch.utils.data.default_collate([stand_in])]) == samples_of(
        [torch.utils.data.default_collate([patches({4, 5}, skip=True)[key]])]
    )
    assert len({holed[key._replace(epoch=epoch)]["name"] for epoch in range(9)}) > 3
    for index in set(range(30)) - {4, 5}:
        one, other = whole[key._replace(index=index)], holed[key._replace(index=index)]
        assert other.pop("skipped") == ""
        assert all(torch.equal(one[name], other[name]) for name in one if name != "name")
    with pytest.raises(DataError, match="holed-4: is broken; nor can any of the 20 others that were tried"):
        patches(set(range(30)), skip=True)[key]


def test_scoring_skips_nothing() -> None:
    with pytest.raises(DataError, match="holed-1: is broken"):
        EvaluationPictures(HoledScenes({1}))[1]
    assert "skipped" not in EvaluationPictures(HoledScenes(set()))[1]


def test_workers_have_the_time_that_they_are_given() -> None:
    data = attached(module(num_workers=1, worker_timeout_s=7.0))
    assert {loader.timeout for loader in (data.train_dataloader(), *data.val_dataloader())} == {7.0}
    assert attached(module(worker_timeout_s=7.0)).train_dataloader().timeout == 0  # there are none


# What is said and what is refused


def test_describe_says_what_is_trained_on(tmp_path: Path) -> None:
    write_pairs(tmp_path, 5)
    data = module([MemorySource("one", 5), Folder(tmp_path, None)], batch_size=4)
    assert data.describe() == [
        "one: 5 train, 3 val, 3 test, masks known",
        "folder: 4 train, 1 val, 1 test, masks not known (all counts as blurred); "
        "one pair in 10 is kept for testing (data.holdout_every); val is a sample of test",
        "patches of 8 px, 4 a step, sources mixed one to one; with probability 0.5 centred on blur, "
        "where masks show more than 5%; flips and quarter turns",
    ]
    counts = {"train_scenes": 1, "val_scenes": 1, "test_scenes": 1}
    blurred = SyntheticSource(CameraShake(), None, size_px=32, **counts)
    assert module([blurred], batch_size=4).describe() == [
        "synthetic: 1 train, 1 val, 1 test, blurred all over",
        "patches of 8 px, 4 a step; flips and quarter turns",
    ]
    assert module(augment=False).describe("test") == [
        "one: 3 test, masks known",
        "two: 3 test, masks not known (all counts as blurred)",
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("patch_size", 0),
        ("batch_size", 0),
        ("num_workers", -1),
        ("blur_crop_probability", 1.5),
        ("blur_crop_share", -0.1),
    ],
)
def test_numbers_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"data\.{option}={value}: give"):
        module(**{option: value})


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^seed=-1: give 0 or more"):
        module(seed=-1)


def test_sources_need_names_of_their_own() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.sources=\['one', 'one'\]"):
        module([MemorySource("one", 1), MemorySource("one", 2)])
    with pytest.raises(ConfigurationError, match=r"data\.sources=\[\]"):
        module([])


def test_pictures_can_be_used_without_lightning() -> None:
    pictures = EvaluationPictures(MemoryScenes("one", 2))
    assert len(pictures) == 2
    assert pictures[1]["name"] == "one-1"
