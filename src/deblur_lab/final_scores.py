"""What is measured when a training ends: restored pictures by protocol, or what another task measures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
from lightning.pytorch.callbacks import Callback

from deblur_lab.callbacks import Converter, Measures, NetCost, Pictures, Scores
from deblur_lab.console import print_measures, print_scores
from deblur_lab.dashboard_values import cost_values
from deblur_lab.data.made_up import MADE_UP
from deblur_lab.logs import dashboards
from deblur_lab.stage_table import means_of

_TEST = "test/"


class FinalScores(Protocol):
    """What is measured when a training ends.

    Attributes:
        file: where it is written.
        callbacks: that measure it; validations as well.
    """

    file: Path
    callbacks: Sequence[Callback]

    def add(self, about: Mapping[str, Any]) -> None:
        """Put more beside what is measured: what is known only when the data were looked through."""
        ...

    def show(self, trainer: L.Trainer) -> None:
        """Print it, and show it on dashboards."""
        ...

    def means(self) -> Mapping[str, float]:
        """The numbers of the last test, by name; none before."""
        ...


class RestoredScores:
    """Scores of restored pictures by their datasets' protocols; and pictures laid out.

    Args:
        folder: the run's.
        about: what stands beside the scores.
        patch_size_px: side of the training patches.
        pictures: how many are laid out.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], patch_size_px: int, pictures: int) -> None:
        converter = Converter(patch_size_px)
        self._scores = Scores(converter, folder, about)
        self.file = folder / "scores.json"
        self.callbacks: Sequence[Callback] = (
            NetCost(self._scores.about),
            converter,
            self._scores,
            Pictures(folder / "pictures", pictures, self._scores),
        )

    def add(self, about: Mapping[str, Any]) -> None:
        """Put more beside the scores."""
        self._scores.about |= about

    def show(self, trainer: L.Trainer) -> None:
        """Print the scores, and show them on dashboards."""
        print_scores(self._scores.results)
        for dashboard in dashboards(trainer.loggers):
            dashboard.log_scores(self._scores.results)
            dashboard.log_values(cost_values(self._scores.about))

    def means(self) -> Mapping[str, float]:
        """The means of the last test; with several datasets, the first one's have the plain names."""
        return means_of(self._scores.results)


class MeasuredScores:
    """What a task that restores no pictures measures by itself.

    Args:
        folder: the run's.
        about: what stands beside the measures.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._measures = Measures(folder, about)
        self.file = folder / "measures.json"
        self.callbacks: Sequence[Callback] = (self._measures,)

    def add(self, about: Mapping[str, Any]) -> None:
        """Put more beside the measures."""
        self._measures.about |= about

    def show(self, trainer: L.Trainer) -> None:
        """Print the measures; dashboards have them from Lightning."""
        print_measures(self._measures.results)

    def means(self) -> Mapping[str, float]:
        """The measures of the last test, without those of the validation before it."""
        results = self._measures.results.items()
        return {name.removeprefix(_TEST): value for name, value in results if name.startswith(_TEST)}


def trained_on(datamodule: L.LightningDataModule) -> list[str]:
    """The names of the datasets that a training takes its samples from, once they were looked through.

    Those whose training pictures are made up say so: no score of theirs stands beside a published one.
    """
    names = []
    for source in getattr(datamodule, "sources", ()):
        made_up = getattr(source.scenes("train"), "made_up", False)
        names.append(f"{source.name}{MADE_UP}" if made_up else source.name)
    return names
