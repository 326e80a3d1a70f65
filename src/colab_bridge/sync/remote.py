"""Typed calls to the files service of the agent; everything that comes back is checked here.

The runtime is not trusted: odd answers raise ``WireError``, which ends the session's
sync (S9). Content is only accepted for digests that this side asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from colab_bridge.agent.sync.budget import Budget
from colab_bridge.agent.sync.disk.ops import ApplyOp, Code
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.pages import TreeReader, WireError
from colab_bridge.agent.sync.service_wire import (
    apply_rows,
    checked_path,
    delta_digest,
    pack_envelope,
    read_digest,
    read_list,
    unpack_envelope,
)
from colab_bridge.agent.sync.transfer.batches import BatchLimits, unpack_batch
from colab_bridge.agent.sync.transfer.compress import Codec
from colab_bridge.agent.sync.transfer.patch import Copy
from colab_bridge.agent.sync.tree import Directory, Entry
from colab_bridge.sync.troubles import code_named

__all__ = ["Caller", "Exchange", "Outcome", "RemoteFailure", "RemoteFiles", "RemoteInfo"]

CALL_S = 1800.0
"""Deadline of one call: the first look at a large folder reads every file. Signs of life are asked for beside it."""
MOST_ROWS = 400_000
"""Most rows of a tree: 200,000 files, and folders around them. Longer ones are an attack on this machine's memory."""
_PAGES_AT_ONCE = 4
_MOST_PAGES = 1000


