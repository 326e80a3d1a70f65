"""What Google refuses is refused, and every step beside the protocol is noted."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions
from emulator_caller import Caller, nbh_of

NBH = nbh_of("123e4567-e89b-42d3-a456-426614174000")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"nbh": ""}, 400),
        ({"nbh": NBH[:43]}, 400),
        ({"nbh": NBH + "."}, 400),
        ({"nbh": NBH[:-1] + "+"}, 400),
        ({"nbh": "123e4567-e89b-42d3-a456-426614174000"}, 400),
        ({"nbh": NBH, "variant": "VARIANT_GPU"}, 400),
        ({"nbh": NBH, "variant": "GPU", "accelerator": "V100"}, 400),
        ({"nbh": NBH, "variant": "TPU", "accelerator": "T4"}, 400),
        ({"nbh": NBH, "variant": "GPU", "accelerator": "L4", "shape": "hm"}, 400),
        ({"nbh": NBH, "shape": "SHAPE_HIGHMEM"}, 400),
        ({"nbh": NBH, "runtime_version_label": "2019.01"}, 400),
    ],
)
async def test_a_wrong_value_is_refused_and_noted(
    colab: ColabEmulator, caller: Caller, query: dict[str, str], status: int
) -> None:
    answer = await caller.tun("GET", "/tun/m/assign", query)
    assert answer.status_code == status
    assert len(colab.violations) == 1
    assert colab.violations[0].expected


@pytest.mark.parametrize(
    ("method", "service", "path", "status"),
    [
        ("GET", "colab", "/tun/m/nothing", 404),
        ("GET", "colab", "/tun/m/some-endpoint/api/sessions", 404),
        ("GET", "colab", "/tun/m/some-endpoint/keep-alive", 404),
        ("GET", "colab", "/v1/assignments", 404),
        ("PUT", "colab", "/tun/m/assign", 405),
        ("DELETE", "colab", "/tun/m/assignments", 405),
        ("GET", "gapi", "/tun/m/assignments", 404),
        ("GET", "gapi", "/v1beta/runtimes", 404),
        ("GET", "public_api", "/v1/assignments", 404),
        ("GET", "public_api", "/v1beta/operations/op-1", 404),
        ("GET", "drive", "/drive/v2/files", 404),
        ("GET", "oauth", "/o/oauth2/auth", 404),
    ],
)
async def test_what_a_host_does_not_have_is_noted(
    colab: ColabEmulator, caller: Caller, method: str, service: str, path: str, status: int
) -> None:
    answer = await caller.call(method, service, path, params={"authuser": "0"})
    assert answer.status_code == status
    assert [violation.service for violation in colab.violations] == [service]


@pytest.mark.parametrize("path", ["/tun/m/assignments", "/tun/m/ccu-info", f"/tun/m/assign?nbh={NBH}"])
async def test_the_session_backend_wants_authuser(colab: ColabEmulator, caller: Caller, path: str) -> None:
    assert (await caller.call("GET", "colab", path)).status_code == 400
    assert [violation.what for violation in colab.violations] == ["no authuser"]


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"X-Colab-Client-Agent": None}, "no X-Colab-Client-Agent header"),
        ({"Accept": "*/*"}, "no Accept header"),
    ],
)
async def test_a_missing_header_is_noted_where_google_lets_it_pass(
    colab: ColabEmulator, caller: Caller, headers: dict[str, str | None], what: str
) -> None:
    assert (await caller.tun("GET", "/tun/m/assignments", headers=headers)).status_code == 200
    assert [violation.what for violation in colab.violations] == [what]


async def test_a_keep_alive_wants_its_header_and_authuser(colab: ColabEmulator, caller: Caller) -> None:
    endpoint = await caller.endpoint()
    assert (await caller.keep_alive(endpoint, **{"X-Colab-Tunnel": None})).status_code == 400
    path = f"/tun/m/{endpoint}/keep-alive/"
    assert (await caller.call("GET", "colab", path, headers={"X-Colab-Tunnel": "Google"})).status_code == 400
    assert [violation.what for violation in colab.violations] == ["no X-Colab-Tunnel header", "no authuser"]


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", "Basic YTpi", "key AIza"])
async def test_only_a_bearer_token_opens(colab: ColabEmulator, caller: Caller, token: str) -> None:
    headers = {"Authorization": token or None}
    assert (await caller.tun("GET", "/tun/m/assignments", headers=headers)).status_code == 401
    for service, path in [
        ("gapi", "/v1/assignments"),
        ("gapi", "/v1/user-info"),
        ("public_api", "/v1beta/runtimes"),
        ("drive", "/drive/v3/files"),
        ("oauth", "/oauth2/v2/userinfo"),
    ]:
        assert (await caller.call("GET", service, path, headers=headers)).status_code == 401


async def test_an_access_token_ends(colab: ColabEmulator, caller: Caller) -> None:
    token = colab.identity.access_token(account=colab.options.email, ttl_s=60).value
    headers = {"Authorization": f"Bearer {token}"}
    assert (await caller.call("GET", "gapi", "/v1/assignments", headers=headers)).status_code == 200
    await colab.advance(60)
    assert (await caller.call("GET", "gapi", "/v1/assignments", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"authtype": "drive"},
        {"version": "1"},
        {"dryrun": "1"},
        {"propagate": "false"},
        {"record": "true"},
        {"dryrun": ""},
    ],
)
async def test_credentials_want_all_their_parameters(
    colab: ColabEmulator, caller: Caller, change: dict[str, str]
) -> None:
    endpoint = await caller.endpoint()
    query = {"authtype": "dfs_ephemeral", "version": "2", "propagate": "true", "record": "false", "dryrun": "true"}
    path = f"/tun/m/credentials-propagation/{endpoint}"
    assert (await caller.tun("GET", path, {**query, **change})).status_code == 400
    assert len(colab.violations) == 1
    assert (await caller.tun("POST", path, query)).status_code == 403


@pytest.mark.parametrize(
    "query", [{}, {"endpoint": "x"}, {"endpoint": "x", "port": "0"}, {"endpoint": "x", "port": "a"}]
)
async def test_a_port_token_wants_endpoint_and_port(
    colab: ColabEmulator, caller: Caller, query: dict[str, str]
) -> None:
    assert (await caller.call("GET", "gapi", "/v1/runtime-proxy-token", params=query)).status_code == 400
    assert len(colab.violations) == 1


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"X-Goog-User-Project": "1014160490159"}, 403, "USER_PROJECT_DENIED"),
        ({"X-Goog-Api-Key": "AIza"}, 400, "CONSUMER_INVALID"),
        ({"Authorization": None, "X-Goog-Api-Key": "AIza"}, 401, ""),
    ],
)
async def test_the_keep_alive_of_the_web_page_is_for_nobody_else(
    caller: Caller, headers: dict[str, str | None], status: int, reason: str
) -> None:
    path = "/$rpc/google.internal.colab.v1.RuntimeService/KeepAliveAssignment"
    answer = await caller.call("POST", "gapi", path, headers=headers)
    assert answer.status_code == status
    assert reason in answer.text


@pytest.mark.parametrize("options", [EmulatorOptions(internal_api=False, public_api=False)])
async def test_services_may_be_closed_to_foreign_projects(colab: ColabEmulator, caller: Caller) -> None:
    assert (await caller.call("GET", "gapi", "/v1/assignments")).status_code == 403
    refused = await caller.call("GET", "public_api", "/v1beta/runtimes")
    assert refused.status_code == 403
    assert refused.json()["error"]["details"][0]["reason"] == "SERVICE_DISABLED"
    assert (await caller.assign()).status_code == 200


SPEC = {"runtimeSpec": {"variant": "VARIANT_GPU", "accelerator": "T4", "shape": "SHAPE_STANDARD"}}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ({"requestId": "one"}, SPEC),
        ({"requestId": str(uuid.uuid1())}, SPEC),
        ({"requestId": str(uuid.uuid4()), "runtimeId": "Upper"}, SPEC),
        ({"requestId": str(uuid.uuid4()), "runtimeId": "1st"}, SPEC),
        ({"requestId": str(uuid.uuid4()), "runtimeId": "ends-"}, SPEC),
        ({"requestId": str(uuid.uuid4()), "runtimeId": "x" * 64}, SPEC),
        ({"requestId": str(uuid.uuid4())}, {}),
        ({"requestId": str(uuid.uuid4())}, []),
        ({"requestId": str(uuid.uuid4())}, {"runtimeSpec": {"variant": "GPU"}}),
    ],
)
async def test_a_malformed_creation_is_refused(
    colab: ColabEmulator, caller: Caller, query: dict[str, str], body: Any
) -> None:
    answer = await caller.call("POST", "public_api", "/v1beta/runtimes", params=query, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert len(colab.violations) == 1
    assert colab.state.runtimes == {}


async def test_the_record_has_every_request_and_no_secret(colab: ColabEmulator, caller: Caller) -> None:
    await caller.tun("GET", "/tun/m/assignments")
    await caller.call("GET", "gapi", "/nothing")
    assert [(r.service, r.method, r.path, r.status) for r in colab.requests] == [
        ("colab", "GET", "/tun/m/assignments", 200),
        ("gapi", "GET", "/nothing", 404),
    ]
    assert colab.requests[0].account == colab.options.email
    assert colab.access_token not in str(colab.requests)
