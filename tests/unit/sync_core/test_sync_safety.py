"""Guards, proofs of links and safety stops."""

from __future__ import annotations

import os
import time

import pytest

from colab_bridge.agent.sync.tree import EMPTY, Blocked, Directory, Link, TreeEditor, Why, entry_at
from colab_bridge.sync_core.guard import GuardLists
from colab_bridge.sync_core.links import block_leaving_links, links_used, stays_inside
from colab_bridge.sync_core.model import Side, Stop
from colab_bridge.sync_core.plan import Roots, plan_sync
from colab_bridge.sync_core.safety import Circumstances, Limits, RootState, looks_scrambled
from sync_trees import contents, file, leaves, tree

GIB = 2**30


def many(count: int, content: str = "c", folder: str = "") -> str:
    return ",".join(f"{folder}f{n}={content}{n}" for n in range(count))


def stops_of(plan) -> list[str]:
    return sorted({hold.stop.value for hold in plan.holds})


GUARDED = [
    ".git/hooks/pre-commit",
    ".GIT/config",
    "git~1/config",
    "GIT~1/config",
    ".g\u200cit/config",
    "sub/.git/config",
    ".vscode/tasks.json",
    ".VSCODE/tasks.json",
    "x.code-workspace",
    ".idea/runConfigurations/a.xml",
    ".devcontainer/devcontainer.json",
    "AGENTS.md",
    "CLAUDE.md",
    ".cursor/rules/x",
    ".mcp.json",
    ".github/copilot-instructions.md",
    ".github/workflows/ci.yml",
    "sub/.claude/a",
    ".envrc",
    "sitecustomize.py",
    "a.pth",
    "pyvenv.cfg",
    ".husky/pre-push",
    ".npmrc",
    "pip.conf",
    "tools/bin/activate",
    "desktop.ini",
    "x.lnk",
    ".gitignore",
    ".colabbridgeignore",
    ".gitattributes",
    ".gitmodules",
    ".tool-versions",
    "vscode~1/tasks.json",
    ".\uff47it/config",
    ".git\u00a0/config",
    ".git./config",
    ".git::$INDEX_ALLOCATION/config",
]


@pytest.mark.parametrize("path", GUARDED)
def test_the_runtime_may_not_create_change_or_delete_a_guarded_path(path):
    def with_file(content: str):
        editor = TreeEditor(tree("x=1,y=1,z=1"))
        editor.put(path, file(content))
        return editor.done()

    plain, one, two = tree("x=1,y=1,z=1"), with_file("1"), with_file("2")
    for base, local, remote in ((plain, plain, one), (one, one, two), (one, one, plain), (one, plain, two)):
        plan = plan_sync(base, local, remote)
        assert entry_at(plan.after(Side.LOCAL, local), path) == entry_at(local, path)
        assert Stop.GUARDED.value in stops_of(plan)
        assert not any(hold.approvable for hold in plan.holds if hold.stop is Stop.GUARDED)


def test_a_folder_with_a_file_to_review_is_not_replaced_as_a_whole():
    home = tree("part/conftest.py=1,x=1,y=1,z=1")
    plan = plan_sync(home, home, tree("part=2,x=1,y=1,z=1"))
    assert entry_at(plan.after(Side.LOCAL, home), "part/conftest.py") == entry_at(home, "part/conftest.py")
    assert stops_of(plan) == [Stop.REVIEW.value]


def test_a_guarded_path_that_changed_at_home_goes_up():
    plan = plan_sync(tree("AGENTS.md=1"), tree("AGENTS.md=2"), tree("AGENTS.md=1"))
    assert plan.holds == ()
    assert leaves(plan.after(Side.REMOTE, tree("AGENTS.md=1"))) == leaves(tree("AGENTS.md=2"))


def test_the_bytes_of_what_is_held_are_offered_for_review():
    plan = plan_sync(EMPTY, EMPTY, tree(".envrc=evil"))
    assert [(copy.path, copy.entry) for copy in plan.quarantine] == [(".envrc", file("evil"))]


