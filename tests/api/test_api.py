"""The Python interface: three lines to a heatmap, whatever the scan comes as."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import medgen
from medgen import io
from medgen.api.given import volume_of
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.volume import Grid, Volume
from tests.builders.noise_detector import CUBE, save_noise_detector

# Mirrored and permuted: sides must not depend on the file's order.
AFFINE = np.array([[0, 0, -1.0, 6], [1.0, 0, 0, -4], [0, -1.0, 0, 5], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a detector of ten scans of noise, in two folds."""
    out = tmp_path_factory.mktemp("run")
    save_noise_detector(out / "model")
    return out


@pytest.fixture(scope="module")
def scan() -> Volume:
    """Noise with a bright cube off the middle."""
    data = np.random.default_rng(5).random((1, *CUBE)).astype(np.float32)
    data[0, 2:5, 7:10, 4:7] += 3
    return Volume(data, Grid(CUBE, AFFINE))


def test_a_scan_scores_alike_as_file_image_array_and_volume(run: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "scan.nii.gz")
    model = medgen.load(run)
    given = {
        "file": (tmp_path / "scan.nii.gz",),
        "text": (str(tmp_path / "scan.nii.gz"),),
        "image": (nib.Nifti1Image(scan.data[0], AFFINE),),
        "array": (scan.data[0], AFFINE),
        "channel first": (scan.data, AFFINE),
        "volume": (scan,),
    }
    scored = {name: model.score(*parts) for name, parts in given.items()}
    expected = scored["file"].heatmap
    assert np.isfinite(expected.get_fdata()).any()
    np.testing.assert_allclose(expected.affine, AFFINE)
    for name, own in scored.items():
        np.testing.assert_array_equal(own.heatmap.get_fdata(), expected.get_fdata(), err_msg=name)
        assert own.p == scored["file"].p
    peak = np.unravel_index(np.nanargmax(expected.get_fdata()), CUBE)
    assert all(low <= at < low + 3 for at, low in zip(peak, (2, 7, 4), strict=True))
    first = scored["file"].findings[0]
    assert first.peak_voxel == tuple(map(int, peak))
    np.testing.assert_allclose(first.peak_ras, nib.affines.apply_affine(AFFINE, peak))


def test_what_is_saved_is_what_is_said(run: Path, scan: Volume, tmp_path: Path) -> None:
    scored = medgen.load(run / "model").score(scan, name="anna")
    scored.save(tmp_path / "new" / "folder")
    said = json.loads((tmp_path / "new" / "folder" / "anna.json").read_text())
    assert said["p_values"] == pytest.approx(scored.p_values)
    assert said["verdict"] == scored.verdict
    assert [found["peak"] for found in said["findings"]] == pytest.approx([found.peak for found in scored.findings])
    kept = nib.load(tmp_path / "new" / "folder" / "anna_heat.nii.gz")
    np.testing.assert_array_equal(kept.get_fdata(), scored.heatmap.get_fdata())
    assert (tmp_path / "new" / "folder" / "anna.png").read_bytes().startswith(b"\x89PNG")


def test_notebooks_show_the_verdict_and_escape_names(run: Path, scan: Volume) -> None:
    scored = medgen.load(run).score(scan, name="a & b")
    shown = scored._repr_html_()
    assert "a &amp; b" in shown
    assert "data:image/png;base64," in shown
    assert scored.findings[0].region in shown
    assert scored.verdict in repr(scored)


@pytest.mark.parametrize(
    ("given", "affine", "found"),
    [
        (np.zeros(CUBE), None, "found no affine"),
        (np.zeros((3, 3)), np.eye(4), "found 2 axes"),
        (np.full(CUBE, np.nan), np.eye(4), "array"),
        (3, None, "found int"),
        ("missing.nii.gz", None, "missing.nii.gz"),
        ("missing.nii.gz", np.eye(4), "affine is for arrays only"),
        ({"T1": np.zeros(CUBE)}, np.eye(4), "found contrasts T1, expected one"),
        ({}, None, "found contrasts none, expected one"),
        (np.zeros((2, *CUBE)), np.eye(4), r"found 2 contrast\(s\), expected 1"),
        (np.zeros(CUBE), "abc", "affine: found no numbers"),
        (np.zeros(CUBE, dtype=complex), np.eye(4), "found complex128 values"),
        (np.ma.masked_all(CUBE), np.eye(4), "found a masked array"),
        (nib.Nifti1Image(np.zeros(CUBE, dtype=np.complex64), np.eye(4)), None, "complex64 values"),
    ],
)
def test_what_is_no_scan_is_refused_in_a_sentence(given: object, affine: np.ndarray | None, found: str) -> None:
    with pytest.raises(DataError, match=found):
        volume_of(given, affine, ())


