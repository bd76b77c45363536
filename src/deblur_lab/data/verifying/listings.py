"""What names and counts show: splits, sequences, partners, and files that nobody asks for."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from deblur_lab.data.layouts import DataFolder, Fault, FaultKind, Pair
from deblur_lab.data.published_sets import PUBLISHED, ExpectedSet, ExpectedSplit, names_like
from deblur_lab.data.samples import Split
from deblur_lab.data.verifying.findings import Finding
from deblur_lab.images import quoted
from deblur_lab.images.files import shown_names

_SHOWN = 6
# What is expected where a layout has a fault of a kind.
_EXPECTED: Mapping[FaultKind, str] = {
    "layout": "the layout as published",
    "unpaired": "both pictures of each pair",
    "mask_missing": "a mask for each pair",
    "same_name": "one file of a name",
    "leaving_link": "files inside the folder",
    "listed_missing": "every file that the list names",
    "listed_twice": "each pair once",
    "sequence_in_both": "each scene in one split",
    "wrong_variant": "the folder of the dataset that was named",
}

# What turns a picture's path into its partner's: that one's fault has said enough.
_PARTNERS = (
    ("_sharp.", "_blur."),
    ("_blur.", "_sharp."),
    ("/sharp/", "/blurry/"),
    ("/gt/gt_", "/blur/blur_"),
    ("/blur/blur_", "/gt/gt_"),
)


@dataclass(frozen=True)
class Listed:
    """A split as its layout lists it.

    Attributes:
        split: Its name.
        pairs: Its pairs.
        faults: What the layout says of other files.
    """

    split: Split
    pairs: tuple[Pair, ...]
    faults: tuple[Fault, ...] = ()


def layout_findings(listed: Iterable[Listed]) -> list[Finding]:
    """What the layouts of splits say of files that are no pair; what they say of two splits is told once."""
    told: dict[str, Finding] = {}
    for of_split in listed:
        for fault in of_split.faults:
            finding = Finding(fault.kind, str(fault), _EXPECTED[fault.kind], of_split.split)
            told.setdefault(fault, finding)
    return list(told.values())


def count_findings(
    listed: Sequence[Listed], expected: ExpectedSet, required: Collection[Split]
) -> list[Finding]:
    """Splits, pairs and sequences that are missing, too many or in the wrong split.

    Args:
        listed: The splits that are there.
        expected: What the dataset is made of.
        required: The splits that have to be there.
    """
    found: list[Finding] = []
    there = {of_split.split: of_split for of_split in listed}
    for split, numbers in expected.splits.items():
        if split in there and not there[split].pairs and there[split].faults:
            continue  # what there is to say is said of it
        if split in there:
            found += _split_findings(there[split], expected, numbers)
        elif split in required:
            found.append(
                Finding("split_missing", f"there is no {split} split", f"{numbers.pairs} pairs", split)
            )
    return found


def sequences_of(listed: Listed, expected: ExpectedSet) -> dict[str, int]:
    """The pairs of each sequence of a split, by its name, sorted."""
    return dict(sorted(Counter(expected.sequence_of(pair.name) for pair in listed.pairs).items()))


def _split_findings(listed: Listed, expected: ExpectedSet, numbers: ExpectedSplit) -> Iterator[Finding]:
    split, count = listed.split, len(listed.pairs)
    if count != numbers.pairs:
        yield Finding("pairs", f"{split} has {count} pairs", f"{numbers.pairs} pairs", split)
    sequences = sequences_of(listed, expected)
    strangers = _strangers(listed, expected)
    nameless = sequences.pop("", 0) if numbers.sequences is not None else 0
    if nameless or strangers is not None:
        count = nameless or len(listed.pairs)
        what = f"{split} has {count} pairs whose names tell no {'sequence' if nameless else 'picture'} "
        what += f"of {expected.title}" if expected.title else "of the dataset"
        advice = ""
        if strangers is not None:
            other, example = strangers
            what += f": they look like those of {PUBLISHED[other].title}; {quoted(example)}, say"
            advice = f"give the folder of {expected.title}, or the data= of the other, as data={other}"
        wanted = f"the names of {expected.title or 'the dataset'}"
        yield Finding("sequences", what, wanted, split, advice=advice)
        if not sequences or not nameless:
            return
    if numbers.pairs_of:
        missing, strange = (
            sorted(first - second)
            for first, second in (
                (numbers.pairs_of.keys(), sequences.keys()),
                (sequences.keys(), numbers.pairs_of.keys()),
            )
        )
        if missing:
            yield Finding("sequences", f"{split} lacks {named(missing)}", "each sequence of the split", split)
        if strange:
            yield Finding(
                "sequences", f"{split} has {named(strange)}", "the split's own sequences alone", split
            )
        for name in sequences.keys() & numbers.pairs_of.keys():
            if sequences[name] != numbers.pairs_of[name]:
                yield Finding(
                    "sequence_pairs",
                    f"{name} has {sequences[name]} pairs",
                    f"{numbers.pairs_of[name]} pairs",
                    split,
                )
    elif numbers.sequences is not None and len(sequences) != numbers.sequences:
        yield Finding(
            "sequences", f"{split} has {len(sequences)} sequences", f"{numbers.sequences} sequences", split
        )


def _strangers(listed: Listed, expected: ExpectedSet) -> tuple[str, Path] | None:
    """The dataset that most pairs have names of, if it is another, and the first picture of those."""
    found = names_like(expected, (pair.name for pair in listed.pairs))
    if found is None:
        return None
    other, name = found
    return other, next(pair.blurry for pair in listed.pairs if pair.name == name)


def sequence_findings(listed: Sequence[Listed], expected: ExpectedSet) -> list[Finding]:
    """Sequences that are in two splits, or in another than the published one."""
    if not expected.sequences_apart:
        return []
    found = []
    home = {name: split for split, numbers in expected.splits.items() for name in numbers.pairs_of}
    pairs = {of_split.split: _by_sequence(of_split, expected) for of_split in listed}
    for split, sequences in pairs.items():
        for name, files in sequences.items():
            own = home.get(name)
            others = [other for other in pairs if other != split and name in pairs[other]]
            # Where nobody knows where it belongs, it is told of the split that is trained on.
            if (own is not None and own != split) or (own is None and others and split == "train"):
                what = f"{split} has {len(files)} pairs of {name}, "
                what += f"a {own} sequence" if own else f"of which {others[0]} has some too"
                found.append(
                    Finding(
                        "sequence_in_both", what, "each sequence in its own split alone", split, tuple(files)
                    )
                )
    return found


def _by_sequence(listed: Listed, expected: ExpectedSet) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for pair in listed.pairs:
        sequence = expected.sequence_of(pair.name)
        if sequence:
            files.setdefault(sequence, []).append(pair.blurry)
    return files


def name_findings(listed: Listed) -> list[Finding]:
    """Names that differ by upper and lower case alone."""
    names = sorted((pair.name.casefold(), pair.name, pair.blurry) for pair in listed.pairs)
    return [
        Finding(
            "names_alike",
            f"{' and '.join(quoted(path) for _, _, path in alike)} have names alike",
            "names that no system takes for one",
            listed.split,
            tuple(path for _, _, path in alike),
            is_fault=False,
        )
        for _, group in groupby(names, lambda entry: entry[0])
        if len(alike := list(group)) > 1
    ]


def extra_findings(data: DataFolder, listed: Sequence[Listed], known: Collection[Path]) -> list[Finding]:
    """Pictures below the dataset's folder that belong to no pair, one finding for each of their folders.

    Args:
        data: The dataset's folder.
        listed: All of its splits.
        known: Folders whose pictures belong to no pair and need not: the dataset's own others.

    Returns:
        Faults where pictures of pairs lie in the folder, or in one above it; else warnings, as crops that a
        training script wrote beside the folders of pairs are in nobody's way.
    """
    used = {
        path
        for of_split in listed
        for pair in of_split.pairs
        for path in (pair.blurry, pair.sharp, pair.mask)
        if path is not None
    }
    told = " ".join(line for of_split in listed for line in of_split.faults)
    of_pairs = {path.parent for path in used}
    found = []
    for folder, pictures in _pictures_below(data, data.path, known):
        extra = tuple(path for path in pictures if path not in used and not _is_told(path, told))
        if extra:
            more = f" and {len(extra) - 1} more beside it" if len(extra) > 1 else ""
            found.append(
                Finding(
                    "extra",
                    f"{quoted(extra[0])}{more}: belongs to no pair",
                    "pictures of pairs alone",
                    None,
                    extra,
                    is_fault=not of_pairs.isdisjoint((folder, *folder.parents)),
                )
            )
    return found


def _is_told(path: Path, told: str) -> bool:
    """Whether a fault names a picture or its partner."""
    partners = (path.as_posix().replace(one, other) for one, other in _PARTNERS)
    return any(quoted(candidate) in told for candidate in (str(path), *partners))


def _pictures_below(
    data: DataFolder, folder: Path, known: Collection[Path]
) -> Iterator[tuple[Path, list[Path]]]:
    yield folder, data.pictures(folder)
    for inner in data.folders(folder):
        # A link may lead back up.
        if inner not in known and not inner.is_symlink():
            yield from _pictures_below(data, inner, known)


def expected_of_made_up(record: Mapping[str, Any], like: ExpectedSet) -> ExpectedSet:
    """What a made-up dataset is made of, by its own record.

    Args:
        record: What `synthesize.record_of` describes.
        like: What the dataset that it imitates is made of: names and kinds are the same, numbers are not.
    """
    splits: dict[Split, ExpectedSplit] = {}
    of_splits: tuple[Split, ...] = ("train", "val", "test")
    for split in of_splits:
        if split in record["pairs"]:
            sequences = record["sequences"].get(split, {})
            splits[split] = ExpectedSplit(record["pairs"][split], len(sequences) or None, sequences)
    return ExpectedSet(
        splits,
        title=like.title,
        names=like.names,
        sequence=like.sequence,
        sequences_apart=like.sequences_apart,
        blurred=like.blurred,
        dark=like.dark,
        lossless=like.lossless,
        all_blurred_somewhere=like.all_blurred_somewhere,
    )


def named(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    return shown_names(names, _SHOWN)
