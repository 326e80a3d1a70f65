"""Why code did not find a file: it is here, and it was left out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from colab_bridge.agent.sync.names import shown
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync_core.summary import include_command
from colab_bridge.wire.message import RawMessage

__all__ = ["left_out_hint", "missing_paths", "words_of"]

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


def left_out_hint(controller: SyncController, cwd: str, path: str) -> str | None:
    """Return the sentence for a file that code missed, None where it has nothing to do with the sync.

    Args:
        controller: The session's controller.
        cwd: Working folder of the kernel, relative to the project.
        path: What the code asked for.
    """
    info = controller.remote.info
    if path.startswith("/"):
        if info is None or not path.startswith(info.root.rstrip("/") + "/"):
            return None
        inside = posixpath.normpath(path[len(info.root.rstrip("/")) + 1 :])
    else:
        inside = posixpath.normpath(posixpath.join(cwd, path))
    if inside.startswith("..") or "\0" in inside or not (controller.local.project / inside).exists():
        return None
    for item in controller.left_out():
        if inside == item.path or inside.startswith(item.path + "/"):
            why = f"{shown(inside)} exists here but stays here: {item.sentence}"
            return f"{why}; take it along: {include_command(inside)}" if item.includable else why
    return None
