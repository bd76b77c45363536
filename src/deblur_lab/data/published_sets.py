"""What is known of the published datasets: counts, names and sizes, to hold a copy of one against.

The numbers are those of the datasets' own pages and papers; where none is given, none is known for certain.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from deblur_lab.data.samples import Split

Averaging = Literal["stored", "light"]
"""What was averaged into blur: the values as stored, or the light that they stand for."""


@dataclass(frozen=True)
class ExpectedSplit:
    """What a split is made of.

    Attributes:
        pairs: How many there are.
        sequences: How many sequences or scenes they are from; None where that is not known.
        pairs_of: The pairs of each sequence by its name; empty where that is not known.
    """

    pairs: int
    sequences: int | None = None
    pairs_of: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ExpectedSet:
    """What a dataset is made of.

    Attributes:
        splits: By name.
        title: What it is called in sentences; empty if it is nobody's but the user's.
        names: A pattern that its pairs' names match, and those of the other datasets do not.
        size_px: Width and height of every picture; None where sizes vary or are not known.
        sequence: A pattern that finds the name of the sequence in that of a pair, whatever the layout; empty
            where it is the folders of the name.
        sequences_apart: Whether it is known that no sequence is in two splits.
        blurred: What kind of average its blur is, where it is one.
        dark: Whether its pictures are dark, where that tells it from another.
        lossless: Whether its pictures are stored without loss.
        all_blurred_somewhere: Whether each of its masks has blurred pixels, and others.
    """

    splits: Mapping[Split, ExpectedSplit]
    title: str = ""
    names: str = ""
    size_px: tuple[int, int] | None = None
    sequence: str = ""
    sequences_apart: bool = False
    blurred: Averaging | None = None
    dark: bool | None = None
    lossless: bool = True
    all_blurred_somewhere: bool = False

    def sequence_of(self, name: str) -> str:
        """The name of the sequence that a pair belongs to; empty where it has none.

        >>> PUBLISHED["gopro"].sequence_of("GOPR0384_11_00-000001")
        'GOPR0384_11_00'
        """
        found = re.search(self.sequence, name) if self.sequence else None
        return found[0] if found else name.rpartition("/")[0]


_GOPRO_TEST = {
    f"GOPR{name}": pairs
    for name, pairs in {
        "0384_11_00": 100,
        "0384_11_05": 100,
        "0385_11_01": 100,
        "0396_11_00": 100,
        "0410_11_00": 134,
        "0854_11_00": 100,
        "0862_11_00": 77,
        "0868_11_00": 100,
        "0869_11_00": 100,
        "0871_11_00": 100,
        "0881_11_01": 100,
    }.items()
}
_REALBLUR: Mapping[Split, ExpectedSplit] = {"train": ExpectedSplit(3758, 182), "test": ExpectedSplit(980, 50)}
_REALBLUR_SCENE = r"scene\d+"
_GOPRO_NAME = r"GOPR\d+_\d+_\d+"


def _realblur(*, dark: bool) -> ExpectedSet:
    return ExpectedSet(
        _REALBLUR,
        title="RealBlur",
        names=_REALBLUR_SCENE,
        sequence=_REALBLUR_SCENE,
        sequences_apart=True,
        dark=dark,
    )


PUBLISHED: Mapping[str, ExpectedSet] = MappingProxyType(
    {
        "gopro": ExpectedSet(
            {"train": ExpectedSplit(2103, 22), "test": ExpectedSplit(1111, 11, _GOPRO_TEST)},
            title="GoPro",
            names=_GOPRO_NAME,
            size_px=(1280, 720),
            sequence=_GOPRO_NAME,
            sequences_apart=True,
            blurred="stored",
        ),
        "hide": ExpectedSet(
            {"train": ExpectedSplit(6397), "test": ExpectedSplit(2025)},
            title="HIDE",
            names=r"\d+fromGOPR\d+",
            size_px=(1280, 720),
            sequence=r"(?<=from)GOPR\d+",
        ),
        "realblur_j": _realblur(dark=False),
        "realblur_r": _realblur(dark=True),
        "reloblur": ExpectedSet(
            {"train": ExpectedSplit(2010), "test": ExpectedSplit(395)},
            title="ReLoBlur",
            names=r"^s\d+[/_-]\d+[/_-]\d+$",
            size_px=(2152, 1436),
            all_blurred_somewhere=True,
        ),
    }
)
"""The datasets by the names of their sources."""


def published_pairs(dataset: str, split: Split) -> int | None:
    """How many pairs a split of a published dataset has; None of a dataset that is none of those.

    >>> published_pairs("gopro", "test"), published_pairs("folder", "test")
    (1111, None)
    """
    known = PUBLISHED.get(dataset)
    return known.splits[split].pairs if known is not None and split in known.splits else None


def names_like(expected: ExpectedSet, names: Iterable[str]) -> tuple[str, str] | None:
    """The other published dataset that most of a dataset's pairs have the names of.

    Args:
        expected: What it is said to be.
        names: Of its pairs.

    Returns:
        The name of that one's source, and the first name that is one of its; None where the names tell
        nothing else, or nothing is known of what they should be.

    >>> names_like(PUBLISHED["gopro"], ["1fromGOPR0952.MP4", "2fromGOPR0952.MP4"])
    ('hide', '1fromGOPR0952.MP4')
    """
    if not expected.names:
        return None
    given = list(names)
    foreign: dict[str, list[str]] = {}
    for name in given:
        if not re.search(expected.names, name):
            other = next((key for key, other in PUBLISHED.items() if re.search(other.names, name)), "")
            foreign.setdefault(other, []).append(name)
    foreign.pop("", None)
    most, of_it = max(foreign.items(), key=lambda item: len(item[1]), default=("", []))
    return (most, of_it[0]) if 2 * len(of_it) > len(given) else None
