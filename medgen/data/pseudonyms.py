"""Ids that say nothing of the patient: keyed, so that only the holder of the key can lead them back or repeat them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from medgen.errors import DataError
from medgen.system import files

_FORMAT = "medgen-pseudonyms"
_DIGITS = 12
# Columns that studies need and that name nobody; ages above 89 are not kept (HIPAA safe harbor, 45 CFR 164.514).
_KEPT = ("age", "sex", "channels", "slices", "group", "field_strength")
_PLAIN = re.compile(r"[A-Za-z0-9.]{1,12}")
# Which labels are complete in a mask that has not all of them: numbers, without which a label would seem absent.
_ANNOTATED, _NUMBERS = "annotated", re.compile(r"[0-9; ]*")


class Pseudonyms:
    """A random key, and the table source name → pseudonym, in one file that only its owner can read.

    Args:
        path: The key file; made by :meth:`save` where it is not there yet.

    Raises:
        DataError: If the file is there and is no key file, or its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table: dict[str, str] = {}
        self._key = secrets.token_bytes(32)
        if path.exists():
            data = files.read_json(path)
            try:
                if data["format"] != _FORMAT:
                    raise ValueError
                self._key = bytes.fromhex(data["key"])
                self._table = {str(source): str(name) for source, name in data["table"].items()}
                if len(self._key) != 32:
                    raise ValueError
            except (KeyError, TypeError, ValueError, AttributeError):
                raise DataError(f"{path}: not a key file of medgen data import; move it away, or give --key") from None
        elif not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise DataError(
                f"{path}: the key of the pseudonyms cannot be kept there; give another place with --key FILE, outside "
                "the new folder"
            )

    def name(self, kind: str, source: str) -> str:
        """The pseudonym of a source name: HMAC-SHA256 under the key, cut to 48 bits.

        Args:
            kind: ``case`` or ``subject``: the same name gives different pseudonyms.
            source: Id, path or patient number in the source.

        Raises:
            DataError: If two source names would get one pseudonym.
        """
        digest = hmac.new(self._key, f"{kind}\0{source}".encode("utf-8", "surrogateescape"), hashlib.sha256)
        name = f"{kind}-{digest.hexdigest()[:_DIGITS]}"
        source = f"{kind}: {source}".encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if any(other == name and known != source for known, other in self._table.items()):
            raise DataError(f"{self.path}: two sources have one pseudonym; move the key file away to get a new key")
        self._table[source] = name
        return name

    def save(self) -> None:
        """Write key and table atomically, readable by the owner only.

        Raises:
            DataError: If it cannot be written.
        """
        text = json.dumps({"format": _FORMAT, "key": self._key.hex(), "table": self._table}, indent=2)
        try:
            # Not files.write_json, which lets others read.
            handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self.path)
            finally:
                with suppress(OSError):
                    Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.path}: the key of the pseudonyms cannot be written ({error.strerror or error}); give another "
                "place with --key FILE"
            ) from None


def plain_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that name nobody, as short plain words.

    These are age (up to 89), sex, group, field strength, and what medgen itself reads: channels, slices, annotated.

    >>> plain_attributes({"age": "61", "sex": "F", "name": "Muster", "born": "19510203"})
    {'age': '61', 'sex': 'F'}
    """
    return {name: value for name, value in attributes.items() if _is_plain(name.lower(), value)}


def _is_plain(name: str, value: str) -> bool:
    if name == _ANNOTATED:
        return _NUMBERS.fullmatch(value) is not None
    return name in _KEPT and _PLAIN.fullmatch(value) is not None and not (name == "age" and _old(value))


def _old(age: str) -> bool:
    try:
        return not 0 <= float(age) < 90
    except ValueError:
        return True
