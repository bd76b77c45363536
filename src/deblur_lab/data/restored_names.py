"""Which picture of a dataset a restored one is, told by names.

By names alone, never by order: a program that left one out would else be scored on the wrong pictures
without a word. Programs name what they write in their own ways, so that a name is looked for in steps, each
looser than the one before; what a step has settled is out of those that follow:

1. the dataset's own name, as a path below the folder, without its ending: ``GOPR0384_11_00/000001.png``;
2. the same with any separators: ``GOPR0384_11_00-000001.png``, ``GOPR0384_11_00_000001.png``;
3. the same without words that only say what a picture is: ``GOPR0384_11_00/blur/000001.png``,
   ``scene001_blur_1.png``, ``scene001-1_restored.png``;
4. the end of a longer name: ``RealBlur-J/test/scene001-1.png``, or ``000001.png`` alone, where one picture of
   the dataset ends so;
5. the name between words that all files share: ``GOPR0384_11_00-000001_NAFNet-width32.png``, in a folder of
   its own, too: ``GOPR0384_11_00-000001/GOPR0384_11_00-000001_NAFNet.png``;
6. as in 5, names cut at their first dot: ``109fromGOPR1096.png`` for ``109fromGOPR1096.MP4``;
7. as in 5, numbers without leading zeros: ``GOPR0384_11_00-1.png``; and 6 and 7 together.

Steps 5 to 7 are taken only if all pictures that are left find a file so, or all files a picture. Where more
than one file, or more than one picture, fits in a step, none is taken. In no step is a file taken of which
some word says that it is a sharp picture (`_SHARP`), unless the dataset's own name has that word.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from deblur_lab.data.layouts.pairing import name_key
from deblur_lab.images import quoted
from deblur_lab.images.files import shown_names

_SEPARATORS = re.compile(r"[/\\\-_\s]+")
# What a picture is, and not which.
_KINDS = frozenset(
    {
        *("blur", "blurry", "blurred", "input"),
        *("restored", "restoration", "deblur", "deblurred", "output", "outputs", "result", "results", "pred"),
    }
)
# Programs write the sharp picture beside the restored one, and it must not pass for that.
_SHARP = frozenset(
    {
        *("sharp", "gt", "target", "targets", "hr", "label", "labels", "clean"),
        *("groundtruth", "truth"),  # ground_truth
    }
)
_LETTERS = re.compile(r"[a-z]+")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_SHOWN = 3

_Words = tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """Which file is which picture of a dataset.

    Attributes:
        files: By the picture's index; pictures that no file was found for are left out.
        missing: The indices of these.
        faults: Files of which it cannot be told which picture they are, each in one line.
        extra: Files that are none of the pictures, sorted by name.
        sharp: Those of them whose names say that they are sharp pictures.
    """

    files: Mapping[int, Path]
    missing: tuple[int, ...]
    faults: tuple[str, ...]
    extra: tuple[Path, ...]
    sharp: tuple[Path, ...] = ()


def match(names: Sequence[str], files: Sequence[Path], folder: Path) -> Matched:
    """Tell which file is which picture, by names.

    Args:
        names: Of the pictures, by their index; as in `samples.Scene`.
        files: To choose from, as `restored.pictures_below` gives them.
        folder: In which they lie.
    """
    # What a name says: a path without ending, as the dataset's names are.
    top = folder.resolve()
    paths = [name_key(file.relative_to(top).with_suffix("").as_posix()) for file in files]
    matching = _Matching([name_key(name) for name in names], paths, files)
    steps: tuple[Callable[[str], Hashable], ...] = (str, _words, _telling_words)
    for step in steps:
        matching.by_equality(step)
    matching.by_ending()
    for form in (_whole, _cut, _unpadded, lambda name: _unpadded(_cut(name))):
        matching.by_shared_words(form)
    return matching.matched()


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    return shown_names(names, _SHOWN)


class _Matching:
    """Names and files, and what of them is settled.

    Args:
        names: Of the pictures.
        paths: What the files' names say.
        files: Themselves, for messages.
    """

    def __init__(self, names: Sequence[str], paths: Sequence[str], files: Sequence[Path]) -> None:
        self._names, self._paths, self._files = names, paths, files
        self._sharp_of_names = [_sharp_words(name) for name in names]
        self._sharp_of_files = [_sharp_words(path) for path in paths]
        self._open_names, self._open_files = set(range(len(names))), set(range(len(paths)))
        self._settled: dict[int, int] = {}
        self._faults: list[str] = []

    def matched(self) -> Matched:
        """What came of it."""
        extra = sorted(self._open_files)
        return Matched(
            {number: self._files[self._settled[number]] for number in sorted(self._settled)},
            tuple(sorted(self._open_names)),
            tuple(self._faults),
            tuple(self._files[number] for number in extra),
            tuple(self._files[number] for number in extra if self._sharp_of_files[number]),
        )

    def by_equality(self, step: Callable[[str], Hashable]) -> None:
        """Take files of which a step makes the same as of a name."""
        groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for number in sorted(self._open_names):
            groups[step(self._names[number]), self._sharp_of_names[number]][0].append(number)
        for number in sorted(self._open_files):
            groups[step(self._paths[number]), self._sharp_of_files[number]][1].append(number)
        for of_names, of_files in groups.values():
            self._settle(of_names, of_files)

    def by_ending(self) -> None:
        """Take names and files of which one ends as the other; those that are connected by that together."""
        words_of_names = {number: _telling_words(self._names[number]) for number in sorted(self._open_names)}
        words_of_files = {number: _telling_words(self._paths[number]) for number in sorted(self._open_files)}
        by_last: dict[str, list[int]] = defaultdict(list)
        for number, words in words_of_files.items():
            by_last[words[-1]].append(number)
        # Each connected group once, by a union of those that fit each other.
        group_of: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for number, words in words_of_names.items():
            for other in by_last.get(words[-1], ()):
                shorter = min(len(words), len(words_of_files[other]))
                if words[-shorter:] != words_of_files[other][-shorter:] or not self._may_be(other, number):
                    continue
                one = group_of.setdefault(("name", number), [("name", number)])
                two = group_of.setdefault(("file", other), [("file", other)])
                if one is not two:
                    one += two
                    for member in two:
                        group_of[member] = one
        for group in {id(group): group for group in group_of.values()}.values():
            self._settle(
                sorted(number for kind, number in group if kind == "name"),
                sorted(number for kind, number in group if kind == "file"),
            )

    def by_shared_words(self, form: Callable[[str], str]) -> None:
        """Take files that hold a name, both in a form of them, between words that all these files share."""
        by_words: dict[_Words, list[int]] = defaultdict(list)
        for number in sorted(self._open_names):
            by_words[_telling_words(form(self._names[number]))].append(number)
        lengths = {len(words) for words in by_words}
        # By what stands before and behind: by the name's words, which files hold it so.
        found: dict[tuple[_Words, _Words], dict[_Words, list[int]]] = {}
        named_sharp = frozenset[str]().union(*self._sharp_of_names)
        files = [number for number in sorted(self._open_files) if self._sharp_of_files[number] <= named_sharp]
        for number in files:
            words = _telling_words(form(_unrepeated(self._paths[number])))
            for length in lengths:
                for start in range(len(words) - length + 1):
                    held = words[start : start + length]
                    if any(self._may_be(number, name) for name in by_words.get(held, ())):
                        shared = words[:start], words[start + length :]
                        found.setdefault(shared, {}).setdefault(held, []).append(number)
        whole, partly = [], []
        for shared, holding in found.items():
            number_of_files = sum(map(len, holding.values()))
            if any(map(len, shared)) and number_of_files == 1 < len(self._names):
                continue  # what is shared cannot be told from one
            if len(holding) == len(by_words):
                whole.append(holding)
            elif number_of_files == len(files):
                partly.append(holding)
        fitting = whole or partly
        if len(fitting) > 1:
            self._refuse_kinds(fitting, by_words)
        elif fitting:
            for held, of_files in fitting[0].items():
                self._settle(by_words[held], of_files)

    def _may_be(self, file: int, name: int) -> bool:
        """Whether a file is not called a sharp picture, but as far as the picture's name is."""
        return self._sharp_of_files[file] <= self._sharp_of_names[name]

    def _settle(self, of_names: Sequence[int], of_files: Sequence[int]) -> None:
        """Take what fits alone, and say what does not; do nothing where one side is empty."""
        if not of_names or not of_files:
            return
        self._open_names -= set(of_names)
        self._open_files -= set(of_files)
        if len(of_names) == len(of_files) == 1:
            self._settled[of_names[0]] = of_files[0]
            return
        pictures = listed([self._names[number] for number in of_names])
        self._faults.append(
            f"{self._as_good(of_files)} {pictures}: name each file as the dataset does, one a picture"
        )

    def _refuse_kinds(
        self, kinds: Sequence[Mapping[_Words, Sequence[int]]], by_words: Mapping[_Words, Sequence[int]]
    ) -> None:
        """Say that files of several kinds fit, each as well."""
        held = next(iter(kinds[0]))
        first = sorted({number for kind in kinds for number in kind.get(held, ())})
        self._faults.append(
            f"{self._as_good(first)} {quoted(self._names[by_words[held][0]])}, and others likewise: "
            "leave files of one kind in the folder"
        )
        for kind in kinds:
            for words, of_files in kind.items():
                self._open_names -= set(by_words[words])
                self._open_files -= set(of_files)

    def _as_good(self, of_files: Sequence[int]) -> str:
        shown = listed([os.fspath(self._files[number]) for number in of_files])
        return f"{shown} {'is' if len(of_files) == 1 else 'are each'} as good a match for"


def _words(name: str) -> _Words:
    return tuple(word for word in _SEPARATORS.split(name.casefold()) if word)


def _telling_words(name: str) -> _Words:
    """The words that say which picture it is; all of them, if none does."""
    words = _words(name)
    return tuple(word for word in words if word not in _KINDS) or words


def _sharp_words(name: str) -> frozenset[str]:
    """Those that say that a picture is the sharp one; dots and digits part words here, too."""
    return _SHARP.intersection(_LETTERS.findall(name.casefold()))


def _whole(name: str) -> str:
    return name


def _cut(name: str) -> str:
    """A name without what stands behind the first dot of its last component."""
    folders, slash, last = name.rpartition("/")
    return f"{folders}{slash}{last.partition('.')[0] or last}"


def _unpadded(name: str) -> str:
    """A name with its numbers without leading zeros."""
    return _LEADING_ZEROS.sub("", name)


def _unrepeated(path: str) -> str:
    """A path without folders whose name the next component begins with, as where each picture has one."""
    components = path.split("/")
    kept = [
        one
        for one, following in pairwise(components)
        if _telling_words(following)[: len(_telling_words(one))] != _telling_words(one)
    ]
    return "/".join([*kept, components[-1]])
