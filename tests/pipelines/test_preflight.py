from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from medgen.config import load_config
from medgen.data.simulation import simulate
from medgen.errors import ArtifactError, ConfigError, DataError, MedgenError
from medgen.models.catalogue import available, family_class
from medgen.pipelines import train
from medgen.pipelines.anomaly import run as anomaly
from medgen.pipelines.anomaly.config import AnomalyRunConfig
from medgen.pipelines.anomaly.plan import plan as anomaly_plan
from medgen.pipelines.augment import value as augment_value
from medgen.pipelines.augment.value_config import ValueRunConfig
from medgen.runs.folder import open_run
from pipelines.train_settings import TrainRunConfig

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cohort"
    simulate(folder, n=12, seed=0, spacing=12.0)
    return folder


@pytest.fixture
def listing(cohort: Path, tmp_path: Path) -> Iterator[None]:
    """Nothing may be written by a refusal."""
    before = sorted(cohort.rglob("*"))
    yield
    assert sorted(cohort.rglob("*")) == before


def anomaly_config(cohort: Path, *overrides: str) -> AnomalyRunConfig:
    given = [f"data={cohort}", "anomaly.calibration.target_fpr=0.25", "check_resources=false", *overrides]
    return load_config(AnomalyRunConfig, CONFIGS / "anomaly" / "simulated.yaml", given)


