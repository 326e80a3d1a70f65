"""A pytest plug-in that lists which rows the collected tests show; used by ``test_sync_rows``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    found: dict[str, list[str]] = {}
    for item in session.items:
        for mark in item.iter_markers("rows"):
            for row in mark.args:
                found.setdefault(row, []).append(item.nodeid.split("[")[0])
    rows = {row: sorted(set(tests)) for row, tests in sorted(found.items())}
    Path(os.environ["SYNC_ROWS_TO"]).write_text(json.dumps(rows), encoding="utf-8")