@pytest.mark.parametrize(
    "path", ["pyproject.toml", "Makefile", "conftest.py", "requirements.txt", "uv.lock", "sub/setup.py"]
)
def test_a_changed_build_file_waits_for_a_review_and_can_be_approved(path):
    base, remote = tree(f"{path}=1"), tree(f"{path}=2")
    plan = plan_sync(base, base, remote)
    assert stops_of(plan) == ["G2"]
    assert leaves(plan.after(Side.LOCAL, base)) == leaves(base)
    allowed = plan_sync(base, base, remote, approved=[hold.id for hold in plan.holds])
    assert leaves(allowed.after(Side.LOCAL, base)) == leaves(remote)


def test_with_the_trust_policy_a_known_build_file_changes_and_a_new_one_waits():
    facts = Circumstances(guards=GuardLists(trust=True))
    plan = plan_sync(tree("Makefile=1"), tree("Makefile=1"), tree("Makefile=2,setup.py=1"), facts=facts)
    assert [hold.paths for hold in plan.holds] == [("setup.py",)]


@pytest.mark.parametrize("new", ["random.py=1", "typing/__init__.py=1", "logging.py=1"])
def test_a_new_top_level_module_with_a_standard_name_waits(new):
    assert stops_of(plan_sync(EMPTY, EMPTY, tree(new))) == ["G2"]


def test_a_new_file_in_a_known_folder_with_a_standard_name_does_not_wait():
    assert plan_sync(tree("test/a.txt=1"), tree("test/a.txt=1"), tree("test/a.txt=1,test/b.txt=1")).holds == ()


def test_the_shape_of_a_bare_repository_is_held_as_a_whole():
    remote = tree("data/HEAD=1,data/objects/,data/refs/,data/config=evil,k=1")
    plan = plan_sync(EMPTY, EMPTY, remote)
    assert leaves(plan.after(Side.LOCAL, EMPTY)) == leaves(tree("k=1"))


def test_a_bare_repository_that_grows_in_a_known_folder_is_not_completed():
    base = tree("data/objects/,data/refs/")
    plan = plan_sync(base, base, tree("data/objects/,data/refs/,data/HEAD=1,data/config=evil"))
    assert leaves(plan.after(Side.LOCAL, base)) == leaves(base)


@pytest.mark.parametrize("name", ["CON", "nul.txt", "com1 .log", "aux.tar.gz", "LPT\u00b9", "a.", "a ", "x:y", "a?"])
def test_a_name_that_windows_refuses_is_not_created_at_home(name):
    plan = plan_sync(EMPTY, EMPTY, Directory_of(name))
    assert stops_of(plan) == ["NAME"]
    assert plan.after(Side.LOCAL, EMPTY) == EMPTY


def Directory_of(name: str, content: str = "1"):
    editor = TreeEditor(EMPTY)
    editor.put(name, file(content))
    return editor.done()


def test_e13_a_name_that_exists_at_home_comes_and_goes():
    name = "'\";$() ü日本🎉"
    up = plan_sync(EMPTY, Directory_of(name), EMPTY)
    assert up.after(Side.REMOTE, EMPTY) == Directory_of(name)
    down = plan_sync(Directory_of(name), Directory_of(name), Directory_of(name, "2"))
    assert down.after(Side.LOCAL, Directory_of(name)) == Directory_of(name, "2")


# -- links ---------------------------------------------------------------------------------------------------------


def linked(*pairs: tuple[str, str], files: str = ""):
    editor = TreeEditor(tree(files))
    for path, target in pairs:
        editor.put(path, Link(target))
    return editor.done()


@pytest.mark.parametrize(
    ("links", "held"),
    [
        ([("l", "../x")], ["l"]),
        ([("l", "a/../../x")], ["l"]),
        ([("a/b/up", "../.."), ("x", "a/b/up/../s")], ["a/b/up", "x"]),
        ([("a", "b"), ("b", "a")], ["a", "b"]),
        ([(f"c{n}", f"c{n + 1}") for n in range(45)], [f"c{n}" for n in range(5)]),
        ([("a", "d/../../x")], ["a"]),
        ([("ok", "d/f"), ("d/back", "../d/f")], []),
        ([("hook", ".git/hooks")], ["hook"]),
    ],
)
def test_links_of_the_runtime_are_proved_against_the_planned_tree(links, held):
    local = tree("d/f=1")
    facts = Circumstances(is_ignored=lambda path: path.split("/")[0] == ".git")
    plan = plan_sync(local, local, linked(*links, files="d/f=1"), facts=facts)
    found = sorted(path for hold in plan.holds for path in hold.paths)
    # What a link leads through on its way out is a part of that way.
    assert found == sorted(held)


