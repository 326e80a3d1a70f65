"""Which test files take long: those start first, so that no worker sits over one of them when all others are done.

``make long-files`` measures anew and writes the table. A stale table costs some balance and nothing else: a file that
it does not name counts as short, and a name in it that is gone is ignored.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

__all__ = ["read_table", "seconds_by_file", "table_of"]

TABLE = Path(__file__).with_name("data") / "long-files.txt"
LONG_S = 5.0


def read_table() -> dict[str, float]:
    """Return the seconds of the long files by their paths below the repository."""
    pairs = (line.split() for line in TABLE.read_text(encoding="utf-8").splitlines())
    return {path: float(seconds) for seconds, path in pairs}


def seconds_by_file(report: Path) -> dict[str, float]:
    """Add up a JUnit report: set-up, call and teardown of all tests of a file."""
    seconds: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        parts = case.attrib["classname"].split(".")
        # Parts behind the module are classes.
        module = next(i for i, part in enumerate(parts, 1) if part.startswith("test_"))
        seconds["/".join(parts[:module]) + ".py"] += float(case.attrib["time"])
    return seconds


def table_of(seconds: dict[str, float]) -> str:
    """Return the table, the longest file first."""
    long = sorted((path for path in seconds if seconds[path] >= LONG_S), key=lambda path: (-seconds[path], path))
    return "".join(f"{seconds[path]:4.0f} {path}\n" for path in long)


if __name__ == "__main__":
    TABLE.write_text(table_of(seconds_by_file(Path(sys.argv[1]))), encoding="utf-8")
