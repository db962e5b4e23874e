"""Fuzz the readers: whatever the bytes, only a valid result or a MedgenError may come out.

    python tests/hostile/readers.py --seconds 600            # plain loop over mutated seeds, needs nothing else
    python tests/hostile/readers.py --atheris corpus -max_total_time=3600   # coverage-guided, with atheris installed

The first byte of an input of atheris chooses the reader. An input that breaks one is kept in the working folder.
"""

from __future__ import annotations

import argparse
import gzip
import random
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import SimpleITK as sitk

from medgen import io
from medgen.config import read_yaml
from medgen.data.layouts.detect import load_cohort
from medgen.data.layouts.tables import read_table
from medgen.errors import MedgenError
from medgen.system.files import read_json
from medgen.volume import Grid, Volume

SLOW_SECONDS = 5
# Bytes that parsers stumble over: limits of integers, NaN and infinity as float32, separators, nothing.
_TOKENS = (
    b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00" * 8, b"-1", b"nan", b"1e999",
    b"99999999999999999999", b"../", b"\n", b"\r\n", b":", b"=", b",", b'"', b"%", b"LIST", b"\xef\xbb\xbf", b"[" * 99,
    b"&a ", b"*a ", b"!!python/object:os.system ", b"\xc3", b"{", b"}", b"'", b";", b"\t", b"#",
)  # fmt: skip


def image(path: Path) -> None:
    """An image of any format, by content."""
    volume = io.read(path, allow_nan=True)
    if volume.data.shape[1:] != volume.grid.shape or min(volume.grid.shape) < 2:
        raise AssertionError(f"a volume of {volume.data.shape} on a grid of {volume.grid.shape}")
    if not np.isfinite(volume.grid.affine).all() or np.isinf(volume.data).any():
        raise AssertionError("numbers that are not finite")


def table(path: Path) -> None:
    """A CSV file."""
    read_table(path)


def manifest(path: Path) -> None:
    """A manifest CSV with its sidecar missing."""
    load_cohort(path)


def yaml(path: Path) -> None:
    """A configuration."""
    read_yaml(path)


def json(path: Path) -> None:
    """Any JSON file."""
    read_json(path)


def dataset(path: Path) -> None:
    """The ``dataset.json`` of an empty MSD or nnU-Net folder."""
    load_cohort(path)


READERS: tuple[tuple[Callable[[Path], None], str], ...] = (
    (image, "scan.bin"),
    (table, "table.csv"),
    (manifest, "manifest.csv"),
    (yaml, "config.yaml"),
    (json, "any.json"),
    (dataset, "dataset.json"),
)


