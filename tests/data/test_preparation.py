"""Preparing: the same samples from tiles as from pictures, and what happens where the two do not fit."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_lab.data.datamodule import DeblurDataModule
from deblur_lab.data.patches import TrainingPatches
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.prepared import making
from deblur_lab.data.prepared.making import Done, jobs_of, make_room, strangers
from deblur_lab.data.prepared.scenes import (
    PreparedScenes,
    find_prepared,
    folder_of,
    place_of,
    require_setting,
    tiles_for,
)
from deblur_lab.data.prepared.tiles import TiledScene, read_header
from deblur_lab.data.samples import SampleKey, Source
from deblur_lab.data.scenes import LocalMotion
from deblur_lab.data.sources import Folder, GoPro, ReLoBlur
from deblur_lab.data.synthesize import Settings, synthesize
from deblur_lab.data.synthetic import SyntheticSource
from deblur_lab.errors import ConfigurationError, DataError, MachineError
from deblur_lab.images import read_rgb


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reloblur`, with masks, and `gopro`, each of five training pairs and a test pair; nothing prepared."""
    folder = tmp_path_factory.mktemp("made")
    for layout in ("reloblur", "gopro"):
        synthesize(
            Settings(
                folder / layout, layout, train_scenes=5, test_scenes=1, size_px=(150, 100), num_workers=0
            )
        )
    return folder


@pytest.fixture
def reloblur(made: Path, tmp_path: Path) -> Path:
    """A copy to prepare and to spoil."""
    return Path(shutil.copytree(made / "reloblur", tmp_path / "reloblur"))


def scenes_of(root: Path, **options: Any) -> PictureScenes:
    return ReLoBlur(root, None, **options).scenes("train")


def prepare(scenes: PictureScenes, folder: Path) -> list[Done]:
    """In this process."""
    jobs = jobs_of(scenes, folder)
    make_room({folder: jobs}, 1, own=True)
    return [job.run() for job in jobs]


def prepared(root: Path, **options: Any) -> PreparedScenes:
    scenes = scenes_of(root, **options)
    folder = folder_of(scenes, None, "reloblur")
    assert all(done.written for done in prepare(scenes, folder))
    found = find_prepared(scenes, folder)
    assert found.misfit is None
    return found


def module(sources: Source | Sequence[Source], **options: Any) -> DeblurDataModule:
    sources = sources if isinstance(sources, Sequence) else [sources]
    data = DeblurDataModule(sources, **{"patch_size": 64, "batch_size": 2} | options)
    data.trainer = SimpleNamespace(
        world_size=1, global_rank=0, global_step=0, max_steps=8, accumulate_grad_batches=1
    )
    return data


def batches(data: DeblurDataModule) -> list[dict[str, Any]]:
    data.setup("fit")
    return list(data.train_dataloader())


