"""Take a case out of a local MLflow store: its database file, and the files beside it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

from medgen.audit.forgetting.names import Names
from medgen.errors import DataError

# Whose rows are each about one thing; in other tables a text is replaced.
_ROWS = ("tags", "params", "metrics", "latest_metrics", "input_tags", "experiment_tags")
_WAIT = 20.0
_NAME = re.compile(r"\w+")


def forget_in_database(database: Path, names: Names, changed: Mapping[str, str], kept: Collection[str] = ()) -> int:
    """Take a case out of every table of a database file, and out of the pages that are free afterwards.

    Args:
        database: The file.
        names: Of the case.
        changed: SHA-256 of files, and digests of models, as they were → as they are now, empty for files that were
            removed: tags say them.
        kept: Runs that are about other scans, whatever these are called.

    Returns:
        Number of rows that were removed or changed.

    Raises:
        DataError: If it is in use or no database.
    """
    try:
        with closing(sqlite3.connect(database, timeout=_WAIT, isolation_level=None)) as connection:
            connection.execute("pragma secure_delete = on")
            connection.execute("begin immediate")
            count = sum(
                _table(connection, table, columns, names, kept) for table, columns in _tables(connection).items()
            )
            count += _hashes(connection, changed)
            connection.execute("commit")
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.Error as error:
        raise DataError(
            f"{database}: cannot be changed ({error}); stop what uses it and run the command again"
        ) from None
    return count


def _tables(connection: sqlite3.Connection) -> dict[str, list[str]]:
    found = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
    tables = [name for (name,) in found if _NAME.fullmatch(name) and not name.startswith("sqlite_")]
    return {
        table: [
            row[1]
            for row in connection.execute(f"pragma table_info({table})")
            if "CHAR" in row[2].upper() or "TEXT" in row[2].upper() or "JSON" in row[2].upper()
        ]
        for table in tables
    }


def _table(connection: sqlite3.Connection, table: str, columns: list[str], names: Names, kept: Collection[str]) -> int:
    changed = 0
    run = "run_uuid" if "run_uuid" in columns else "''"
    for column in columns:
        for row, text, owner in connection.execute(f'select rowid, "{column}", {run} from "{table}"').fetchall():
            if owner in kept or not isinstance(text, str) or not names.within(text):
                continue
            if table in _ROWS:
                changed += connection.execute(f'delete from "{table}" where rowid = ?', (row,)).rowcount
            else:
                new = names.replaced(text)
                connection.execute(f'update "{table}" set "{column}" = ? where rowid = ?', (new, row))
                changed += 1
    return changed


def _hashes(connection: sqlite3.Connection, changed: Mapping[str, str]) -> int:
    found = connection.execute("select name from sqlite_master where type = 'table' and name like '%tags'").fetchall()
    count = 0
    for (table,) in found:
        columns = [row[1] for row in connection.execute(f'pragma table_info("{table}")')]
        for before, after in changed.items() if "value" in columns else ():
            if after:
                done = connection.execute(f'update "{table}" set value = ? where value = ?', (after, before))
            else:
                done = connection.execute(f'delete from "{table}" where value = ?', (before,))
            count += done.rowcount
    return count
