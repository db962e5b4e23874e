"""The registered models of a store, found by what people call them: a run's folder, a version, an alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.errors import ConfigError, DataError
from medgen.runs.journal import NAME, chosen_store, store_uri
from medgen.runs.store.mlflow_store import connect, database, is_sqlite
from medgen.runs.store.registry import Version, find, made_by
from medgen.runs.tracking import last_run


@dataclass(frozen=True, eq=False)
class Registry:
    """The models of one store.

    Attributes:
        client: ``MlflowClient`` of the store.
    """

    client: Any

    @classmethod
    def of(cls, called: Sequence[str], store: str | None = None) -> Registry:
        """The store named, else ``MLFLOW_TRACKING_URI``, else that of the first run folder, else ``runs/mlflow.db``.

        Args:
            called: What models are called.
            store: A database file or an address.

        Raises:
            DataError: If it is a database file that is not there.
        """
        folders = [Path(name) for name in called if (Path(name) / NAME).is_file()]
        if store is not None:
            uri = store if "://" in store else f"sqlite:///{Path(store).resolve().as_posix()}"
        else:
            uri = chosen_store() or store_uri(folders[0] if folders else Path("runs") / "any")
        if is_sqlite(uri) and not database(uri).is_file():
            raise DataError(f"{database(uri)}: no such MLflow store; name it by --store or MLFLOW_TRACKING_URI")
        return cls(connect(uri))

    def version(self, called: str) -> Version:
        """The version that is meant.

        Args:
            called: Folder of a run, ``NAME/NUMBER`` or ``NAME@ALIAS``.

        Raises:
            ConfigError: If a run has made several models, or nothing is called so.
            DataError: If it is not in the store.
        """
        folder = Path(called)
        if not (folder / NAME).is_file():
            return find(self.client, called)
        found = made_by(self.client, (last_run(folder) or {}).get("medgen.run", ""), called)
        if len(found) > 1:
            names = ", ".join(sorted(map(str, found)))
            raise ConfigError(f"{called}: the run has made several models; name one of them: {names}")
        return found[0]
