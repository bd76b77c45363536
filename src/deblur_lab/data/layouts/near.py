"""Folders that are nearly called what a layout looks for: told, so that a renamed one is soon found."""

import difflib
import re
from collections.abc import Iterable, Sequence

from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.errors import DataError
from deblur_lab.images import quoted
from deblur_lab.images.files import shown_names

# What stands in the descriptions of layouts for names of any kind, and words between names.
_PLACEHOLDERS = frozenset(
    {"NAME", "SEQUENCE", "SCENE", "SEQ", "NN", "NN_", "NNNNNN", "sceneNNN", "png", "txt", "with", "or", "and"}
)
_ALIKE = 0.8
_SHOWN = 5


def names_in(descriptions: Iterable[str]) -> list[str]:
    """The names of folders that layouts look for, by their `description`.

    >>> names_in(["{train,test}/{input,target}/NAME.png"])
    ['train', 'test', 'input', 'target']
    """
    words = [word for line in descriptions for word in re.findall(r"[A-Za-z][\w-]*", line)]
    return [word for word in dict.fromkeys(words) if word not in _PLACEHOLDERS]


def near_misses(held: Sequence[str], looked_for: Sequence[str]) -> list[tuple[str, str]]:
    """What is there under a name that is nearly one of those looked for and missing, and that one.

    >>> near_misses(["training", "test", "gt"], ["train", "test", "GT"])
    [('training', 'train'), ('gt', 'GT')]
    """
    missing = [name for name in looked_for if name not in held]
    strange = [name for name in held if name not in looked_for]
    return [
        (name, best)
        for name in strange
        if (best := max(missing, key=lambda wanted: _alike(name, wanted), default=None)) is not None
        and _alike(name, best) >= _ALIKE
    ]


def told_near_misses(held: Sequence[str], looked_for: Sequence[str]) -> str:
    """The same as a question, as `is gt meant to be GT?`; empty where there is none."""
    misses = near_misses(held, looked_for)
    return " and ".join(f"is {quoted(name)} meant to be {wanted}?" for name, wanted in misses)


def held_by(data: DataFolder) -> list[str]:
    """The names of all that lies in a folder; none where it cannot be listed."""
    try:
        return [path.name for path in data.unnoted(data.path)]
    except DataError:
        return []


def shown(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    return shown_names(names, _SHOWN) or "nothing"


def _alike(name: str, wanted: str) -> float:
    first, second = (re.sub(r"[\W_]", "", text).casefold() for text in (name, wanted))
    if first == second:
        return 1.0
    # As training for train, inputs for input, blurry for blur; but a name with more words is another thing.
    longer, shorter = (name, wanted) if len(name) > len(wanted) else (wanted, name)
    rest = longer[len(shorter) :]
    if (
        len(shorter) >= 4
        and longer.casefold().startswith(shorter.casefold())
        and rest.isalpha()
        and len(rest) < 5
    ):
        return 0.9
    return difflib.SequenceMatcher(None, first, second).ratio()
