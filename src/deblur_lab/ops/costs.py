"""What our own operations cost: multiply-adds that PyTorch's counter does not see, reported by who does them.

``torch.utils.flop_counter`` counts matrix products and convolutions, and takes what samples and gathers for
nothing. Our operations say themselves what they have just done, to whoever is counting.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


def count(name: str, multiply_adds: int) -> None:
    """Say what an operation has just cost; next to nothing where nobody counts.

    Args:
        name: of the operation, as a person would call it.
        multiply_adds: one for each product that is added up.
    """
    if torch.compiler.is_compiling():
        return  # compiled code is not counted, and would break where it looks for who counts
    counter = _counted.get()
    if counter is not None:
        counter[name] += multiply_adds


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count what our operations do meanwhile: multiply-adds by name."""
    counter: Counter[str] = Counter()
    token = _counted.set(counter)
    try:
        yield counter
    finally:
        _counted.reset(token)
