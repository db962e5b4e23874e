"""Install the wheel of a folder, without what it needs, into a new environment, and let it say its version.

Run by ``make dist``: ``python tests/installation/wheel.py dist``. What is installed beside this interpreter is lent to
the new environment, so that nothing is downloaded, but medgen itself is that of the wheel.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

NEEDED = ("medgen/py.typed", "medgen/configs/keys.json", "medgen/configs/anomaly/simulated.yaml",
          "medgen/report/cards/claim.yaml", "medgen/report/report.css", "medgen/pipelines/cli/app.py")  # fmt: skip


def main(folder: Path) -> None:
    """Check the only wheel of a folder."""
    (wheel,) = folder.glob("medgen-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    if lost := [name for name in NEEDED if name not in held]:
        sys.exit(f"{wheel}: lacks {', '.join(lost)}")
    if strange := [name for name in held if not name.startswith(("medgen/", "medgen-"))]:
        sys.exit(f"{wheel}: holds {strange[0]}, which is no part of medgen")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "environment"
        venv.create(place, with_pip=True)
        python = place / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
        subprocess.run([*pip, wheel.resolve()], check=True, cwd=name)
        # Behind the environment's own packages, and without the editable install of a checkout.
        lent = Path(sysconfig.get_paths()["purelib"])
        own = next((place / "lib").glob("python*/site-packages"))
        (own / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
        code = "import medgen, sys; print(medgen.__file__)"
        where = _said([python, "-c", code], name)
        if not Path(where).is_relative_to(own):
            sys.exit(f"{where}: is not that of the wheel")
        said, version = _said([place / "bin" / "medgen", "--version"], name), wheel.name.split("-")[1]
        if said != version:
            sys.exit(f"medgen --version says {said!r}, the wheel is {version}")
        # The parts that lie elsewhere in a checkout: commands, configurations, their keys.
        typo = [place / "bin" / "medgen", "train", "vea"]
        refused = subprocess.run(typo, check=False, cwd=name, capture_output=True, text=True)
        if refused.returncode != 2 or "did you mean 'vae'?" not in refused.stderr:
            sys.exit(f"medgen train vea: {refused.stderr}")
        print(f"{wheel.name}: medgen {version} runs from a new environment")


def _said(command: list[str | Path], folder: str) -> str:
    ended = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
    return ended.stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
