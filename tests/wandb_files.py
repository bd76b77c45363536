"""What W&B leaves in a run's folder, read back; and an environment in which nobody is logged in."""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32768


def logged_out(home: Path, **more: str) -> dict[str, str | None]:
    """Changes to the environment that hide account, settings and home of whoever runs the tests."""
    home.mkdir(exist_ok=True)
    hidden = {name: None for name in os.environ if name.startswith("WANDB_")}
    return {**hidden, "HOME": str(home), "NETRC": str(home / "netrc"), "WANDB_CONFIG_DIR": str(home), **more}


@dataclass
class Recorded:
    """One part of a run, as it was written for uploading.

    Attributes:
        run: ``run_id``, ``project``, ``display_name``, ... as given.
        config: the configuration.
        axes: which logged number others are drawn over, by the pattern of their names.
        rows: what was logged, in order.
        summary: the last of each value, and what was put beside the run.
        files: for uploading, by their names in tables.
        exit_code: of the run; None if it was not closed.
    """

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    exit_code: int | None = None

    def table(self, key: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a table."""
        contents = json.loads(self.files[f"{key}.table.json"].read_text(encoding="utf-8"))
        return contents["columns"], contents["data"]


def recorded(part: Path) -> Recorded:
    """What stands in the transaction log of a part."""
    (log,) = part.glob("*.wandb")
    found = Recorded()
    for record in _records(log.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "metric" and record.metric.step_metric:
            found.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "history":
            found.rows.append(_values(record.history.item))
        elif kind == "summary":
            found.summary.update(_values(record.summary.update))
        elif kind == "artifact":
            for item in record.artifact.manifest.contents:
                found.files[item.path] = Path(item.local_path)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return values


def _records(log: bytes) -> Iterator[Any]:
    """The records of a log: LevelDB's format after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert log[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(log):
        left = _BLOCK - position % _BLOCK
        if left < 7:  # the rest of a block is filled up
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", log[position : position + 7])
        piece = log[position + 7 : position + 7 + length]
        position += 7 + length
        first, last = kind in (1, 2), kind in (1, 4)
        whole = piece if first else whole + piece
        if last:
            record = Record()
            record.ParseFromString(whole)
            yield record
