"""Whether the store of runs can be used, before anything depends on it: what ``medgen doctor`` says."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from medgen.errors import DataError
from medgen.runs import database_store, journal
from medgen.runs.mlflow_store import answers, database, is_sqlite
from medgen.runs.store_faults import sentence


def look_at_store(out: Path) -> tuple[str, str]:
    """Ask the store of a run folder; nothing is made there.

    Args:
        out: The run folder, which need not exist.

    Returns:
        What was found, to be put behind the store's address; and what is wrong and what to do, empty if nothing is.
    """
    uri = journal.store_uri(out)
    if is_sqlite(uri) and not database(uri).exists():
        return "", _unwritable(database(uri).parent)
    try:
        if is_sqlite(uri):
            fault = _unwritable(database(uri)) or _unwritable(database(uri).parent)
            return _of_database(uri) if not fault else ("", fault)
        return _of_database(uri) if database_store.is_database(uri) else _of_server(uri)
    except Exception as error:  # whatever a driver or a client raises
        return "", f"{sentence(error)}; until then runs keep what they have to say in their journal"


def _unwritable(path: Path) -> str:
    while not path.exists():
        path = path.parent
    if os.access(path, os.W_OK):
        return ""
    return f"{path} may only be read: let this user write to it, or name another store in MLFLOW_TRACKING_URI"


def _of_database(uri: str) -> tuple[str, str]:
    with database_store.reached(uri) as connection:
        if not database_store.check_version(connection):
            return ", empty: the first run sets it up", ""
    answers(uri)
    return ", answers", ""


def _of_server(uri: str) -> tuple[str, str]:
    there, here = answers(uri), metadata.version("mlflow")
    if there.partition(".")[0] != here.partition(".")[0]:
        raise DataError(f"the server is MLflow {there}, here is {here}; bring both to the same first number")
    return f", answers, MLflow {there}", ""
