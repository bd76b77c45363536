"""The layouts in which the field hands its datasets around, as places to write synthetic pairs to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from types import MappingProxyType
from typing import Literal

from deblur_lab.data.light import SensorNoise
from deblur_lab.data.scenes import CameraShake, Exposure, LocalMotion, SceneKind

WrittenSplit = Literal["train", "test"]

_LONGEST_SEQUENCE = 50


@dataclass(frozen=True)
class Frame:
    """One pair of a dataset that is a set of sequences.

    Attributes:
        split: Its split.
        number: Which pair of its split it is, from 0.
        sequence: Which sequence of the dataset it is in, from 0; the test's come after the training's.
        frame: Which pair of its sequence it is, from 0.
        alone: Whether the dataset has no other split.
    """

    split: WrittenSplit
    number: int
    sequence: int
    frame: int
    alone: bool


@dataclass(frozen=True)
class Place:
    """Where the pictures of one pair go: paths below the output folder, parts separated by /.

    Attributes:
        blurry: The blurry picture.
        sharp: The sharp picture.
        mask: The mask, 255 = blurred, where the layout has masks.
        blurry_in_light: The blurry picture once more, averaged in light, where the layout has both.
    """

    blurry: str
    sharp: str
    mask: str | None = None
    blurry_in_light: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        paths = (self.blurry, self.sharp, self.mask, self.blurry_in_light)
        return tuple(path for path in paths if path is not None)


def _as_asked(frame: Frame, width_px: int, height_px: int) -> tuple[int, int]:
    return width_px, height_px


def _of_none(frame: Frame) -> str:
    return ""


def _no_lists(pairs: Sequence[tuple[Frame, Place]]) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class WrittenLayout:
    """A layout, and the kind of scenes that go with it.

    Attributes:
        data: The choice of `data=` that reads the layout.
        description: Its folders and names, in one line.
        kind: Makes the scenes.
        place: Where a pair goes.
        root: The dataset's folder below the output folder; empty where they are the same.
        kind_in_light: Makes the pictures of `Place.blurry_in_light`: the same scenes, averaged in light.
        sequence: What the sequence that a pair is of is called, as in the pair's own name; empty where the
            layout has none.
        size_px: The width and height of a pair, from those asked for.
        lists: Text files that belong to the layout: paths below the output folder, and what is in them.
    """

    data: str
    description: str
    kind: SceneKind
    place: Callable[[Frame], Place]
    root: str = ""
    kind_in_light: SceneKind | None = None
    sequence: Callable[[Frame], str] = _of_none
    size_px: Callable[[Frame, int, int], tuple[int, int]] = _as_asked
    lists: Callable[[Sequence[tuple[Frame, Place]]], Mapping[str, str]] = _no_lists


def frames(train_pairs: int, test_pairs: int) -> Iterator[Frame]:
    """All pairs of a dataset, sequence by sequence: a split of N pairs has about the root of N sequences."""
    sequence = 0
    counts: tuple[tuple[WrittenSplit, int], ...] = (("train", train_pairs), ("test", test_pairs))
    for split, count in counts:
        length = min(max(isqrt(count), 1), _LONGEST_SEQUENCE)
        for number in range(count):
            alone = count == train_pairs + test_pairs
            yield Frame(split, number, sequence + number // length, number % length, alone)
        # An even number of sequences, so that where two of them make a scene no scene is in two splits.
        sequence += 2 * -(-count // (2 * length))


def _video(frame: Frame) -> str:
    """A name as the GoPro dataset's sequences have."""
    return f"GOPR{372 + frame.sequence:04d}_11_00"


def _gopro_raw(frame: Frame) -> Place:
    folder, file = f"GOPRO_Large/{frame.split}/{_video(frame)}", f"{frame.frame + 1:06d}.png"
    return Place(
        f"{folder}/blur/{file}", f"{folder}/sharp/{file}", blurry_in_light=f"{folder}/blur_gamma/{file}"
    )


