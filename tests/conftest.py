"""Fixtures and limits shared by all tests."""

from __future__ import annotations

import os
import runpy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

# One thread: on small machines several test processes fight for cores, and results must not depend on the count.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# No test reaches another machine, nor does any process that a test starts: see the file.
_OFFLINE = Path(__file__).parent / "installation" / "offline"
_NETWORK_LOG = Path(tempfile.mkdtemp(prefix="medgen-tests-")) / "network.log"
os.environ["MEDGEN_TESTS_NETWORK_LOG"] = str(_NETWORK_LOG)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_OFFLINE), os.environ.get("PYTHONPATH"))))
runpy.run_path(str(_OFFLINE / "sitecustomize.py"))


@pytest.fixture
def network_log() -> Path:
    """Where attempts to reach another machine are written, a line each; missing where there were none."""
    return _NETWORK_LOG


@pytest.fixture(autouse=True)
def _offline() -> Iterator[None]:
    """Fails a test that, or whose processes, tried to reach another machine, also if the error was swallowed."""
    yield
    if _NETWORK_LOG.exists():
        tried = _NETWORK_LOG.read_text()
        _NETWORK_LOG.unlink()
        pytest.fail(f"tried to reach another machine: {tried}")


@pytest.fixture(scope="session", autouse=True)
def _no_system_metrics() -> Iterator[None]:
    """How many numbers a run has must not depend on how long it takes here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data is not at ../shared/data")
    return folder


@pytest.fixture(scope="session")
def write_thick_slices() -> Callable[..., Path]:
    """Writes an nnU-Net cohort of thick slices, 2 x 2 x 5 mm, with nested ellipsoids as labels."""
    from medgen import io
    from medgen.system import files
    from medgen.volume import Grid, Volume

    shape, spacing = (20, 24, 12), np.array([2.0, 2.0, 5.0])
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    points = (np.indices(shape).reshape(3, -1).T - (np.array(shape) - 1) / 2) * spacing

    def write(
        folder: Path,
        n: int = 8,
        labels: Sequence[int] = (2, 7, 30),
        channels: int = 1,
        prefix: str = "case",
        seed: int = 0,
    ) -> Path:
        for number in range(n):
            rng = np.random.default_rng([seed, number])
            centre, radii = rng.normal(0, 1.5, 3), np.array([15.0, 18.0, 22.0]) * rng.uniform(0.9, 1.1, 3)
            mask, image = np.zeros(shape, np.int32), rng.normal(300, 10, (channels, *shape))
            for label, size in zip(labels, (1.0, 0.65, 0.35), strict=True):
                inside = (np.linalg.norm((points - centre) / radii, axis=1) < size).reshape(shape)
                mask[inside] = label
                image[:, inside] += 150
            for channel, data in enumerate(image.astype(np.float32)):
                io.write(Volume(data[None], grid), folder / "imagesTr" / f"{prefix}{number}_{channel:04d}.nii.gz")
            io.write(Volume(mask.astype(np.int16)[None], grid), folder / "labelsTr" / f"{prefix}{number}.nii.gz")
        declared = {"background": 0, **{f"part {label}": label for label in labels}}
        names = {str(channel): "MR" for channel in range(channels)}
        description = {"name": "thick", "channel_names": names, "labels": declared, "file_ending": ".nii.gz"}
        files.write_json(folder / "dataset.json", description)
        return folder

    return write