def planned(config: AnomalyRunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Both roads refuse with the same words, before anything is written."""
    said = []
    for road in (anomaly_plan, anomaly.run):
        with pytest.raises(MedgenError) as caught:
            road(config, resume=resume, overwrite=overwrite)
        said.append(str(caught.value))
    assert said[0] == said[1]
    raise type(caught.value)(said[0])


@pytest.mark.usefixtures("listing")
@pytest.mark.parametrize(
    ("channel", "family", "serves"), [("dae", "vae", False), ("nll", "dae", False), ("nll", "vae", True)]
)
def test_a_score_that_the_family_cannot_serve_is_refused_before_a_scan_is_read(
    cohort: Path, tmp_path: Path, channel: str, family: str, serves: bool
) -> None:
    config = anomaly_config(
        cohort, f"out={tmp_path / 'out'}", f"model={{family: {family}}}", f"anomaly.fusion.channels=[{channel}]"
    )
    if serves:
        assert any(line.startswith("grid: ") for line in anomaly_plan(config))
    else:
        with pytest.raises(ConfigError, match=f"anomaly.fusion.channels: the score '{channel}' does not work with"):
            planned(config)
    assert not (tmp_path / "out").exists()


def test_scores_and_scan_scores_are_named_by_their_key(cohort: Path, tmp_path: Path) -> None:
    out = f"out={tmp_path / 'out'}"
    with pytest.raises(ConfigError, match=r"anomaly\.scores: the score 'fanogan' does not work"):
        planned(anomaly_config(cohort, out, "model={family: vae}", "anomaly.scores=[fanogan]"))
    with pytest.raises(ConfigError, match=r"anomaly.scan_score: the score 'iwae' .* usable: "):
        planned(
            anomaly_config(
                cohort, out, "model={family: dae}", "anomaly.fusion.channels=[dae]", "anomaly.scan_score=iwae"
            )
        )


def test_what_classes_serve_is_what_built_models_serve() -> None:
    from medgen.anomaly.scores.catalogue import registered
    from medgen.models.catalogue import build, settings_for

    for family in available():
        model = build(settings_for({"family": family}, (32, 32, 32), 1, 2), seed=0)
        for score in registered().values():
            offered = score.needs is None or isinstance(model, score.needs)
            here = offered and (not score.own or score.name in model.maps)
            assert score.served_by([family_class(family)]) == here


def test_every_family_that_is_listed_is_there() -> None:
    assert [family_class(name).family for name in available()] == available()


@pytest.mark.parametrize("family", ["maskvae", "segmenter"])
def test_a_family_that_learns_from_masks_needs_them(cohort: Path, tmp_path: Path, family: str) -> None:
    import shutil

    bare = tmp_path / "bare"
    bare.mkdir()
    for image in sorted(cohort.rglob("*_0000.nii.gz")) or sorted((cohort / "images").glob("*.nii.gz")):
        shutil.copy(image, bare / image.name)
    config = anomaly_config(bare, f"out={tmp_path / 'out'}", f"further.masks={{model: {{family: {family}}}}}")
    with pytest.raises(DataError, match=f"{family} learns from masks, and 12 of 12 scans have none"):
        planned(config)


def test_output_folders_that_cannot_be_used(cohort: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("")
    for out, words in (
        (file, "expected a folder for the run, found a file"),
        (file / "below", "is a file"),
        (full, "holds files that are not a medgen run"),
        (cohort / "run", "lies in .* which the run reads"),
        (cohort, "lies in .* which the run reads"),
    ):
        with pytest.raises(MedgenError, match=words):
            planned(anomaly_config(cohort, f"out={out}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DataError, match="no permission to write"):
        planned(anomaly_config(cohort, f"out={tmp_path / 'closed' / 'run'}"))


def test_a_run_that_is_there(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = anomaly_config(cohort, f"out={out}")
    with open_run(out, config), pytest.raises(ConfigError, match="another medgen run is writing here"):
        planned(config, resume=True)
    with pytest.raises(ConfigError, match="already holds a run"):
        planned(config)
    with pytest.raises(ConfigError, match="exclude each other"):
        planned(config, resume=True, overwrite=True)
    with pytest.raises(ConfigError, match=r"the configuration differs .* in: max_side"):
        planned(anomaly_config(cohort, f"out={out}", "max_side=48"), resume=True)
    assert anomaly_plan(config, resume=True)
    assert anomaly_plan(config, overwrite=True)


def test_overwriting_does_not_remove_the_data(tmp_path: Path) -> None:
    out = tmp_path / "out"
    simulate(out / "cohort", n=4, seed=0, spacing=16.0)
    config = anomaly_config(out / "cohort", f"out={out}")
    (out / "config.yaml").write_text("data: cohort\n")
    with pytest.raises(ConfigError, match="--overwrite would remove it"):
        planned(config, overwrite=True)


def test_folders_of_lesion_masks_are_looked_at_by_the_plan(cohort: Path, tmp_path: Path) -> None:
    for key in ("evaluation", "anomaly.validation"):
        config = anomaly_config(
            cohort, f"out={tmp_path / 'o'}", f"{key}.masks={tmp_path / 'none'}", f"{key}.kinds=[lesion]"
        )
        with pytest.raises(DataError, match=f"none: no such file or folder; {key}.masks names it"):
            planned(config)
    (tmp_path / "empty").mkdir()
    config = anomaly_config(
        cohort, f"out={tmp_path / 'o'}", f"anomaly.validation.masks={tmp_path / 'empty'}",
        "anomaly.validation.kinds=[lesion]",
    )  # fmt: skip
    with pytest.raises(MedgenError, match="empty"):
        planned(config)


def test_synthetic_scans_of_a_study_are_looked_at_by_the_plan(cohort: Path, tmp_path: Path) -> None:
    def told(*overrides: str) -> ValueRunConfig:
        given = [f"data={cohort}", f"out={tmp_path / 'out'}", *overrides]
        return load_config(ValueRunConfig, CONFIGS / "value" / "default.yaml", given)

    (tmp_path / "other").mkdir()
    arms = "value.arms=[real, standard+other]"
    for settings, words in (
        (told(f"synthetic.other={tmp_path / 'none'}", arms), "synthetic.other names it"),
        (told(f"run={tmp_path / 'none'}"), "run names it"),
        (told(f"run={tmp_path / 'other'}"), "expected the folder of an augment run"),
    ):
        for road in (augment_value.plan, augment_value.run):
            with pytest.raises(DataError, match=words):
                road(settings)
    assert not (tmp_path / "out").exists()


def test_the_plan_of_a_training_says_where_it_is_tracked(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    given = [f"data={cohort}", f"out={tmp_path / 'runs' / 'vae'}", "preprocess.shape=[16, 16, 16]"]
    given += ["model={family: vae, latent: 4, widths: [16, 16]}", "preprocess.spacing=[12, 12, 12]"]
    config = load_config(TrainRunConfig, CONFIGS / "train" / "vae.yaml", given)
    store = f"MLflow store: {tmp_path / 'runs' / 'mlflow.db'} (made new, with artifacts in"
    assert any(line.startswith(store) for line in train.plan(config))
    assert not (tmp_path / "runs").exists()


def test_resume_is_advised_by_the_commands_that_have_it_and_by_no_other() -> None:
    from typer.main import get_command

    from medgen.pipelines.cli.app import app, go_on

    advised, offered = set(), set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for words, leaf in (
            [((name, below), own) for below, own in command.commands.items()]
            if hasattr(command, "commands")
            else [((name,), command)]
        ):
            if any("--resume" in parameter.opts for parameter in leaf.params):
                offered.add(words)
            if "--resume" in go_on([*words, "--quiet", "data=x"]):
                advised.add(words)
    assert advised == offered
    assert ("train",) in offered
    assert ("anomaly", "score") in offered
    assert ("anomaly", "evaluate") not in offered


def test_a_run_given_for_its_model_is_refused_with_where_the_model_is(tmp_path: Path) -> None:
    from medgen.pipelines.preflight import check_model

    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"a run, not its model; expected .*run/model"):
        check_model(tmp_path / "run")
    check_model(tmp_path / "run" / "model")
