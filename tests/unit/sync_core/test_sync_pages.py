"""Trees on the wire, and what a hostile sender can do with them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.pages import TreeReader, WireError, tree_pages
from colab_bridge.agent.sync.tree import Blocked, Directory, File, Why, entry_at, root_digest
from sync_trees import tree

ROOT = ["", "d", False]
DIGEST = "00" * 32


def read(*rows: Any, limit: int = 100) -> Directory:
    reader = TreeReader(limit)
    reader.feed([ROOT, *rows])
    return reader.done()


def test_a_tree_arrives_as_it_was_sent_in_pages_of_any_size():
    sent = tree("a=1,a.b=2!,d/x=1,d/e/,l->d/x,s<special>,u?,z/*,d-e=3")
    for rows in (1, 2, 3, 100):
        reader = TreeReader()
        for page in tree_pages(sent, rows):
            reader.feed(page)
        assert reader.done() == sent
        assert root_digest(reader.done()) == root_digest(sent)


@pytest.mark.parametrize(
    "rows",
    [
        [["a", "f", 1, DIGEST, False], ["a", "f", 1, DIGEST, False]],
        [["b", "d", False], ["a", "d", False]],
        [["a", "f", 1, DIGEST, False], ["a/b", "f", 1, DIGEST, False]],
        [["a", "l", "x"], ["a/b", "f", 1, DIGEST, False]],
        [["a/b", "d", False]],
        [["../x", "d", False]],
        [["/etc", "d", False]],
        [["a\0", "d", False]],
        [["", "d", False]],
        [["a", "device"]],
        [["a", "c", 1, 3]],
        [["a", "f", -1, DIGEST, False]],
        [["a", "f", True, DIGEST, False]],
        [["a", "f", 2**70, DIGEST, False]],
        [["a", "f", 1, "00", False]],
        [["a", "f", 1, DIGEST[:-2] + " 0", False]],
        [["a", "f", 1, DIGEST, 1]],
        [["a", "x", "no such reason", 0]],
        [["a", "d", False, "more"]],
        [[1, "d", False]],
        ["row"],
        [["x" * 70_000, "d", False]],
    ],
)
def test_what_no_honest_agent_sends_ends_the_session(rows):
    with pytest.raises(WireError):
        read(*rows)


def test_more_entries_than_allowed_end_the_session():
    with pytest.raises(WireError):
        read(*([f"f{n:04}", "f", 1, DIGEST, False] for n in range(101)))


def test_a_tree_without_a_root_is_none():
    with pytest.raises(WireError):
        TreeReader().done()


def test_a_refused_name_is_blocked_with_everything_below_it():
    found = read(["a\nb", "d", False], ["a\nb/x", "f", 1, DIGEST, False], ["z", "f", 1, DIGEST, False])
    assert found.children["a\nb"] == Blocked(Why.BAD_NAME)
    assert isinstance(found.children["z"], File)


@pytest.mark.parametrize("target", ["", "/etc/passwd", "a\0b", "x" * 1025])
def test_f19_a_link_that_may_not_travel_is_blocked(target):
    assert entry_at(read(["l", "l", target]), "l") == Blocked(Why.LINK_OUTSIDE)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)
rows = st.tuples(
    st.sampled_from(["", "a", "a/b", "b", "..", "a//b"]),
    st.sampled_from(["f", "d", "l", "x", "u", "?"]),
    json_like,
    json_like,
    json_like,
).map(list)


@settings(max_examples=500, deadline=None)
@given(st.one_of(json_like, st.lists(st.one_of(rows, json_like), max_size=6)))
def test_p15_any_page_is_a_tree_or_a_typed_error(page):
    reader = TreeReader(50)
    try:
        reader.feed(page)
        found = reader.done()
    except WireError:
        return
    assert root_digest(found)
