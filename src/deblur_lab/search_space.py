"""What a search goes through: settings of several values, in Hydra's grammar, as Optuna's distributions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from deblur_lab.errors import ConfigurationError

if TYPE_CHECKING:
    import optuna


_INNER = 0.382  # of a range


@dataclass(frozen=True)
class Dimension:
    """The values of one setting.

    Attributes:
        key: of the setting, with its ``+`` if it was typed so.
        choices: as they are typed; empty for a range of numbers.
        low: the least number.
        high: the greatest, included.
        step: between numbers; None: all are meant.
        log: whether ratios count, not differences.
        whole: whether they are whole numbers.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    def setting(self, value: Any) -> str:  # noqa: ANN401 - Optuna's
        """A value as it is typed; six digits of a number.

        >>> Dimension("lr", low=1e-4, high=1e-2).setting(0.00123456789)
        'lr=0.00123457'
        """
        if self.choices:
            return f"{self.key}={value}"
        return f"{self.key}={int(value)}" if self.whole else f"{self.key}={value:.6g}"

    def samples(self) -> list[str]:
        """Values by which it can be told whether all will do: each choice, or three numbers."""
        if self.choices:
            return [self.setting(value) for value in self.choices]
        inner = self.low + _INNER * (self.high - self.low)  # is whole where only whole numbers are meant
        inner = self.low if self.whole or self.step is not None else inner
        return list(dict.fromkeys(self.setting(value) for value in (self.low, inner, self.high)))

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """Optuna's."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def space_of(overrides: Sequence[Override]) -> tuple[list[Dimension], list[str]]:
    """What is searched: the settings of several values.

    Args:
        overrides: all settings, as they were typed.

    Returns:
        The dimensions in this order, and a line for each setting that is none.
    """
    space, found = [], []
    for override in overrides:
        if override.is_sweep_override():
            try:
                space.append(_dimension(override))
            except ConfigurationError as error:
                found.append(str(error))
    if not space and not found:
        found.append(
            "hydra/sweeper=optuna: nothing is searched: give a setting several values, as "
            "'model.optimizer.lr=tag(log,interval(1e-4,1e-2))' or 'model.net.width=16,32'"
        )
    return space, found


def _dimension(override: Override) -> Dimension:
    key, typed, value = override.get_key_element(), override.input_line, override.value()
    tags = value.tags if isinstance(value, ChoiceSweep | IntervalSweep | RangeSweep) else set()
    unknown = sorted(tags - {"log"})
    if unknown:
        raise ConfigurationError(f"{typed}: there is no tag {', '.join(unknown)}: there is log")
    log = "log" in tags
    if isinstance(value, ChoiceSweep):
        if log:
            raise ConfigurationError(f"{typed}: log goes with interval(low,high)")
        choices = tuple(dict.fromkeys(_lowered(each) for each in override.sweep_string_iterator()))
        if len(choices) < 2:
            raise ConfigurationError(f"{typed}: two values at least are expected")
        return Dimension(key, choices)
    if isinstance(value, IntervalSweep | RangeSweep):
        is_range = isinstance(value, RangeSweep)
        end = value.stop if isinstance(value, RangeSweep) else value.end
        numbers = (value.start, end, value.step if isinstance(value, RangeSweep) else 1)
        if all(number is not None for number in numbers):
            low, high, step = (float(number) for number in numbers if number is not None)
            whole = all(isinstance(number, int) for number in numbers)
            if is_range and step > 0:  # its stop is excluded, as Python's
                high = low + step * (math.ceil(round((high - low) / step, 9)) - 1)
            if low < high and step > 0 and (low > 0 or not log) and not (log and is_range):
                return Dimension(key, (), low, high, step if is_range else None, log, whole)
        positive = "0 < low < high" if log else "low < high"
        raise ConfigurationError(
            f"{typed}: tag(log,interval(low,high)) or interval(low,high) with {positive} is expected, or "
            "range(low,stop,step)"
        )
    raise ConfigurationError(f"{typed}: values, interval(low,high) or range(low,stop,step) are expected")


def _lowered(value: str) -> str:
    """A value of a sweep as a person writes it: Hydra has True for true."""
    return value.lower() if value in ("True", "False") else value


def samples(space: Sequence[Dimension]) -> list[list[str]]:
    """Settings of a few trials in which each choice, and each end of a range, is met once at least."""
    by_key = [dimension.samples() for dimension in space]
    count = max(map(len, by_key), default=0)
    return [[values[number % len(values)] for values in by_key] for number in range(count)]