def seeds(folder: Path) -> list[tuple[int, bytes]]:
    """Sound inputs for each reader, as (number of the reader, bytes)."""
    data = np.random.default_rng(0).integers(0, 99, (1, 4, 5, 6)).astype(np.int16)
    volume = Volume(data, Grid((4, 5, 6), np.diag([-1.0, 1.5, 2.0, 1.0])))
    images = []
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha"):
        io.write(volume, folder / name)
        images.append((folder / name).read_bytes())
    for name in ("b.nrrd", "b.mha"):
        sitk.WriteImage(sitk.ReadImage(str(folder / "a.mha")), str(folder / name), useCompression=False)
        images.append((folder / name).read_bytes())
    found = [(0, content) for content in images]
    rows = b"id,subject,image,mask,sha256_image,sha256_mask,age\na,s1,scan.bin,,,,71\nb,s2,scan.bin;scan.bin,,,,40\n"
    found += [(1, rows), (2, rows)]
    found.append((3, b"data: cohort\nmodel: {family: vae, widths: [8, 16]}\ntraining:\n  steps: 5\n  rate: 1.0e-3\n"))
    found.append((4, b'{"name": "x", "values": [1, 2.5, null, true, "\\u00e9"], "deep": {"a": {"b": []}}}'))
    msd = b'{"name": "x", "modality": {"0": "MR"}, "labels": {"0": "b", "1": "a"}, "numTraining": 1, '
    found.append((5, msd + b'"training": [{"image": "./imagesTr/a.nii", "label": "./labelsTr/a.nii"}]}'))
    found.append((5, b'{"channel_names": {"0": "MR"}, "labels": {"a": 1, "r": [1, 2]}, "file_ending": ".nii.gz"}'))
    return found


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few random changes; of gzip files also inside, so that they reach what is behind the unpacking."""
    packed = content[:2] == b"\x1f\x8b" and rng.random() < 0.7
    if packed:
        content = gzip.decompress(content)
    body = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        # Most of what matters is in the header.
        end = min(len(body), 420) if rng.random() < 0.7 else len(body)
        place = rng.randrange(end + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(body):
            body[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(body):
            body[place] = rng.randrange(256)
        elif kind == 2:
            token = rng.choice(_TOKENS)
            body[place : place + len(token)] = token
        elif kind == 3:
            body[place:place] = rng.choice(_TOKENS)
        elif kind == 4:
            del body[place : place + rng.choice((1, 2, 4, 16, 200))]
        else:
            start = rng.randrange(end + 1)
            body[place:place] = body[start : start + rng.choice((1, 8, 64))]
    return gzip.compress(bytes(body), 1, mtime=0) if packed else bytes(body)


def attempt(number: int, content: bytes, folder: Path) -> bool:
    """Read an input; returns whether it was accepted. Anything but a MedgenError passes through."""
    reader, name = READERS[number % len(READERS)]
    path = folder / name
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader(path)
    except MedgenError as error:
        text = str(error)
        if "\n" in text or str(folder) not in text:
            raise AssertionError(f"a message that does not name the file on one line: {text!r}") from None
        return False
    finally:
        path.unlink()
    return True


def loop(seconds: float, seed: int, folder: Path) -> dict[str, list[int]]:
    """Mutated seeds for some time; returns per reader how many were accepted and refused."""
    rng, known = random.Random(seed), seeds(folder)
    counts = {reader.__name__: [0, 0] for reader, _ in READERS}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number, content = rng.choice(known)
        content = mutated(content, rng)
        try:
            signal.alarm(SLOW_SECONDS)
            accepted = attempt(number, content, folder)
        except BaseException:
            kept = Path(f"fuzz-{READERS[number][0].__name__}-{zlib.crc32(content):08x}.bin")
            kept.write_bytes(content)
            print(f"broken by {kept}", file=sys.stderr)
            raise
        finally:
            signal.alarm(0)
        counts[READERS[number][0].__name__][0 if accepted else 1] += 1
    return counts


def functions(*packages: str) -> list[FunctionType]:
    """The functions and methods that the loaded modules of some packages define."""
    found: list[Any] = []
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in packages:
            own = [value for value in vars(module).values() if getattr(value, "__module__", "") == name]
            found += own
            found += [member for value in own if isinstance(value, type) for member in vars(value).values()]
    return [value for value in found if isinstance(value, FunctionType)]


def guided(arguments: list[str], folder: Path) -> None:
    """Coverage-guided fuzzing, until it is stopped or an input breaks a reader.

    Args:
        arguments: Of libFuzzer; one that is no option is the corpus folder, which is begun with sound inputs.
        folder: For the file that is read.
    """
    import atheris

    for corpus in (Path(argument) for argument in arguments if not argument.startswith("-")):
        corpus.mkdir(parents=True, exist_ok=True)
        for number, content in seeds(folder):
            (corpus / f"seed-{zlib.crc32(content):08x}").write_bytes(bytes([number]) + content)

    def one(content: bytes) -> None:
        attempt(content[0] if content else 0, content[1:], folder)

    # Of medgen and the parsers behind it: instrumenting everything that is loaded takes minutes.
    for function in functions("medgen", "yaml", "json"):
        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def _slow(*_: Any) -> None:
    raise TimeoutError(f"a reader took more than {SLOW_SECONDS} s")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", nargs=argparse.REMAINDER, help="corpus folder and options of libFuzzer")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _slow)
    with tempfile.TemporaryDirectory() as name:
        if options.atheris is not None:
            guided(options.atheris, Path(name))
            return
        for reader, (accepted, refused) in loop(options.seconds, options.seed, Path(name)).items():
            print(f"{reader}: {accepted} accepted, {refused} refused")


if __name__ == "__main__":
    main()