def test_contrasts_are_taken_by_name_in_the_models_order() -> None:
    parts = {"FLAIR": np.full(CUBE, 2.0), "T1": np.full(CUBE, 1.0)}
    found = volume_of(parts, AFFINE, ("T1", "FLAIR"))
    assert found.data[:, 0, 0, 0].tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="found contrasts T1, expected T1, FLAIR"):
        volume_of({"T1": np.zeros(CUBE)}, AFFINE, ("T1", "FLAIR"))
    with pytest.raises(DataError, match="found 1 contrast"):
        volume_of(np.zeros(CUBE), AFFINE, ("T1", "FLAIR"))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        medgen.load(tmp_path)


def test_simulated_scans_pass_the_check_and_a_cut_file_does_not(tmp_path: Path) -> None:
    cohort = medgen.simulate(2, tmp_path / "cohort", spacing=8)
    assert len(cohort) == 2
    found = medgen.check(tmp_path / "cohort")
    assert found
    assert found.cases == 2
    broken = next((tmp_path / "cohort" / "images").iterdir())
    broken.write_bytes(broken.read_bytes()[:200])
    found = medgen.check(tmp_path / "cohort")
    assert not found
    assert broken.name in repr(found)
    assert broken.name in found._repr_html_()


def test_the_package_imports_nothing_heavy_until_it_is_asked() -> None:
    code = (
        "import sys, medgen; print(sorted({'torch', 'monai', 'mlflow', 'SimpleITK'} & set(sys.modules)), dir(medgen))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("[] ")
    assert "'load'" in said
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        medgen.lod  # noqa: B018


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x\ny", None])
def test_a_name_is_a_file_name_and_no_path(run: Path, scan: Volume, name: object) -> None:
    with pytest.raises(ConfigError, match="expected a plain file name"):
        medgen.load(run).score(scan, name=name)  # type: ignore[arg-type]


@pytest.mark.parametrize(("person", "found"), [({"aeg": 7}, "found aeg"), ("age", "found str")])
def test_what_the_model_does_not_know_of_people_is_refused(run: Path, scan: Volume, person: object, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        medgen.load(run).score(scan, person=person)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: medgen.load(3), "model: found 3 (int), expected a path"),
        (lambda: medgen.load(None), "model: found None"),
        (lambda: medgen.load("x", device=3), "device: found 3 (int)"),
        (lambda: medgen.load("x", device="mps"), "GPU of a Mac"),
        (lambda: medgen.check(3), "path: found 3"),
        (lambda: medgen.check("x", workers="a"), "workers: found 'a' (str), expected a whole number"),
        (lambda: medgen.simulate("3", "x"), "n: found '3' (str)"),
        (lambda: medgen.simulate(2.5, "x"), "n: found 2.5 (float)"),
        (lambda: medgen.simulate(True, "x"), "n: found True (bool)"),
        (lambda: medgen.simulate(2, 3), "out: found 3"),
        (lambda: medgen.simulate(2, "x", seed="a"), "seed: found 'a'"),
        (lambda: medgen.simulate(2, "x", spacing="a"), "spacing: found 'a'"),
        (lambda: medgen.simulate(2, "x", spacing=None), "spacing: found None"),
        (lambda: medgen.synthesize(3, 3), "run: found 3"),
        (lambda: medgen.synthesize("x", "3"), "n: found '3'"),
        (lambda: medgen.synthesize("x", 0), "n: found 0 (int), expected a whole number from 1"),
        (lambda: medgen.synthesize("x", 1, seed=-1), "seed: found -1"),
        (lambda: medgen.synthesize("x", 1, backend=3), "backend: found 3"),
        (lambda: medgen.synthesize("x", 1, options="flow.a=1"), "options: found 'flow.a=1' (str), expected a list"),
    ],
)
def test_arguments_of_another_kind_are_refused_in_a_sentence(call, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        call()
    assert words in str(error.value)
    assert not list(tmp_path.iterdir())


def test_voxels_that_cannot_be_millimetres_are_refused_at_once(run: Path) -> None:
    with pytest.raises(DataError, match="1e-06 x 1e-06 x 1e-06 mm; expected 0.01 to 20 mm"):
        medgen.load(run).score(np.ones((8, 8, 8)), np.diag([1e-6, 1e-6, 1e-6, 1]))
