"""The ignore rules of a project, read from its folder, and the line that takes a path along."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from colab_bridge._util.atomic import write_atomic
from colab_bridge.agent.sync.ignore import OWN_FILE, IgnoreRules, Standing, include_lines
from colab_bridge.agent.sync.tree import Directory, File, walk

__all__ = ["add_inclusion", "holds_rules", "read_rules", "rule_folders"]

_GIT_FILE = ".gitignore"
_MOST_BYTES = 256 * 1024
_MOST_FILES = 1000
_EXCLUDE = Path(".git") / "info" / "exclude"


def holds_rules(path: str) -> bool:
    """Return whether a change of this path changes the rules."""
    return path.rpartition("/")[2] in {OWN_FILE, _GIT_FILE}


def rule_folders(tree: Directory) -> frozenset[str]:
    """Return the folders of a tree that have ignore files, the root always."""
    found = {path.rpartition("/")[0] for path, entry in walk(tree) if isinstance(entry, File) and holds_rules(path)}
    return frozenset({"", *sorted(found)[:_MOST_FILES]})


def read_rules(root: Path, folders: Iterable[str], *, strict: bool, fold: bool) -> IgnoreRules:
    """Read the ignore files of some folders.

    Args:
        root: The project.
        folders: Folders below it, ``/`` separated.
        strict: ``sync.respect_gitignore``.
        fold: The file system ignores case.
    """
    own: dict[str, str] = {}
    git: dict[str, str] = {}
    for folder in folders:
        for name, texts in ((OWN_FILE, own), (_GIT_FILE, git)):
            text = _read(root / folder / name)
            if text:
                texts[folder] = text
    exclude = _read(root / _EXCLUDE)
    if exclude:
        git[""] = f"{exclude}\n{git.get('', '')}"
    return IgnoreRules(own=own, git=git, strict=strict, fold=fold)


def _read(path: Path) -> str:
    """Return a text file; empty where it is missing, a link, or too large to be a rule file."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def add_inclusion(root: Path, rules: IgnoreRules, path: str, *, is_folder: bool) -> list[str]:
    """Write the lines into ``.colabbridgeignore`` that make a path travel.

    Args:
        root: The project.
        rules: Its rules as they are.
        path: Path below it, ``/`` separated.
        is_folder: What it is.

    Returns:
        The lines that were added; empty when the path is included already.

    Raises:
        OSError: the file cannot be written.
    """
    if rules.verdict(path, is_folder=is_folder).standing is Standing.INCLUDED:
        return []
    lines = include_lines(path, rules, is_folder=is_folder)
    target = root / OWN_FILE
    text = _read(target)
    joined = text if not text or text.endswith("\n") else text + "\n"
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
    write_atomic(target, (joined + "\n".join(lines) + "\n").encode(), mode=mode)
    return lines
