"""Take a case out of one file: out of tables and records as rows and entries, else by removing the file."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from medgen.audit.forgetting.names import Names
from medgen.errors import DataError
from medgen.system import files

Done = Literal["kept", "edited", "removed", "left"]

_TEXT = (".md", ".txt", ".yaml", ".yml", ".tsv", ".mrml", ".itksnap", ".diff", ".xml", ".fcsv")
_PICTURES = (".png", ".gif", ".svg", ".jpg", ".jpeg", ".webp")
# By these keys and columns a record or a row is about one case.
_IDENTITY = ("case", "scan", "id", "subject", "participant_id", "name", "file", "image", "mask", "parent", "source")
_REPORT = "report.html"
_NOTICE = (
    "<!doctype html><meta charset='utf-8'><title>medgen: report removed</title>"
    "<p>This report was removed, since it showed a case that has been forgotten (medgen audit forget). "
    "Its numbers are in metrics.json and in the tables beside it; what was removed is in forgotten.json.</p>\n"
)
# Larger than any text or record of a run.
_LIMIT = 256 << 20
# Of what was compressed: more than this is not unpacked to look for a name.
_UNPACKED = 1 << 30


def take_out(path: Path, name: str, names: Names, *, model: bool, others: bool) -> Done:
    """Take a case out of a file.

    Args:
        path: The file.
        name: Its path below the run.
        names: Of the case.
        model: Whether it belongs to a model: numbers in it stay as they are, and names get the alias, since their place
            may mean something.
        others: Whether it is about another case alone, so that a picture or page in it does not show this one.

    Returns:
        What came of it; ``left`` if a file of a model still names the case.
    """
    if model:
        return _out_of_model(path, names)
    if names.about(name):
        return _removed(path)
    kind = path.suffix.lower()
    if kind == ".csv":
        return _out_of_table(path, names)
    if kind == ".json":
        return _out_of_json(path, names)
    if kind in (".html", *_PICTURES) and not others:
        if path.name != _REPORT:
            return _removed(path)
        if files.read_text(path, _LIMIT) == _NOTICE:
            return "kept"
        files.write_text(path, _NOTICE)
        return "edited"
    if kind in _TEXT:
        return _out_of_text(path, names)
    return _removed(path) if named_in(path, names) else "kept"


def named_in(path: Path, names: Names) -> bool:
    """Whether a file names the case, also where it is compressed (gzip, zip)."""
    return any(names.within_bytes(content) for content in _contents(path))


def _contents(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(BytesIO(content)) as packed:
                yield packed.read(_UNPACKED)
        except (OSError, EOFError, zlib.error):
            return
    elif content[:2] == b"PK":
        try:
            with zipfile.ZipFile(BytesIO(content)) as archive:
                for member in archive.infolist():
                    yield member.filename.encode()
                    if member.file_size <= _UNPACKED:
                        yield archive.read(member)
        except (zipfile.BadZipFile, OSError, zlib.error, NotImplementedError):
            return


def without(value: Any, names: Names) -> Any:
    """Plain data without the entries that are about a case; where a text merely names it, with the alias."""
    if isinstance(value, dict):
        return {key: without(item, names) for key, item in value.items() if not names.about(str(key))}
    if isinstance(value, list):
        return [without(item, names) for item in value if not _is_about(item, names)]
    return names.replaced(value) if isinstance(value, str) else value


def aliased(value: Any, names: Names) -> Any:
    """Plain data with the alias wherever a case was named."""
    if isinstance(value, dict):
        return {names.replaced(key): aliased(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [aliased(item, names) for item in value]
    return names.replaced(value) if isinstance(value, str) else value


def write_again(path: Path, before: Any, after: Any) -> None:
    """Write a record; one that stated a digest of all that it says states the new one."""
    if isinstance(before, dict) and "sha256" in before and files.seal_holds(before):
        after = files.sealed({key: value for key, value in after.items() if key != "sha256"})
    files.write_json(path, after)


def _is_about(item: Any, names: Names) -> bool:
    if isinstance(item, str):
        return names.about(item)
    return isinstance(item, dict) and any(
        isinstance(item.get(key), str) and names.about(item[key]) for key in _IDENTITY if key in item
    )


def _removed(path: Path) -> Done:
    path.unlink()
    return "removed"


def _out_of_model(path: Path, names: Names) -> Done:
    if path.suffix == ".json":
        before = files.read_json(path)
        after = aliased(before, names)
        if after == before:
            return "kept"
        write_again(path, before, after)
        return "edited"
    return "left" if named_in(path, names) else "kept"


def _out_of_json(path: Path, names: Names) -> Done:
    try:
        before = files.read_json(path)
    except DataError:
        return _removed(path) if named_in(path, names) else "kept"
    after = without(before, names)
    if isinstance(after, dict) and "numTraining" in after and (path.parent / "labelsTr").is_dir():
        # nnU-Net counts its cases.
        after["numTraining"] = sum(not names.about(own.name) for own in (path.parent / "labelsTr").iterdir())
    if after == before:
        return "kept"
    write_again(path, before, after)
    return "edited"


def _out_of_text(path: Path, names: Names) -> Done:
    try:
        before = files.read_text(path, _LIMIT)
    except DataError:
        return _removed(path) if named_in(path, names) else "kept"
    after = names.replaced(before)
    if after == before:
        return "kept"
    files.write_text(path, after)
    return "edited"


def _out_of_table(path: Path, names: Names) -> Done:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    columns = rows[0] if rows else []
    known = {place for place, column in enumerate(columns) if place == 0 or column in _IDENTITY}
    kept = [rows[0]] if rows else []
    for row in rows[1:]:
        if not any(place in known and names.about(files.unescaped(cell)) for place, cell in enumerate(row)):
            kept.append([_cell(cell, names) for cell in row])
    if kept == rows:
        return "kept"
    with files.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(kept)
    return "edited"


def _cell(cell: str, names: Names) -> str:
    """A cell without the case: lists lose the entry, JSON its entries, and other text gets the alias."""
    if not names.within(cell):
        return cell
    if ";" in cell:
        return ";".join(item for item in cell.split(";") if not names.within(item))
    if cell[:1] in "[{":
        try:
            return json.dumps(without(json.loads(cell), names), ensure_ascii=False)
        except ValueError:
            pass
    return names.replaced(cell)
