"""The tutorials run, in small, and what is kept of them is whole, small, and of nobody's machine."""

from __future__ import annotations

import base64
import io
import runpy
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
TINY = Path(__file__).parents[2] / "configs" / "tiny"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = "detectability.enabled=false artefacts.enabled=false anomaly.validation.enabled=false evaluation.per_scan=1"

nbformat = pytest.importorskip("nbformat", reason="the extra docs is not installed")


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(FOLDER / "execute.py"), run_name="execute")


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


def pictures(notebook) -> list[bytes]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    found = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [base64.b64decode(picture) for picture in found]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a whole run each, by a kernel of its own
@pytest.mark.filterwarnings("default")  # the client of the kernel has its own
@pytest.mark.parametrize(
    ("name", "settings", "said", "files"),
    [
        ("anomaly", QUICK, ["no fault", "implants have a finding", "p = 0.", "## Scans"], ["results/with-lesion.json"]),
        ("augment", "", ["no fault", "scans accepted", "internal use only", "identical"], ["runs/augment/report.html"]),
    ],
)
def test_a_tutorial_runs_in_small(tool, tmp_path, monkeypatch, name, settings, said, files):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    small = {"subjects": 14, "spacing": 8.0, "config": str(TINY / f"{name}.yaml"), "settings": settings}
    tool["execute"](notebook, tmp_path, small)
    tool["tidy"](notebook, tmp_path)
    text = printed(notebook)
    assert [words for words in said if words not in text] == []
    assert str(tmp_path) not in text
    assert [name for name in files if not (tmp_path / name).is_file()] == []
    assert len(pictures(notebook)) >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_whole_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run docs/tutorials/execute.py"
    assert [output for cell in code for output in cell.outputs if output.output_type == "error"] == []
    assert path.stat().st_size < 500_000
    assert pictures(notebook)
    for picture in pictures(notebook):
        assert Image.open(io.BytesIO(picture)).getextrema() != ((255, 255),) * 4
    text = printed(notebook)
    for trace in ("/tmp", "/home", "/work", "/Users", "\x1b", "━"):
        assert trace not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_says_that_nobody_is_in_it(path):
    first = nbformat.read(path, as_version=4).cells[0].source
    assert "No patient is in this notebook" in first
    assert "MNI" in first


def test_bars_and_folders_are_left_out(tool, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("!x")])
    bar = "\x1b[2Kchecking \x1b[91m━━━╸━━\x1b[0m 1/2\r\n"
    text = f"{bar}store: sqlite:///{tmp_path}/runs/x.db and {tmp_path}/out\r\nlast\r\n"
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=part) for part in (text[:50], text[50:])
    ]
    tool["tidy"](notebook, tmp_path)
    assert [output.text for output in notebook.cells[0].outputs] == ["store: sqlite:///runs/x.db and out\nlast\n"]


def test_a_command_that_fails_stops_the_tutorial(tool):
    cell = nbformat.v4.new_code_cell("!medgen nothing")
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="Error: no such command\n")]
    with pytest.raises(RuntimeError, match="no such command"):
        tool["_check"](nbformat.v4.new_notebook(cells=[cell]))
