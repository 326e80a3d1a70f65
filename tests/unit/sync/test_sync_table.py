"""The scenario table of the sync design, through the real service on two real folders.

Tokens: ``f=1`` a file, ``f!=1`` an executable one, ``d/`` an empty folder, ``l>t`` a link, ``-p`` deleted, ``a~b``
renamed. Expectations: the tree of both sides, then ``K(f:2)`` kept in the conflict store, ``T(f:1)`` in the trash here,
``R(f:1)`` in the trash of the runtime, ``H(S3)`` held by a stop, ``here:`` and ``there:`` where the sides differ.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from colab_bridge.sync.options import PairOptions
from colab_bridge.sync_core.model import Side
from sync_pair import Pair, open_pair, tree_of

ROWS = [
    # id, base, local, remote, expected
    ("A01", None, "f=1", "", "f=1"),
    ("A02", None, "", "f=1", "f=1"),
    ("A03", "f=1", "f=2", "", "f=2 R(f:1)"),
    ("A05", "f=1 g=0", "-f", "", "g=0 R(f:1)"),
    ("A06", "f=1 g=0", "", "-f", "g=0 T(f:1)"),
    ("A09", "f=1", "f=", "", "f="),
    ("A13", "f=1 g=1", "f=2", "g=2", "f=2 g=2"),
    ("A14", "d/f=1", "d/f=2 d/g=3", "d/h=4", "d/f=2 d/g=3 d/h=4"),
    ("A15", "f=1", "-f f=1", "", "f=1"),
    ("A17", None, "d/f=1 g=2", "d/f=1 g=2", "d/f=1 g=2"),
    ("A18", None, "f=1 g=1", "f=1 h=1", "f=1 g=1 h=1"),
    ("A19", None, "f=1", "f=2", "f=1 K(f:2)"),
    ("B01", "f=1", "f=2", "f=2", "f=2"),
    ("B02", "f=1", "f=2", "f=3", "f=2 K(f:3)"),
    ("B03", None, "f=2", "f=3", "f=2 K(f:3)"),
    ("B05", "f=1 g=0", "-f", "f=2", "f=2 g=0"),
    ("B06", "f=1 g=0", "f=2", "-f", "f=2 g=0"),
    ("B14", "f=1", "f!=1", "f=2", "f!=2"),
    ("B15", "f=1", "f=2", "f!=1", "here: f=2 there: f!=2"),
    ("B17", "f=1", "f=2\\n", "f=2\\r\\n", "f=2\\n K(f:2\\r\\n)"),
    ("B18", "nb.ipynb=1", "nb.ipynb=2", "nb.ipynb=3", "nb.ipynb=2 K(nb.ipynb:3)"),
    ("B19", "f=1 g=1", "f=2 -g", "-f g=2", "f=2 g=2"),
    ("C01", None, "d/", "", "d/"),
    ("C02", "d/ g=0", "-d", "", "g=0"),
    ("C03", "d/a=1 d/b=1 g=0", "-d", "", "g=0 R(d/a:1) R(d/b:1)"),
    ("C05", "d/a=1 g=0", "-d", "d/c=1", "d/c=1 g=0"),
    ("C06", "d/a=1 d/e/b=1 g=0", "-d", "-d/e", "g=0"),
    ("C07", "d/a=1 g=0", "-d/a", "", "d/ g=0"),
    ("C09", "d/a=1", "-d d=9", "d/a=2", "d=9 K(d/a:2)"),
    ("C10", "d/a=1", "d/a=2", "-d d=9", "d/a=2 K(d:9)"),
    ("C11", "d/a=1 d/b=1", "-d/b", "-d d=9", "d=9"),
    ("C13", "d=9", "-d d/a=1", "d=8", "d/a=1 K(d:8)"),
    ("C14", None, "d/a=1", "d/b=1", "d/a=1 d/b=1"),
    ("C15", None, "d/", "d=1", "d/ K(d:1)"),
    ("C18", "d/a=1 e/b=2", "-d d>e", "", "d>e e/b=2"),
    ("C22", "d/a=1 d/b=2", "d/a=9 d/b=8", "", "d/a=9 d/b=8"),
    ("D01", "a=1", "a~b", "", "b=1"),
    ("D03", "a=1", "a~b", "a=2", "b=1 a=2"),
    ("D05", "a=1 b=2", "a~c b~a c~b", "", "a=2 b=1"),
    ("D06", "a=1", "a~b", "b=9", "b=1 K(b:9)"),
    ("D07", "a=1", "a~d/a", "", "d/a=1"),
    ("D09", "d/a=1", "d~e", "d/b=1", "e/a=1 d/b=1"),
    ("D10", "a=1 b=2 c=3", "a~t c~a b~c t~b", "", "a=3 b=1 c=2"),
    ("E13", None, "x y=1 ü=2 日本=3 '$().txt=4", "", "x y=1 ü=2 日本=3 '$().txt=4"),
    ("F01", None, "l>f f=1", "", "l>f f=1"),
    ("F02", None, "l>missing", "", "l>missing"),
    ("F09", "l>a a=1 b=2 c=3", "-l l>b", "-l l>c", "l>b a=1 b=2 c=3 K(l:c)"),
    ("F10", "l>a a=1", "", "-l l=1", "l=1 a=1"),
    ("F11", "f=1 g=2", "-f f>g", "", "f>g g=2"),
    ("F14", None, "", "a>b b>a", "here: there: a>b b>a H(LINK)"),
    ("G01", "f=1", "f!=1", "", "f!=1"),
    ("G02", "f=1", "", "f!=1", "here: f=1 there: f!=1"),
    ("H01", None, "f=1 __pycache__/x.pyc=1", "", "here: f=1 __pycache__/x.pyc=1 there: f=1"),
    ("H02", None, "f=1", ".venv/x=1", "here: f=1 there: f=1 .venv/x=1"),
    ("H09", None, "a=1 build/x=1", "", "here: a=1 build/x=1 there: a=1"),
    ("M05", None, "f=1", "sub/.git/config=x .GIT/config=x", "here: f=1 there: f=1 sub/.git/config=x .GIT/config=x"),
    ("M06", None, "f=1", ".vscode/tasks.json=x", "here: f=1 there: f=1 .vscode/tasks.json=x H(G1)"),
    ("M07", None, "f=1", "AGENTS.md=x .cursor/rules/x=y", "here: f=1 there: f=1 AGENTS.md=x .cursor/rules/x=y H(G1)"),
    ("M09", "Makefile=1", "", "Makefile=2", "here: Makefile=1 there: Makefile=2 H(G2)"),
    ("M10", "f=1", "", "random.py=x", "here: f=1 there: f=1 random.py=x H(G2)"),
    ("F05", "f=1", "", "l>../x", "here: f=1 there: f=1 l>../x"),
    # The first link leads to the root and no further; only the second one leaves.
    (
        "F06",
        "f=1 a/b/c=1",
        "",
        "a/b/up>../.. x>a/b/up/../s",
        "here: f=1 a/b/c=1 a/b/up>../.. there: f=1 a/b/c=1 a/b/up>../.. x>a/b/up/../s",
    ),
    ("F03", None, "f=1 l>/etc/hostname", "", "here: f=1 l>/etc/hostname there: f=1"),
]

TOKEN = re.compile(r"([^=~>!]+?)(?:(!)?=(.*)|~(.+)|>(.+))?$")


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
    return any(sign in word for sign in "=~>") or word.startswith("-") or word.endswith("/")


def content(text: str) -> bytes:
    return text.replace("\\r", "\r").replace("\\n", "\n").encode()


def edit(root: Path, text: str) -> None:
    for token in split(text):
        if token.startswith("-"):
            remove(root / token[1:])
        elif token.endswith("/") and "=" not in token:
            (root / token).mkdir(parents=True)
        else:
            change(root, token)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def change(root: Path, token: str) -> None:
    name, mark, text, new_name, target = TOKEN.fullmatch(token).groups()
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if new_name is not None:
        (root / new_name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(root / new_name)
    elif target is not None:
        path.symlink_to(target)
    else:
        path.write_bytes(content(text or ""))
        path.chmod(0o755 if mark else 0o644)


def wanted_tree(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for token in split(text):
        if token.endswith("/") and "=" not in token:
            found[token] = ""
            continue
        name, mark, value, _, target = TOKEN.fullmatch(token).groups()
        found[name + (mark or "")] = f"-> {target}" if target else content(value or "").decode()
    return found


def parse(expected: str) -> tuple[str, str, dict[str, list[tuple[str, str]]], set[str]]:
    special: dict[str, list[tuple[str, str]]] = {"K": [], "T": [], "R": []}
    for kind, path, value in re.findall(r"\b([KTR])\(([^:()]+):([^()]*)\)", expected):
        special[kind].append((path, content(value).decode()))
    holds = set(re.findall(r"\bH\((\w+)\)", expected))
    rest = re.sub(r"\b[KTRH]\([^()]*\)", "", expected).strip()
    if rest.startswith("here:"):
        here, _, there = rest.removeprefix("here:").partition("there:")
        return here.strip(), there.strip(), special, holds
    return rest, rest, special, holds


def trashed(folder) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for entry in folder.trash.list():
        place = folder.root.state / "trash" / entry.id
        if entry.kind == "file":
            found.add((entry.path, place.read_text()))
        elif entry.kind == "folder":
            for path in place.rglob("*"):
                if path.is_file():
                    found.add((f"{entry.path}/{path.relative_to(place).as_posix()}", path.read_text()))
    return found


async def check(pair: Pair, expected: str) -> None:
    here, there, special, holds = parse(expected)
    assert tree_of(pair.here) == wanted_tree(here)
    assert tree_of(pair.there) == wanted_tree(there)
    assert pair.kept().items() >= dict(special["K"]).items()
    assert trashed(pair.local.folder) >= set(special["T"])
    (remote,) = pair.caller.service._workspaces.values()
    assert trashed(remote.folder) >= set(special["R"])
    assert {hold.stop.value for hold in pair.sync.last.holds} >= holds
    again = await pair.sync.sync("sync")
    assert (again.up, again.down, again.sent, again.received) == ((), (), 0, 0)
    assert os.listdir(pair.here / ".colab-bridge" / "stage") == []


@pytest.mark.anyio
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
async def test_a_row_of_the_scenario_table_holds(row, tmp_path):
    _, base, local, remote, expected = row
    async with open_pair(tmp_path) as pair:
        if base is not None:
            edit(pair.here, base)
            await pair.sync.sync("sync")
            assert tree_of(pair.there) == tree_of(pair.here) == wanted_tree(base)
        edit(pair.here, local)
        edit(pair.there, remote)
        await pair.sync.sync("post" if base is not None else "sync")
        await check(pair, expected)


@pytest.mark.anyio
async def test_b07_the_runtime_wins_where_the_settings_say_so(tmp_path):
    async with open_pair(tmp_path, options=PairOptions(winner=Side.REMOTE)) as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2")
        edit(pair.there, "f=3")
        await pair.sync.sync("post")
        await check(pair, "f=3 K(f:2)")
