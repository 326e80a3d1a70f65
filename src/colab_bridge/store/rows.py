"""Rows of the tables to values and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from colab_bridge.model.jobs import Notice, NoticeState, Occasion, Schedule
from colab_bridge.model.records import KernelPurpose, KernelRecord, Run, RunKind, RunStatus, Session, SessionState
from colab_bridge.model.runtime import RuntimeHandle

__all__ = [
    "RowError",
    "kernel_from_row",
    "kernel_to_row",
    "notice_from_row",
    "notice_to_row",
    "run_from_row",
    "run_to_row",
    "schedule_from_row",
    "schedule_to_row",
    "session_from_row",
    "session_to_row",
    "text_in",
]

_Choice = TypeVar("_Choice", bound=StrEnum)
Value = str | bytes | int | float | None


class RowError(ValueError):
    """A row that cannot be a value of ours; the text says which column."""


def session_to_row(session: Session) -> dict[str, Value]:
    """Return the columns of a session."""
    return {
        "name": text_in(session.name),
        "project": text_in(session.project),
        "provider": text_in(session.provider),
        "is_default": int(session.default),
        "options": _json_in(session.options),
        "handle": None if session.handle is None else _json_in(_handle_in(session.handle)),
        "state": session.state.value,
        "created_at": session.created_at,
        "chosen_at": session.chosen_at,
    }


def session_from_row(row: sqlite3.Row) -> Session:
    """Return the session of a row.

    Raises:
        RowError: a column cannot be read.
    """
    return Session(
        name=_text(row, "name"),
        project=_text(row, "project"),
        provider=_text(row, "provider"),
        default=bool(_integer(row, "is_default")),
        options=_object(row, "options"),
        handle=None if row["handle"] is None else _handle_out(_object(row, "handle")),
        state=_choice(row, "state", SessionState),
        created_at=_real(row, "created_at"),
        chosen_at=_real(row, "chosen_at"),
    )


def kernel_to_row(kernel: KernelRecord) -> dict[str, Value]:
    """Return the columns of a kernel."""
    return {
        "id": text_in(kernel.id),
        "session": text_in(kernel.session),
        "remote_id": text_in(kernel.remote_id),
        "ws_session_id": text_in(kernel.ws_session_id),
        "purpose": kernel.purpose.value,
        "key": text_in(kernel.key),
        "spec": text_in(kernel.spec),
        "language": text_in(kernel.language),
        "cwd": text_in(kernel.cwd),
        "identity": _json_in(kernel.identity),
        "created_at": kernel.created_at,
    }


def kernel_from_row(row: sqlite3.Row) -> KernelRecord:
    """Return the kernel of a row.

    Raises:
        RowError: a column cannot be read.
    """
    return KernelRecord(
        id=_text(row, "id"),
        session=_text(row, "session"),
        remote_id=_text(row, "remote_id"),
        ws_session_id=_text(row, "ws_session_id"),
        purpose=_choice(row, "purpose", KernelPurpose),
        key=_text(row, "key"),
        spec=_text(row, "spec"),
        language=_text(row, "language"),
        cwd=_text(row, "cwd"),
        identity=_object(row, "identity"),
        created_at=_real(row, "created_at"),
    )


def run_to_row(run: Run) -> dict[str, Value]:
    """Return the columns of a run, without its project."""
    return {
        "id": text_in(run.id),
        "session": text_in(run.session),
        "kernel": text_in(run.kernel),
        "kind": run.kind.value,
        "title": text_in(run.title),
        "spec": _json_in(run.spec),
        "status": run.status.value,
        "first_seq": run.first_seq,
        "exit_code": run.exit_code,
        "output_may_be_lost": text_in(run.output_may_be_lost),
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "progress": _json_in(run.progress),
        "units": run.units,
    }


def run_from_row(row: sqlite3.Row) -> Run:
    """Return the run of a row.

    Raises:
        RowError: a column cannot be read.
    """
    return Run(
        id=_text(row, "id"),
        session=_text(row, "session"),
        kernel=_text(row, "kernel"),
        kind=_choice(row, "kind", RunKind),
        title=_text(row, "title"),
        spec=_object(row, "spec"),
        status=_choice(row, "status", RunStatus),
        first_seq=_integer(row, "first_seq"),
        exit_code=None if row["exit_code"] is None else _integer(row, "exit_code"),
        output_may_be_lost=_text(row, "output_may_be_lost"),
        created_at=_real(row, "created_at"),
        finished_at=None if row["finished_at"] is None else _real(row, "finished_at"),
        progress=_object(row, "progress"),
        units=None if row["units"] is None else _real(row, "units"),
    )


def notice_to_row(notice: Notice) -> dict[str, Value]:
    """Return the columns of a notice."""
    return {
        "id": text_in(notice.id),
        "run": text_in(notice.run),
        "occasion": notice.occasion.value,
        "channel": text_in(notice.channel),
        "state": notice.state.value,
        "subject": text_in(notice.subject),
        "body": _json_in(notice.body),
        "due_at": notice.due_at,
        "tries": notice.tries,
        "created_at": notice.created_at,
    }


def notice_from_row(row: sqlite3.Row) -> Notice:
    """Return the notice of a row.

    Raises:
        RowError: a column cannot be read.
    """
    return Notice(
        id=_text(row, "id"),
        run=_text(row, "run"),
        occasion=_choice(row, "occasion", Occasion),
        channel=_text(row, "channel"),
        state=_choice(row, "state", NoticeState),
        subject=_text(row, "subject"),
        body=_object(row, "body"),
        due_at=_real(row, "due_at"),
        tries=_integer(row, "tries"),
        created_at=_real(row, "created_at"),
    )


def schedule_to_row(schedule: Schedule) -> dict[str, Value]:
    """Return the columns of a schedule."""
    return {
        "id": text_in(schedule.id),
        "project": text_in(schedule.project),
        "title": text_in(schedule.title),
        "rule": text_in(schedule.rule),
        "request": _json_in(schedule.request),
        "created_at": schedule.created_at,
        "next_at": schedule.next_at,
        "last_run": text_in(schedule.last_run),
        "last_due": schedule.last_due,
        "last_error": text_in(schedule.last_error),
    }


def schedule_from_row(row: sqlite3.Row) -> Schedule:
    """Return the schedule of a row.

    Raises:
        RowError: a column cannot be read.
    """
    return Schedule(
        id=_text(row, "id"),
        project=_text(row, "project"),
        title=_text(row, "title"),
        rule=_text(row, "rule"),
        request=_object(row, "request"),
        created_at=_real(row, "created_at"),
        next_at=_real(row, "next_at"),
        last_run=_text(row, "last_run"),
        last_due=_real(row, "last_due"),
        last_error=_text(row, "last_error"),
    )


def text_in(text: str) -> str | bytes:
    """Return what SQLite can store for a text.

    A path on Linux may hold bytes that are no UTF-8, which Python shows as lone surrogates and SQLite's text cannot
    hold; such a text becomes a blob. Equal texts give equal values, so they can be looked up.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _json_in(value: Mapping[str, Any]) -> str:
    # ASCII only, because escapes can say what UTF-8 cannot, lone surrogates.
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _handle_in(handle: RuntimeHandle) -> dict[str, Any]:
    return {
        "provider": handle.provider,
        "id": handle.id,
        "root": handle.root,
        "data": dict(handle.data),
        "label": handle.label,
        "here": handle.here,
        "served": handle.served,
    }


