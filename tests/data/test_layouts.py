import os
import pickle
import re
import unicodedata
from copy import deepcopy
from pathlib import Path

import pytest

from deblur_lab.data.layouts import (
    DataFolder,
    Fault,
    HeldOutFolders,
    Pair,
    PairedFolders,
    RawGoPro,
    RawReLoBlur,
    find_layouts,
    open_root,
)
from deblur_lab.errors import ConfigurationError, DataError
from tests.data.files import faults_in, pairs_in, touch


def one_line(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Faults


def test_a_fault_is_a_string_that_keeps_its_kind() -> None:
    fault = Fault("a.png has no partner", "unpaired")
    assert fault == "a.png has no partner"
    assert {fault: 1}["a.png has no partner"] == 1
    assert fault == Fault("a.png has no partner", "layout")
    for other in (pickle.loads(pickle.dumps(fault)), deepcopy(fault)):
        assert (type(other), other, other.kind) == (Fault, fault, "unpaired")
    assert Fault("a line of a layout of one's own").kind == "layout"


# The root


def test_a_root_that_is_missing_or_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*/none does not exist: give") as caught:
        open_root(tmp_path / "none")
    one_line(caught)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"file is not a folder"):
        open_root(str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"data\.root is empty"):
        open_root("")
    with pytest.raises(DataError, match=r"^data\.gopro_root=.*/none does not exist: give"):
        open_root(tmp_path / "none", "data.gopro_root")


def test_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_root("~").path == tmp_path.resolve()


def test_an_unknown_layout_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, [f"pictures{number}/a.png" for number in range(7)])
    with pytest.raises(DataError, match="has no known layout") as caught:
        find_layouts(DataFolder(tmp_path), {"raw": RawGoPro(), "relaid": PairedFolders("input", "target")})
    message = one_line(caught)
    assert (
        "{train,test}/SEQUENCE/{blur,sharp}/NNNNNN.png or {train,val,test}/{input,target}/NAME.png" in message
    )
    assert "pictures0, pictures1, pictures2, pictures3, pictures4 and 2 more" in message
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^data\.x=.*it holds nothing"):
        find_layouts(DataFolder(tmp_path / "empty"), {"raw": RawReLoBlur()}, root_key="data.x")


# The layouts


def test_raw_reloblur(tmp_path: Path) -> None:
    stems = ["train/s01/02/00", "train/s01/01/01", "train/s01/01/00", "test/s02/01/07"]
    touch(tmp_path, (f"dataset/{stem}_{kind}.png" for stem in stems for kind in ("blur", "sharp")))
    touch(tmp_path, (f"masks/{stem}.png" for stem in stems))
    touch(
        tmp_path, ["dataset/train/s01/01/readme.txt", "dataset/train/s01/01/.DS_Store", "masks/train/x.png"]
    )
    layout = RawReLoBlur()
    assert layout.splits(DataFolder(tmp_path)) == ("train", "test")
    pairs = pairs_in(layout, tmp_path, "train")
    assert [pair.name for pair in pairs] == ["s01/01/00", "s01/01/01", "s01/02/00"]
    folder = tmp_path / "dataset/train/s01/02"
    assert pairs[2] == Pair(
        "s01/02/00",
        folder / "00_blur.png",
        folder / "00_sharp.png",
        tmp_path / "masks/train/s01/02/00.png",
    )
    assert pairs_in(RawReLoBlur(masks=None), tmp_path, "test")[0].mask is None


def test_reloblur_without_some_masks_names_each(tmp_path: Path) -> None:
    for number in range(8):
        touch(tmp_path, (f"dataset/train/s01/01/{number:02}_{kind}.png" for kind in ("blur", "sharp")))
    touch(tmp_path, ["masks/train/s01/01/03.png"])
    faults = faults_in(RawReLoBlur(), tmp_path, "train")
    assert len(faults) == 7
    assert faults[0] == (
        f"{tmp_path}/dataset/train/s01/01/00_blur.png has no mask: "
        f"{tmp_path}/masks/train/s01/01/00.png is missing"
    )
    assert [pair.name for pair in RawReLoBlur().listing(DataFolder(tmp_path), "train").pairs] == ["s01/01/03"]
    (fault,) = faults_in(RawReLoBlur(masks="other"), tmp_path, "train")
    assert fault == (
        f"{tmp_path}/other is no folder: name that of the mask release by data.masks=..., or do without "
        "masks by data.masks=null"
    )


