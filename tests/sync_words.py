"""The short words of the scenario table: edits of a folder, and what two folders must be afterwards.

Edits: ``f=1`` a file (``f!=1`` an executable one, ``f=#9`` one of nine bytes), ``d/`` an empty folder, ``l>t`` a link,
``-p`` deleted, ``a~b`` renamed, ``^f`` only touched, ``+x f`` and ``-x f`` are written ``f%755`` and ``f%644``.
``;`` ends a round: a sync follows each.

Expectations: the tree of both sides, then ``K(f:2)`` kept in the conflict store, ``T(f:1)`` in the trash here,
``R(f:1)`` in the trash of the runtime, ``H(S3)`` held by a stop, ``N(kept:f)`` a notice, ``0`` no content travelled in
the last round, ``here:`` and ``there:`` where the sides differ; ``*`` is what stood here before the last sync.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colab_bridge.agent.sync.tree import Blocked, Directory, Unknown, walk
from sync_pair import Pair, tree_of

TOKEN = re.compile(r"([^=~>%]+?)(?:(!)?=(.*)|~(.+)|>(.*)|%(\d+))?$")
SPECIAL = re.compile(r"(?<!\S)([KTRHN])\(([^()]*)\)|(?<!\S)(0)(?!\S)")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        id: Its number in the design.
        base: What both sides agreed on before; None for no agreement.
        local: Edits here.
        remote: Edits on the runtime.
        expect: See the module.
        options: For the pair.
        walk: Looks at everything (``sync``), or asks as after a run (``post``).
    """

    id: str
    base: str | None
    local: str
    remote: str
    expect: str
    options: dict[str, Any] = field(default_factory=dict)
    reason: str = "post"


def split(text: str) -> list[str]:
    # A space inside a name is kept: a new token begins only behind one that has a sign.
    parts: list[str] = []
    for word in text.split(" "):
        if parts and not signed_token(parts[-1]):
            parts[-1] += " " + word
        else:
            parts.append(word)
    return [part for part in parts if part]


def signed_token(word: str) -> bool:
    return any(sign in word for sign in "=~>%") or word.startswith(("-", "^")) or word.endswith("/")


def content(text: str) -> bytes:
    if match := re.fullmatch(r"#(\d+)(\w?)", text):
        size = int(match[1])
        line = f"line of a file {match[2]}\n".encode()
        return (line * (size // len(line) + 1))[:size]
    return text.replace("\\r", "\r").replace("\\n", "\n").encode()


def edit(root: Path, text: str) -> None:
    """Carry out one round of edits."""
    for token in split(text):
        if token.startswith("-"):
            remove(root / token[1:])
        elif token.startswith("^"):
            os.utime(root / token[1:], (1_000_000_000, 1_000_000_000))
        elif token.endswith("/") and "=" not in token and ">" not in token:
            (root / token).mkdir(parents=True)
        else:
            change(root, token)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def change(root: Path, token: str) -> None:
    found = TOKEN.fullmatch(token)
    assert found is not None, token
    name, mark, text, new_name, target, mode = found.groups()
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if new_name is not None:
        (root / new_name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(root / new_name)
    elif target is not None:
        path.symlink_to(target)
    elif mode is not None:
        path.chmod(int(mode, 8))
    else:
        path.write_bytes(content(text or ""))
        path.chmod(0o755 if mark else 0o644)


def wanted_tree(text: str) -> dict[str, str]:
    """Return the tree that words stand for, as :func:`sync_pair.tree_of` tells it."""
    found: dict[str, str] = {}
    for token in split(text):
        if token.endswith("/") and "=" not in token and ">" not in token:
            found[token] = ""
            continue
        match = TOKEN.fullmatch(token)
        assert match is not None, token
        name, mark, value, _, target, _ = match.groups()
        found[name + (mark or "")] = f"-> {target}" if target is not None else content(value or "").decode()
    return found


@dataclass
class Wanted:
    """An expectation, read."""

    here: str
    there: str
    marks: dict[str, list[tuple[str, str]]]
    quiet: bool


def parse(expected: str) -> Wanted:
    marks: dict[str, list[tuple[str, str]]] = {"K": [], "T": [], "R": [], "H": [], "N": []}
    quiet = False
    for kind, inside, zero in SPECIAL.findall(expected):
        quiet = quiet or bool(zero)
        if kind:
            path, _, value = inside.partition(":")
            marks[kind].append((path, value if kind in "HN" else content(value).decode()))
    rest = SPECIAL.sub("", expected).strip()
    if rest.startswith("here:"):
        here, _, there = rest.removeprefix("here:").partition("there:")
        return Wanted(here.strip(), there.strip(), marks, quiet)
    return Wanted(rest, rest, marks, quiet)


async def run_row(pair: Pair, row: Row) -> None:
    """Bring a pair through one row and check everything that the table promises after each row."""
    canary = pair.tmp / "canary"
    canary.write_text("alive")
    outside = below(pair.tmp)
    if row.base is not None:
        edit(pair.here, row.base)
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == tree_of(pair.here) == wanted_tree(row.base)
    local, remote = row.local.split(" ; "), row.remote.split(" ; ")
    before: dict[str, str] = {}
    for number in range(max(len(local), len(remote))):
        edit(pair.here, local[number] if number < len(local) else "")
        edit(pair.there, remote[number] if number < len(remote) else "")
        before = tree_of(pair.here)
        await pair.sync.sync(row.reason if row.base is not None or number else "sync")
    await check(pair, row.expect, before)
    assert below(pair.tmp) == outside


def below(tmp: Path) -> dict[str, bytes]:
    """Return what stands outside of both roots and of what is ours."""
    ours = {"home", "runtime", "state", "agent"}
    return {
        path.relative_to(tmp).as_posix(): path.read_bytes()
        for top in tmp.iterdir()
        if top.name.rstrip("0123456789") not in ours
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file()
    }


async def check(pair: Pair, expected: str, before: dict[str, str]) -> None:
    """Check an expectation, and that a second sync does nothing."""
    wanted, last = parse(expected), pair.sync.last
    assert last is not None
    assert tree_of(pair.here) == (before if wanted.here == "*" else wanted_tree(wanted.here))
    assert tree_of(pair.there) == wanted_tree(wanted.there)
    assert pair.kept() == dict(wanted.marks["K"])
    assert pair.trashed(pair.here) >= set(wanted.marks["T"])
    assert pair.trashed(pair.there) >= set(wanted.marks["R"])
    assert {hold.stop.value for hold in last.holds} == {stop for stop, _ in wanted.marks["H"]}
    assert {(notice.kind, notice.path) for notice in last.notices} >= set(wanted.marks["N"])
    if wanted.quiet:
        assert (last.sent, last.received) == (0, 0)
    again = await pair.sync.sync("sync")
    assert (again.up, again.down, again.sent, again.received) == ((), (), 0, 0)
    for side in (pair.here, pair.there):
        assert os.listdir(side / ".colab-bridge" / "stage") == []
    if not again.holds:
        await check_base(pair)


async def check_base(pair: Pair) -> None:
    """The ancestor is what both sides have, but for what is blocked and for bits that the runtime may not grant."""
    base = dict(walk(pair.store.base()))
    blocked = (Blocked, Unknown, Directory)
    tree = (await pair.local.look()).tree
    here = {path: entry for path, entry in walk(tree) if not isinstance(entry, blocked)}
    assert {path: entry for path, entry in here.items() if base.get(path) != entry} == {}
