"""A store that takes numbers and not, for now, what else a run has: nothing is lost and nothing waits."""

from __future__ import annotations

import pytest

from medgen.runs import tracking
from medgen.runs.journal import Cursor
from medgen.runs.store import mlflow_store

from .conftest import Stored, make_model, png


@pytest.mark.parametrize("function", ["register", "send_image", "send_dataset", "send_table"])
def test_what_is_not_taken_now_is_sent_later_and_once(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    name = f"late-{function}"
    with monkeypatch.context() as away:
        away.setattr(mlflow_store, function, _gone)
        sha256 = name.encode().hex().ljust(64, "0")[:64]
        stored.ids[name] = make_model(stored.root / name, sha256, 0.1, called="late")
    run = stored.run(name)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test.implants"] == 8
    assert tracking.sync(stored.root / name) > 0
    run = stored.run(name)
    versions = stored.client.search_model_versions(f"tags.`medgen.run` = '{stored.ids[name]}'")
    assert len(versions) == 1
    assert len(run.inputs.dataset_inputs) == 2
    pictures = [item for item in stored.client.list_artifacts(run.info.run_id, "images") if item.path.endswith(".png")]
    assert len(pictures) == 3
    assert run.data.tags["mlflow.loggedArtifacts"].count("tables/scans.json") == 1
    assert tracking.sync(stored.root / name) == 0


def test_a_store_without_a_registry_gets_all_else_and_is_not_asked_for_ever(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException, get_error_code

    def unknown(*_: object) -> None:
        raise MlflowException("no such endpoint", error_code=get_error_code(404))

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_store, "register", unknown)
    out = stored.root / "old-server"
    with tracking.start("train", out, config={}, seed=0) as run:
        run.log_model("medgen-vae-brains", "model", "5" * 64, {}, "A model")
        (out / "sample.png").write_bytes(png(9))
        run.log_image(out / "sample.png", "Samples")
    assert "MLflow refused an entry" in caplog.text
    assert tracking.sync(out) == 0
    assert Cursor.load(out, mlflow_store.MlflowStore(out)._cursor.store).late == []


def _gone(*_: object) -> None:
    raise ConnectionError("away")
