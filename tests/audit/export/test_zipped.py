"""An exported run: others verify it with Python alone, catalogues read it, and nobody's scan is in it unasked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from medgen.audit.export import stand_alone
from medgen.audit.export.zipped import export_run
from medgen.audit.signature import new_key, sign
from medgen.errors import AuditError, DataError
from medgen.system import files


def verify(place, *arguments):
    """What the verifier says that lies in an unpacked export, run by Python without any package."""
    command = [sys.executable, "-I", "-S", str(place / "verify.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
    return folder


@pytest.mark.parametrize("name", ["anomaly", "scored", "augment"])
def test_others_verify_an_export_with_python_alone(root, tmp_path, name):
    made = export_run(root / name, tmp_path / "run.zip")
    code, said = verify(unpacked(tmp_path / "run.zip", tmp_path / "x"))
    assert (code, said.count("ok ")) == (0, 4), said
    assert f"{len(made.record.files) - len(made.left_out)} of the run's {len(made.record.files)} outputs" in said
    code, _ = verify(tmp_path / "x", str(tmp_path / "run.zip"))
    assert code == 0


def test_no_scan_is_in_an_export_unless_asked_for(root, tmp_path):
    made = export_run(root / "anomaly", tmp_path / "run.zip")
    kept = {name.removeprefix("run/") for name in made.contents if name.startswith("run/")}
    # Images, weights, pages with pictures and tables with a row for each scan.
    assert {"config.yaml", "journal.jsonl", "metrics.json", "outputs.json"} <= kept
    assert set(made.left_out) | kept - {"outputs.json", "journal.jsonl"} == set(made.record.files)
    page = made.contents["report-without-pictures.html"].decode()
    assert "base64" not in page
    assert "<p>b</p>" in page
    assert "a picture was left out" in page
    assert b"no file of that name" not in made.contents["cohort.csv"]
    single = export_run(root / "scored", tmp_path / "scored.zip")
    assert "metrics.json" in single.left_out
    # What is found in a patient is in the journal's descriptions and numbers, too.
    journal = single.contents["run/journal.jsonl"]
    assert b"forgotten" in journal
    assert b'"kind": "params"' not in journal
    assert b"new" not in journal
    assert "configuration-without-scans.yaml" in single.contents
    everything = export_run(root / "anomaly", tmp_path / "all.zip", patient_data=True)
    assert everything.left_out == {}
    assert "run/heatmaps/b.nii.gz" in everything.contents
    assert verify(unpacked(tmp_path / "all.zip", tmp_path / "all"))[0] == 0


def test_the_same_run_gives_the_same_zip(root, tmp_path):
    for name in ("one", "two"):
        export_run(root / "anomaly", tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with pytest.raises(DataError, match="exists already"):
        export_run(root / "anomaly", tmp_path / "one.zip")


@pytest.mark.parametrize(
    ("file", "failing"),
    [
        ("run/metrics.json", ["files of the export", "outputs"]),
        ("run/outputs.json", ["files of the export", "the record"]),
        ("run/journal.jsonl", ["files of the export", "the journal"]),
        ("README.md", ["files of the export"]),
    ],
)
def test_a_flipped_byte_is_found_also_where_the_listing_was_made_anew(root, tmp_path, file, failing):
    export_run(root / "anomaly", tmp_path / "run.zip")
    place = unpacked(tmp_path / "run.zip", tmp_path / "x")
    content = bytearray((place / file).read_bytes())
    middle = content.index(b'"seed": 3') + 8 if file == "run/outputs.json" else len(content) // 2
    content[middle] ^= 1
    (place / file).write_bytes(content)
    code, said = verify(place)
    assert code == 1
    failed = [line for line in said.splitlines() if line.startswith("FAILED")]
    assert len(failed) >= len(failing), said
    assert file in failed[0]
    listing = place / "manifest-sha256.txt"
    lines = [line for line in listing.read_text().splitlines() if not line.endswith(f"  {file}")]
    listing.write_text("\n".join([*lines, f"{files.sha256_file(place / file)}  {file}"]) + "\n")
    code, said = verify(place)
    assert code == (0 if file == "README.md" else 1), said


@pytest.mark.parametrize("change", ["removed", "added", "moved", "ended"])
def test_a_changed_journal_is_found(root, tmp_path, change):
    export_run(root / "anomaly", tmp_path / "run.zip")
    place = unpacked(tmp_path / "run.zip", tmp_path / "x")
    journal = place / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    changed = {
        "removed": [*lines[:1], *lines[2:]],
        "added": [*lines[:1], *lines[:1], *lines[1:]],
        "moved": [lines[1], lines[0], *lines[2:]],
        "ended": lines[:-1],
    }
    journal.write_bytes(b"".join(changed[change]))
    code, said = verify(place)
    assert code == 1
    assert any(line.startswith("FAILED") and "the journal" in line for line in said.splitlines()), said


def test_who_signed_is_checked_by_python_alone(root, tmp_path):
    run = tmp_path / "signed"
    shutil.copytree(root / "anomaly", run)
    new_key(tmp_path / "key.pem")
    new_key(tmp_path / "other.pem")
    sign(run, tmp_path / "key.pem")
    export_run(run, tmp_path / "run.zip")
    place = unpacked(tmp_path / "run.zip", tmp_path / "x")
    code, said = verify(place, str(place), str(tmp_path / "key.pem.pub"))
    assert (code, "the signature is of the given key" in said) == (0, True), said
    code, said = verify(place, str(place), str(tmp_path / "other.pem.pub"))
    assert (code, "FAILED" in said) == (1, True)
    told = files.read_json(place / "run" / "outputs.json.sig")
    assert stand_alone.holds(*_signed(told, place))
    key, message, signature = _signed(told, place)
    assert not stand_alone.holds(key, message + b".", signature)
    assert not stand_alone.holds(key, message, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not stand_alone.holds(key, message, bytes(64))


def _signed(told, place):
    from base64 import b64decode

    digest = files.sha256_file(place / "run" / "outputs.json")
    message = f"medgen-signature\n{told['signed']}\n{digest}\n".encode()
    return b64decode(told["public_key"]), message, b64decode(told["signature"])


def test_what_is_not_as_recorded_is_not_exported(root, tmp_path):
    run = tmp_path / "altered"
    shutil.copytree(root / "anomaly", run)
    (run / "metrics.json").write_text('{"auroc": 0.9}\n')
    with pytest.raises(AuditError, match=r"so it is not exported: metrics\.json: altered"):
        export_run(run, tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


def test_what_is_no_export_is_one_line(root, tmp_path):
    export_run(root / "anomaly", tmp_path / "run.zip")
    place = unpacked(tmp_path / "run.zip", tmp_path / "x")
    for text in ("", "[]", "{", "[" * 90_000, '{"sha256": 3}'):
        (place / "run" / "outputs.json").write_text(text)
        code, said = verify(place)
        assert code == 1
        assert "Traceback" not in said
        assert "FAILED" in said
    (tmp_path / "no.zip").write_text("no zip")
    assert "Traceback" not in verify(place, str(tmp_path / "no.zip"))[1]
    with pytest.raises(DataError, match="lies in the run"):
        export_run(root / "anomaly", root / "anomaly" / "x.zip")
    with pytest.raises(DataError, match="its folder is not there"):
        export_run(root / "anomaly", tmp_path / "nowhere" / "x.zip")


def test_the_verifier_is_short_and_needs_nothing_but_python():
    text = Path(stand_alone.__file__).read_text()
    assert len(text.splitlines()) <= 150
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "__future__"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["anomaly", "scored"])
def test_the_community_s_validator_accepts_the_metadata(root, tmp_path, monkeypatch, name):
    """RO-Crate 1.2, and the profiles Process Run Crate and Workflow Run Crate, all that they require."""
    validator = pytest.importorskip("rocrate_validator", reason="make installs it for the tests")
    from rocrate_validator import models, services
    from rocrate_validator.utils import http

    assert validator
    spec = find_spec("rocrate")
    assert spec is not None
    assert spec.origin is not None
    vocabulary = json.loads((Path(spec.origin).parent / "data" / "ro-crate.jsonld").read_text())
    # It carries 1.3; of what an export says, 1.2 means one word otherwise.
    vocabulary["@context"]["ComputationalWorkflow"] = "https://bioschemas.org/ComputationalWorkflow"

    def answer(_, url, *args, **kwargs):
        """The vocabulary of RO-Crate from the package in place of the web; nothing else is fetched."""
        known = url.endswith("/context")
        found = vocabulary if known else {}
        text, code = json.dumps(found), 200 if known else 404
        about = {
            "status_code": code,
            "ok": known,
            "headers": {"Content-Type": "application/ld+json"},
            "json": lambda: found,
        }
        return SimpleNamespace(text=text, content=text.encode(), **about)

    http.HttpRequester(offline=True)
    for method in ("get", "head"):
        monkeypatch.setattr(http.HttpRequester, method, answer, raising=False)
    export_run(root / name, tmp_path / "run.zip", author="A. Reader", licence="https://spdx.org/licenses/CC-BY-4.0")
    place = unpacked(tmp_path / "run.zip", tmp_path / "crate")
    # The second brings the checks of Process Run Crate with it.
    for profile in ("ro-crate-1.2", "workflow-run-crate-0.5"):
        settings = services.ValidationSettings(
            rocrate_uri=str(place),
            profile_identifier=profile,
            requirement_severity=models.Severity.REQUIRED,
            offline=True,
            abort_on_first=False,
        )
        result = services.validate(settings)
        assert [issue.message for issue in result.get_issues()] == []
        assert result.passed()
    # A validator that accepts anything would be none.
    metadata = place / "ro-crate-metadata.json"
    content = files.read_json(metadata)
    files.write_json(metadata, {**content, "@graph": [own for own in content["@graph"] if own["@id"] != "./"]})
    assert not services.validate(settings).passed()