def assert_equal(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> None:
    assert len(one) == len(other) > 0
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert (
                torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
            )


# The samples


@pytest.mark.parametrize("source", ["masks", "no masks", "blurred all over"])
@pytest.mark.parametrize("augment", [True, False, "flips"])
def test_samples_from_tiles_are_those_from_pictures_to_the_last_bit(
    made: Path, tmp_path: Path, source: str, augment: Any
) -> None:
    if source == "blurred all over":
        scenes = GoPro(made / "gopro", None).scenes("train")
    else:
        scenes = scenes_of(made / "reloblur", masks="masks" if source == "masks" else None)
    prepare(scenes, tmp_path)
    tiles = find_prepared(scenes, tmp_path)
    assert tiles.misfit is None
    of_files, of_tiles = (
        TrainingPatches([one], 48, seed=3, augment=augment, blur_crop_share=0.01) for one in (scenes, tiles)
    )
    keys = [SampleKey(0, index, epoch) for epoch in range(8) for index in range(len(scenes))]
    assert_equal([of_files[key] for key in keys], [of_tiles[key] for key in keys])


def test_the_loader_uses_tiles_by_itself_and_says_so(reloblur: Path) -> None:
    def source() -> ReLoBlur:
        return ReLoBlur(reloblur, None)

    from_pictures = module(source())
    expected = batches(from_pictures)
    assert not any("tiles" in line for line in from_pictures.describe())
    prepared(reloblur)
    # Of the training pictures only the headers' times are looked at: what cannot be decoded is not noticed.
    for num_workers in (0, 1):
        from_tiles = module(source(), num_workers=num_workers)
        assert_equal(batches(from_tiles), expected)
        line = f"reloblur: patches are read from the tiles in {reloblur / '.prepared'}, which fit its files"
        assert line in from_tiles.describe()
    off = module(source(), prepared=False)
    assert_equal(batches(off), expected)
    assert not any("tiles" in line for line in off.describe())


def test_pictures_are_not_decoded_where_tiles_fit(reloblur: Path) -> None:
    tiles = prepared(reloblur)
    expected = batches(module(ReLoBlur(reloblur, None)))
    spoilt = tiles.scenes.pairs[2].sharp
    state = spoilt.stat()
    spoilt.write_bytes(bytes(state.st_size))
    os.utime(spoilt, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert_equal(batches(module(ReLoBlur(reloblur, None))), expected)
    with pytest.raises(DataError, match="1 problem"):
        module(ReLoBlur(reloblur, None), prepared=False).setup("fit")


def test_a_mix_takes_each_set_from_where_it_lies(made: Path, tmp_path: Path) -> None:
    def sources() -> list[Source]:
        synthetic = SyntheticSource(LocalMotion(), None, size_px=(80, 70), train_scenes=3)
        return [ReLoBlur(made / "reloblur", None), synthetic, GoPro(made / "gopro", None)]

    expected = batches(module(sources(), batch_size=3))
    mixed = sources()
    for place in (0, 2):
        scenes = mixed[place].scenes("train")
        assert isinstance(scenes, PictureScenes)
        folder = folder_of(scenes, tmp_path / "tiles", mixed[place].name)
        assert folder == tmp_path / "tiles" / mixed[place].name
        prepare(scenes, folder)
    data = module(sources(), batch_size=3, prepared=str(tmp_path / "tiles"))
    assert_equal(batches(data), expected)
    assert sum("patches are read from the tiles" in line for line in data.describe()) == 2
    # Nothing was written into the datasets.
    assert not list(made.rglob(".prepared"))


# What does not fit


def touched(path: Path) -> Path:
    os.utime(path, ns=(1, 1))
    return path


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: next(root.rglob("*.tiles")).unlink(), "1 without tiles"),
        (lambda root: touched(sorted(root.rglob("train/*/*/*_blur.png"))[1]), "1 changed since"),
        (lambda root: touched(sorted(root.glob("masks/train/*/*/*.png"))[3]), "1 changed since"),
        (lambda root: next(root.rglob("*.tiles")).write_bytes(b"?"), "1 with damaged tiles"),
        (
            lambda root: (
                sorted(root.rglob("*.tiles"))[0].unlink(),
                touched(sorted(root.rglob("train/*/*/*_sharp.png"))[4]),
            ),
            "1 without tiles, 1 changed since",
        ),
        # A pair that came later.
        (
            lambda root: [
                shutil.copy(path, path.with_name(path.name.replace("00", "77")))
                for path in root.rglob("train/s01/01/00*.png")
            ],
            "1 without tiles",
        ),
    ],
)
def test_pairs_whose_tiles_do_not_fit_are_read_from_pictures_with_a_line_or_refused(
    reloblur: Path, spoil: Spoil, told: str
) -> None:
    prepared(reloblur)
    spoil(reloblur)
    data = module(ReLoBlur(reloblur, None))
    lines = [line for line in data.describe() if "tiles" in line]
    assert len(lines) == 1
    pairs = len(scenes_of(reloblur))
    others = told.count("1 ")
    assert lines[0].startswith(
        f"reloblur: {pairs - others} of {pairs} training pairs are read from the tiles in "
        f"{reloblur / '.prepared'}, and {others} from the pictures, which is slower: {told} ("
    )
    assert "python -m deblur_lab.data.prepare" in lines[0]
    # Those that fit are read, and those that do not are not.
    view = find_prepared(scenes_of(reloblur), reloblur / ".prepared").view
    assert sum(isinstance(view(index), TiledScene) for index in range(pairs)) == pairs - others
    assert_equal(batches(data), batches(module(ReLoBlur(reloblur, None), prepared=False)))
    # The same, asked for.
    elsewhere = reloblur.parent / "elsewhere"
    elsewhere.mkdir()
    (reloblur / ".prepared").rename(elsewhere / "reloblur")
    with pytest.raises(
        DataError, match=rf"^data\.prepared=.*elsewhere does not fit reloblur: .*{told}"
    ) as caught:
        module(ReLoBlur(reloblur, None), prepared=str(elsewhere)).setup("fit")
    assert f"output={elsewhere}" in str(caught.value)
    # Preparing again mends it, and keeps the rest.
    scenes = scenes_of(reloblur)
    results = prepare(scenes, elsewhere / "reloblur")
    assert 1 <= sum(done.written for done in results) <= 2
    module(ReLoBlur(reloblur, None), prepared=str(elsewhere)).setup("fit")


