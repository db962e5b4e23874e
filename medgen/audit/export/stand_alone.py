"""Verify an exported run with Python alone: python verify.py [EXPORT.zip or its unpacked folder [PUBLIC_KEY.pub]].

Checks, and exits with 1 where one fails:
1. every file of the export against manifest-sha256.txt, and that there is no other file;
2. run/outputs.json, the record of the run, against the digest that it states of itself (SHA-256 of its canonical JSON);
3. every exported output against the hash that the record has of it; those left out are counted;
4. run/journal.jsonl: the chain of SHA-256 over its lines, and its end against the record;
5. run/outputs.json.sig, if the run was signed: Ed25519 (RFC 8032, section 5.1.7), and the key, where one is given.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

P, ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT = -121665 * pow(121666, P - 2, P) % P, pow(2, (P - 1) // 4, P)


def sha(data: bytes) -> str:  # noqa: D103
    return hashlib.sha256(data).hexdigest()


def add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The sum of two points of the curve, in extended coordinates (X : Y : Z : T)."""
    e, f = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    c, d = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = f - e, d - c, d + c, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(number: int, point: tuple[int, ...]) -> tuple[int, ...]:
    """A point added to itself so many times."""
    total: tuple[int, ...] = (0, 1, 1, 0)
    while number:
        total = add(total, point) if number & 1 else total
        point, number = add(point, point), number >> 1
    return total


def point_of(data: bytes) -> tuple[int, ...]:
    """The point that 32 bytes stand for; ValueError if there is none."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * ROOT % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        raise ValueError("no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of a message holds: s B = R + h A."""
    if len(key) != 32 or len(signature) != 64:
        return False
    try:
        a, r = point_of(key), point_of(signature[:32])
    except ValueError:
        return False
    s = int.from_bytes(signature[32:], "little")
    base = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    left, right = times(s, base), add(r, times(h, a))
    same = (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0
    return s < ORDER and same


def key_of(text: str) -> bytes:
    """The 32 bytes of a public key in PEM or OpenSSH form."""
    if text.startswith("ssh-"):
        return base64.b64decode(text.split()[1])[-32:]
    return base64.b64decode("".join(line for line in text.splitlines() if "-" not in line))[-32:]


def chain_of(journal: bytes) -> tuple[int, str, int]:
    """Number of lines, head of the chain, and the first line that does not follow the one before it (0: none)."""
    head, broken, count = "0" * 64, 0, 0
    for count, line in enumerate(journal.removesuffix(b"\n").split(b"\n") if journal else [], start=1):
        try:
            entry = dict(json.loads(line))
        except (RecursionError, TypeError, ValueError):
            entry = {}
        if "chain" in entry and entry["chain"] != head:
            broken = broken or count
        digest = entry.get("line_sha256") if entry.get("kind") == "forgotten" else sha(line)
        head = sha(f"{head}{digest}".encode())
    return count, head, broken


def check(files: dict[str, bytes], key: bytes | None) -> Iterator[tuple[bool, str]]:
    """Yield (whether it holds, what was checked) for everything that can be checked."""
    listed = {line[66:]: line[:64] for line in files["manifest-sha256.txt"].decode().splitlines()}
    wrong = [name for name, digest in listed.items() if name not in files or sha(files[name]) != digest]
    more = sorted(set(files) - set(listed) - {"manifest-sha256.txt"})
    yield not wrong and not more, f"{len(listed)} files of the export {[*wrong, *more] or ''}"
    record = json.loads(files["run/outputs.json"])
    stated = record.pop("sha256")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    yield sha(text.encode()) == stated, "the record of the run, run/outputs.json"
    here = {name: digest for name, digest in record["files"].items() if f"run/{name}" in files}
    wrong = [name for name, digest in here.items() if sha(files[f"run/{name}"]) != digest]
    yield (
        not wrong,
        f"{len(here)} of the run's {len(record['files'])} outputs, the others are not exported {wrong or ''}",
    )
    if record.get("journal"):
        count, head, broken = chain_of(files.get("run/journal.jsonl", b""))
        end = {"lines": count, "chain": head} == record["journal"]
        where = f": broken before line {broken}" if broken else "" if end else ": it does not end as the run did"
        yield end and not broken, f"the journal, {count} lines{where}"
    if "run/outputs.json.sig" in files:
        told = json.loads(files["run/outputs.json.sig"])
        own, signature = base64.b64decode(told["public_key"]), base64.b64decode(told["signature"])
        message = f"medgen-signature\n{told['signed']}\n{sha(files['run/outputs.json'])}\n".encode()
        said = "" if key else " (give the public key to see whose it is)"
        yield holds(own, message, signature), f"the signature of {told['signed']}{said}"
        if key:
            yield own == key, "the signature is of the given key"
    elif key:
        yield False, "the run is not signed"


def main(arguments: list[str]) -> int:
    """Verify an export; 0 if everything holds."""
    place = Path(arguments[0]) if arguments else Path(__file__).resolve().parent
    if place.is_dir():
        files = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    else:
        with zipfile.ZipFile(place) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    key = key_of(Path(arguments[1]).read_text()) if len(arguments) > 1 else None
    every = True
    for fine, what in check(files, key):
        print("ok      " if fine else "FAILED  ", what.strip())
        every = every and fine
    return 0 if every else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError, zipfile.BadZipFile) as error:
        sys.exit(f"FAILED   this is no export of medgen, or a part of it cannot be read: {error!r:.200}")
