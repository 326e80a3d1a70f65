"""Which sign-in counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from colab_bridge.credentials.failures import nobody_error, unknown_account_error
from colab_bridge.errors import UserError

__all__ = ["Choice", "Situation", "SourceKind", "choose", "resolve_name"]


class SourceKind(StrEnum):
    """Where a token can come from."""

    GIVEN = "given"
    LOGIN = "login"
    ADC = "adc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is there to choose from.

    Attributes:
        given: Accounts of the access tokens that callers gave, latest first; an empty name is one of unknown account.
        given_now: Account of the one that this very caller gave; None when this caller gave none.
        logins: Signed in accounts, each with its short name (may be empty).
        current: Account in use among them; may be empty.
        adc: Whether there are Application Default Credentials.
    """

    given: tuple[str, ...] = ()
    given_now: str | None = None
    logins: Mapping[str, str] = field(default_factory=dict)
    current: str = ""
    adc: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen.

    Attributes:
        kind: Where the token comes from.
        account: E-mail address; empty where the source alone knows it.
    """

    kind: SourceKind
    account: str = ""


def resolve_name(name: str, logins: Mapping[str, str]) -> str:
    """Return the e-mail address that an address, a short name or the beginning of either means; as it is if none.

    Raises:
        UserError: it means more than one.
    """
    wanted = name.strip().lower()
    exact = [email for email, short in logins.items() if wanted in (email.lower(), short.lower())]
    if exact:
        return exact[0]
    near = [email for email, short in logins.items() if email.lower().startswith(wanted) or _begins(short, wanted)]
    if len(near) > 1 and wanted:
        raise UserError(
            f"'{name[:80]}' means more than one account: {', '.join(sorted(near))}",
            hint="give the whole address; see: colab-bridge auth list",
            code="CB-USER-070",
        )
    return near[0] if near and wanted else name.strip()


def _begins(short: str, wanted: str) -> bool:
    return bool(short) and short.lower().startswith(wanted)


def choose(wanted: str, situation: Situation) -> Choice:
    """Return where the token for an account comes from.

    The order: a token that the caller gave, a sign-in of ours, Application Default Credentials. A sign-in that has
    ended is still the one that counts: going on with another account would spend the wrong person's money.

    Args:
        wanted: E-mail address or short name; the account in use when empty.
        situation: What is there.

    Raises:
        AuthError: there is nothing, or nothing for that account.
        UserError: ``wanted`` means more than one account.
    """
    if wanted:
        account = resolve_name(wanted, situation.logins)
        if account in situation.given:
            return Choice(kind=SourceKind.GIVEN, account=account)
        if account in situation.logins:
            return Choice(kind=SourceKind.LOGIN, account=account)
        if situation.given_now == "":
            return Choice(kind=SourceKind.GIVEN)  # nobody knows whose it is, so it may be the one
        if situation.adc:
            return Choice(kind=SourceKind.ADC, account=account)
        raise unknown_account_error(account, situation.logins)
    if situation.given_now is not None:
        return Choice(kind=SourceKind.GIVEN, account=situation.given_now)
    if situation.logins:
        current = situation.current if situation.current in situation.logins else next(iter(situation.logins))
        return Choice(kind=SourceKind.LOGIN, account=current)
    if situation.adc:
        return Choice(kind=SourceKind.ADC)
    raise nobody_error()
