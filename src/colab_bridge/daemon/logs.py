"""The daemon's log: one line per event on stderr, which its starter sends to ``daemon.log``."""

from __future__ import annotations

import logging
import re

__all__ = ["configure_logging"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
#: A name that promises a secret, what separates it, the scheme of an ``Authorization`` header; then the secret.
_SECRET = re.compile(
    r"(?i)((?:token|authorization|bearer|secret|password)[\"'=: ]+(?:(?:bearer|token|basic)[ =]+)?)([^\s\"'&]{6,})"
)
_USER_INFO = re.compile(r"(://[^\s/@:]*:)[^\s/@]+@")


class _Formatter(logging.Formatter):
    """Time, level, logger, text, then the event's own fields; secrets masked as a second net."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = " ".join(f"{key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
        line = super().format(record)
        text = _SECRET.sub(r"\1***", f"{line}  {fields}" if fields else line)
        return _USER_INFO.sub(r"\1***@", text)


def configure_logging() -> None:
    """Send all logging to stderr in our format."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx2", "httpcore2", "uvicorn.error", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
