"""Records of runs that nothing was trained for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.run_records import RUNS


@pytest.fixture(params=list(RUNS))
def run(request, tmp_path) -> Path:
    """A run of every kind."""
    return RUNS[request.param](tmp_path / request.param)


@pytest.fixture
def run_of(tmp_path) -> Callable[[str], Path]:
    """A run of the kind that is asked for."""
    return lambda kind: RUNS[kind](tmp_path / kind)