def test_c19_a_folder_is_not_replaced_by_a_leaving_link():
    base = tree("d/a=1,k=1")
    plan = plan_sync(base, base, linked(("d", "../etc"), files="k=1"))
    assert leaves(plan.after(Side.LOCAL, base)) == leaves(base)
    assert stops_of(plan) == ["LINK"]


def test_a_link_that_breaks_the_proof_of_an_older_one_is_not_made():
    local = linked(("x", "a/b/up/../s"), files="a/b/up/t=1,a/b/s=1")
    remote = linked(("x", "a/b/up/../s"), ("a/b/up", "../.."), files="a/b/s=1")
    plan = plan_sync(local, local, remote)
    assert stops_of(plan) == ["LINK"]
    assert leaves(plan.after(Side.LOCAL, local)) == leaves(local)


def test_f03_a_leaving_link_at_home_is_blocked_and_a_loop_is_not():
    root = linked(("out", "/etc"), ("a", "b"), ("b", "a"), ("ok", "d"), ("up", "../x"), files="d/f=1")
    blocked = block_leaving_links(root, lambda path: False)
    assert {n for n, e in blocked.children.items() if e == Blocked(Why.LINK_OUTSIDE)} == {"out", "up"}


def test_a_leaving_link_deep_in_the_tree_is_found_too():
    root = linked(("d/e/out", "/etc"), files="d/e/f=1,f=1")
    blocked = block_leaving_links(root, lambda path: False)
    assert entry_at(blocked, "d/e/out") == Blocked(Why.LINK_OUTSIDE)


def test_a_link_met_twice_on_the_way_is_walked_twice():
    root = linked(("l", "d"), ("x", "l/../l/../../secret"), files="d/f=1")
    assert not stays_inside(root, "x", lambda path: False)
    assert links_used(root, "l", lambda path: False) == {"l"}


# -- stops -----------------------------------------------------------------------------------------------------------


def test_k01_an_emptied_runtime_holds_everything_and_the_ancestor_stays():
    base = tree(many(100))
    plan = plan_sync(base, base, EMPTY)
    assert stops_of(plan) == ["S2"]
    assert plan.changes == ()
    assert leaves(plan.next_base()) == leaves(base)


def test_an_approved_emptied_root_is_emptied():
    base = tree(many(100))
    plan = plan_sync(base, base, EMPTY)
    allowed = plan_sync(base, base, EMPTY, approved=[plan.holds[0].id])
    assert allowed.after(Side.LOCAL, base) == EMPTY


def test_a_rejected_emptied_root_is_filled_again():
    base = tree(many(30, folder="d/e/"))
    plan = plan_sync(base, base, EMPTY)
    refused = plan_sync(base, base, EMPTY, rejected=[plan.holds[0].id])
    assert leaves(refused.after(Side.REMOTE, EMPTY)) == leaves(base)
    assert refused.changes_on(Side.LOCAL) == ()


def test_k02_a_replaced_runtime_deletes_nothing_at_home_and_gets_everything():
    base = tree(many(50))
    plan = plan_sync(base, base, EMPTY, roots=Roots(remote=RootState.NEW))
    assert leaves(plan.after(Side.REMOTE, EMPTY)) == leaves(base)
    assert plan.changes_on(Side.LOCAL) == ()


@pytest.mark.parametrize("state", [s for s in RootState if s.halts])
def test_k07_a_lost_root_halts_everything(state):
    plan = plan_sync(tree("a=1"), EMPTY, tree("a=2"), roots=Roots(local=state))
    assert plan.halted is Stop.ROOT_LOST
    assert plan.changes == () and leaves(plan.next_base()) == leaves(tree("a=1"))