def _handle_out(value: dict[str, Any]) -> RuntimeHandle:
    root, here, served = value.get("root"), value.get("here"), value.get("served")
    data = value.get("data", {})
    names = [value.get("provider"), value.get("id"), value.get("label", "")]
    if (
        not all(isinstance(name, str) for name in names)
        or not isinstance(root, str | None)
        or not isinstance(here, str | None)
        or not isinstance(served, str | None)
        or not isinstance(data, dict)
    ):
        raise RowError("handle")
    provider, identifier, label = map(str, names)
    return RuntimeHandle(provider=provider, id=identifier, root=root, data=data, label=label, here=here, served=served)


def _text(row: sqlite3.Row, column: str) -> str:
    value = row[column]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise RowError(column) from error
    if not isinstance(value, str):
        raise RowError(column)
    return value


def _integer(row: sqlite3.Row, column: str) -> int:
    value = row[column]
    if not isinstance(value, int):
        raise RowError(column)
    return value


def _real(row: sqlite3.Row, column: str) -> float:
    value = row[column]
    if not isinstance(value, (int, float)):
        raise RowError(column)
    return float(value)


def _choice(row: sqlite3.Row, column: str, choices: type[_Choice]) -> _Choice:
    try:
        return choices(row[column])
    except ValueError as error:
        raise RowError(column) from error


def _object(row: sqlite3.Row, column: str) -> dict[str, Any]:
    try:
        value = json.loads(row[column])
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(column) from error
    if not isinstance(value, dict):
        raise RowError(column)
    return value
