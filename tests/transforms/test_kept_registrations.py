"""A kept registration is the registration, is used instead of a new one, and only for the same scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medgen.transforms import kept_registrations as registrations
from medgen.transforms.affine_registration import register_affine
from medgen.transforms.kept_registrations import KeptRegistrations
from medgen.volume import Grid, Volume


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Volume]:
    """Scans that were really registered, in order."""
    scans: list[Volume] = []

    def counted(moving, fixed, fixed_mask=None, *, start=None):
        scans.append(moving)
        return register_affine(moving, fixed, fixed_mask, start=start)

    monkeypatch.setattr(registrations, "register_affine", counted)
    return scans


def test_results_are_used_again_to_the_last_bit(phantom, tmp_path: Path, made: list[Volume]) -> None:
    fixed = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    moving = phantom.draw(phantom.grid_of((44, 48, 40), (4, 4, 4), axes="LPS"), phantom.turn((4, 2, -6)), noise=0.1)
    kept = KeptRegistrations(tmp_path / "registrations")
    first = kept(moving, fixed)
    again = KeptRegistrations(tmp_path / "registrations")(moving, fixed)
    assert len(made) == 1
    assert np.array_equal(first.world, again.world)
    assert (first.similarity, first.mutual_information, first.overlap) == (
        again.similarity,
        again.mutual_information,
        again.overlap,
    )
    assert np.array_equal(first.world, register_affine(moving, fixed).world)

    # Another scan, another place of it, another mask, another start: each its own.
    shifted = moving.grid.affine.copy()
    shifted[0, 3] += 3
    mask = fixed.with_data((fixed.data > 0.2).astype(np.float32))
    kept(moving.with_data(moving.data * 2), fixed)
    kept(Volume(moving.data, Grid(moving.grid.shape, shifted)), fixed)
    kept(moving, fixed, mask)
    kept(moving, fixed, start=first.world)
    assert len(made) == 5
    assert len(list((tmp_path / "registrations").iterdir())) == 5


@pytest.mark.parametrize("damage", ["", "{", "changed", "no world"])
def test_a_damaged_file_is_made_anew(phantom, tmp_path: Path, made: list[Volume], damage: str) -> None:
    fixed = phantom.draw(phantom.grid_of((40, 46, 38), (4, 4, 4)))
    kept = KeptRegistrations(tmp_path)
    first = kept(fixed, fixed)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    if damage == "changed":
        content["result"]["world"][0][3] += 1
    if damage == "no world":
        del content["result"]["world"]
    file.write_text(damage if len(damage) < 2 else json.dumps(content))
    assert np.array_equal(kept(fixed, fixed).world, first.world)
    assert len(made) == 2
    assert json.loads(file.read_text())["result"]["world"] == first.world.tolist()
