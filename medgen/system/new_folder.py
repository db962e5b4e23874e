"""Folders that are either whole or not there, such as cohorts and models."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medgen.errors import DataError
from medgen.system.files import REPLACED, TEMPORARY, sync_folder, unwritable
from medgen.system.modes import make_folder, umask


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; after an error those that were made here and hold nothing are removed.

    Raises:
        OSError: If it cannot be made.
    """
    made = make_folder(folder)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that holds something stays, and with it those above
            for own in made:
                own.rmdir()
        raise


@contextmanager
def new_folder(out: str | Path, replaces: str = "") -> Iterator[Path]:
    """Yield an empty temporary folder beside ``out`` that becomes ``out`` on success and is removed otherwise.

    Args:
        out: The folder.
        replaces: Name of a file: an earlier folder that holds it survives until the new one is whole, and is replaced.

    Raises:
        DataError: If ``out`` exists and is neither an empty folder nor one to be replaced, or cannot be made.
    """
    out = Path(out)
    old = bool(replaces) and (out / replaces).is_file()
    if not old and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not empty; expected a new folder; choose another one or remove it")
    try:
        with made_folder(out.parent), _temporary(out) as temporary:
            yield temporary
            temporary.chmod(0o777 & ~umask())
            if old:
                _replace(temporary, out)
            else:
                if out.exists():
                    out.rmdir()
                temporary.rename(out)
            sync_folder(out.parent)
    except OSError as error:
        raise unwritable(out, error) from error


@contextmanager
def _temporary(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that is removed unless it has become ``out``; errors name ``out`` instead."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{out.name}-", dir=out.parent))
    try:
        yield temporary
    except DataError as error:
        # The user knows the folder, not the one that would have become it.
        error.args = tuple(str(part).replace(str(temporary), str(out)) for part in error.args)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, out: Path) -> None:
    """Put ``temporary`` in the place of ``out``; the earlier one survives until the new one is there."""
    earlier = Path(tempfile.mkdtemp(prefix=f"{REPLACED}{out.name}-", dir=out.parent))
    out.rename(earlier / "earlier")
    try:
        temporary.rename(out)
    except OSError:
        (earlier / "earlier").rename(out)
        raise
    finally:
        shutil.rmtree(earlier, ignore_errors=True)
