from __future__ import annotations

import gc
import weakref
from typing import Any

from medgen.system.memory import available_memory, let_go, readable_bytes, settled


class Node:
    """Something that refers to itself, as the parts of a figure do."""

    def __init__(self) -> None:
        self.own: Any = self


def test_what_only_refers_to_itself_is_let_go() -> None:
    seen = weakref.ref(Node())
    let_go()
    assert seen() is None


def test_half_of_what_is_there_may_be_read() -> None:
    assert 0 < readable_bytes() <= available_memory() * (1 << 30)


def test_what_was_there_before_is_left_alone_and_what_came_since_is_let_go() -> None:
    before = weakref.ref(Node())
    gc.disable()
    try:
        old = Node()
        known = weakref.ref(old)
        with settled():
            # Taken before the block, dropped in it: it waits until the end.
            del old
            since = weakref.ref(Node())
            let_go()
            assert since() is None
            assert known() is not None
        let_go()
        assert known() is None
    finally:
        gc.enable()
    assert before() is None