def test_k05_many_deletions_at_home_are_held_and_the_rest_goes_up():
    base = tree(many(200))
    local = tree(many(80) + ",new=1")
    plan = plan_sync(base, local, base)
    assert stops_of(plan) == ["S3"]
    assert [change.path for change in plan.changes] == ["new"]
    allowed = plan_sync(base, local, base, approved=[plan.holds[0].id])
    assert len(allowed.changes) == 121


def test_deletions_of_the_runtime_are_held_from_26_files_and_a_tenth():
    base = tree(many(200))
    assert plan_sync(base, base, tree(many(175))).holds == ()
    assert stops_of(plan_sync(base, base, tree(many(174)))) == ["S3"]
    large = tree(many(1000))
    assert plan_sync(large, large, tree(many(901))).holds == ()


def test_a_whole_top_level_folder_of_twenty_files_is_held():
    rest = many(500, "k")
    base = tree(rest + "," + many(20, folder="d/"))
    plan = plan_sync(base, base, tree(rest))
    assert stops_of(plan) == ["S3"]
    assert plan.changes == ()


def test_a_hold_does_not_wear_off_when_the_project_grows():
    base = tree(many(200))
    remote = tree(many(170))
    plan = plan_sync(base, base, remote)
    grown = tree(many(200) + "," + many(900, "n", "n/"))
    facts = Circumstances(standing=plan.standing)
    grown_remote = tree(many(170) + "," + many(900, "n", "n/"))
    assert stops_of(plan_sync(grown, grown, grown_remote, facts=facts)) == ["S3"]


def test_k15_an_approval_does_not_fit_a_changed_state():
    base = tree(many(200))
    plan = plan_sync(base, base, tree(many(100)))
    later = plan_sync(base, base, tree(many(99)), approved=[plan.holds[0].id])
    assert stops_of(later) == ["S3"]


def test_a_rejected_deletion_brings_the_files_back_to_the_runtime():
    base, remote = tree(many(200)), tree(many(100))
    plan = plan_sync(base, base, remote)
    refused = plan_sync(base, base, remote, rejected=[plan.holds[0].id])
    assert refused.holds == ()
    assert leaves(refused.after(Side.REMOTE, remote)) == leaves(base)
    assert leaves(refused.next_base()) == leaves(base)


def test_a_rejected_new_module_is_taken_away_from_the_runtime_as_a_whole():
    remote = tree("random/__init__.py=1,random/x/y.py=2,k=1")
    plan = plan_sync(EMPTY, EMPTY, remote)
    refused = plan_sync(EMPTY, EMPTY, remote, rejected=[plan.holds[0].id])
    assert leaves(refused.after(Side.REMOTE, remote)) == leaves(tree("k=1"))
    assert leaves(refused.after(Side.LOCAL, EMPTY)) == leaves(tree("k=1"))


def test_a_rejected_folder_in_place_of_a_build_file_is_stored_and_undone():
    base, remote = tree("Makefile=1"), tree("Makefile/a=2")
    plan = plan_sync(base, base, remote)
    refused = plan_sync(base, base, remote, rejected=[hold.id for hold in plan.holds])
    assert leaves(refused.after(Side.REMOTE, remote)) == leaves(base)
    assert [copy.path for copy in refused.stored] == ["Makefile/a"]


def test_k09_unexplained_mass_changes_are_held_and_explained_ones_are_not():
    base, remote = tree(many(100)), tree(many(100, "other"))
    plan = plan_sync(base, base, remote)
    assert stops_of(plan) == ["S4"]
    assert plan_sync(base, base, remote, facts=Circumstances(explained=True)).holds == ()


def test_a_run_does_not_explain_that_every_file_turned_into_noise():
    base, remote = tree(many(10)), tree(many(10, "noise"))
    facts = Circumstances(explained=True, scrambled=frozenset(f"f{n}" for n in range(10)))
    assert stops_of(plan_sync(base, base, remote, facts=facts)) == ["S4"]


def test_noise_is_told_from_text_by_head_and_entropy():
    text = b"id,name,value\n" * 300
    noise = bytes(os.urandom(4096))
    assert looks_scrambled(text, noise)
    assert not looks_scrambled(text, text.replace(b"name", b"nome"))
    assert not looks_scrambled(noise, bytes(reversed(noise)))


