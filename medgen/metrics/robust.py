"""The spread of values of which some are not like the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Of a normal distribution: standard deviation over median absolute deviation.
TO_SD = 1.4826


def robust_spread(values: ArrayLike, axis: int | None = None, centre: float | None = None) -> Any:
    """Standard deviation by the median absolute deviation, 1.4826 MAD (Rousseeuw and Croux, JASA 1993).

    Args:
        values: Finite numbers.
        axis: Along which; None takes all together.
        centre: From which deviations are taken; their median by default.

    Returns:
        A float, or an array where ``axis`` is given.

    >>> round(robust_spread([1.0, 2.0, 3.0, 4.0, 100.0]), 4)
    1.4826
    """
    data: NDArray[Any] = np.asarray(values)
    middle = np.median(data, axis=axis, keepdims=axis is not None) if centre is None else centre
    spread = TO_SD * np.median(np.abs(data - middle), axis=axis)
    return spread if axis is not None else float(spread)
