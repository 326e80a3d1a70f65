"""Who gets which machine, and how each dialect says it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.testing.colab.accounts import TIERS, Account, refusal
from colab_bridge.testing.colab.dialects import (
    internal_listed,
    internal_proxy,
    internal_user,
    public_runtime,
    tunnel_assignment,
    tunnel_listed,
    tunnel_proxy,
    tunnel_units,
)
from colab_bridge.testing.colab.hardware import Ask, Variant, ask_from_query, ask_from_spec, specs
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.refused import RefusedValueError
from colab_bridge.testing.colab.state import Runtime, end_of_life
from colab_bridge.testing.colab.tokens import MintedToken

VERSIONS = ("2026.01", "2025.10")
ASKS = specs()
NUMBERS = {0: "cpu", 1: "gpu", 2: "tpu"}
NAMES = {"DEFAULT": "cpu", "GPU": "gpu", "TPU": "tpu"}
INTERNAL = {"VARIANT_UNSPECIFIED": "cpu", "VARIANT_GPU": "gpu", "VARIANT_TPU": "tpu"}
PUBLIC = {"VARIANT_CPU": "cpu", "VARIANT_GPU": "gpu", "VARIANT_TPU": "tpu"}


def runtime_with(ask: Ask, account: Account) -> Runtime:
    return Runtime(
        endpoint="e",
        id="r-1",
        account=account,
        ask=ask,
        nbh="n" * 44,
        machine=None,  # type: ignore[arg-type]  # no dialect looks at it
        created_at=1000.0,
        active_at=1000.0,
        metered_at=1000.0,
    )


@pytest.mark.parametrize("ask", ASKS, ids=str)
@pytest.mark.parametrize("tier", TIERS)
def test_every_dialect_describes_the_same_machine(ask: Ask, tier: Any) -> None:
    runtime = runtime_with(ask, Account(email="a@example.com", tier=tier))
    token = MintedToken(value="t", ttl_s=3600, expires_at=4600.0)
    tunnel, internal = tunnel_proxy(token, "u"), internal_proxy(token, "u")
    told_get = tunnel_assignment(runtime, tunnel, 5400, answer_to="GET")
    told_post = tunnel_assignment(runtime, tunnel, 5400, answer_to="POST")
    listed = tunnel_listed(runtime, tunnel)
    inside = internal_listed(runtime, internal, VERSIONS[0])
    outside = public_runtime(runtime, token, "u", version=VERSIONS[0], with_endpoint=True)
    spec = outside["runtimeSpec"]

    kinds = {
        NAMES[told_get["variant"]],
        NUMBERS[told_post["variant"]],
        NUMBERS[listed["variant"]],
        INTERNAL[inside["variant"]],
        PUBLIC[spec["variant"]],
    }
    assert kinds == {ask.variant.kind}
    cards = {told_get["accelerator"], told_post["accelerator"], listed["accelerator"], inside["accelerator"]}
    assert cards | {spec["accelerator"]} == {ask.accelerator}
    shapes = {told_get["machineShape"] == 1, told_post["machineShape"] == 1, listed["machineShape"] == 1}
    shapes |= {inside["machineShape"] == "SHAPE_HIGH_MEM", spec["shape"] == "SHAPE_HIGHMEM"}
    assert shapes == {ask.high_memory}
    assert {told_get["endpoint"], listed["endpoint"], inside["endpoint"], outside["connectionInfo"]["endpoint"]} == {
        "e"
    }
    assert inside["runtimeVersionLabel"] == outside["version"] == VERSIONS[0]
    assert told_post["outcome"] == 4
    assert "outcome" not in told_get
    assert (tunnel["tokenExpiresInSeconds"], internal["tokenTtl"]) == (3600, "3600s")
    assert outside["connectionInfo"]["expireTime"] == "1970-01-01T01:16:40Z"


def test_a_subscription_is_told_within_the_ranges_that_clients_accept() -> None:
    for tier in TIERS:
        runtime = runtime_with(Ask(), Account(email="a@example.com", tier=tier))
        told = tunnel_assignment(runtime, {}, 5400, answer_to="POST")
        assert told["sub"] in range(1, 6)
        assert told["subTier"] in {0, 1, 2}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Ask()),
        ({"variant": "DEFAULT", "accelerator": "NONE"}, Ask()),
        ({"variant": "GPU", "accelerator": "T4"}, Ask(variant=Variant.GPU, accelerator="T4")),
        ({"variant": "GPU"}, Ask(variant=Variant.GPU, accelerator="T4")),
        (
            {"variant": "GPU", "accelerator": "A100", "shape": "hm"},
            Ask(variant=Variant.GPU, accelerator="A100", high_memory=True),
        ),
        ({"variant": "GPU", "accelerator": "L4"}, Ask(variant=Variant.GPU, accelerator="L4", high_memory=True)),
        ({"shape": "hm"}, Ask(high_memory=True)),
        ({"runtime_version_label": "2025.10", "nsa": "1"}, Ask(version="2025.10")),
    ],
)
def test_parameters_of_assign_are_understood(query: dict[str, str], expected: Ask) -> None:
    assert ask_from_query(query, VERSIONS) == expected


@pytest.mark.parametrize(
    "query",
    [
        {"variant": "gpu"},
        {"variant": "1"},
        {"variant": "GPU", "accelerator": "t4"},
        {"variant": "GPU", "accelerator": "V28"},
        {"accelerator": "T4"},
        {"variant": "GPU", "accelerator": "B200"},
        {"variant": "GPU", "accelerator": "L4", "shape": "hm"},
        {"variant": "TPU", "accelerator": "V5E1", "shape": "hm"},
        {"shape": "standard"},
        {"runtime_version_label": "1999.01"},
    ],
)
def test_parameters_that_no_client_sends_are_refused(query: dict[str, str]) -> None:
    with pytest.raises(RefusedValueError) as caught:
        ask_from_query(query, VERSIONS)
    assert caught.value.expected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"runtimeSpec": []},
        {"runtimeSpec": {"variant": "GPU", "accelerator": "T4"}},
        {"runtimeSpec": {"variant": "VARIANT_UNSPECIFIED"}},
        {"runtimeSpec": {"variant": "VARIANT_GPU", "accelerator": "NONE"}},
        {"runtimeSpec": {"variant": "VARIANT_GPU", "accelerator": "T4", "shape": "hm"}},
        {"runtimeSpec": {"variant": "VARIANT_GPU", "accelerator": "L4", "shape": "SHAPE_STANDARD"}},
        {"runtimeSpec": {"variant": "VARIANT_CPU"}, "version": "1999.01"},
    ],
)
def test_specs_that_do_not_exist_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RefusedValueError):
        ask_from_spec(body, VERSIONS)


@pytest.mark.parametrize("ask", ASKS, ids=str)
def test_every_listed_spec_can_be_asked_for(ask: Ask) -> None:
    shape = "SHAPE_HIGHMEM" if ask.high_memory else "SHAPE_STANDARD"
    body = {"runtimeSpec": {"variant": ask.variant.public, "accelerator": ask.accelerator, "shape": shape}}
    assert ask_from_spec(body, VERSIONS) == ask


T4 = Ask(variant=Variant.GPU, accelerator="T4")
H100 = Ask(variant=Variant.GPU, accelerator="H100", high_memory=True)
HIGH = Ask(high_memory=True)


@pytest.mark.parametrize(
    ("ask", "account", "active", "left", "expected"),
    [
        (T4, {}, 0, None, None),
        (T4, {"denylisted": True}, 0, None, "denylisted"),
        (H100, {}, 0, None, "not_entitled"),
        (H100, {"eligible": frozenset({"H100"})}, 0, None, None),
        (HIGH, {"tier": "free"}, 0, None, "not_entitled"),
        (HIGH, {}, 0, None, None),
        (T4, {"paid_units": 0.0}, 0, None, "usage_time"),
        (T4, {"paid_units": 0.0, "free_milli_units": 1.0}, 0, None, None),
        (T4, {"max_runtimes": 1}, 1, None, "too_many"),
        (T4, {}, 0, 0, "capacity"),
        (T4, {}, 0, 1, None),
        (T4, {"denylisted": True, "max_runtimes": 0}, 3, 0, "denylisted"),
    ],
)
def test_the_reason_of_a_refusal(
    ask: Ask, account: dict[str, Any], active: int, left: int | None, expected: str | None
) -> None:
    assert refusal(ask, Account(email="a@example.com", **account), active=active, left=left) == expected


def test_what_an_account_may_have_is_told_alike_by_both_services() -> None:
    account = Account(email="a@example.com", tier="pro")
    tunnel = tunnel_units(account, count=0, rate=0.0)
    internal = internal_user(account, consumption=False, count=0, rate=0.0, refill_at=0.0)
    models = {entry["variant"]: entry["models"] for entry in internal["eligibleAccelerators"]}
    assert models == {"VARIANT_GPU": tunnel["eligibleGpus"], "VARIANT_TPU": tunnel["eligibleTpus"]}
    assert set(models["VARIANT_GPU"]) == {"T4", "L4", "A100"}
    assert "consumptionRateHourly" not in internal


def test_free_units_are_a_string_and_only_there_without_paid_ones() -> None:
    account = Account(email="a@example.com", tier="free", paid_units=0.0, free_milli_units=24_500.0)
    told = internal_user(account, consumption=True, count=1, rate=1.76, refill_at=1788300000.0)
    assert told["freeCcuQuotaInfo"] == {"remainingTokens": "24500", "nextRefillTimestampSec": 1788300000}
    account.paid_units = 1.0
    assert "freeCcuQuotaInfo" not in internal_user(account, consumption=True, count=1, rate=1.76, refill_at=0.0)


@given(paid=st.floats(0, 1e6), free=st.floats(0, 1e6), units=st.floats(0, 1e6))
def test_units_never_go_below_zero_and_paid_ones_go_first(paid: float, free: float, units: float) -> None:
    account = Account(email="a@example.com", paid_units=paid, free_milli_units=free)
    account.spend(units)
    assert account.paid_units >= 0
    assert account.free_milli_units >= 0
    assert account.free_milli_units == free or account.paid_units == pytest.approx(0, abs=1e-6)


@given(
    pings=st.lists(st.floats(0, 100_000), max_size=20),
    idle=st.floats(1, 10_000),
    life=st.floats(1, 100_000),
)
def test_a_runtime_ends_when_it_is_idle_or_old_whichever_is_first(pings: list[float], idle: float, life: float) -> None:
    options = EmulatorOptions(idle_timeout_s=idle, life_s=life)
    runtime = runtime_with(Ask(), Account(email="a@example.com"))
    for later in itertools.accumulate(pings):
        at, _ = end_of_life(runtime, options)
        if 1000.0 + later >= at:
            break
        runtime.active_at = 1000.0 + later
    at, why = end_of_life(runtime, options)
    assert at <= 1000.0 + life
    assert at <= runtime.active_at + idle
    assert at == (runtime.active_at + idle if why == "idle" else 1000.0 + life)


@pytest.mark.parametrize(("tier", "hours"), [("free", 12), ("pro", 24), ("pro_plus", 24)])
def test_the_longest_life_depends_on_the_subscription(tier: Any, hours: int) -> None:
    runtime = runtime_with(Ask(), Account(email="a@example.com", tier=tier))
    assert end_of_life(runtime, EmulatorOptions(idle_timeout_s=1e9)) == (1000.0 + hours * 3600, "life")


def test_emails_have_account_numbers_of_21_digits_that_stay() -> None:
    numbers = {Account(email=f"{n}@example.com").id for n in range(50)}
    assert len(numbers) == 50
    assert all(len(number) == 21 and number.isdecimal() for number in numbers)
    assert Account(email="a@example.com").id == Account(email="a@example.com", tier="free").id