class RemoteFailure(Exception):
    """A call to the runtime's files service failed.

    Args:
        code: Code of the service or of the channel.
        text: One line for people.
        data: What the service said for programs.
    """

    def __init__(self, code: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.data: Mapping[str, Any] = data or {}


class Caller(Protocol):
    """Carries calls to an agent: the real link, or a service in this process."""

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline_s: float = 10.0,
        bulk: bool = False,
        compress: bool = False,
    ) -> tuple[Mapping[str, Any], bytes]:
        """Call a method.

        Raises:
            RemoteFailure: it failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteInfo:
    """What the runtime's side says about itself; only a hint where safety is concerned.

    Attributes:
        identity: Marker, device, inode and start of the machine: another value is another peer (S1).
        root: Path of the workspace there.
        folds: Its file system ignores case or Unicode form.
        has_exec: Its file system keeps the executable bit.
        python: Version of its Python.
        free_bytes: Free space there.
        degraded: Sentences about what is missing there.
        watching: Whether it sees changes as they happen.
    """

    identity: str
    root: str
    folds: bool
    has_exec: bool
    python: str
    free_bytes: int
    degraded: tuple[str, ...]
    watching: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An operation that could not be done there.

    Attributes:
        path: Its path.
        code: Why.
    """

    path: str
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One barrier exchange: what we sent was applied where nothing had changed, and this is what is there now.

    Attributes:
        tree: The runtime's tree, checked, not yet stripped; None when the difference was too large to be told.
        gen: Its generation.
        changed: Rows that differ from what we knew.
        outcomes: Operations that went with it and could not be done.
        content: Content that came along, by digest, not yet verified.
        unstable: Files that somebody has open for writing.
        problems: Paths that cannot travel, with the reason.
        late: Old versions there into which a program went on writing, with its id in the trash there.
        walked: The answer rests on a walk, not on watches.
    """

    tree: Directory | None
    gen: int
    root: bytes
    changed: tuple[tuple[str, Entry | None], ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    content: Mapping[bytes, memoryview] = field(default_factory=dict)
    unstable: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    late: tuple[tuple[str, str], ...] = ()
    walked: bool = False


class RemoteFiles:
    """The runtime's side of a pair of folders.

    Args:
        caller: The way there.
        root: Path of the workspace on the runtime; empty for the service's own choice.
        key: Key of the digests.
        max_entries: Larger trees end the sync.
        packs: Content is packed on the way; not worth it where both sides are on one machine.

    Attributes:
        codecs: How content may be packed for the runtime.
        round_trips: Calls so far that had to be waited for.
        budget: The limits that it was told; None before.
        tree: What the runtime had at :attr:`gen`; None before the first look.
    """

    def __init__(
        self, caller: Caller, *, root: str, key: bytes, max_entries: int = MOST_ROWS, packs: bool = True
    ) -> None:
        self._caller = caller
        self._root = root
        self._key = key
        self._max_entries = max_entries
        self.codecs = (Codec.ZLIB,) if packs else ()
        self._rules_id = ""
        self.budget: Budget | None = None
        self._workspace = ""
        self.round_trips = 0
        self.gen = 0
        self.tree: Directory | None = None
        self.info: RemoteInfo | None = None

    async def _call(
        self,
        verb: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline_s: float = CALL_S,
        bulk: bool = False,
        compress: bool = False,
        waited: bool = True,
    ) -> tuple[Mapping[str, Any], bytes]:
        self.round_trips += waited
        params = {**(params or {}), "w": self._workspace}
        return await self._caller.call(
            f"files.{verb}", params, payload, deadline_s=deadline_s, bulk=bulk, compress=compress
        )

    @property
    def rules_id(self) -> str:
        """Id of the rules that the runtime was told; empty before."""
        return self._rules_id

    # -- opening -----------------------------------------------------------------------------------------------------

    async def hello(self, rules: IgnoreRules, budget: Budget) -> RemoteInfo:
        """Open the workspace there, with our key, our rules and our limits.

        Raises:
            RemoteFailure: it cannot be opened.
            WireError: the answer makes no sense.
        """
        params = {"v": 1, "root": self._root, "key": self._key.hex(), "packs": bool(self.codecs)}
        result, _ = await self._call("hello", params)
        self._workspace = _text(result, "w", 4096)
        identity = [_text(result, name, 200) for name in ("marker", "boot")]
        self.info = RemoteInfo(
            identity="/".join(identity),
            root=_text(result, "root", 4096),
            folds=result.get("folds") is True,
            has_exec=result.get("exec") is not False,
            python=_text(result, "python", 40),
            free_bytes=_whole(result, "free"),
            degraded=tuple(str(item)[:200] for item in read_list(result, "degraded", 20)),
            watching=result.get("watching") is True,
        )
        self.gen, self.tree = 0, None
        await self.set_rules(rules, budget)
        return self.info

    async def set_rules(self, rules: IgnoreRules, budget: Budget) -> None:
        """Tell the runtime what travels; it never has rules and limits of its own."""
        params = {"budget": budget.to_json()}
        result, _ = await self._call("rules", params, rules.to_text().encode(), compress=True)
        rules_id = rules.rules_id
        if result.get("rules_id") != rules_id:
            raise WireError("the runtime answers with other ignore rules")
        self._rules_id, self.budget = rules_id, budget
        self.gen, self.tree = 0, None

    # -- looking -----------------------------------------------------------------------------------------------------

    async def snapshot(self, *, walk: bool = True) -> Directory:
        """Fetch the whole tree."""
        first, payload = await self._call("snapshot", {"page": 0, "gen": 0, "walk": walk})
        pages, gen = _whole(first, "pages"), _whole(first, "gen")
        if not 1 <= pages <= _MOST_PAGES:
            raise WireError("a tree of an impossible number of pages")
        self._check_rules(first)
        reader = TreeReader(self._max_entries)
        reader.feed(_json(payload))
        for start in range(1, pages, _PAGES_AT_ONCE):
            numbers = range(start, min(pages, start + _PAGES_AT_ONCE))
            calls = [self._call("snapshot", {"page": number, "gen": gen}, bulk=True) for number in numbers]
            for _, page in await asyncio.gather(*calls):
                reader.feed(_json(page))
        self.tree, self.gen = reader.done(), gen
        return self.tree

    def _check_rules(self, result: Mapping[str, Any]) -> None:
        if result.get("rules_id") != self._rules_id:
            raise WireError("the runtime answers with other ignore rules")

    async def exchange(
        self,
        verb: str,
        *,
        txn: str = "",
        operations: Sequence[ApplyOp] = (),
        copies: Iterable[tuple[bytes, str]] = (),
        batch: bytes = b"",
        told: int = 0,
        expected: Directory | None = None,
        audit: bool = False,
        deadline_s: float = CALL_S,
    ) -> Exchange:
        """Settle the runtime's side, apply what nothing there has overtaken, and learn what changed.

        Args:
            verb: ``pre`` (before a cell) or ``post`` (after one: always a walk, and small results come along).
            txn: Transaction of the operations.
            operations: What shall be done there.
            copies: Content (digest, path there) that the runtime has under another path already.
            batch: Content of the operations.
            told: How many operations of the transaction were told before, see :meth:`tell`.
            expected: The tree there when every operation is done; where it is so, nothing needs to be told.
            audit: Have some files read again there whatever their stamps say.
            deadline_s: Seconds.

        Raises:
            RemoteFailure: the call failed; nothing or all of it may have been done.
            WireError: the answer makes no sense.
        """
        params: dict[str, Any] = {"gen": self.gen, "txn": txn, "rules_id": self._rules_id}
        if audit:
            params["audit"] = True
        body: dict[str, Any] = {
            "ops": [operation.to_json() for operation in operations],
            "copies": [[digest.hex(), path] for digest, path in copies],
        }
        if expected is not None and self.tree is not None:
            body["expect"] = delta_digest(self.tree, expected).hex()
        if told:
            body["told"] = told
        payload = pack_envelope(body, batch) if operations or told else b""
        result, answer = await self._call(verb, params, payload, deadline_s=deadline_s)
        self._check_rules(result)
        return self._read_exchange(result, answer, len(operations) + told, expected)

    def _read_exchange(
        self, result: Mapping[str, Any], answer: bytes, operations: int, expected: Directory | None
    ) -> Exchange:
        gen, root = _whole(result, "gen"), read_digest(result.get("root"))
        if not answer:
            if self.tree is None or gen != self.gen or root != self.tree.kept.digest:
                raise WireError("the runtime says that nothing changed, and something did")
            return Exchange(tree=self.tree, gen=gen, root=root, walked=result.get("walked") is True)
        body, blob = unpack_envelope(answer)
        tree: Directory | None = None
        changed: list[tuple[str, Entry | None]] = []
        outcomes = tuple(_outcome(item) for item in read_list(body, "results", 100_000))
        if operations and body.get("done") != operations - len(outcomes):
            raise WireError("the runtime does not say what became of the operations")
        if body.get("expected") is True:
            tree = expected
        elif body.get("rows") is not None and self.tree is not None:
            tree, changed = apply_rows(self.tree, body["rows"])
        if tree is not None and tree.kept.digest != root:
            raise WireError("the difference that the runtime tells does not lead to its tree")
        self.tree, self.gen = tree, gen if tree is not None else 0
        return Exchange(
            tree=tree,
            gen=gen,
            root=root,
            changed=tuple(changed),
            outcomes=outcomes,
            content=dict(unpack_batch(blob, BatchLimits())) if len(blob) else {},
            unstable=tuple(str(item)[:1024] for item in read_list(body, "unstable", 100)),
            problems=_sentences(body, "problems"),
            late=_sentences(body, "late"),
            walked=result.get("walked") is True,
        )

    # -- content -----------------------------------------------------------------------------------------------------

    async def have(self, wanted: Sequence[bytes], copies: Iterable[tuple[bytes, str]] = ()) -> frozenset[bytes]:
        """Return which content the runtime has staged now, after it copied what it has under other paths."""
        body = {"digests": [digest.hex() for digest in wanted], "copies": [[d.hex(), path] for d, path in copies]}
        _, answer = await self._call("have", {}, pack_envelope(body), compress=True)
        found, _ = unpack_envelope(answer)
        return frozenset(read_digest(item) for item in read_list(found, "have", 200_000)) & frozenset(wanted)

    async def tell(
        self, txn: str, operations: Sequence[ApplyOp], copies: Iterable[tuple[bytes, str]] = (), *, more: bool = False
    ) -> None:
        """Tell operations before their content, so that this comes to its place at once; an exchange does them.

        Args:
            txn: Transaction of that exchange.
            operations: What shall be done there.
            copies: Content (digest, path there) that the runtime has under another path already.
            more: They come after those that were told before.
        """
        body = {
            "ops": [operation.to_json() for operation in operations],
            "copies": [[digest.hex(), path] for digest, path in copies],
        }
        await self._call("tell", {"txn": txn, "more": more}, pack_envelope(body), compress=bool(self.codecs))

    async def put(self, batch: bytes) -> None:
        """Stage a batch of small files."""
        await self._call("put", {}, batch, bulk=True)

    async def copy_ahead(self, path: str, old: bytes, copy: Copy) -> None:
        """Have a range of a file there copied for a newer version that is still being read here; nobody waits."""
        params = {"path": path, "old": old.hex(), "source": copy.source, "target": copy.target, "length": copy.length}
        await self._call("ahead", params, waited=False)

    async def end_ahead(self) -> None:
        """Have removed there what was copied ahead and is not used."""
        await self._call("ahead", {"end": True}, waited=False)

    async def missing(self, digest: bytes, size: int, ahead_of: bytes = b"") -> list[tuple[int, int]]:
        """Begin, or go on with, a large file there; returns the ranges (offset, length) that it lacks.

        What was copied ahead of the version ``ahead_of`` is used for it.
        """
        params = {
            "digest": digest.hex(),
            "size": size,
            "begin": True,
            **({"ahead": ahead_of.hex()} if ahead_of else {}),
        }
        result, _ = await self._call("chunk", params, bulk=True)
        ranges = [(int(item[0]), int(item[1])) for item in read_list(result, "missing", 100_000)]
        if any(offset < 0 or length <= 0 or offset + length > size for offset, length in ranges):
            raise WireError("a range outside of its file")
        return ranges

    async def chunk(self, digest: bytes, offset: int, data: bytes) -> None:
        """Send a piece of a large file."""
        await self._call("chunk", {"digest": digest.hex(), "offset": offset}, data, bulk=True)

    async def finish(self, digest: bytes) -> None:
        """Have a large file verified there.

        Raises:
            RemoteFailure: code ``mismatch``: the bytes are others; they are forgotten there.
        """
        await self._call("chunk", {"digest": digest.hex(), "finish": True}, bulk=True)

    async def sign(self, path: str, digest: bytes, block: int) -> bytes:
        """Return signatures of a file's blocks; refused when the file is another one by now.

        Args:
            path: The file there.
            digest: Its content.
            block: Size of the blocks in bytes.
        """
        _, payload = await self._call("sign", {"path": path, "digest": digest.hex(), "block": block}, bulk=True)
        return payload

    async def sign_unless_grown(self, path: str, digest: bytes, block: int, old: bytes) -> bytes | None:
        """Return signatures as :meth:`sign` does; None when the runtime says that the file only grew since a version.

        Args:
            path: The file there.
            digest: Its content.
            block: Size of the blocks in bytes.
            old: Digest of the version, which this side has.
        """
        params = {"path": path, "digest": digest.hex(), "block": block, "old": old.hex()}
        result, payload = await self._call("sign", params, bulk=True)
        return None if result.get("grew") is True else payload

    async def patch(self, path: str, old: bytes, digest: bytes, size: int, copies: bytes) -> None:
        """Have ranges of an old file there copied into a large file that is under way."""
        params = {"path": path, "old": old.hex(), "digest": digest.hex(), "size": size}
        await self._call("patch", params, copies, bulk=True)

    async def get_small(self, wanted: Sequence[tuple[bytes, str]], *, bulk: bool = False) -> dict[bytes, memoryview]:
        """Fetch small files by path and digest; those that changed meanwhile are left out. Not yet verified."""
        # One path for each content: a batch that has one twice is none.
        asked = dict(wanted)
        body = {"items": [[digest.hex(), path] for digest, path in asked.items()]}
        _, payload = await self._call("get", {}, pack_envelope(body), bulk=bulk)
        return {digest: data for digest, data in unpack_batch(payload, BatchLimits()) if digest in asked}

    async def get_range(self, path: str, digest: bytes, offset: int, length: int, *, bulk: bool = True) -> bytes:
        """Fetch a range of a file; refused when the file is another one by now."""
        params = {"path": path, "digest": digest.hex(), "offset": offset, "length": length}
        _, payload = await self._call("get", params, bulk=bulk)
        if len(payload) != length:
            raise RemoteFailure("moved", "the file has become shorter")
        return payload

    # -- the rest ----------------------------------------------------------------------------------------------------

    async def watch(self, *, on: bool) -> bool:
        """Switch notifications of changes; returns whether there are any."""
        result, _ = await self._call("watch", {"on": on})
        return result.get("watching") is True

    async def ask(
        self, verb: str, params: Mapping[str, Any], payload: bytes = b"", *, bulk: bool = False
    ) -> tuple[Mapping[str, Any], bytes]:
        """Call a verb for single files (``list``, ``stat``, ``read``, ``write``, ``remove``, ``trash``)."""
        return await self._call(verb, params, payload, bulk=bulk)


def _sentences(body: Mapping[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    rows = read_list(body, name, 1000)
    return tuple((str(row[0])[:1024], str(row[1])[:300]) for row in rows if isinstance(row, list) and len(row) == 2)


def _text(values: Mapping[str, Any], name: str, most: int) -> str:
    value = values.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise WireError(f"the runtime's answer lacks {name}")
    return value


def _whole(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 <= value < 2**63:
        raise WireError(f"the runtime's answer lacks {name}")
    return value


def _json(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WireError("a page is no page") from error


def _outcome(item: object) -> Outcome:
    if not isinstance(item, list) or len(item) != 2:
        raise WireError("a result is no result")
    return Outcome(path=checked_path(item[0]), code=code_named(item[1], Code.MOVED))
