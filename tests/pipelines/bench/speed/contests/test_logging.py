"""Both write the same numbers into their stores."""

from __future__ import annotations

from medgen.pipelines.bench.speed.contest import Contest, Growth, Settings
from medgen.pipelines.bench.speed.contests import logging


def test_the_store_has_every_number_of_both(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    contest, growth = None, None
    for entry in logging.entries(Settings("cpu", 3, quick=True, data=None, scratch=tmp_path)):
        if isinstance(entry, Contest):
            contest = entry
            for contender in entry.contenders:
                contender.work()
            rows = entry.equal()
        else:
            growth = entry
            growth.make(10.0)()
    assert contest is not None
    assert isinstance(growth, Growth)
    assert rows["numbers in the store"] == rows["expected"]
    assert not (tmp_path / "other.db").exists()
