"""Tables and pictures as MLflow's own pages show them: tables that can be compared, pictures with a step slider.

``MlflowClient.log_table`` adds rows to what is there and ``log_image`` draws a new name each time; what is sent twice
must be there once, so both are written here under names that follow from the entry.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import logging
import math
import re
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen.runs.store.refusals import unless_refused

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)

_TABLES, _IMAGES = "mlflow.loggedArtifacts", "mlflow.loggedImages"
_EMBEDDED = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=]+)")
# Longer side of the copy that lists of pictures load, as MLflow makes it.
_SMALL = 256


def table_of(text: str) -> dict[str, Any]:
    r"""The text of a CSV file as ``mlflow.load_table`` reads it; columns of numbers become numbers, blanks null.

    >>> table_of("case,score\na,1.5\nb,\n")
    {'columns': ['case', 'score'], 'data': [['a', 1.5], ['b', None]]}
    """
    rows = list(csv.reader(io.StringIO(text))) or [[]]
    columns, body = rows[0], rows[1:]
    kept = [_typed([row[place] if place < len(row) else "" for row in body]) for place in range(len(columns))]
    return {"columns": columns, "data": [list(row) for row in zip(*kept, strict=True)] if kept else []}


def _typed(values: Sequence[str]) -> list[Any]:
    try:
        numbers = [None if value == "" else float(value) for value in values]
    except ValueError:
        return list(values)
    # JSON has no NaN.
    return [number if number is not None and math.isfinite(number) else None for number in numbers]


def send_table(client: MlflowClient, run: str, name: str, text: str) -> None:
    """Keep a CSV text as artifact ``name`` in the form of a table, and say that it is one."""
    unless_refused(client.log_text, run, json.dumps(table_of(text), ensure_ascii=False), name)
    known = json.loads(client.get_run(run).data.tags.get(_TABLES, "[]"))
    entry = {"path": name, "type": "table"}
    if entry not in known:
        unless_refused(client.set_tag, run, _TABLES, json.dumps([*known, entry]))


def picture_of(path: Path, sha256: str) -> bytes | None:
    """A PNG file, or the picture of a page that has a SHA-256; None if it is not there."""
    content = path.read_bytes()
    if path.suffix != ".html":
        return content
    found = (base64.b64decode(match[1]) for match in _EMBEDDED.finditer(content))
    return next((data for data in found if hashlib.sha256(data).hexdigest() == sha256), None)


def send_image(client: MlflowClient, run: str, entry: Mapping[str, Any], path: Path) -> None:
    """Keep a PNG, or one of a page, under its key and step, with the small copy that MLflow's lists load."""
    from PIL import Image

    data = picture_of(path, str(entry["picture"]))
    if data is None:
        _LOG.warning("%s: a picture is gone before it was sent", path.name)
        return
    unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{entry['run']}/{entry['seq']}")
    name = f"{entry['key']}+step+{entry['step']}+timestamp+{entry['time']}+{unique}"
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, f"{name}.png"), Path(folder, f"{name}+compressed.webp")
        whole.write_bytes(data)
        with Image.open(io.BytesIO(data)) as picture:
            copy = picture.convert("RGB")
        copy.thumbnail((_SMALL, _SMALL))
        copy.save(small)
        for file in (whole, small):
            unless_refused(client.log_artifact, run, str(file), "images")
    unless_refused(client.set_tag, run, _IMAGES, "True")
