"""A disk that is full: one sentence with the file's name, the earlier file as it was, and nothing half-written."""

from __future__ import annotations

import errno
import functools
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from medgen import io
from medgen.anomaly.comparison import measurement_file
from medgen.anomaly.evaluation.measure import Measurement
from medgen.config import Config
from medgen.data.pseudonyms import Pseudonyms
from medgen.errors import MedgenError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.models.stored_arrays import Stored
from medgen.preprocessing.recipe import Preprocess
from medgen.report.html import Report, png
from medgen.runs.folder import RunFolder, open_run
from medgen.runs.journal import NAME, Cursor, Journal, entries
from medgen.runs.outputs import write_outputs_record
from medgen.system import files
from medgen.training.checkpoint import save_checkpoint
from medgen.volume import Grid, Volume

SHAPE = (8, 10, 8)


class Settings(Config):
    out: str = "x"
    note: str = "x" * 20_000


def numbers(version: int, n: int = 4096) -> np.ndarray:
    """What no compression makes much smaller; another version, other numbers."""
    return np.random.default_rng(version).random(n, dtype=np.float32)


def volume(path: Path, version: int) -> None:
    io.write(Volume(numbers(version).reshape(1, 16, 16, 16), Grid((16, 16, 16), np.eye(4))), path)


def report(path: Path, version: int) -> None:
    made = Report(f"Report {version}")
    made.section("Numbers")
    made.text(" ".join(map(str, numbers(version))))
    made.write(path)


@functools.cache
def picture(version: int) -> bytes:
    figure = Figure(figsize=(2, 2), dpi=50)
    figure.subplots().imshow(numbers(version).reshape(64, 64))
    return png(figure)


def artifact(path: Path, version: int) -> None:
    model = build({"family": "vae", "shape": SHAPE, "widths": [16], "latent": 3, "codes": [[2, 2]]}, seed=version)
    TrainedModel([model], Preprocess(shape=SHAPE, spacing=(2.0, 2.0, 2.0))).save(path)


def measurements(path: Path, version: int) -> None:
    region = np.ones(SHAPE, bool)
    truth = numbers(version)[: region.size] > 0.5
    rows = {"fused": numbers(version)[: region.size].astype(np.float16)}
    measurement_file.save(path, [Measurement("c", "s", "blob", 3.0, 1.0, region, truth, rows, {"a": 1.0}, {"a": 0.5})])


def key(path: Path, version: int) -> None:
    if not path.exists():
        Pseudonyms(path).save()
    names = Pseudonyms(path)
    for number in range(300):
        names.name("case", f"{version}-{number}")
    names.save()


def config(path: Path, version: int) -> None:
    # A run that did not end, and is gone on with.
    with pytest.raises(RuntimeError, match="here"), open_run(path.parent, Settings(), resume=path.exists()):
        raise RuntimeError("here")


def rows(version: int) -> list[dict[str, float]]:
    return [{"a": float(value)} for value in numbers(version)]


def state(version: int) -> dict[str, Any]:
    return {"fingerprint": "f", "conditions": {}, "model": {"w": torch.from_numpy(numbers(version))}}


