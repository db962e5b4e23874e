"""Scans to be scored as a user names them: one file, or one for each channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgen import io
from medgen.data.cases import Case, sha256_of
from medgen.errors import DataError
from medgen.pipelines.given_scans import GivenScan, missing_channels
from medgen.volume import Grid, Volume
from tests.builders.dicom_folders import put, series, voxels

GRID = Grid((6, 5, 4), np.diag([2.0, 2.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("T1=x/p1_T1.nii.gz,T2=x/p1_T2.nii.gz", "p1"),
        ("T1=x/case_0000.nii.gz,T2=x/case_0001.nii.gz", "case"),
        ("T1=x/p1.nii.gz,T2=x/p1_T2.nii.gz", "p1"),
        ("T1=anna/T1.nii.gz,T2=anna/T2.nii.gz", "anna"),
        ("T1=x/sim-0000_T1.nii.gz,T2=x/sim-0000_T2.nii.gz", "sim-0000"),
        ("T1=x/sim-0000_T1.nii.gz,T2=x/sim-0005_T2.nii.gz", "sim-0000"),
        ("T1=x/sim-0005.nii.gz,T2=x/sim-0006.nii.gz", "sim"),
        ("FLAIR=x/sub-01_FLAIR_desc-n4.nii.gz,T1=x/sub-01_T1w.nii.gz", "sub-01"),
        ("T1=x/p1.T1_brain.nii.gz,T2=x/p1.T2_brain.nii.gz", "p1"),
        ("T1=anna/T1.nii.gz", "T1.nii.gz"),
        ("scan.nii.gz", "scan.nii.gz"),
    ],
)
def test_a_scan_is_called_after_its_files(given: str, called: str) -> None:
    assert GivenScan.parse(Path(given)).called.name == called


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("T1=a.nii,T1=b.nii", "contrast T1 is there twice"),
        ("T1=a.nii,b.nii", "found 'b.nii'"),
        ("T1=,T2=b.nii", "found 'T1='"),
        ("T1=a.nii,T2=a.nii", "is given for two contrasts"),
    ],
)
def test_channels_that_cannot_be(given: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        GivenScan.parse(Path(given))


def test_a_file_whose_name_looks_like_channels_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "T1=x.nii.gz"
    path.write_bytes(b"")
    assert GivenScan.parse(path).channels == {}


def test_a_series_has_the_hash_that_manifests_have(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        series(tmp_path / folder / "scan")
    given = GivenScan.parse(Path(f"T1={tmp_path / 'a' / 'scan'},T2={tmp_path / 'b' / 'scan'}"))
    assert given.hashes() == {f"image {name}": sha256_of(path) for name, path in given.channels.items()}


def test_series_of_two_patients_are_no_channels_of_one_scan(tmp_path: Path) -> None:
    one, same, other, nobody = (
        series(tmp_path / name, put(PatientID=patient), data=voxels(seed))
        for seed, (name, patient) in enumerate([("a", "P1"), ("b", "P1"), ("c", "P2"), ("d", "")])
    )
    for second in (same, nobody):
        GivenScan.parse(Path(f"T1={one},T2={second}")).read(("T1", "T2"))
    with pytest.raises(
        DataError, match=r"c: another PatientID than .*a; expected the channels of case .* one patient"
    ) as said:
        GivenScan.parse(Path(f"T1={one},T2={other}")).read(("T1", "T2"))
    assert "P2" not in str(said.value)
    with pytest.raises(DataError, match="another PatientID"):
        Case("x", "x", (one, other)).read_image()


def test_channels_are_read_in_the_order_of_the_model(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((2, *GRID.shape), dtype=np.float32)
    for number in range(2):
        io.write(Volume(data[number : number + 1], GRID), tmp_path / f"{number}.nii.gz")
    scan = GivenScan.parse(Path(f"FLAIR={tmp_path / '1.nii.gz'},T1={tmp_path / '0.nii.gz'}"))
    np.testing.assert_array_equal(scan.read(("T1", "T2", "FLAIR")).data, data)
    io.write(Volume(data, GRID), tmp_path / "both.nii.gz")
    np.testing.assert_array_equal(GivenScan.parse(tmp_path / "both.nii.gz").read(("T1", "FLAIR")).data, data)
    with pytest.raises(DataError, match="2 channels; expected 1: T1; give NAME=FILE for each"):
        GivenScan.parse(tmp_path / "both.nii.gz").read(("T1",))


def test_what_is_missing_is_the_same_for_all_scans() -> None:
    names = ("T1", "T2", "FLAIR")
    one, other, whole, bare = (
        GivenScan.parse(Path(text)) for text in ("T1=a,FLAIR=b", "T1=c", "T2=e,T1=d,FLAIR=f", "g.nii")
    )
    assert missing_channels([one, one], names) == ("T2",)
    assert missing_channels([whole, bare], names) == ()
    with pytest.raises(DataError, match="expected scans with the same contrasts"):
        missing_channels([one, other], names)
    with pytest.raises(DataError, match="no contrast PD; expected T1, T2, FLAIR"):
        missing_channels([GivenScan.parse(Path("PD=x"))], names)
    with pytest.raises(DataError, match="does not say what its contrasts are called"):
        missing_channels([one], ())
