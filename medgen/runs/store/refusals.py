"""Answers of a store that repeating cannot change, and errors in one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from medgen.errors import DataError

_LOG = logging.getLogger(__name__)

UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
# The entry stays in the journal and is passed over. The last two: an older server, which has no such thing.
FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", UNKNOWN}


def unless_refused(call: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Call; a refusal that repeating cannot change is logged, any other error is the caller's.

    Raises:
        Exception: Whatever else the store answers, or that it does not.
    """
    from mlflow.exceptions import MlflowException

    try:
        call(*arguments, **options)
    except MlflowException as error:
        if error.error_code not in FINAL:
            raise
        _LOG.warning("MLflow refused an entry: %s", short(error))


def short(error: Exception) -> str:
    """The class and the first line of an error, for a message."""
    # Addresses in messages may hold a password.
    if isinstance(error, DataError):
        return str(error)
    lines = re.sub(r"//[^/\s@]*@", "//", str(error)).strip().splitlines() or [""]
    return f"{error.__class__.__name__}: {lines[0][:200]}"