def test_k10_little_free_space_holds_downloads_only():
    base = tree("a=1,b=1")
    facts = Circumstances(free_bytes=GIB // 2, disk_bytes=100 * GIB)
    plan = plan_sync(base, tree("a=1,b=2"), tree("a=3,b=1"), facts=facts)
    assert [(hold.stop, hold.paths) for hold in plan.holds] == [(Stop.LOW_DISK, ("a",))]
    assert [change.side for change in plan.changes] == [Side.REMOTE]


def test_s7_a_twentieth_of_a_large_disk_stays_free():
    for free, held in ((5 * GIB - 1, ["S7"]), (6 * GIB, [])):
        facts = Circumstances(free_bytes=free, disk_bytes=100 * GIB)
        assert stops_of(plan_sync(tree("a=1,b=1"), tree("a=1,b=1"), tree("a=3,b=1"), facts=facts)) == held


def test_t19_a_disk_that_can_have_few_more_names_holds_what_comes_down():
    base = tree("a=1,b=1")
    news = tree("a=1,b=1," + ",".join(f"n{n}=x" for n in range(30)))
    for free, held in ((1029, 30), (1030, 0), (None, 0)):
        plan = plan_sync(base, tree("a=1,b=2"), news, facts=Circumstances(free_names=free))
        assert sum(len(hold.paths) for hold in plan.holds if hold.stop is Stop.LOW_DISK) == held
        assert "b" in {change.path for change in plan.changes if change.side is Side.REMOTE}


def sized(path: str, content: str, size: int):
    editor = TreeEditor(EMPTY)
    editor.put(path, file(content, size=size))
    return editor.done()


def test_k11_and_s8_limits_of_volume():
    facts = Circumstances(limits=Limits(down_new_files=10))
    assert stops_of(plan_sync(EMPTY, EMPTY, tree(many(11)), facts=facts)) == ["S8"]
    assert stops_of(plan_sync(EMPTY, EMPTY, sized("big", "1", 513 * 2**20))) == ["S8"]
    assert stops_of(plan_sync(EMPTY, sized("big", "1", 3 * GIB), EMPTY)) == ["S8"]
    asked = Circumstances(consented=frozenset({"big"}))
    assert plan_sync(EMPTY, sized("big", "1", 3 * GIB), EMPTY, facts=asked).holds == ()


def test_s8_more_than_two_gibibytes_in_one_sync_wait_though_each_file_is_small_enough():
    def results(size: int) -> Directory:
        editor = TreeEditor(EMPTY)
        for number in range(5):
            editor.put(f"f{number}", file(str(number), size=size))
        return editor.done()

    assert stops_of(plan_sync(EMPTY, EMPTY, results(400 * 2**20))) == []
    assert stops_of(plan_sync(EMPTY, EMPTY, results(500 * 2**20))) == ["S8"]


def test_b09_a_conflict_copy_that_is_too_big_changes_neither_side():
    base, local, remote = tree("f=1"), tree("f=2"), sized("f", "3", 600 * 2**20)
    plan = plan_sync(base, local, remote)
    assert stops_of(plan) == ["S8"]
    assert plan.changes == () and plan.stored == ()
    assert contents(plan.next_base()) == contents(base)


def test_a_folder_under_which_something_is_held_stays():
    base = tree("d/Makefile=1,d/a=1,k=1")
    plan = plan_sync(base, base, tree("k=1"))
    after = plan.after(Side.LOCAL, base)
    assert leaves(after) == leaves(tree("d/Makefile=1,k=1"))
    assert entry_at(plan.next_base(), "d/Makefile") == file("1")


def test_more_links_than_anybody_can_check_are_not_made():
    plan = plan_sync(EMPTY, EMPTY, linked(*[(f"l{n}", "f") for n in range(10_001)], files="f=1"))
    assert leaves(plan.after(Side.LOCAL, EMPTY)) == leaves(tree("f=1"))


def test_a_wide_folder_costs_time_in_proportion():
    started = time.perf_counter()
    plan = plan_sync(EMPTY, EMPTY, tree("k=1," + many(20_000, folder="d/")))
    assert len(plan.changes) == 20_002
    assert time.perf_counter() - started < 20
