"""Kill runs of every kind, many times, and count: ``python tests/resilience/kill.py --kills 50``.

Every family is trained, one anomaly run and one augment run are made; each is killed at random moments and at every
stage inside the writer of every file, gone on with by ``--resume``, and compared with a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import harness

CONFIGS = Path(__file__).parents[2] / "configs" / "tiny"


def commands(cohort: Path, small: Path) -> dict[str, list[str]]:
    """Name → arguments of the command line, for one run of each kind."""
    from medgen.models.catalogue import available

    grid = ["preprocess.shape=[16,16,16]", "training.checkpoint_every=2", "device=cpu", "-q"]
    trainings = {
        f"train {family}": ["train", str(small / f"{family}.yaml"), f"data={cohort}", *grid] for family in available()
    }
    return {
        **trainings,
        "anomaly": [
            "anomaly",
            "run",
            str(CONFIGS / "anomaly.yaml"),
            f"data={cohort}",
            "training.steps=6",
            "training.checkpoint_every=2",
            "device=cpu",
            "-q",
        ],
        "augment": ["augment", "run", str(CONFIGS / "augment.yaml"), f"data={cohort}", "device=cpu", "-q"],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="random moments, over all commands")
    parser.add_argument("--files", type=int, default=6, help="files per stage whose writer is hit")
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    harness.prepare()
    from medgen.data.simulation import simulate

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        simulate(root / "cohort", n=14, seed=0, spacing=10.0)
        write_configs(root)
        chosen = {n: a for n, a in commands(root / "cohort", root).items() if options.only in n}
        total = harness.Tally()
        for place, (title, arguments) in enumerate(chosen.items()):
            folder = root / title.replace(" ", "-")
            folder.mkdir()
            case = harness.Case(title, arguments, folder)
            tally = harness.Tally()
            for stage in harness.STAGES:
                case.stages(tally, stage, range(1, options.files + 1))
            case.moments(tally, -(-options.kills // len(chosen)), options.seed + place)
            print(f"{title} ({case.seconds:.1f} s): {tally}", flush=True)
            for field in ("kills", "identical", "finished", "wrong"):
                setattr(total, field, getattr(total, field) + getattr(tally, field))
    print(f"total: {total}")
    sys.exit(1 if total.wrong else 0)


def write_configs(root: Path) -> None:
    """A tiny training of every family."""
    import yaml

    from medgen.models.catalogue import available, family_class
    from medgen.system import files

    base = yaml.safe_load((CONFIGS / "train_vae.yaml").read_text())
    for family in available():
        model = {"family": family, **family_class(family).tiny}
        # Follows from the cohort.
        model.pop("n_labels", None)
        (root / f"{family}.yaml").write_text(yaml.safe_dump({**base, "model": files.plain(model)}))


if __name__ == "__main__":
    main()