def test_a_folder_that_is_not_there_is_refused(reloblur: Path, tmp_path: Path) -> None:
    data = module(ReLoBlur(reloblur, None), prepared=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"^data\.prepared=.*none: there is no folder .*none/reloblur"):
        data.setup("fit")


def test_tiles_of_other_masks_are_others(reloblur: Path) -> None:
    prepared(reloblur)
    shutil.copytree(reloblur / "masks", reloblur / "later")
    scenes = scenes_of(reloblur, masks="later")
    found = find_prepared(scenes, reloblur / ".prepared")
    assert found.misfit is not None
    assert found.misfit.missing == 5
    data = module(ReLoBlur(reloblur, None, masks="later"))
    (line,) = [line for line in data.describe() if "tiles" in line]
    assert line.startswith(f"reloblur: the tiles in {reloblur / '.prepared'} are left alone and the pictures")
    assert "of 5 training pairs 5 without tiles" in line
    prepare(scenes, reloblur / ".prepared")
    for masks in ("masks", "later"):
        assert find_prepared(scenes_of(reloblur, masks=masks), reloblur / ".prepared").misfit is None
    assert len(strangers(reloblur / ".prepared", jobs_of(scenes, reloblur / ".prepared"))) == 5


def test_a_moved_dataset_takes_its_tiles_along(reloblur: Path) -> None:
    prepared(reloblur)
    moved = reloblur.rename(reloblur.parent / "moved")
    assert find_prepared(scenes_of(moved), moved / ".prepared").misfit is None


def test_one_bad_mask_leaves_the_tiles_of_the_others_in_use(reloblur: Path, tmp_path: Path) -> None:
    """As ReLoBlur's first masks have it: some are files of zero bytes."""
    bad = scenes_of(reloblur).pairs[2].mask
    assert bad is not None
    bad.write_bytes(b"")
    skipping: dict[str, Any] = {"skip_unreadable": True, "batch_size": 1}
    expected = batches(module(ReLoBlur(reloblur, None), **skipping, prepared=False))
    assert any(text for batch in expected for text in batch["skipped"])
    for folder in (None, tmp_path / "tiles"):
        scenes = scenes_of(reloblur)
        results = prepare(scenes, folder_of(scenes, folder, "reloblur"))
        assert [done.written for done in results] == [True, True, False, True, True]
        given = "auto" if folder is None else str(folder)
        data = module(ReLoBlur(reloblur, None), **skipping, prepared=given)
        assert_equal(batches(data), expected)
        lines = data.describe()
        assert any("4 of 5 training pairs are read from the tiles in" in line for line in lines)
        assert any(f"{bad}: the file is empty (0 bytes)" in line for line in lines)
        # Without that, the file is what is named, and not the tiles.
        with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
            module(ReLoBlur(reloblur, None), prepared=given).setup("fit")
    # What could have tiles must have them in a folder that was given.
    next(path for path in (tmp_path / "tiles").rglob("*.tiles")).unlink()
    with pytest.raises(DataError, match="of 5 training pairs 2 without tiles"):
        module(ReLoBlur(reloblur, None), **skipping, prepared=str(tmp_path / "tiles")).setup("fit")


