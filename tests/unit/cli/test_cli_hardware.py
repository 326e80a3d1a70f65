"""Hardware on the command line, checked before anybody is asked."""

from __future__ import annotations

import pytest

from colab_bridge.cli.target import Target, parse_span
from colab_bridge.cli.terms import terms
from colab_bridge.config.settings import Settings
from colab_bridge.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("0.5H", 1800)]
)
def test_a_span_is_read_in_the_units_of_people(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "2d", "nan", "inf", "1e9", "two hours"])
def test_what_is_no_time_to_wait_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no time to wait"):
        parse_span(text)


def test_options_reach_the_request_as_the_provider_reads_them() -> None:
    target = Target(gpu="a100, t4", high_mem=True, wait="2h", runtime_version="2026.01", budget=5.0, account="a@b")
    assert target.for_session()["options"] == {
        "gpu": "A100,T4",
        "high_mem": True,
        "wait_s": 7200.0,
        "runtime_version": "2026.01",
        "account": "a@b",
        "budget": 5.0,
    }


def test_no_budget_is_a_budget_without_a_limit_and_excludes_one() -> None:
    assert Target(no_budget=True).for_session()["options"] == {"budget": 0.0}
    with pytest.raises(UserError, match="exclude one another"):
        Target(no_budget=True, budget=5.0)


@pytest.mark.parametrize("wrong", [{"gpu": "T5"}, {"gpu": "V28"}, {"tpu": "A100"}, {"gpu": "T4", "tpu": "V28"}])
def test_a_card_that_does_not_exist_is_refused_at_once(wrong: dict[str, str]) -> None:
    with pytest.raises(UserError) as caught:
        Target(**wrong)
    assert caught.value.hint


def test_hardware_is_not_for_a_session_that_exists() -> None:
    with pytest.raises(UserError, match="has its runtime already"):
        Target(session="s", gpu="T4").for_run()


def test_the_terms_are_shown_beside_what_the_settings_do() -> None:
    rows = terms(Settings.model_validate({"colab": {"budget": 7.0, "idle_minutes": 0.0}}))
    here = {row["what"]: row["here"] for row in rows}
    assert here["cost"] == "released after 7 compute units"
    assert here["idle machines"] == "never released by itself"
    assert "only while something runs" in here["keep-alive"]
    assert all(row["terms"] for row in rows)
