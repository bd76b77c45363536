"""The log that every run keeps: one CSV file that a resumed run goes on with."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from deblur_lab.writing import replacing, writing


class MetricsFile(Logger):
    """Writes what is logged to a CSV file, a row a step.

    Lightning's ``CSVLogger`` deletes the file when a run is resumed. This one keeps the rows up to the
    step that the run goes on from, so that the file tells one story.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._columns = ["step"]
        self._rows: dict[int, dict[str, str]] = {}

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Read back the rows of the first `step` optimizer steps, which count from 0; forget later ones."""
        if not self._path.exists():
            return
        with self._path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["step"].isdigit() and int(row["step"]) < step:
                    self._add(int(row["step"]), {key: value for key, value in row.items() if value and key})
        self._rewrite()

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row, or to the row of this step."""
        at = 0 if step is None else step
        columns = len(self._columns)
        known = at in self._rows
        # Six digits tell all that a curve can show, and a file of 400,000 steps stays small.
        self._add(at, {key: f"{value:.6g}" for key, value in metrics.items() if key != "epoch"})
        if known or len(self._columns) != columns or not self._path.exists():
            self._rewrite()
        else:
            with writing(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns, restval="").writerow(self._rows[at])

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: ``config.yaml`` holds them."""

    def _add(self, step: int, values: dict[str, str]) -> None:
        self._columns += [key for key in values if key not in self._columns]
        self._rows.setdefault(step, {"step": str(step)}).update(values)

    def _rewrite(self) -> None:
        with replacing(self._path, newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows[step] for step in sorted(self._rows))
