"""The scenario table as far as its rows are pure decisions: base, local, remote, and what both sides are afterwards."""

from __future__ import annotations

import pytest

from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import plan_sync
from colab_bridge.sync_core.reconcile import MergeOptions
from sync_trees import leaves, tree

# id, base, local, remote, both sides afterwards, stored copies "side:path=content"
ROWS = [
    ("A01", "", "f=1", "", "f=1", ""),
    ("A02", "", "", "f=1", "f=1", ""),
    ("A03", "f=1", "f=2", "f=1", "f=2", ""),
    ("A05", "f=1,g=1", "g=1", "f=1,g=1", "g=1", ""),
    ("A06", "f=1,g=1", "f=1,g=1", "g=1", "g=1", ""),
    ("A09", "f=1", "f=", "f=1", "f=", ""),
    ("A13", "f=1,g=1", "f=2,g=1", "f=1,g=2", "f=2,g=2", ""),
    ("A14", "d/f=1", "d/f=2,d/g=3", "d/f=1,d/h=4", "d/f=2,d/g=3,d/h=4", ""),
    ("A15", "f=1", "f=1", "f=1", "f=1", ""),
    ("A17", "", "f=1,d/g=2", "f=1,d/g=2", "f=1,d/g=2", ""),
    ("A18", "", "f=1,g=1", "f=1,h=1", "f=1,g=1,h=1", ""),
    ("A19", "", "f=1", "f=2", "f=1", "f=2"),
    ("B01", "f=1", "f=2", "f=2", "f=2", ""),
    ("B02", "f=1", "f=2", "f=3", "f=2", "f=3"),
    ("B03", "", "f=2", "f=3", "f=2", "f=3"),
    ("B05", "f=1,g=1", "g=1", "f=2,g=1", "f=2,g=1", ""),
    ("B06", "f=1,g=1", "f=2,g=1", "g=1", "f=2,g=1", ""),
    ("B10", "f=2", "f=4", "f=4", "f=4", ""),
    ("B11", "f=2", "f=2", "f=5", "f=5", ""),
    ("B14", "f=1", "f=1!", "f=2", "f=2!", ""),
    ("B17", "f=1", "f=2LF", "f=2CRLF", "f=2LF", "f=2CRLF"),
    ("B18", "nb.ipynb=1", "nb.ipynb=edited", "nb.ipynb=outputs", "nb.ipynb=edited", "nb.ipynb=outputs"),
    ("B19", "f=1,g=1", "f=2", "g=2", "f=2,g=2", ""),
    ("C01", "", "d/", "", "d/", ""),
    ("C02", "d/,x=1", "x=1", "d/,x=1", "x=1", ""),
    ("C03", "d/a=1,d/b=1,x=1", "x=1", "d/a=1,d/b=1,x=1", "x=1", ""),
    ("C05", "d/a=1,x=1", "x=1", "d/a=1,d/c=1,x=1", "d/c=1,x=1", ""),
    ("C06", "d/a=1,d/e/b=1,x=1", "x=1", "d/a=1,x=1", "x=1", ""),
    ("C07", "d/a=1", "d/", "d/a=1", "d/", ""),
    ("C09", "d/a=1", "d=9", "d/a=2", "d=9", "d/a=2"),
    ("C10", "d/a=1", "d/a=2", "d=9", "d/a=2", "d=9"),
    ("C11", "d/a=1,d/b=1", "d/a=1", "d=9", "d=9", ""),
    ("C13", "d=9", "d/a=1", "d=8", "d/a=1", "d=8"),
    ("C14", "", "d/a=1", "d/b=1", "d/a=1,d/b=1", ""),
    ("C15", "", "d/", "d=1", "d/", "d=1"),
    ("C18", "d/a=1,e/b=1", "d->e,e/b=1", "d/a=1,e/b=1", "d->e,e/b=1", ""),
    ("C22", "d/a=1,d/b=1,d/c=1", "d/a=2,d/b=3,d/c=4", "d/a=1,d/b=1,d/c=1", "d/a=2,d/b=3,d/c=4", ""),
    ("D01", "a=1,x=0", "b=1,x=0", "a=1,x=0", "b=1,x=0", ""),
    ("D03", "a=1", "b=1", "a=2", "a=2,b=1", ""),
    ("D05", "a=1,b=2", "a=2,b=1", "a=1,b=2", "a=2,b=1", ""),
    ("D06", "a=1", "b=1", "a=1,b=9", "b=1", "b=9"),
    ("D07", "a=1,x=0", "d/a=1,x=0", "a=1,x=0", "d/a=1,x=0", ""),
    ("D09", "d/a=1", "e/a=1", "d/a=1,d/b=1", "e/a=1,d/b=1", ""),
    ("D10", "a=1,b=2,c=3", "b=1,c=2,a=3", "a=1,b=2,c=3", "b=1,c=2,a=3", ""),
    ("F01", "f=1", "f=1,l->f", "f=1", "f=1,l->f", ""),
    ("F02", "", "", "l->missing", "l->missing", ""),
    ("F09", "l->a", "l->b", "l->c", "l->b", "l->c"),
    ("F10", "l->a", "l->a", "l=1", "l=1", ""),
    ("F11", "f=1,g=1", "f->g,g=1", "f=1,g=1", "f->g,g=1", ""),
    ("G01", "f=1", "f=1!", "f=1", "f=1!", ""),
    ("file becomes folder there", "d=1", "d=1", "d/a=2", "d/a=2", ""),
    ("folder becomes file there", "d/a=1,d/e/b=1", "d/a=1,d/e/b=1", "d=2", "d=2", ""),
    ("empty folder deleted there, filled here", "d/,x=1", "d/a=1,x=1", "x=1", "d/a=1,x=1", ""),
    ("both deleted", "d/a=1,x=1", "x=1", "x=1", "x=1", ""),
    ("both made another kind", "d/a=1", "d=2", "d=2", "d=2", ""),
    ("exec taken away here", "f=1!", "f=1", "f=1!", "f=1", ""),
    ("exec and content apart", "f=1!", "f=1", "f=2", "f=2", ""),
    ("clash of folders with a common file", "", "d/a=1,d/b=2", "d=2", "d/a=1,d/b=2", "d=2"),
    ("file in place of a grown folder", "d/a=1,d/b=1", "d=9", "d/a=1,d/b=2,d/c=3", "d=9", "d/b=2,d/c=3"),
]


