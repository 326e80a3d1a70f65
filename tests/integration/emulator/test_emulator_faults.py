"""The switchboard and the control interface."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest

from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions
from emulator_caller import Caller, decoded, nbh_of

NBH = nbh_of("123e4567-e89b-42d3-a456-426614174000")
LISTING = "/tun/m/assignments"


async def control(caller: Caller, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
    return await caller.http.request(method, caller.colab.control_url + path, json=body, headers=headers)


async def test_a_status_with_a_body_comes_instead_as_often_as_asked(colab: ColabEmulator, caller: Caller) -> None:
    body = {"error": {"code": 429}}
    colab.faults.add(kind="status", path=LISTING, status=429, body=body, headers={"Retry-After": "7"}, count=2)
    for _ in range(2):
        answer = await caller.tun("GET", LISTING)
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, body, "7")
    assert (await caller.tun("GET", LISTING)).status_code == 200
    assert [record.fault for record in colab.requests] == [("status",), ("status",), ()]


@pytest.mark.parametrize(("kind", "made"), [("close", False), ("close_after", True)])
async def test_a_connection_that_closes_on_an_assignment(
    colab: ColabEmulator, caller: Caller, kind: Any, made: bool
) -> None:
    colab.faults.add(kind=kind, method="POST", path="/tun/m/assign")
    with pytest.raises(httpx2.RemoteProtocolError):
        await caller.assign(NBH)
    assert [runtime.nbh for runtime in colab.state.runtimes.values()] == ([NBH] if made else [])
    found = decoded(await caller.tun("GET", "/tun/m/assign", {"nbh": NBH}))
    assert ("endpoint" in found) is made


@pytest.mark.parametrize(("kind", "made"), [("hang", False), ("hang_after", True)])
async def test_an_assignment_that_is_never_answered(
    colab: ColabEmulator, caller: Caller, kind: Any, made: bool
) -> None:
    colab.faults.add(kind=kind, method="POST", path="/tun/m/assign")
    caller.http.timeout = httpx2.Timeout(0.4)
    with pytest.raises(httpx2.ReadTimeout):
        await caller.assign(NBH)
    assert len(colab.state.runtimes) == made


async def test_an_answer_that_breaks_off(colab: ColabEmulator, caller: Caller) -> None:
    await caller.assign(NBH)
    colab.faults.add(kind="cut", path=LISTING)
    with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete"):
        await caller.tun("GET", LISTING)
    assert len(await caller.endpoints()) == 1


async def test_an_answer_that_takes_its_time(colab: ColabEmulator, caller: Caller) -> None:
    colab.faults.add(kind="delay", path=LISTING, delay_s=0.3)
    began = time.monotonic()
    assert (await caller.tun("GET", LISTING)).status_code == 200
    assert time.monotonic() - began >= 0.3


async def test_an_answer_of_another_version(colab: ColabEmulator, caller: Caller) -> None:
    await caller.assign(NBH)
    changes = {"set": {"assignments.0.accelerator": "Z9", "news": 1}, "remove": ("assignments.0.machineShape",)}
    colab.faults.add(kind="drift", path=LISTING, **changes)
    told = decoded(await caller.tun("GET", LISTING))
    assert told["news"] == 1
    assert told["assignments"][0]["accelerator"] == "Z9"
    assert "machineShape" not in told["assignments"][0]


async def test_a_machine_dies_when_a_request_comes(colab: ColabEmulator, caller: Caller) -> None:
    kept, lost = await caller.endpoint(), await caller.endpoint()
    machine = colab.state.runtimes[lost].machine
    colab.faults.add(kind="kill_vm", path="/tun/m/*/keep-alive/")
    assert (await caller.keep_alive(lost)).status_code == 404
    assert machine.ends == ["kill"]  # type: ignore[attr-defined]
    assert await caller.endpoints() == [kept]


async def test_all_machines_are_pruned_by_a_request_that_names_none(colab: ColabEmulator, caller: Caller) -> None:
    for _ in range(2):
        await caller.endpoint()
    colab.faults.add(kind="prune", path=LISTING)
    assert await caller.endpoints() == []
    assert set(colab.state.ended.values()) == {"idle"}


async def test_tokens_expire_on_demand(colab: ColabEmulator, caller: Caller) -> None:
    made = decoded(await caller.assign(NBH))
    token = made["runtimeProxyInfo"]["token"]
    colab.faults.add(kind="expire_tokens", path="/tun/m/ccu-info")
    await caller.tun("GET", "/tun/m/ccu-info")
    assert colab.tokens.check(made["endpoint"], 8080, token).value == "expired"


# -- control interface


async def test_control_shows_state_requests_and_violations(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint(variant="GPU", accelerator="T4")
    await caller.tun("GET", "/tun/m/unknown")
    state = (await control(caller, "GET", "/state")).json()
    assert state["urls"] == colab.urls
    assert [(r["endpoint"], r["accelerator"], r["ends_by"]) for r in state["runtimes"]] == [(endpoint, "T4", "idle")]
    requests = (await control(caller, "GET", "/requests")).json()["requests"]
    assert [record["path"] for record in requests] == ["/tun/m/assign", "/tun/m/assign", "/tun/m/unknown"]
    violations = (await control(caller, "GET", "/violations")).json()["violations"]
    assert [found["what"] for found in violations] == ["unknown path"]


async def test_control_adds_shows_and_clears_faults(caller: Caller) -> None:
    body = {"kind": "status", "path": LISTING, "status": 500, "count": 3}
    added = (await control(caller, "POST", "/faults", body)).json()["id"]
    assert (await caller.tun("GET", LISTING)).status_code == 500
    [shown] = (await control(caller, "GET", "/faults")).json()["faults"]
    assert (shown["id"], shown["left"], shown["status"]) == (added, 2, 500)
    await control(caller, "POST", "/faults", {"clear": added})
    assert (await caller.tun("GET", LISTING)).status_code == 200
    await control(caller, "POST", "/faults", body)
    await control(caller, "POST", "/faults", {"clear": True})
    assert (await control(caller, "GET", "/faults")).json() == {"faults": []}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/faults", {"kind": "explode"}),
        ("/faults", {"kind": "status", "statsu": 500}),
        ("/clock", {"advance_s": -1}),
        ("/clock", {}),
        ("/tokens", {"ttl_s": 0}),
        ("/accounts/a@example.com", {"tier": "gold"}),
        ("/consent", {"who": "me"}),
    ],
)
async def test_control_names_what_it_does_not_understand(caller: Caller, path: str, body: dict[str, Any]) -> None:
    answer = await control(caller, "POST", path, body)
    assert answer.status_code == 422
    assert answer.json()["error"]


async def test_control_moves_the_clock_and_what_is_due_happens_before_it_answers(caller: Caller) -> None:
    endpoint = await caller.endpoint()
    told = (await control(caller, "POST", "/clock", {"advance_s": 5400})).json()
    assert told["offset_s"] == 5400
    state = (await control(caller, "GET", "/state")).json()
    assert state["ended"] == {endpoint: "idle"}


@pytest.mark.parametrize(("verb", "why"), [("kill", "killed"), ("prune", "idle")])
async def test_control_ends_a_machine(caller: Caller, verb: str, why: str) -> None:
    endpoint = await caller.endpoint()
    assert (await control(caller, "POST", f"/vm/{endpoint}/{verb}")).status_code == 200
    assert (await control(caller, "GET", "/state")).json()["ended"] == {endpoint: why}
    assert (await control(caller, "POST", f"/vm/{endpoint}/{verb}")).status_code == 404


async def test_control_changes_account_capacity_consent_and_tokens(colab: ColabEmulator, caller: Caller) -> None:
    email = colab.options.email
    changed = (await control(caller, "POST", f"/accounts/{email}", {"tier": "free", "max_runtimes": 1})).json()
    assert (changed["tier"], changed["max_runtimes"], changed["paid_units"]) == ("free", 1, 100.0)
    assert (await control(caller, "POST", "/capacity", {"capacity": {"T4": 0}})).json() == {"T4": 0}
    assert (await caller.assign(variant="GPU", accelerator="T4")).status_code == 503
    assert (await control(caller, "POST", "/capacity", {"capacity": {"T4": None}})).json() == {}
    assert (await caller.assign(variant="GPU", accelerator="T4")).status_code == 200
    await control(caller, "POST", "/consent", {"denied": True, "withheld": ["email"]})
    assert colab.identity.consent.denied
    assert (await control(caller, "POST", "/tokens", {"ttl_s": 5})).json() == {"ttl_s": 5}
    assert decoded(await caller.tun("GET", LISTING))["assignments"][0]["runtimeProxyInfo"]["tokenExpiresInSeconds"] == 5


async def test_control_makes_access_tokens_and_service_accounts(colab: ColabEmulator, caller: Caller) -> None:
    body = {"account": "b@example.com", "scopes": "email", "ttl_s": 60}
    value = (await control(caller, "POST", "/access-tokens", body)).json()["access_token"]
    grant = colab.identity.valid(value)
    assert grant is not None
    assert grant.account == "b@example.com"
    file = (await control(caller, "POST", "/service-accounts", {})).json()
    assert file["token_uri"] == caller.url("oauth", "/token")
    assert (await control(caller, "POST", "/broken-sign-ins", {"account": "b@example.com"})).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://example.com"}, {"Host": "example.com"}])
async def test_no_web_page_reaches_the_control_interface(caller: Caller, headers: dict[str, str]) -> None:
    assert (await control(caller, "POST", "/clock", {"advance_s": 1}, **headers)).status_code == 403


async def test_control_requests_are_no_part_of_the_record(colab: ColabEmulator, caller: Caller) -> None:
    await control(caller, "GET", "/state")
    await control(caller, "GET", "/unknown")
    assert colab.requests == []
    assert colab.violations == []


@pytest.mark.parametrize("options", [EmulatorOptions(allocation_s=0.3)])
async def test_a_client_that_hangs_up_has_its_runtime_all_the_same(colab: ColabEmulator, caller: Caller) -> None:
    token = decoded(await caller.tun("GET", "/tun/m/assign", {"nbh": NBH}))["token"]
    caller.http.timeout = httpx2.Timeout(0.1)
    with pytest.raises(httpx2.ReadTimeout):
        await caller.tun("POST", "/tun/m/assign", {"nbh": NBH}, xsrf=token)
    caller.http.timeout = httpx2.Timeout(10)
    made = decoded(await caller.tun("POST", "/tun/m/assign", {"nbh": NBH}, xsrf=token))
    assert list(colab.state.runtimes) == [made["endpoint"]]
