"""Signing in, against the emulated service."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from colab_bridge.credentials.foreign import read_google_colab_cli
from colab_bridge.credentials.sign_in import SignIn, Wish
from colab_bridge.errors import AuthError, TransientError
from colab_bridge.model.credentials import (
    COLAB_SCOPES,
    DRIVE_SCOPES,
    SCOPE_COLAB,
    SCOPE_DRIVE_FILE,
    SCOPE_EMAIL,
)
from colab_bridge.testing.colab import Consent
from sign_in_desk import CLIENT, EMAIL, Browser, Desk


async def test_one_consent_signs_in_and_asks_for_the_core_scopes_alone(desk: Desk) -> None:
    browser = Browser()
    done = await desk.sign_in(browser)
    assert (done.account.email, done.missing) == (EMAIL, frozenset())
    assert set(browser.asked()["scope"].split()) == COLAB_SCOPES
    assert (browser.pages[0].status_code, "can be closed" in browser.pages[0].text) == (200, True)
    token = await desk.credentials().token()
    assert (token.account, token.source, desk.token_calls()) == (EMAIL, "signed in", 1)
    assert desk.colab.identity.valid(token.value.reveal()) is not None


async def test_an_answer_to_another_question_is_turned_away_and_ours_is_still_taken(desk: Desk) -> None:
    seen: list[int] = []

    async def attack(target: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as client:
            base = target.partition("?")[0]
            seen.append((await client.get(f"{base}?state=mine&code=4/attackers-code")).status_code)
            seen.append((await client.post(target)).status_code)
            seen.append((await client.get(f"{base.rstrip('/')}/favicon.ico")).status_code)
            seen.append((await client.get(f"{base.rstrip('/')}/other")).status_code)
            seen.append((await client.get(target, headers={"Host": "evil.example"})).status_code)

    done = await desk.sign_in(Browser(before=attack))
    assert done.account.email == EMAIL
    assert seen == [400, 405, 204, 404, 400]


async def test_when_only_wrong_answers_come_the_wait_ends_and_says_so(desk: Desk) -> None:
    browser = Browser(follow=False)

    async def wrong() -> str | None:
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{browser.asked()['redirect_uri']}?state=x&code=4/12345678")).status_code == 400
        return None

    browser.pasted = wrong
    with pytest.raises(AuthError, match="within 1 s; 1 answers to another question were turned away") as caught:
        await desk.sign_in(browser, timeout_s=1.0)
    assert caught.value.code == "CB-AUTH-016"
    assert desk.credentials().accounts().accounts == {}


async def test_the_address_that_a_browser_elsewhere_ends_at_can_be_pasted(desk: Desk) -> None:
    browser = Browser(follow=False, pastes=["what?", lambda address: address])
    assert (await desk.sign_in(browser)).account.email == EMAIL
    assert browser.complaints == ["that is not the address that the browser ended at; it begins with http://127.0.0.1"]


async def test_a_pasted_answer_to_another_question_is_not_taken(desk: Desk) -> None:
    browser = Browser(follow=False, pastes=["http://127.0.0.1:1/?state=other&code=4/12345678", lambda address: address])
    await desk.sign_in(browser)
    assert "answers another question" in browser.complaints[0]


async def test_who_does_not_agree_is_not_signed_in(desk: Desk) -> None:
    desk.colab.identity.consent = Consent(denied=True)
    with pytest.raises(AuthError, match="you have not agreed"):
        await desk.sign_in()
    assert desk.credentials().accounts().accounts == {}


@pytest.mark.parametrize(("scope", "name"), [(SCOPE_COLAB, "Google Colab"), (SCOPE_EMAIL, "your e-mail address")])
async def test_a_box_that_is_needed_and_not_ticked_is_named_and_nothing_is_kept(
    desk: Desk, scope: str, name: str
) -> None:
    desk.colab.identity.consent = Consent(withheld=frozenset({scope}))
    with pytest.raises(AuthError, match=f"the box for {name} was not ticked") as caught:
        await desk.sign_in()
    assert caught.value.hint.startswith("colab-bridge auth login, and tick it")
    assert desk.credentials().accounts().accounts == {}


async def test_partial_consent_that_is_enough_is_kept_for_good(desk: Desk) -> None:
    desk.colab.identity.consent = Consent(withheld=frozenset({SCOPE_DRIVE_FILE}))
    done = await desk.sign_in(scopes=DRIVE_SCOPES)
    assert done.missing == {SCOPE_DRIVE_FILE}
    for _ in range(5):
        await desk.colab.advance(3600)
        assert (await desk.credentials().token()).scopes == COLAB_SCOPES
    with pytest.raises(AuthError, match="has not allowed Google Drive files") as caught:
        await desk.credentials().token(scopes=DRIVE_SCOPES)
    assert caught.value.hint.startswith(f"colab-bridge auth login --account {EMAIL} --drive")


async def test_drive_is_asked_for_later_and_what_was_allowed_before_stays(desk: Desk) -> None:
    await desk.sign_in()
    browser = Browser()
    await desk.sign_in(browser, scopes=DRIVE_SCOPES, account=EMAIL, current=False)
    assert browser.asked()["include_granted_scopes"] == "true"
    assert browser.asked()["login_hint"] == EMAIL
    assert (await desk.credentials().token(scopes=DRIVE_SCOPES)).scopes == DRIVE_SCOPES
    assert desk.credentials().accounts().current == EMAIL


async def test_agreeing_with_another_account_than_the_one_meant_changes_nothing(desk: Desk) -> None:
    desk.colab.identity.consent = Consent(account="private@example.com")
    with pytest.raises(AuthError, match=f"agreed as private@example.com, not as {EMAIL}") as caught:
        await desk.sign_in(account=EMAIL)
    assert caught.value.hint == f"choose {EMAIL} on Google's page, or leave --account out"
    assert desk.credentials().accounts().accounts == {}


async def test_two_accounts_are_used_side_by_side(desk: Desk) -> None:
    await desk.sign_in(name="private")
    desk.colab.identity.consent = Consent(account="ada@work.example")
    await desk.sign_in(name="work")
    credentials = desk.credentials()
    assert (await credentials.token()).account == "ada@work.example"
    assert (await credentials.token(account="private")).account == EMAIL
    assert (await credentials.token(account="work")).account == "ada@work.example"
    credentials.use("private")
    assert (await desk.credentials().token()).account == EMAIL


async def test_a_client_that_google_does_not_know_is_said_to_be_it(desk: Desk) -> None:
    await desk.sign_in()
    desk.colab.identity.clients.pop(CLIENT.client_id)
    await desk.colab.advance(3600)
    with pytest.raises(AuthError, match="does not accept this OAuth client") as caught:
        await desk.credentials().token()
    assert caught.value.code == "CB-AUTH-018"


async def test_the_sign_in_service_may_be_down_at_the_exchange(desk: Desk) -> None:
    desk.colab.faults.add(kind="status", service="oauth", path="/token", status=503)
    with pytest.raises(TransientError, match="status 503"):
        await desk.sign_in()


async def test_signing_out_is_local_and_does_not_revoke(desk: Desk) -> None:
    await desk.sign_in()
    await desk.credentials().sign_out("")
    assert desk.credentials().accounts().accounts == {}
    assert desk.calls("/revoke") == 0
    assert all(grant.broken is None for grant in desk.colab.identity.refreshes.values())
    with pytest.raises(AuthError, match="nobody is signed in"):
        await desk.credentials().token()


async def test_revoking_has_to_be_asked_for(desk: Desk) -> None:
    await desk.sign_in()
    await desk.credentials().sign_out("", revoke=True)
    assert all(grant.broken is not None for grant in desk.colab.identity.refreshes.values())


async def test_a_sign_in_of_google_colab_cli_is_taken_over_and_its_file_is_left_alone(
    desk: Desk, tmp_path: Path
) -> None:
    grant = desk.colab.identity.refresh_token(client_id=CLIENT.client_id, account=EMAIL, scopes=COLAB_SCOPES)
    path = tmp_path / "token.json"
    path.write_text(
        json.dumps(
            {"refresh_token": grant.value, "client_id": CLIENT.client_id, "client_secret": CLIENT.secret.reveal()}
        )
    )
    before = path.read_bytes()
    done = await SignIn(desk.credentials(), desk.colab.clock).take_over(read_google_colab_cli(path), Wish())
    assert (done.account.email, done.account.origin) == (EMAIL, "google-colab-cli")
    await desk.colab.advance(3600)
    assert (await desk.credentials().token()).account == EMAIL
    assert path.read_bytes() == before


async def test_a_sign_in_of_google_colab_cli_that_was_revoked_is_not(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_text(json.dumps({"refresh_token": "1//gone", "client_id": CLIENT.client_id, "client_secret": "x"}))
    desk.colab.identity.clients[CLIENT.client_id] = type(desk.colab.identity.clients[CLIENT.client_id])(
        id=CLIENT.client_id, secret=""
    )
    with pytest.raises(AuthError, match="expired or was revoked"):
        await SignIn(desk.credentials(), desk.colab.clock).take_over(read_google_colab_cli(path), Wish())


async def test_no_token_and_no_code_is_readable_on_the_disk(desk: Desk) -> None:
    await desk.sign_in(scopes=DRIVE_SCOPES)
    codes = [desk.colab.identity.refreshes, desk.colab.identity.accesses]
    await desk.colab.advance(3600)
    await desk.credentials().token()
    disk = desk.everything_on_disk()
    assert len(disk) > 500
    assert all(codes)
    for secret in [*desk.secrets(), CLIENT.secret.reveal()]:
        assert secret.encode() not in disk
