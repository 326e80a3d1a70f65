"""Which sign-in counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.credentials.choice import Choice, Situation, SourceKind, choose, resolve_name
from colab_bridge.errors import AuthError, UserError

ADA, BOB = "ada@example.org", "bob@example.org"
LOGINS = {ADA: "work", BOB: ""}

emails = st.sampled_from([ADA, BOB, "eve@example.org"])
situations = st.builds(
    Situation,
    given=st.lists(emails, max_size=2, unique=True).map(tuple),
    given_now=st.none() | st.just("") | emails,
    logins=st.dictionaries(emails, st.sampled_from(["", "work", "home"]), max_size=3),
    current=st.just("") | emails,
    adc=st.booleans(),
)


def test_a_token_that_the_caller_gave_goes_before_a_sign_in() -> None:
    situation = Situation(given=(BOB,), given_now=BOB, logins=LOGINS, current=ADA, adc=True)
    assert choose("", situation) == Choice(kind=SourceKind.GIVEN, account=BOB)


def test_a_sign_in_goes_before_application_default_credentials() -> None:
    assert choose("", Situation(logins=LOGINS, current=BOB, adc=True)) == Choice(kind=SourceKind.LOGIN, account=BOB)


def test_application_default_credentials_are_used_when_nobody_is_signed_in() -> None:
    assert choose("", Situation(adc=True)).kind is SourceKind.ADC


def test_with_nothing_to_sign_in_with_the_next_command_is_named() -> None:
    with pytest.raises(AuthError) as caught:
        choose("", Situation())
    assert caught.value.code == "CB-AUTH-010"
    assert caught.value.hint == "colab-bridge auth login"


def test_the_token_of_an_earlier_caller_is_not_used_for_one_who_gave_none() -> None:
    situation = Situation(given=(BOB,), given_now=None, logins={ADA: ""}, current=ADA)
    assert choose("", situation) == Choice(kind=SourceKind.LOGIN, account=ADA)


def test_work_for_the_account_of_an_earlier_caller_goes_on_with_its_token() -> None:
    assert choose(BOB, Situation(given=(BOB,), logins={ADA: ""})).kind is SourceKind.GIVEN


def test_another_account_than_the_one_asked_for_is_never_taken() -> None:
    with pytest.raises(AuthError) as caught:
        choose("eve@example.org", Situation(given=(BOB,), given_now=BOB, logins=LOGINS, current=ADA))
    assert "eve@example.org is not signed in" in caught.value.message
    assert caught.value.hint == "colab-bridge auth login --account eve@example.org"


@given(st.just("") | emails | st.sampled_from(["work", "home"]), situations)
def test_the_account_of_a_choice_is_there_and_the_one_asked_for(wanted: str, situation: Situation) -> None:
    try:
        choice = choose(wanted, situation)
    except (AuthError, UserError):
        return
    if choice.kind is SourceKind.LOGIN:
        assert choice.account in situation.logins
        assert wanted in ("", choice.account, situation.logins[choice.account])
    if choice.kind is SourceKind.GIVEN and choice.account:
        assert choice.account in (*situation.given, situation.given_now)
    if choice.kind is SourceKind.ADC:
        assert situation.adc
    if situation.given_now and not wanted:
        assert choice == Choice(kind=SourceKind.GIVEN, account=situation.given_now)


@pytest.mark.parametrize("name", ["work", "WORK", "wo", ADA, "ada", "ADA@example.org"])
def test_an_address_a_short_name_and_their_beginnings_mean_the_account(name: str) -> None:
    assert resolve_name(name, LOGINS) == ADA


def test_a_beginning_of_two_accounts_is_refused_and_names_them() -> None:
    with pytest.raises(UserError, match=r"bea@x\.org, ben@x\.org"):
        resolve_name("be", {"ben@x.org": "", "bea@x.org": ""})
