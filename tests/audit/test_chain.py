"""The chain of a journal: whatever is done to a line is found, and the line is named."""

from __future__ import annotations

import json
import random

import pytest

from medgen.audit.chain import check_journal
from medgen.runs.chain import START, head_of, lines_of, tombstone
from medgen.runs.journal import Journal

N = 20


@pytest.fixture
def journal(tmp_path):
    own = Journal(tmp_path)
    for number in range(N):
        own.append("run", "metrics", values={"loss": 1 / (number + 1)}, step=number)
    own.close()
    return own.path


def recorded(path):
    head = head_of(path)
    return {"lines": head.lines, "chain": head.chain}


def rewritten(path, lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def found(path, record):
    return [(fault.kind, fault.place) for fault in check_journal(path, record).faults]


def test_an_untouched_journal_has_no_faults(journal):
    record = recorded(journal)
    assert found(journal, record) == found(journal, None) == []
    assert record["lines"] == N
    assert json.loads(next(lines_of(journal)))["chain"] == START


@pytest.mark.parametrize("place", range(N))
def test_one_byte_that_is_flipped_is_found_wherever_it_is(journal, place):
    record, lines, draw = recorded(journal), list(lines_of(journal)), random.Random(place)
    for _ in range(8):
        line = bytearray(lines[place])
        line[draw.randrange(len(line))] ^= 1 << draw.randrange(7)
        rewritten(journal, [*lines[:place], bytes(line), *lines[place + 1 :]])
        faults = check_journal(journal, record).faults
        # A byte that became a line break makes two lines of one.
        assert any(fault.place in (place, place + 1) for fault in faults), (line, faults)
        assert len(faults) <= 3


@pytest.mark.parametrize("place", range(N))
def test_what_is_changed_inside_an_entry_is_altered_there_and_nowhere_else(journal, place):
    record, lines = recorded(journal), list(lines_of(journal))
    for key in ("values", "time", "run", "chain"):
        entry = json.loads(lines[place])
        entry[key] = {"values": {"loss": 0.0}, "time": entry["time"] + 5, "run": "other", "chain": "f" * 64}[key]
        rewritten(journal, [*lines[:place], json.dumps(entry).encode(), *lines[place + 1 :]])
        assert ("altered", place) in found(journal, record)
        assert {own for _, own in found(journal, record)} <= {place, place + 1}


@pytest.mark.parametrize("place", range(N))
def test_a_removed_line_is_missing(journal, place):
    record, lines = recorded(journal), list(lines_of(journal))
    rewritten(journal, lines[:place] + lines[place + 1 :])
    (fault,) = check_journal(journal, record).faults
    assert (fault.kind, fault.place) == ("missing", place)
    assert (f"entry {place}," in fault.detail) if place < N - 1 else ("the last entry" in fault.detail)


@pytest.mark.parametrize("place", range(N - 1))
def test_a_moved_line_is_found(journal, place):
    record, lines = recorded(journal), list(lines_of(journal))
    lines[place], lines[place + 1] = lines[place + 1], lines[place]
    rewritten(journal, lines)
    assert found(journal, record) == [("moved", place)]


@pytest.mark.parametrize("place", range(N + 1))
def test_an_added_line_is_found(journal, place):
    record, lines = recorded(journal), list(lines_of(journal))
    before = json.loads(lines[min(place, N - 1)])
    for line in (
        lines[3],
        json.dumps({**before, "values": {"loss": 0.0}}).encode(),
        json.dumps({**before, "chain": "a" * 64}).encode(),
        b"no entry at all",
    ):
        rewritten(journal, [*lines[:place], line, *lines[place:]])
        faults = check_journal(journal, record).faults
        assert any(fault.kind == "unlisted" or line == lines[3] for fault in faults), (line, faults)
        assert faults


def test_a_clock_that_went_back_is_seen_in_a_chain_that_holds(tmp_path):
    own = Journal(tmp_path)
    own.append("run", "tags", values={})
    own._last = own._offset = 0
    own.append("run", "tags", values={})
    own.close()
    (fault,) = check_journal(own.path).faults
    assert "time before" in fault.detail


def test_torn_lines_and_new_starts_belong_to_the_chain(journal):
    with journal.open("ab") as file:
        file.write(b'{"seq": 20, "ru')
    own = Journal(journal.parent)
    own.append("run", "tags", values={"a": "b"})
    own.close()
    assert found(journal, recorded(journal)) == []
    lines = list(lines_of(journal))
    assert lines[N] == b'{"seq": 20, "ru'
    rewritten(journal, [*lines[:N], lines[N][:-1], lines[N + 1]])
    assert check_journal(journal).faults


def test_an_entry_can_be_forgotten_without_breaking_the_chain(journal):
    record, lines = recorded(journal), list(lines_of(journal))
    lines[7] = tombstone(json.loads(lines[7]), lines[7])
    rewritten(journal, lines)
    checked = check_journal(journal, record)
    assert (checked.faults, checked.forgotten) == ((), 1)
    assert b"loss" not in lines[7]


def test_a_journal_without_a_chain_says_so(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"seq": 0, "run": "r", "time": 1, "kind": "start"}\n')
    assert not check_journal(path).chained
