"""What a layout says of files that are no pair."""

from typing import Literal

FaultKind = Literal[
    "layout",
    "unpaired",
    "mask_missing",
    "same_name",
    "leaving_link",
    "listed_missing",
    "listed_twice",
    "sequence_in_both",
    "wrong_variant",
]
"""What is wrong, by the names that `deblur_lab.data.verify` gives it; `layout` is what has no other name."""


class Fault(str):
    """One line on what is wrong with some files, which says of what kind that is.

    It is a string like any other: equal to one of the same characters, whatever the kind.

    Args:
        line: What is wrong, where, and what was expected.
        kind: What kind of fault it is.
    """

    __slots__ = ("kind",)

    kind: FaultKind

    def __new__(cls, line: str, kind: FaultKind = "layout") -> "Fault":  # noqa: D102 - see the class
        fault = super().__new__(cls, line)
        fault.kind = kind
        return fault

    def __reduce__(self) -> tuple[type["Fault"], tuple[str, FaultKind]]:
        return Fault, (str(self), self.kind)
