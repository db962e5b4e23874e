"""Whom a synthetic cohort knows through the models that its generators started from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medgen.audit.leaks import find_leaks
from medgen.data.cases import Case
from medgen.errors import AuditError
from medgen.synthesis.backend import FitContext
from medgen.synthesis.export.provenance import FOLDER, LEARNT_FROM, learnt_from
from medgen.synthesis.pair import pair_class
from medgen.synthesis.sources import Sources
from medgen.system import files
from medgen.training.transfer.source import Lineage
from tests.builders.labelled_scans import blobs, context, sources

__all__ = ["context", "sources"]

BEFORE = Lineage(frozenset({"old-1"}), frozenset({"ann"}), frozenset({"f" * 64}))


def cohort(folder: Path, known: Lineage | None, sources: Sources, *, other_people: bool = False) -> Path:
    """A cohort whose one generator started from a model that knows these people, with the record of one scan."""
    start = {"sha256": "a" * 64, "other_people": other_people}
    backend: Any = SimpleNamespace(name="flow", starts={"flow (image)": start}, lineages={"flow (image)": known})
    files.write_json(folder / FOLDER / LEARNT_FROM, learnt_from(sources, [backend]))
    record = {"format": "medgen-synthetic-scan", "version": 1, "id": "syn-1", "files": {}, "parents": []}
    record["generator_sha256"] = "b" * 64
    files.write_json(folder / FOLDER / "syn-1.json", files.sealed({**record, "started_from": ["a" * 64]}))
    return folder


def listed(folder: Path, *cases: str) -> Path:
    path = folder / "cases.txt"
    path.write_text("\n".join(cases))
    return path


def test_a_case_of_the_model_before_is_a_leak(tmp_path: Path, sources: Sources) -> None:
    leaks, count = find_leaks(cohort(tmp_path / "made", BEFORE, sources), listed(tmp_path, "z-1", "old-1", "a-1"))
    assert count == 3
    assert [leak.case for leak in leaks] == ["old-1", "a-1"]
    assert "was learnt from by artifact aaaaaaaaaaaa, which flow: flow (image) started from" in str(leaks[0])
    splits = tmp_path / "splits.csv"
    splits.write_text("case,subject,part\nnew,ann,test\nother,bob,test\n")
    assert [leak.case for leak in find_leaks(tmp_path / "made", splits)[0]] == ["new"]


def test_names_of_other_people_do_not_count_but_files_do(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cohort(tmp_path / "made", BEFORE, sources, other_people=True)
    assert find_leaks(made, listed(tmp_path, "old-1"))[0] == []
    (tmp_path / "scans").mkdir()
    case = Case(id="z-1", subject="zoe", images=(Path("z.nii.gz"),), sha256={"z.nii.gz": "f" * 64})
    held_out = SimpleNamespace(with_hashes=lambda: [case])
    monkeypatch.setattr("medgen.audit.leaks.load_cohort", lambda *given, **more: held_out)
    assert [leak.case for leak in find_leaks(made, tmp_path / "scans")[0]] == ["z-1"]


def test_a_model_that_does_not_say_whom_it_knows_is_no_answer(tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(AuditError, match=r"flow \(image\) started from artifact aaaaaaaaaaaa, which does not say"):
        find_leaks(cohort(tmp_path / "made", None, sources), listed(tmp_path, "z-1"))
    trusted = cohort(tmp_path / "trusted", None, sources, other_people=True)
    assert find_leaks(trusted, listed(tmp_path, "z-1"))[0] == []


def test_a_list_without_its_models_is_refused(tmp_path: Path, sources: Sources) -> None:
    made = cohort(tmp_path / "made", BEFORE, sources)
    path = made / FOLDER / LEARNT_FROM
    content = json.loads(path.read_text())
    content["started_from"][0]["lineage"]["cases"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(AuditError, match="was altered"):
        find_leaks(made, listed(tmp_path, "old-1"))
    path.write_text(json.dumps({key: content[key] for key in ("cases", "sha256")}))
    with pytest.raises(AuditError, match=r"syn-1.json: its generator started from a model that .* does not list"):
        find_leaks(made, listed(tmp_path, "old-1"))


def test_generators_know_what_their_source_knew(sources: Sources, context: FitContext, tmp_path: Path) -> None:
    kind = pair_class("real+flow")
    elsewhere = Sources(blobs(4, 7, "other"), None, (1, 4))
    first = kind.fit(elsewhere, kind.Config.model_validate(kind.tiny), context)
    assert not first.lineages
    first.save(tmp_path / "first")
    begun = {"init": str(tmp_path / "first" / "painter" / "image")}
    training = {**kind.tiny["painter"]["training"], **begun}
    settings = {**kind.tiny, "painter": {**kind.tiny["painter"], "training": training}}
    second = kind.fit(replace(sources, hashes={}), kind.Config.model_validate(settings), context)
    second.save(tmp_path / "second")
    for made in (second, kind.load(tmp_path / "second", "cpu")):
        (known,) = made.lineages.values()
        assert known is not None
        assert {"other-0", "a-0"} <= known.cases
        assert "subject-other-3" in known.subjects
    entry = learnt_from(sources, [second])["started_from"][0]
    assert entry["network"] == "real+flow: flow (image)"
    assert entry["names"] is True
    assert "other-0" in entry["lineage"]["cases"]
