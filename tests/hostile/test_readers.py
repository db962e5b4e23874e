"""Whatever the bytes, only a valid result or a MedgenError comes out of a reader; tests/hostile runs longer."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile import readers


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return readers.seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize("number", range(len(readers.READERS)), ids=[reader.__name__ for reader, _ in readers.READERS])
def test_mutated_files(tmp_path, known, number):
    mine = [content for index, content in known if index == number]

    @settings(max_examples=200, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(mine), st.integers(0, 2**32 - 1))
    def holds(content, seed):
        readers.attempt(number, readers.mutated(content, random.Random(seed)), tmp_path)

    holds()


@pytest.mark.parametrize("number", range(len(readers.READERS)), ids=[reader.__name__ for reader, _ in readers.READERS])
def test_any_bytes(tmp_path, number):
    @settings(max_examples=100, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
    def holds(content):
        assert readers.attempt(number, content, tmp_path) in (True, False)

    holds()


def test_sound_seeds_are_accepted(tmp_path, known):
    assert all(readers.attempt(number, content, tmp_path) for number, content in known if number in (0, 1, 3, 4))
