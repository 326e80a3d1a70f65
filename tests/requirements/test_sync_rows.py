"""The sync's scenario table is covered, row by row, by tests that go through the controller."""

from __future__ import annotations

import pytest
from sync_rows import NOT_SHOWN, ROWS, THROUGH, seen

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def tests() -> dict[str, list[str]]:
    return seen()


def test_each_row_has_a_test_that_goes_through_the_controller(tests: dict[str, list[str]]) -> None:
    shown = {row for row, found in tests.items() if any(folder in test for test in found for folder in THROUGH)}
    assert sorted(ROWS.keys() - shown - NOT_SHOWN.keys()) == []


def test_each_id_that_a_test_carries_is_a_row(tests: dict[str, list[str]]) -> None:
    assert sorted(tests.keys() - ROWS.keys()) == []


def test_a_row_without_a_test_has_a_reason_and_one_with_a_test_has_none(tests: dict[str, list[str]]) -> None:
    assert NOT_SHOWN.keys() <= ROWS.keys()
    assert NOT_SHOWN.keys() & tests.keys() == set()
    assert all(ROWS.values())
