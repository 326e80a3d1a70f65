"""What this machine remembers of a pair of folders: the last agreement, its history, decisions of people.

All truth of a sync lies here, in SQLite with ``synchronous=FULL``. A file that cannot be read is moved aside and an
empty one takes its place: without an ancestor nothing is ever deleted, so that loss is always safe. One process
writes, one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from colab_bridge.agent.sync.service_wire import changed_rows
from colab_bridge.agent.sync.tree import EMPTY, Directory, Entry, File, Link, build_tree
from colab_bridge.errors import TransientError, UserError
from colab_bridge.sync_core.model import Side, Stop

__all__ = ["CopyKind", "HistoryLine", "KeptCopy", "SyncStore"]

_SCHEMA_VERSION = 1
_APPLICATION_ID = 0x43425359
_COMPANIONS = ("-wal", "-shm", "-journal")
_HISTORY_KEPT = 500
_STOPS = {stop.value: stop for stop in Stop}

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE base(path TEXT PRIMARY KEY, kind TEXT NOT NULL, digest BLOB, size INTEGER, executable INTEGER, target TEXT)
 WITHOUT ROWID;
CREATE TABLE history(id INTEGER PRIMARY KEY, txn TEXT NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL,
 line TEXT NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL, sent INTEGER NOT NULL, received INTEGER NOT NULL,
 seconds REAL NOT NULL);
CREATE TABLE verdicts(hold TEXT PRIMARY KEY, approved INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE standing(stop TEXT NOT NULL, side TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY(stop, side, path))
 WITHOUT ROWID;
CREATE TABLE copies(id TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, path TEXT NOT NULL, side TEXT NOT NULL,
 digest BLOB NOT NULL, size INTEGER NOT NULL, stored TEXT NOT NULL, resolved REAL) WITHOUT ROWID;
"""


class CopyKind:
    """Why a version is kept outside the tree."""

    CONFLICT = "conflict"
    REVIEW = "review"
    RESCUED = "rescued"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCopy:
    """A version kept outside the tree.

    Attributes:
        id: Name for ``sync resolve``.
        kind: One of :class:`CopyKind`.
        at: Unix seconds.
        path: Path that it had.
        side: Where it came from.
        digest: Its content.
        size: Bytes.
        stored: Path below the store's folder.
        resolved: Unix seconds when somebody dealt with it; None while open.
    """

    id: str
    kind: str
    at: float
    path: str
    side: Side
    digest: bytes
    size: int
    stored: str
    resolved: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """One transaction for people.

    Attributes:
        txn: Its id.
        at: Unix seconds.
        reason: What caused it: ``pre``, ``post``, ``watch`` or ``sync``.
        line: Its summary.
        up: Operations on the runtime.
        down: Operations here.
        sent: Bytes of content up.
        received: Bytes of content down.
        seconds: How long it took.
    """

    txn: str
    at: float
    reason: str
    line: str
    up: int
    down: int
    sent: int = 0
    received: int = 0
    seconds: float = 0.0


