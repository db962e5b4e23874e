"""Croissant metadata, judged by the reader of MLCommons."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import replace

import pytest

from medgen.data.cards.card import read_card
from medgen.data.cards.croissant import CROISSANT, RAI, croissant
from medgen.data.layouts.cohort_config import CohortConfig
from medgen.data.layouts.detect import load_cohort
from medgen.data.simulation import simulate
from medgen.errors import ConfigError, DataError

ABOUT = {"url": "https://example.org/scans", "creator": "An institute", "published": "2026-01-31"}
# What the RAI specification recommends and a data card knows.
RESPONSIBLE = {
    "dataCollection",
    "dataCollectionType",
    "dataCollectionRawData",
    "dataPreprocessingProtocol",
    "dataAnnotationProtocol",
    "machineAnnotationTools",
    "dataUseCases",
    "dataLimitations",
    "dataBiases",
    "personalSensitiveInformation",
    "dataSocialImpact",
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("croissant") / "cohort"
    simulate(folder, 2, seed=0, spacing=16.0)
    return folder


@pytest.fixture(scope="module")
def described(cohort):
    return read_card(cohort / "card.md"), load_cohort(cohort, CohortConfig())


def read(data, folder):
    """As MLCommons reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant

        path = folder / "croissant.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return mlcroissant, mlcroissant.Dataset(jsonld=str(path))


def test_it_is_valid_for_mlcroissant_by_version_1_1(described, tmp_path):
    data = croissant(*described, **ABOUT)
    _, dataset = read(data, tmp_path)
    issues = dataset.metadata.ctx.issues
    assert (list(issues.errors), list(issues.warnings)) == ([], [])
    assert dataset.metadata.ctx.conforms_to.value == CROISSANT
    assert data["conformsTo"] == [CROISSANT, RAI]


def test_the_validator_would_see_a_fault(described, tmp_path):
    data = croissant(*described, **ABOUT)
    del data["distribution"][0]["contentUrl"]
    with pytest.raises(Exception, match="contentUrl"):
        read(data, tmp_path)


def test_files_have_their_own_hashes(described, cohort, tmp_path):
    data = croissant(*described, **ABOUT)
    assert len(data["distribution"]) == 4
    for item in data["distribution"]:
        assert hashlib.sha256((cohort / item["contentUrl"]).read_bytes()).hexdigest() == item["sha256"]
        assert item["encodingFormat"] == "application/x-nifti+gzip"
    assert str(cohort) not in json.dumps(data)


def test_scans_and_labels_can_be_read_as_records(described, tmp_path):
    _, dataset = read(croissant(*described, **ABOUT), tmp_path)
    scans, labels = (list(dataset.records(record_set=name)) for name in ("scans", "labels"))
    assert [row["scans/id"] for row in scans] == ["sim-0000", "sim-0001"]
    assert scans[1]["scans/mask"] == "masks/sim-0001.nii.gz"
    assert {row["labels/value"]: row["labels/name"] for row in labels} == {1: "CSF", 2: "GM", 3: "WM"}


def test_responsible_ai_fields_are_those_of_the_card(described, tmp_path):
    card, _ = described
    data = croissant(*described, **ABOUT)
    assert {key.removeprefix("rai:") for key in data if key.startswith("rai:")} == RESPONSIBLE
    _, dataset = read(data, tmp_path)
    metadata = dataset.metadata
    assert tuple(metadata.data_biases) == card.fields.known_biases
    assert metadata.personal_sensitive_information == [card.fields.privacy]
    assert metadata.data_use_cases[0] == card.fields.intended_use
    assert card.fields.not_for in metadata.data_social_impact


def test_generated_data_tell_what_made_them_and_from_what(described):
    card, manifest = described
    fields = card.fields.model_copy(
        update={"provenance": card.fields.provenance.model_copy(update={"parents_sha256": "a" * 64})}
    )
    data = croissant(replace(card, fields=fields), manifest, **ABOUT)
    assert data["prov:wasGeneratedBy"]["prov:label"] == fields.provenance.generator
    assert data["prov:wasDerivedFrom"] == {"@id": f"urn:sha256:{'a' * 64}"}


def test_people_are_told_by_sex_and_age(described):
    card, manifest = described
    fields = card.fields.model_copy(update={"sex": {"F": 1, "M": 1}, "age": (20.0, 71.0)})
    data = croissant(replace(card, fields=fields), manifest, **ABOUT)
    assert data["rai:personalSensitiveInformation"][1:] == ["sex: F 1, M 1", "age: 20 to 71 years"]


@pytest.mark.parametrize(("version", "kept"), [("1.2.0", "1.2.0"), ("1", "1"), ("2026-01-31", None)])
def test_a_version_that_is_none_by_the_standard_is_left_out(described, version, kept):
    card, manifest = described
    fields = card.fields.model_copy(update={"version": version})
    assert croissant(replace(card, fields=fields), manifest, **ABOUT).get("version") == kept


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": "scans"}, "--url scans: is no address"),
        ({"published": "31.1.2026"}, "--published 31.1.2026: is no day; expected YYYY-MM-DD"),
    ],
)
def test_addresses_and_days_are_checked(described, given, told):
    with pytest.raises(ConfigError, match=told):
        croissant(*described, **{**ABOUT, **given})


def test_names_of_dicom_folders_are_not_published(described):
    card, manifest = described
    with pytest.raises(DataError, match="may name patients"):
        croissant(card, replace(manifest, named_by_folders=True), **ABOUT)


def test_files_elsewhere_are_not_published(described, tmp_path):
    card, manifest = described
    with pytest.raises(DataError, match="lies outside of"):
        croissant(card, replace(manifest, root=tmp_path), **ABOUT)
