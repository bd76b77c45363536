"""The record that synthetic datasets carry, so that scores on them are never taken for those on real ones."""

import json
import os
from pathlib import Path
from typing import Any

from deblur_lab.errors import DataError
from deblur_lab.images import quoted

RECORD_NAME = "synthetic.json"
MADE_UP = " (made up)"
"""What stands behind the name of data that were made here, and that no published number is of."""


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `data.synthesize` wrote of a dataset, which `synthesize.record_of` describes.

    Args:
        folder: The dataset's folder, or one below it that holds a part of it.

    Returns:
        The record; None where there is none, in `folder` or above it, that speaks of this folder.

    Raises:
        DataError: There is one, and it cannot be read.
    """
    part = None
    # A part of a dataset may be given by itself, as `test/` of one that holds `{input,target}`.
    for above in (folder, *folder.parents[:2]):
        path = above / RECORD_NAME
        if os.path.isfile(path):
            record = _read(path)
            return record if part is None or part in record.get("holds", ()) else None
        part = above.name
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{quoted(path)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{quoted(path)} is damaged: write the dataset anew by data.synthesize") from error
    if not isinstance(record, dict):
        raise DataError(f"{quoted(path)} is damaged: write the dataset anew by data.synthesize")
    return record
