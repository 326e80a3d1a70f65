"""Tokens over days, faults and many callers, against the emulated service."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from colab_bridge.errors import AuthError, TransientError, UserError
from colab_bridge.model.credentials import COLAB_SCOPES, DRIVE_SCOPES, SCOPE_EMAIL, AccessToken
from colab_bridge.testing.colab.identity import SCOPE_CLOUD
from sign_in_desk import CLIENT, EMAIL, Desk

HOUR = 3600.0


async def test_seven_days_pass_without_a_question_and_every_token_has_five_minutes_left(desk: Desk) -> None:
    await desk.sign_in()
    consents = desk.calls("/o/oauth2/v2/auth")
    credentials = desk.credentials()
    for _ in range(7 * 24 * 4):
        await desk.colab.advance(HOUR / 4)
        token = await credentials.token()
        assert token.expires_at is not None
        assert token.expires_at - desk.colab.clock.time() >= 300
        assert desk.colab.identity.valid(token.value.reveal()) is not None
    assert desk.calls("/o/oauth2/v2/auth") == consents
    assert 7 * 24 <= desk.token_calls() <= 7 * 24 * 2


async def test_a_hundred_callers_with_the_same_stale_token_cause_one_refresh(desk: Desk) -> None:
    await desk.sign_in()
    credentials = desk.credentials()
    stale = await credentials.token()
    before = desk.token_calls()
    found: list[AccessToken] = []

    async def call() -> None:
        found.append(await credentials.token(stale=stale))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(call)
    assert desk.token_calls() == before + 1
    assert len({token.value.reveal() for token in found} - {stale.value.reveal()}) == 1


async def test_processes_that_renew_at_once_cause_one_refresh(desk: Desk) -> None:
    await desk.sign_in()
    await desk.colab.advance(HOUR)
    before = desk.token_calls()
    found: set[str] = set()

    async def process() -> None:
        found.add((await desk.credentials().token()).value.reveal())

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(process)
    assert (desk.token_calls(), len(found)) == (before + 1, 1)


async def test_a_revoked_sign_in_is_asked_about_once_and_names_the_command(desk: Desk) -> None:
    await desk.sign_in()
    credentials = desk.credentials()
    desk.colab.identity.break_refresh(EMAIL)
    await desk.colab.advance(HOUR)
    with pytest.raises(AuthError, match=f"the sign-in of {EMAIL} has expired or was revoked") as caught:
        await credentials.token()
    assert (caught.value.code, caught.value.hint) == ("CB-AUTH-011", f"colab-bridge auth login --account {EMAIL}")
    calls = desk.token_calls()
    for process in (credentials, desk.credentials()):
        with pytest.raises(AuthError, match="revoked"):
            await process.token()
    assert desk.token_calls() == calls
    assert desk.calls("/revoke") == 0
    await desk.sign_in(account=EMAIL, current=False)
    assert (await credentials.token()).account == EMAIL


async def test_a_policy_that_asks_again_is_told_apart(desk: Desk) -> None:
    await desk.sign_in()
    desk.colab.identity.break_refresh(EMAIL, subtype="invalid_rapt")
    await desk.colab.advance(HOUR)
    with pytest.raises(AuthError, match="policy of your organisation") as caught:
        await desk.credentials().token()
    assert caught.value.code == "CB-AUTH-012"


async def test_a_refusal_of_a_fresh_token_ends_nothing(desk: Desk) -> None:
    await desk.sign_in()
    credentials = desk.credentials()
    for _ in range(3):
        await credentials.token(stale=await credentials.token())
    assert desk.credentials().accounts().accounts[EMAIL].ended == ""


async def test_while_the_service_is_down_a_token_that_still_lives_is_used(desk: Desk) -> None:
    await desk.sign_in()
    credentials = desk.credentials()
    token = await credentials.token()
    await desk.colab.advance(HOUR - 200)
    desk.colab.faults.add(kind="status", service="oauth", path="/token", status=503, count=None)
    assert await credentials.token() == token
    calls = desk.token_calls()
    assert await credentials.token() == token
    assert desk.token_calls() == calls
    with pytest.raises(TransientError, match="status 503"):
        await credentials.token(stale=token)
    await desk.colab.advance(190)
    with pytest.raises(TransientError, match="status 503"):
        await credentials.token()
    desk.colab.faults.clear()
    assert (await credentials.token()).value != token.value


async def test_a_service_that_stumbles_twice_is_asked_again(desk: Desk) -> None:
    await desk.sign_in()
    await desk.colab.advance(HOUR)
    desk.colab.faults.add(kind="status", service="oauth", path="/token", status=500)
    desk.colab.faults.add(kind="close", service="oauth", path="/token", skip=1)
    assert (await desk.credentials().token()).account == EMAIL


async def test_a_caller_that_is_cancelled_leaves_no_lock_behind(desk: Desk) -> None:
    await desk.sign_in()
    await desk.colab.advance(HOUR)
    desk.colab.faults.add(kind="hang", service="oauth", path="/token")
    with anyio.move_on_after(0.5):
        await desk.credentials().token()
    with anyio.fail_after(10):
        assert (await desk.credentials().token()).account == EMAIL


async def test_a_token_of_the_caller_is_used_and_asked_about_once(desk: Desk) -> None:
    credentials = desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN=desk.colab.access_token)
    for _ in range(3):
        token = await credentials.token(scopes=DRIVE_SCOPES)
    assert (token.value.reveal(), token.account) == (desk.colab.access_token, EMAIL)
    assert token.source == "COLAB_BRIDGE_ACCESS_TOKEN"
    assert desk.calls("/tokeninfo") == 1
    assert desk.colab.access_token.encode() not in desk.everything_on_disk()


async def test_a_token_of_the_caller_works_while_nobody_can_be_asked_about_it(desk: Desk) -> None:
    desk.colab.faults.add(kind="status", service="oauth", path="/tokeninfo", status=503, count=None)
    credentials = desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN=desk.colab.access_token)
    for _ in range(3):
        token = await credentials.token()
    assert (token.value.reveal(), token.account) == (desk.colab.access_token, "")
    assert desk.calls("/tokeninfo") == 1


async def test_a_token_of_the_caller_that_is_refused_is_tried_once_more_and_then_has_ended(desk: Desk) -> None:
    credentials = desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN=desk.colab.access_token)
    token = await credentials.token()
    assert await credentials.token(stale=token) == token
    with pytest.raises(AuthError, match="has expired or is not valid") as caught:
        await credentials.token(stale=token)
    assert caught.value.hint == "set a fresh one, or unset it and sign in: colab-bridge auth login"


async def test_calls_side_by_side_that_meet_one_refusal_are_all_tried_once_more(desk: Desk) -> None:
    credentials = desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN=desk.colab.access_token)
    token = await credentials.token()
    again: list[AccessToken] = []

    async def refused() -> None:
        again.append(await credentials.token(stale=token))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(refused)
    assert again == [token] * 3


async def test_a_token_of_the_caller_that_google_does_not_know_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(AuthError, match="has expired or is not valid"):
        await desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN="ya29.unknown").token()


async def test_a_token_of_the_caller_that_lacks_a_scope_says_which(desk: Desk) -> None:
    grant = desk.colab.identity.access_token(account=EMAIL, scopes=frozenset({SCOPE_EMAIL}))
    with pytest.raises(AuthError, match="lacks Google Colab"):
        await desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN=grant.value).token()


async def test_each_request_uses_its_own_callers_token(desk: Desk) -> None:
    other = desk.colab.identity.access_token(account="ada@work.example")
    desk.colab.state.account("ada@work.example")
    credentials = desk.credentials()
    await desk.sign_in()
    found: dict[str, str] = {}

    async def request(name: str, env: dict[str, str]) -> None:
        credentials.learn(env)
        await anyio.sleep(0)
        found[name] = (await credentials.token()).account

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request, "with", {"COLAB_BRIDGE_ACCESS_TOKEN": other.value})
        tasks.start_soon(request, "without", {})
    assert found == {"with": "ada@work.example", "without": EMAIL}
    # Work in the background names the account; no caller is there any more.
    assert (await credentials.token(account="ada@work.example")).value.reveal() == other.value


@pytest.mark.parametrize("value", ["two words", "a\nb", "ü"])
async def test_what_is_no_token_is_said_to_be_none(desk: Desk, value: str) -> None:
    credentials = desk.credentials(COLAB_BRIDGE_ACCESS_TOKEN=value)
    with pytest.raises(UserError, match="holds no access token") as caught:
        await credentials.token()
    assert value not in caught.value.message


def gcloud_file(desk: Desk, scopes: frozenset[str]) -> Path:
    grant = desk.colab.identity.refresh_token(client_id=CLIENT.client_id, account=EMAIL, scopes=scopes)
    path = desk.home / "gcloud" / "application_default_credentials.json"
    path.parent.mkdir(exist_ok=True)
    members = {
        "type": "authorized_user",
        "client_id": CLIENT.client_id,
        "client_secret": CLIENT.secret.reveal(),
        "refresh_token": grant.value,
        "quota_project_id": "my-project",
    }
    path.write_text(json.dumps(members))
    return path


async def test_application_default_credentials_with_the_scope_are_used(desk: Desk) -> None:
    gcloud_file(desk, COLAB_SCOPES)
    credentials = desk.credentials()
    token = await credentials.token()
    assert (token.account, token.quota_project, token.scopes) == (EMAIL, "my-project", COLAB_SCOPES)
    assert await credentials.token() == token
    assert desk.token_calls() == 1
    assert (await credentials.token(stale=token)).value != token.value


async def test_application_default_credentials_without_the_scope_say_how_to_get_it(desk: Desk) -> None:
    gcloud_file(desk, frozenset({SCOPE_EMAIL}))
    with pytest.raises(AuthError, match="lack Google Colab") as caught:
        await desk.credentials().token()
    assert "colab-bridge auth login, or: gcloud auth application-default login --scopes=" in caught.value.hint


async def test_application_default_credentials_that_were_revoked_say_so(desk: Desk) -> None:
    gcloud_file(desk, COLAB_SCOPES)
    desk.colab.identity.break_refresh(EMAIL)
    with pytest.raises(AuthError, match="give no token: Token has been expired or revoked"):
        await desk.credentials().token()


async def test_application_default_credentials_are_not_used_for_another_account(desk: Desk) -> None:
    gcloud_file(desk, COLAB_SCOPES)
    with pytest.raises(AuthError, match="is not signed in"):
        await desk.credentials().token(account="ada@work.example")


async def test_a_service_account_signs_in_with_its_key(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(desk.colab.service_account("robot@p.iam.gserviceaccount.com")))
    token = await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()
    assert (token.account, token.source) == ("robot@p.iam.gserviceaccount.com", "GOOGLE_APPLICATION_CREDENTIALS")
    grant = desk.colab.identity.valid(token.value.reveal())
    assert grant is not None
    assert grant.scopes == COLAB_SCOPES


async def test_a_service_account_that_google_does_not_know_is_refused_without_its_key(
    desk: Desk, tmp_path: Path
) -> None:
    path = tmp_path / "key.json"
    members = desk.colab.service_account("robot@p.iam.gserviceaccount.com")
    desk.colab.identity.service_keys.clear()
    path.write_text(json.dumps(members))
    with pytest.raises(AuthError, match="give no token") as caught:
        await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()
    assert "PRIVATE" not in repr(caught.value.to_problem())
    desk.colab._recorder.violations.clear()  # the emulator counts a bad signature as one


ROBOT = "robot@p.iam.gserviceaccount.com"
IAM = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"


def impersonation(desk: Desk, source: dict[str, str]) -> Path:
    """Write the file that ``gcloud auth application-default login --impersonate-service-account`` makes."""
    members = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": f"{IAM}/{ROBOT}:generateAccessToken",
        "source_credentials": source,
        "delegates": [],
    }
    path = desk.home / "impersonated.json"
    path.write_text(json.dumps(members))
    return path


def a_person(desk: Desk, scopes: frozenset[str]) -> dict[str, str]:
    grant = desk.colab.identity.refresh_token(client_id=CLIENT.client_id, account=EMAIL, scopes=scopes)
    secret = CLIENT.secret.reveal()
    return {
        "type": "authorized_user",
        "client_id": CLIENT.client_id,
        "client_secret": secret,
        "refresh_token": grant.value,
    }


@pytest.mark.parametrize("by", ["a person", "a key"])
async def test_who_may_act_for_a_service_account_signs_in_as_it(desk: Desk, by: str) -> None:
    key = desk.colab.service_account(ROBOT)
    path = impersonation(desk, a_person(desk, frozenset({SCOPE_CLOUD})) if by == "a person" else key)
    token = await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()
    assert token.account == ROBOT
    assert token.expires_at is not None
    grant = desk.colab.identity.valid(token.value.reveal())
    assert grant is not None
    assert (grant.account, grant.scopes) == (ROBOT, COLAB_SCOPES)


async def test_who_may_not_act_for_a_service_account_is_refused_with_the_way_to_sign_in(desk: Desk) -> None:
    desk.colab.service_account(ROBOT)
    path = impersonation(desk, a_person(desk, frozenset({SCOPE_EMAIL})))
    with pytest.raises(AuthError, match="give no token") as caught:
        await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()
    assert caught.value.hint.startswith("colab-bridge auth login")


async def test_impersonation_by_credentials_with_addresses_of_their_own_is_refused(desk: Desk) -> None:
    path = impersonation(desk, {"type": "external_account_authorized_user", "token_url": "https://x.example/token"})
    with pytest.raises(AuthError, match="by credentials of type 'external_account_authorized_user' is not supported"):
        await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "is not JSON of credentials")],
)
async def test_named_credentials_that_are_not_usable_are_an_error(
    desk: Desk, tmp_path: Path, content: str | None, reason: str
) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=reason):
        await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()


async def test_credentials_that_start_programs_are_not_supported(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"type": "external_account", "credential_source": {"executable": {"command": "x"}}}))
    with pytest.raises(AuthError, match="'external_account' are not supported"):
        await desk.credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path)).token()
