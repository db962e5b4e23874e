"""MLflow imported as a run needs it: quietly, and patient for no longer than a run can wait."""

from __future__ import annotations

import os
import warnings

from medgen.runs.store import database as database_store

# A server that does not answer must not hold a run up: MLflow's own defaults wait 247 s for one metric.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def import_mlflow(uri: str) -> None:
    """Import what a store needs, quietly, with time-outs that fit a run which must not wait."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Else the end of every stage puts two lines between what a command prints.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # What goes wrong is told in one sentence by the caller; MLflow's own way is a traceback with statements and paths.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # MLflow's own use of deprecated SQLAlchemy options is no news to the user; the mappers warn once, here.
        warnings.simplefilter("ignore")
        import mlflow.tracking

        if uri.startswith("sqlite:") or database_store.is_database(uri):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
            from sqlalchemy.orm import configure_mappers

            configure_mappers()
