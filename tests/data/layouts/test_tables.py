import pytest

from medgen.data.layouts.detect import load_cohort
from medgen.data.layouts.tables import read_table
from medgen.faults import FaultyDataError
from tests.builders.cohort_folders import labels, scan


@pytest.mark.parametrize("head", ["", "\ufeff", "sep=;\r\n", "\ufeffsep=;\r\n"])
def test_spreadsheets_with_semicolons(tmp_path, head):
    table = tmp_path / "t.csv"
    table.write_bytes(f"{head}case;subject;age\r\na;s1;61,5\r\n".encode())
    columns, rows = read_table(table)
    assert columns == ["case", "subject", "age"]
    assert rows[0][1] == {"case": "a", "subject": "s1", "age": "61.5"}
    assert rows[0][0] == (3 if "sep" in head else 2)


def test_tabs_and_commas(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("a\tb\n1,5\t2\n")
    assert read_table(table)[1] == [(2, {"a": "1,5", "b": "2"})]
    table.write_text("a,b;c\n1,2;3\n")
    assert read_table(table)[1] == [(2, {"a": "1", "b;c": "2;3"})]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_manifests_from_windows(tmp_path, delimiter):
    lines = ["id,subject,image,mask"]
    for number in range(2):
        scan(tmp_path / f"bilder/p{number}.nii.gz")
        labels(tmp_path / f"masken/p{number}.nii.gz")
        lines.append(f"p{number},s{number},bilder\\p{number}.nii.gz,masken\\p{number}.nii.gz")
    text = "\r\n".join(lines).replace(",", delimiter)
    (tmp_path / "manifest.csv").write_bytes(f"\ufeff{text}\r\n".encode())
    manifest = load_cohort(tmp_path)
    assert [case.images[0].name for case in manifest] == ["p0.nii.gz", "p1.nii.gz"]
    assert len(manifest.labelled()) == 2
    (tmp_path / "bilder" / "p1.nii.gz").unlink()
    with pytest.raises(FaultyDataError, match=r"manifest.csv:3: bilder.p1.nii.gz is not there"):
        load_cohort(tmp_path)
