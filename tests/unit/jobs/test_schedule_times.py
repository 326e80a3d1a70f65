"""When schedules are due, also in the nights in which the clocks change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.errors import UserError
from colab_bridge.execution.schedules.timing import LocalZone, Rule, next_time, parse_rule

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kolkata"), UTC]
HOUR = 3600


def at(text: str, zone: tzinfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def shown(moment: float, zone: tzinfo = BERLIN) -> str:
    return f"{datetime.fromtimestamp(moment, zone):%Y-%m-%d %H:%M}"


def times(rule: str, after: float, count: int, zone: tzinfo = BERLIN, anchor: float | None = None) -> list[str]:
    found = []
    for _ in range(count):
        after = next_time(parse_rule(rule), anchor if anchor is not None else after, after, zone)
        found.append(shown(after, zone))
    return found


# -- what can be written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("every 30m", Rule(every_s=1800)),
        ("every 1h", Rule(every_s=3600)),
        ("every 1d", Rule(every_s=86_400)),
        ("every 2 w", Rule(every_s=1_209_600)),
        ("cron 0 7 * * 1-5", Rule(cron="0 7 * * 1-5")),
        ("  cron   */5  *  * * mon ", Rule(cron="*/5 * * * mon")),
    ],
)
def test_rules_as_people_write_them(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", "every", "every 0m", "every -1h", "every 1.5h", "every 400d", "every 1y", "every 99999999999999h",
        "cron", "cron * * * *", "cron * * * * * *", "cron 60 * * * *", "cron 0 0 30 2 *", "cron a b c d e",
        "cron " + "1," * 500 + "1 * * * *", "at 7", "30m", "cron @daily", "cron 0 0 * * ²L",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_said_with_an_example(text: str) -> None:
    with pytest.raises(UserError) as found:
        parse_rule(text)
    assert "\n" not in found.value.message
    assert "for example" in found.value.hint


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_rule_or_a_users_error(text: str) -> None:
    for kind in ("every ", "cron ", ""):
        try:
            rule = parse_rule(kind + text)
        except UserError:
            continue
        assert parse_rule(rule.text()) == rule


@given(st.integers(1, 366 * 86_400))
def test_a_rule_is_stored_as_text_that_means_the_same(seconds: int) -> None:
    assert parse_rule(Rule(every_s=seconds).text()) == Rule(every_s=seconds)


# -- nights in which the clocks change -------------------------------------------------------------------------


def test_a_daily_time_stays_where_it_is_over_both_changes() -> None:
    assert times("cron 0 7 * * *", at("2026-03-28T00:00"), 3) == [
        "2026-03-28 07:00", "2026-03-29 07:00", "2026-03-30 07:00",
    ]  # fmt: skip
    assert times("cron 0 7 * * *", at("2026-10-24T00:00"), 3)[1:] == ["2026-10-25 07:00", "2026-10-26 07:00"]


def test_a_time_that_the_clocks_skip_comes_right_after_the_gap() -> None:
    assert times("cron 30 2 * * *", at("2026-03-28T12:00"), 2) == ["2026-03-29 03:00", "2026-03-30 02:30"]


def test_a_time_that_comes_twice_counts_once_also_when_asked_between_the_two() -> None:
    assert times("cron 30 2 * * *", at("2026-10-24T12:00"), 2) == ["2026-10-25 02:30", "2026-10-26 02:30"]
    between = at("2026-10-25T02:10", fold=1)
    assert times("cron 30 2 * * *", between, 1) == ["2026-10-26 02:30"]


def test_an_interval_of_a_day_keeps_its_time_of_day() -> None:
    anchor = at("2026-03-27T09:15")
    assert times("every 1d", anchor, 3, anchor=anchor) == ["2026-03-28 09:15", "2026-03-29 09:15", "2026-03-30 09:15"]


def test_an_interval_of_hours_counts_the_hours_that_pass() -> None:
    anchor = at("2026-03-28T23:00")
    assert times("every 2h", anchor, 2, anchor=anchor) == ["2026-03-29 01:00", "2026-03-29 04:00"]


_moments = st.floats(at("2024-01-01T00:00", UTC), at("2030-01-01T00:00", UTC))
_fields = st.tuples(
    st.sampled_from(["0", "30", "*/15", "5,35", "*"]),
    st.sampled_from(["*", "*/2", "1", "2", "3", "0-4"]),
    st.sampled_from(["*", "1", "25-31"]),
    st.sampled_from(["*", "3", "10", "4,11"]),
    st.sampled_from(["*", "SUN", "1-5"]),
).map(lambda fields: Rule(cron=" ".join(fields)))
_rules = st.one_of(_fields, st.integers(1, 40 * 86_400).map(lambda s: Rule(every_s=s)),
                   st.integers(1, 40).map(lambda days: Rule(every_s=days * 86_400)))  # fmt: skip


@given(_rules, _moments, st.floats(0, 90 * 86_400), st.sampled_from(ZONES))
@settings(max_examples=300, deadline=None)
def test_times_always_go_forward_and_asking_later_never_finds_an_earlier_one(
    rule: Rule, anchor: float, passed: float, zone: tzinfo
) -> None:
    after = anchor + passed
    first = next_time(rule, anchor, after, zone)
    assert first > after
    halfway = after + (first - after) / 2
    assert next_time(rule, anchor, halfway, zone) == pytest.approx(first, abs=0.001)
    assert next_time(rule, anchor, first, zone) > first


@given(_moments, st.sampled_from(ZONES), st.integers(0, 23), st.integers(0, 59))
@settings(max_examples=300, deadline=None)
def test_a_daily_rule_comes_once_on_each_day(start: float, zone: tzinfo, hour: int, minute: int) -> None:
    rule = Rule(cron=f"{minute} {hour} * * *")
    moment, days = start, []
    for _ in range(10):
        moment = next_time(rule, start, moment, zone)
        days.append(datetime.fromtimestamp(moment, zone).date())
    assert days == [days[0] + timedelta(days=n) for n in range(10)]


# -- this machine's own zone -----------------------------------------------------------------------------------


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
def zone_of_this_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    if not hasattr(time, "tzset"):
        pytest.skip("a process cannot change its time zone on Windows")
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield ZoneInfo(request.param)
    monkeypatch.undo()
    time.tzset()


def test_the_local_zone_has_the_rules_of_the_system(zone_of_this_machine: ZoneInfo) -> None:
    local, start = LocalZone(), at("2026-01-01T00:00", UTC)
    for quarter in range(0, 366 * 24 * 4, 7):
        moment = start + quarter * 900
        mine, theirs = datetime.fromtimestamp(moment, local), datetime.fromtimestamp(moment, zone_of_this_machine)
        assert (mine.replace(tzinfo=None), mine.fold) == (theirs.replace(tzinfo=None), theirs.fold)
        assert mine.timestamp() == moment


def test_rules_in_the_local_zone_are_due_when_they_are_in_the_named_one(zone_of_this_machine: ZoneInfo) -> None:
    for rule in (Rule(cron="30 2 * * *"), Rule(cron="0 * * * *"), Rule(every_s=86_400), Rule(every_s=7200)):
        moment = anchor = at("2026-03-01T02:30", UTC)
        for _ in range(300):
            expected = next_time(rule, anchor, moment, zone_of_this_machine)
            assert next_time(rule, anchor, moment, LocalZone()) == expected
            moment = expected