# Name → (file or folder that is written, how).
WRITERS: dict[str, tuple[str, Callable[[Path, int], object]]] = {
    "NIfTI": ("scan.nii", volume),
    "NIfTI, compressed": ("scan.nii.gz", volume),
    "NRRD": ("scan.nrrd", volume),
    "MetaImage": ("scan.mha", volume),
    "JSON": ("a.json", lambda path, version: files.write_json(path, numbers(version))),
    "CSV": ("a.csv", lambda path, version: files.write_csv(path, rows(version), ["a"])),
    "text": ("a.md", lambda path, version: files.write_text(path, str(version) * 20_000)),
    "report": ("report.html", report),
    "picture": ("a.png", lambda path, version: files.write_bytes(path, picture(version))),
    "artifact": ("model", artifact),
    "generator": ("deform", lambda path, version: Stored("deform", {"w": numbers(version)}, {}).save(path)),
    "checkpoint": ("checkpoint/state.pt", lambda path, version: save_checkpoint(path.parents[1], state(version))),
    "measurements": ("measurements.npz", measurements),
    "pseudonyms": ("cohort.medgen-key.json", key),
    "cursor": ("journal.cursor", lambda path, version: Cursor(str(version) * 20_000).save(path.parent)),
    "configuration": ("config.yaml", config),
    "metrics": ("metrics.json", lambda path, version: RunFolder(path.parent).write_metrics({"a": numbers(version)})),
    "failures": (
        "failures.csv",
        lambda path, version: RunFolder(path.parent).write_failures([("c", "s", str(version) * 20_000)]),
    ),
    "record of outputs": ("outputs.json", lambda path, version: write_outputs_record(path.parent)),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, links and leftovers included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"link"
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or path.name.startswith((files.TEMPORARY, files.REPLACED))
    }


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file of this process can grow beyond ``size`` bytes; the system refuses to write on, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_a_full_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """New files lie on a device that is always full."""

    def mkstemp(*, prefix: str = "tmp", suffix: str = "", dir: object = None) -> tuple[int, str]:
        name = f"{dir}/{prefix}full{suffix}"
        Path(name).symlink_to("/dev/full")
        return os.open(name, os.O_RDWR), name

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)


def raising(monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in calls:
        monkeypatch.setattr(call, full)


@pytest.mark.parametrize("how", ["at once", "half way", "on a full device", "when it is synced", "no name is free"])
@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS.keys())
def test_writers_on_a_full_disk(tmp_path, monkeypatch, name, write, how):
    folder, size = tmp_path / "out", 0
    folder.mkdir()
    path = folder / name
    write(path, 1)
    (folder / "other.txt").write_text("x" * 1000)
    earlier = contents(folder)
    if how == "half way":
        (tmp_path / "again").mkdir()
        write(tmp_path / "again" / name, 2)
        size = max(map(len, contents(tmp_path / "again").values())) // 2
        assert size > 0
    if how == "on a full device":
        on_a_full_device(monkeypatch)
    elif how == "when it is synced":
        raising(monkeypatch, "os.fsync")
    elif how == "no name is free":
        raising(monkeypatch, "tempfile.mkstemp", "tempfile.mkdtemp")
    with at_most(size if how in ("at once", "half way") else 1 << 30), pytest.raises(MedgenError) as caught:
        write(path, 2)
    monkeypatch.undo()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert files.TEMPORARY not in message
    if path.suffix not in (".nrrd", ".mha"):
        # ITK does not say why.
        assert "full" in message or "No space left" in message or "File too large" in message
    assert contents(folder) == earlier
    write(path, 2)


@pytest.mark.parametrize("write", [write for _, write in WRITERS.values()], ids=WRITERS.keys())
def test_the_writers_do_write(tmp_path, write):
    name = next(name for name, other in WRITERS.values() if other is write)
    write(tmp_path / name, 1)
    assert contents(tmp_path)


def test_a_journal_holds_what_it_cannot_write_and_writes_it_later(tmp_path, caplog):
    journal = Journal(tmp_path)
    journal.append("r", "text", name="a", text="first")
    earlier = (tmp_path / NAME).read_bytes()
    # In the middle of the next line.
    with at_most(len(earlier) + 40):
        for number in range(3):
            journal.append("r", "text", name="a", text=f"held {number}")
    assert (tmp_path / NAME).read_bytes().startswith(earlier)
    assert len([line for line in caplog.messages if "held in memory" in line]) == 1
    journal.append("r", "text", name="a", text="last")
    journal.close()
    found = {entry["seq"]: entry["text"] for entry, _ in entries(tmp_path / NAME)}
    assert [found[number] for number in sorted(found)] == ["first", "held 0", "held 1", "held 2", "last"]
    times = [entry["time"] for entry, _ in entries(tmp_path / NAME)]
    assert times == sorted(times)


def test_a_journal_that_cannot_even_be_closed_does_not_end_the_run(tmp_path):
    journal = Journal(tmp_path)
    with at_most(0):
        journal.append("r", "end", status="FINISHED")
        journal.close()
    journal.append("r", "end", status="FINISHED")
    journal.close()
    assert [json.loads(line)["seq"] for line in (tmp_path / NAME).read_text().splitlines() if line][-1] == 1