@pytest.mark.parametrize("changed", ["tiles", "picture"])
def test_a_file_that_is_changed_during_a_run_is_noticed(reloblur: Path, changed: str) -> None:
    tiles = prepared(reloblur)
    data = module(ReLoBlur(reloblur, None))
    data.setup("fit")
    touched(tiles.tiles[1].path if changed == "tiles" else tiles.scenes.pairs[1].sharp)
    with pytest.raises(DataError, match="was changed while the run went on") as caught:
        list(data.train_dataloader())
    assert "\n" not in str(caught.value)
    # A picture that has gone is not needed any more.
    tiles.scenes.pairs[0].blurry.unlink()
    tiles.view(0)


def test_what_is_skipped_in_training_is_skipped_of_tiles(reloblur: Path) -> None:
    tiles = prepared(reloblur)
    data = module(ReLoBlur(reloblur, None), skip_unreadable=True, batch_size=1)
    data.setup("fit")
    os.truncate(tiles.tiles[1].path, 100)
    skipped = {text for batch in data.train_dataloader() for text in batch["skipped"] if text}
    assert len(skipped) == 1
    assert "was changed while the run went on" in skipped.pop()


def test_too_small_and_damaged_tiles_are_told_before_training(reloblur: Path) -> None:
    tiles = prepared(reloblur)
    with pytest.raises(
        DataError, match=r"_blur\.png is 150 x 100, smaller than data\.patch_size=101: .*=100 at"
    ):
        module(ReLoBlur(reloblur, None), patch_size=101).setup("fit")
    path = tiles.tiles[1].path
    contents, state = bytearray(path.read_bytes()), path.stat()
    contents[-TILE_OFFSET] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    module(ReLoBlur(reloblur, None)).setup("fit")
    with pytest.raises(DataError, match=r"\.tiles is damaged \(its content has another hash\)"):
        module(ReLoBlur(reloblur, None), check_files="full").setup("fit")
    # And preparing again sees it.
    assert [done.written for done in prepare(tiles.scenes, tiles.folder)] == [
        False,
        True,
        False,
        False,
        False,
    ]
    module(ReLoBlur(reloblur, None), check_files="full").setup("fit")


TILE_OFFSET = 64 * 64 * 3  # from the end: the first pixel of the last sharp tile, which is inside the picture


@pytest.mark.parametrize("value", [True, "true", ""])
def test_a_setting_that_says_nothing_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^data\.prepared=.*: auto, false or a folder"):
        require_setting(value)


def test_settings_as_they_are_typed() -> None:
    assert require_setting(False) is None
    assert require_setting("false") is None  # paths are taken as typed
    assert require_setting("auto") == "auto"
    assert require_setting("./false") == "./false"


def test_a_folder_for_what_is_made_up_is_refused(tmp_path: Path) -> None:
    source = SyntheticSource(LocalMotion(), None, size_px=(80, 70), train_scenes=3)
    with pytest.raises(
        ConfigurationError, match=r"^data\.prepared=.* has no effect: synthetic is not read from"
    ):
        module(source, prepared=str(tmp_path)).setup("fit")
    module(source).setup("fit")


# Preparing


def test_what_is_done_is_kept_to_the_byte(reloblur: Path) -> None:
    tiles = prepared(reloblur)
    before = {one.path: one.path.stat() for one in tiles.tiles}
    results = prepare(tiles.scenes, tiles.folder)
    assert not any(done.written for done in results)
    assert sum(done.size_bytes for done in results) == sum(state.st_size for state in before.values())
    assert {path: path.stat().st_mtime_ns for path in before} == {
        path: state.st_mtime_ns for path, state in before.items()
    }


