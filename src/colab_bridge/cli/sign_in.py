"""Signing in at a terminal: a browser is opened where there is one, an address is pasted where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from colab_bridge.cli.console import Console
from colab_bridge.cli.context import Invocation
from colab_bridge.errors import AuthError, UserError

if TYPE_CHECKING:
    from colab_bridge.config.settings import Settings
    from colab_bridge.credentials.client_file import OAuthClient
    from colab_bridge.credentials.manager import Credentials
    from colab_bridge.credentials.sign_in import SignedIn, Wish

__all__ = [
    "STORES",
    "TerminalFace",
    "has_browser",
    "offer_sign_in",
    "open_credentials",
    "report_signed_in",
    "sign_in_here",
]

#: Where a sign-in or a secret is, in words.
STORES = {"keychain": "in the keychain of this system", "file": "in an encrypted file"}
_MAX_LINE = 16 * 1024
_NEEDS_DRIVE = "CB-AUTH-021"
#: No sign-in, ended, a policy that asks again, a box that was not ticked, Drive not asked for yet.
_ASKS_FOR_SIGN_IN = frozenset({"CB-AUTH-010", "CB-AUTH-011", "CB-AUTH-012", "CB-AUTH-013", _NEEDS_DRIVE})
_DOC = "docs/how-to/sign-in.md"


def open_credentials(invocation: Invocation) -> tuple[Credentials, Settings]:
    """Return what there is to sign in with, and the settings that hold here.

    Raises:
        UserError: settings or our own files are broken.
    """
    # Here, because the two take 200 ms that commands need only when somebody has to sign in.
    from colab_bridge.config.settings import load_settings
    from colab_bridge.credentials.manager import Credentials

    settings = load_settings(invocation.paths, Path(invocation.project), os.environ).settings
    return Credentials(invocation.paths, os.environ, store=settings.credential_store), settings


def has_browser(environ: Mapping[str, str], platform: str) -> bool:
    """Return whether a browser of this person can be opened from here. Pure.

    Args:
        environ: Environment variables.
        platform: ``sys.platform`` of the machine.
    """
    if environ.get("BROWSER"):
        return True
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    if platform in ("win32", "darwin"):
        return True
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


class TerminalFace:
    """The :class:`~colab_bridge.credentials.sign_in.Face` of a terminal.

    Args:
        console: The terminal.
        browser: Whether to open a browser.
    """

    def __init__(self, console: Console, *, browser: bool) -> None:
        self._console = console
        self._browser = browser
        self._reads = not browser or console.in_tty
        self._lines: asyncio.Queue[str | None] | None = None
        self._stop: socket.socket | None = None

    def show(self, url: str) -> None:
        """Show the page's address, and open it where there is a browser."""
        if self._browser:
            self._console.note("your browser is opened; if it is not, open this page yourself:")
        else:
            self._console.note("open this page in any browser and agree:")
        self._console.err(f"\n  {url}\n\n")
        if self._reads:
            self._console.note(
                "if the browser then says that it cannot connect, paste the whole address that it shows here:"
            )
        if self._browser:
            threading.Thread(target=self._open, args=(url,), daemon=True, name="browser").start()

    def _open(self, url: str) -> None:
        import webbrowser  # here because only a sign-in needs it

        try:
            opened = webbrowser.open(url)
        except (webbrowser.Error, OSError):
            opened = False
        if not opened:
            self._console.note("no browser could be opened; open the address above yourself")

    async def pasted(self) -> str | None:
        """Wait for a line of standard input."""
        if not self._reads or sys.stdin is None:
            return None
        if self._lines is None:
            self._lines = asyncio.Queue()
            loop = asyncio.get_running_loop()
            # A daemon thread, because nothing can end its wait and it must not keep this process.
            stopped, self._stop = socket.socketpair()
            arguments = (loop, self._lines, stopped)
            threading.Thread(target=_read_lines, args=arguments, daemon=True, name="paste").start()
        return await self._lines.get()

    def close(self) -> None:
        """Read standard input no more: what is typed from now on is for the command."""
        if self._stop is not None:
            self._stop.close()

    def complain(self, text: str) -> None:
        """Say why a line is of no use."""
        self._console.note(text)


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None], stopped: socket.socket) -> None:
    """Read standard input without Python's buffer, whose lock would hang this process at its end."""
    pending = b""
    with stopped, contextlib.suppress(RuntimeError):  # the loop has ended, nobody listens any more
        while len(pending) < _MAX_LINE:
            # Consoles of Windows cannot be waited for together with anything else.
            if os.name == "posix" and stopped.fileno() in select.select([0, stopped.fileno()], [], [])[0]:
                return
            try:
                piece = os.read(0, 4096)
            except OSError:
                piece = b""
            if not piece:
                break
            *complete, pending = (pending + piece).split(b"\n")
            for line in complete:
                loop.call_soon_threadsafe(lines.put_nowait, line.decode("utf-8", "replace"))
        if pending:
            loop.call_soon_threadsafe(lines.put_nowait, pending.decode("utf-8", "replace"))
        loop.call_soon_threadsafe(lines.put_nowait, None)


