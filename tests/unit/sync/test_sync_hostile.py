"""A runtime that breaks the rules: nothing outside the folder changes, and the sync ends with one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colab_bridge.agent.sync.service_wire import pack_envelope, unpack_envelope
from colab_bridge.agent.sync.transfer.batches import pack_batch
from colab_bridge.sync.failures import FailureKind, SyncFailure
from sync_pair import open_pair, tree_of

DIGEST = "ab" * 32


class Liar:
    """Passes calls on and changes the answers."""

    def __init__(self, caller) -> None:
        self.caller = caller
        self.lies = {}

    async def call(self, method, params=None, payload=b"", **options):
        result, answer = await self.caller.call(method, params, payload, **options)
        lie = self.lies.get(method.partition(".")[2])
        return (result, answer) if lie is None else lie(dict(result), answer)


@pytest.fixture
async def lying(tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    async with open_pair(tmp_path) as pair:
        (pair.here / "a.txt").write_text("1")
        (pair.here / "d").mkdir()
        (pair.here / "d" / "b.txt").write_text("2")
        pair.liar = Liar(pair.caller)
        pair.remote._caller = pair.liar
        await pair.sync.sync("sync")
        pair.before = tree_of(pair.here)
        outside = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        yield pair
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == outside
        # A folder may be there, as long as nothing is in it.
        assert {path: text for path, text in tree_of(pair.here).items() if not path.endswith("/")} == pair.before


def rows(*extra):
    def lie(result, answer):
        body = {"rows": list(extra), "results": [], "unstable": [], "problems": []}
        return {**result, "gen": result["gen"] + 1, "root": DIGEST}, pack_envelope(body)

    return lie


BAD_ROWS = {
    "M01 dots": ["../x", "f", 1, DIGEST, False],
    "M01 absolute": ["/etc/passwd", "f", 1, DIGEST, False],
    "M01 nul": ["a\0b", "f", 1, DIGEST, False],
    "M01 empty component": ["d//f", "f", 1, DIGEST, False],
    "M01 dot component": ["d/./f", "f", 1, DIGEST, False],
    "M02 below a file": ["a.txt/x", "f", 1, DIGEST, False],
    "F13 a device": ["dev", "c", 1, 3],
    "M13 a huge size": ["big", "f", 2**70, DIGEST, False],
    "M13 a size that is a text": ["big", "f", "1", DIGEST, False],
    "a short digest": ["x", "f", 1, "ab", False],
    "a digest that is none": ["x", "f", 1, "zz" * 32, False],
    "no row": "row",
    "a mode that is no bit": ["x", "f", 1, DIGEST, 4095],
    "M29 a root that does not follow": ["x", "f", 1, DIGEST, False],
}


@pytest.mark.anyio
@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS.keys())
async def test_a_row_that_no_honest_agent_sends_ends_the_sync(row, lying):
    lying.liar.lies["post"] = rows(row)
    with pytest.raises(SyncFailure) as caught:
        await lying.sync.sync("post")
    assert caught.value.kind is FailureKind.PROTOCOL
    assert "\n" not in caught.value.text
    lying.liar.lies.clear()
    with pytest.raises(SyncFailure, match="has ended"):
        await lying.sync.sync("pre")


BAD_ANSWERS = {
    "M18 too many rows": lambda r, a: ({**r}, pack_envelope({"rows": [["x", "-"]] * 20_000})),
    "M13 deep json": lambda r, a: (r, (100_000).to_bytes(4, "big") + b"[" * 100_000),
    "M13 a length beyond the payload": lambda r, a: (r, b"\xff\xff\xff\xff{}"),
    "M11 a bomb": lambda r, a: ({**r, "gen": 9}, pack_envelope({"rows": []}, b"\x01\xff\xff\xff\xff" + b"x" * 100)),
    "H07 other rules": lambda r, a: ({**r, "rules_id": "0" * 32}, a),
    "a generation that is none": lambda r, a: ({**r, "gen": -1}, a),
    "a root that is none": lambda r, a: ({**r, "root": 7}, a),
    "says nothing changed, but another root": lambda r, a: ({**r, "root": DIGEST}, b""),
    "results that are none": lambda r, a: (
        {**r, "gen": 9},
        pack_envelope({"rows": None, "results": [["../x", "moved"]]}),
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("lie", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_an_answer_that_makes_no_sense_ends_the_sync(lie, lying):
    lying.liar.lies["post"] = lie
    with pytest.raises(SyncFailure) as caught:
        await lying.sync.sync("post")
    assert caught.value.kind is FailureKind.PROTOCOL


@pytest.mark.anyio
async def test_m14_content_that_nobody_asked_for_is_dropped(lying):
    def lie(result, answer):
        body, _ = unpack_envelope(answer)
        return result, pack_envelope(body, pack_batch([(bytes(32), b"evil")]))

    (lying.there / "new.txt").write_text("3")
    lying.liar.lies["post"] = lie
    await lying.sync.sync("post")
    lying.before["new.txt"] = "3"
    assert (lying.here / "new.txt").read_text() == "3"


@pytest.mark.anyio
async def test_m15_wrong_bytes_for_a_digest_never_reach_the_folder(lying):
    def lie(result, answer):
        body, _ = unpack_envelope(answer)
        digest = next(row[3] for row in body["rows"] if row[0] == "new.txt")
        return result, pack_envelope(body, pack_batch([(bytes.fromhex(digest), b"wrong")]))

    (lying.there / "new.txt").write_text("right")
    lying.liar.lies["post"] = lie
    lying.liar.lies["get"] = lambda r, a: (r, pack_batch([]))
    with pytest.raises(SyncFailure):
        await lying.sync.sync("post")
    assert not (lying.here / "new.txt").exists()
    lying.liar.lies.clear()
    await lying.sync.sync("post")
    lying.before["new.txt"] = "right"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/pre-commit",
        ".GIT/config",
        "sub/.git/config",
        ".vscode/tasks.json",
        "x.code-workspace",
        ".idea/runConfigurations/a.xml",
        ".envrc",
        "AGENTS.md",
        "CLAUDE.md",
        ".cursor/rules/x",
        ".mcp.json",
        ".github/workflows/ci.yml",
        ".github/copilot-instructions.md",
        "sitecustomize.py",
        "x.pth",
        "conftest.py",
        "Makefile",
        "random.py",
    ],
)
async def test_what_programs_here_would_execute_is_never_planted(path, lying):
    target: Path = lying.there / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("evil")
    report = await lying.sync.sync("post")
    assert report.down == ()


@pytest.mark.anyio
async def test_a_snapshot_with_odd_pages_ends_the_sync(lying):
    for page in ([["", "f", 1, DIGEST, False]], [["", "d", False], ["b", "l", "x"], ["a", "l", "x"]], {"a": 1}, [[]]):
        lying.sync.poisoned = ""
        lying.sync.link_lost()
        lying.liar.lies["snapshot"] = lambda r, a, page=page: (r, json.dumps(page).encode())
        with pytest.raises(SyncFailure) as caught:
            await lying.sync.sync("sync")
        assert caught.value.kind is FailureKind.PROTOCOL
