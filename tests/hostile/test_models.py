"""Crafted models, generators, checkpoints and archives: refused by name, at little cost, and nothing in them runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medgen.audit.replay import replay
from medgen.audit.verify import verify
from medgen.errors import DataError
from medgen.models.artifact import ARRAYS, MANIFEST, TrainedModel
from medgen.models.catalogue import build
from medgen.models.stored_arrays import RECORD, Stored, load_stored
from medgen.preprocessing.recipe import Preprocess
from medgen.runs.journal import Journal
from medgen.runs.outputs import RECORD as OUTPUTS
from medgen.synthesis.export.provenance import read_record
from medgen.system.archives import read_npz
from medgen.system.files import read_json, sha256_file, sha256_json
from medgen.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from tests.builders.guard import MIB, Canary, refusal

SHAPE = (8, 10, 8)
SETTINGS = {"family": "vae", "shape": SHAPE, "widths": [16], "latent": 3, "codes": [[2, 2]]}
WEIGHTS = "weights-0.safetensors"
CPU = torch.device("cpu")

Change = Callable[[Path, Path], str]


@pytest.fixture
def canary(tmp_path: Path):
    """Where code in a file would leave its trace; it must not be there in the end."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in a file was run"


def test_the_canary_would_sing(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "song"))).close()
    assert (tmp_path / "song").exists()


# ---------------------------------------------------------------------------------------------------------- artifacts


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    models, preprocess = [build(SETTINGS, seed=0)], Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))
    arrays = {"mu": np.arange(5.0), "sigma": np.ones(4, np.float32)}
    return TrainedModel(models, preprocess, arrays=arrays, meta={"kind": "x"}).save(tmp_path_factory.mktemp("m") / "m")


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def seal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make its digest fit again, as a careful attacker would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    manifest.pop("sha256")
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": sha256_json(manifest)}))


def put(folder: Path, name: str, content: bytes) -> str:
    """Exchange a file together with its hash."""
    (folder / name).write_bytes(content)
    seal(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))
    return name


def edited(change: Callable[[dict[str, Any]], object], name: str = MANIFEST) -> Change:
    def apply(folder: Path, canary: Path) -> str:
        seal(folder, change)
        return name

    return apply


