"""What may be wrong with a dataset: each kind by its name, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from deblur_lab.data.samples import Split


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        title: What is wrong, in a few words.
        advice: What to do.
    """

    title: str
    advice: str


_FETCH = "fetch or unpack it again"
_MEND_COPY = "compare with the published archive, and unpack it again"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        # The set
        "split_missing": Kind(
            "a split is missing",
            "fetch it; or, of a copy that is meant to be a part, give expected=any or expected=test",
        ),
        "pairs": Kind("pairs are missing or too many", f"{_MEND_COPY}; of a part, give expected=any"),
        "sequences": Kind("sequences are missing or too many", _MEND_COPY),
        "sequence_pairs": Kind("a sequence has too few or too many pairs", _MEND_COPY),
        "sequence_in_both": Kind(
            "a sequence of one split lies in another", "remove it from where it does not belong"
        ),
        "layout": Kind("the layout is not as expected", "mend what it says"),
        # Names
        "unpaired": Kind("a picture has no partner", "restore the partner, or move the picture away"),
        "mask_missing": Kind("a mask is missing", "take the whole release of masks; or give data.masks=null"),
        "same_name": Kind("two files have one name", "remove one of them"),
        "names_alike": Kind(
            "names differ by upper and lower case alone", "on some systems one would replace the other"
        ),
        "leaving_link": Kind("a link leaves the folder", "copy the files, or give data.follow_links=true"),
        "listed_missing": Kind("a list names a file that is not there", _MEND_COPY),
        "listed_twice": Kind("lists name a scene or a pair twice", "take the lists as published"),
        "extra": Kind(
            "a picture belongs to no pair",
            "see whether it is of a pair under another name; else move it away",
        ),
        # Files
        "empty_file": Kind("a file is empty (0 bytes)", _FETCH),
        "truncated": Kind("a file is cut off", _FETCH),
        "checksum": Kind("a file is damaged", _FETCH),
        "unreadable": Kind("a file cannot be read as a picture", _FETCH),
        "lossy": Kind(
            "a picture is compressed with loss", "take the lossless original: its values differ from these"
        ),
        "not_rgb": Kind("a picture is not stored as RGB of 8 bits", "it is converted as docs/data.md says"),
        "sizes_differ": Kind("sizes differ within a pair", "restore the original: nothing is resized to fit"),
        "wrong_size": Kind(
            "pictures have another size than the published ones",
            "take the published resolution: scores of resized pictures cannot be compared",
        ),
        # Contents
        "identical": Kind("blurry and sharp are the same picture", "restore the blurry picture"),
        "swapped": Kind("blurry and sharp are swapped", "exchange them"),
        "hardly_blurred": Kind(
            "a blurry picture seems sharper than its partner", "look at them: are they swapped?"
        ),
        "mismatched": Kind(
            "blurry and sharp show different things", "restore the pair that belongs together"
        ),
        "brightness_differs": Kind(
            "blurry and sharp differ in brightness",
            "take both from one archive: motion blur leaves the mean value as it is",
        ),
        "averaging": Kind(
            "the blur was averaged in another way than meant",
            "papers of today use GoPro's blur, not blur_gamma: take the folder of that name as published",
        ),
        "wrong_variant": Kind(
            "RealBlur is of the other kind (J, R) than asked for", "give the other folder, or the other data="
        ),
        "leak": Kind(
            "a picture is in two splits", "remove it from the training split: scores would be too good"
        ),
        "duplicate": Kind("a picture is there twice", "remove one of them"),
        "same_target": Kind("several pairs share a sharp picture", "nothing, if they were taken so"),
        "mask_empty": Kind(
            "a mask is empty", "no weighted score is defined there: take a release without it"
        ),
        "mask_full": Kind(
            "a mask covers all of its picture", "take a release of masks that tells blur apart"
        ),
        "mask_large": Kind(
            "a mask covers far more than the others",
            "look at it: is it inverted, with 0 where it is blurred?",
        ),
        "mask_values": Kind(
            "a mask has more than two values",
            "take the masks as published: JPEG and resizing smear their edges",
        ),
    }
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that should be looked at.

    Attributes:
        kind: One of `KINDS`.
        found: What was found, in one line that names the first file.
        expected: What was expected, in a few words.
        split: Where it was found; None where it concerns the whole set.
        files: All files that are concerned.
        is_fault: Whether it spoils the dataset; else it is a warning, and may be all right.
        advice: What to do, where that is not what `KINDS` says.
    """

    kind: str
    found: str
    expected: str
    split: Split | None = None
    files: tuple[Path, ...] = ()
    is_fault: bool = True
    advice: str = ""

    @property
    def what_to_do(self) -> str:
        """What to do about it."""
        return self.advice or KINDS[self.kind].advice
