"""Every error that crosses a layer of Colab Bridge.

The tree is split by what the caller can do about it::

    ColabBridgeError
    ├── UserError           fix the input
    ├── AuthError           sign in, or give another token
    ├── QuotaError          wait, or pay
    ├── TransientError      try again (``retry_after_s``)
    ├── RuntimeLostError    the machine or the kernel is gone: recover
    ├── ConflictError       two versions or two owners: ask
    └── InternalError       a defect of ours: report it

Each class carries a stable ``code``, a one-line ``message`` and a one-line ``hint`` that names the fix. Adapters
translate foreign exceptions once, where they occur. The daemon sends an error as a problem document (RFC 9457
members plus ``code`` and ``hint``), from which :func:`from_problem` builds the same class again on the other side.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AuthError",
    "ColabBridgeError",
    "ConflictError",
    "InternalError",
    "QuotaError",
    "RuntimeLostError",
    "TransientError",
    "UserError",
    "from_problem",
]


class ColabBridgeError(Exception):
    """Base of all errors that a user may see.

    Args:
        message: What happened, one line, no full stop needed.
        hint: The next thing to do, one line; shown last.
        code: Stable identifier such as ``CB-USER-004``; the class default when omitted.
    """

    default_code: ClassVar[str] = "CB-000"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def to_problem(self) -> dict[str, Any]:
        """Return the JSON-ready problem document for this error."""
        return {
            "type": f"about:blank#{self.code}",
            "title": type(self).__name__,
            "status": self.http_status,
            "detail": self.message,
            "code": self.code,
            "hint": self.hint,
        }


class UserError(ColabBridgeError):
    """The request cannot be carried out as it was given."""

    default_code = "CB-USER"
    exit_status = 2
    http_status = 422


class AuthError(ColabBridgeError):
    """A server refused our credentials, or there are none."""

    default_code = "CB-AUTH"
    exit_status = 77
    http_status = 502


class QuotaError(ColabBridgeError):
    """A limit of the account or of the machine was reached."""

    default_code = "CB-QUOTA"
    exit_status = 75
    http_status = 429


class TransientError(ColabBridgeError):
    """Something did not answer; the same call may succeed later.

    Args:
        retry_after_s: Seconds after which a new try makes sense; None when unknown.
    """

    default_code = "CB-TRANSIENT"
    exit_status = 75
    http_status = 503

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after_s = retry_after_s

    def to_problem(self) -> dict[str, Any]:
        """Return the problem document, with ``retry_after_s`` when it is known."""
        problem = super().to_problem()
        if self.retry_after_s is not None:
            problem["retry_after_s"] = self.retry_after_s
        return problem


class RuntimeLostError(ColabBridgeError):
    """A runtime or a kernel that was there is there no more."""

    default_code = "CB-LOST"
    exit_status = 69
    http_status = 410


class ConflictError(ColabBridgeError):
    """Two owners or two versions collide, and a person has to choose."""

    default_code = "CB-CONFLICT"
    exit_status = 73
    http_status = 409


class InternalError(ColabBridgeError):
    """A defect in Colab Bridge."""

    default_code = "CB-INTERNAL"
    exit_status = 70
    http_status = 500


_BY_TITLE = {
    cls.__name__: cls
    for cls in (UserError, AuthError, QuotaError, TransientError, RuntimeLostError, ConflictError, InternalError)
}


def from_problem(problem: dict[str, Any]) -> ColabBridgeError:
    """Rebuild the error that :meth:`ColabBridgeError.to_problem` described.

    Args:
        problem: A decoded problem document; unknown titles become :class:`InternalError`.

    Returns:
        The error, ready to be raised.
    """
    cls = _BY_TITLE.get(str(problem.get("title")), InternalError)
    message = str(problem.get("detail") or "the daemon reported an error without a text")
    hint = str(problem.get("hint") or "")
    code = str(problem["code"]) if problem.get("code") else None
    if cls is TransientError:
        retry = problem.get("retry_after_s")
        return TransientError(message, hint=hint, code=code, retry_after_s=float(retry) if retry is not None else None)
    return cls(message, hint=hint, code=code)
