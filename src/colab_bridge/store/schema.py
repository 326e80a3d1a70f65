"""The tables, as a list of steps from each version to the next.

A step is never changed once a version with it was published: a new one is added at the end. The number of steps that a
file has seen is its ``user_version``.
"""

from __future__ import annotations

import sqlite3

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "migrate"]

# "CBst"; tells a file of ours from any other SQLite file.
APPLICATION_ID = 0x43427374

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE sessions (
            name TEXT NOT NULL PRIMARY KEY,
            project TEXT NOT NULL,
            provider TEXT NOT NULL,
            is_default INTEGER NOT NULL,
            options TEXT NOT NULL,
            handle TEXT,
            state TEXT NOT NULL,
            created_at REAL NOT NULL
        )""",
        "CREATE INDEX sessions_by_project ON sessions (project)",
        """CREATE TABLE kernels (
            id TEXT NOT NULL PRIMARY KEY,
            session TEXT NOT NULL REFERENCES sessions (name) ON DELETE CASCADE,
            remote_id TEXT NOT NULL,
            ws_session_id TEXT NOT NULL,
            purpose TEXT NOT NULL,
            key TEXT NOT NULL,
            spec TEXT NOT NULL,
            language TEXT NOT NULL,
            cwd TEXT NOT NULL,
            identity TEXT NOT NULL,
            created_at REAL NOT NULL
        )""",
        "CREATE INDEX kernels_by_session ON kernels (session)",
        # No reference to the session: a run stays listed after its session has gone, hence a project of its own.
        """CREATE TABLE runs (
            id TEXT NOT NULL PRIMARY KEY,
            session TEXT NOT NULL,
            project TEXT NOT NULL,
            kernel TEXT NOT NULL,
            kind TEXT NOT NULL,
            title TEXT NOT NULL,
            spec TEXT NOT NULL,
            status TEXT NOT NULL,
            first_seq INTEGER NOT NULL,
            exit_code INTEGER,
            output_may_be_lost TEXT NOT NULL,
            created_at REAL NOT NULL,
            finished_at REAL,
            progress TEXT NOT NULL
        )""",
        "CREATE INDEX runs_by_time ON runs (created_at, id)",
        "CREATE INDEX runs_by_session ON runs (session, created_at, id)",
        "CREATE INDEX runs_by_project ON runs (project, created_at, id)",
        "CREATE INDEX runs_by_status ON runs (status, created_at, id)",
    ),
    (
        """CREATE TABLE notices (
            id TEXT NOT NULL PRIMARY KEY,
            run TEXT NOT NULL,
            occasion TEXT NOT NULL,
            channel TEXT NOT NULL,
            state TEXT NOT NULL,
            subject TEXT NOT NULL,
            body TEXT NOT NULL,
            due_at REAL NOT NULL,
            tries INTEGER NOT NULL,
            created_at REAL NOT NULL
        )""",
        "CREATE INDEX notices_by_state ON notices (state, due_at)",
        """CREATE TABLE schedules (
            id TEXT NOT NULL PRIMARY KEY,
            project TEXT NOT NULL,
            title TEXT NOT NULL,
            rule TEXT NOT NULL,
            request TEXT NOT NULL,
            created_at REAL NOT NULL,
            next_at REAL NOT NULL,
            last_run TEXT NOT NULL,
            last_due REAL NOT NULL,
            last_error TEXT NOT NULL
        )""",
        # How long a piece of code took; the key is a hash of it.
        """CREATE TABLE durations (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL,
            seconds REAL NOT NULL
        )""",
        "CREATE INDEX durations_by_key ON durations (key, id)",
    ),
    ("ALTER TABLE sessions ADD COLUMN chosen_at REAL NOT NULL DEFAULT 0",),
    ("ALTER TABLE runs ADD COLUMN units REAL",),
)

SCHEMA_VERSION = len(_MIGRATIONS)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a database from ``version`` to the newest one, each step in a transaction of its own.

    Raises:
        sqlite3.Error: a step failed; the file is then at the version before it.
    """
    for number, statements in enumerate(_MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
