"""Sign the record of a run, and check who signed it: Ed25519 (RFC 8032), offline.

The record lists every output by its hash, the inputs and the weights, and the end of the journal's chain: who signs it
signs all of them.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen.errors import AuditError, ConfigError, DataError
from medgen.runs.outputs import RECORD, SIGNATURE
from medgen.system import files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_FORMAT = "medgen-signature"
# Keys are small; anything larger is none.
_LIMIT = 64 << 10


@dataclass(frozen=True)
class Signed:
    """A signature that holds.

    Attributes:
        key: Fingerprint of the public key: its SHA-256, base64, as ``ssh-keygen -l`` writes it.
        signed: When it was signed, UTC, by the clock of who signed.
    """

    key: str
    signed: str


def new_key(path: Path, passphrase: str = "") -> str:
    """Make a pair of keys: ``path`` (private, mode 600) and ``path.pub``.

    Args:
        path: File of the private key, PEM.
        passphrase: Encrypts the private key; empty for none.

    Returns:
        The fingerprint.

    Raises:
        ConfigError: If a file is there already.
        DataError: If a file cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name}.pub")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: its folder is not there; check the path")
    for file in (path, public):
        if os.path.lexists(file):
            raise ConfigError(f"{file}: exists already; choose another name for the key")
    key = Ed25519PrivateKey.generate()
    locked = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
    content = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file_of_key:
            file_of_key.write(content)
    except OSError as error:
        raise files.unwritable(path, error) from error
    files.write_bytes(public, key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return fingerprint(key.public_key())


def sign(out: Path, key: Path, passphrase: str = "") -> Signed:
    """Sign the record of a run: write ``outputs.json.sig`` beside it.

    Args:
        out: Folder of the run.
        key: Private Ed25519 key, PEM or OpenSSH.
        passphrase: Of the key, where it has one.

    Raises:
        AuditError: If there is no record, or the key cannot be used.
    """
    private = _private(key, passphrase)
    signed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = _read(out / RECORD)
    public = private.public_key()
    files.write_json(
        out / SIGNATURE,
        {
            "format": _FORMAT,
            "algorithm": "Ed25519",
            "signed": signed,
            "public_key": base64.b64encode(public.public_bytes_raw()).decode(),
            "signature": base64.b64encode(private.sign(_message(content, signed))).decode(),
        },
    )
    return Signed(fingerprint(public), signed)


def check_signature(out: Path, key: Path | None = None) -> Signed | None:
    """Check the signature of a run's record.

    Args:
        out: Folder of the run.
        key: Public key of who should have signed, PEM or OpenSSH; without it the signature is checked against the key
            that it brings, which shows that nothing was changed since, not who signed.

    Returns:
        Who signed and when; None if nobody has and no key is given.

    Raises:
        AuditError: If the signature does not hold, is of another key, or is missing though a key is given.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    wanted = None if key is None else _public(key)
    path = out / SIGNATURE
    if not path.is_file():
        if wanted is not None:
            raise AuditError(
                f"{out}: is not signed; expected {SIGNATURE} beside {RECORD}; sign it with medgen audit sign"
            )
        return None
    try:
        told: Any = files.read_json(path, limit=_LIMIT)
        signed = str(told["signed"])
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(told["public_key"], validate=True))
        signature = base64.b64decode(told["signature"], validate=True)
    except (DataError, LookupError, TypeError, ValueError):
        raise AuditError(f"{path}: is no signature of medgen; sign the run again") from None
    if wanted is not None and fingerprint(wanted) != fingerprint(public):
        raise AuditError(
            f"{path}: is signed with the key {fingerprint(public)}, not with {fingerprint(wanted)} of {key}"
        )
    try:
        public.verify(signature, _message(_read(out / RECORD), signed))
    except InvalidSignature:
        raise AuditError(
            f"{path}: the signature does not hold: {RECORD}, its date or the signature was changed"
        ) from None
    return Signed(fingerprint(public), signed)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key as ``ssh-keygen -l`` writes it."""
    kind = b"ssh-ed25519"
    raw = key.public_bytes_raw()
    wire = len(kind).to_bytes(4, "big") + kind + len(raw).to_bytes(4, "big") + raw
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def _message(record: bytes, signed: str) -> bytes:
    """What is signed: what it is, when, and the hash of the record's bytes."""
    return f"{_FORMAT}\n{signed}\n{hashlib.sha256(record).hexdigest()}\n".encode()


def _read(path: Path) -> bytes:
    try:
        return files.read_bytes(path, 1 << 30)
    except DataError as error:
        raise AuditError(f"{error}; expected the folder of a finished run") from None


def _private(path: Path, passphrase: str) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content, secret = _key(path), passphrase.encode() or None
    read = form.load_ssh_private_key if b"OPENSSH" in content[:64] else form.load_pem_private_key
    try:
        found = read(content, secret)
    except TypeError:
        words = "is encrypted: its passphrase is needed" if secret is None else "is not encrypted: give no passphrase"
        raise AuditError(f"{path}: {words}") from None
    except (ValueError, UnsupportedAlgorithm):
        why = "the passphrase is wrong, or it" if secret else "it"
        raise AuditError(
            f"{path}: {why} is no private key in PEM or OpenSSH form; make one with medgen audit key"
        ) from None
    if not isinstance(found, Ed25519PrivateKey):
        raise AuditError(f"{path}: is a key of another kind; expected Ed25519; make one with medgen audit key")
    return found


def _public(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _key(path)
    if b"PRIVATE" in content[:64]:
        raise AuditError(f"{path}: is a private key; expected the public one, {path.name}.pub")
    read = form.load_ssh_public_key if content.startswith(b"ssh-") else form.load_pem_public_key
    try:
        found = read(content)
    except (ValueError, UnsupportedAlgorithm):
        raise AuditError(
            f"{path}: is no public key in PEM or OpenSSH form; expected the .pub file of who signed"
        ) from None
    if not isinstance(found, Ed25519PublicKey):
        raise AuditError(f"{path}: is a key of another kind; expected Ed25519")
    return found


def _key(path: Path) -> bytes:
    try:
        return files.read_bytes(path, _LIMIT)
    except DataError as error:
        raise AuditError(f"{error}; expected a key") from None
