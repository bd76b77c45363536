"""A bar on standard error, for commands whose worker processes should not load what draws it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Says that steps were done."""

    def __call__(self, steps: float = 1) -> None:
        """Move on by so many."""
        ...


@contextmanager
def progress_bar(
    title: str, total: int, *, in_percent: bool = False, is_shown: bool = True
) -> Iterator[Advance]:
    """Show how far some work is, while it lasts, if standard error is a terminal.

    Args:
        title: What is being done.
        total: How many steps there are.
        in_percent: Tell percent, and not the number of steps.
        is_shown: Whether to show anything.

    Yields:
        What to call when steps were done.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    count = TaskProgressColumn() if in_percent else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    console = Console(stderr=True)
    disable = not (is_shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task(title, total=total)

        def advance(steps: float = 1) -> None:
            bar.advance(task, steps)

        yield advance
