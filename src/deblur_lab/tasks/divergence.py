"""Whether an optimizer step may be taken: on all devices alike, and at the cost of one look a step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deblur_lab.errors import DivergedError

_SHOWN = 5


class _Seen(NamedTuple):
    """What is kept of a batch until its step is taken; nothing of it is waited for."""

    samples: list[str]
    finite: Tensor
    parts: dict[str, Tensor]

    def told(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "loss_is_finite": bool(self.finite),
            "parts": {name: float(part) for name, part in self.parts.items()},
        }


class Divergence:
    """Stops training before an update by a loss or a gradient that is not finite.

    A loss that is not finite makes its whole gradient so. Where several devices add up their gradients, each
    then sees it in the sum, and no other exchange is needed: they only tell each other their samples when it
    has happened. The losses of a step and its gradient are looked at together, once, so that a GPU is waited
    for once a step.

    Args:
        max_skipped: how many steps in a row may be left out because a gradient overflowed.

    Attributes:
        skipped: steps that this process has left out so far.
        skipped_last: whether the last step was left out.
    """

    def __init__(self, max_skipped: int) -> None:
        self.max_skipped = max_skipped
        self.skipped = 0
        self.skipped_last = False
        self._in_a_row = 0
        self._seen: list[_Seen] = []

    def noted(self, loss: Tensor, parts: Mapping[str, Tensor], samples: Iterable[object]) -> Tensor:
        """Keep in mind what a batch gave.

        Args:
            loss: of the batch.
            parts: of the loss, by name.
            samples: their names.

        Returns:
            The loss to go back from: the same, with a gradient of NaN if it is not finite.
        """
        finite = loss.detach().isfinite()
        detached = {name: part.detach() for name, part in parts.items()}
        self._seen.append(_Seen([str(name) for name in samples], finite, detached))
        return loss * torch.where(finite, 1.0, math.nan).to(loss)

    def check(self, gradients: Sequence[Tensor], step: int, *, may_overflow: bool = False) -> None:
        """Look at all that a step was made from.

        Args:
            gradients: summed over the devices.
            step: optimizer steps taken so far.
            may_overflow: whether gradients were scaled up, and a step with too large ones is left out.

        Raises:
            DivergedError: the loss or the gradient is not finite; or too many steps in a row were left out.
        """
        seen, self._seen = self._seen, []
        norm = torch.nn.utils.get_total_norm(gradients)
        self.skipped_last = False
        if bool(torch.stack([norm.isfinite(), *(one.finite.to(norm.device) for one in seen)]).all()):
            self._in_a_row = 0
            return
        # Only a gradient is the same on all devices: if it is finite, the others do not come here.
        processes = _gathered([one.told() for one in seen], alone=bool(norm.isfinite()))
        at_fault = [
            (rank, batch)
            for rank, batches in processes.items()
            for batch in batches
            if not batch["loss_is_finite"]
        ]
        record = {"step": step, "processes": [{"rank": r, "batches": b} for r, b in processes.items()]}
        if at_fault:
            rank = at_fault[0][0]
            batches = [batch for other, batch in at_fault if other == rank]
            parts = ", ".join(f"{name} {value:g}" for name, value in batches[0]["parts"].items())
            where = f" (rank {rank})" if len(processes) > 1 else ""
            raise DivergedError(
                f"the loss is not finite at step {step}, on {_names(batches)}{where}: {parts}",
                {"what": "loss", "rank": rank, **record},
            )
        samples = _names([batch for batches in processes.values() for batch in batches])
        if not may_overflow:
            raise DivergedError(
                f"the gradient is not finite at step {step}, on {samples}, while the loss is",
                {"what": "gradient", **record},
            )
        self.skipped_last = True
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row > self.max_skipped:
            raise DivergedError(
                f"the gradient overflowed in {self._in_a_row} steps in a row, at last in step {step}, on "
                f"{samples}: try trainer.precision=bf16-mixed, or raise model.max_skipped_steps",
                {"what": "gradient", **record},
            )


def _gathered(told: list[dict[str, Any]], *, alone: bool) -> dict[int, list[dict[str, Any]]]:
    """What each process tells, by its rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {0: told}
    if alone:
        return {torch.distributed.get_rank(): told}
    everybody: list[list[dict[str, Any]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(everybody, told)
    return dict(enumerate(everybody))


def _names(batches: Iterable[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for batch in batches for name in batch["samples"]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
