"""What is written down about a run, in plain text: no path of the machine, no patient's name, nothing too long."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from medgen.system import files

_PARAM_LIMIT = 6000


_KEY_LIMIT = 250


# An absolute POSIX or Windows path inside a text; not the path of a URL, nor a division such as "a/b".
_POSIX = re.compile(r"(?<![\w.:/~])/(?:[^\s/:;,'\"<>|]+/)*([^\s/:;,'\"<>|]+)/?")


_WINDOWS = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\:;,'\"<>|]+\\)*([^\s\\:;,'\"<>|]+)\\?")


def printable(uri: str) -> str:
    """A store's address without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def scrub(value: Any) -> Any:
    """Plain data with every absolute path cut down to its last name, since paths carry user names.

    >>> scrub({"data": "/home/ann/scans", "url": "https://host/x", "ratio": "a/b"})
    {'data': 'scans', 'url': 'https://host/x', 'ratio': 'a/b'}
    """
    if isinstance(value, Mapping):
        return {str(key): scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item) for item in value]
    if isinstance(value, Path):
        value = value.as_posix()
    if not isinstance(value, str):
        return value
    home = str(Path.home())
    if len(home) > 1:
        value = re.sub(re.escape(home) + r"(?![\w.-])", "~", value)
    if "\n" not in value and re.match(r"~?/|[A-Za-z]:\\", value):
        # A whole path may hold blanks.
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1] or "/"
    return _WINDOWS.sub(r"\1", _POSIX.sub(r"\1", value))


def encode(value: Any) -> Any:
    """Plain data for one line of JSON; NaN and infinities, which JSON lacks, become the strings ``float`` reads."""
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def clean_name(name: str) -> str:
    """A name as MLflow accepts it: letters, digits, ``_ - . : /`` and blanks."""
    return re.sub(r"[^\w\-. :/]", "_", str(name), flags=re.ASCII).strip("/ ")[:_KEY_LIMIT] or "_"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by dots: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def param_text(value: Any) -> str:
    """A setting as text without absolute paths; one over MLflow's 6000 characters, which it cuts, as SHA-256."""
    clean = scrub(value)
    text = clean if isinstance(clean, str) else json.dumps(files.plain(clean), ensure_ascii=False)
    return text if len(text) <= _PARAM_LIMIT else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
