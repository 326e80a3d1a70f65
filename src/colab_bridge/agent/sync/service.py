"""The files service of the agent: the runtime's half of a pair of folders, and single files.

Verbs for folders that are kept in step: ``hello``, ``rules``, ``snapshot``, ``pre``, ``post``, ``have``, ``tell``,
``put``, ``chunk``, ``sign``, ``patch``, ``ahead``, ``apply``, ``get``, ``watch``, ``trash``, ``bye``. For single files:
``list``, ``stat``, ``read``, ``write``, ``commit``, ``digest``, ``mkdir``, ``remove``. Everything that arrives is
checked, everything that blocks runs in the service's one thread. It may be driven in-process too, with any object that
looks like a :class:`~..process.service.Peer`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .budget import Budget
from .disk.failures import code_of
from .disk.ops import ApplyOp, Code, DisplacedFile, OpResult
from .disk.root import RootFault
from .disk.stage import WrongContent
from .disk.trash import TrashFault
from .ignore import IgnoreRules
from .names import check_path
from .pages import WireError, tree_pages
from .service_exchange import (
    INLINE_BYTES,
    INLINE_FILE_BYTES,
    Workspace,
    digests_there,
    inline_content,
    split_overtaken,
)
from .service_files import SingleFiles
from .service_folder import RootGone, Settlement, SyncFolder
from .service_large_verbs import ahead, check_same, chunk, patch, sign
from .service_wire import (
    changed_rows,
    checked_path,
    delta_digest,
    delta_of,
    pack_envelope,
    read_digest,
    read_field,
    read_list,
    unpack_envelope,
)
from .transfer.batches import BatchLimits, pack_batch, unpack_batch
from .transfer.compress import Codec
from .tree import Directory

__all__ = ["FilesService", "make"]

T = TypeVar("T")
_PAGE_ROWS = 1500
_MOST_OPERATIONS = 20_000
_MOST_FOLDERS = 8
_REPLY_BYTES = 1_900_000
_SHOWN = 50
_AUDITED_SHARE = 0.01
_Verb = Callable[["Workspace", Mapping[str, Any], bytes], Reply]


def _rescue_nothing(displaced: DisplacedFile) -> None:
    """Keep nothing: the runtime has no store of its own, so its trash keeps what is swapped out, for good."""
    raise OSError(f"no store for {displaced.path}")


class FilesService:
    """See the module.

    Args:
        name: First part of the methods' names.
    """

    def __init__(self, name: str = "files") -> None:
        self.name = name
        self._peer: Peer | None = None
        self._workspaces: dict[str, Workspace] = {}
        self._single = SingleFiles(self._base)
        self._verbs: dict[str, _Verb] = {
            "rules": self._rules,
            "snapshot": self._snapshot,
            "pre": lambda workspace, params, payload: self._exchange(workspace, params, payload, after_run=False),
            "post": lambda workspace, params, payload: self._exchange(workspace, params, payload, after_run=True),
            "have": self._have,
            "tell": self._tell,
            "put": self._put,
            "chunk": lambda workspace, params, payload: chunk(workspace.folder, params, payload),
            "sign": lambda workspace, params, payload: sign(workspace.folder, params),
            "patch": lambda workspace, params, payload: patch(workspace.folder, params, payload),
            "ahead": lambda workspace, params, payload: ahead(workspace.folder, params),
            "apply": self._apply,
            "get": self._get,
            "trash": self._trash,
            "bye": self._bye,
        }

    # -- as a service ------------------------------------------------------------------------------------------------

    def start(self, peer: Peer) -> None:
        """See :class:`~..process.service.Service`."""
        self._peer = peer

    def open(self, stream: ServerStream) -> StreamHandler:
        """See :class:`~..process.service.Service`."""
        raise CallFailure("unknown", "there are no streams of files")

    def busy(self) -> bool:
        """See :class:`~..process.service.Service`."""
        return False

    async def stop(self) -> None:
        """See :class:`~..process.service.Service`."""
        for workspace in self._workspaces.values():
            self._disarm(workspace)
        if self._peer is not None:
            await self._peer.in_thread(self._close_all)

    def _close_all(self) -> None:
        for workspace in self._workspaces.values():
            workspace.folder.close()
        self._workspaces.clear()

    def _base(self) -> Path:
        """Folder against which relative paths of the workspace are meant: where the server's kernels start."""
        hints = {} if self._peer is None else self._peer.hints()
        return Path(hints.get("cwd") or Path.home())

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """See :class:`~..process.service.Service`."""
        assert self._peer is not None
        if verb == "watch":
            return self._watch(params)
        asked_about = self._workspaces.get(str(params.get("w", "")))
        if asked_about is not None:
            # The answer takes in what is there, our own question to the watches too: that is no news.
            self._disarm(asked_about)
        try:
            reply: Reply = await self._peer.in_thread(self._answer, verb, params, payload)
        finally:
            self._arm_all()
        return reply

    def _answer(self, verb: str, params: Mapping[str, Any], payload: bytes) -> Reply:
        """Answer in the worker thread; every fault of the disk or of the caller becomes a code."""
        try:
            if verb == "hello":
                return self._hello(params)
            if verb in self._single.verbs:
                return self._single.answer(verb, params, payload)
            handler = self._verbs.get(verb)
            if handler is None:
                raise CallFailure("unknown", "no such verb")
            return handler(self._workspace(params), params, payload)
        except WireError as error:
            raise CallFailure("bad-request", str(error)) from error
        except WrongContent as error:
            raise CallFailure("mismatch", "the content is not what its digest says") from error
        except TrashFault as error:
            raise CallFailure(error.code, error.sentence) from error
        except KeyError as error:
            raise CallFailure("not-begun", "this file was not begun") from error
        except RootFault as error:
            raise CallFailure("root", error.sentence, {"fault": error.code}) from error
        except RootGone as error:
            raise CallFailure("root-gone", str(error), {"state": error.state.value}) from error
        except FileNotFoundError as error:
            raise CallFailure("missing", f"it is not there: {error.filename or ''}"[:300]) from error
        except OSError as error:
            reason = {"reason": code_of(error).value}
            raise CallFailure("disk", f"{error.strerror or error}"[:300], reason) from error

    def _workspace(self, params: Mapping[str, Any]) -> Workspace:
        found = self._workspaces.get(str(params.get("w", "")))
        if found is None:
            raise CallFailure("no-workspace", "say hello first")
        return found

    # -- opening -----------------------------------------------------------------------------------------------------

    def _hello(self, params: Mapping[str, Any]) -> Reply:
        if params.get("v") != 1:
            raise CallFailure("version", "another version of the protocol")
        key = bytes.fromhex(read_field(params, "key", str)) if len(str(params.get("key"))) <= 128 else b""
        if not 16 <= len(key) <= 64:
            raise WireError("the key has no possible length")
        root = self._root_of(read_field(params, "root", str))
        name = str(root)
        known = self._workspaces.get(name)
        if known is not None and (known.folder.key != key or not _usable(known.folder)):
            known.folder.close()
            del self._workspaces[name]
            known = None
        if known is None:
            known = self._open_workspace(name, root, key)
        known.codecs = () if params.get("packs") is False else (Codec.ZLIB,)
        facts = known.folder.facts()
        return Reply({**facts, "w": name, "python": sys.version.split()[0]})

    def _root_of(self, given: str) -> Path:
        root = Path(given)
        if not root.is_absolute():
            if given and check_path(given) is not None:
                raise WireError("the workspace has no possible path")
            root = self._base() / given
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _open_workspace(self, name: str, root: Path, key: bytes) -> Workspace:
        if len(self._workspaces) >= _MOST_FOLDERS:
            raise CallFailure("full", "too many workspaces on this runtime")
        cache = None if self._peer is None else self._peer.folder / f"digests-{abs(hash(name)):x}"
        folder = SyncFolder(root, key=key, cache_file=cache, on_displaced=_rescue_nothing)
        folder.applier.recover()
        self._workspaces[name] = Workspace(name, folder)
        return self._workspaces[name]

    def _rules(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        try:
            rules = IgnoreRules.from_text(payload.decode())
            budget = Budget.from_json(read_list(params, "budget", 3))
        except ValueError as error:
            raise WireError(str(error)) from error
        workspace.folder.set_budget(budget)
        workspace.folder.set_rules(rules)
        return Reply(self._rules_of(workspace.folder))

    def _bye(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        self._workspaces.pop(workspace.name, None)
        workspace.folder.close()
        return Reply()

    # -- looking -----------------------------------------------------------------------------------------------------

    def _snapshot(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        number, gen = read_field(params, "page", int), read_field(params, "gen", int)
        folder = workspace.folder
        if gen == 0:
            settled = folder.settle(walk=params.get("walk") is True)
            pages = [_rows_json(page) for page in tree_pages(settled.tree, _PAGE_ROWS)]
            workspace.pages = (settled.gen, pages)
            gen = settled.gen
        if workspace.pages[0] != gen or number >= len(workspace.pages[1]):
            raise CallFailure("gone", "this tree is not kept any more")
        tree = folder.known(gen)
        root = tree.kept.digest.hex() if tree is not None else ""
        result = {"gen": gen, "pages": len(workspace.pages[1]), "root": root, **self._rules_of(folder)}
        return Reply(result, workspace.pages[1][number], compress=True)

    @staticmethod
    def _rules_of(folder: SyncFolder) -> dict[str, Any]:
        return {"rules_id": folder.rules_id}

    def _exchange(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes, *, after_run: bool) -> Reply:
        folder = workspace.folder
        if not folder.rules_id or params.get("rules_id") != folder.rules_id:
            raise CallFailure("rules", "tell the rules first")
        body, blob = unpack_envelope(payload) if payload else ({}, memoryview(b""))
        operations = [*_told(workspace, params, body), *_operations(body)]
        workspace.tend()
        audited = params.get("audit") is True
        if audited:
            folder.audit(_AUDITED_SHARE)
        settled = folder.settle(walk=audited, after_run=after_run)
        known = folder.known(read_field(params, "gen", int))
        expected = read_digest(body["expect"]) if "expect" in body else b""
        results: list[OpResult] = []
        overtaken: list[ApplyOp] = []
        if operations:
            self._stage(folder, body, blob)
            operations, overtaken = split_overtaken(operations, known, settled.tree)
            results = folder.apply(read_field(params, "txn", str)[:64], operations)
        # What nobody has changed since the last run need not be looked for in all processes.
        unstable = folder.open_files() if after_run and folder.gen != workspace.gen_after_run else ()
        if after_run:
            workspace.gen_after_run = folder.gen
        outcome = [[r.path, r.code.value] for r in results if not r.ok]
        outcome += [[op.path, Code.MOVED.value] for op in overtaken]
        done = len(operations) + len(overtaken) - len(outcome)
        return self._exchange_reply(workspace, settled, known, operations, done, outcome, expected, unstable)

    def _exchange_reply(
        self,
        workspace: Workspace,
        settled: Settlement,
        known: Directory | None,
        operations: Sequence[ApplyOp],
        done: int,
        outcome: list[list[str]],
        expected: bytes,
        unstable: Sequence[str],
    ) -> Reply:
        folder = workspace.folder
        tree = folder.tree
        assert tree is not None
        head = {"gen": folder.gen, "root": tree.kept.digest.hex(), "walked": settled.walked, **self._rules_of(folder)}
        if known is tree and not done and not outcome and not workspace.late and not unstable:
            return Reply(head)
        as_expected = bool(expected) and known is not None and expected == delta_digest(known, tree)
        rows = None if known is None or as_expected else delta_of(known, tree, 4000)
        body: dict[str, Any] = {"rows": rows, "results": outcome, "done": done, "unstable": list(unstable[:_SHOWN])}
        body["expected"] = as_expected
        body["problems"] = [[p.path, p.sentence] for p in settled.problems[:_SHOWN]]
        body["late"], workspace.late = workspace.late[:_SHOWN], []
        blob = b""
        if known is not None and rows is not None:
            sent = {op.digest for op in operations} | digests_there(known, tree)
            blob = inline_content(workspace, [(path, entry) for path, entry in changed_rows(known, tree)], sent)
        answer = pack_envelope(body, blob)
        if len(answer) > _REPLY_BYTES:
            answer = pack_envelope({**body, "rows": None})
        return Reply(head, answer, compress=True)

    # -- content -----------------------------------------------------------------------------------------------------

    def _stage(self, folder: SyncFolder, body: Mapping[str, Any], blob: memoryview) -> None:
        folder.take_copies(_copies(body))
        if len(blob):
            _put_batch(folder, blob)

    def _have(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        body, _ = unpack_envelope(payload)
        digests = [read_digest(item) for item in read_list(body, "digests", 200_000)]
        workspace.folder.take_copies(_copies(body))
        found = workspace.folder.stage.have(digests)
        return Reply({}, pack_envelope({"have": [digest.hex() for digest in found]}), compress=True)

    def _tell(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        """Take operations of a later exchange, so that their content finds its place when it comes."""
        body, _ = unpack_envelope(payload)
        txn, more = read_field(params, "txn", str)[:64], _operations(body)
        before = workspace.told[1] if workspace.told[0] == txn and params.get("more") is True else []
        if len(before) + len(more) > _MOST_OPERATIONS:
            raise WireError("more operations than one exchange takes")
        workspace.told = (txn, [*before, *more])
        try:
            workspace.folder.stage.expect(txn, more)
        except ValueError as error:
            raise WireError(str(error)) from error
        workspace.folder.take_copies(_copies(body))
        return Reply({"told": len(workspace.told[1])})

    def _put(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        return Reply({"stored": _put_batch(workspace.folder, memoryview(payload))})

    def _get(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        folder = workspace.folder
        if payload:
            body, _ = unpack_envelope(payload)
            wanted = _copies({"copies": body.get("items")})
            contents = folder.contents(wanted, INLINE_BYTES + INLINE_FILE_BYTES)
            return Reply({}, pack_batch(contents, allowed=workspace.codecs))
        path, digest = checked_path(params.get("path")), read_digest(params.get("digest"))
        check_same(folder, path, digest)
        length = min(read_field(params, "length", int), 1 << 20)
        data = folder.read_range(path, read_field(params, "offset", int), length)
        return Reply({}, data, compress=bool(workspace.codecs))

    # -- changing ----------------------------------------------------------------------------------------------------

    def _apply(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        body, blob = unpack_envelope(payload)
        self._stage(workspace.folder, body, blob)
        results = workspace.folder.apply(read_field(params, "txn", str)[:64], _operations(body))
        outcome = [[r.path, r.ok, r.code.value, r.sentence] for r in results]
        return Reply({"gen": workspace.folder.gen}, pack_envelope({"results": outcome}), compress=True)

    def _trash(self, workspace: Workspace, params: Mapping[str, Any], payload: bytes) -> Reply:
        trash = workspace.folder.trash
        if params.get("restore"):
            trash.restore(str(params["restore"]), checked_path(params["to"]) if params.get("to") else None)
            return Reply()
        rows = [[item.id, item.path, item.size, item.removed_s, item.why, item.kind] for item in trash.list()][:2000]
        return Reply({}, pack_envelope({"items": rows}), compress=True)

    # -- watching ----------------------------------------------------------------------------------------------------

    def _watch(self, params: Mapping[str, Any]) -> Reply:
        workspace = self._workspace(params)
        workspace.watched = params.get("on") is True
        self._disarm(workspace)
        self._arm_all()
        return Reply({"watching": workspace.armed is not None})

    def _arm_all(self) -> None:
        """Have the loop look at the watches again; one waking is enough until somebody asks what changed."""
        for workspace in self._workspaces.values():
            number = workspace.folder.watch_number if workspace.watched else None
            if number is not None and workspace.armed != number and self._peer is not None:
                self._disarm(workspace)
                self._peer.loop.add_reader(number, self._woken, workspace)
                workspace.armed = number

    def _disarm(self, workspace: Workspace) -> None:
        if workspace.armed is not None and self._peer is not None:
            with suppress(OSError, ValueError):
                self._peer.loop.remove_reader(workspace.armed)
        workspace.armed = None

    def _woken(self, workspace: Workspace) -> None:
        self._disarm(workspace)
        if self._peer is not None:
            self._peer.notify(f"{self.name}.dirty", {"w": workspace.name, "gen": workspace.folder.gen})


def _usable(folder: SyncFolder) -> bool:
    try:
        return folder.root.check().value == "same"
    except OSError:
        return False


def _rows_json(rows: Sequence[object]) -> bytes:
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _operations(body: Mapping[str, Any]) -> list[ApplyOp]:
    return [ApplyOp.from_json(item) for item in read_list(body, "ops", _MOST_OPERATIONS)]


def _told(workspace: Workspace, params: Mapping[str, Any], body: Mapping[str, Any]) -> list[ApplyOp]:
    """Return the operations that an exchange was told of before."""
    if not body.get("told"):
        return []
    (txn, operations), workspace.told = workspace.told, ("", [])
    if txn != str(params.get("txn", ""))[:64] or len(operations) != body["told"]:
        raise CallFailure("reset", "the operations were told to another process")
    return operations


def _copies(body: Mapping[str, Any]) -> list[tuple[bytes, str]]:
    out: list[tuple[bytes, str]] = []
    for item in read_list(body, "copies", _MOST_OPERATIONS):
        if not isinstance(item, list) or len(item) != 2:
            raise WireError("a copy is none")
        out.append((read_digest(item[0]), checked_path(item[1])))
    return out


def _put_batch(folder: SyncFolder, blob: memoryview) -> int:
    stored = 0
    for digest, data in unpack_batch(blob, BatchLimits()):
        folder.stage.put(digest, data)
        stored += 1
    return stored


def make() -> FilesService:
    """Return the service, as the agent process asks for it."""
    return FilesService()
