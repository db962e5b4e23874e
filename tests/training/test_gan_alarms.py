"""Alarms fire on made-up bad histories and stay silent on healthy ones."""

import math

import numpy as np
import pytest

from medgen.training.gan_alarms import COLLAPSE, DIVERGENCE, OVERPOWERED, SATURATED, AlarmConfig, Watch, alarms

STEPS = 400


def healthy(seed: int = 0) -> list[dict[str, float]]:
    """What a good training logs, with noise."""
    rng = np.random.default_rng(seed)
    return [
        {
            "step": step,
            "generator/l1": 0.1 + 0.2 * math.exp(-step / 100) + 0.01 * rng.standard_normal(),
            "generator/gradient": 2 * math.exp(0.5 * rng.standard_normal()),
            "generator/diversity": 0.8 + 0.15 * rng.standard_normal(),
            "discriminator/accuracy": 0.7 + 0.05 * rng.standard_normal(),
            "discriminator/augmented": min(0.5, step / 1000),
        }
        for step in range(10, STEPS + 1, 10)
    ]


def changed(name: str, begin: int, value: float) -> list[dict[str, float]]:
    return [{**record, name: value} if record["step"] >= begin else record for record in healthy()]


def names(history: list[dict[str, float]]) -> list[str]:
    return [alarm.name for alarm in alarms(history, STEPS)]


@pytest.mark.parametrize("seed", range(20))
def test_healthy_trainings_raise_nothing(seed: int) -> None:
    assert alarms(healthy(seed), STEPS) == ()


def test_each_alarm_fires_where_it_should() -> None:
    assert names(changed("generator/diversity", 200, 0.05)) == [COLLAPSE]
    assert names(changed("generator/l1", 300, 0.9)) == [DIVERGENCE]
    assert names(changed("generator/gradient", 300, 4000.0)) == [DIVERGENCE]
    assert names(changed("discriminator/augmented", 250, 0.8)) == [SATURATED]
    both = [{**record, "discriminator/accuracy": 0.99} for record in changed("discriminator/augmented", 250, 0.8)]
    assert set(names(both)) == {SATURATED, OVERPOWERED}
    (alarm,) = alarms(changed("generator/diversity", 200, 0.05), STEPS)
    assert alarm.step == 240
    assert "mode collapse" in alarm.message


def test_a_single_bad_record_is_no_alarm_unless_it_is_not_finite() -> None:
    history = healthy()
    history[30]["generator/diversity"] = 0.0
    assert names(history) == []
    history[31]["generator/loss"] = math.nan
    assert names(history) == [DIVERGENCE]


def test_early_steps_may_lack_diversity() -> None:
    early = [{**record, "generator/diversity": 0.1} if record["step"] < 110 else record for record in healthy()]
    assert names(early) == []


def test_without_adaptive_augmentation_accuracy_alone_tells() -> None:
    plain = [
        {name: value for name, value in record.items() if "augmented" not in name} | {"discriminator/accuracy": 0.995}
        for record in healthy()
    ]
    assert names(plain) == [OVERPOWERED]


def test_the_watch_logs_an_alarm_once_and_passes_everything_on() -> None:
    logged: list[tuple[dict[str, float], int]] = []
    watch = Watch(STEPS, lambda numbers, step: logged.append((numbers, step)), AlarmConfig(patience=3))
    history = changed("generator/diversity", 200, 0.05)
    for record in history:
        watch({name: value for name, value in record.items() if name != "step"}, int(record["step"]))
    raised = [(numbers, step) for numbers, step in logged if "alarm/mode_collapse" in numbers]
    assert raised == [({"alarm/mode_collapse": 1.0}, 220)]
    assert len(logged) == len(history) + 1


def test_other_names_of_phases_and_a_stage_before_them_tell_the_same() -> None:
    names_of = {"generator": "adversary/painter", "discriminator": "adversary/critic"}
    for bad in (changed("generator/diversity", 200, 0.05), changed("discriminator/augmented", 250, 0.8)):
        renamed = [
            {"/".join([names_of.get(part, part) for part in name.split("/")]): value for name, value in record.items()}
            for record in bad
        ]
        assert alarms(renamed, STEPS, discriminators={"critic"}) == alarms(bad, STEPS)
        assert alarms(bad, STEPS)
