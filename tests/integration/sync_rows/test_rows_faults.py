"""A fault at any file-system call of a whole sync, on either side: nothing is lost, and later syncs end as without it.

The suite takes some of the calls; ``make campaign-sync`` takes all of them.
"""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.sync.failures import SyncFailure
from fs_faults import Faults, Killed, start_again
from sync_pair import Pair, open_pair, tree_of
from sync_words import edit

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

CAMPAIGN = os.environ.get("COLAB_BRIDGE_CAMPAIGN") == "1"
STRIDE = 1 if CAMPAIGN else 97

BASE = "keep=0 change=1 gone=1 d/a=1 d/b=1 e/x=1 t=1 l>keep big=#1200000b k=1"
LOCAL = "change=2 -gone new/n=5 d/a=7 -e/x up=#1100000u -l l>change k~k2"
REMOTE = "r=3 d/b=4 d/a=8 -t t/in=9 out/o=9 l2>keep big=#1300000c down=#1100000d"


@pytest.fixture(autouse=True)
def nobody_else_saves(monkeypatch):
    """A file that is gone is waited for a moment, in case an editor saves it just now; here is none."""
    monkeypatch.setitem(Scanner.__init__.__kwdefaults__, "sleep", lambda seconds: None)


async def prepare(pair: Pair) -> set[str]:
    edit(pair.here, BASE)
    await pair.sync.sync("sync")
    edit(pair.here, LOCAL)
    edit(pair.there, REMOTE)
    return set(tree_of(pair.here).values()) | set(tree_of(pair.there).values())


async def result_without_fault(folder):
    async with open_pair(folder) as pair:
        await prepare(pair)
        await pair.sync.sync("post")
        assert tree_of(pair.here) == tree_of(pair.there)
        return tree_of(pair.here), pair.kept()


async def run_with(pair: Pair, faults: Faults) -> None:
    """Sync with a fault; an error may be told, in one line, and nothing but that."""
    told = ""
    with faults.installed(pair):
        try:
            await pair.sync.sync("post")
        except SyncFailure as failure:
            told = failure.text
        except Killed:
            told = ""
    assert "\n" not in told
    if faults.error is None and faults.fired:
        await start_again(pair, faults.side)


async def until_in_step(pair: Pair) -> None:
    said = ""
    for _ in range(3):
        try:
            await pair.sync.sync("sync")
        except SyncFailure as failure:
            said = failure.text
        else:
            return
    raise AssertionError(said)


KINDS = {
    "EIO": (errno.EIO, False),
    "ENOSPC": (errno.ENOSPC, False),
    "EACCES": (errno.EACCES, False),
    "EMFILE": (errno.EMFILE, False),
    "EXDEV": (errno.EXDEV, False),
    "ESTALE": (errno.ESTALE, False),
    "EDQUOT": (errno.EDQUOT, False),
    "killed before": (None, False),
    "killed after": (None, True),
}


@pytest.mark.rows("X01", "X02", "X04", "X05", "X13", "P1", "P2", "P8")
@pytest.mark.parametrize("side", ["here", "there"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_any_call_of_a_sync_loses_nothing(kind, side, quick_root):
    error, after = KINDS[kind]
    wanted = await result_without_fault(quick_root / "model")
    at = sorted(KINDS).index(kind) * 11 % STRIDE
    wrong: list[str] = []
    while True:
        faults = Faults(side, at, error, after=after)
        try:
            await one_run(quick_root / "run", faults, wanted)
        except AssertionError as failure:
            wrong.append(f"{kind} {side} at call {at} ({faults.fired}): {failure}")
        shutil.rmtree(quick_root / "run")
        if not faults.fired:
            break
        at += STRIDE
    assert wrong == []
    assert at > 100


async def one_run(folder, faults, wanted) -> None:
    tree, kept = wanted
    async with open_pair(folder) as pair:
        before = await prepare(pair)
        await run_with(pair, faults)
        assert before <= pair.contents(), "a version is lost"
        await until_in_step(pair)
        assert before <= pair.contents(), "a version is lost later"
        assert tree_of(pair.here) == tree
        assert tree_of(pair.there) == tree
        assert pair.kept() == kept
        again = await pair.sync.sync("sync")
        assert (again.up, again.down) == ((), ())
        tidy(pair, faults)
        assert pair.kept() == kept


def tidy(pair: Pair, faults: Faults) -> None:
    """The stages are empty; what could not be removed or moved goes with the next start, large content as it ages."""
    service_folders = [workspace.folder for workspace in pair.service._workspaces.values()]
    for folder in (pair.local.folder, *service_folders):
        stage = folder.root.state / "stage"
        assert os.listdir(stage) == [] or faults.fired in {"unlink", "rename", "replace"}
        folder.applier.recover()
        folder.stage.drop_old(older_than_s=-10)
        assert os.listdir(stage) == []
