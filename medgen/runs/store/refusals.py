"""Answers of a store that repeating cannot change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from medgen.runs.store.faults import about_the_store, sentence

_LOG = logging.getLogger(__name__)

UNKNOWN = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
# The entry stays in the journal and is passed over. The last two: an older server, which has no such thing.
FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", UNKNOWN}


def unless_refused(
    call: Callable[..., object], *arguments: Any, check: Callable[[Exception], None] | None = None, **options: Any
) -> None:
    """Call; a refusal that repeating cannot change is logged, any other error is the caller's.

    Args:
        call: What is called.
        arguments: With what.
        check: Raises where a refusal is not the entry's fault but the store's.
        options: With what, by name.

    Raises:
        Exception: Whatever else the store answers, or that it does not.
    """
    from mlflow.exceptions import MlflowException

    try:
        call(*arguments, **options)
    except MlflowException as error:
        if error.error_code not in FINAL or about_the_store(error):
            raise
        if check is not None:
            check(error)
        _LOG.warning("MLflow refused an entry: %s", sentence(error))
