from __future__ import annotations

import numpy as np
import pytest

from medgen.anomaly.config import AnomalyConfig
from medgen.anomaly.normative.covariates import Covariates, choose_covariates
from medgen.config import parse_config
from medgen.errors import ConfigError, OutOfDistribution


def cohort(n, **columns):
    """Cells and subjects; columns are functions of the number of a person."""
    cells = [{name: str(of(number)) for name, of in columns.items()} for number in range(n)]
    return cells, [f"p{number}" for number in range(n)]


AGES = {"Age": lambda number: 31 + 3 * number}
SEXES = {"sex": lambda number: "FM"[number * 7 // 2 % 2]}


def test_age_and_sex_of_twenty_people_are_centred_columns_and_words():
    chosen = choose_covariates("auto", *cohort(20, **AGES, **SEXES))
    own = chosen.covariates
    assert chosen.words == "adjusted for age (31 to 88 years) and sex"
    rows = np.stack([own.row(cell) for cell in cohort(20, **AGES, **SEXES)[0]])
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(own.covariance, np.cov(rows, rowvar=False, bias=True))
    np.testing.assert_allclose(own.row({"AGE": "59.5", "sex": "male"})[0], 0, atol=1e-12)
    again = Covariates.from_plain(own.to_plain())
    np.testing.assert_array_equal(again.row({"age": "40", "sex": "F"}), own.row({"age": "40", "sex": "F"}))


def test_too_few_people_drop_a_covariate_with_a_sentence():
    chosen = choose_covariates("auto", *cohort(19, **AGES, **SEXES))
    assert chosen.words == (
        "adjusted for age (31 to 85 years); sex is not used: with it 2 numbers would be fitted at each place, for "
        "which 20 subjects are needed"
    )
    assert choose_covariates("auto", *cohort(9, **AGES)).covariates is None


def test_two_scans_of_a_person_count_once():
    cells, subjects = cohort(20, **AGES, **SEXES)
    assert choose_covariates("auto", cells, [name for name in subjects[:10] for _ in range(2)]).words.startswith(
        "adjusted for age (31 to 85 years); sex is not used"
    )


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"scanner": lambda number: "A" if number else "B"},
            "scanner is not used: 'B' has 1 development subject, at least 5 must",
        ),
        ({"scanner": lambda number: "A"}, "scanner is not used: all development subjects have 'A'"),
        (
            {"sex": lambda number: "F" if number % 2 else "n/a"},
            "sex is not used: 15 of 30 development subjects have it",
        ),
        ({**SEXES, "site": lambda number: "FM"[number * 7 // 2 % 2]}, "site is not used: the covariates before it say"),
        ({"age": lambda number: 50}, "age is not used: all development subjects have 50"),
    ],
)
def test_what_cannot_be_told_apart_is_dropped_with_its_reason(columns, sentence):
    assert sentence in choose_covariates("auto", *cohort(30, **columns)).words


def test_a_square_comes_with_enough_people_only():
    few, many = (choose_covariates("auto", *cohort(n, **AGES)).covariates for n in (39, 40))
    assert (few.covariance.shape, many.covariance.shape) == ((1, 1), (2, 2))
    rows = np.stack([many.row(cell) for cell in cohort(40, **AGES)[0]])
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)


def test_people_like_none_of_the_cohort_are_refused_with_what_was_found_and_expected():
    own = choose_covariates("auto", *cohort(20, **AGES, **SEXES)).covariates
    own.row({"age": "93.7", "sex": "F"})
    with pytest.raises(OutOfDistribution, match=r"found age 94; expected 25\.3 to 93\.7 \(development: 31 to 88\)"):
        own.row({"age": "94", "sex": "F"})
    with pytest.raises(OutOfDistribution, match="found sex 'O'; expected 'female' or 'male'"):
        own.row({"age": "50", "sex": "O"})
    assert own.moved({"age": "120", "sex": "O"}) == {"age": "93.7"}
    assert own.missing({"age": "120", "sex": "n/a"}) == ["sex"]
    assert np.isnan(own.row({"age": "50"})).tolist() == [False, True]


def test_columns_are_named_or_refused():
    cells, subjects = cohort(30, volume=lambda number: 1 + 0.1 * number, field_strength=lambda n: (1.5, 3.0)[n % 2])
    assert choose_covariates("auto", cells, subjects).words == "adjusted for field strength (1.5, 3)"
    assert choose_covariates("none", cells, subjects).words == "not adjusted for any covariate"
    named = choose_covariates(("volume",), cells, subjects)
    assert named.words == "adjusted for volume (1 to 3.9)"
    with pytest.raises(ConfigError, match=r"no development scan has 'height'.*field_strength, volume"):
        choose_covariates(("height",), cells, subjects)
    for wrong in ("automatic", ["age", "Age"], []):
        with pytest.raises(ConfigError, match=r"normative.covariates"):
            parse_config(AnomalyConfig, {"normative": {"covariates": wrong}}, source="test")
