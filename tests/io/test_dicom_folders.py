"""Every bad folder is refused in words, every odd but valid one is read with the right voxels in the right place."""

from __future__ import annotations

import time
import tracemalloc
import warnings

import numpy as np
import pytest
from pydicom import uid

from medgen import io
from medgen.data.integrity import check
from medgen.data.layouts.detect import CohortConfig, load_cohort
from medgen.io.dicom.series import dicom_notes
from tests.builders.dicom_folders import BAD, ODD, image, other, put, save, segmentation, series, voxels


def written(write, folder, caplog):
    """The folder; what pydicom says of bad values while they are written is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write(folder)
    caplog.clear()
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused_in_words(name, tmp_path, capfd, caplog):
    case = BAD[name]
    folder = written(case.write, tmp_path / "scan", caplog)
    start = time.monotonic()
    result = check(folder, CohortConfig(slices=case.slices))
    assert time.monotonic() - start < 2
    text = " | ".join(map(str, result.faults))
    assert result.faults
    for word in case.words:
        assert word.lower() in text.lower()
    assert "SECRET" not in text
    assert "\n" not in text
    assert str(tmp_path) in text
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [name for name in BAD if "bomb" in name or "4 GB" in name or "deep" in name])
def test_bombs_cost_neither_time_nor_memory(name, tmp_path):
    folder = BAD[name].write(tmp_path / "scan")
    tracemalloc.start()
    start = time.process_time()
    try:
        assert check(folder).faults
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5  # slowed down by the tracing; it is below 1 s without


@pytest.mark.parametrize("name", ODD)
def test_odd_but_valid_folders_are_read_right(name, tmp_path, capfd, caplog):
    case = ODD[name]
    folder = written(case.write, tmp_path / "scan", caplog)
    assert check(folder).faults == []
    volume = io.read(folder)
    np.testing.assert_allclose(volume.data[0].transpose(2, 1, 0), case.values, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(volume.grid.affine, case.affine, atol=2e-3)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_what_is_no_scan_is_left_out_and_said(tmp_path):
    folder = series(tmp_path / "scan")
    assert dicom_notes(folder) == []
    other(folder, "sr.dcm", uid.BasicTextSRStorage, "SR")
    segmentation(folder / "seg.dcm")
    assert dicom_notes(folder) == [f"left out 1 {kind} object(s), which are no scan" for kind in ("SEG", "SR")]
    assert check(folder).notes == tuple(f"{folder}: {note}" for note in dicom_notes(folder))


def test_text_in_the_pixels_is_said_and_no_fault(tmp_path):
    def burned(index, item):
        item.BurnedInAnnotation = "YES" if index < 2 else "NO"
        item.RecognizableVisualFeatures = "YES"

    folder = series(tmp_path / "scan", burned)
    result = check(folder)
    assert result.ok
    assert "2 file(s) with text burned into the pixels" in " ".join(result.notes)
    assert "6 file(s) with recognisable features" in " ".join(result.notes)


def test_slices_are_declared_by_option_or_by_column(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        series(tmp_path / name, put(SeriesInstanceUID=f"1.2.{seed}"), data=voxels(seed))
    assert check(tmp_path, CohortConfig(slices=6)).ok
    assert [fault.found for fault in check(tmp_path, CohortConfig(slices=7)).faults] == ["6 slices"] * 2
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("id,subject,image,slices\na,a,a,6\nb,b,b,8\n")
    (fault,) = check(manifest).faults
    assert fault.file.endswith("b")
    assert fault.expected == "8 slices, as declared"
    manifest.write_text("id,subject,image,slices\na,a,a,six\n")
    assert "slices 'six' declared" in check(manifest).faults[0].found


def test_parts_of_one_series_in_several_folders_are_one_case(tmp_path):
    series(tmp_path / "p1", data=voxels(0))
    series(tmp_path / "p2", lambda i, d: setattr(d, "SeriesInstanceUID", "1.9"), data=voxels(1))
    for path in sorted((tmp_path / "p1").iterdir())[3:]:
        (tmp_path / "p1" / "rest").mkdir(exist_ok=True)
        path.rename(tmp_path / "p1" / "rest" / path.name)
    manifest = load_cohort(tmp_path)
    assert [case.id for case in manifest] == ["p1", "p2"]
    assert manifest.cases[0].read_image().data.shape[3] == 6


def test_a_file_beside_a_damaged_one_does_not_hide_it(tmp_path):
    folder = series(tmp_path / "scan")
    (folder / "005.dcm").write_bytes((folder / "005.dcm").read_bytes()[:200])
    assert "005.dcm" in str(check(folder / "000.dcm").faults[0])


def test_a_segmentation_is_not_read_as_a_scan(tmp_path):
    segmentation(tmp_path / "seg.dcm")
    assert "SEG" in check(tmp_path / "seg.dcm").faults[0].found
    item = image(voxels()[0])
    save(item, tmp_path / "one" / "a.dcm")
    assert check(tmp_path / "one" / "a.dcm").faults


def test_several_series_of_a_patient_are_said(tmp_path):
    for patient in ("A", "B"):
        for number, kind in enumerate(("t1", "t2")):
            series(
                tmp_path / patient / kind,
                put(PatientID=patient, SeriesInstanceUID=f"1.2.{ord(patient)}.{number + 1}"),
            )
    cohort = load_cohort(tmp_path)
    assert len(cohort) == 4
    assert len(cohort.subjects) == 2
    (said,) = cohort.intake.decisions
    assert said.startswith("2 of 2 patients have several series each, such as A/t1, A/t2, and each counts as a scan")
    assert load_cohort(tmp_path / "A" / "t1").intake.decisions == ()