def stored(plan) -> dict:
    return {copy.path: copy.entry for copy in plan.stored}


@pytest.mark.parametrize(
    ("base", "local", "remote", "both", "copies"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_a_row_of_the_table_ends_as_it_says(base, local, remote, both, copies):
    mine, theirs = tree(local), tree(remote)
    plan = plan_sync(tree(base), mine, theirs)
    assert plan.holds == ()
    assert leaves(plan.after(Side.LOCAL, mine)) == leaves(tree(both))
    assert leaves(plan.after(Side.REMOTE, theirs)) == leaves(tree(both))
    assert stored(plan) == {
        path: entry for path, entry in leaves(tree(copies)).items() if "/" not in copies or path != "d"
    }
    agreed = plan.next_base()
    assert leaves(agreed) == leaves(tree(both))
    assert plan_sync(agreed, tree(both), tree(both)).is_quiet


def both_after(base: str, local: str, remote: str, **more):
    mine, theirs = tree(local), tree(remote)
    plan = plan_sync(tree(base), mine, theirs, **more)
    return plan, leaves(plan.after(Side.LOCAL, mine)), leaves(plan.after(Side.REMOTE, theirs))


def test_b07_prefer_remote_keeps_the_remote_version_and_stores_the_local_one():
    plan, local, remote = both_after("f=1", "f=2", "f=3", options=MergeOptions(winner=Side.REMOTE))
    assert local == remote == leaves(tree("f=3"))
    assert stored(plan) == leaves(tree("f=2"))
    assert plan.stored[0].side is Side.LOCAL


def test_b15_the_runtime_grants_no_exec_bit_with_a_change_at_home():
    plan, local, remote = both_after("f=1", "f=2", "f=1!")
    assert local == leaves(tree("f=2"))
    assert remote == leaves(tree("f=2!"))
    assert plan_sync(plan.next_base(), tree("f=2"), tree("f=2!")).is_quiet


def test_g02_an_exec_bit_of_the_runtime_stays_there_and_nothing_moves():
    plan, local, remote = both_after("f=1", "f=1", "f=1!")
    assert (local, remote) == (leaves(tree("f=1")), leaves(tree("f=1!")))
    assert plan.changes == ()


def test_g02_an_exec_bit_is_taken_where_the_settings_allow_it():
    _, local, _ = both_after("f=1", "f=1", "f=1!", options=MergeOptions(may_execute=lambda path: path == "f"))
    assert local == leaves(tree("f=1!"))


def test_g03_content_that_the_runtime_changed_loses_its_exec_bit_at_home():
    plan, local, remote = both_after("f=1!", "f=1!", "f=2!")
    assert local == leaves(tree("f=2"))
    assert remote == leaves(tree("f=2!"))
    assert plan_sync(plan.next_base(), tree("f=2"), tree("f=2!")).is_quiet


def test_m22_a_new_file_of_the_runtime_comes_without_exec_bit():
    plan, local, _ = both_after("", "", "f=1!")
    assert local == leaves(tree("f=1"))
    assert plan_sync(plan.next_base(), tree("f=1"), tree("f=1!")).is_quiet


def test_c17_ignored_content_keeps_its_folder_without_a_conflict():
    plan, _, remote = both_after("d/a=1,x=1", "x=1", "d/a=1,d/*,x=1")
    assert "d/a" not in remote and "d" in remote
    assert [change.path for change in plan.kept_folders] == ["d"]
    again = plan_sync(plan.next_base(), tree("x=1"), plan.after(Side.REMOTE, tree("d/a=1,d/*,x=1")))
    assert again.is_quiet


def test_a_file_does_not_replace_a_folder_that_holds_ignored_content():
    plan, local, remote = both_after("d/a=1", "d=2", "d/a=1,d/*")
    assert plan.changes == ()
    assert "d/a" in remote and local == leaves(tree("d=2"))
    assert [decision.reason.value for decision in plan.decisions] == ["in-the-way"]


def test_c21_nothing_below_an_unknown_folder_is_deleted():
    plan, _local, _remote = both_after("d/a=1,d/b=1,x=1", "d?,x=1", "x=1")
    assert plan.changes == ()
    assert "d/a" in leaves(plan.next_base())


def test_k06_a_folder_that_one_side_deleted_stays_while_a_part_of_it_is_unknown():
    plan, _, remote = both_after("d/a=1,d/e/b=1,x=1", "x=1", "d/a=1,d/e?,x=1")
    assert set(remote) == {"d", "d/e", "x"}
    assert set(leaves(plan.next_base())) == {"d", "d/e", "d/e/b", "x"}


def test_a_blocked_entry_keeps_its_base_row_and_the_rest_syncs():
    plan, _local, remote = both_after("d/a=1,d/b=1", "d/a<unreadable>,d/b=2", "d/a=5,d/b=1")
    assert "d/b" in remote and remote["d/b"] == leaves(tree("b=2"))["b"]
    assert leaves(plan.next_base())["d/a"] == leaves(tree("a=1"))["a"]


def test_d01_and_d02_a_move_sends_no_content():
    many = ",".join(f"d/f{n}=c{n}" for n in range(500))
    moved = many.replace("d/", "e/")
    plan, local, remote = both_after(many, moved, many)
    assert local == remote == leaves(tree(moved))
    assert sum(transfer.sent for transfer in plan.transfers()) == 0
    assert plan.holds == ()


def test_l15_one_content_under_five_paths_is_sent_once():
    plan, *_ = both_after("", ",".join(f"p{n}=same" for n in range(5)), "")
    assert sum(transfer.sent for transfer in plan.transfers()) == len("same")
    assert len(plan.changes) == 5


def test_operations_stand_in_the_order_of_the_transaction():
    plan, *_ = both_after("old/a=1,old/e/b=1,k=1", "n/m/a=2,l->k,k=1!", "old/a=1,old/e/b=1,k=1")
    assert [(c.action.name, c.path) for c in plan.changes] == [
        ("MAKE_FOLDER", "n"),
        ("MAKE_FOLDER", "n/m"),
        ("WRITE", "n/m/a"),
        ("MAKE_LINK", "l"),
        ("SET_EXECUTABLE", "k"),
        ("REMOVE", "old/e/b"),
        ("REMOVE_FOLDER", "old/e"),
        ("REMOVE", "old/a"),
        ("REMOVE_FOLDER", "old"),
    ]


FOLDING = MergeOptions(folding=True)


def test_e01_a_change_of_case_is_one_rename():
    plan, local, remote = both_after("A.py=1", "A.py=1", "a.py=1", options=FOLDING)
    assert local == remote == leaves(tree("a.py=1"))
    assert [(c.action.name, c.old_path, c.path) for c in plan.changes] == [("RENAME", "A.py", "a.py")]
    assert leaves(plan.next_base()) == local


def test_e02_of_two_names_with_one_key_the_second_is_blocked():
    plan, local, remote = both_after("", "", "A=1,a=2", options=FOLDING)
    assert local == leaves(tree("A=1"))
    assert remote == leaves(tree("A=1,a=2"))
    assert [d.path for d in plan.decisions if d.reason.value == "collision"] == ["a"]


def test_e03_the_name_that_was_agreed_stays():
    plan, local, _ = both_after("a=1", "a=1", "a=1,A=2", options=FOLDING)
    assert local == leaves(tree("a=1"))
    assert plan.changes == ()


def test_e05_an_edit_here_and_a_rename_there_come_together():
    _, local, remote = both_after("a=1", "a=2", "A=1", options=FOLDING)
    assert local == remote == leaves(tree("A=2"))


def test_a_folder_changes_its_case_and_its_content_at_once():
    plan, local, remote = both_after("Src/a=1,Src/b=1", "Src/a=2,Src/b=1", "src/a=1,src/b=3", options=FOLDING)
    assert local == remote == leaves(tree("src/a=2,src/b=3"))
    assert leaves(plan.next_base()) == local
    assert {c.source for c in plan.transfers()} == {"Src/a", "src/b"}


def test_without_folding_case_twins_are_two_files():
    _, local, remote = both_after("", "A=1", "a=2")
    assert local == remote == leaves(tree("A=1,a=2"))