class SyncStore:
    """The database of one pair of folders.

    Args:
        path: The file; its folder must exist.
        now: Unix seconds, for the name of a file that is moved aside.

    Attributes:
        notices: What happened to the file at opening, for people.

    Raises:
        TransientError: another process holds the file, or the disk is full.
    """

    def __init__(self, path: Path, now: float) -> None:
        self.notices: list[str] = []
        self._path = path
        self._db = self._open(now)
        self._base: Directory | None = None
        # What each barrier asks for; nobody else writes the file.
        self._values: dict[str, str] | None = None
        self._verdicts: tuple[frozenset[str], frozenset[str]] | None = None

    # -- opening -----------------------------------------------------------------------------------------------------

    def _open(self, now: float) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise TransientError(
                    f"{self._path} is in use by another program", hint="Close that program and try again."
                ) from error
            self._put_aside(now)
        except (sqlite3.DatabaseError, _NotOursError):
            self._put_aside(now)
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # Calls come from worker threads, one at a time.
        db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if os.name == "posix":
                os.chmod(self._path, 0o600)
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            ours = int(db.execute("PRAGMA application_id").fetchone()[0])
            if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                db.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION_ID};"
                    f" PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
                )
            elif (version, ours) != (_SCHEMA_VERSION, _APPLICATION_ID) or not _is_whole(db):
                raise _NotOursError
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self, now: float) -> None:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = Path(f"{self._path}.damaged-{stamp}")
        number = 1
        while os.path.lexists(aside):
            number += 1
            aside = Path(f"{self._path}.damaged-{stamp}-{number}")
        for suffix in ("", *_COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
        self.notices.append(
            f"the memory of the sync was damaged and has been moved to {aside.name}; both folders are united anew,"
            " nothing is deleted"
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise TransientError(
                f"the memory of the sync cannot be written: {error}", hint=f"Check the disk of {self._path.parent}."
            ) from error

    # -- single values -------------------------------------------------------------------------------------------------

    def meta(self, key: str, default: str = "") -> str:
        """Return a value that was set, or the default."""
        if self._values is None:
            self._values = {str(name): str(value) for name, value in self._db.execute("SELECT key, value FROM meta")}
        return self._values.get(key, default)

    def set_meta(self, key: str, value: str) -> None:
        """Set a value."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))
        if self._values is not None:
            self._values[key] = value

    # -- the last agreement --------------------------------------------------------------------------------------------

    def base(self) -> Directory:
        """Return the tree at the last agreement."""
        if self._base is None:
            rows = self._db.execute("SELECT path, kind, digest, size, executable, target FROM base ORDER BY path")
            try:
                self._base = build_tree(
                    (str(row[0]), _entry(row)) for row in sorted(rows, key=lambda r: r[0].split("/"))
                )
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(
                    "the memory of the sync holds a row that makes no sense",
                    hint=f"Move {self._path} away; both folders are united anew then.",
                ) from error
        return self._base

    def commit(self, base: Directory, *, history: HistoryLine | None = None) -> None:
        """Set the agreement and remember what led to it, in one.

        Args:
            base: The new agreement.
            history: Line for people; None when nothing moved.
        """
        before = self.base()
        rows = list(changed_rows(before, base))
        if not rows and history is None:
            return
        with self._transaction() as db:
            gone = [(path,) for path, entry in rows if entry is None]
            db.executemany("DELETE FROM base WHERE path = ?", gone)
            there = [(path, *_columns(entry)) for path, entry in rows if entry is not None]
            db.executemany("INSERT OR REPLACE INTO base VALUES(?, ?, ?, ?, ?, ?)", there)
            if history is not None:
                self._write_history(db, history)
        self._base = base

    @staticmethod
    def _write_history(db: sqlite3.Connection, line: HistoryLine) -> None:
        db.execute(
            "INSERT INTO history(txn, at, reason, line, up, down, sent, received, seconds)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (line.txn, line.at, line.reason, line.line, line.up, line.down, line.sent, line.received, line.seconds),
        )
        db.execute("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?", (_HISTORY_KEPT,))

    def history(self, limit: int = 50) -> list[HistoryLine]:
        """Return the newest transactions, newest first."""
        rows = self._db.execute(
            "SELECT txn, at, reason, line, up, down, sent, received, seconds FROM history ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        names = ("txn", "at", "reason", "line", "up", "down", "sent", "received", "seconds")
        return [HistoryLine(**dict(zip(names, row, strict=True))) for row in rows]

    # -- decisions of people -------------------------------------------------------------------------------------------

    def decide(self, hold: str, *, approved: bool, now: float) -> None:
        """Remember what a person said about a hold."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO verdicts VALUES(?, ?, ?)", (hold, int(approved), now))
        self._verdicts = None

    def verdicts(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the ids of approved and of rejected holds."""
        if self._verdicts is None:
            rows = self._db.execute("SELECT hold, approved FROM verdicts").fetchall()
            self._verdicts = (frozenset(h for h, yes in rows if yes), frozenset(h for h, yes in rows if not yes))
        return self._verdicts

    def forget_verdicts(self) -> None:
        """Drop all decisions: they have been carried out."""
        if any(self.verdicts()):
            with self._transaction() as db:
                db.execute("DELETE FROM verdicts")
            self._verdicts = None

    def standing(self) -> dict[tuple[Stop, Side], frozenset[str]]:
        """Return what the stops of quantity hold and nobody decided yet."""
        found: dict[tuple[Stop, Side], set[str]] = {}
        for stop, side, path in self._db.execute("SELECT stop, side, path FROM standing"):
            with contextlib.suppress(ValueError, KeyError):
                found.setdefault((_STOPS[stop], Side(side)), set()).add(path)
        return {key: frozenset(paths) for key, paths in found.items()}

    def set_standing(self, standing: Mapping[tuple[Stop, Side], frozenset[str]]) -> None:
        """Remember what the stops of quantity hold."""
        if dict(standing) == self.standing():
            return
        rows = [(stop.value, str(side), path) for (stop, side), paths in standing.items() for path in paths]
        with self._transaction() as db:
            db.execute("DELETE FROM standing")
            db.executemany("INSERT INTO standing VALUES(?, ?, ?)", rows)

    # -- kept versions -------------------------------------------------------------------------------------------------

    def add_copy(self, copy: KeptCopy) -> None:
        """Remember a version that is kept outside the tree."""
        row = (copy.id, copy.kind, copy.at, copy.path, str(copy.side), copy.digest, copy.size, copy.stored)
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO copies VALUES(?, ?, ?, ?, ?, ?, ?, ?, NULL)", row)

    def copies(self, *, resolved: bool = False) -> list[KeptCopy]:
        """Return versions kept outside the tree, newest first.

        Args:
            resolved: Also those that somebody dealt with.
        """
        where = "" if resolved else " WHERE resolved IS NULL"
        rows = self._db.execute(
            f"SELECT id, kind, at, path, side, digest, size, stored, resolved FROM copies{where} ORDER BY at DESC, path"
        )
        names = ("id", "kind", "at", "path", "side", "digest", "size", "stored", "resolved")
        return [KeptCopy(**{**dict(zip(names, row, strict=True)), "side": Side(row[4])}) for row in rows]

    def resolve_copy(self, copy_id: str, now: float) -> None:
        """Mark a kept version as dealt with; its bytes stay."""
        with self._transaction() as db:
            db.execute("UPDATE copies SET resolved = ? WHERE id = ?", (now, copy_id))


class _NotOursError(Exception):
    """The file is not a sync database of this version, or it is damaged."""


def _is_whole(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")


def _columns(entry: Entry) -> tuple[str, bytes | None, int | None, int | None, str | None]:
    if isinstance(entry, File):
        return ("f", entry.digest, entry.size, int(entry.executable), None)
    if isinstance(entry, Link):
        return ("l", None, None, None, entry.target)
    return ("d", None, None, None, None)


def _entry(row: tuple[object, ...]) -> Entry:
    _, kind, digest, size, executable, target = row
    if kind == "f" and isinstance(digest, bytes) and len(digest) == 32 and isinstance(size, int):
        return File(digest, size, bool(executable))
    if kind == "l" and isinstance(target, str):
        return Link(target)
    if kind == "d":
        return EMPTY
    raise ValueError("a row of the agreement makes no sense")
