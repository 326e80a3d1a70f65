"""What people are told, and where stored versions lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.agent.sync.tree import EMPTY, TreeEditor
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import plan_sync
from colab_bridge.sync_core.store_names import path_of, stored_path
from colab_bridge.sync_core.summary import Kind, diff_lines, hold_lines, left_out_line, notices, one_line
from sync_trees import file, tree


def test_one_line_names_the_results_first():
    plan = plan_sync(tree("a=1"), tree("a=2,b=1,c=1"), tree("a=1,models/m.pkl=1,outputs/plot.png=1"))
    assert one_line(plan) == "3 up, 2 down: models/m.pkl, outputs/plot.png, a, …"


def test_nothing_moved_is_no_line():
    assert one_line(plan_sync(tree("a=1"), tree("a=1"), tree("a=1"))) == ""


def test_a_conflict_is_named_with_the_command_that_shows_both_versions():
    plan = plan_sync(EMPTY, tree("my file=1"), tree("my file=2"))
    assert "1 conflict" in one_line(plan)
    assert [(n.path, n.kind, n.command) for n in notices(plan)] == [
        ("my file", "conflict", "colab-bridge sync conflicts 'my file'")
    ]


def test_a_hold_says_how_many_and_the_two_commands():
    base = tree(",".join(f"f{n}=1" for n in range(60)))
    plan = plan_sync(base, base, tree("f0=1"))
    lines = hold_lines(plan.holds[0])
    assert lines[0].startswith("held (S3): 59 deletions here")
    assert lines[1:] == (
        f"  colab-bridge sync approve {plan.holds[0].id}",
        f"  colab-bridge sync reject {plan.holds[0].id}",
    )
    assert "59 held" in one_line(plan)


def test_a_guarded_path_offers_no_approval():
    plan = plan_sync(EMPTY, EMPTY, tree(".envrc=1"))
    assert hold_lines(plan.holds[0]) == (
        "held (G1): .envrc here: the runtime may never write this path",
        f"  colab-bridge sync reject {plan.holds[0].id}",
    )


def test_a_move_is_one_line_and_each_line_has_its_reason():
    plan = plan_sync(tree("d/a=1,k=1"), tree("e/a=1,k=2"), tree("d/a=1,k=1"))
    lines = diff_lines(plan)
    assert [(line.kind, line.old_path, line.path) for line in lines] == [
        (Kind.DELETED, "", "d/"),
        (Kind.NEW, "", "e/"),
        (Kind.MOVED, "d/a", "e/a"),
        (Kind.CHANGED, "", "k"),
    ]
    assert {line.to for line in lines} == {Side.REMOTE}
    assert all(line.sentence == "only you changed it" for line in lines)


def test_names_of_the_runtime_cannot_play_with_the_terminal():
    editor = TreeEditor(EMPTY)
    editor.put("a\x1b[31m\nb", file("1"))
    plan = plan_sync(EMPTY, EMPTY, editor.done())
    for text in (one_line(plan), *hold_lines(plan.holds[0])):
        assert text.isprintable()


def test_blocked_and_kept_paths_are_told():
    base = tree("d/a=1,s=1,e=1,k=1")
    plan = plan_sync(base, tree("s<special>,k=1"), tree("d/a=1,s=1,e=2,k=1"))
    assert [(notice.path, notice.kind) for notice in notices(plan)] == [("e", "kept"), ("s", "blocked")]


def test_what_was_left_out_comes_with_the_command():
    assert left_out_line("data/x.bin", "it is too large").endswith("colab-bridge sync include data/x.bin")


@given(st.lists(st.text(min_size=1, max_size=120).filter(lambda t: "/" not in t), min_size=1, max_size=4))
def test_a_stored_path_means_nothing_to_a_file_system_and_can_be_read_back(names):
    path = "/".join(names).encode("utf-8", "replace").decode()
    stored = stored_path("20261121T120000Z", "7f", path)
    assert path_of(stored) == path
    for part in stored.split("/")[1:]:
        assert part.isascii() and len(part) <= 200 and part.startswith(("kept-", "more-")) and "." not in part
        assert not set('\\:*?"<>|\0') & set(part)


@pytest.mark.parametrize("stored", ["x", "x/", "x/a", "x/more-a", "x/kept-a/b", "x/kept-", "x/kept-%ff"])
def test_another_path_of_the_store_is_refused(stored):
    with pytest.raises(ValueError, match=r"conflict store|decode"):
        path_of(stored)
