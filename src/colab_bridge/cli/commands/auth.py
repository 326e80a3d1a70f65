"""``colab-bridge auth``: sign in to Google, see who is signed in, choose among accounts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age
from colab_bridge.cli.root import json_option
from colab_bridge.cli.sign_in import STORES, open_credentials, report_signed_in, sign_in_here

if TYPE_CHECKING:
    from colab_bridge.credentials.accounts import Account
    from colab_bridge.credentials.manager import Credentials, Standing

__all__ = ["auth"]

#: As AuthError's, so that scripts can tell it from a failure.
_NOBODY_STATUS = 77


@click.group()
def auth() -> None:
    """Sign in to Google, see who is signed in, choose among accounts.

    \b
      colab-bridge auth login --client FILE   with your own OAuth client (once), in the browser
      colab-bridge auth login --drive         allow Drive files of this app too
      colab-bridge auth login --no-browser    where there is no browser: paste an address
      colab-bridge auth use work              another account from now on
      colab-bridge config set account work --project   ... or only in this project

    A ready access token in COLAB_BRIDGE_ACCESS_TOKEN goes before all sign-ins. Application Default Credentials of
    gcloud are used when nobody is signed in here and they allow Colab.
    """


@auth.command()
@click.option("--client", "file", metavar="FILE", help="JSON file of your own OAuth client (Desktop app); remembered.")
@click.option("--account", metavar="EMAIL", help="Which account; Google's page is opened with it.")
@click.option("--name", default="", metavar="SHORT", help="Short name for the account, such as work.")
@click.option("--drive", is_flag=True, help="Also ask for Drive files that this app makes or opens.")
@click.option("--no-browser", is_flag=True, help="Open no browser; show the address and take what it leads to.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 3600), metavar="S", help="Seconds to wait (300).")
@click.option(
    "--from-google-colab-cli", "take_over", is_flag=True, help="Take over the sign-in of google-colab-cli instead."
)
@json_option
@click.pass_obj
def login(
    invocation: Invocation,
    file: str | None,
    account: str | None,
    name: str,
    drive: bool,
    no_browser: bool,
    timeout_s: float | None,
    take_over: bool,
) -> None:
    """Sign in, or sign in again; asks only for what is needed."""
    import anyio

    from colab_bridge.credentials.sign_in import DEFAULT_TIMEOUT_S, Wish
    from colab_bridge.model.credentials import COLAB_SCOPES, DRIVE_SCOPES

    credentials, settings = open_credentials(invocation)
    if drive and not account:  # more is asked of whoever is in use; a new account is named
        account = settings.account or credentials.accounts().current
    known = _known(credentials, account)
    wish = Wish(
        scopes=DRIVE_SCOPES if drive else COLAB_SCOPES,
        account=known.email if known else (account or ""),
        name=name,
        current=known is None,
        timeout_s=timeout_s or DEFAULT_TIMEOUT_S,
    )
    sign_in = partial(
        sign_in_here, invocation, wish, file=file, browser=not no_browser, take_over=take_over and file is None
    )
    done = anyio.run(sign_in)
    if invocation.as_json:
        view = done.account.to_json(credentials.accounts().current)
        invocation.console.json({**view, "missing": sorted(done.missing), "note": done.note})
    else:
        report_signed_in(invocation.console, done)


def _known(credentials: Credentials, name: str | None) -> Account | None:
    from colab_bridge.credentials.choice import resolve_name

    accounts = credentials.accounts()
    return accounts.accounts.get(resolve_name(name, accounts.names())) if name else None


def _foreign_file() -> Path | None:
    from colab_bridge.credentials.foreign import google_colab_cli_file

    return google_colab_cli_file(Path.home())


@auth.command()
@json_option
@click.pass_context
def status(context: click.Context) -> None:
    """Say who would be used here and where that sign-in is kept; asks nobody.

    Ends with 77 when there is no sign-in, or only one that has ended.
    """
    import anyio

    invocation: Invocation = context.obj
    credentials, settings = open_credentials(invocation)
    standing = anyio.run(credentials.standing, settings.account)
    if invocation.as_json:
        invocation.console.json(_standing_view(standing))
    else:
        _print_standing(invocation, standing)
    login = standing.accounts.accounts.get(standing.account) if standing.source == "login" else None
    usable = standing.source is not None and not (login is not None and login.ended)
    context.exit(0 if usable else _NOBODY_STATUS)


def _standing_view(standing: Standing) -> dict[str, Any]:
    book = standing.accounts
    return {
        "source": str(standing.source) if standing.source else None,
        "account": standing.account,
        "accounts": [account.to_json(book.current) for account in book.accounts.values()],
        "client_id": book.client_id,
        "adc": [str(file.path) for file in standing.adc],
        "google_colab_cli": str(_foreign_file() or "") or None,
        "place": standing.place,
    }


def _print_standing(invocation: Invocation, standing: Standing) -> None:
    from colab_bridge.credentials.choice import SourceKind
    from colab_bridge.credentials.failures import ended_error

    console = invocation.console
    book = standing.accounts
    if standing.source is SourceKind.GIVEN:
        console.out(f"account  {standing.account or 'of the access token'}, from COLAB_BRIDGE_ACCESS_TOKEN\n")
    elif standing.source is SourceKind.LOGIN:
        account = book.accounts[standing.account]
        console.out(f"account  {_described(account)}\n")
        if account.ended:
            problem = ended_error(account.email, account.ended)
            console.note(f"{problem.message}: {problem.hint}")
    elif standing.source is SourceKind.ADC:
        console.out(f"account  of {standing.adc[0].source} ({standing.adc[0].path})\n")
    else:
        console.out("account  nobody is signed in to Google\n")
        console.note("sign in: colab-bridge auth login")
        if (file := _foreign_file()) is not None:
            console.note(f"or take over google-colab-cli's ({file}): colab-bridge auth login --from-google-colab-cli")
    console.out(f"kept in  {standing.place}\n")
    if len(book.accounts) > 1:
        console.note(f"{len(book.accounts)} accounts are signed in: colab-bridge auth list")


def _described(account: Account) -> str:
    from colab_bridge.credentials.scopes import box_names
    from colab_bridge.model.credentials import DRIVE_SCOPES

    short = f" ({account.name})" if account.name else ""
    allowed = box_names(account.scopes & DRIVE_SCOPES)
    since = f"signed in {age(account.signed_in_at)} ago, {STORES[account.store]}"
    return f"{account.email}{short}, {since}; allowed: {allowed}"


@auth.command("list")
@json_option
@click.pass_obj
def list_accounts(invocation: Invocation) -> None:
    """List the accounts that are signed in."""
    credentials, _ = open_credentials(invocation)
    book = credentials.accounts()
    if invocation.as_json:
        accounts = [account.to_json(book.current) for account in book.accounts.values()]
        invocation.console.json({"accounts": accounts, "current": book.current or None})
        return
    if not book.accounts:
        invocation.console.note("nobody is signed in to Google: colab-bridge auth login")
        return
    rows = [
        [
            "*" if account.email == book.current else "",
            account.email,
            account.name or "-",
            account.ended or "ok",
            account.store,
            age(account.signed_in_at),
        ]
        for account in book.accounts.values()
    ]
    invocation.console.table(("", "account", "name", "state", "kept in", "since"), rows)


@auth.command()
@click.argument("account")
@json_option
@click.pass_obj
def use(invocation: Invocation, account: str) -> None:
    """Use ACCOUNT (address or short name) from now on, wherever a project does not choose another one."""
    credentials, _ = open_credentials(invocation)
    found = credentials.use(account)
    if invocation.as_json:
        invocation.console.json(found.to_json(found.email))
    else:
        invocation.console.note(f"{found.email} is used from now on")


@auth.command()
@click.argument("account", required=False)
@click.option("--all", "everybody", is_flag=True, help="All accounts.")
@click.option("--revoke", is_flag=True, help="Also take back at Google what was allowed.")
@json_option
@click.pass_obj
def logout(invocation: Invocation, account: str | None, everybody: bool, revoke: bool) -> None:
    """Forget the sign-in of ACCOUNT, or of the one in use, on this machine.

    At Google nothing changes without --revoke. Runtimes that run go on: see colab-bridge ps.
    """
    import anyio

    credentials, _ = open_credentials(invocation)
    names = list(credentials.accounts().accounts) if everybody else [account or ""]

    async def sign_out() -> list[str]:
        return [(await credentials.sign_out(name, revoke=revoke)).email for name in names]

    gone = anyio.run(sign_out)
    if invocation.as_json:
        invocation.console.json({"signed_out": gone, "current": credentials.accounts().current or None})
        return
    invocation.console.note(f"signed out: {', '.join(gone)}" if gone else "nobody was signed in")
