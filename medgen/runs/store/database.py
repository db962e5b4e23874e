"""A database that MLflow is given without a server: reached within seconds, set up by one process, of a known version.

MLflow itself tries a database that refuses a password for a hundred seconds, lets two processes set up the same new one
at once, and advises to upgrade also where the database is newer than the program.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

# Seconds in which a database takes a connection or is not there.
_PATIENCE = 5
# The advisory lock of PostgreSQL that processes hold which set MLflow's tables up: any number that others do not use.
_LOCK = 0x6D6564_67656E


def is_database(uri: str) -> bool:
    """Whether a store is a database that is reached through a network.

    >>> is_database("postgresql://host/mlflow"), is_database("sqlite:///a.db"), is_database("https://host")
    (True, False, False)
    """
    return uri.partition("://")[0].partition("+")[0] in ("postgresql", "mysql", "mssql")


@contextmanager
def reached(uri: str) -> Iterator[Connection]:
    """Connect to a database.

    Raises:
        Exception: What SQLAlchemy or the driver raises; :func:`~medgen.runs.store.faults.sentence` knows them.
    """
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    patience: dict[str, Any] = {}
    if uri.startswith("postgresql") and "connect_timeout" not in uri:
        patience = {"connect_args": {"connect_timeout": _PATIENCE}}
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool, **patience)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Be the only process that opens a database, which MLflow sets up if it is empty.

    Raises:
        DataError: If its tables are of another version of MLflow.
        Exception: As :func:`reached`.
    """
    import sqlalchemy

    with reached(uri) as connection:
        # Most often the tables are there, and nobody has to wait for anybody.
        ready = False
        with suppress(DataError):
            ready = check_version(connection)
        if ready:
            yield
            return
        if connection.dialect.name == "postgresql":
            # Given back when the connection is closed, however this process ends.
            connection.execute(sqlalchemy.text("select pg_advisory_lock(:key)"), {"key": _LOCK})
        # Another process may have been at it, or the tables are of another version for good.
        check_version(connection)
        yield


def check_version(connection: Connection) -> bool:
    """Compare the version of MLflow's tables in a database with that of the MLflow installed here.

    Returns:
        Whether there are all tables; an empty database is fine.

    Raises:
        DataError: If they are of another version: which is the older one, and what to do.
    """
    import sqlalchemy

    if not sqlalchemy.inspect(connection).has_table("experiments"):
        return False
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    # Found without importing it: only mlflow_store knows MLflow.
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None:
        raise DataError("MLflow is not installed; install medgen again")
    here = metadata.version("mlflow")
    scripts = ScriptDirectory(str(Path(package.origin).parent / "store" / "db_migrations"))
    found, wanted = MigrationContext.configure(connection).get_current_revision(), scripts.get_current_head()
    if found in (None, wanted):
        return found == wanted
    try:
        known = scripts.get_revision(found) is not None
    except CommandError:
        known = False
    if known:
        raise DataError(
            f"the database is of an older MLflow (schema {found}; MLflow {here} here wants {wanted}); "
            "make a backup of it and run mlflow db upgrade with its address"
        )
    raise DataError(
        f"the database is of a newer MLflow (schema {found}, which MLflow {here} here does not know); "
        "install the newer MLflow here, or send the run through the server"
    )
