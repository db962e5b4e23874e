"""Models in MLflow's registry: a version for each digest, and runs that used it tied to that version."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgen.runs.store.refusals import EXISTS, FINAL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SHA256 = "medgen.model.sha256"
LOGGED = "medgen.logged_model"
CANDIDATE, CHAMPION = "candidate", "champion"
NOTE = "mlflow.note.content"


def register(client: MlflowClient, run: str, entry: Mapping[str, Any]) -> None:
    """Make a version of a model whose files are artifacts of the run, unless its digest is there already.

    The newest version becomes the ``candidate``. Scoring runs that were sent before it are tied to it.

    Args:
        client: Of the store.
        run: The run that has made it, by its id in the store.
        entry: ``name``, ``path`` of its folder among the artifacts, ``sha256``, ``tags`` and ``description``.
    """
    from mlflow.exceptions import MlflowException

    name, info = entry["name"], client.get_run(run).info
    try:
        client.create_registered_model(name, tags={"medgen.kind": entry["tags"].get("medgen.kind", "model")})
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise
    version = next(iter(versions_with(client, entry["sha256"], name)), None)
    if version is None:
        version = client.create_model_version(
            name,
            source=f"{info.artifact_uri}/{entry['path']}",
            run_id=run,
            tags={**entry["tags"], SHA256: entry["sha256"]},
            description=entry["description"],
            await_creation_for=0,
        )
    if version.run_id == run and LOGGED not in version.tags:
        if model := _logged_model(client, info.experiment_id, run, entry):
            named = json.dumps([{"name": name, "version": int(version.version)}])
            client.set_logged_model_tags(model, {"mlflow.modelVersions": named})
        # Written down on the version, since not every registry keeps the id itself.
        client.set_model_version_tag(name, version.version, LOGGED, model or "none")
    aliases = client.get_registered_model(name).aliases
    if int(aliases.get(CANDIDATE, 0)) < int(version.version):
        client.set_registered_model_alias(name, CANDIDATE, version.version)
    for other in client.search_runs([info.experiment_id], f"tags.`{SHA256}` = '{entry['sha256']}'", max_results=1000):
        if other.info.run_id != run and "medgen.model.version" not in other.data.tags:
            link(client, other.info.run_id, entry["sha256"])
    if run == version.run_id:
        client.set_tag(run, f"medgen.registered.{name}", version.version)


def link(client: MlflowClient, run: str, sha256: str) -> None:
    """Tie a run to the version of the model that it used, by the model's digest; nothing where none is registered."""
    from mlflow.entities import LoggedModelInput
    from mlflow.exceptions import MlflowException

    version = next(iter(versions_with(client, sha256)), None)
    if version is None or version.run_id == run:
        return
    called = f"{version.name} version {version.version}"
    page = f"#/models/{version.name}/versions/{version.version}"
    note = client.get_run(run).data.tags.get(NOTE, "")
    if page not in note:
        client.set_tag(run, NOTE, f"{note}\n\nMade with [{called}]({page}).".strip())
    if (model := version.tags.get(LOGGED, "none")) != "none":
        try:
            client.log_inputs(run, models=[LoggedModelInput(model)])
        except MlflowException as error:
            if error.error_code not in FINAL:
                raise
    client.set_tag(run, "medgen.model.uri", f"models:/{version.name}/{version.version}")
    client.set_tag(run, "medgen.model.version", f"{version.name}/{version.version}")


def versions_with(client: MlflowClient, sha256: str, name: str = "") -> list[ModelVersion]:
    """The versions of that digest, oldest first; of one registered model, or of all."""
    found = client.search_model_versions(f"tags.`{SHA256}` = '{sha256}'", max_results=1000)
    return sorted((own for own in found if name in ("", own.name)), key=lambda own: int(own.creation_timestamp))


def _logged_model(client: MlflowClient, experiment: str, run: str, entry: Mapping[str, Any]) -> str | None:
    """The model in the sense of MLflow 3, which joins its run, its data and the runs that use it; None without those.

    The files stay with the run: the model's own folder holds where they are.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    try:
        known = client.search_logged_models([experiment], f"source_run_id = '{run}'")
        model = next((own for own in known if own.tags.get(SHA256) == entry["sha256"]), None)
        if model is None:
            tags = {**entry["tags"], SHA256: entry["sha256"]}
            model = client.create_logged_model(experiment, entry["name"], run, tags, model_type="medgen")
        with tempfile.TemporaryDirectory() as folder:
            told = f"The files of this model are in the folder `{entry['path']}` of the artifacts of run {run}.\n"
            Path(folder, "README.md").write_text(told, encoding="utf-8")
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
        outputs = client.get_run(run).outputs
        if outputs is None or model.model_id not in {own.model_id for own in outputs.model_outputs}:
            client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
    except MlflowException as error:
        if error.error_code not in FINAL:
            raise
        return None
    return str(model.model_id)
