"""What may be wrong with a dataset, planted in sound ones: what is done, and what is to be found."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
COUNTS = {"pairs", "sequence_pairs"}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def save(path: Path, values: np.ndarray, **how: object) -> None:
    Image.fromarray(values).save(path, **how)


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip_a_bit(contents: bytes) -> bytes:
    middle = len(contents) // 2
    return contents[:middle] + bytes([contents[middle] ^ 1]) + contents[middle + 1 :]


def exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


GOPRO = "GOPRO_Large/train/GOPR0372_11_00/{}/000001.png"
RELAID = "train/{}/GOPR0372_11_00-000001.png"
RELOBLUR_MASK = "masks/train/s01/01/00.png"


def unlink(*names: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return plant


def contents(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda root: spoil(root / name, change)


def redrawn(name: str, change: Callable[[np.ndarray], np.ndarray], **how: object) -> Callable[[Path], None]:
    return lambda root: save(root / name, change(pixels(root / name)), **how)


def half_size(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values).reduce(2))


def as_gray_edges(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(2)))


def as_jpeg(name: str) -> Callable[[Path], None]:
    return lambda root: save(root / name, pixels(root / name), format="JPEG", quality=90)


def remove_folder(name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / name)


def swap(first: str, second: str) -> Callable[[Path], None]:
    return lambda root: exchange(root / first, root / second)


def over(source: str, target: str, **how: object) -> Callable[[Path], None]:
    """The content of one picture in the place of another, stored otherwise."""
    return lambda root: save(root / target, pixels(root / source), compress_level=1, **how)


def together(*plants: Callable[[Path], None]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        for one in plants:
            one(root)

    return plant


def both_swapped(root: Path) -> None:
    for split in ("train", "test"):
        exchange(root / split / "input", root / split / "target")


def gamma_for_blur(root: Path) -> None:
    for sequence in (root / "GOPRO_Large").glob("*/*"):
        exchange(sequence / "blur", sequence / "blur_gamma")


def gamma_alone(root: Path) -> None:
    for sequence in (root / "GOPRO_Large").glob("*/*"):
        shutil.rmtree(sequence / "blur")
        (sequence / "blur_gamma").rename(sequence / "blur")


def gamma_kept_alone(root: Path) -> None:
    for blur in (root / "GOPRO_Large").glob("*/*/blur"):
        shutil.rmtree(blur)


def called(like: str) -> Callable[[Path], None]:
    """Pairs of a relaid dataset with names of another."""

    def plant(root: Path) -> None:
        for split in ("train", "test"):
            for kind in ("input", "target"):
                for number, path in enumerate(sorted((root / split / kind).iterdir()), start=1):
                    path.rename(path.with_name(like.format(number) + path.suffix))

    return plant


def a_stray_value(mask: np.ndarray) -> np.ndarray:
    mask = mask.copy()
    row, column = np.argwhere(mask)[0]
    mask[row, column] = 128
    return mask


def crops_beside(root: Path) -> None:
    for kind, crops in (("input", "blur_crops"), ("target", "sharp_crops")):
        shutil.copytree(root / "train" / kind, root / "train" / crops)


def blur_twice(root: Path) -> None:
    for sequence in (root / "GOPRO_Large").glob("*/*"):
        shutil.rmtree(sequence / "blur_gamma")
        shutil.copytree(sequence / "blur", sequence / "blur_gamma")


def link_out(root: Path) -> None:
    path = root / RELAID.format("input")
    outside = root.parent / "elsewhere.png"
    path.rename(outside)
    path.symlink_to(outside)


def two_of_a_name(root: Path) -> None:
    path = root / RELAID.format("input")
    Image.open(path).save(path.with_suffix(".bmp"))


def one_target_for_two(root: Path) -> None:
    folder = root / "train"
    for kind, darkest in (("input", 1), ("target", 0)):
        first, second = (folder / kind / f"GOPR0372_11_00-00000{number}.png" for number in (1, 2))
        save(second, np.maximum(pixels(first), np.uint8(darkest)))


def names_alike(root: Path) -> None:
    (root / "synthetic.json").unlink()
    for kind in ("blurry", "sharp", "mask"):
        folder = root / "train" / kind
        (folder / "000000.png").rename(folder / "scene.png")
        (folder / "000001.png").rename(folder / "Scene.png")


def in_both_lists(root: Path) -> None:
    line = (root / "RealBlur_J_test_list.txt").read_text().splitlines(keepends=True)[0]
    with (root / "RealBlur_J_train_list.txt").open("a") as file:
        file.write(line)


def listed_again(root: Path) -> None:
    path = root / "RealBlur_J_train_list.txt"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])


def unreadable_line(root: Path) -> None:
    with (root / "RealBlur_J_train_list.txt").open("a") as file:
        file.write("scene001/gt/gt_1.png\n")


def into_training(root: Path) -> None:
    (root / "GOPRO_Large/test/GOPR0376_11_00").rename(root / "GOPRO_Large/train/GOPR0376_11_00")


def stray(root: Path) -> None:
    (root / "train" / "input" / "copies").mkdir()
    shutil.copy(root / RELAID.format("input"), root / "train" / "input" / "copies")


def stray_beside(root: Path) -> None:
    (root / "previews").mkdir()
    shutil.copy(root / RELAID.format("input"), root / "previews")


FAULTS = {
    # name: (dataset, variant, what is done to it, what is found, the only file that it names or None)
    "no partner": ("gopro", "raw", unlink(GOPRO.format("sharp")), {"unpaired", *COUNTS}, None),
    "no pair": (
        "gopro",
        "relaid",
        unlink(RELAID.format("input"), RELAID.format("target")),
        COUNTS,
        None,
    ),
    "no sequence": (
        "gopro",
        "raw",
        remove_folder("GOPRO_Large/train/GOPR0373_11_00"),
        {"pairs", "sequences"},
        None,
    ),
    "no split": ("gopro", "raw", remove_folder("GOPRO_Large/test"), {"split_missing"}, None),
    "no masks of a scene": (
        "reloblur",
        "raw",
        unlink(RELOBLUR_MASK),
        {"mask_missing", *COUNTS},
        None,
    ),
    "no masks at all": ("reloblur", "raw", remove_folder("masks"), {"mask_missing"}, None),
    "empty file": (
        "gopro",
        "relaid",
        contents(RELAID.format("input"), lambda _: b""),
        {"empty_file"},
        RELAID.format("input"),
    ),
    "empty file of a mask": (
        "reloblur",
        "raw",
        contents(RELOBLUR_MASK, lambda _: b""),
        {"empty_file"},
        RELOBLUR_MASK,
    ),
    "cut off": (
        "hide",
        "raw",
        contents("HIDE_dataset/GT/1fromGOPR0950.MP4.png", lambda whole: whole[: len(whole) // 2]),
        {"truncated"},
        "GT/1fromGOPR0950.MP4.png",
    ),
    "a bit flipped": (
        "gopro",
        "raw",
        contents(GOPRO.format("sharp"), flip_a_bit),
        {"checksum"},
        GOPRO.format("sharp").removeprefix("GOPRO_Large/"),
    ),
    "a web page": (
        "gopro",
        "relaid",
        contents(RELAID.format("target"), lambda _: b"<html>quota exceeded</html>"),
        {"unreadable"},
        RELAID.format("target"),
    ),
    "half the size": (
        "gopro",
        "relaid",
        redrawn(RELAID.format("target"), half_size),
        {"sizes_differ"},
        None,
    ),
    "a mask of half the size": (
        "reloblur",
        "raw",
        redrawn(RELOBLUR_MASK, lambda mask: mask[::2, ::2].copy()),
        {"sizes_differ"},
        None,
    ),
    "one pair swapped": (
        "gopro",
        "relaid",
        swap(RELAID.format("input"), RELAID.format("target")),
        {"swapped"},
        None,
    ),
    "folders swapped": ("gopro", "relaid", both_swapped, {"swapped"}, None),
    "a sharp picture as the blurry one": (
        "realblur_j",
        "relaid",
        over("train/target/scene001-1.png", "train/input/scene001-1.png"),
        {"identical"},
        None,
    ),
    "another picture's partner": (
        "gopro",
        "flat",
        redrawn("train/sharp/GOPR0372_11_00_001.png", lambda values: values[::-1, ::-1].copy()),
        {"mismatched"},
        None,
    ),
    "blur_gamma and blur exchanged": ("gopro", "raw", gamma_for_blur, {"averaging"}, None),
    "blur_gamma for blur": ("gopro", "raw", gamma_alone, {"averaging"}, None),
    "blur_gamma without blur": ("gopro", "raw", gamma_kept_alone, {"unpaired"}, None),
    "HIDE in GoPro's place": ("gopro", "relaid", called("{}fromGOPR0950.MP4"), {"sequences"}, None),
    "RealBlur in GoPro's place": ("gopro", "relaid", called("scene001-{}"), {"sequences"}, None),
    "ReLoBlur in RealBlur's place": ("realblur_j", "relaid", called("s01_02_{:02}"), {"sequences"}, None),
    "GoPro in HIDE's place": ("hide", "relaid", called("GOPR0372_11_00-{:06}"), {"sequences"}, None),
    "names that tell no sequence": ("gopro", "relaid", called("{:06}"), {"sequences"}, None),
    "blur for blur_gamma": ("gopro", "raw", blur_twice, {"averaging"}, None),
    "a JPEG": ("gopro", "relaid", as_jpeg(RELAID.format("target")), {"lossy"}, RELAID.format("target")),
    "a mask as a JPEG": ("reloblur", "raw", as_jpeg(RELOBLUR_MASK), {"lossy", "mask_values"}, None),
    "a smooth mask": (
        "reloblur",
        "raw",
        redrawn(RELOBLUR_MASK, as_gray_edges),
        {"mask_values"},
        RELOBLUR_MASK,
    ),
    "an empty mask": (
        "reloblur",
        "raw",
        redrawn(RELOBLUR_MASK, np.zeros_like),
        {"mask_empty"},
        RELOBLUR_MASK,
    ),
    "a full mask": (
        "reloblur",
        "raw",
        redrawn(RELOBLUR_MASK, lambda mask: np.full_like(mask, 255)),
        {"mask_full"},
        RELOBLUR_MASK,
    ),
    "a test pair trained on": (
        "hide",
        "relaid",
        together(
            *(
                over(f"test/{kind}/1fromGOPR0954.MP4.png", f"train/{kind}/1fromGOPR0950.MP4.png")
                for kind in ("input", "target")
            )
        ),
        {"leak"},
        None,
    ),
    "a sharp picture of the test trained on": (
        "gopro",
        "relaid",
        together(
            over("test/target/GOPR0376_11_00-000001.png", RELAID.format("target")),
            redrawn("test/target/GOPR0376_11_00-000001.png", np.ascontiguousarray),
            over("test/input/GOPR0376_11_00-000001.png", RELAID.format("input")),
            redrawn(RELAID.format("input"), lambda values: values.clip(1)),
        ),
        {"leak"},
        None,
    ),
    "a pair twice": (
        "gopro",
        "relaid",
        together(
            *(
                over(RELAID.format(kind), f"train/{kind}/GOPR0373_11_00-000001.png")
                for kind in ("input", "target")
            )
        ),
        {"duplicate"},
        None,
    ),
    "a sequence in the other split": (
        "gopro",
        "raw",
        into_training,
        {"sequence_in_both", "pairs", "sequences"},
        None,
    ),
    "two of a name": ("gopro", "relaid", two_of_a_name, {"same_name"}, None),
    "a link that leaves": ("gopro", "relaid", link_out, {"leaving_link"}, None),
    "a list that names what is missing": (
        "realblur_j",
        "raw",
        unlink(f"{J}/scene001/gt/gt_1.png"),
        {"listed_missing", *COUNTS},
        None,
    ),
    "a scene in both lists": (
        "realblur_j",
        "raw",
        in_both_lists,
        {"sequence_in_both", "pairs", "sequences"},
        None,
    ),
    "a list that names a pair twice": ("realblur_j", "raw", listed_again, {"listed_twice"}, None),
    "a line that names no pair": ("realblur_j", "raw", unreadable_line, {"layout"}, None),
    "a stray picture among pairs": (
        "gopro",
        "relaid",
        stray,
        {"extra"},
        "train/input/copies/GOPR0372_11_00-000001.png",
    ),
}

WARNINGS = {
    "one target for two": ("gopro", "relaid", one_target_for_two, {"same_target"}),
    "names alike": ("folder", "split", names_alike, {"names_alike"}),
    "crops beside the folders of pairs": ("gopro", "relaid", crops_beside, {"extra"}),
    "a stray value in a mask": (
        "reloblur",
        "raw",
        redrawn(RELOBLUR_MASK, a_stray_value),
        {"mask_values"},
    ),
    "previews": ("gopro", "relaid", stray_beside, {"extra"}),
    "an empty mask of one's own": (
        "folder",
        "split",
        redrawn("train/mask/000001.png", np.zeros_like),
        {"mask_empty"},
    ),
    "a gray picture": (
        "gopro",
        "relaid",
        redrawn(RELAID.format("target"), lambda values: values[..., 1].copy()),
        {"not_rgb"},
    ),
    "hardly blurred": (
        "hide",
        "relaid",
        together(
            over("train/target/1fromGOPR0950.MP4.png", "train/input/1fromGOPR0950.MP4.png"),
            redrawn(
                "train/input/1fromGOPR0950.MP4.png",
                lambda values: np.asarray(
                    Image.fromarray(values).filter(ImageFilter.UnsharpMask(2, percent=20, threshold=0))
                ),
            ),
        ),
        {"hardly_blurred"},
    ),
}