def tensors(header: object, body: bytes = b"", size: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def one(shape: list[int], end: int = 16, dtype: str = "F32") -> bytes:
    return tensors({"mu": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}, b"\0" * 16)


OVERLAP = tensors(
    {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
    },
    b"\0" * 24,
)


def arrays(content: bytes) -> Change:
    return lambda folder, canary: put(folder, ARRAYS, content)


def torch_file(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state": Canary(canary)}, buffer)
    return buffer.getvalue()


def manifest_text(old: str, new: str) -> Change:
    def apply(folder: Path, canary: Path) -> str:
        text = (folder / MANIFEST).read_text()
        assert old in text
        (folder / MANIFEST).write_text(text.replace(old, new))
        return MANIFEST

    return apply


def written(name: str, content: bytes) -> Change:
    def apply(folder: Path, canary: Path) -> str:
        (folder / name).write_bytes(content)
        return name

    return apply


def not_finite(folder: Path, canary: Path) -> str:
    from safetensors.torch import load, save

    state = load((folder / WEIGHTS).read_bytes())
    state[min(state)][...] = float("nan")
    return put(folder, WEIGHTS, save(state))


def sparse(folder: Path, canary: Path) -> str:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(200 << 30)
    return WEIGHTS


ARTIFACTS: dict[str, Change] = {
    "pickle as weights": lambda f, c: put(f, WEIGHTS, pickle.dumps(Canary(c))),
    "torch file as weights": lambda f, c: put(f, WEIGHTS, torch_file(c)),
    "pickle as arrays": lambda f, c: put(f, ARRAYS, pickle.dumps(Canary(c))),
    "exported program beside": lambda f, c: written("model.pt2", torch_file(c))(f, c),
    "MLflow model beside": written("MLmodel", b"flavors: {python_function: {loader_module: evil}}"),
    "header of 2^62 bytes": lambda f, c: put(f, WEIGHTS, tensors(b"{}", size=2**62)),
    "header of 99 MB": arrays(tensors(b"{" * 1000, size=99_000_000)),
    "header too deep": arrays(tensors(b"[" * 100_000 + b"]" * 100_000)),
    "overlapping offsets": arrays(OVERLAP),
    "offsets beyond the end": arrays(one([2**20], end=2**22)),
    "negative shape": arrays(one([-4])),
    "huge shape": arrays(one([2**40, 2**40])),
    "shape of more than the bytes": arrays(one([400])),
    "unknown type": arrays(one([4], dtype="X9")),
    "weights not finite": not_finite,
    "weights of 200 GiB": sparse,
    "model of terabytes": edited(lambda m: m["models"][0].update(widths=[1 << 20, 1 << 20]), WEIGHTS),
    "scans of terabytes": edited(lambda m: m["models"][0].update(shape=[1 << 20] * 3), WEIGHTS),
    "family by path": edited(lambda m: m["models"][0].update(family="..io.nifti"), WEIGHTS),
    "family of the system": edited(lambda m: m["models"][0].update(family="os"), WEIGHTS),
    "file above": edited(lambda m: m["files"].update({"../x": "0" * 64})),
    "file by absolute path": edited(lambda m: m["files"].update({"/etc/passwd": "0" * 64})),
    "number as hash": edited(lambda m: m["files"].update({WEIGHTS: 3}), WEIGHTS),
    "manifest too large": written(MANIFEST, b" " * (17 * MIB) + b"{}"),
    "manifest too deep": written(MANIFEST, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "manifest of many lists": written(MANIFEST, b"[" + b"[]," * 5_000_000 + b"[]]"),
    "NaN in the manifest": manifest_text('"version": 2', '"version": NaN'),
    "number too large": manifest_text('"version": 2', '"version": 1e999'),
    "number of 5000 digits": manifest_text('"version": 2', '"version": ' + "9" * 5000),
}


@pytest.mark.parametrize("change", ARTIFACTS.values(), ids=ARTIFACTS.keys())
def test_crafted_artifacts_are_refused(model, canary, change):
    name = change(model, canary)
    refusal(lambda: TrainedModel.load(model), str(model / name))


def test_a_sound_artifact_is_not_refused(model):
    assert set(TrainedModel.load(model).arrays) == {"mu", "sigma"}


# ---------------------------------------------------------------------------------- checkpoints, generators, archives


def checkpoint(folder: Path) -> Path:
    save_checkpoint(folder, {"fingerprint": "f", "conditions": {}, "model": {"w": torch.arange(1000.0)}})
    return folder / CHECKPOINT


def resume(folder: Path) -> object:
    return load_checkpoint(folder, "f", CPU, {})


def repacked(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """Write a torch file again with members changed; their checksums fit."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def oversized(path: Path, canary: Path) -> None:
    """A tensor of 2^28 numbers whose record holds a thousand: memory of others would be read."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        few, many = b"M\xe8\x03", b"J" + (1 << 28).to_bytes(4, "little")
        assert content.count(few) == 2
        return content.replace(few, many)

    repacked(path, change)


def in_small_letters(path: Path, canary: Path) -> None:
    """Two headers whose names differ in case only: which of them is meant?"""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                archive.writestr(name.replace("data.pkl", "DATA.PKL"), pickle.dumps(Canary(canary)))
            archive.writestr(name, content)


def after_a_pickle(path: Path, canary: Path) -> None:
    """A pickle with an archive behind it: zip readers look at the end, torch at the beginning."""
    path.write_bytes(pickle.dumps(Canary(canary)) + path.read_bytes())


def after_an_older_format(path: Path, canary: Path) -> None:
    """A checkpoint in torch's older format, which holds no checksums, with an archive behind it."""
    state, buffer = torch.load(path, weights_only=True), io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue() + path.read_bytes())


def damaged(path: Path, canary: Path) -> None:
    content = path.read_bytes()
    place = content.find(torch.arange(1000.0).numpy().tobytes())
    assert place > 0
    path.write_bytes(content[: place + 1234] + bytes([content[place + 1234] ^ 4]) + content[place + 1235 :])


def linked(path: Path, canary: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def piped(path: Path, canary: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHECKPOINTS: dict[str, Callable[[Path, Path], object]] = {
    "reduce in a torch file": lambda p, c: p.write_bytes(torch_file(c)),
    "reduce in its header": lambda p, c: repacked(
        p, lambda name, old: pickle.dumps(Canary(c), protocol=2) if name.endswith("data.pkl") else old
    ),
    "plain pickle": lambda p, c: p.write_bytes(pickle.dumps(Canary(c))),
    "pickle before an archive": after_a_pickle,
    "older format before an archive": after_an_older_format,
    "tensor larger than its record": oversized,
    "compressed members": lambda p, c: repacked(p, lambda _, old: old, compression=zipfile.ZIP_DEFLATED),
    "two headers": in_small_letters,
    "damaged number": damaged,
    "cut": lambda p, c: p.write_bytes(p.read_bytes()[:-300]),
    "device": linked,
    "pipe": piped,
}


@pytest.mark.parametrize("change", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_crafted_checkpoints_are_refused(tmp_path, canary, change):
    path = checkpoint(tmp_path)
    change(path, canary)
    refusal(lambda: resume(tmp_path), str(path), "remove it to start again")


def test_a_sound_checkpoint_is_not_refused(tmp_path):
    path = checkpoint(tmp_path)
    repacked(path, lambda _, old: old)
    assert torch.equal(resume(tmp_path)["model"]["w"], torch.arange(1000.0))


def generator(folder: Path) -> Path:
    folder.mkdir()
    Stored("deform", {"w": np.arange(1000.0)}, {"kind": "x"}).save(folder)
    return folder


def stored(folder: Path, content: bytes, **record: Any) -> None:
    """Arrays of a generator exchanged, and every hash made to fit."""
    from safetensors.numpy import save

    content = content or save({"w": np.arange(3.0)})
    (folder / "arrays.safetensors").write_bytes(content)
    body = {**json.loads((folder / RECORD).read_text()), "arrays_sha256": hashlib.sha256(content).hexdigest(), **record}
    body.pop("sha256")
    (folder / RECORD).write_text(json.dumps({**body, "sha256": sha256_json(body)}))


GENERATORS: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "pickle as arrays": (ARRAYS, lambda f, c: stored(f, pickle.dumps(Canary(c)))),
    "torch file as arrays": (ARRAYS, lambda f, c: stored(f, torch_file(c))),
    "header bomb": (ARRAYS, lambda f, c: stored(f, tensors(b"{" * 1000, size=99_000_000))),
    "overlapping offsets": (ARRAYS, lambda f, c: stored(f, OVERLAP)),
    "negative shape": (ARRAYS, lambda f, c: stored(f, one([-4]))),
    "pipe as arrays": (ARRAYS, lambda f, c: piped(f / ARRAYS, c)),
    "device as record": (RECORD, lambda f, c: linked(f / RECORD, c)),
    "list as data": (RECORD, lambda f, c: stored(f, b"", meta=[1])),
    "record of many lists": (RECORD, lambda f, c: (f / RECORD).write_bytes(b"[" + b"[]," * 6_000_000 + b"[]]")),
}


@pytest.mark.parametrize(("name", "change"), GENERATORS.values(), ids=GENERATORS.keys())
def test_crafted_generators_are_refused(tmp_path, canary, name, change):
    folder = generator(tmp_path / "model")
    change(folder, canary)
    refusal(lambda: load_stored(folder), str(folder / name))


def npz(path: Path, **named: Any) -> Path:
    np.savez(path, **named)
    return path


def members(path: Path, compression: int = zipfile.ZIP_STORED, **contents: bytes | zipfile.ZipInfo) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **options)
    return buffer.getvalue()


def promising(shape: str) -> bytes:
    """An array whose header promises another shape."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def lying(path: Path, canary: Path) -> None:
    """A member that says it is small, and unpacks to 32 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(4 * MIB)))
        archive.infolist()[0].file_size = 256


def with_link(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy(np.arange(3)))
        link = zipfile.ZipInfo("b.npy")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")


ARCHIVES: dict[str, Callable[[Path, Path], object]] = {
    "objects": lambda p, c: npz(p, a=np.array([Canary(c)], dtype=object)),
    "pickle as array": lambda p, c: members(p, **{"a.npy": pickle.dumps(Canary(c))}),
    "plain pickle": lambda p, c: p.write_bytes(pickle.dumps(Canary(c))),
    "bomb": lambda p, c: members(p, zipfile.ZIP_DEFLATED, **{"a.npy": npy(np.zeros(4 * MIB))}),
    "member that lies about its size": lying,
    "header that promises terabytes": lambda p, c: members(p, **{"a.npy": promising("(1099511627776,)")}),
    "negative shape": lambda p, c: members(p, **{"a.npy": promising("(-8,)")}),
    "header that is code": lambda p, c: members(p, **{"a.npy": promising(f"(open({str(c)!r:.40}, 'w'),)")}),
    "name that leaves the folder": lambda p, c: members(p, **{"a.npy": npy([1]), "../../evil.npy": npy([1])}),
    "absolute name": lambda p, c: members(p, **{"a.npy": npy([1]), "/tmp/evil.npy": npy([1])}),
    "link": with_link,
    "pipe": lambda p, c: (p.touch(), piped(p, c)),
    "device": lambda p, c: (p.touch(), linked(p, c)),
}


@pytest.mark.parametrize("change", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_crafted_archives_are_refused(tmp_path, canary, change):
    path = tmp_path / "features.npz"
    change(path, canary)
    refusal(lambda: read_npz(path, ["a"], limit=MIB), str(path))


def test_a_sound_archive_is_not_refused(tmp_path):
    path = npz(tmp_path / "features.npz", a=np.arange(3), **{"b/c": np.arange(2)})
    assert read_npz(path, ["a"], limit=MIB)["a"].tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------ links, pipes, and altered bytes


@pytest.mark.parametrize("name", [MANIFEST, ARRAYS, WEIGHTS])
@pytest.mark.parametrize("kind", ["link", "device", "pipe", "folder", "altered"])
def test_no_file_of_an_artifact_can_be_something_else(model, tmp_path, canary, name, kind):
    path = model / name
    if kind == "link":
        shutil.move(path, tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "device":
        linked(path, canary)
    elif kind == "pipe":
        piped(path, canary)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    for place in (0.1, 0.5, 0.95) if kind == "altered" else (None,):
        whole = path.read_bytes() if place is not None else b""
        if place is not None:
            content = bytearray(whole)
            content[int(place * len(content))] ^= 1
            path.write_bytes(content)
        refusal(lambda: TrainedModel.load(model), str(path))
        if place is not None:
            path.write_bytes(whole)


@pytest.mark.parametrize("name", [RECORD, ARRAYS])
def test_no_byte_of_a_generator_can_be_altered(tmp_path, name):
    path = generator(tmp_path / "model") / name
    whole = path.read_bytes()
    for place in (0.1, 0.5, 0.95):
        content = bytearray(whole)
        content[int(place * len(content))] ^= 1
        path.write_bytes(content)
        refusal(lambda: load_stored(tmp_path / "model"), str(path))


def test_a_journal_is_a_file_of_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    refusal(lambda: Journal(tmp_path), str(path))
    piped(path, tmp_path)
    refusal(lambda: Journal(tmp_path), str(path))


# ------------------------------------------------------------------------------------------------------------- records


def record(**changes: Any) -> dict[str, Any]:
    body = {
        "format": "medgen-synthetic-scan",
        "version": 1,
        "id": "syn-0001",
        "backend": "deform",
        "generator_sha256": "0" * 64,
        "seed": 1,
        "grid": {"shape": [4, 4, 4], "affine": np.eye(4).tolist()},
        "layout": "nnunet",
        "modality": "MR",
        "stamp": "INTERNAL",
        "versions": {},
        "medgen": "0",
        "commit": "unknown",
        "files": {"imagesTr/syn-0001_0000.nii.gz": "0" * 64},
        **changes,
    }
    return {**body, "sha256": sha256_json(body)}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../data/case1"},
        {"id": "/data/case1"},
        {"id": ["a"]},
        {"files": {"../../etc/passwd": "0" * 64}},
        {"files": {"/etc/passwd": "0" * 64}},
        {"files": {"a": 3}},
        {"files": "a"},
        {"layout": "../x"},
        {"backend": ["deform"]},
        {"seed": "one"},
        {"grid": None},
    ],
    ids=str,
)
def test_crafted_records_of_scans_are_refused(tmp_path, changes):
    path = tmp_path / "cohort" / "provenance" / "syn-0001.json"
    path.parent.mkdir(parents=True)
    (tmp_path / "model" / "deform").mkdir(parents=True)
    path.write_text(json.dumps(record()))
    assert read_record(path)["seed"] == 1
    path.write_text(json.dumps(record(**changes)))
    named = "layout" if "layout" in changes else str(path)
    message = refusal(lambda: replay(path, tmp_path / "out"), named)
    # The record, not the generator, which is not there.
    assert "holds no generator" not in message
    assert not (tmp_path / "out").exists()


def test_a_record_of_outputs_without_hashes_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for digest, sound in ((sha256_file(tmp_path / "a.txt"), True), (3, False), (None, False)):
        body = {"format": json.loads(_outputs_record(tmp_path))["format"], "files": {"a.txt": digest}}
        (tmp_path / OUTPUTS).write_text(json.dumps({**body, "sha256": sha256_json(body)}))
        if sound:
            assert verify(tmp_path) == []
        else:
            refusal(lambda: verify(tmp_path), OUTPUTS)


def _outputs_record(folder: Path) -> str:
    from medgen.runs.outputs import write_outputs_record

    return write_outputs_record(folder).read_text()


@pytest.mark.parametrize(
    "text", ["[NaN]", "[1e400]", "[-Infinity]", "[" * 70 + "]" * 70, '{"a": ', '{"a": 1, "a": 1}', "\ufeff{}", "\x00"]
)
def test_json_that_is_none(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    refusal(lambda: read_json(path), str(path))


def test_json_with_many_values_is_read_up_to_a_bound(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" + "1," * 100_000 + "1]")
    assert len(read_json(path)) == 100_001
    path.write_text("[" + "1," * 5_000_000 + "1]")
    with pytest.raises(DataError, match="more than 5000000 values"):
        read_json(path)
