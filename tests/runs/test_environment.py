"""Facts about the machine: complete, and found without heavy imports."""

from __future__ import annotations

import subprocess
import sys

import medgen
from medgen.runs import environment
from medgen.system.memory import available_memory


def test_versions_and_commit():
    found = environment.versions()
    assert found["medgen"] == medgen.__version__
    assert found["numpy"].startswith("2.")


def test_a_checkout_says_its_commit_and_a_wheel_none(tmp_path, monkeypatch):
    def git(*arguments):
        author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        run = subprocess.run(
            ["git", "-C", str(tmp_path), *author, *arguments], capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    package = tmp_path / "medgen" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(medgen, "__file__", str(package))
    asked = environment.commit.__wrapped__
    assert asked().id == "unknown"
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    assert asked() == environment.Commit(git("rev-parse", "HEAD"), False)
    package.write_text("changed")
    assert asked().dirty


def test_memory_and_threads_are_plausible():
    assert 0.01 < environment.peak_memory() < 1000
    assert 0 < available_memory() < 100_000
    assert environment.threads() >= 1


def test_doctor_names_every_fact(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    checks = {check.name: check for check in environment.doctor(tmp_path / "runs" / "x")}
    names = {"Python", "medgen", "torch", "CPU cores", "memory available", "bf16 convolution", "MNI template", "disk"}
    assert names <= checks.keys()
    assert checks["MNI template"].ok
    assert checks["MLflow store"].value.startswith(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert all(check.ok or check.hint for check in checks.values())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///x")
    assert not {check.name: check for check in environment.doctor(tmp_path)}["MLflow store"].ok


def test_importing_tracking_and_audit_is_light():
    heavy = "('torch', 'mlflow', 'monai', 'matplotlib')"
    modules = "medgen.audit.verify, medgen.runs.environment"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