def _gopro_relaid(frame: Frame) -> Place:
    name = f"{_video(frame)}-{frame.frame + 1:06d}.png"
    return Place(f"{frame.split}/input/{name}", f"{frame.split}/target/{name}")


def _gopro_flat(frame: Frame) -> Place:
    file = f"{_video(frame)}_{frame.frame + 1:03d}.png"
    return Place(f"{frame.split}/blur/{file}", f"{frame.split}/sharp/{file}")


def _hide_video(frame: Frame) -> str:
    return f"GOPR{950 + frame.sequence:04d}"


def _hide_name(frame: Frame) -> str:
    """A name as HIDE's pictures have, but for the ending: it has a dot of its own."""
    return f"{frame.frame + 1}from{_hide_video(frame)}.MP4"


def _hide_raw(frame: Frame) -> Place:
    file = f"{_hide_name(frame)}.png"
    # Whole sequences are of one kind of shot.
    shot = "test-close-ups" if frame.sequence % 2 == 0 else "test-long-shot"
    folder = "train" if frame.split == "train" else f"test/{shot}"
    return Place(f"HIDE_dataset/{folder}/{file}", f"HIDE_dataset/GT/{file}")


def _hide_relaid(frame: Frame) -> Place:
    return _relaid(frame, _hide_name(frame))


def _realblur_scene(frame: Frame) -> str:
    return f"scene{frame.sequence + 1:03d}"


def _realblur_j_raw(frame: Frame) -> Place:
    return _realblur_raw(frame, "RealBlur-J_ECC_IMCORR_centroid_itensity_ref")


def _realblur_r_raw(frame: Frame) -> Place:
    return _realblur_raw(frame, "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref")


def _realblur_raw(frame: Frame, top: str) -> Place:
    folder, number = f"{top}/{_realblur_scene(frame)}", frame.frame + 1
    return Place(f"{folder}/blur/blur_{number}.png", f"{folder}/gt/gt_{number}.png")


def _realblur_relaid(frame: Frame) -> Place:
    return _relaid(frame, f"{_realblur_scene(frame)}-{frame.frame + 1}")


def _realblur_size_px(frame: Frame, width_px: int, height_px: int) -> tuple[int, int]:
    """The scenes of RealBlur were aligned and cropped one by one: no two need be equal in size."""
    return width_px - frame.sequence * 7 % 13, height_px - frame.sequence * 5 % 11


def _realblur_j_lists(pairs: Sequence[tuple[Frame, Place]]) -> dict[str, str]:
    return _realblur_lists(pairs, "RealBlur_J")


def _realblur_r_lists(pairs: Sequence[tuple[Frame, Place]]) -> dict[str, str]:
    return _realblur_lists(pairs, "RealBlur_R")


def _realblur_lists(pairs: Sequence[tuple[Frame, Place]], name: str) -> dict[str, str]:
    """The published lists: the sharp picture first, then the blurry one, and a space that ends each line."""
    lines: dict[str, list[str]] = {}
    for frame, place in pairs:
        lines.setdefault(f"{name}_{frame.split}_list.txt", []).append(f"{place.sharp} {place.blurry} \n")
    return {path: "".join(of_split) for path, of_split in lines.items()}


def _reloblur_sequence(frame: Frame) -> str:
    scene, part = divmod(frame.sequence, 2)
    return f"s{scene + 1:02d}/{part + 1:02d}"


def _reloblur(frame: Frame) -> Place:
    folder, number = f"{frame.split}/{_reloblur_sequence(frame)}", f"{frame.frame:02d}"
    return Place(
        f"dataset/{folder}/{number}_blur.png",
        f"dataset/{folder}/{number}_sharp.png",
        mask=f"masks/{folder}/{number}.png",
    )


def _folder(frame: Frame) -> Place:
    file = f"{frame.number:06d}.png"
    return Place(*(f"{frame.split}/{folder}/{file}" for folder in ("blurry", "sharp", "mask")))


def _relaid(frame: Frame, name: str) -> Place:
    # Test sets without a training set are handed around without a folder for the split.
    folder = "" if frame.alone and frame.split == "test" else f"{frame.split}/"
    return Place(f"{folder}input/{name}.png", f"{folder}target/{name}.png")