@pytest.mark.parametrize("blur", ["blur", "blur_gamma"])
def test_raw_gopro(tmp_path: Path, blur: str) -> None:
    for sequence in ("GOPR0384_11_00", "GOPR0372_07_01"):
        for folder in ("blur", "blur_gamma", "sharp"):
            touch(tmp_path, (f"test/{sequence}/{folder}/{number:06}.png" for number in (2, 1)))
    layout = RawGoPro(blur)
    assert layout.splits(DataFolder(tmp_path)) == ("test",)
    pairs = pairs_in(layout, tmp_path, "test")
    assert [pair.name for pair in pairs] == [
        "GOPR0372_07_01/000001",
        "GOPR0372_07_01/000002",
        "GOPR0384_11_00/000001",
        "GOPR0384_11_00/000002",
    ]
    folder = tmp_path / "test/GOPR0372_07_01"
    assert pairs[0] == Pair(
        "GOPR0372_07_01/000001",
        folder / blur / "000001.png",
        folder / "sharp/000001.png",
        None,
    )


def test_raw_gopro_without_the_blur_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, [f"train/GOPR{n}/{kind}/000001.png" for n in (1, 2) for kind in ("blur", "sharp")])
    (fault,) = faults_in(RawGoPro("blur_gamma"), tmp_path, "train")
    assert fault == f"{tmp_path}: only blur is here: fetch blur_gamma, or say data.blur=blur"
    # Where one sequence has it, the others lack it.
    touch(tmp_path, ["train/GOPR1/blur_gamma/000001.png"])
    (fault,) = faults_in(RawGoPro("blur_gamma"), tmp_path, "train")
    folder = tmp_path / "train/GOPR2"
    assert fault == f"{folder}/sharp/000001.png has no partner: {folder}/blur_gamma/000001.png is missing"


def test_paired_folders(tmp_path: Path) -> None:
    stem = "GOPR0384_11_00-000001"
    touch(tmp_path, [f"train/input/{stem}.png", f"train/target/{stem}.jpg", "test/input/a.png"])
    layout = PairedFolders("input", "target")
    assert layout.splits(DataFolder(tmp_path)) == ("train",)
    assert pairs_in(layout, tmp_path, "train") == [
        Pair(
            stem,
            tmp_path / f"train/input/{stem}.png",
            tmp_path / f"train/target/{stem}.jpg",
            None,
        )
    ]


