"""Opening the database file: permissions, checks, and what to do with a file that cannot be used."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from colab_bridge.errors import ColabBridgeError, InternalError, TransientError, UserError
from colab_bridge.ports.clock import Clock
from colab_bridge.store.schema import APPLICATION_ID, SCHEMA_VERSION, migrate

__all__ = ["open_database", "translated"]

# Files that SQLite keeps beside the database; they belong to it and move with it.
_COMPANIONS = ("-wal", "-shm", "-journal")
# One process writes; this bounds the wait for a predecessor that is just dying, or for a curious user with a sqlite3
# shell.
_BUSY_TIMEOUT_S = 5.0
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class _UnusableError(Exception):
    """The file can never be used as it is; the text says why."""


def open_database(path: Path, clock: Clock, notices: list[str]) -> sqlite3.Connection:
    """Open the database, make it when there is none, and put a file that cannot be used aside.

    Args:
        path: The file; its folder is made (0700) when absent.
        clock: Wall time, for the name of a file put aside.
        notices: Gets one line for each file put aside.

    Returns:
        A connection in autocommit mode, at the newest schema.

    Raises:
        TransientError: another process holds the file, or the disk is full.
        UserError: the folder or the file may not be used.
    """
    with translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        orphans = [Path(f"{path}{suffix}") for suffix in _COMPANIONS if os.path.lexists(f"{path}{suffix}")]
        if path.exists():
            try:
                return _open_existing(path)
            except _UnusableError as error:
                _put_aside(path, str(error), clock, notices)
        elif orphans:
            _put_aside(path, "was missing while files that belong to it were there", clock, notices)
        _create(path)
        return _open_existing(path)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into ours; broken rules of the schema pass."""
    try:
        yield
    except sqlite3.IntegrityError:
        # A rule of the schema was broken; only the caller knows what that means.
        raise
    except sqlite3.Error as error:
        raise _translate(path, error) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be used: {error.strerror or error}", hint=f"Check the permissions of {path.parent}."
        ) from error


def _translate(path: Path, error: sqlite3.Error) -> ColabBridgeError:
    code = _primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TransientError(f"{path} is in use by another program", hint="Close that program and try again.")
    if code == sqlite3.SQLITE_FULL:
        return TransientError(
            f"{path} cannot be written: the disk is full", hint="Make room on the disk and try again."
        )
    if code in _DAMAGE:
        return InternalError(
            f"{path} is damaged", hint="Run `colab-bridge daemon stop`; the next start puts the file aside and goes on."
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return UserError(
            f"{path} cannot be used: {error}", hint=f"Check the permissions and the disk of {path.parent}."
        )
    return InternalError(f"the state database refused a statement: {error}", hint="Please report this.")


def _primary_code(error: sqlite3.Error) -> int | None:
    # Errors that the Python module raises by itself carry no code.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _open_existing(path: Path) -> sqlite3.Connection:
    """Open, check and migrate a file that is there.

    Raises:
        _UnusableError: it is not ours, damaged, or of a newer version.
        sqlite3.Error: it cannot be opened now.
    """
    if path.stat().st_size == 0:
        raise _UnusableError("was empty")
    _restrict(path)
    connection = _connect(path)
    try:
        version = _checked_version(connection)
        migrate(connection, version)
    except sqlite3.Error as error:
        connection.close()
        if _primary_code(error) in _DAMAGE:
            raise _UnusableError("was damaged") from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    # Autocommit: each statement of ours is a transaction of its own.
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _checked_version(connection: sqlite3.Connection) -> int:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID or version < 1:
        raise _UnusableError("was not made by Colab Bridge")
    if version > SCHEMA_VERSION:
        raise _UnusableError(
            f"was made by a newer version of Colab Bridge (schema {version}, this one knows {SCHEMA_VERSION})"
        )
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise _UnusableError("was damaged")
    return version


def _create(path: Path) -> None:
    """Make a complete new file under another name and rename it, so that a kill leaves no half of one."""
    fresh = Path(f"{path}.new")
    for suffix in ("", *_COMPANIONS):
        Path(f"{fresh}{suffix}").unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(_connect(fresh)) as connection:
        migrate(connection, 0)
    os.replace(fresh, path)


def _restrict(path: Path) -> None:
    """Take the rights of others away; the files beside it get the same bits from SQLite."""
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _put_aside(path: Path, reason: str, clock: Clock, notices: list[str]) -> None:
    stamp = datetime.fromtimestamp(clock.time(), UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = Path(f"{path}.damaged-{stamp}")
    number = 1
    while any(os.path.lexists(f"{aside}{suffix}") for suffix in ("", *_COMPANIONS)):
        number += 1
        aside = Path(f"{path}.damaged-{stamp}-{number}")
    for suffix in ("", *_COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    notices.append(
        f"{path.name} {reason} and has been moved to {aside.name}; sessions made before are not known any more"
    )