_SHAKE = CameraShake()
# What is averaged in GoPro's `blur` and in HIDE are frames as a video stores them, not light.
_VIDEO_SHAKE = CameraShake(exposure=Exposure(in_light=False))
# RealBlur-R is raw and dark: mostly low in value, and noisier.
_DARK_SHAKE = CameraShake(exposure=Exposure(brightness=0.06, noise=SensorNoise(0.001, 5000)))

_RELAID = "[{train,test}/]{input,target}/NAME.png (without train/ and test/ if train_scenes=0)"
_REALBLUR_RAW = "{top}/sceneNNN/{{blur/blur_K,gt/gt_K}}.png and {name}_{{train,test}}_list.txt"

LAYOUTS: Mapping[str, Mapping[str, WrittenLayout]] = MappingProxyType(
    {
        "folder": {
            "split": WrittenLayout(
                "folder", "{train,test}/{blurry,sharp,mask}/NNNNNN.png", LocalMotion(), _folder
            )
        },
        "gopro": {
            "raw": WrittenLayout(
                "gopro",
                "GOPRO_Large/{train,test}/GOPRxxxx_xx_xx/{blur,blur_gamma,sharp}/NNNNNN.png",
                _VIDEO_SHAKE,
                _gopro_raw,
                root="GOPRO_Large",
                kind_in_light=_SHAKE,
                sequence=_video,
            ),
            "relaid": WrittenLayout(
                "gopro", "{train,test}/{input,target}/NAME.png", _VIDEO_SHAKE, _gopro_relaid, sequence=_video
            ),
            "flat": WrittenLayout(
                "gopro", "{train,test}/{blur,sharp}/SEQ_NNN.png", _VIDEO_SHAKE, _gopro_flat, sequence=_video
            ),
        },
        "hide": {
            "raw": WrittenLayout(
                "hide",
                "HIDE_dataset/{train,test/test-close-ups,test/test-long-shot,GT}/NfromGOPRxxxx.MP4.png",
                _VIDEO_SHAKE,
                _hide_raw,
                root="HIDE_dataset",
                sequence=_hide_video,
            ),
            "relaid": WrittenLayout("hide", _RELAID, _VIDEO_SHAKE, _hide_relaid, sequence=_hide_video),
        },
        "realblur_j": {
            "raw": WrittenLayout(
                "realblur_j",
                _REALBLUR_RAW.format(top="RealBlur-J_ECC_IMCORR_centroid_itensity_ref", name="RealBlur_J"),
                _SHAKE,
                _realblur_j_raw,
                sequence=_realblur_scene,
                size_px=_realblur_size_px,
                lists=_realblur_j_lists,
            ),
            "relaid": WrittenLayout(
                "realblur_j",
                _RELAID,
                _SHAKE,
                _realblur_relaid,
                sequence=_realblur_scene,
                size_px=_realblur_size_px,
            ),
        },
        "realblur_r": {
            "raw": WrittenLayout(
                "realblur_r",
                _REALBLUR_RAW.format(
                    top="RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref", name="RealBlur_R"
                ),
                _DARK_SHAKE,
                _realblur_r_raw,
                sequence=_realblur_scene,
                size_px=_realblur_size_px,
                lists=_realblur_r_lists,
            ),
            "relaid": WrittenLayout(
                "realblur_r",
                _RELAID,
                _DARK_SHAKE,
                _realblur_relaid,
                sequence=_realblur_scene,
                size_px=_realblur_size_px,
            ),
        },
        "reloblur": {
            "raw": WrittenLayout(
                "reloblur",
                "dataset/{train,test}/SCENE/SEQ/NN_{blur,sharp}.png and masks/{train,test}/SCENE/SEQ/NN.png",
                LocalMotion(),
                _reloblur,
                sequence=_reloblur_sequence,
            )
        },
    }
)
"""What can be written, by layout and variant; a layout's first variant is its own."""