def test_names_of_every_kind_are_kept_and_never_patterns(tmp_path: Path) -> None:
    stems = ["109fromGOPR1096.MP4", "a b", "[ab]", "a", "b", "*", "x\ny", "日本", "v1.2.3", "Ü"]
    touch(tmp_path, (f"train/{folder}/{stem}.PNG" for stem in stems for folder in ("blurry", "sharp")))
    pairs = pairs_in(PairedFolders(), tmp_path, "train")
    assert [pair.name for pair in pairs] == sorted(stems)
    assert all(pair.blurry.stem == pair.sharp.stem == pair.name for pair in pairs)


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    touch(tmp_path, [f"train/blurry/{composed}.png", f"train/sharp/{decomposed}.png"])
    assert [pair.name for pair in pairs_in(PairedFolders(), tmp_path, "train")] == [composed]


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    for folder in ("blurry", "sharp"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        Path(os.fsdecode(os.fsencode(tmp_path / "train" / folder) + b"/caf\xe9.png")).write_bytes(b"")
    (pair,) = pairs_in(PairedFolders(), tmp_path, "train")
    assert pair.name == "caf\\udce9"
    assert pair.blurry.exists()


def test_masks_of_a_folder_are_for_all_pairs_or_none(tmp_path: Path) -> None:
    touch(tmp_path, (f"train/{folder}/{name}.png" for folder in ("blurry", "sharp") for name in "ab"))
    layout = PairedFolders(mask="mask")
    assert [pair.mask for pair in pairs_in(layout, tmp_path, "train")] == [None, None]
    touch(tmp_path, ["train/mask/a.png"])
    (fault,) = faults_in(layout, tmp_path, "train")
    assert fault.endswith(f"blurry/b.png has no mask: {tmp_path}/train/mask/b.png is missing")
    touch(tmp_path, ["train/mask/b.png"])
    assert [pair.mask for pair in pairs_in(layout, tmp_path, "train")] == [
        tmp_path / "train/mask/a.png",
        tmp_path / "train/mask/b.png",
    ]


def test_unpaired_files_are_named_with_their_partners_and_do_not_hide_the_others(tmp_path: Path) -> None:
    touch(tmp_path, (f"train/blurry/{number}.png" for number in range(8)))
    touch(tmp_path, (f"train/sharp/{number}.png" for number in range(2, 9)))
    assert faults_in(PairedFolders(), tmp_path, "train") == [
        f"{tmp_path}/train/blurry/0.png has no partner: {tmp_path}/train/sharp/0.png is missing",
        f"{tmp_path}/train/blurry/1.png has no partner: {tmp_path}/train/sharp/1.png is missing",
        f"{tmp_path}/train/sharp/8.png has no partner: {tmp_path}/train/blurry/8.png is missing",
    ]
    pairs = PairedFolders().listing(DataFolder(tmp_path), "train").pairs
    assert [pair.name for pair in pairs] == [str(number) for number in range(2, 8)]


def test_without_a_single_pair_all_files_are_named(tmp_path: Path) -> None:
    touch(tmp_path, ["blurry/a.png", "sharp/b.png"])
    for split in ("train", "test"):
        assert len(faults_in(HeldOutFolders(), tmp_path, split)) == 2


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    touch(tmp_path, ["train/blurry/a.png", "train/blurry/a.jpg", "train/sharp/a.png"])
    (fault,) = faults_in(PairedFolders(), tmp_path, "train")
    folder = tmp_path / "train/blurry"
    assert fault == f"{folder}/a.jpg and {folder}/a.png have one name: remove one of them"


@pytest.mark.parametrize("layout", [PairedFolders(), RawGoPro(), RawReLoBlur()])
def test_empty_splits_are_refused(tmp_path: Path, layout: PairedFolders | RawGoPro | RawReLoBlur) -> None:
    for folder in ("train/blurry", "train/sharp", "train/seq/sharp", "dataset/train/s01"):
        (tmp_path / folder).mkdir(parents=True)
    touch(tmp_path, ["train/blurry/Thumbs.db", "train/sharp/._a.png"])
    assert layout.splits(DataFolder(tmp_path)) == ("train",)
    with pytest.raises(DataError, match=r"train is empty"):
        pairs_in(layout, tmp_path, "train")


@pytest.mark.parametrize(
    ("count", "every", "held_out"),
    [(25, 10, [9, 19]), (10, 10, [9]), (4, 10, [3]), (5, 2, [1, 3]), (6, None, [0, 1, 2, 3, 4, 5])],
)
def test_pairs_are_held_out(tmp_path: Path, count: int, every: int | None, held_out: list[int]) -> None:
    touch(
        tmp_path, (f"{folder}/{number:02}.png" for folder in ("blurry", "sharp") for number in range(count))
    )
    layout = HeldOutFolders(every=every)
    assert layout.splits(DataFolder(tmp_path)) == ("train", "test")
    test = [int(pair.name) for pair in pairs_in(layout, tmp_path, "test")]
    train = [int(pair.name) for pair in pairs_in(layout, tmp_path, "train")]
    assert test == held_out
    assert train == (list(range(count)) if every is None else sorted(set(range(count)) - set(test)))


def test_a_single_pair_is_for_testing(tmp_path: Path) -> None:
    touch(tmp_path, ["blurry/a.png", "sharp/a.png"])
    assert len(pairs_in(HeldOutFolders(), tmp_path, "test")) == 1
    with pytest.raises(DataError, match=r"single pair, which is kept for testing.*data\.holdout_every=null"):
        pairs_in(HeldOutFolders(), tmp_path, "train")
    with pytest.raises(ConfigurationError, match=r"data\.holdout_every=1: give 2 or more"):
        HeldOutFolders(every=1)


# Finding them


GOPRO = {
    "raw": RawGoPro(),
    "relaid": PairedFolders("input", "target"),
    "flat": PairedFolders("blur", "sharp"),
}
BELOW = re.compile("gopro(_large)?", re.IGNORECASE)


@pytest.mark.parametrize(
    ("kind", "name", "folders"),
    [
        ("raw", "train/GOPR/{}/1.png", ("blur", "sharp")),
        ("relaid", "train/{}/GOPR-1.png", ("input", "target")),
        ("flat", "train/{}/GOPR_1.png", ("blur", "sharp")),
    ],
)
def test_layouts_are_told_apart(tmp_path: Path, kind: str, name: str, folders: tuple[str, str]) -> None:
    for root in ("here", "above/GOPRO_Large", "other/gopro"):
        touch(tmp_path / root, (name.format(folder) for folder in folders))
        found = find_layouts(DataFolder(tmp_path / root.split("/")[0]), GOPRO, BELOW)
        assert found.data.path == tmp_path / root
        assert dict(found.layouts) == {"train": (kind, GOPRO[kind])}


def test_each_split_may_be_laid_out_in_its_own_way(tmp_path: Path) -> None:
    touch(tmp_path, (f"train/{folder}/a.png" for folder in ("blur", "sharp")))
    touch(tmp_path, (f"test/{folder}/a.png" for folder in ("input", "target")))
    found = find_layouts(DataFolder(tmp_path), GOPRO)
    assert {split: name for split, (name, _) in found.layouts.items()} == {"train": "flat", "test": "relaid"}
    assert found.description == f"{GOPRO['flat'].description} and {GOPRO['relaid'].description}"
    alike = find_layouts(DataFolder(tmp_path), GOPRO, mixed=False)
    assert list(alike.layouts) == ["test"]


def test_a_layout_that_is_asked_for_and_not_there_says_which_is(tmp_path: Path) -> None:
    touch(tmp_path / "GoPro", (f"test/{folder}/a.png" for folder in ("input", "target")))
    found = find_layouts(DataFolder(tmp_path), GOPRO, BELOW, only="relaid")
    assert found.layouts == {"test": ("relaid", GOPRO["relaid"])}
    with pytest.raises(DataError) as caught:
        find_layouts(DataFolder(tmp_path), GOPRO, BELOW, "data.gopro_root", only="flat")
    assert one_line(caught) == (
        f"data.gopro_root={tmp_path} is not laid out as data.gopro_layout=flat says: looked for "
        "{train,val,test}/{blur,sharp}/NAME.png; it holds GoPro; it is laid out as relaid"
    )


def test_two_copies_below_the_root_are_not_chosen_between(tmp_path: Path) -> None:
    for copy in ("GOPRO_Large", "GoPro"):
        touch(tmp_path / copy, (f"test/{folder}/a.png" for folder in ("input", "target")))
    with pytest.raises(
        DataError, match=r"more than one copy of the dataset \(GOPRO_Large, GoPro\): give one"
    ):
        find_layouts(DataFolder(tmp_path), GOPRO, BELOW)
    (tmp_path / "GoPro/test/input").rename(tmp_path / "GoPro/test/in")
    assert find_layouts(DataFolder(tmp_path), GOPRO, BELOW).data.path == tmp_path / "GOPRO_Large"


def test_a_test_set_may_lie_at_the_top(tmp_path: Path) -> None:
    touch(tmp_path, (f"{folder}/a.b.png" for folder in ("input", "target")))
    layout = PairedFolders("input", "target", top="test")
    assert layout.splits(DataFolder(tmp_path)) == ("test",)
    assert pairs_in(layout, tmp_path, "test") == [
        Pair("a.b", tmp_path / "input/a.b.png", tmp_path / "target/a.b.png", None)
    ]
    assert PairedFolders("input", "target").splits(DataFolder(tmp_path)) == ()
    touch(tmp_path, (f"test/{folder}/c.png" for folder in ("input", "target")))
    assert [pair.name for pair in pairs_in(layout, tmp_path, "test")] == ["c"]


# Links


def test_links_inside_the_data_folder_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, ["store/a.png", "train/sharp/a.png"])
    (tmp_path / "train/blurry").symlink_to(tmp_path / "store")
    (pair,) = pairs_in(PairedFolders(), tmp_path, "train")
    assert pair.blurry == tmp_path / "train/blurry/a.png"


