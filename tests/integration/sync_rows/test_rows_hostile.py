"""A runtime that was taken over: each row of the threat model, through the controller.

Always: nothing outside of the project changes, nothing in it that the runtime may not touch, and one line tells of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import pytest

import colab_bridge
from colab_bridge.agent.events import CallError
from colab_bridge.agent.sync.pages import row_of
from colab_bridge.agent.sync.service_wire import pack_envelope, unpack_envelope
from colab_bridge.agent.sync.transfer.batches import pack_batch
from colab_bridge.agent.sync.tree import File, Link, TreeEditor
from colab_bridge.errors import UserError
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.options import PairOptions
from sync_pair import Pair, tree_of
from sync_tools import Liar
from sync_words import edit

pytestmark = pytest.mark.anyio

MINE = "f=1 d/g=2 .git/config=mine .git/hooks/pre-commit=mine"


def secrets_beside(pair: Pair) -> dict[str, bytes]:
    """Everything outside of the project that the runtime must not reach."""
    found = {}
    for place in (pair.tmp / "home", pair.tmp / "outside"):
        for path in place.rglob("*"):
            if path.is_file() and pair.here not in path.parents:
                found[str(path)] = path.read_bytes()
    return found


@pytest.fixture
async def attacked(pairs):
    """A pair in agreement, with a liar in between and canaries around the project."""
    async with pairs() as pair:
        (pair.tmp / "outside").mkdir()
        (pair.tmp / "outside" / "secret").write_text("secret")
        (pair.tmp / "home" / ".bashrc").write_text("untouched")
        edit(pair.here, MINE)
        await pair.sync.sync("sync")
        pair.liar = Liar(pair.caller)
        pair.remote._caller = pair.liar
        around, git = secrets_beside(pair), tree_of(pair.here / ".git")
        yield pair
        assert secrets_beside(pair) == around
        assert tree_of(pair.here / ".git") == git


def digest_of(pair: Pair, content: bytes) -> bytes:
    return blake2b(content, key=pair.local.key, digest_size=32).digest()


def claims(pair: Pair, entries: dict, contents: tuple[bytes, ...] = (), raw: tuple = ()) -> None:
    """Let the next answer say that the runtime has these entries too, consistently; content comes along."""
    assert pair.remote.tree is not None
    editor = TreeEditor(pair.remote.tree)
    rows: list[list[object]] = []
    for path, entry in entries.items():
        for above in reversed(list(PurePosixPath(path).parents)[:-1]):
            if editor.get(str(above)) is None:
                rows.append([str(above), "d", False])
        editor.put(path, entry)
        rows.append(row_of(path, entry))
    root = editor.done().kept.digest.hex()
    rows += raw
    batch = pack_batch([(digest_of(pair, content), content) for content in contents]) if contents else b""

    def lie(result, answer):
        body = {"rows": rows, "results": [], "unstable": [], "problems": []}
        return {**result, "gen": result["gen"] + 1, "root": root}, pack_envelope(body, batch)

    pair.liar.lies["post"] = lie
    pair.liar.lies["get"] = lambda result, answer: (result, batch)


def a_file(pair: Pair, content: bytes) -> File:
    return File(digest_of(pair, content), len(content))


def begin_again(pair: Pair) -> None:
    """As a new session would; the next lie meets a pair in agreement."""
    pair.sync.poisoned = ""
    pair.store.set_meta("poisoned", "")
    pair.sync.link_lost()


async def ends(pair: Pair, reason: str = "post") -> str:
    """The sync ends for good, with one line."""
    with pytest.raises(SyncFailure) as caught:
        await pair.sync.sync(reason)
    assert caught.value.kind is FailureKind.PROTOCOL
    assert "\n" not in caught.value.text
    assert caught.value.text.isprintable()
    pair.liar.lies.clear()
    with pytest.raises(SyncFailure, match="has ended"):
        await pair.sync.sync("pre")
    return caught.value.text


PATHS = {
    "M01": ["../x", "/etc/x", "a\0b", "..", "a/../../x", "//x", "a//b", "./x", ".", "a/./b", "x/", "e\u0301"],
    "E17": ["./f", "d//f", "d/../f", ""],
    "T01": ["d/../../home/.bashrc", "/" + "x" * 2000],
}


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.rows(row), id=row) for row in PATHS])
async def test_a_path_that_no_honest_agent_sends_ends_the_sync(row, attacked):
    for path in PATHS[row]:
        claims(attacked, {}, (b"x",), raw=([path, "f", 1, digest_of(attacked, b"x").hex(), False],))
        await ends(attacked)
        begin_again(attacked)
        await attacked.sync.sync("sync")


REFUSED = ["C:\\x", "\\\\server\\x", "~x", "~root", "a\\b", "a\u202eb", "a\u200cb", "a\ufeffb", "tab\tx", "x\u2066y"]


@pytest.mark.rows("M01", "T01", "E14")
async def test_paths_that_only_look_harmless_are_not_made_here_and_are_shown_safely(attacked):
    before = tree_of(attacked.here)
    for path in REFUSED:
        claims(attacked, {path: a_file(attacked, b"x")}, (b"x",))
        said = ""
        try:
            said = str((await attacked.sync.sync("post")).to_json())
        except SyncFailure as failure:
            said = failure.text
        assert said.isprintable()
        assert tree_of(attacked.here) == before
        attacked.liar.lies.clear()
        begin_again(attacked)
        await attacked.sync.sync("sync")


@pytest.mark.rows("M02", "F07", "T02")
@pytest.mark.parametrize("together", [True, False])
async def test_nothing_is_written_through_a_link(together, attacked):
    link = {"out": Link("../../outside")}
    if together:
        claims(attacked, link, (b"x",), raw=(["out/secret", "f", 1, digest_of(attacked, b"x").hex(), False],))
        await ends(attacked)
    else:
        claims(attacked, link)
        await attacked.sync.sync("post")
        claims(attacked, {}, (b"x",), raw=(["out/secret", "f", 1, digest_of(attacked, b"x").hex(), False],))
        await ends(attacked)
    assert not (attacked.here / "out").is_symlink()


CHAINS = {
    "3 links": [("a", "d/b"), ("d/b", "c"), ("d/c", "../../x")],
    "41 links": [(f"c{n}", f"c{n + 1}") for n in range(45)],
    "loop": [("a", "b"), ("b", "a")],
    "absolute": [("a", "/etc/passwd")],
    "above": [("a", "d/../../x")],
    "T04": [("d/up", ".."), ("x", "d/up/../s")],
}


@pytest.mark.rows("M03", "T04", "F06")
async def test_a_link_that_may_lead_out_is_not_made(attacked):
    top = str(attacked.here)
    for chain in CHAINS.values():
        claims(attacked, {path: Link(target) for path, target in chain})
        # What it claims is not there at the next look, so the barrier may end without agreement.
        with suppress(SyncFailure):
            await attacked.sync.sync("post")
        assert all(os.path.realpath(path).startswith(top) for path in attacked.here.rglob("*"))
        attacked.liar.lies.clear()
        begin_again(attacked)
        await attacked.sync.sync("sync")


@pytest.mark.rows("F19")
async def test_a_link_with_an_impossible_target_is_not_made(attacked):
    before = tree_of(attacked.here)
    for target in ("x" * 1025, "a\0b", "", "a\nb", "x" * 70_000):
        claims(attacked, {}, raw=(["l", "l", target],))
        with suppress(SyncFailure):
            await attacked.sync.sync("post")
        assert tree_of(attacked.here) == before
        attacked.liar.lies.clear()
        begin_again(attacked)
        await attacked.sync.sync("sync")


@pytest.mark.rows("F13", "T06", "T05", "M04")
async def test_kinds_that_do_not_exist_end_the_sync(attacked):
    for kind in ("c", "b", "p", "s", "h", "hardlink", "", None, 7, ["f"]):
        claims(attacked, {}, raw=(["dev", kind, 1, digest_of(attacked, b"x").hex(), False],))
        await ends(attacked)
        begin_again(attacked)
        await attacked.sync.sync("sync")


@pytest.mark.rows("M04", "T05")
async def test_two_names_of_one_file_there_are_two_files_here(attacked):
    edit(attacked.there, "one=1")
    os.link(attacked.there / "one", attacked.there / "two")
    await attacked.sync.sync("post")
    assert tree_of(attacked.here)["two"] == "1"
    assert (attacked.here / "one").stat().st_ino != (attacked.here / "two").stat().st_ino


@pytest.mark.rows("M22", "T06", "T14")
async def test_bits_of_a_new_file_are_not_taken(attacked):
    edit(attacked.there, "tool!=1 suid=1")
    os.chmod(attacked.there / "suid", 0o4755)
    report = await attacked.sync.sync("post")
    for name in ("tool", "suid"):
        assert stat.S_IMODE((attacked.here / name).stat().st_mode) & 0o7111 == 0
    assert {(n.kind, n.path) for n in report.notices} == {("exec-dropped", "tool"), ("exec-dropped", "suid")}


GUARDED = {
    "T07": [".git/hooks/post-checkout", ".gitmodules", ".gitattributes", "sub/.git", ".GIT/config", "git~1/config"],
    "M05": ["sub/.git/config", ".git /config", "bare/HEAD", "bare/objects/x", "bare/refs/y"],
    "T08": [".vscode/tasks.json", ".vscode/settings.json", "x.code-workspace", ".idea/x.xml", ".vs/x"],
    "M06": [".devcontainer/devcontainer.json", ".idea/runConfigurations/a.xml"],
    "T09": [".envrc", ".direnv/x", "mise.toml", ".tool-versions", ".python-version", ".nvmrc", ".bashrc"],
    "T10": ["AGENTS.md", "CLAUDE.md", "GEMINI.md", ".claude/settings.json", ".cursorrules", ".mcp.json"],
    "M07": [".cursor/rules/x", ".github/copilot-instructions.md"],
    "T11": ["sitecustomize.py", "usercustomize.py", "x.pth", "pyvenv.cfg"],
    "T12": ["conftest.py", "setup.py", "pyproject.toml", "noxfile.py", "tox.ini", "Makefile", "package.json", ".npmrc"],
    "M09": [".pre-commit-config.yaml", ".husky/x", ".github/workflows/ci.yml", "Dockerfile", ".pypirc", "pip.conf"],
    "T13": ["logging.py", "typing/x.py"],
    "M10": ["random.py"],
    "T15": ["desktop.ini", "autorun.inf", "x.lnk", "x.url", "x.scf", "x.command", "x.desktop"],
    "T29": [".VSCODE/tasks.json", ".Envrc", "claude.MD", "SiteCustomize.py"],
    "M27": [".Github/Workflows/ci.yml", "MAKEFILE"],
    "T31": ["requirements.txt", "requirements-dev.txt", "uv.lock", "poetry.lock", "environment.yml"],
    "H06": [".colabbridgeignore", "sub/.gitignore", "colab-bridge.toml"],
    "T16": [".gitignore"],
}


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.rows(row), id=row) for row in GUARDED])
async def test_what_programs_here_would_obey_is_never_planted(row, attacked):
    before = tree_of(attacked.here)
    claims(attacked, {path: a_file(attacked, b"evil") for path in GUARDED[row]}, (b"evil",))
    report = await attacked.sync.sync("post")
    assert report.down == ()
    # A folder may be there, as long as nothing is in it.
    assert {path: text for path, text in tree_of(attacked.here).items() if not path.endswith("/")} == before
    told = {path for hold in report.holds for path in hold.paths} | {notice.path for notice in report.notices}
    rules = attacked.local.folder.rules
    travels = {path for path in GUARDED[row] if rules.verdict(path, is_folder=False).travels}
    assert travels <= told


@pytest.mark.rows("M09", "T12", "T31")
async def test_a_change_of_what_tools_run_waits_for_a_person(attacked):
    paths = ("pyproject.toml", "Makefile", "conftest.py", "requirements.txt")
    edit(attacked.here, " ".join(f"{path}=mine" for path in paths))
    await attacked.sync.sync("sync")
    edit(attacked.there, " ".join(f"{path}=theirs" for path in paths))
    report = await attacked.sync.sync("post")
    assert [(hold.stop.value, len(hold.paths)) for hold in report.holds] == [("G2", 1)] * 4
    assert {tree_of(attacked.here)[path] for path in paths} == {"mine"}
    for hold in report.holds:
        attacked.store.decide(hold.id, approved=True, now=1.0)
    await attacked.sync.sync("sync")
    assert {tree_of(attacked.here)[path] for path in paths} == {"theirs"}
    assert {(path, "mine") for path in paths} <= attacked.trashed(attacked.here)


@pytest.mark.rows("T11")
async def test_caches_and_environments_travel_in_neither_direction(attacked):
    edit(attacked.there, "__pycache__/f.cpython-311.pyc=evil venv/bin/activate=evil d/x.pyc=evil .venv/pyvenv.cfg=evil")
    before = tree_of(attacked.here)
    await attacked.sync.sync("post")
    assert tree_of(attacked.here) == before


ANSWERS = {
    "M11": lambda r, a: ({**r, "gen": r["gen"] + 1}, pack_envelope({"rows": []}, b"\1" + b"\xff" * 4 + b"x" * 99)),
    "T18": lambda r, a: ({**r, "gen": r["gen"] + 1}, pack_envelope({"rows": []}, b"\0\0\0\1" + b"\xff" * 99)),
    "M13": lambda r, a: (r, b"\xff\xff\xff\xff{}"),
    "T19": lambda r, a: ({**r}, pack_envelope({"rows": [["x", "-"]] * 20_000})),
    "T20": lambda r, a: (r, (100_000).to_bytes(4, "big") + b"[" * 100_000),
    "H07": lambda r, a: ({**r, "rules_id": "0" * 32}, a),
    "T22": lambda r, a: ({**r, "root": "ab" * 32}, b""),
    "M29": lambda r, a: ({**r, "gen": r["gen"] + 1, "root": "ab" * 32}, pack_envelope({"rows": []})),
}


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.rows(row), id=row) for row in ANSWERS])
async def test_an_answer_that_makes_no_sense_ends_the_sync_before_it_takes_memory(row, attacked):
    attacked.liar.lies["post"] = ANSWERS[row]
    await ends(attacked)


SNAPSHOTS = {
    "endless pages": (10**9, [["", "d", False]]),
    "the same path twice": (1, [["", "d", False], ["a", "l", "x"], ["a", "l", "y"]]),
    "unsorted": (1, [["", "d", False], ["b", "l", "x"], ["a", "l", "x"]]),
    "below a file": (1, [["", "d", False], ["a", "l", "x"], ["a/b", "l", "x"]]),
    "no root": (1, [["a", "l", "x"]]),
    "no list": (1, {"rows": 1}),
}


@pytest.mark.rows("M18", "T19")
async def test_a_tree_with_odd_pages_ends_the_sync(attacked):
    for number, rows in SNAPSHOTS.values():
        begin_again(attacked)
        attacked.liar.lies["snapshot"] = lambda r, a, n=number, rows=rows: (
            {**r, "pages": n},
            json.dumps(rows).encode(),
        )
        await ends(attacked, "sync")


@pytest.mark.rows("M14", "T22", "T17")
async def test_content_that_nobody_asked_for_is_dropped(attacked):
    claims(attacked, {"new": a_file(attacked, b"3")}, (b"3", b"evil", b"more"))
    await attacked.sync.sync("post")
    assert tree_of(attacked.here)["new"] == "3"
    assert os.listdir(attacked.here / ".colab-bridge" / "stage") == []


@pytest.mark.rows("M15")
@pytest.mark.parametrize("size", [5, 3 << 20])
async def test_wrong_bytes_for_a_digest_never_reach_the_folder(size, attacked):
    before = tree_of(attacked.here)
    claims(attacked, {"new": File(digest_of(attacked, b"right"), size)})
    real, calls = attacked.liar.call, 0

    async def wrong(method, params=None, payload=b"", **options):
        nonlocal calls
        if method != "files.get":
            return await real(method, params, payload, **options)
        calls += 1
        small = pack_batch([(digest_of(attacked, b"right"), b"wrong")])
        return {}, small if size == 5 else bytes(params["length"])

    attacked.liar.call = wrong
    with pytest.raises(SyncFailure):
        await attacked.sync.sync("post")
    assert tree_of(attacked.here) == before
    assert calls < 60


@pytest.mark.rows("M17")
async def test_a_runtime_that_hardly_answers_meets_a_deadline(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        real = pair.caller.call

        async def impatient(method, params=None, payload=b"", **options):
            return await real(method, params, payload, **{**options, "deadline_s": 0.5})

        pair.caller.call = impatient
        pair.way.dialer.tamper = lambda direction, frame: [] if direction == "down" else [frame]
        await pair.way.dialer.cut()
        edit(pair.here, "f=2")
        with pytest.raises(SyncFailure) as caught:
            await asyncio.wait_for(pair.sync.sync("pre"), 20)
        assert caught.value.kind is FailureKind.OFFLINE
        pair.way.dialer.tamper = None
        await pair.way.dialer.cut()
        del pair.caller.call
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == {"f": "2"}


@pytest.mark.rows("M21", "T16", "T17")
async def test_the_runtime_cannot_ask_for_anything_here(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        channel = pair.way.dialer.dispatch.pump.channel
        refused: list[str] = []
        taken = pair.way.dialer.dispatch.pump._on_event
        done = asyncio.Event()

        def take(event):
            if isinstance(event, CallError):
                refused.append(event.code)
                if len(refused) == 4:
                    done.set()
            else:
                taken(event)

        pair.way.dialer.dispatch.pump._on_event = take
        for verb in ("get", "sign", "snapshot", "read"):
            channel.call(f"files.{verb}", {"path": "f"}, deadline=time.monotonic() + 10)
        pair.way.dialer.dispatch.pump.kick()
        await asyncio.wait_for(done.wait(), 20)
        assert set(refused) == {"unknown"}
        await pair.sync.sync("sync")


@pytest.mark.rows("M23")
async def test_files_and_folders_that_change_places_at_every_barrier_lose_nothing(attacked):
    edit(attacked.here, "x=0")
    await attacked.sync.sync("sync")
    seen = set()
    for turn in range(6):
        there = attacked.there / "x"
        edit(attacked.there, f"-x x={turn}there" if there.is_dir() else f"-x x/y={turn}there")
        if turn % 2:
            (attacked.here / "f").write_text(f"{turn}here")
            seen.add(f"{turn}here")
        seen.add(f"{turn}there")
        await attacked.sync.sync("post")
        assert tree_of(attacked.here) == {
            **tree_of(attacked.there),
            **{p: t for p, t in tree_of(attacked.here).items() if ".git" in p},
        }
    everything = set(tree_of(attacked.here).values()) | {text for _, text in attacked.trashed(attacked.here)}
    everything |= {text for _, text in attacked.trashed(attacked.there)}
    assert seen <= everything
    assert attacked.kept() == {}


@pytest.mark.rows("M25")
@pytest.mark.parametrize("lie", [b"", b"x" * 100, (1).to_bytes(4, "big") + (10**7).to_bytes(8, "big") + b"y" * 400])
async def test_signatures_that_make_no_sense_change_nothing(lie, attacked):
    attacked.sync.options = PairOptions(barrier_bytes=1 << 30)
    (attacked.here / "large").write_bytes(b"a" * (5 << 20))
    await attacked.sync.sync("sync")
    (attacked.there / "large").write_bytes(b"b" + b"a" * (5 << 20))
    attacked.liar.lies["sign"] = lambda r, a: (r, lie)
    with pytest.raises(SyncFailure) as caught:
        await attacked.sync.sync("post")
    assert caught.value.kind is FailureKind.PROTOCOL
    assert (attacked.here / "large").stat().st_size == 5 << 20


@pytest.mark.rows("M25")
async def test_a_runtime_that_says_a_file_only_grew_and_lies_costs_the_whole_file(attacked):
    attacked.sync.options = PairOptions(barrier_bytes=1 << 30)
    (attacked.here / "large").write_bytes(b"a" * (5 << 20))
    await attacked.sync.sync("sync")
    new = b"b" * (5 << 20) + b"c" * 1000
    (attacked.there / "large").write_bytes(new)
    attacked.liar.lies["sign"] = lambda r, a: ({**r, "grew": True}, b"")
    await attacked.sync.sync("post")
    assert (attacked.here / "large").read_bytes() == new


@pytest.mark.rows("M26", "T20", "L07")
async def test_signatures_made_to_mislead_cost_bounded_work_and_give_the_right_file(attacked):
    attacked.sync.options = PairOptions(barrier_bytes=1 << 30)
    old = os.urandom(5 << 20)
    (attacked.here / "large").write_bytes(old)
    await attacked.sync.sync("sync")
    new = old[: 1 << 20] + os.urandom(1 << 20) + old[2 << 20 :]
    (attacked.there / "large").write_bytes(new)

    def equal_weak(result, answer):
        rows = bytearray(answer)
        for start in range(13, len(rows) - 7, 8):
            rows[start : start + 4] = b"\0\1\0\1"
        return result, bytes(rows)

    attacked.liar.lies["sign"] = equal_weak
    await attacked.sync.sync("post")
    assert (attacked.here / "large").read_bytes() == new


async def tries(pair: Pair) -> list[FailureKind]:
    """Sync until it goes well; returns what was told before."""
    kinds: list[FailureKind] = []
    for _ in range(6):
        try:
            await asyncio.wait_for(pair.sync.sync("post"), 40)
        except SyncFailure as failure:
            kinds.append(failure.kind)
        else:
            break
    return kinds


@pytest.mark.rows("M19", "X07", "J14")
@pytest.mark.parametrize("how", ["doubled", "swapped", "late", "damaged", "unknown type", "half"])
async def test_frames_that_come_twice_late_swapped_or_damaged_change_nothing(how, channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        kept: list[bytes] = []
        count = 0

        def tamper(direction, frame):
            nonlocal count
            count += 1
            if how == "doubled":
                return [frame, frame]
            if how == "late" and direction == "down":
                kept.append(frame)
                return [*kept[-3:-1], frame]
            if how == "swapped" and count == 6:
                kept.append(frame)
                return []
            if how == "swapped" and kept:
                return [frame, kept.pop()]
            if how == "damaged" and count % 7 == 0:
                return [frame[:-1] + bytes([frame[-1] ^ 1])]
            if how == "unknown type" and count % 7 == 0:
                return [frame[:3] + b"\x63" + frame[4:], frame]
            if how == "half" and count == 6:
                return [frame[: len(frame) // 2]]
            return [frame]

        pair.way.dialer.tamper = tamper
        await pair.way.dialer.cut()
        for turn in range(6):
            edit(pair.here, f"f=here{turn} up{turn}=#3000")
            edit(pair.there, f"g=there{turn} down{turn}=#3000")
            kinds = await tries(pair)
            assert FailureKind.PROTOCOL not in kinds
        pair.way.dialer.tamper = None
        await pair.way.dialer.cut()
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there)
        assert len(tree_of(pair.here)) == 14
        assert pair.kept() == {}


@pytest.mark.rows("T24", "E14")
async def test_what_the_runtime_says_is_made_harmless_before_it_is_shown(attacked):
    evil = "\x1b[2J\nrm -rf\u202e" + "x" * 5000
    for verb in ("snapshot", "hello"):
        attacked.liar.lies[verb] = lambda r, a: (_ for _ in ()).throw(_failure(evil))
        attacked.sync.link_lost()
        with pytest.raises(SyncFailure) as caught:
            await attacked.sync.sync("post")
        assert caught.value.text.isprintable()
        assert len(caught.value.text) < 500
        attacked.liar.lies.clear()


def _failure(text):
    from colab_bridge.sync.remote import RemoteFailure

    return RemoteFailure("disk", text)


@pytest.mark.rows("T26")
async def test_kept_versions_have_harmless_names_and_are_nobody_elses(attacked):
    edit(attacked.here, "run.sh!=1 d2/conftest2.py=1")
    await attacked.sync.sync("sync")
    edit(attacked.here, "run.sh!=2 d2/conftest2.py=2")
    edit(attacked.there, "run.sh!=3 d2/conftest2.py=3")
    await attacked.sync.sync("post")
    store = attacked.tmp / "state" / "conflicts"
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert store not in attacked.here.parents
    assert attacked.here not in store.parents


@pytest.mark.rows("T27")
def test_nothing_that_comes_from_a_runtime_is_unpickled_or_evaluated():
    folder = Path(colab_bridge.__file__).parent
    pattern = re.compile(r"\b(pickle|marshal|shelve|dill)\b|(?<![\w.])(eval|exec|__import__)\(")
    sources = [*folder.glob("sync/*.py"), *folder.glob("sync_core/*.py"), *folder.glob("agent/sync/**/*.py")]
    assert len(sources) > 50
    assert [path.name for path in sources if pattern.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.rows("T28", "M28", "X08")
async def test_a_clock_that_lies_wins_nothing(attacked):
    edit(attacked.here, "f=mine")
    edit(attacked.there, "f=theirs d/g=newer")
    for name in ("f", "d/g"):
        os.utime(attacked.there / name, (4_000_000_000, 4_000_000_000))
    os.utime(attacked.here / "f", (0, 0))
    await attacked.sync.sync("post")
    assert tree_of(attacked.here)["f"] == tree_of(attacked.there)["f"] == "mine"
    assert attacked.kept() == {"f": "theirs"}
    assert (attacked.here / "d" / "g").stat().st_mtime < time.time() + 60


@pytest.mark.rows("T23", "M24")
async def test_a_runtime_that_only_says_that_it_did_what_was_asked_is_found_out(attacked):
    edit(attacked.here, "f=2")
    attacked.liar.lies["pre"] = lambda r, a: ({**r, "root": "ab" * 32}, a)
    await ends(attacked, "pre")


@pytest.mark.rows("T23", "M24")
@pytest.mark.parametrize("done", [0, 2, None, "1"])
async def test_a_runtime_that_does_not_say_what_became_of_each_operation_ends_the_sync(done, attacked):
    edit(attacked.here, "f=2")

    def lie(result, answer):
        body, blob = unpack_envelope(answer)
        return result, pack_envelope({**body, "done": done}, bytes(blob))

    attacked.liar.lies["pre"] = lie
    assert "what became of the operations" in await ends(attacked, "pre")


@pytest.mark.rows("T21")
async def test_a_run_that_encrypts_everything_is_held(attacked):
    readable = "a line that people read\n" * 30
    for number in range(8):
        (attacked.here / f"t{number}").write_text(f"{number}{readable}")
    await attacked.sync.sync("sync")
    before = tree_of(attacked.here)
    for number in range(8):
        (attacked.there / f"t{number}").write_bytes(os.urandom(2048))
    attacked.sync.run_happened()
    report = await attacked.sync.sync("post")
    assert [hold.stop.value for hold in report.holds] == ["S4"]
    assert tree_of(attacked.here) == before


@pytest.mark.rows("T30", "E12")
async def test_a_name_that_is_no_text_does_not_stop_the_watching(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        for side in (pair.here, pair.there):
            with open(bytes(side) + b"/bad\xff", "wb"):
                pass
        await pair.sync.sync("post")
        edit(pair.here, "f=2")
        report = await pair.sync.sync("pre")
        assert report.round_trips == 1
        assert (pair.there / "f").read_text() == "2"


@pytest.mark.rows("T32")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root in somebody else's folder")
async def test_root_does_not_sync_the_folder_of_somebody_else(quick_root):
    pair = Pair(quick_root)
    os.chown(pair.here, 65534, 65534)
    with pytest.raises(UserError) as caught:
        await pair.start()
    assert "\n" not in caught.value.message
    assert os.listdir(pair.here) == []


@pytest.mark.rows("M11")
async def test_a_bomb_takes_little_memory(quick_root):
    code = f"""
import resource, sys, zlib
sys.path[:0] = {sys.path!r}
from colab_bridge.agent.sync.pages import WireError
from colab_bridge.agent.sync.transfer.batches import BatchLimits, unpack_batch
import struct
bomb = zlib.compress(bytes(1 << 28), 9)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
del_me = None
for declared in (8 << 20, 1 << 20, 1 << 31):
    for head in (b"\\1" + struct.pack(">I", declared), b"\\1" + struct.pack(">II", 1, declared)):
        try:
            list(unpack_batch(memoryview(head + bomb), BatchLimits()))
        except WireError:
            pass
        else:
            raise SystemExit("taken")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 << 10