def test_pictures_that_cannot_be_prepared_are_told_and_the_others_done(reloblur: Path) -> None:
    scenes = scenes_of(reloblur)
    broken, small = scenes.pairs[1].blurry, scenes.pairs[3].sharp
    broken.write_bytes(broken.read_bytes()[:-30])
    with Image.open(small) as image:
        image.crop((0, 0, 149, 100)).save(small)
    results = prepare(scenes, reloblur / ".prepared")
    assert [done.written for done in results] == [True, False, True, False, True]
    assert str(broken) in results[1].problems[0]
    assert "sizes differ" in results[3].problems[0]


def test_a_picture_that_changes_while_it_is_read_is_not_kept(
    reloblur: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = scenes_of(reloblur)
    read = read_rgb

    def meanwhile(path: Path) -> Any:
        picture = read(path)
        touched(path)
        return picture

    monkeypatch.setattr(making, "read_rgb", meanwhile)
    jobs = jobs_of(scenes, reloblur / ".prepared")
    make_room({reloblur / ".prepared": jobs}, 1, own=True)
    done = jobs[0].run()
    assert not done.written
    assert "was changed while it was read" in done.problems[0]
    assert not jobs[0].path.exists()


def test_what_a_killed_process_left_is_taken_away(reloblur: Path) -> None:
    scenes = scenes_of(reloblur)
    jobs = jobs_of(scenes, reloblur / ".prepared")
    jobs[0].path.parent.mkdir(parents=True)
    left = jobs[0].path.parent / ".999999999-0123abcd.tmp"
    left.write_bytes(b"?")
    make_room({reloblur / ".prepared": jobs}, 1, own=True)
    assert not left.exists()


def test_space_is_looked_for_first(reloblur: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = scenes_of(reloblur)
    folder = reloblur / ".prepared"
    jobs = jobs_of(scenes, folder)
    needed = sum(job.needed_bytes() for job in jobs)
    monkeypatch.setattr(making, "free_bytes", lambda _: needed - 1)
    with pytest.raises(
        MachineError, match=r"\.prepared has too little space: the tiles of 5 pairs need .* free:"
    ):
        make_room({folder: jobs}, 1, own=True)
    monkeypatch.setattr(making, "free_bytes", lambda _: needed)
    results = prepare(scenes, folder)
    assert sum(done.size_bytes for done in results) == needed
    # All datasets that share a disk need it together.
    places = {reloblur / name: jobs_of(scenes, reloblur / name) for name in ("one", "two")}
    monkeypatch.setattr(making, "free_bytes", lambda _: 2 * needed - 1)
    with pytest.raises(MachineError, match=r"one has too little space: the tiles of 10 pairs need"):
        make_room(places, 1, own=False)
    # What is done needs none.
    monkeypatch.setattr(making, "free_bytes", lambda _: 0)
    make_room({folder: jobs}, 1, own=True)


def test_a_folder_that_cannot_be_written_to_says_where_else(
    reloblur: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(scenes_of(reloblur), reloblur / ".prepared")
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root
    with pytest.raises(
        MachineError, match=r"cannot be written to \(Permission denied\): .* output=DIR, and by data"
    ):
        make_room({reloblur / ".prepared": jobs}, 1, own=True)


def test_names_of_files_stay_apart_and_are_not_too_long(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in ("blurry", "sharp"):
            (tmp_path / split / folder).mkdir(parents=True)
            for name in ("a" * 240, "a" * 240 + "b", "c.d.e", "A b=[1]", "ä", "日" * 82, "日" * 81 + "月"):
                noise = np.random.default_rng(len(name)).integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / split / folder / f"{name}.png")
    scenes = Folder(tmp_path, None).scenes("train")
    places = {place_of(pair, tmp_path) for pair in scenes.pairs}
    assert len(places) == 7
    assert max(len(path.name.encode()) for path in places) <= 200
    assert sum(path.name.startswith("日" * 60) for path in places) == 2
    place = folder_of(scenes, None, "folder")
    assert all(done.written for done in prepare(scenes, place))
    tiles, _ = tiles_for("folder", scenes, "auto")
    assert tiles is not None
    assert tiles.misfit is None
    assert [read_header(one.path).name for one in tiles.tiles if one] == [pair.name for pair in scenes.pairs]
