"""What a pass through a net costs: multiply-adds, counted from what runs, each kind under its name.

PyTorch's counter sees convolutions, matrix products and attention; transforms are added to it here; what our
own operations sample and gather they say themselves (`deblur_lab.ops.costs`).

Counted is one multiply-add for each product that is added up, be it added in the same instruction or not.
Not counted is what is done to each number alone: norms, gates, activations, scales, biases, averages, and the
padding and copying between layers. With it a count would depend on how a layer is written down.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from deblur_lab.ops.costs import counting

CONVOLUTION = "convolution"
MATRIX_PRODUCT = "matrix product"
ATTENTION = "attention product"
TRANSFORM = "Fourier transform"

_aten = torch.ops.aten
Result = TypeVar("Result")


def counted(run: Callable[[], Result]) -> tuple[Result, dict[str, int]]:
    """Run something, and count.

    A Fourier transform of N numbers along sides of n pixels in all is counted as the fast algorithm for
    powers of two, N / 2 * log2(n) butterflies of one complex product (four multiply-adds): 2 N log2(n), and
    half of it where what goes in or comes out is real.

    Args:
        run: what is counted; without gradients.

    Returns:
        What it returned, and multiply-adds by name, without those of which there are none.
    """
    with FlopCounterMode(display=False, custom_mapping=dict(_FORMULAS)) as of_torch, counting() as of_ours:
        result = run()
    counts = dict.fromkeys((CONVOLUTION, MATRIX_PRODUCT, ATTENTION, TRANSFORM), 0)
    for operation, flops in of_torch.get_flop_counts().get("Global", {}).items():
        # To PyTorch a product and its sum are two.
        counts[_name(str(operation))] += flops // 2
    for name, multiply_adds in of_ours.items():
        counts[name] = counts.get(name, 0) + multiply_adds
    return result, {name: count for name, count in counts.items() if count}


def counted_by_gradients(run: Callable[[], object]) -> tuple[int, int]:
    """Run something, and count what gradients pass through, and what none does, apart.

    Args:
        run: what is counted; with gradients, which need not be asked for of anything.

    Returns:
        The multiply-adds of operations whose results carry gradients, and of those whose results carry none:
        of frozen parts that nothing trained lies before.
    """
    with FlopCounterMode(display=False, custom_mapping=dict(_FORMULAS)) as of_torch, counting() as of_ours:

        def total() -> int:
            return int(of_torch.get_total_flops()) // 2 + sum(of_ours.values())

        with _WithoutGradients(total) as watch:
            run()
        return total() - watch.multiply_adds, watch.multiply_adds


class _WithoutGradients(TorchFunctionMode):
    """Adds up what operations take whose results carry no gradient.

    Args:
        total: the multiply-adds until now.
    """

    def __init__(self, total: Callable[[], int]) -> None:
        super().__init__()
        self._total = total
        self._switched_off = not torch.is_grad_enabled()
        self._unsettled = 0  # of operations of our own, whose inner results carry no gradients anyhow
        self.multiply_adds = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - PyTorch's signature
        """PyTorch's."""
        before = self._total()
        settles = torch.is_grad_enabled() and self._unsettled > 0
        if settles and any(isinstance(one, torch.Tensor) for one in args):
            # The first that is done with what such an operation has returned.
            self.multiply_adds += 0 if _carry_gradients(args) else self._unsettled
            self._unsettled = 0
        result = func(*args, **(kwargs or {}))
        took = self._total() - before
        if func is torch._C._set_grad_enabled:
            self._switched_off = not args[0]
        if not torch.is_grad_enabled() and not self._switched_off:  # inside of an operation of our own
            self._unsettled += took
        elif not _carry_gradients(result if isinstance(result, list | tuple) else (result,)):
            self.multiply_adds += took
        return result


def _carry_gradients(values: Sequence[object]) -> bool:
    return any(value.requires_grad for value in values if isinstance(value, torch.Tensor))


def _name(operation: str) -> str:
    """What an operation of PyTorch's is counted under."""
    if "fft" in operation:
        return TRANSFORM
    if "conv" in operation:
        return CONVOLUTION
    return ATTENTION if "bmm" in operation or "attention" in operation else MATRIX_PRODUCT


def _transform_flops(numbers: int, shape: Sequence[int], sides: Sequence[int], parts: int) -> int:
    """Twice the multiply-adds of a transform; `parts` is 2 of complex numbers, 1 where one end is real."""
    length = math.prod(shape[side] for side in sides)
    return round(2 * parts * numbers * math.log2(length)) if length > 1 else 0


def _of_real(shape: Sequence[int], sides: Sequence[int], *_: Any, **__: Any) -> int:  # noqa: ANN401
    return _transform_flops(math.prod(shape), shape, sides, 1)


def _to_real(
    _: Sequence[int],
    sides: Sequence[int],
    *__: Any,  # noqa: ANN401
    out_shape: Sequence[int],
    **___: Any,  # noqa: ANN401
) -> int:
    return _transform_flops(math.prod(out_shape), out_shape, sides, 1)


def _of_complex(shape: Sequence[int], sides: Sequence[int], *_: Any, **__: Any) -> int:  # noqa: ANN401
    return _transform_flops(math.prod(shape), shape, sides, 2)


def _of_attention(
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *_: Any,  # noqa: ANN401
    **__: Any,  # noqa: ANN401
) -> int:
    flops: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return flops


# By operation: from the shapes of what goes in (and comes out) to twice the multiply-adds.
_FORMULAS: Mapping[Any, Callable[..., int]] = {
    _aten._fft_r2c: _of_real,
    _aten._fft_c2r: _to_real,
    _aten._fft_c2c: _of_complex,
    # Which PyTorch's counter leaves out.
    _aten._scaled_dot_product_flash_attention_for_cpu: _of_attention,
    _aten._scaled_dot_product_fused_attention_overrideable: _of_attention,
}
