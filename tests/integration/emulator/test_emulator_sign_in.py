"""Google's sign-in as the emulator plays it."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from colab_bridge.testing.colab import ColabEmulator, Consent
from colab_bridge.testing.colab.identity import CLOUD_SDK_CLIENT, DESKTOP_CLIENT, SCOPE_COLAB, SCOPE_DRIVE_FILE
from emulator_caller import Caller, decoded, open_caller

REDIRECT = "http://127.0.0.1:54321/"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SECRET = "GOCSPX-emulator"


def asked(**changes: str) -> dict[str, str]:
    """The parameters of a careful client; an empty value leaves one out."""
    members = {
        "client_id": DESKTOP_CLIENT,
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": f"openid email profile {SCOPE_COLAB}",
        "state": "nonce",
        "access_type": "offline",
        "prompt": "consent",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return {k: v for k, v in (members | changes).items() if v}


async def agree(caller: Caller, **changes: str) -> httpx2.Response:
    return await caller.http.get(caller.url("oauth", "/o/oauth2/v2/auth"), params=asked(**changes))


def answer_in(response: httpx2.Response) -> dict[str, str]:
    assert response.status_code == 302, response.text
    where = urlsplit(response.headers["location"])
    return {name: values[0] for name, values in parse_qs(where.query).items()}


async def token(caller: Caller, **form: str) -> httpx2.Response:
    return await caller.http.post(caller.url("oauth", "/token"), data=form)


async def exchange(caller: Caller, code: str, **changes: str) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": DESKTOP_CLIENT,
        "client_secret": SECRET,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }
    return await token(caller, **form | changes)


async def sign_in(caller: Caller, **changes: str) -> dict[str, Any]:
    answer = await exchange(caller, answer_in(await agree(caller, **changes))["code"])
    assert answer.status_code == 200, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


async def refresh(caller: Caller, value: str, **changes: str) -> httpx2.Response:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": value,
        "client_id": DESKTOP_CLIENT,
        "client_secret": SECRET,
    }
    return await token(caller, **form | changes)


async def test_a_sign_in_gives_tokens_that_work_and_can_be_renewed(colab: ColabEmulator, caller: Caller) -> None:
    sent_back = answer_in(await agree(caller))
    assert sent_back["state"] == "nonce"
    issued = (await exchange(caller, sent_back["code"])).json()
    assert issued["token_type"] == "Bearer"
    assert issued["expires_in"] == 3599
    assert SCOPE_COLAB in issued["scope"].split()
    renewed = (await refresh(caller, issued["refresh_token"])).json()
    assert renewed["access_token"] != issued["access_token"]
    async with open_caller(colab, renewed["access_token"]) as signed_in:
        assert await signed_in.endpoints() == []
        told = (await signed_in.call("GET", "oauth", "/oauth2/v2/userinfo")).json()
    assert (told["email"], told["verified_email"], told["name"]) == (colab.options.email, True, "Developer")
    assert colab.violations == []


async def test_information_about_a_token_is_made_of_strings(colab: ColabEmulator, caller: Caller) -> None:
    issued = await sign_in(caller)
    params = {"access_token": issued["access_token"]}
    told = (await caller.http.get(caller.url("oauth", "/tokeninfo"), params=params)).json()
    assert {type(value) for value in told.values()} == {str}
    assert (told["aud"], told["email"], told["access_type"]) == (DESKTOP_CLIENT, colab.options.email, "offline")
    bad = await caller.http.get(caller.url("oauth", "/tokeninfo"), params={"access_token": "wrong"})
    assert bad.status_code == 400
    assert bad.json() == {"error": "invalid_token", "error_description": "Invalid Value"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"client_id": "unknown"}, 401),
        ({"redirect_uri": "urn:ietf:wg:oauth:2.0:oob"}, 400),
        ({"redirect_uri": "https://example.com/back"}, 400),
        ({"redirect_uri": "http://192.168.0.5:80/"}, 400),
        ({"redirect_uri": "https://127.0.0.1:1/"}, 400),
        ({"redirect_uri": "https://sdk.cloud.google.com/applicationdefaultauthcode.html"}, 400),
        ({"response_type": "token"}, 400),
        ({"scope": ""}, 400),
        ({"scope": "https://www.googleapis.com/auth/colab"}, 400),
        ({"code_challenge_method": "plain"}, 400),
    ],
)
async def test_a_consent_page_that_google_would_not_show(
    colab: ColabEmulator, caller: Caller, changes: dict[str, str], status: int
) -> None:
    assert (await agree(caller, **changes)).status_code == status
    assert len(colab.violations) == 1


@pytest.mark.parametrize(
    ("left_out", "what"),
    [({"code_challenge": "", "code_challenge_method": ""}, "no code_challenge"), ({"state": ""}, "no state")],
)
async def test_a_careless_sign_in_works_and_is_noted(
    colab: ColabEmulator, caller: Caller, left_out: dict[str, str], what: str
) -> None:
    assert "code" in answer_in(await agree(caller, **left_out))
    assert [violation.what for violation in colab.violations] == [what]


async def test_redirects_that_are_registered(colab: ColabEmulator, caller: Caller) -> None:
    for redirect in ["http://localhost:1/x", "http://[::1]:1/", caller.url("colab", "/vscode/redirect")]:
        assert answer_in(await agree(caller, redirect_uri=redirect))["code"]
    page = "https://sdk.cloud.google.com/applicationdefaultauthcode.html"
    shown = await agree(caller, client_id=CLOUD_SDK_CLIENT, redirect_uri=page)
    changes = {"client_id": CLOUD_SDK_CLIENT, "redirect_uri": page}
    assert (await exchange(caller, shown.text, **changes)).status_code == 200
    assert colab.violations == []


async def test_the_pages_of_the_session_backend_show_the_code(caller: Caller) -> None:
    sent_back = await agree(caller, redirect_uri=caller.url("colab", "/vscode/redirect"))
    shown = await caller.http.get(sent_back.headers["location"])
    assert shown.text == answer_in(sent_back)["code"]
    assert (await caller.http.get(caller.url("colab", "/vscode/auth-success"))).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"code_verifier": "w" * 64}, 400, "invalid_grant"),
        ({"code_verifier": ""}, 400, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/"}, 400, "invalid_grant"),
        ({"code": "4/wrong"}, 400, "invalid_grant"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "unknown"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
async def test_an_exchange_that_does_not_fit_is_refused(
    caller: Caller, changes: dict[str, str], status: int, error: str
) -> None:
    code = answer_in(await agree(caller))["code"]
    refused = await exchange(caller, **{"code": code} | changes)
    assert (refused.status_code, refused.json()["error"]) == (status, error)


async def test_a_code_is_good_once(caller: Caller) -> None:
    code = answer_in(await agree(caller))["code"]
    assert (await exchange(caller, code)).status_code == 200
    assert (await exchange(caller, code)).json()["error"] == "invalid_grant"


async def test_a_refusal_of_the_person_goes_back_to_the_client(colab: ColabEmulator, caller: Caller) -> None:
    colab.identity.consent = Consent(denied=True)
    assert answer_in(await agree(caller)) == {"error": "access_denied", "state": "nonce"}


async def test_a_box_left_unticked_is_missing_in_the_scopes(colab: ColabEmulator, caller: Caller) -> None:
    colab.identity.consent = Consent(withheld=frozenset({SCOPE_COLAB}))
    issued = await sign_in(caller)
    assert SCOPE_COLAB not in issued["scope"].split()
    async with open_caller(colab, issued["access_token"]) as signed_in:
        assert (await signed_in.tun("GET", "/tun/m/assignments")).status_code == 403


async def test_another_account_than_the_one_that_was_hinted_at(colab: ColabEmulator, caller: Caller) -> None:
    hinted = await sign_in(caller, login_hint="second@example.com")
    colab.identity.consent = Consent(account="third@example.com")
    chosen = await sign_in(caller, login_hint="second@example.com")
    told = []
    for issued in (hinted, chosen):
        async with open_caller(colab, issued["access_token"]) as signed_in:
            told.append((await signed_in.call("GET", "oauth", "/oauth2/v2/userinfo")).json()["email"])
    assert told == ["second@example.com", "third@example.com"]


async def test_scopes_are_added_to_those_that_were_granted(caller: Caller) -> None:
    await sign_in(caller)
    more = await sign_in(caller, scope=SCOPE_DRIVE_FILE, include_granted_scopes="true")
    assert {SCOPE_COLAB, SCOPE_DRIVE_FILE} <= set(more["scope"].split())
    alone = await sign_in(caller, scope=SCOPE_DRIVE_FILE)
    assert alone["scope"] == SCOPE_DRIVE_FILE


async def test_a_refresh_token_comes_with_the_first_consent_or_a_prompt_for_offline_access(caller: Caller) -> None:
    assert "refresh_token" in await sign_in(caller, prompt="")
    assert "refresh_token" not in await sign_in(caller, prompt="")
    assert "refresh_token" in await sign_in(caller, prompt="consent")
    assert "refresh_token" not in await sign_in(caller, access_type="online")


async def test_an_access_token_ends_and_a_refresh_goes_on(colab: ColabEmulator, caller: Caller) -> None:
    issued = await sign_in(caller)
    await colab.advance(3600)
    async with open_caller(colab, issued["access_token"]) as signed_in:
        assert (await signed_in.tun("GET", "/tun/m/assignments")).status_code == 401
    renewed = (await refresh(caller, issued["refresh_token"])).json()["access_token"]
    async with open_caller(colab, renewed) as signed_in:
        assert (await signed_in.tun("GET", "/tun/m/assignments")).status_code == 200


async def test_a_revoked_sign_in_is_over(colab: ColabEmulator, caller: Caller) -> None:
    issued = await sign_in(caller)
    revoked = await caller.http.post(caller.url("oauth", "/revoke"), data={"token": issued["refresh_token"]})
    assert revoked.status_code == 200
    assert (await refresh(caller, issued["refresh_token"])).json()["error"] == "invalid_grant"
    async with open_caller(colab, issued["access_token"]) as signed_in:
        assert (await signed_in.tun("GET", "/tun/m/assignments")).status_code == 401
    again = await caller.http.post(caller.url("oauth", "/revoke"), data={"token": "unknown"})
    assert (again.status_code, again.json()["error"]) == (400, "invalid_token")


async def test_a_policy_wants_a_new_sign_in(colab: ColabEmulator, caller: Caller) -> None:
    issued = await sign_in(caller)
    colab.identity.break_refresh(colab.options.email, subtype="invalid_rapt")
    refused = await refresh(caller, issued["refresh_token"])
    assert refused.status_code == 400
    assert refused.json()["error"] == "invalid_grant"
    assert refused.json()["error_subtype"] == "invalid_rapt"


async def test_a_refresh_by_another_client_is_refused(caller: Caller) -> None:
    issued = await sign_in(caller)
    assert (await refresh(caller, issued["refresh_token"], client_id="gone")).status_code == 401
    changes = {"client_id": CLOUD_SDK_CLIENT, "client_secret": "any"}
    assert (await refresh(caller, issued["refresh_token"], **changes)).json()["error"] == "invalid_grant"


def signed(file: dict[str, str], **changes: Any) -> str:
    """A service account's request for a token (RFC 7523)."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    now = int(time.time())
    claims = {
        "iss": file["client_email"],
        "scope": f"{SCOPE_COLAB} email",
        "aud": file["token_uri"],
        "iat": now,
        "exp": now + 3600,
    }
    head = part(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
    text = f"{head}.{part(json.dumps(claims | changes).encode())}"
    key = serialization.load_pem_private_key(file["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return f"{text}.{part(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


async def test_a_service_account_signs_in_with_its_key(colab: ColabEmulator, caller: Caller) -> None:
    file = colab.service_account()
    issued = (await token(caller, grant_type=JWT_GRANT, assertion=signed(file))).json()
    async with open_caller(colab, issued["access_token"]) as robot:
        assert decoded(await robot.tun("GET", "/tun/m/assignments")) == {"assignments": []}
    assert "refresh_token" not in issued
    assert colab.requests[-1].account == file["client_email"]


@pytest.mark.parametrize(
    "changes",
    [{"aud": "https://example.com/token"}, {"exp": 1}, {"exp": 2**40}, {"iss": "stranger@example.com"}],
)
async def test_a_service_accounts_request_that_does_not_fit_is_refused(
    colab: ColabEmulator, caller: Caller, changes: dict[str, Any]
) -> None:
    assertion = signed(colab.service_account(), **changes)
    refused = await token(caller, grant_type=JWT_GRANT, assertion=assertion)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert len(colab.violations) == 1
