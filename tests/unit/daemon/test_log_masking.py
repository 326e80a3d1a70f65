"""No secret reaches the daemon's log, however it got into a message."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from colab_bridge.daemon.logs import _Formatter

SECRET = "s3cr3t-v4lue-0123"


def line(message: str, *args: Any, **extra: Any) -> str:
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, message, args, None)
    vars(record).update(extra)
    return _Formatter("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    "text",
    [
        f"token={SECRET}",
        f"GET http://h:1/api?token={SECRET}&x=1",
        f"Authorization: Bearer {SECRET}",
        f"authorization: token {SECRET}",
        f"Authorization: Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f'{{"token": "{SECRET}"}}',
        f"password: {SECRET}",
        f"access_token='{SECRET}'",
        f"client_secret = {SECRET}",
        f"bearer {SECRET}",
        f"https://ada:{SECRET}@host/x",
    ],
)
def test_a_secret_is_masked_and_the_rest_stays(text: str) -> None:
    masked = line("before " + text + " after")
    assert SECRET not in masked
    assert "***" in masked
    assert masked.startswith("INFO before ")
    assert masked.endswith(" after")


def test_arguments_and_fields_are_masked_too() -> None:
    assert SECRET not in line("said %s", f"token={SECRET}", url=f"http://h/?token={SECRET}")


def test_a_field_whose_name_says_that_it_is_secret_is_masked() -> None:
    assert SECRET not in line("x", token=SECRET)


def test_a_traceback_is_masked() -> None:
    try:
        raise ValueError(f"http://h/?token={SECRET}")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "m", (), (ValueError, error, error.__traceback__))
    assert SECRET not in _Formatter("%(message)s").format(record)


def test_what_is_no_secret_stays() -> None:
    assert line("kernel ended", kernel="k-1", took_ms=3) == "INFO kernel ended  kernel=k-1 took_ms=3"
