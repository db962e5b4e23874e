"""A network's passes over the same scans, made once for all that asks for them.

Several scores of an anomaly detector want the same features, codes and reconstruction of a scan. Between
:func:`kept` and its end, what a method marked with :func:`once` has returned for a tensor is returned again for that
tensor, to the bit. Only where no gradients are wanted: what is kept belongs to no graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

# By method and arguments; each entry holds its arguments too, so that no other tensor can take their place in memory.
_Kept = dict[tuple[Any, ...], tuple[Any, Any]]
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