@pytest.mark.parametrize("link", ["data/train/blurry/a.png", "data/train/blurry", "data/train", "data/GOPRO"])
def test_links_that_leave_the_data_folder_are_named_once_or_followed(tmp_path: Path, link: str) -> None:
    inside = Path(link).relative_to("data")
    outside = tmp_path / "outside" / inside
    below = "" if link != "data/GOPRO" else "GOPRO/"
    touch(tmp_path, (f"outside/{below}train/{folder}/a.png" for folder in ("blurry", "sharp")))
    if link.startswith("data/train/"):
        touch(tmp_path, ["data/train/sharp/a.png"])
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(outside)
    for follow in (False, True):
        root = open_root(tmp_path / "data", follow_links=follow)
        found = find_layouts(root, {"split": PairedFolders()}, BELOW)
        listing = PairedFolders().listing(found.data, "train")
        assert len(listing.pairs) == 1
        if follow:
            assert listing.faults == ()
        else:
            (fault,) = listing.faults
            assert fault.startswith(f"{tmp_path / link} is a link to {outside}, outside the data folder ")
            assert fault.endswith("or allow such links by data.follow_links=true")


def test_each_link_of_a_dataset_made_of_links_is_named(tmp_path: Path) -> None:
    touch(tmp_path, [f"disk/{kind}{number}.png" for kind in ("b", "s") for number in range(3)])
    for folder, kind in (("blurry", "b"), ("sharp", "s")):
        (tmp_path / "data" / "train" / folder).mkdir(parents=True)
        for number in range(3):
            link = tmp_path / "data" / "train" / folder / f"{number}.png"
            link.symlink_to(tmp_path / "disk" / f"{kind}{number}.png")
    assert len(faults_in(PairedFolders(), tmp_path / "data", "train")) == 6
    assert faults_in(PairedFolders(), tmp_path / "data", "train")[0].count("disk/b0.png") == 1
    followed = PairedFolders().listing(DataFolder(tmp_path / "data", follow_links=True), "train")
    assert (len(followed.pairs), followed.faults) == (3, ())


