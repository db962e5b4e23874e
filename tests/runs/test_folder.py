"""The run folder: one run at a time, nothing removed that is not medgen's, resumption only of the same run."""

from __future__ import annotations

import pytest

from medgen.audit.verify import verify
from medgen.config import Config
from medgen.errors import ConfigError, DataError
from medgen.runs.folder import RunConfig, open_run, unfinished


class Settings(Config):
    out: str
    steps: int = 1
    device: str = "cpu"


def finish(out, **values):
    with open_run(out, Settings(out=str(out), **values)) as folder:
        (folder.out / "result.txt").write_text("first")
        folder.checkpoints.mkdir()


def test_new_folder_gets_config_and_loses_checkpoints(tmp_path):
    finish(tmp_path / "run")
    assert "steps: 1" in (tmp_path / "run" / "config.yaml").read_text()
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "run" / "outputs.json").is_file()


def test_second_run_needs_a_flag(tmp_path):
    finish(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"--resume .* --overwrite"), open_run(tmp_path / "run", Settings(out="x")):
        pass
    with open_run(tmp_path / "run", Settings(out="x"), overwrite=True) as folder:
        assert not (folder.out / "result.txt").exists()


def test_foreign_files_are_never_removed(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="not a medgen run"), open_run(tmp_path, Settings(out="x"), **flags):
            pass
    assert (tmp_path / "thesis.docx").read_text() == "years of work"


def test_resume_refuses_another_configuration(tmp_path):
    finish(tmp_path / "run", steps=1)
    with pytest.raises(ConfigError, match="steps"), open_run(tmp_path / "run", Settings(out="x", steps=2), resume=True):
        pass
    with open_run(tmp_path / "run", Settings(out="y", device="auto"), resume=True) as folder:
        assert (folder.out / "result.txt").read_text() == "first"


def test_two_runs_in_one_folder(tmp_path):
    with (
        open_run(tmp_path / "run", Settings(out="x")),
        pytest.raises(ConfigError, match="another medgen run"),
        open_run(tmp_path / "run", Settings(out="x")),
    ):
        pass


def test_a_failed_run_can_be_resumed(tmp_path):
    with pytest.raises(RuntimeError), open_run(tmp_path / "run", Settings(out="x")) as folder:  # noqa: PT012
        folder.checkpoints.mkdir()
        raise RuntimeError
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert not (tmp_path / "run" / "outputs.json").exists()
    with open_run(tmp_path / "run", Settings(out="x"), resume=True):
        pass


def test_a_run_that_is_refused_before_it_made_anything_leaves_nothing(tmp_path):
    def refused(out, made, **options):
        with pytest.raises(DataError), open_run(out, Settings(out="x"), **options) as folder:  # noqa: PT012
            if made == "failures.csv":
                folder.write_failures([("a", "preprocess", "is no scan")])
            elif made:
                (folder.out / made).mkdir()
            raise DataError("the cohort is of no use")
        return {path.name for path in out.iterdir()} - {".medgen-lock"} if out.exists() else None

    assert refused(tmp_path / "a" / "nothing", "heatmaps") is None
    assert not (tmp_path / "a").exists()
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty", "heatmaps") == set()
    # A command that has no --resume goes on with none of these; the message has said why scans failed.
    for made in ("model", "failures.csv"):
        assert refused(tmp_path / "scored", made, mark="steps") is None
    assert "checkpoints" in refused(tmp_path / "kept", "checkpoints", mark="steps")
    # What is to be replaced is gone when the next one is refused.
    finish(tmp_path / "old")
    assert refused(tmp_path / "old", "heatmaps", mark="steps", overwrite=True) == set()
    for made in ("checkpoints", "model", "failures.csv"):
        assert made in refused(tmp_path / made, made)
    # What was there before is not removed.
    finish(tmp_path / "run")
    assert "result.txt" in refused(tmp_path / "run", "", resume=True)


def test_what_nothing_goes_on_with_is_replaced(tmp_path):
    out = tmp_path / "scored"
    with pytest.raises(KeyboardInterrupt), open_run(out, Settings(out="x"), mark="steps") as folder:  # noqa: PT012
        folder.write_failures([("a", "score", "is no scan")])
        raise KeyboardInterrupt
    assert (out / "failures.csv").is_file()
    assert unfinished(out, "steps")
    # Not by another command, and not by one that can go on.
    assert not unfinished(out, "predictions")
    with pytest.raises(ConfigError, match="already holds a run"), open_run(out, Settings(out="x")):
        pass
    with open_run(out, Settings(out="x"), mark="steps") as folder:
        assert not (folder.out / "failures.csv").exists()
    assert not unfinished(out, "steps")
    with pytest.raises(ConfigError, match="already holds a run"), open_run(out, Settings(out="x"), mark="steps"):
        pass


def test_files_that_are_not_the_runs_stay_so_after_it_went_on(tmp_path):
    finish(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("somebody's")
    (tmp_path / "run" / "late.csv").write_text("somebody's")
    with open_run(tmp_path / "run", Settings(out="x"), resume=True) as folder:
        (folder.out / "late.csv").write_text("the run's own")
    problems = verify(tmp_path / "run")
    assert [(problem.file, problem.kind) for problem in problems] == [("notes.txt", "unlisted")]


def test_the_digest_of_a_run_says_what_it_computes_and_not_where():
    base = {"data": "/home/somebody/cohort", "out": "a"}
    same = {"data": "/mnt/share/cohort", "out": "b", "device": "cpu", "workers": 0}
    assert RunConfig(**base).digest() == RunConfig(**same).digest()
    for other in ({"seed": 1}, {"data": "other"}, {"cohort": {"layout": "bids"}}):
        assert RunConfig(**{**base, **other}).digest() != RunConfig(**base).digest()
