from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgen.errors import DataError
from medgen.synthesis.fidelity.feature_file import read_features


def test_both_formats_give_the_same_vectors(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4))
    np.savez(tmp_path / "a.npz", ids=["one", "two", "syn-0001"], features=values)
    names = ["one", "two", "syn-0001"]
    lines = [",".join([name, *map(repr, map(float, row))]) for name, row in zip(names, values, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["id,f0,f1,f2,f3", *lines]) + "\n")
    tables = [read_features(tmp_path / name) for name in ("a.npz", "a.csv")]
    for table in tables:
        assert np.array_equal(table.of(["syn-0001", "one"]), values[[2, 0]])
        assert len(table.sha256) == 64
    with pytest.raises(DataError, match=r"a\.csv: no features of 'three' \(2 of 3 scans are missing\)"):
        tables[1].of(["one", "three", "four"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,a,b\none,1,2\ntwo,1\n", r"line 3 \('two'\) has 1 features, expected 2"),
        ("id,a,b\none,1,nan\n", "features of 'one' are not finite"),
        ("id,a,b\none,1,x\n", "could not convert string to float: 'x' in the row of 'one'"),
        ("id,a,b\none,1,2\none,1,2\n", "'one' occurs more than once"),
        ("id,a,b\n", "holds no features"),
        ("id\none\n", "holds no features"),
        ("", "holds no features"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_features(path)
    assert "\n" not in str(caught.value)


def test_bad_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, names=["a"], features=np.ones((1, 2)))
    with pytest.raises(DataError, match="no array 'ids'; it holds features, names"):
        read_features(path)
    np.savez(path, ids=["a", "b"], features=np.ones((1, 2)))
    with pytest.raises(DataError, match="expected ids"):
        read_features(path)
    np.savez(path, ids=np.array(["a", {}], dtype=object), features=np.ones((2, 2)))
    with pytest.raises(DataError, match="without pickled objects"):
        read_features(path)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(DataError, match="cannot be read"):
        read_features(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path / "absent.npz")
    with pytest.raises(DataError, match=r"expected features as \.npz or \.csv"):
        read_features(tmp_path / "x.txt")