async def _find_client(
    credentials: Credentials, settings: Settings, *, file: str | None, account: str
) -> OAuthClient | None:
    """Return the OAuth client to sign in with: from a file, the account's own one, or the one given before.

    Args:
        credentials: What there is.
        settings: May name a file.
        file: Path from the command line.
        account: Address of a signed in account that is to sign in again; empty for another one.

    Raises:
        UserError: a file is not usable.
        AuthError: what was given before cannot be read from here.
    """
    from colab_bridge.credentials.client_file import read_client

    named = file or settings.oauth_client
    if named:
        return read_client(Path(named).expanduser())
    return await credentials.client_of(account) or await credentials.client()


async def sign_in_here(
    invocation: Invocation, wish: Wish, *, file: str | None = None, browser: bool = True, take_over: bool = False
) -> SignedIn:
    """Sign somebody in at this terminal.

    Args:
        invocation: This call.
        wish: What is asked for.
        file: Path of an OAuth client's file.
        browser: Whether a browser may be opened.
        take_over: Take over google-colab-cli's sign-in without a question.

    Raises:
        AuthError: it did not come about.
        UserError: there is no OAuth client yet.
    """
    from colab_bridge.credentials.foreign import google_colab_cli_file, read_google_colab_cli
    from colab_bridge.credentials.sign_in import SignIn

    credentials, settings = open_credentials(invocation)
    client = None if take_over else await _find_client(credentials, settings, file=file, account=wish.account)
    if client is not None:
        opens = browser and has_browser(os.environ, sys.platform)
        with contextlib.closing(TerminalFace(invocation.console, browser=opens)) as face:
            return await SignIn(credentials).ask(client, wish, face)
    other = google_colab_cli_file(Path.home())
    if other is not None and (take_over or _wants_take_over(invocation, other)):
        return await SignIn(credentials).take_over(read_google_colab_cli(other), wish)
    if take_over:
        raise UserError(
            "google-colab-cli is not signed in on this machine",
            hint="sign in with your own OAuth client: colab-bridge auth login --client FILE",
            code="CB-USER-075",
        )
    raise UserError(
        f"signing in needs an OAuth client of your own, which takes five minutes once (how: {_DOC})",
        hint="colab-bridge auth login --client FILE",
        code="CB-USER-079",
    )


def _wants_take_over(invocation: Invocation, file: Path) -> bool:
    if not invocation.console.interactive:
        return False
    return click.confirm(f"google-colab-cli is signed in here ({file}). Take its sign-in over?", err=True)


def offer_sign_in(invocation: Invocation, error: AuthError, *, drive: bool = False) -> bool:
    """Sign in right now where a person is at the terminal and that is what an error asks for.

    Args:
        invocation: This call.
        error: What the daemon has reported before anything was begun.
        drive: Whether the call needs Drive too, so that it is asked for in the same consent.

    Returns:
        Whether somebody is signed in now, so that the call is worth another try.

    Raises:
        AuthError: the sign-in did not come about.
        UserError: there is no OAuth client yet.
    """
    if error.code not in _ASKS_FOR_SIGN_IN or not invocation.console.interactive or invocation.as_json:
        return False
    import anyio

    from colab_bridge.credentials.choice import resolve_name
    from colab_bridge.credentials.sign_in import Wish
    from colab_bridge.model.credentials import COLAB_SCOPES, DRIVE_SCOPES

    credentials, settings = open_credentials(invocation)
    known = credentials.accounts()
    invocation.console.note(error.message)
    account = resolve_name(settings.account or known.current, known.names())
    scopes = DRIVE_SCOPES if drive or error.code == _NEEDS_DRIVE else COLAB_SCOPES
    wish = Wish(scopes=scopes, account=account, current=not known.accounts)
    report_signed_in(invocation.console, anyio.run(partial(sign_in_here, invocation, wish)))
    return True


def report_signed_in(console: Console, done: SignedIn) -> None:
    """Say who is signed in now, with what, and where it is kept."""
    from colab_bridge.credentials.scopes import box_names
    from colab_bridge.model.credentials import DRIVE_SCOPES

    console.note(f"signed in as {done.account.email}; allowed: {box_names(done.account.scopes & DRIVE_SCOPES)}")
    console.note(done.note or f"kept {STORES[done.account.store]}")
    if done.missing:
        console.note(
            f"{box_names(done.missing)} was not ticked; Colab works without it. When you need it: "
            "colab-bridge auth login --drive"
        )
