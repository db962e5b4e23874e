"""A network's passes over scans: made once for all that asks for them, and slab by slab where scans are large.

Several scores of an anomaly detector want the same features, codes and reconstruction of a scan. Between
:func:`kept` and its end, what a method marked with :func:`once` has returned for a tensor is returned again for that
tensor, to the bit. Only where no gradients are wanted: what is kept belongs to no graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from medgen.system.memory import room_for

P = ParamSpec("P")
R = TypeVar("R")

# By method and arguments; each entry holds its arguments too, so that no other tensor can take their place in memory.
_Kept = dict[tuple[Any, ...], tuple[Any, Any]]
# Results of a layer's size that a block holds at once beside its input: normalised, convolved, activated, mixed, added.
_TEMPORARIES = 5
# Planes that a slab has at least: with fewer, most of the work would be done twice.
_THINNEST = 4
# Bytes of a number in single precision, and scans that nothing goes through more of at once.
_FLOAT, _MANY = 4, 64
_KEPT: ContextVar[_Kept | None] = ContextVar("kept_passes", default=None)


@contextmanager
def kept() -> Iterator[None]:
    """Keep the passes of this thread until the block is left; an inner block keeps its own.

    >>> class Twice:
    ...     calls = 0
    ...     @once
    ...     def double(self, x):
    ...         self.calls += 1
    ...         return 2 * x
    >>> model, x = Twice(), torch.ones(2)
    >>> with torch.no_grad(), kept():
    ...     model.double(x) is model.double(x), model.calls
    (True, 1)
    >>> with torch.no_grad():
    ...     model.double(x) is model.double(x), model.calls
    (False, 3)
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method of a network that returns the same for the same tensors; see the module.

    Whoever calls it must not write into what it returns, nor into the tensors that it was given.
    """

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        # A compiler would have to break its graph to look.
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or (found := _KEPT.get()) is None:
            return method(*args, **kwargs)
        given = (*args, *kwargs.values())
        key = (method.__qualname__, *kwargs, *(_identity(item) for item in given), *_precision(given))
        if key not in found:
            found[key] = method(*args, **kwargs), given
        result: R = found[key][0]
        return result

    return wrapper


def _identity(item: Any) -> Any:
    if isinstance(item, Tensor):
        # The stride of an axis of length one says nothing.
        strides = tuple(step for step, n in zip(item.stride(), item.shape, strict=True) if n > 1)
        return item.data_ptr(), tuple(item.shape), strides, item.dtype, str(item.device)
    return item if isinstance(item, bool | int | float | str) else id(item)


def _precision(given: tuple[Any, ...]) -> tuple[Any, ...]:
    devices = {item.device.type for item in given if isinstance(item, Tensor)}
    return tuple((name, torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in sorted(devices))


def in_slabs(inside: Callable[..., Tensor], inputs: Sequence[Tensor | None], reach: int) -> Tensor:
    """``inside(*inputs)``, slab by slab along i where its intermediate results would take too much memory.

    Every slab is computed with the ``reach`` planes on either side that its voxels depend on, and cut out of that: the
    result is that of one pass, up to rounding, without seams. Only where no gradients are wanted. How much is too much
    :func:`medgen.system.memory.room_for` says.

    Args:
        inside: Layers of which no output depends on inputs more than ``reach`` planes away.
        inputs: (b, c, i, j, k) each, or None. The first has the output's size; those with half of its i are at half
            the resolution, and ``reach`` must then be even.
        reach: Planes of the output.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return inside(*inputs)
    given = [own for own in inputs if own is not None]
    planes = given[0].shape[2]
    factors = [planes // own.shape[2] for own in given]
    needed = _TEMPORARIES * max(
        factor**3 * own.numel() * own.element_size() for factor, own in zip(factors, given, strict=True)
    )
    if (room := room_for(needed, given[0].device)) == needed:
        return inside(*inputs)
    coarsest = max(factors)
    step = coarsest * (max(planes * room // needed - 2 * reach, _THINNEST) // coarsest)
    made: Tensor | None = None
    for start in range(0, planes, step):
        end = min(start + step, planes)
        first, last = max(start - reach, 0), min(end + reach, planes)
        slab = inside(*(None if own is None else _planes(own, planes, first, last) for own in inputs))
        if made is None:
            innermost = slab.is_contiguous(memory_format=torch.channels_last_3d)
            made = torch.empty(
                (*slab.shape[:2], planes, *slab.shape[3:]),
                dtype=slab.dtype,
                device=slab.device,
                memory_format=torch.channels_last_3d if innermost else torch.contiguous_format,
            )
        made[:, :, start:end] = slab[:, :, start - first : start - first + end - start]
    return inside(*inputs) if made is None else made


def scans_at_once(channels: int, shape: Sequence[int], device: torch.device) -> int:
    """Scans that go through a network together, by channels and size (i, j, k) of its finest layer; at least one.

    As many as take a quarter of :func:`medgen.system.memory.room_for` a layer: fewer than would fit, for what stays in
    a processor's cache is worked on faster.
    """
    one = _TEMPORARIES * channels * math.prod(shape) * _FLOAT
    return max(1, room_for(_MANY * one, device) // (4 * one))


def _planes(x: Tensor, planes: int, first: int, last: int) -> Tensor:
    """Of x the part that planes ``first`` to ``last`` of a grid with so many planes cover."""
    factor = planes // x.shape[2]
    return x[:, :, first // factor : last // factor]