def test_a_link_from_a_subfolder_to_another_part_of_the_root_is_inside(tmp_path: Path) -> None:
    touch(tmp_path, ["store/a.png", "GOPRO/train/sharp/a.png"])
    (tmp_path / "GOPRO/train/blurry").symlink_to(tmp_path / "store")
    found = find_layouts(DataFolder(tmp_path), {"split": PairedFolders()}, BELOW)
    assert PairedFolders().listing(found.data, "train").faults == ()


def test_a_link_to_another_dataset_beside_this_one_does_not_count(tmp_path: Path) -> None:
    touch(tmp_path / "data/GOPRO", (f"train/{folder}/a.png" for folder in ("blurry", "sharp")))
    touch(tmp_path, ["disk/HIDE/a.png"])
    (tmp_path / "data/HIDE").symlink_to(tmp_path / "disk/HIDE")
    found = find_layouts(DataFolder(tmp_path / "data"), {"split": PairedFolders()}, BELOW)
    assert PairedFolders().listing(found.data, "train").faults == ()


def test_a_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, ["disk/train/blurry/a.png", "disk/train/sharp/a.png"])
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    root = open_root(tmp_path / "data")
    listing = PairedFolders().listing(root, "train")
    assert (len(listing.pairs), listing.faults) == (1, ())
