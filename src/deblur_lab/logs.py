"""What dashboards take of a run, and what records it there."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from deblur_lab.config import build
from deblur_lab.endings import STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM
from deblur_lab.errors import ConfigurationError, UserError

if TYPE_CHECKING:
    from lightning.pytorch.loggers.logger import Logger

    from deblur_lab.pictures import Picture


Work = Literal["train", "evaluate", "report"]
"""What a run on a dashboard is of."""


@dataclass(frozen=True)
class Exhibit:
    """A test image with what was made of it.

    Attributes:
        dataset: its name.
        name: of the image.
        pictures: uint8 RGB, by what they show: blurry, restored, sharp, true_mask, mask, trajectories. The
            true mask is absent where nobody knows it, the last two where the net predicts none.
        before: scores of the blurry image, by name; NaN where there is none.
        after: scores of the restored one.
        legends: what colours and lines mean in those that are drawn over, by what they show.
    """

    dataset: str
    name: str
    pictures: Mapping[str, "Picture"]
    before: Mapping[str, float]
    after: Mapping[str, float]
    legends: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Dashboard(Protocol):
    """A logger that shows more of a run than numbers by step, and how it ended."""

    def begin(
        self,
        config: Mapping[str, Any],
        *,
        resumed: bool,
        work: Work = "train",
        of_runs: Sequence[Path] = (),
    ) -> None:
        """Begin to record a run, before its first step.

        Args:
            config: what it is, as dicts, lists, strings and numbers.
            resumed: whether it goes on with what stands in its folder.
            work: what is done.
            of_runs: the folders of the runs that it is about, beside which it is to stand.

        Raises:
            MachineError: it cannot be done in the way that was asked for.
        """
        ...

    def log_pictures(self, exhibits: Sequence[Exhibit], step: int) -> None:
        """Show test images, in the order of the datasets."""
        ...

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table of numbers and words."""
        ...

    def log_scores(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Show test scores, a dataset each, as `deblur_lab.callbacks.Scores` gathers them."""
        ...

    def log_values(self, values: Mapping[str, Any]) -> None:
        """Show numbers and words beside the run, by name."""
        ...

    def log_files(self, name: str, files: Sequence[Path]) -> None:
        """Keep files with the run; a page in HTML among them is shown."""
        ...

    def conclude(self, exit_code: int) -> None:
        """Stop recording, and say how the run ended."""
        ...


def dashboards(loggers: Iterable["Logger"]) -> list[Dashboard]:
    """Those of some loggers that are dashboards."""
    return [logger for logger in loggers if isinstance(logger, Dashboard)]


def built_dashboards(nodes: Mapping[str, Any], trusted: tuple[str, ...], work: str) -> list["Logger"]:
    """The loggers of a command that logs nothing step by step.

    Args:
        nodes: of the configuration, by name.
        trusted: packages whose classes may be built.
        work: what has no steps, in words.

    Raises:
        ConfigurationError: a logger shows only what is logged by step.
    """
    loggers: list[Logger] = []
    for name, node in nodes.items():
        logger: Logger = build(node, trusted, key=f"logger.{name}")
        if not isinstance(logger, Dashboard):
            raise ConfigurationError(
                f"logger.{name} shows what is logged step by step, and {work} has no steps: leave it out, "
                "or choose logger=wandb"
            )
        loggers.append(logger)
    return loggers


@contextlib.contextmanager
def recorded(
    loggers: Iterable["Logger"],
    config: Mapping[str, Any],
    *,
    resumed: bool = False,
    work: Work = "train",
    of_runs: Sequence[Path] = (),
    stopped: Callable[[], int] = lambda: STOPPED_BY_SIGTERM,
) -> Iterator[None]:
    """Let dashboards record what is done within, and tell them how it ended: by the exit code it leads to.

    Args:
        loggers: those that are dashboards are told.
        config: see `Dashboard.begin`.
        resumed: see `Dashboard.begin`.
        work: see `Dashboard.begin`.
        of_runs: see `Dashboard.begin`.
        stopped: the exit code of a run that was stopped, if what stopped it does not say.

    Raises:
        MachineError: see `Dashboard.begin`.
    """
    told = dashboards(loggers)
    exit_code = 1
    try:
        for dashboard in told:
            dashboard.begin(config, resumed=resumed, work=work, of_runs=of_runs)
        yield
        exit_code = 0
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) and ended.code else stopped()
        raise
    except KeyboardInterrupt:
        exit_code = STOPPED_BY_CTRL_C
        raise
    except UserError as error:
        exit_code = error.exit_code
        raise
    finally:
        for dashboard in told:
            dashboard.conclude(exit_code)
