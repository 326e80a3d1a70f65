"""Answers of Colab's control planes, read."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.errors import InternalError
from colab_bridge.model.hardware import CPU, Hardware
from colab_bridge.providers.colab import dialects
from colab_bridge.providers.colab.foreign import Fields, ProtocolChangedError, jwt_claims, parse_document
from colab_bridge.providers.colab.values import Assignment, Ticket, is_endpoint_id, nbh_of

PROXY = {"token": "eyJ.x.y", "tokenExpiresInSeconds": 3600, "url": "https://8080-gpu-t4-s-1.prod.colab.dev/"}
TUN = {"accelerator": "T4", "endpoint": "gpu-t4-s-1", "variant": 1, "machineShape": 0, "runtimeProxyInfo": PROXY}
GAPI = {
    "endpoint": "gpu-t4-s-1",
    "accelerator": "T4",
    "variant": "VARIANT_GPU",
    "machineShape": "SHAPE_DEFAULT",
    "runtimeProxyInfo": {"token": "eyJ.x.y", "tokenTtl": "3600s", "url": "https://8080-gpu-t4-s-1.prod.colab.dev"},
    "runtimeVersionLabel": "2026.01",
    "notebookIdHash": "123e4567_e89b_42d3_a456_426614174000........",
}
NOW = 1_788_256_800.0  # 2026-09-01T10:00:00Z


def fields(value: object, where: str = "assign") -> Fields:
    return parse_document(where, json.dumps(value).encode())


def test_the_notebook_hash_is_the_uuid_with_underscores_and_dots_to_44_characters() -> None:
    assert nbh_of("123e4567-e89b-42d3-a456-426614174000") == "123e4567_e89b_42d3_a456_426614174000........"


@pytest.mark.parametrize("prefix", [b"", b")]}'\n", b")]}'"])
def test_a_document_is_read_with_and_without_googles_prefix(prefix: bytes) -> None:
    assert parse_document("x", prefix + b'{"a": 1}').number("a") == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b'{"a":', b"\xff"])
def test_what_is_no_json_object_is_a_protocol_that_changed(body: bytes) -> None:
    with pytest.raises(ProtocolChangedError, match=r"protocol changed: assign\.\(body\)"):
        parse_document("assign", body)


def test_a_get_without_a_runtime_gives_a_ticket() -> None:
    found = dialects.read_assign(fields({"acc": "T4", "nbh": "x", "p": False, "token": "xsrf-1", "variant": "GPU"}))
    assert isinstance(found, Ticket)
    assert found.xsrf.reveal() == "xsrf-1"


@pytest.mark.parametrize(
    ("answer", "hardware"),
    [
        (TUN, Hardware(kind="gpu", accelerator="T4")),
        (GAPI, Hardware(kind="gpu", accelerator="T4")),
        (TUN | {"variant": "GPU", "machineShape": 1}, Hardware(kind="gpu", accelerator="T4", high_memory=True)),
        (GAPI | {"machineShape": "SHAPE_HIGH_MEM"}, Hardware(kind="gpu", accelerator="T4", high_memory=True)),
        (TUN | {"variant": 0, "accelerator": "NONE"}, CPU),
        (TUN | {"variant": "DEFAULT", "accelerator": "NONE"}, CPU),
        (GAPI | {"variant": "VARIANT_UNSPECIFIED", "accelerator": "NONE"}, CPU),
        (TUN | {"variant": 2, "accelerator": "V28"}, Hardware(kind="tpu", accelerator="V28")),
        (TUN | {"variant": 1, "accelerator": "b300"}, Hardware(kind="gpu", accelerator="B300")),
        (TUN | {"variant": 9, "accelerator": "L4"}, Hardware(kind="gpu", accelerator="L4")),
        (TUN | {"variant": None, "accelerator": None}, None),
        (TUN | {"variant": "VARIANT_QUANTUM", "accelerator": "Q1"}, Hardware(kind="gpu", accelerator="Q1")),
    ],
)
def test_both_dialects_and_names_that_are_new_become_one_hardware(
    answer: dict[str, object], hardware: Hardware | None
) -> None:
    assert dialects.read_assignment(fields(answer), NOW).hardware == hardware


def test_the_way_in_has_its_life_in_seconds_and_no_slash_at_the_end() -> None:
    for answer in (TUN, GAPI):
        proxy = dialects.read_assignment(fields(answer), NOW).proxy
        assert proxy is not None
        assert (proxy.url, proxy.ttl_s) == ("https://8080-gpu-t4-s-1.prod.colab.dev", 3600)


@pytest.mark.parametrize("ttl", ["", "0s", "-5s", "3600", "soon", "1e99s", "99999999999s"])
def test_a_life_that_makes_no_sense_is_an_hour(ttl: str) -> None:
    proxy = {"token": "t", "tokenTtl": ttl, "url": "https://h"}
    assert dialects.read_proxy(fields(proxy), NOW).ttl_s == dialects.DEFAULT_TTL_S


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", None),
        ("endpoint", ""),
        ("endpoint", "../../etc"),
        ("endpoint", "a/b"),
        ("endpoint", "a?b"),
        ("endpoint", 7),
    ],
)
def test_a_runtime_without_a_usable_id_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ProtocolChangedError, match=rf"assign\.{field}$"):
        dialects.read_assignment(fields(TUN | {field: value}), NOW)


@pytest.mark.parametrize(
    ("proxy", "field"),
    [
        ({"token": "t"}, "url"),
        ({"url": "https://h"}, "token"),
        ({"url": "http://h.example", "token": "t"}, "url"),
        ({"url": "https://u:p@h", "token": "t"}, "url"),
        ({"url": "https://h?x=1", "token": "t"}, "url"),
        ({"url": "file:///etc/passwd", "token": "t"}, "url"),
        ({"url": "https://h", "token": "a\r\nX-Evil: 1"}, "token"),
        ({"url": "https://h", "token": "ü"}, "token"),
    ],
)
def test_a_way_in_that_is_none_names_the_field(proxy: dict[str, str], field: str) -> None:
    with pytest.raises(ProtocolChangedError, match=rf"assign\.runtimeProxyInfo\.{field}$") as caught:
        dialects.read_assignment(fields(TUN | {"runtimeProxyInfo": proxy}), NOW)
    assert isinstance(caught.value, InternalError)


def test_one_entry_that_cannot_be_read_does_not_hide_the_others() -> None:
    answer = fields({"assignments": [{"strange": 1}, TUN, 5, GAPI | {"endpoint": "m-s-2"}]}, "assignments")
    assert [each.endpoint for each in dialects.read_assignments(answer, NOW)] == ["gpu-t4-s-1", "m-s-2"]


def test_a_listing_in_which_nothing_can_be_read_is_not_an_empty_one() -> None:
    # Holds together with "gone only when a listing lacks it": drift must not look like loss.
    with pytest.raises(ProtocolChangedError, match=r"assignments\.assignments\[\]\.endpoint"):
        dialects.read_assignments(fields({"assignments": [{"id": "renamed"}]}, "assignments"), NOW)


@pytest.mark.parametrize("answer", [{}, {"assignments": []}, {"assignments": None}])
def test_an_account_without_runtimes_has_an_empty_listing(answer: dict[str, object]) -> None:
    assert dialects.read_assignments(fields(answer), NOW) == []


def test_a_runtime_of_the_public_api_has_name_hardware_and_the_time_that_is_left() -> None:
    connection = {
        "endpoint": "gpu-t4-s-1",
        "url": "https://8080-x",
        "token": "t",
        "expireTime": "2026-09-01T11:00:00Z",
    }
    spec = {"variant": "VARIANT_GPU", "accelerator": "T4", "shape": "SHAPE_HIGHMEM"}
    answer = {"name": "runtimes/r-1", "runtimeSpec": spec, "version": "2026.01", "connectionInfo": connection}

    found = dialects.read_runtime(fields(answer), NOW)

    assert (found.name, found.endpoint, found.version) == ("runtimes/r-1", "gpu-t4-s-1", "2026.01")
    assert found.hardware == Hardware(kind="gpu", accelerator="T4", high_memory=True)
    assert found.proxy is not None
    assert found.proxy.ttl_s == 3600


def test_an_id_that_the_public_api_withholds_is_read_from_the_token() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"aud": "gpu-t4-s-9", "exp": 1, "port": 8080}).encode()).decode()
    connection = {"url": "https://8080-x", "token": f"eyJ.{claims.rstrip('=')}.sig"}
    found = dialects.read_runtime(fields({"name": "runtimes/r-1", "connectionInfo": connection}), NOW)
    assert (found.endpoint, found.id) == ("gpu-t4-s-9", "gpu-t4-s-9")


def test_without_any_id_of_the_machine_the_resource_names_it() -> None:
    assert dialects.read_runtime(fields({"name": "runtimes/r-1"}), NOW).id == "r-1"


def test_specs_tell_what_may_be_had() -> None:
    def spec(name: str, *, eligible: bool, shape: str = "SHAPE_STANDARD") -> dict[str, object]:
        return {"key": {"variant": "VARIANT_GPU", "accelerator": name, "shape": shape}, "eligible": eligible}

    answer = {
        "runtimeSpecs": [
            spec("T4", eligible=True),
            spec("T4", eligible=False, shape="SHAPE_HIGHMEM"),
            spec("H100", eligible=False),
            {"key": {"variant": "VARIANT_CPU", "accelerator": "NONE"}, "eligible": True},
        ]
    }
    assert dialects.read_specs(fields(answer)) == (("T4",), ("H100",))


def test_balance_and_offers_come_from_two_services_of_which_one_may_be_silent() -> None:
    ccu = fields(
        {
            "assignmentsCount": 1,
            "consumptionRateHourly": 1.76,
            "currentBalance": 87.5,
            "eligibleGpus": ["T4", "L4"],
            "eligibleTpus": ["V5E1"],
            "ineligibleGpus": ["H100"],
        }
    )
    info = fields(
        {
            "subscriptionTier": "SUBSCRIPTION_TIER_PRO",
            "freeCcuQuotaInfo": {"remainingTokens": "24500", "nextRefillTimestampSec": 1788300000},
        }
    )
    balance, offers = dialects.read_balance(ccu, info), dialects.read_offers(ccu, info)

    assert (balance.units, balance.rate_hourly, balance.runtimes) == (87.5, 1.76, 1)
    assert (balance.free_units, balance.next_refill_at) == (24.5, 1788300000)
    assert (offers.tier, offers.eligible, offers.ineligible) == ("pro", ("T4", "L4", "V5E1"), ("H100",))
    assert dialects.read_offers(ccu).tier == ""
    assert dialects.read_balance(fields({})).units is None


def test_models_and_quota_may_be_missing() -> None:
    info = fields({"subscriptionTier": "SUBSCRIPTION_TIER_NONE", "eligibleAccelerators": [{"variant": "VARIANT_GPU"}]})
    assert dialects.read_offers(fields({}), info).eligible == ()
    assert dialects.read_offers(fields({}), info).tier == "free"
    assert dialects.read_balance(fields({}), fields({"freeCcuQuotaInfo": {}})).free_units is None


def test_consent_is_asked_for_on_a_page_of_googles_only() -> None:
    def answer(url: str) -> Fields:
        return fields({"success": False, "unauthorized_redirect_uri": url}, "propagation")

    good = dialects.read_consent(answer("https://accounts.google.com/o/oauth2"), loopback=False)
    assert (good.granted, good.consent_url) == (False, "https://accounts.google.com/o/oauth2")
    for url in (
        "https://accounts.google.com.evil.example/",
        "https://evil.example/google.com",
        "http://accounts.google.com/",
        "javascript:alert(1)",
        "https://accounts.google.com@evil.example/",
        "http://127.0.0.1:1/",
    ):
        with pytest.raises(ProtocolChangedError, match="unauthorized_redirect_uri"):
            dialects.read_consent(answer(url), loopback=False)
    assert dialects.read_consent(answer("http://127.0.0.1:1/"), loopback=True).consent_url
    assert dialects.read_consent(fields({"success": True}), loopback=False).granted
    with pytest.raises(ProtocolChangedError, match=r"propagation\.success"):
        dialects.read_consent(fields({}, "propagation"), loopback=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "endpoint",
                    "accelerator",
                    "variant",
                    "machineShape",
                    "runtimeProxyInfo",
                    "token",
                    "url",
                    "assignments",
                    "outcome",
                    "name",
                    "tokenExpiresInSeconds",
                    "connectionInfo",
                    "runtimeSpec",
                    "success",
                    "runtimes",
                    "key",
                    "eligible",
                    "runtimeSpecs",
                    "unauthorized_redirect_uri",
                    "expireTime",
                    "tokenTtl",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@settings(deadline=None)
@given(JSON)
def test_no_answer_makes_a_reader_fail_in_any_other_way_than_by_naming_a_field(value: object) -> None:
    readers = (
        dialects.read_assign,
        dialects.read_outcome,
        dialects.read_specs,
        dialects.read_balance,
        dialects.read_offers,
        lambda answer: dialects.read_assignments(answer, NOW),
        lambda answer: dialects.read_runtimes(answer, NOW),
        lambda answer: dialects.read_runtime(answer, NOW),
        lambda answer: dialects.read_consent(answer, loopback=False),
    )
    for read in readers:
        try:
            found = read(fields(value if isinstance(value, dict) else {"assignments": value}))
        except ProtocolChangedError:
            continue
        if isinstance(found, Assignment):
            assert is_endpoint_id(found.id)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_may_stand_where_a_token_is_expected(text: str) -> None:
    assert jwt_claims(text).where == "jwt"


def test_a_reader_never_shows_a_token() -> None:
    assert "eyJ" not in repr(fields(TUN))
    assert "eyJ" not in repr(dialects.read_assignment(fields(TUN), NOW))
