"""Operations as both sides speak of them, and their form on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .names import check_target
from .pages import TreeReader, WireError, row_of
from .service_wire import checked_path
from .tree import Directory, Entry, File

__all__ = ["ACTIONS", "Operation", "operation_from_wire", "operation_to_wire", "read_digest"]

ACTIONS = frozenset({"rename", "mkdir", "write", "link", "exec", "remove", "rmdir"})
_MOST = 2**63 - 1


@dataclass(frozen=True)
class Operation:
    """One operation on one side.

    Attributes:
        action: One of :data:`ACTIONS`.
        path: Where.
        before: What must stand there, else the operation fails alone; None for nothing.
        to: For ``rename``: the new path.
        digest: For ``write``: content, staged already.
        size: Its bytes.
        executable: For ``write`` and ``exec``.
        mtime_ns: For ``write``: time of change to set; 0 for now.
        target: For ``link``.
    """

    action: str
    path: str
    before: Entry | None = None
    to: str = ""
    digest: bytes = b""
    size: int = 0
    executable: bool = False
    mtime_ns: int = 0
    target: str = ""


def operation_to_wire(operation: Operation) -> dict[str, Any]:
    """Return the JSON form; what a folder held travels as its digest only."""
    value: dict[str, Any] = {"a": operation.action, "p": operation.path}
    if operation.before is not None:
        value["b"] = row_of("", operation.before)[1:]
        if isinstance(operation.before, Directory):
            value["k"] = operation.before.kept.digest.hex()
    for name, item in (("t", operation.to), ("l", operation.target), ("s", operation.size), ("m", operation.mtime_ns)):
        if item:
            value[name] = item
    if operation.digest:
        value["d"] = operation.digest.hex()
    if operation.executable:
        value["x"] = True
    return value


def operation_from_wire(value: object) -> tuple[Operation, bytes]:
    """Check and read an operation.

    Returns:
        The operation, and for a folder that must stand there the digest of everything in it (else empty).

    Raises:
        WireError: It is odd.
    """
    if not isinstance(value, dict) or value.get("a") not in ACTIONS:
        raise WireError("an operation of an unknown kind")
    target = value.get("l", "")
    if not isinstance(target, str) or (target and check_target(target) is not None):
        raise WireError("a link that cannot travel")
    operation = Operation(
        action=value["a"],
        path=checked_path(value.get("p")),
        before=_before(value.get("b")),
        to=checked_path(value["t"]) if "t" in value else "",
        digest=read_digest(value["d"]) if "d" in value else b"",
        size=_whole(value.get("s", 0)),
        executable=value.get("x") is True,
        mtime_ns=_whole(value.get("m", 0)),
        target=target,
    )
    _check_parts(operation)
    return operation, read_digest(value["k"]) if "k" in value else b""


def _check_parts(operation: Operation) -> None:
    lacking = {
        "rename": not operation.to or operation.before is None,
        "write": not operation.digest,
        "link": not operation.target,
        "exec": not isinstance(operation.before, File),
        "remove": operation.before is None,
    }
    if lacking.get(operation.action, False):
        raise WireError("an operation lacks a part")


def _before(value: object) -> Entry | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise WireError("an entry is none")
    reader = TreeReader(1)
    reader.feed([["", "d", False], ["entry", *value]])
    return reader.done().children["entry"]


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise WireError("a number is none")
    return value


def read_digest(value: object) -> bytes:
    """Return a digest from its hex form.

    Raises:
        WireError: It is none.
    """
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise WireError("a digest is no digest")
    return raw


def field_of(values: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a value of a request.

    Raises:
        WireError: It is missing or of another type.
    """
    value = values.get(name)
    if type(value) is not kind:
        raise WireError(f"{name} is missing or odd")
    return value
