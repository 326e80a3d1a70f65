"""Faults that a test asks for: which request they hit, how often, and what they do to it."""

from __future__ import annotations

import copy
import fnmatch
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

__all__ = ["Fault", "FaultKind", "PendingFault", "RefusalKind", "Switchboard", "drifted"]

#: status: answered with ``status`` and ``body`` instead. hang, close: nothing is done, and the request is
#: never answered, or its connection is reset. hang_after, close_after: likewise once everything is done. cut: the
#: connection is reset in the middle of the answer. delay: answered ``delay_s`` later. expire_tokens: every runtime
#: proxy token minted so far is no longer accepted. kill_vm: the machine that the request names dies, or all of them.
#: prune: likewise, as if it had been idle. refuse: an allocation is refused for the reason ``refusal``. drift: members
#: of a JSON answer are set (``set``) and removed (``remove``).
FaultKind = Literal[
    "status",
    "hang",
    "hang_after",
    "close",
    "close_after",
    "cut",
    "delay",
    "expire_tokens",
    "kill_vm",
    "prune",
    "refuse",
    "drift",
]

#: Why an allocation is refused; each dialect has words of its own for it.
RefusalKind = Literal["invalid", "not_entitled", "denylisted", "usage_time", "quota", "too_many", "capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the switchboard.

    Attributes:
        kind: What happens, see :data:`FaultKind`.
        service: ``colab``, ``gapi``, ``public_api``, ``drive``, ``oauth``, ``data``, or a pattern of them.
        endpoint: Runtime whose proxy is meant, or a pattern; of the services only those paths that name it are hit.
        method: HTTP method, or a pattern.
        path: Path without the query, or a pattern; ``*`` also stands for slashes.
        count: How many requests are hit; None for all that follow.
        skip: How many matching requests pass before the first one is hit.
        status: Status of kind ``status``.
        body: Body of kind ``status``: text as it is, anything else as JSON.
        headers: More headers of kind ``status``.
        delay_s: Real seconds of kind ``delay``.
        refusal: Reason of kind ``refuse``.
        outcome: Number that the session backend answers with instead of ``refusal``; may be one that no client knows.
        set: Dotted path into the JSON answer to its new value, for kind ``drift``; numbers count in lists, ``*`` means
            each member.
        remove: Dotted paths that are left out of the answer, for kind ``drift``.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    kind: FaultKind
    service: str = "*"
    method: str = "*"
    path: str = "*"
    endpoint: str = "*"
    count: int | None = 1
    skip: int = 0
    status: int = 500
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    refusal: RefusalKind = "capacity"
    outcome: int | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()

    def hits(self, service: str, method: str, path: str, endpoint: str = "") -> bool:
        """Tell whether this fault is meant for a request."""
        named = [endpoint] if endpoint else path.split("/")
        return (
            fnmatch.fnmatchcase(service, self.service)
            and fnmatch.fnmatchcase(method.upper(), self.method.upper())
            and fnmatch.fnmatchcase(path, self.path)
            and any(fnmatch.fnmatchcase(name, self.endpoint) for name in named)
        )


@dataclass(slots=True, kw_only=True)
class PendingFault:
    """A fault that waits, and how much of it is left."""

    id: str
    fault: Fault
    skip: int
    left: int | None


class Switchboard:
    """All faults that wait for their requests. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._pending: list[PendingFault] = []

    def add(self, fault: Fault | None = None, /, **members: Any) -> str:
        """Add a fault, given as it is or by its members.

        Returns:
            Its id, for :meth:`clear`.
        """
        fault = Fault(**members) if fault is None else fault
        with self._lock:
            entry = PendingFault(id=f"fault-{next(self._numbers)}", fault=fault, skip=fault.skip, left=fault.count)
            self._pending.append(entry)
        return entry.id

    def clear(self, fault_id: str | None = None) -> None:
        """Remove one fault, or all of them."""
        with self._lock:
            self._pending = [entry for entry in self._pending if fault_id is not None and entry.id != fault_id]

    def pending(self) -> list[PendingFault]:
        """Return copies of the faults that still wait."""
        with self._lock:
            return [copy.copy(entry) for entry in self._pending]

    def take(self, service: str, method: str, path: str, *, endpoint: str = "") -> list[Fault]:
        """Return the faults for a request that has arrived, in the order in which they were added, and count it.

        Args:
            service: Which service it came to; ``data`` for a runtime proxy.
            method: HTTP method; ``WS`` for a WebSocket upgrade.
            path: Path without the query.
            endpoint: Whose runtime proxy it came to; empty elsewhere.
        """
        hit: list[Fault] = []
        with self._lock:
            for entry in self._pending:
                if not entry.fault.hits(service, method, path, endpoint):
                    continue
                if entry.skip:
                    entry.skip -= 1
                    continue
                hit.append(entry.fault)
                if entry.left is not None:
                    entry.left -= 1
            self._pending = [entry for entry in self._pending if entry.left is None or entry.left > 0]
        return hit


def drifted(document: Any, fault: Fault) -> Any:
    """Return a JSON document as an unexpected version of the service would send it. Pure.

    Args:
        document: The right answer; not changed.
        fault: A fault of kind ``drift``.
    """
    document = copy.deepcopy(document)
    for path in fault.remove:
        for holder, key in _holders(document, path.split(".")):
            holder.pop(key)
    for path, value in fault.set.items():
        for holder, key in _holders(document, path.split("."), create=True):
            holder[key] = value
    return document


def _holders(node: Any, parts: list[str], *, create: bool = False) -> list[tuple[Any, Any]]:
    """Return the containers that hold the member at a dotted path, each with its key."""
    key, rest = parts[0], parts[1:]
    if isinstance(node, list):
        here: list[Any] = [i for i in range(len(node)) if key in {"*", str(i)}]
    elif isinstance(node, dict):
        here = list(node) if key == "*" else [key] if create or key in node else []
    else:
        return []
    if not rest:
        return [(node, k) for k in here]
    return [
        found
        for k in here
        if not isinstance(node, dict) or k in node
        for found in _holders(node[k], rest, create=create)
    ]
