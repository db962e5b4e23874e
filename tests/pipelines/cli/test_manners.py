"""What every command does: JSON on stdout and nothing else there, and errors before anything heavy is imported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders.commands import commands
from tests.builders.run_records import anomaly_run

MEDGEN = Path(sys.executable).parent / "medgen"
HEAVY = ("torch", "monai", "mlflow", "SimpleITK", "nibabel", "scipy", "pydicom", "matplotlib", "sklearn", "skimage")
# Runs a command line and says on stderr what of the heavy packages it has imported.
LOOK = (
    "import os, sys\n"
    "from medgen.pipelines.cli.app import main\n"
    "try: main()\n"
    "finally: print('imported:', *sorted(set(os.environ['HEAVY'].split(',')) & set(sys.modules)), file=sys.stderr)\n"
)


COMMANDS = dict(commands())
# A mistake for each command: something that is not there, or a value that none takes.
MISTAKES = {
    "doctor": "--nonsense",
    "demo": "--device nonsense",
    "train": "vae data=absent out=x",
    "explore": "absent --data absent --out x",
    "pretrain": "vae data=absent out=x",
    "open": "absent",
    "data check": "absent",
    "data simulate": "x --spacing 99",
    "data implant": "absent x",
    "data prepare": "absent x",
    "data import": "absent x",
    "anomaly run": "simulated data=absent out=x",
    "anomaly score": "absent.nii.gz --model absent --out x",
    "anomaly adapt": "absent absent x",
    "anomaly evaluate": "absent absent",
    "augment run": "simulated data=absent out=x",
    "augment value": "default data=absent out=x",
    "augment nnunet": "absent --out x --id 3 --name h",
    "augment dicom": "absent --out x",
    "augment sample": "--model absent --out x",
    "bench anomaly": "x --data absent",
    "bench artefacts": "x --data absent",
    "bench calibration": "x --cohorts none",
    "bench painting": "x --data absent",
    "bench value": "x --data absent",
    "bench families": "x --data absent",
    "bench transfer": "x --data absent",
    "bench presets": "x --families nonsense",
    "bench speed": "x --benchmarks nonsense",
    "audit verify": "absent",
    "audit sign": "absent --key absent",
    "audit key": ".",
    "audit export": "absent --out x.zip",
    "audit forget": "nobody-known absent",
    "audit trace": "absent",
    "audit sync": "absent",
    "audit replay": "absent",
    "audit leaks": "absent absent",
    "model compare": "absent absent",
    "model promote": "absent/1",
    "model package": "absent --out x --scans absent --heatmaps y",
    "card lint": "absent",
    "card new": "x.md --cohort absent",
    "card model": "absent",
    "card intended-use": "absent",
    "card checklist": "claim absent",
    "card croissant": "x.md --cohort absent --url https://x.org --creator me --published 2026-01-31",
}
# What a person types wrongly in a command that is otherwise right; the words are what helps.
TYPOS = [
    ("data chek cohort", "Did you mean 'check'"),
    ("data check cohort --layuot csv", "--layout"),
    ("data check cohort --layout bid", "did you mean 'bids'?"),
    ("anomaly run simulatd data=cohort", "did you mean 'simulated'?"),
    ("anomaly run simulated data=cohort out=x trainning.steps=3", "did you mean 'training'?"),
    ("anomaly run simulated data=cohort out=x preprocess.modality=MRI", "did you mean 'MR'?"),
    ("anomaly run simulated data=cohort out=x device=cdua", "did you mean 'cuda'?"),
    ("augment run simulated data=cohort out=x generators.defrom.model.family=vae", "did you mean 'deform'?"),
    ("train vae data=cohort out=x model.latnt=3", "did you mean 'latent'?"),
    ("train vae data=cohort out=x model.family=veagan", "did you mean 'vaegan'?"),
    ("anomaly score scan.nii --model cohort --out x --viewers non", "did you mean 'none'?"),
    ("anomaly score scan.nii --model cohort --out x --dicom sge", "did you mean 'seg'?"),
    ("augment sample --model cohort --out x --layout nnunt", "did you mean 'nnunet'?"),
    ("demo --device mps", "GPU of a Mac"),
]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "scan.nii").write_bytes(b"")
    return tmp_path


def medgen(*arguments, cwd):
    return subprocess.run(
        [MEDGEN, *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False, cwd=cwd
    )


def looked(arguments, cwd):
    ended = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments],
        env={**os.environ, "HEAVY": ",".join(HEAVY)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=cwd,
    )
    *lines, imported = ended.stderr.splitlines()
    assert imported.startswith("imported:"), ended.stderr
    return ended, lines, imported.split()[1:]


def test_every_command_has_a_mistake_to_try():
    assert {" ".join(path) for path in COMMANDS} == set(MISTAKES)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_json_document_and_imports_nothing_heavy(name, place):
    assert any("--json" in option.opts for option in COMMANDS[tuple(name.split())].params)
    before = sorted(place.rglob("*"))
    ended, lines, imported = looked([*name.split(), *MISTAKES[name].split(), "--json"], place)
    assert ended.returncode == 2, ended.stderr
    found = json.loads(ended.stdout)
    assert found["exit_code"] == 2
    said = found["error"]["message"] if "error" in found else found["problems"][0]
    assert said in lines[-1]
    assert "Traceback" not in ended.stderr
    assert imported == []
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(("line", "words"), TYPOS, ids=[line for line, _ in TYPOS])
def test_a_typo_is_answered_with_what_was_meant_before_anything_heavy_is_imported(line, words, place):
    before = sorted(place.rglob("*"))
    ended, lines, imported = looked(line.split(), place)
    assert ended.returncode == 2
    assert len(lines) == 1
    assert words in lines[0]
    assert imported == []
    assert ended.stdout == ""
    assert sorted(place.rglob("*")) == before


def test_faults_are_in_the_document_one_by_one(place):
    ended = medgen("data", "check", "scan.nii", "--json", cwd=place)
    assert ended.returncode == 2
    found = json.loads(ended.stdout)
    assert found["faults"][0]["found"] == "an empty file"
    assert found["exit_code"] == 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    place = tmp_path_factory.mktemp("manners")
    ended = medgen("data", "simulate", "cohort", "-n", 22, "--spacing", 8, "--json", cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "out": "cohort",
        "subjects": 22,
        "lines": ["22 subjects in cohort (manifest.csv, card.md)"],
        "exit_code": 0,
    }
    assert ended.stderr == ""
    anomaly_run(place / "records")
    return place / "cohort"


def test_a_sound_cohort_is_told_as_a_table(cohort):
    ended = medgen("data", "check", "cohort", cwd=cohort.parent)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    (head,) = [line for line in lines if line.startswith("case ")]
    assert re.split(r"  +", head) == ["case", "subject", "voxels", "mm", "axes", "contrasts", "labels"]
    row = lines[lines.index(head) + 1]
    assert re.split(r"  +", row)[3:] == ["8 x 8 x 8", "RAS", "1", "1 CSF, 2 GM, 3 WM"]
    assert "... and 2 more of 22; --json lists all" in lines
    assert lines[-1] == "22 case(s), no fault"
    assert sum(line.startswith("sim-") for line in lines) == 20


def test_json_has_every_case(cohort):
    ended = medgen("data", "check", "cohort", "--json", cwd=cohort.parent)
    found = json.loads(ended.stdout)
    assert len(found["scans"]) == 22
    assert found["scans"][0]["labels"] == [1, 2, 3]
    assert found["scans"][0]["spacing"] == [8, 8, 8]
    assert found["exit_code"] == 0


def test_what_was_skipped_is_said_with_the_reason(cohort, tmp_path):
    place = tmp_path / "scans"
    place.mkdir()
    for file in sorted((cohort / "images").iterdir())[:3]:
        (place / file.name).write_bytes(file.read_bytes())
    (place / "notes.docx").write_text("no scan")
    (place / "._sim-0000.nii.gz").write_text("of a Mac")
    ended = medgen("data", "check", place, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "left out: 2 files" in ended.stdout
    assert "notes.docx" in ended.stdout


@pytest.mark.parametrize(
    "line",
    [
        "doctor",
        "data implant cohort out/implanted --kinds uniform",
        "data import cohort out/imported",
        "data import cohort out/again --dry-run",
        "card lint cohort/card.md",
        "card new out/card.md",
        "card croissant cohort/card.md --cohort cohort --url https://x.org --creator me --published 2026-01-31",
        "card checklist metrics records",
        "card intended-use records --out out/use.md",
        "card model records --licence MIT --contact me --out out/model.md",
        "bench calibration out/bench --cohorts 1",
        "train tiny.yaml --dry-run",
    ],
)
def test_success_is_one_json_document(line, cohort):
    place = cohort.parent
    (place / "out").mkdir(exist_ok=True)
    tiny = (Path(__file__).parents[3] / "configs" / "tiny" / "train_vae.yaml").read_text()
    (place / "tiny.yaml").write_text(re.sub(r"(?m)^(data|out):.*$", "", tiny) + "\ndata: cohort\nout: out/train\n")
    ended = medgen(*line.split(), "--json", cwd=place)
    found = json.loads(ended.stdout)
    assert found["exit_code"] == ended.returncode
    assert ended.returncode == 0 or line == "doctor", ended.stderr
    assert len(found) > 1


def test_open_prints_the_address_serves_it_and_ends_with_control_c(tmp_path):
    from urllib.request import urlopen

    (tmp_path / "report.html").write_text("the report")
    with subprocess.Popen(
        [MEDGEN, "open", tmp_path, "--no-browser", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        found = json.loads(text)
        with urlopen(found["address"], timeout=10) as answer:
            assert answer.read() == b"the report"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest == ""
    assert errors == ""


def complete(words, cwd):
    """What bash offers for the last of these words, by the script that medgen gives out."""
    environment = {**os.environ, "PATH": f"{MEDGEN.parent}:{os.environ['PATH']}"}
    script = (
        'source <(medgen --show-completion bash)\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n'
        'COMP_LINE="$*"\n_medgen_completion medgen\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env=environment,
    )
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["medgen", "dat"], ["data"]),
        (["medgen", "anomaly", "sc"], ["score"]),
        (["medgen", "open", "--no"], ["--no-browser"]),
        (["medgen", "data", "check", "--layout", "n"], ["nnunet"]),
        (["medgen", "demo", "--device", "c"], ["cpu", "cuda"]),
        (["medgen", "anomaly", "run", "oasis"], ["oasis", "oasis_channels"]),
        (["medgen", "anomaly", "run", "oasis", "training.st"], ["training.steps="]),
    ],
    ids=" ".join,
)
def test_bash_completes(words, found, tmp_path):
    assert complete(words, tmp_path) == found


def test_nothing_is_half_written_where_stdout_is_full(cohort):
    with Path("/dev/full").open("wb") as full:
        started = time.monotonic()
        ended = subprocess.run(
            [MEDGEN, "data", "check", "cohort", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
            cwd=cohort.parent,
        )
    assert ended.returncode == 2, started
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
