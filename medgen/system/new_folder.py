"""Cohort folders that are either whole or not there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medgen.errors import DataError


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``out`` that becomes ``out`` on success and is removed otherwise.

    Raises:
        DataError: If ``out`` exists and is not an empty folder, or cannot be made.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not empty; expected a new folder; choose another one or remove it")
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{out.name}-", dir=out.parent))
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); check space and permissions") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
