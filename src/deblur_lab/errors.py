"""The mistakes that a user can make, each with the exit code of the commands that meet it."""

from collections.abc import Mapping
from typing import Any, ClassVar


class UserError(ValueError):
    """A mistake that its message, one line, lets the user mend: what, where, and what to do."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(UserError):
    """A setting that is unknown, of the wrong type or out of range; names its full key."""

    exit_code: ClassVar[int] = 2


class DataError(UserError):
    """Pictures or folders that cannot be used; names the files."""

    exit_code: ClassVar[int] = 3


class CheckpointError(UserError):
    """A checkpoint that cannot be read or does not fit; names the file."""

    exit_code: ClassVar[int] = 4


class MachineError(UserError):
    """What this machine lacks: a folder that can be written, disk space, memory, a package."""

    exit_code: ClassVar[int] = 5


class DivergedError(UserError):
    """Training met a loss or a gradient that is not finite; names the step and the samples.

    Args:
        message: the line.
        record: all that is known of the step, as plain containers.
    """

    exit_code: ClassVar[int] = 6

    def __init__(self, message: str, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.record = dict(record or {})
