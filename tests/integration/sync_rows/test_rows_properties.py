"""Properties of the whole sync, with random edits of two real folders, and faults at random moments.

``make campaign-sync`` runs many more examples.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.disk.ops import ApplyOp
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.service_wire import pack_envelope
from colab_bridge.agent.sync.tree import File, Link, walk
from colab_bridge.sync import doing
from colab_bridge.sync.failures import SyncFailure
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync_core.model import Side
from fs_faults import Faults, Killed, start_again
from random_edits import Edit, Editor, edits, without_bits
from sync_pair import Pair, tree_of
from sync_tools import Liar

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(7200)]

CAMPAIGN = os.environ.get("COLAB_BRIDGE_CAMPAIGN") == "1"


def examples(count: int) -> settings:
    return settings(
        max_examples=count * (100 if CAMPAIGN else 1),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=not CAMPAIGN,
    )


faults = st.none() | st.builds(
    lambda side, at, error, after: (side, at, error, after),
    st.sampled_from(["here", "there"]),
    st.integers(0, 500),
    st.sampled_from([None, None, 5, 28, 13, 24]),
    st.booleans(),
)
rounds = st.lists(st.tuples(edits, edits, faults, st.sampled_from(["post", "pre", "sync", "watch"])), max_size=4)


@pytest.fixture(autouse=True)
def nobody_else_saves(monkeypatch):
    """A file that is gone is waited for a moment, in case an editor saves it just now; here is none."""
    monkeypatch.setitem(Scanner.__init__.__kwdefaults__, "sleep", lambda seconds: None)


@pytest.fixture
def memory(quick_folder: Path) -> Path:
    return quick_folder


def fresh(memory: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=memory))


def versions(pair: Pair) -> set[str]:
    """Contents that stand in one of the trees now."""
    found = set(tree_of(pair.here).values()) | set(tree_of(pair.there).values())
    return {text for text in found if text.startswith("version")}


async def start(folder: Path, **options: Any) -> Pair:
    pair = Pair(folder, **options)
    (pair.here / "keep").write_text("anchor")
    await pair.start()
    await pair.sync.sync("sync")
    return pair


async def sync_with(pair: Pair, fault: Any, reason: str) -> None:
    """One sync, perhaps with an error or a death at one call; deaths are followed by a new start."""
    if fault is None:
        await pair.sync.sync(reason)
        return
    side, at, error, after = fault
    doomed = Faults(side, at, error, after=after)
    with doomed.installed(pair):
        try:
            await pair.sync.sync(reason)
        except (SyncFailure, Killed):
            pass
    if doomed.dead:
        await start_again(pair, side)


async def until_in_step(pair: Pair) -> None:
    for turn in range(3):
        try:
            await pair.sync.sync("sync")
        except SyncFailure:
            if turn == 2:
                raise
        else:
            return


@pytest.mark.rows("P1", "P2", "P3", "P6", "P7", "P8", "P12")
@examples(25)
@given(rounds)
async def test_no_version_is_lost_and_both_sides_agree_whatever_happens(memory, rounds):
    folder = fresh(memory)
    pair = await start(folder)
    editor = Editor()
    owed: set[str] = set()
    try:
        for here, there, fault, reason in rounds:
            editor.run(pair.here, here)
            editor.run(pair.there, there)
            # What a death has left between two places is brought back when the side is opened again: until then it is
            # owed, and nobody's edit can reach it.
            before = versions(pair) | owed
            await sync_with(pair, fault, reason)
            owed = before - pair.contents()
            assert owed <= pair.owed(), "P1"
            assert versions(pair) <= before, "P6"
        await until_in_step(pair)
        assert owed <= pair.contents(), "P1"
        await pair.sync.sync("sync")
        here, there = tree_of(pair.here), tree_of(pair.there)
        assert without_bits(here) == without_bits(there), "P2, P12"
        base = {path: entry for path, entry in walk(pair.store.base()) if isinstance(entry, (File, Link))}
        assert base.keys() == {path for path in without_bits(here) if not path.endswith("/")}, "P7"
        again = await pair.sync.sync("sync")
        assert (again.up, again.down, again.sent, again.received) == ((), (), 0, 0), "P3"
    finally:
        await pair.stop()
        shutil.rmtree(folder)


def related(path: str, others: set[str]) -> bool:
    return any(path == o or path.startswith(o + "/") or o.startswith(path + "/") for o in others)


@pytest.mark.rows("P4", "P5")
@examples(25)
@given(edits, edits, edits)
async def test_what_one_side_alone_changed_is_so_on_both_sides(memory, first, here, there):
    folder = fresh(memory)
    pair = await start(folder)
    editor = Editor(frozenset({"write", "edit", "delete", "rename", "rmtree", "mkdir"}))
    try:
        editor.run(pair.here, first)
        await pair.sync.sync("sync")
        base = tree_of(pair.here)
        editor.run(pair.here, here)
        editor.run(pair.there, there)
        local, remote = tree_of(pair.here), tree_of(pair.there)
        await pair.sync.sync("post")
        after = tree_of(pair.here)
        by = {
            side: {path.rstrip("/") for path in {*base, *tree} if base.get(path) != tree.get(path)}
            for side, tree in (("local", local), ("remote", remote))
        }
        for mine, others, tree in ((by["local"], by["remote"], local), (by["remote"], by["local"], remote)):
            for path in mine:
                if not related(path, others):
                    assert after.get(path) == tree.get(path), path
    finally:
        await pair.stop()
        shutil.rmtree(folder)


@pytest.mark.rows("P9")
@examples(10)
@given(edits, edits, edits)
async def test_swapping_the_sides_and_the_preference_mirrors_the_result(memory, first, here, there):
    trees, kept = [], []
    for swapped in (False, True):
        folder = fresh(memory)
        winner = Side.REMOTE if swapped else Side.LOCAL
        pair = await start(folder, options=PairOptions(winner=winner))
        mine, other = (pair.there, pair.here) if swapped else (pair.here, pair.there)
        editor = Editor(frozenset({"write", "edit", "delete", "rename", "rmtree", "mkdir"}))
        try:
            editor.run(mine, first)
            await pair.sync.sync("sync")
            editor.run(mine, here)
            editor.run(other, there)
            await pair.sync.sync("sync")
            assert tree_of(pair.here) == tree_of(pair.there)
            trees.append(tree_of(pair.here))
            kept.append(set(pair.kept().values()))
        finally:
            await pair.stop()
            shutil.rmtree(folder)
    assert trees[0] == trees[1]
    assert kept[0] == kept[1]


def shuffled(operations: Sequence[ApplyOp], rng: random.Random) -> list[ApplyOp]:
    """Permute operations of one kind and depth that follow one another."""
    out: list[ApplyOp] = []
    group: list[ApplyOp] = []
    for one in [*operations, None]:
        if group and (one is None or _rank(one) != _rank(group[-1])):
            rng.shuffle(group)
            out += group
            group = []
        if one is not None:
            group.append(one)
    return out


def _rank(one: ApplyOp) -> tuple[Any, int]:
    return one.action, one.path.count("/")


@pytest.mark.rows("P10")
@examples(10)
@given(edits, edits, edits, st.integers(0, 1 << 30))
async def test_the_order_inside_a_class_of_operations_does_not_matter(memory, first, here, there, seed):
    real, found = doing.operations_of, []
    for rng in (None, random.Random(seed)):
        folder = fresh(memory)
        with pytest.MonkeyPatch.context() as patch:
            if rng is not None:
                patch.setattr(doing, "operations_of", lambda *a, rng=rng: shuffled(real(*a), rng))
            pair = await start(folder)
            editor = Editor()
            try:
                editor.run(pair.here, first)
                await pair.sync.sync("sync")
                editor.run(pair.here, here)
                editor.run(pair.there, there)
                await pair.sync.sync("sync")
                found.append((tree_of(pair.here), tree_of(pair.there)))
            finally:
                await pair.stop()
                shutil.rmtree(folder)
    assert found[0] == found[1]


RULES = ["", "a", "d/", "*", "!a", "e\nd/b", "**/a", "/b", "# nothing", "d/*\n!d/b"]


@pytest.mark.rows("P14")
@examples(12)
@given(edits, st.lists(st.sampled_from(RULES), min_size=1, max_size=4))
async def test_a_change_of_the_rules_alone_deletes_nothing(memory, first, rules):
    folder = fresh(memory)
    pair = await start(folder)
    try:
        Editor().run(pair.here, first)
        await pair.sync.sync("sync")
        for text in rules:
            (pair.here / ".colabbridgeignore").write_text(text)
            here, there = tree_of(pair.here), tree_of(pair.there)
            await pair.sync.sync("sync")
            for before, side in ((here, pair.here), (there, pair.there)):
                after = tree_of(side)
                before.pop(".colabbridgeignore", None)
                assert {p: t for p, t in before.items() if not p.endswith("/") and after.get(p) != t} == {}
    finally:
        await pair.stop()
        shutil.rmtree(folder)


@pytest.mark.rows("P13")
@examples(3)
@given(st.integers(0, 1 << 30), st.sampled_from(["up", "down"]))
async def test_a_changed_large_file_is_rebuilt_exactly_and_costs_what_is_new(memory, seed, way):
    rng = random.Random(seed)
    folder = fresh(memory)
    pair = await start(folder, options=PairOptions(barrier_bytes=1 << 30))
    source, target = (pair.here, pair.there) if way == "up" else (pair.there, pair.here)
    old = rng.randbytes(6 << 20)
    try:
        (source / "large").write_bytes(old)
        await pair.sync.sync("sync")
        cut, gone, new = rng.randrange(len(old)), rng.randrange(1 << 18), rng.randbytes(rng.randrange(1 << 18))
        changed = old[:cut] + new + old[cut + gone :]
        (source / "large").write_bytes(changed)
        report = await pair.sync.sync("sync")
        assert (target / "large").read_bytes() == changed
        assert report.sent + report.received < len(changed) // 4
    finally:
        await pair.stop()
        shutil.rmtree(folder)


def test_edits_fit_any_tree(tmp_path):
    editor = Editor()
    rng = random.Random(1)
    for _ in range(300):
        editor.run(
            tmp_path, [Edit(rng.choice(["write", "rename", "link", "delete"]), rng.randrange(12), rng.randrange(9))]
        )
    assert editor.written > 50


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
odd_paths = st.sampled_from(
    ["a", "d/b", "../x", "/etc/x", "d", "", "keep", ".git/config", "a/b/c", "l", "\x1b[2J", "ü"]
)
odd_rows = st.lists(
    st.tuples(
        odd_paths, st.sampled_from(["f", "d", "l", "-", "x", "u", "c"]), json_values, json_values, json_values
    ).map(list)
    | st.tuples(odd_paths, st.just("l"), st.sampled_from(["../..", "/", "a", "d/../..", "keep"])).map(list)
    | json_values,
    max_size=4,
)
odd_answers = st.fixed_dictionaries(
    {},
    optional={"rows": odd_rows | json_values, "results": json_values, "unstable": json_values, "problems": json_values},
)


@pytest.mark.rows("P11", "P15")
@examples(60)
@given(st.sampled_from(["post", "snapshot", "get", "hello", "rules"]), odd_answers, st.binary(max_size=60), json_values)
async def test_whatever_a_runtime_answers_nothing_outside_is_touched_and_the_error_is_of_a_known_kind(
    memory, verb, body, blob, head
):
    folder = fresh(memory)
    pair = await start(folder)
    (pair.tmp / "home" / ".bashrc").write_text("untouched")
    (pair.here / ".git").mkdir()
    (pair.here / ".git" / "config").write_text("mine")
    liar = Liar(pair.caller)
    pair.remote._caller = liar
    try:
        pair.sync.link_lost()

        def lie(result, answer):
            told = {**result, **head} if isinstance(head, dict) else {**result, "gen": head}
            return told, blob if len(blob) % 2 else pack_envelope(body, blob)

        liar.lies[verb] = lie
        for reason in ("sync", "post"):
            try:
                await pair.sync.sync(reason)
            except SyncFailure as failure:
                said = failure.text
            else:
                said = ""
            assert said.isprintable()
        assert (pair.tmp / "home" / ".bashrc").read_text() == "untouched"
        assert (pair.here / ".git" / "config").read_text() == "mine"
        assert (pair.here / "keep").read_text() == "anchor"
        assert {path.name for path in pair.tmp.iterdir()} <= {"home", "runtime", "state", "agent1"}
        assert {path.name for path in (pair.tmp / "home").iterdir()} == {"project", ".bashrc"}
    finally:
        await pair.stop()
        shutil.rmtree(folder)
