"""Properties of the merge over random trees: total, deterministic, convergent, lossless, honest, confined."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.ignore import IgnoreRules, strip_ignored
from colab_bridge.agent.sync.tree import (
    EMPTY,
    Blocked,
    Directory,
    Entry,
    File,
    Link,
    TreeEditor,
    Unknown,
    Why,
    entry_at,
    is_tracked,
    same,
    walk,
)
from colab_bridge.sync_core.changes import Action, agreed
from colab_bridge.sync_core.guard import GuardLists, guard
from colab_bridge.sync_core.links import stays_inside
from colab_bridge.sync_core.model import Rule, Side, Stop
from colab_bridge.sync_core.plan import Plan, plan_sync
from colab_bridge.sync_core.reconcile import MergeOptions, reconcile
from colab_bridge.sync_core.safety import Circumstances, Limits
from sync_trees import contents, file, leaves, tree

# No stop of quantity stands in the way of the merge's own properties.
CALM = Circumstances(limits=Limits(deletions_down=10**6, deletions_up=10**6, whole_folder=10**6, changes_down=10**6))
NAMES = ["a", "b", "c", "d"]
MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

contents_of_files = st.sampled_from(["", "1", "2", "3"])
plain_leaf = st.one_of(
    st.builds(lambda text, executable: file(text, executable=executable), contents_of_files, st.booleans()),
    st.sampled_from(["a", "b/c", "missing"]).map(Link),
)
odd_leaf = st.sampled_from([Blocked(Why.SPECIAL), Unknown("EIO")])


def trees(leaf: st.SearchStrategy[Entry], marks: st.SearchStrategy[bool]) -> st.SearchStrategy[Directory]:
    folder = st.recursive(
        st.builds(lambda mark: Directory({}, has_ignored=mark), marks),
        lambda child: st.builds(
            lambda children, mark: Directory(children, has_ignored=mark),
            st.dictionaries(st.sampled_from(NAMES), st.one_of(leaf, child), max_size=4),
            marks,
        ),
        max_leaves=6,
    )
    return folder.map(lambda root: Directory(root.children))


def edit(root: Directory, rng: random.Random, content: str) -> Directory:
    """A few ordinary edits: write, delete, move, make a folder, change a kind."""
    editor = TreeEditor(root)
    for turn in range(rng.randrange(0, 4)):
        paths = [path for path, _ in walk(editor.done())]
        path = rng.choice(paths) if paths and rng.random() < 0.7 else rng.choice(NAMES)
        match rng.randrange(6):
            case 0 | 1:
                editor.put(path, file(f"{content}{turn}", executable=rng.random() < 0.2))
            case 2:
                editor.remove(path)
            case 3:
                editor.make_folder(f"{path}/{rng.choice(NAMES)}")
            case 4:
                entry = editor.get(path)
                editor.remove(path)
                if entry is not None:
                    editor.put(rng.choice(NAMES), entry)
            case _:
                editor.put(f"{path}/{rng.choice(NAMES)}", file(f"{content}n{turn}"))
    return editor.done()


plain = trees(plain_leaf, st.just(False))  # type: ignore[arg-type]
odd = trees(st.one_of(plain_leaf, odd_leaf), st.booleans())  # type: ignore[arg-type]


@st.composite
def edited(draw: Any) -> tuple[Directory, Directory, Directory]:
    base = draw(plain)
    seed = draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    return base, edit(base, rng, "L"), edit(base, rng, "R")


triples = st.one_of(st.tuples(plain, plain, plain), edited())
odd_triples = st.tuples(plain, odd, odd)
ALLOW = MergeOptions(may_execute=lambda path: True)


def planned(base: Directory, local: Directory, remote: Directory, **more: Any) -> Plan:
    more.setdefault("facts", CALM)
    return plan_sync(base, local, remote, **more)


def test_a_folder_that_was_adopted_from_a_phantom_is_not_deleted_afterwards():
    mine, theirs = tree("b/*,k=1"), tree("b/,k=1")
    plan = planned(tree("k=1"), mine, theirs)
    second = planned(plan.next_base(), mine, theirs)
    assert second.changes == ()


@MANY
@given(triples)
def test_every_operation_finds_its_folder(three):
    base, local, remote = three
    plan = planned(base, local, remote)
    for side, root in ((Side.LOCAL, local), (Side.REMOTE, remote)):
        changes = plan.changes_on(side)
        for number, change in enumerate(changes):
            if change.action < Action.REMOVE and "/" in change.path:
                now = Plan(changes=changes[:number]).after(side, root)
                assert isinstance(entry_at(now, change.path.rpartition("/")[0]), Directory)


def unstopped(plan: Plan) -> bool:
    return not plan.holds


@MANY
@given(odd_triples)
def test_any_three_trees_give_one_decision_a_path_in_tree_order(three):
    paths = [decision.path.split("/") for decision in reconcile(*three)]
    assert all(one < two for one, two in itertools.pairwise(paths))


@MANY
@given(odd_triples)
def test_equal_trees_give_equal_plans(three):
    again = [agreed_copy(root) for root in three]
    assert planned(*three) == planned(*again)


def agreed_copy(root: Directory) -> Directory:
    return Directory(
        {
            name: agreed_copy(entry) if isinstance(entry, Directory) else entry
            for name, entry in reversed(list(root.children.items()))
        },
        has_ignored=root.has_ignored,
    )


@MANY
@given(triples)
def test_both_trees_and_the_ancestor_are_equal_after_one_sync(three):
    base, local, remote = three
    plan = planned(base, local, remote, options=ALLOW)
    if unstopped(plan):
        after = plan.after(Side.LOCAL, local)
        assert leaves(after) == leaves(plan.after(Side.REMOTE, remote)) == leaves(plan.next_base())


@MANY
@given(odd_triples)
def test_a_second_sync_finds_nothing_to_do(three):
    base, local, remote = three
    plan = planned(base, local, remote)
    second = planned(plan.next_base(), plan.after(Side.LOCAL, local), plan.after(Side.REMOTE, remote))
    assert second.changes == ()
    assert second.stored == ()
    assert leaves(second.next_base()) == leaves(plan.next_base())


@MANY
@given(odd_triples, st.booleans(), st.randoms(use_true_random=False))
def test_no_version_is_lost(three, prefer_remote, rng):
    base, local, remote = three
    options = MergeOptions(winner=Side.REMOTE if prefer_remote else Side.LOCAL)
    plan = planned(base, local, remote, options=options)
    kept = {entry.entry.digest for entry in plan.stored if isinstance(entry.entry, File)}
    after = plan.after(Side.LOCAL, local), plan.after(Side.REMOTE, remote)
    everywhere = kept | contents(after[0]) | contents(after[1])
    known = contents(base)
    # What was new on a side stands in a tree or in the conflict store, not merely in a trash.
    assert (contents(local) | contents(remote)) - known <= everywhere
    # And each removed or replaced version is in the trash of its side.
    for side, before, now in ((Side.LOCAL, local, after[0]), (Side.REMOTE, remote, after[1])):
        trash = set().union(
            *(contents(c.before) for c in plan.changes_on(side) if c.action is not Action.RENAME), set()
        )
        assert contents(before) <= contents(now) | trash


@MANY
@given(odd_triples)
def test_a_new_version_at_a_path_is_at_that_path_or_stored(three):
    base, local, remote = three
    plan = planned(base, local, remote)
    after = plan.after(Side.LOCAL, local), plan.after(Side.REMOTE, remote)
    stored = {(copy.side, copy.path): copy.entry for copy in plan.stored}
    for side, root in ((Side.LOCAL, local), (Side.REMOTE, remote)):
        for path, entry in walk(root):
            if isinstance(entry, File) and not same_content(entry_at(base, path), entry):
                places = [entry_at(after[0], path), entry_at(after[1], path), stored.get((side, path))]
                assert any(same_content(place, entry) for place in places), path


def same_content(one: Entry | None, two: Entry | None) -> bool:
    return isinstance(one, File) and isinstance(two, File) and one.digest == two.digest


@MANY
@given(triples)
def test_a_deletion_of_what_nobody_else_touched_is_carried_out(three):
    base, local, remote = three
    plan = planned(base, local, remote)
    clashes = [d.path for d in plan.decisions if d.rule is Rule.R7]
    after = plan.after(Side.LOCAL, local), plan.after(Side.REMOTE, remote)
    if not unstopped(plan):
        return
    for path, entry in walk(base):
        if isinstance(entry, Directory):
            continue
        inside = any(path == clash or path.startswith(clash + "/") for clash in clashes)
        for one, two in ((local, remote), (remote, local)):
            if entry_at(one, path) is None and same(entry_at(two, path), entry) and not inside:
                assert entry_at(after[0], path) is None
                assert entry_at(after[1], path) is None


@MANY
@given(triples)
def test_nothing_is_invented(three):
    base, local, remote = three
    plan = planned(base, local, remote, options=ALLOW)
    for path, entry in walk(plan.after(Side.LOCAL, local)):
        one, two = entry_at(local, path), entry_at(remote, path)
        if isinstance(entry, File):
            files = [e for e in (one, two) if isinstance(e, File)]
            assert entry.digest in {e.digest for e in files}
            assert entry.executable in {e.executable for e in files}
        else:
            assert type(entry) in {type(one), type(two)}


@MANY
@given(triples)
def test_a_field_that_one_side_alone_changed_has_that_value(three):
    base, local, remote = three
    plan = planned(base, local, remote, options=ALLOW)
    if not unstopped(plan):
        return
    after = plan.after(Side.LOCAL, local)
    for path, before in walk(base):
        one, two = entry_at(local, path), entry_at(remote, path)
        if isinstance(before, File) and isinstance(one, File) and isinstance(two, File):
            now = entry_at(after, path)
            assert isinstance(now, File)
            for field in ("digest", "executable"):
                values = [getattr(entry, field) for entry in (before, one, two)]
                digests_clash = len({before.digest, one.digest, two.digest}) == 3
                if values[0] == values[1] and not (digests_clash and field == "executable"):
                    assert getattr(now, field) == values[2]
                if values[0] == values[2] and not (digests_clash and field == "executable"):
                    assert getattr(now, field) == values[1]


@MANY
@given(triples)
def test_swapping_the_sides_and_the_preference_mirrors_the_result(three):
    base, local, remote = three
    ahead = planned(base, local, remote, options=ALLOW, facts=open_facts())
    mirror = MergeOptions(winner=Side.REMOTE, may_execute=lambda path: True)
    back = planned(base, remote, local, options=mirror, facts=open_facts())
    if unstopped(ahead) and unstopped(back):
        assert leaves(ahead.after(Side.LOCAL, local)) == leaves(back.after(Side.REMOTE, local))
        assert {(c.side, c.path, c.entry) for c in ahead.stored} == {
            (c.side.other, c.path, c.entry) for c in back.stored
        }


def open_facts() -> Circumstances:
    return CALM


@MANY
@given(triples, st.randoms(use_true_random=False))
def test_any_part_of_a_plan_that_was_done_leads_to_the_same_contents(three, rng):
    base, local, remote = three
    plan = planned(base, local, remote, options=ALLOW)
    if not unstopped(plan):
        return
    whole = plan.after(Side.LOCAL, local)
    # The machine stops after some of the operations, in order, and before the ancestor is written.
    stop = rng.randrange(0, len(plan.changes) + 1)
    partly = Plan(changes=plan.changes[:stop])
    here, there = partly.after(Side.LOCAL, local), partly.after(Side.REMOTE, remote)
    again = planned(base, here, there, options=ALLOW)
    if unstopped(again):
        assert contents(whole) <= contents(again.after(Side.LOCAL, here)) | stored_digests(plan) | contents(base)
        assert new_copies(again, base) <= new_copies(plan, base)


def stored_digests(plan: Plan) -> set[bytes]:
    return {copy.entry.digest for copy in plan.stored if isinstance(copy.entry, File)}


def new_copies(plan: Plan, base: Directory) -> set[bytes]:
    return stored_digests(plan) - contents(base)


@MANY
@given(odd_triples)
def test_nothing_is_deleted_at_or_below_what_nobody_could_see(three):
    base, local, remote = three
    plan = planned(base, local, remote)
    for side, root in ((Side.LOCAL, local), (Side.REMOTE, remote)):
        closed = [path for path, entry in walk(root) if isinstance(entry, (Blocked, Unknown))]
        for change in plan.changes:
            for path in closed:
                assert change.path != path
                assert not change.path.startswith(path + "/")
                # A phantom folder over there is no folder, so only the side that holds the entry is asked here.
                above = path.startswith(change.path + "/") and change.side is side
                assert not (above and change.action >= Action.REMOVE)


@MANY
@given(odd_triples)
def test_folders_with_something_left_in_them_are_not_removed_or_replaced(three):
    base, local, remote = three
    plan = planned(base, local, remote)
    for side, root in ((Side.LOCAL, local), (Side.REMOTE, remote)):
        after = plan.after(side, root)
        for path, entry in walk(root):
            if isinstance(entry, Directory) and entry.has_ignored:
                assert isinstance(entry_at(after, path), Directory)
            if isinstance(entry, (Blocked, Unknown)):
                assert entry_at(after, path) == entry


GUARDED = [".git", ".vscode", ".envrc", "AGENTS.md", "conftest.py", ".GitHub", "workflows", "a", "CON", "x:y"]


@MANY
@given(st.randoms(use_true_random=False))
def test_the_runtime_never_writes_a_guarded_or_refused_path(rng):
    def some() -> Directory:
        editor = TreeEditor(EMPTY)
        for _ in range(rng.randrange(0, 6)):
            path = "/".join(rng.choice(GUARDED) for _ in range(rng.randrange(1, 4)))
            entry: Entry = rng.choice([file(str(rng.random())), Link("../x"), Link("/etc"), Link("a/../.."), EMPTY])
            editor.put(path, entry)
        return editor.done()

    base, remote = some(), some()
    local = base if rng.random() < 0.5 else some()
    plan = planned(base, local, remote, options=MergeOptions(winner=rng.choice(list(Side))))
    before, after = leaves(local), leaves(plan.after(Side.LOCAL, local))
    for path in before.keys() | after.keys():
        existed = entry_at(base, path) is not None
        if guard(path, GuardLists(), existed=existed) is not None:
            assert before.get(path) == after.get(path), path
    now = plan.after(Side.LOCAL, local)
    for path in after.keys() - before.keys():
        assert not any(name in {"CON", "x:y"} for name in path.split("/"))
        assert not isinstance(after[path], Link) or stays_inside(now, path, lambda _: False)


@MANY
@given(triples, st.sets(st.sampled_from(NAMES), max_size=2))
def test_a_rule_that_leaves_out_more_only_takes_changes_away(three, names):
    _base, _local, _remote = three
    rules = IgnoreRules(own={"": "\n".join(f"**/{name}" for name in names)})
    stripped = [strip_ignored(root, rules) for root in three]
    plain_plan = planned(*three)
    less = planned(agreed(stripped[0]), stripped[1], stripped[2])
    if unstopped(plain_plan) and unstopped(less):
        # A folder that loses its content to a rule is kept where it is, so only files and links are compared.
        before = {(c.side, c.path) for c in plain_plan.changes if c.action >= Action.REMOVE or c.before is not None}
        after = {(c.side, c.path) for c in less.changes if c.action >= Action.REMOVE}
        replaced = {(c.side, c.path) for c in plain_plan.changes if isinstance(c.before, Directory)}
        assert all(
            (side, path) in before or any(path.startswith(p + "/") for s, p in replaced if s is side)
            for side, path in after
        )
        for change in less.changes:
            assert not any(name in names for name in change.path.split("/"))


@MANY
@given(plain, st.sets(st.sampled_from(NAMES)))
def test_a_rule_change_alone_changes_nothing_on_either_side(root, names):
    rules = IgnoreRules(own={"": "\n".join(names)})
    stripped = strip_ignored(root, rules)
    plan = planned(agreed(stripped), stripped, stripped)
    assert plan.changes == ()
    # And back again: what comes into view is adopted.
    again = planned(plan.next_base(), root, root)
    assert again.changes == ()
    assert leaves(again.next_base()) == leaves(root)


def in_capitals(root: Directory) -> Directory:
    return Directory(
        {
            name.upper(): in_capitals(entry) if isinstance(entry, Directory) else entry
            for name, entry in root.children.items()
        }
    )


@settings(max_examples=300, deadline=None)
@given(triples, st.booleans())
def test_a_folding_side_never_gets_two_names_with_one_key(three, upper):
    base, local, remote = three
    remote = in_capitals(remote) if upper else remote
    plan = planned(base, local, remote, options=MergeOptions(folding=True))
    after = plan.after(Side.LOCAL, local)
    for _, entry in [("", after), *walk(after)]:
        if isinstance(entry, Directory):
            keys = [name.casefold() for name in entry.children]
            assert len(keys) == len(set(keys))
    second = planned(plan.next_base(), after, plan.after(Side.REMOTE, remote), options=MergeOptions(folding=True))
    assert second.changes == ()


@pytest.mark.parametrize("side", list(Side))
def test_a_new_side_deletes_nothing(side):
    from colab_bridge.sync_core.plan import Roots
    from colab_bridge.sync_core.safety import RootState

    base = tree("a=1,d/b=2,d/c=3")
    roots = Roots(**{side.value: RootState.NEW})
    trees_now = {Side.LOCAL: base, Side.REMOTE: base, side: EMPTY}
    plan = plan_sync(base, trees_now[Side.LOCAL], trees_now[Side.REMOTE], roots=roots)
    assert all(change.action < Action.REMOVE and change.before is None for change in plan.changes)
    assert leaves(plan.after(side, EMPTY)) == leaves(base)


def test_is_tracked_of_a_phantom_is_false():
    assert not is_tracked(tree("d/*").children["d"])
    assert is_tracked(tree("d/").children["d"])
    assert Stop.LINK.sentence
