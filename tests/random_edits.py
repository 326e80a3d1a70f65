"""Random edits of a folder for property tests; every content is a new one, so that a lost version is seen."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sync_pair import tree_of

NAMES = ("a", "b", "c", "d/a", "d/b", "d/e/a", "e", "e/a", "ü")


@dataclass(frozen=True)
class Edit:
    """One edit; the places count what is there, so that any edit fits any tree."""

    kind: str
    place: int
    other: int


KINDS = ("write", "write", "write", "edit", "edit", "delete", "delete", "rename", "mkdir", "rmtree", "link", "chmod")
edits = st.lists(st.builds(Edit, st.sampled_from(KINDS), st.integers(0, 11), st.integers(0, 8)), max_size=5)


class Editor:
    """Carries edits out.

    Attributes:
        written: Number of contents so far; each is a new one.
    """

    def __init__(self, kinds: frozenset[str] = frozenset(KINDS)) -> None:
        self.written = 0
        self._kinds = kinds

    def content(self) -> str:
        self.written += 1
        return f"version {self.written}"

    def run(self, root: Path, todo: list[Edit]) -> None:
        for one in todo:
            if one.kind in self._kinds:
                self._one(root, one)

    def _one(self, root: Path, one: Edit) -> None:
        there = sorted(path.rstrip("!/") for path in tree_of(root) if path != "keep")
        chosen = root / there[one.place % len(there)] if there else None
        name = root / NAMES[one.other % len(NAMES)]
        if one.kind == "write":
            self._write(root, root / NAMES[one.place % len(NAMES)])
        elif one.kind == "mkdir":
            _make_room(root, name)
            if not name.exists() and not name.is_symlink():
                name.mkdir(parents=True)
        elif one.kind == "link":
            _make_room(root, name)
            name.parent.mkdir(parents=True, exist_ok=True)
            if not name.exists() and not name.is_symlink():
                name.symlink_to("keep-" + str(one.place))
        elif chosen is not None:
            self._change(root, chosen, name, one)

    def _change(self, root: Path, chosen: Path, name: Path, one: Edit) -> None:
        is_file = chosen.is_file() and not chosen.is_symlink()
        if one.kind == "edit" and is_file:
            chosen.write_text(self.content())
        elif one.kind == "delete":
            chosen.rmdir() if chosen.is_dir() and not chosen.is_symlink() else chosen.unlink()
        elif one.kind == "rename" and chosen != name and chosen not in name.parents:
            _make_room(root, name)
            name.parent.mkdir(parents=True, exist_ok=True)
            if not name.exists() and not name.is_symlink():
                chosen.rename(name)
        elif one.kind == "rmtree" and chosen.parent != root:
            shutil.rmtree(chosen.parent)
        elif one.kind == "chmod" and is_file:
            chosen.chmod(chosen.stat().st_mode ^ 0o111)

    def _write(self, root: Path, path: Path) -> None:
        _make_room(root, path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.content())


def _make_room(root: Path, path: Path) -> None:
    """Folders are needed where files or links stand."""
    for above in path.parents:
        if above == root:
            return
        if above.is_symlink() or above.is_file():
            above.unlink()


def without_bits(tree: dict[str, Any]) -> dict[str, Any]:
    """The runtime keeps executable bits of its own."""
    return {path.rstrip("!"): value for path, value in tree.items()}
