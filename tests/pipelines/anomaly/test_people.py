"""Whom a new scan shows: from the command line or a table, refused where the model needs what is not said."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgen import io
from medgen.anomaly.artifact import from_artifact, to_artifact
from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.detector import AnomalyDetector
from medgen.anomaly.normative.covariates import choose_covariates
from medgen.errors import ArtifactError, ConfigError, DataError
from medgen.models.artifact import TrainedModel
from medgen.models.catalogue import build
from medgen.pipelines.anomaly.people import check_covariates, need_covariates, people_of
from medgen.pipelines.anomaly.score import score
from medgen.preprocessing.dataset import Dataset, prepared_record
from medgen.preprocessing.recipe import Preprocess
from medgen.volume import Grid, Volume

CUBE = (12, 12, 12)
AGES = [30 + 3 * number for number in range(20)]
SCANS = {"a": Path("in/a.nii.gz"), "b": Path("in/b.nii.gz")}
AGE = choose_covariates(("age",), [{"age": str(age)} for age in AGES], [str(age) for age in AGES]).covariates


def brain(age: float, seed: int) -> np.ndarray:
    """Noise, and more of it in older people."""
    noise = np.random.default_rng(seed).normal(size=(1, *CUBE))
    return np.asarray(noise * (1 + 0.012 * (age - 60)), dtype=np.float32)


@pytest.fixture(scope="module")
def detector() -> AnomalyDetector:
    ids = tuple(f"p{number:02d}" for number in range(20))
    images = torch.from_numpy(np.stack([brain(age, seed) for seed, age in enumerate(AGES)]))
    data = Dataset(ids, ids, images, torch.ones((20, 1, *CUBE), dtype=torch.bool))
    records = [replace(prepared_record(data, row, (1, 1, 1)), attributes={"age": str(AGES[row])}) for row in range(20)]
    data = replace(data, prepared=tuple(records))
    vaes = [[build({"family": "vae", "shape": CUBE, "widths": (16, 16)}, seed=fold)] for fold in (1, 2)]
    given = {"folds": 2, "fusion": {"channels": ["intensity"]}, "validation": {"enabled": False}}
    config = AnomalyConfig.model_validate({**given, "gate": {"enabled": False}})
    recipe = Preprocess(shape=CUBE, spacing=(1, 1, 1))
    return AnomalyDetector.fit(data, [ids[::2], ids[1::2]], vaes, config, recipe, voxel_scores=())


@pytest.fixture(scope="module")
def model(detector: AnomalyDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_artifact(detector, {"cases": []}).save(tmp_path_factory.mktemp("model") / "model")


def test_a_normal_old_brain_is_hot_for_a_young_person_only(detector: AnomalyDetector) -> None:
    assert detector.adjusted.words == "adjusted for age (30 to 87 years)"
    image, foreground = torch.from_numpy(brain(85, 50)), torch.ones((1, *CUBE), dtype=torch.bool)
    old, young, unknown = (
        detector.measure(image, foreground, person).z["intensity"].mean()
        for person in ({"age": "85"}, {"age": "35"}, {})
    )
    assert abs(old) < 0.3
    assert unknown > 0.5
    assert young > 2 * unknown


def test_the_artifact_keeps_slopes_and_ranges(detector: AnomalyDetector, model: Path) -> None:
    again = from_artifact(TrainedModel.load(model, "cpu"))
    assert again.adjusted.words == detector.adjusted.words
    image, foreground = torch.from_numpy(brain(70, 51)), torch.ones((1, *CUBE), dtype=torch.bool)
    for person in ({"age": "70"}, {}):
        one, other = (own.measure(image, foreground, person).heat for own in (detector, again))
        np.testing.assert_allclose(one, other, atol=1e-6)
    whole = to_artifact(detector)
    with pytest.raises(ArtifactError, match="'normative/intensity/slopes' is missing"):
        from_artifact(replace(whole, arrays={k: v for k, v in whole.arrays.items() if "slopes" not in k}))
    # An artifact of the time before says nothing of covariates, and is adjusted for none.
    earlier = replace(whole, meta={key: value for key, value in whole.meta.items() if key != "adjusted"})
    assert from_artifact(earlier).covariates is None


def test_scans_are_scored_for_their_people_or_refused(model: Path, tmp_path: Path) -> None:
    scans = [tmp_path / "known.nii.gz", tmp_path / "beyond.nii.gz"]
    for scan in scans:
        io.write(Volume(brain(80, 52), Grid(CUBE, np.eye(4))), scan)
    with pytest.raises(DataError, match=r"no age of the person; expected it.*age \(30 to 87 years\).*--unadjusted"):
        score(scans[:1], model=model, out=tmp_path / "out" / "refused", device="cpu")

    def scored(name: str, people: str, **options: bool) -> tuple[dict[str, dict[str, str]], Path]:
        out, table = tmp_path / "out" / name, tmp_path / f"{name}.csv"
        table.write_text(f"scan,age\n{people}\n")
        score(scans, model=model, out=out, device="cpu", covariates=str(table), **options)
        with (out / "scans.csv").open() as file:
            return {row["case"]: row for row in csv.DictReader(file)}, out

    rows, out = scored("adjusted", "known.nii.gz,80\nbeyond.nii.gz,120")
    assert {name: row["adjusted_for"] for name, row in rows.items()} == {"known": "age 80"}
    assert "those of this person: age 80." in (out / "cases" / "known.html").read_text()
    page = (out / "report.html").read_text()
    assert "adjusted for age (30 to 87 years)" in page
    assert "found age 120; expected 24.3 to 92.7" in page
    forced, out = scored("forced", "beyond,120", unadjusted=True, ungated=True)
    assert {name: row["adjusted_for"] for name, row in forced.items()} == {"known": "average age", "beyond": "age 92.7"}
    assert "Of age nothing is known" in (out / "cases" / "known.html").read_text()
    assert "found age 120" in (out / "cases" / "beyond.html").read_text()
    assert float(forced["known"]["max"]) != float(rows["known"]["max"])


def test_a_table_names_scans_by_id_or_file(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("id,subject,image,Age\nx,x,in/a.nii.gz,40\nb,b,,\n")
    people = people_of(str(table), SCANS, AGE)
    assert (people["a"].known, people["a"].missing, people["a"].words) == ({"age": "40"}, (), "age 40")
    assert people["b"].missing == ("age",)
    with pytest.raises(DataError, match=r"b\.nii\.gz: no age of the person"):
        need_covariates(SCANS["b"], people["b"], AGE)
    need_covariates(SCANS["a"], people["a"], AGE)


def test_a_scan_gets_the_line_of_its_own_folder_or_none(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    scans = {"t1": tmp_path / "sub1" / "t1.nii.gz", "t1-2": tmp_path / "sub2" / "t1.nii.gz"}
    table.write_text("image,age\nsub1/t1.nii.gz,45\nsub2/t1.nii.gz,75\n")
    assert [own.known for own in people_of(str(table), scans, AGE).values()] == [{"age": "45"}, {"age": "75"}]
    table.write_text("image,age\nsub1/t1.nii.gz,45\n")
    assert [own.known for own in people_of(str(table), scans, AGE).values()] == [{"age": "45"}, {}]
    for double in ("t1,45\nt1.nii.gz,75\n", "sub1/t1,45\nsub1/t1,45\n"):
        table.write_text(f"image,age\n{double}")
        with pytest.raises(DataError, match=r"lines 2, 3 for .*t1.nii.gz; expected one line for each scan"):
            people_of(str(table), scans, AGE)
    table.write_text("scan,alter\nt1,45\n")
    with pytest.raises(DataError, match="columns scan, alter; expected a column called age"):
        people_of(str(table), scans, AGE)


def test_wrong_covariates_are_refused_in_one_line(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("id,age\nc,40\n")
    with pytest.raises(DataError, match="none of the 2 scans; expected a line for each"):
        people_of(str(table), SCANS, AGE)
    table.write_text("name,age\na,40\n")
    with pytest.raises(DataError, match="columns name, age; expected one of scan, id, case, image"):
        people_of(str(table), SCANS, AGE)
    with pytest.raises(ConfigError, match="'aeg' is none of this model's; expected age"):
        people_of("aeg=40", SCANS, AGE)
    with pytest.raises(ConfigError, match="adjusted for no covariate; leave the option out"):
        people_of("age=40", SCANS, None)
    for wrong in ("age=", "age=40,age=50", "=4"):
        with pytest.raises(ConfigError, match="expected each name once"):
            check_covariates(wrong)
    with pytest.raises(DataError, match="no such file"):
        check_covariates(str(tmp_path / "nowhere.csv"))


@pytest.mark.parametrize("text", ["abc", "-5"])
def test_an_age_that_cannot_be_read_is_said(text: str) -> None:
    with pytest.raises(DataError, match=rf"age '{text}'; expected something like age \(30 to 87 years\)"):
        people_of(f"age={text}", SCANS, AGE)
    assert people_of("age=n/a", SCANS, AGE)["a"].missing == ("age",)
