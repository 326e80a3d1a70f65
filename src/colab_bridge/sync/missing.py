"""Why code did not find a file: it is here, and it was left out."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from colab_bridge.agent.sync.names import shown
from colab_bridge.agent.sync.tree import Blocked, Directory, Unknown, entry_at
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync_core.summary import blocked_sentence, include_command
from colab_bridge.wire.message import RawMessage

__all__ = ["Missed", "left_out_hint", "missing_paths", "words_of"]

_MOST_TEXT = 1 << 16
_MOST_PATHS = 20
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PATTERNS = (
    # Python: "[Errno 2] No such file or directory: 'data/x.csv'".
    re.compile(r"No such file or directory: b?(['\"])(?P<path>.{1,1024}?)\1"),
    # HDF5: "(unable to open file: name = 'x.h5', errno = 2, ...".
    re.compile(r"name = '(?P<path>[^'\n]{1,1024})', errno = 2\b"),
    # Arrow and others: the path alone.
    re.compile(r"^FileNotFoundError: (?P<path>[^\n:\[]{1,1024})$", re.MULTILINE),
    # Programs: "cat: data/x.csv: No such file or directory", "ls: cannot access 'data': No such ...".
    re.compile(r"^[^:\n]{1,100}: (?:cannot \w+ )?['\"]?(?P<path>[^:'\"\n]{1,1024})['\"]?: No such file", re.MULTILINE),
)


def words_of(message: RawMessage) -> str:
    """Return what a message of a kernel says of an error: the error itself, or what a program wrote to stderr.

    Raises:
        MessageError: it cannot be read.
    """
    if message.msg_type not in {"error", "stream"}:
        return ""
    fields = message.content_fields()
    if message.msg_type == "stream":
        return str(fields.get("text", ""))[-_MOST_TEXT:] if fields.get("name") == "stderr" else ""
    trace = fields.get("traceback")
    lines = [str(line) for line in trace] if isinstance(trace, list) else []
    return "\n".join([*lines, f"{fields.get('ename')}: {fields.get('evalue')}\n"])[-_MOST_TEXT:]


def missing_paths(words: str) -> list[str]:
    """Return the paths that do not exist, as an error says; each once."""
    plain = _COLOURS.sub("", words[-_MOST_TEXT:])
    return list(dict.fromkeys(_found(plain)))[:_MOST_PATHS]


def _found(plain: str) -> Iterator[str]:
    for pattern in _PATTERNS:
        for match in pattern.finditer(plain):
            yield match["path"]


@dataclass(frozen=True, slots=True)
class Missed:
    """Why a file is not there.

    Attributes:
        text: One sentence, with the command that takes it along where there is one.
        fix: That command; empty where there is none.
    """

    text: str
    fix: str = ""


def left_out_hint(controller: SyncController, cwd: str, path: str) -> Missed | None:
    """Return why a file that code missed is only here, None where it has nothing to do with the sync.

    Args:
        controller: The session's controller.
        cwd: Working folder of the kernel, relative to the project.
        path: What the code asked for.
    """
    inside = _inside(controller, cwd, path)
    if inside is None:
        return None
    if os.path.lexists(controller.local.project / inside):
        for item in controller.left_out():
            if inside == item.path or inside.startswith(item.path + "/"):
                text, fix = f"{shown(inside)} exists here but stays here: {item.sentence}", include_command(inside)
                return Missed(f"{text}; take it along: {fix}", fix) if item.includable else Missed(text)
    return _blocked(controller.here, inside)


def _blocked(here: Directory | None, inside: str) -> Missed | None:
    """Return why a path, or a folder above it, cannot travel; None where it can."""
    ends = [at for at, letter in enumerate(inside) if letter == "/"] + [len(inside)]
    for path in (inside[:end] for end in ends):
        entry = entry_at(here, path) if here is not None else None
        if isinstance(entry, (Blocked, Unknown)):
            return Missed(f"{shown(path)} exists here but stays here: {blocked_sentence(entry)}")
    return None


def _inside(controller: SyncController, cwd: str, path: str) -> str | None:
    """Return a path of the runtime as one of the project."""
    if path.startswith("/"):
        info = controller.remote.info
        above = info.root.rstrip("/") + "/" if info is not None else ""
        if not above or not path.startswith(above):
            return None
        path, cwd = path[len(above) :], ""
    inside = posixpath.normpath(posixpath.join(cwd, path))
    return None if inside.startswith("..") or "\0" in inside else inside
