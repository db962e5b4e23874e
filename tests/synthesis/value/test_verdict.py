"""Verdicts on made-up results: known differences, none, the choice on validation, and which comparisons are made."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.errors import DataError
from medgen.metrics.bootstrap import hierarchical_bootstrap, holm
from medgen.synthesis.value.tables import METRICS, Row
from medgen.synthesis.value.undecided import Learning
from medgen.synthesis.value.verdict import choose, compare, judge, summarise
from tests.builders.made_up import made_up


def study(gain: float, seed: int = 0, **options: int) -> list[Row]:
    arms = {"real": -0.1, "standard": 0.0, "standard+synthetic": gain}
    return made_up({10: arms}, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize(("gain", "expected"), [(0.02, "USE"), (-0.02, "HARMFUL"), (0.0, "NO EVIDENCE")])
def test_verdicts(gain: float, expected: str) -> None:
    (comparison,) = compare(study(gain), seed=0, bootstrap=500)
    assert comparison.word == expected
    assert (comparison.ordinary, comparison.role) == ("standard", "verdict")
    assert comparison.sentence.startswith(expected)
    assert comparison.difference.estimate == pytest.approx(gain, abs=0.003)
    # One comparison needs no adjustment, and then p and interval say the same.
    assert comparison.p == comparison.p_holm
    assert (not comparison.difference.low <= 0 <= comparison.difference.high) == (comparison.p <= 0.05)


def test_nothing_to_find_is_rarely_found() -> None:
    arms = dict.fromkeys(("real", "standard", "standard+deform", "standard+joint", "standard+synthetic"), 0.0)
    words = []
    for number in range(200):
        rows = made_up({5: arms, 10: arms}, rng=np.random.default_rng(number), seeds=4, test=15, validation=4)
        words.append(judge_word(rows))
    assert words.count("USE") <= 10  # 5 %
    # And a small true gain, above the resolution of such a study, is found.
    arms = {**arms, "standard+joint": 0.006}
    found = [
        judge_word(made_up({5: arms}, rng=np.random.default_rng(number), seeds=4, test=40, validation=8))
        for number in range(10)
    ]
    assert found.count("USE") >= 9


def judge_word(rows: list[Row]) -> str:
    words = {item.word for item in compare(rows, seed=0, bootstrap=200) if item.role == "verdict"}
    return "USE" if "USE" in words else "other"


def test_the_choice_never_looks_at_test_rows() -> None:
    rng = np.random.default_rng(0)
    arms = {"standard": 0.0, "standard+deform": 0.01, "standard+joint": 0.02}
    rows = made_up({5: arms, 20: arms}, rng=rng, validation=6)
    before = choose(rows)
    assert [(choice.subjects, choice.arm, choice.on) for choice in before] == [
        (5, "standard+joint", "validation"),
        (20, "standard+joint", "validation"),
    ]
    for _ in range(5):
        test = [row for row in rows if row["part"] == "test"]
        dices = rng.permutation([row["dice"] for row in test])
        shuffled = [{**row, "dice": float(dice)} for row, dice in zip(test, dices, strict=True)]
        assert choose([row for row in rows if row["part"] == "validation"] + shuffled) == before
    # On the test rows the other one is far better, and the verdict is still about the chosen one.
    turned = [
        {**row, "dice": row["dice"] + 0.1} if (row["part"], row["arm"]) == ("test", "standard+deform") else row
        for row in rows
    ]
    assert choose(turned) == before
    assert {item.arm for item in compare(turned, 0, 200) if item.role == "verdict"} == {"standard+joint"}
    # Without validation rows the verdict is about the first synthetic arm, however the others do.
    blind = choose([row for row in turned if row["part"] == "test"])
    assert {(choice.arm, choice.on) for choice in blind} == {("standard+deform", "order")}


def test_the_best_ordinary_arm_is_the_rival_and_others_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medgen.synthesis.value.verdict.needs_unlabelled", lambda name: name == "real")
    arms = {"standard": 0.0, "real": -0.02, "strong": 0.03, "standard+deform": 0.01, "standard+joint": 0.05}
    rows = made_up(dict.fromkeys((5, 10), arms), rng=np.random.default_rng(1), validation=6)
    found = compare(rows, seed=0, bootstrap=500)
    deciding = found[:2]
    assert [(c.role, c.subjects, c.arm, c.ordinary) for c in deciding] == [
        ("verdict", 5, "standard+joint", "strong"),
        ("verdict", 10, "standard+joint", "strong"),
    ]
    assert [(c.role, c.arm, c.ordinary, c.word) for c in found[2:5]] == [
        ("other", "standard+deform", "strong", "HARMFUL"),
        ("same scans", "standard+joint", "real", "USE"),
        ("standard", "standard+joint", "standard", "USE"),
    ]
    assert [c.p_holm for c in deciding] == holm([c.p for c in deciding])
    assert [c.p_holm for c in found[2:]] == holm([c.p for c in found[2:]])
    first = deciding[0]
    table = {
        arm: np.array(
            [
                [r["dice"] for r in rows if (r["part"], r["arm"], r["subjects"], r["seed"]) == ("test", arm, 5, seed)]
                for seed in range(5)
            ]
        )
        for arm in ("standard+joint", "strong")
    }
    expected = hierarchical_bootstrap(table["standard+joint"] - table["strong"], n=500, seed=0)
    assert first.difference == expected
    judged = judge(rows, seed=0, bootstrap=500)
    assert judged.best == {5: "strong", 10: "strong"}
    assert judged.word == "USE"
    assert judged.sentence.startswith("USE with 5 and 10 real subjects")


def test_one_harmful_number_of_subjects_is_not_hidden() -> None:
    gains = {5: {"standard": 0.0, "standard+deform": 0.03}, 40: {"standard": 0.04, "standard+deform": 0.0}}
    judged = judge(made_up(gains, rng=np.random.default_rng(0)), seed=0, bootstrap=300)
    assert judged.word == "HARMFUL"
    assert judged.sentence.startswith("HARMFUL with 40; USE with 5")


def test_ordinary_arms_alone_have_no_verdict() -> None:
    gains = {5: {"standard": 0.0, "real": -0.03}, 40: {"standard": 0.04, "real": 0.0}}
    judged = judge(made_up(gains, rng=np.random.default_rng(0)), seed=0, bootstrap=200)
    assert (judged.word, judged.sentence, judged.comparisons, judged.choices) == (None, "", (), ())
    assert judged.best == {5: "standard", 40: "standard"}


def test_summaries_cover_arms_and_metrics_of_the_test_part() -> None:
    summaries = summarise(study(0.0, validation=5), seed=0, bootstrap=200)
    assert len(summaries) == 3 * 2 * len(METRICS)
    standard = next(s for s in summaries if (s.arm, s.metric, s.label) == ("standard", "dice", None))
    assert standard.interval.low < standard.interval.estimate < standard.interval.high
    assert standard.interval.n == 30


def test_segmenters_that_have_not_learnt_decide_nothing() -> None:
    for gain in (0.05, -0.05):
        rows = study(gain)
        assert judge(rows, 0, 300, learning=Learning(600, {10: 0.4})).word == ("USE" if gain > 0 else "HARMFUL")
        for learning, said in (
            (Learning(49, {}), "trained for 49 steps, fewer than 50"),
            (Learning(600, {10: 0.95}), "a guess that does not look at the scan 0.950"),
        ):
            judged = judge(rows, 0, 300, learning=learning)
            assert judged.word == "NO EVIDENCE"
            assert judged.sentence.startswith("NO EVIDENCE: standard+synthetic")
            assert "the study cannot decide" in judged.sentence
            assert said in judged.sentence
            assert judged.learning == learning
    # A number of subjects that is not asked about is judged as before.
    assert judge(study(0.05), 0, 300, learning=Learning(600, {5: 0.99})).word == "USE"


def test_few_seeds_are_said_in_the_verdict_itself() -> None:
    for gain, word in ((0.05, "USE"), (-0.05, "HARMFUL"), (0.0, "NO EVIDENCE")):
        few, many = (judge(study(gain, seeds=seeds), 0, 300) for seeds in (3, 5))
        assert few.word == many.word == word
        assert ("unless 5 or more seeds say otherwise (with 3 seeds" in few.sentence) is (word != "NO EVIDENCE")
        assert "seeds" not in many.sentence
        assert few.caution.startswith("3 seeds cannot show")
        assert many.caution == ""


def test_holes_in_the_table_are_refused() -> None:
    rows = study(0.0)
    with pytest.raises(DataError, match="incomplete"):
        summarise([row for row in rows if not (row["seed"] == 1 and row["subject"] == "test-003")], 0, 100)
    with pytest.raises(DataError, match="not run with the same seeds"):
        compare([row for row in rows if row["seed"] < 3 or row["arm"] == "standard"], 0, 100)
    with pytest.raises(DataError, match="no ordinary arm"):
        compare([row for row in rows if row["arm"] == "standard+synthetic"], 0, 100)


def test_a_loss_of_the_augmentation_is_not_laid_on_the_synthetic_scans() -> None:
    # standard trains worse than no augmentation, as after few steps, and synthetic scans change nothing on top of it.
    arms = {"real": 0.0, "standard": -0.05, "standard+synthetic": -0.05}
    judged = judge(made_up({10: arms}, rng=np.random.default_rng(0)), 0, 500)
    (verdict,) = judged.verdicts
    assert verdict.difference.high < 0
    assert verdict.p_holm <= 0.05
    assert (verdict.word, judged.word) == ("NO EVIDENCE", "NO EVIDENCE")
    assert "standard alone, without synthetic scans, is worse than real, too (-0.05" in verdict.sentence
    assert "value.segmenter.steps" in verdict.sentence
    assert verdict.base_difference is not None
    assert verdict.base_difference.estimate == pytest.approx(-0.05, abs=0.005)

    # Nor where they add a little: all that varies the scans slows such segmenters down.
    arms["standard+synthetic"] = -0.07
    (verdict,) = judge(made_up({10: arms}, rng=np.random.default_rng(0)), 0, 500).verdicts
    assert verdict.word == "NO EVIDENCE"

    # Where they make it worse by more than the augmentation, it stays HARMFUL, and what is the augmentation's is said.
    arms |= {"standard": -0.03, "standard+synthetic": -0.1}
    (verdict,) = judge(made_up({10: arms}, rng=np.random.default_rng(0)), 0, 500).verdicts
    assert (verdict.word, verdict.undecided) == ("HARMFUL", "")
    assert "do not train with them (standard alone, without synthetic scans, loses 0.03" in verdict.sentence
    assert verdict.base == "standard"

    # A gain needs no such question, and neither does a harm against the arm that it trains by.
    for arms, said in (
        ({"real": 0.0, "standard": -0.05, "standard+synthetic": 0.02}, "USE"),
        ({"real": -0.1, "standard": 0.0, "standard+synthetic": -0.02}, "HARMFUL"),
    ):
        (verdict,) = judge(made_up({10: arms}, rng=np.random.default_rng(0)), 0, 500).verdicts
        assert (verdict.word, verdict.undecided, verdict.of_the_base) == (said, "", "")
