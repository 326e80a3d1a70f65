"""Answers what code on a runtime of an account asks of its user's machine.

======================  ==================================================================================
request                 answer
======================  ==================================================================================
``request_auth``        the user's credentials are handed to the runtime, after consent where that is needed
``GetSecret``           a secret that the user has set, where the project is approved for it
``files.upload()``      files that the user names in the cell
``files.download()``    the file comes into the project's folder ``downloads``
other JavaScript        an error at once: there is no browser page here, and a call without an answer hangs
anything else           an acknowledgement where the kernel ignores the answer, an error where it does not
======================  ==================================================================================

Every request that waits gets an answer within its time, whatever happens.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread

from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.model.runtime import RuntimeHandle
from colab_bridge.ports.account import AccountProvider, CredentialKind
from colab_bridge.ports.secrets import SecretStore
from colab_bridge.ports.side import SideLine
from colab_bridge.sessions.side_downloads import Downloads
from colab_bridge.sessions.side_files import picked_files, pieces_of
from colab_bridge.wire.colab_side import AUTH_DRIVE, AUTH_USER, DownloadOffer, SideRequest, UploadFeed, upload_step
from colab_bridge.wire.message import RawMessage

__all__ = ["SideAccount", "SideRequests"]

log = logging.getLogger(__name__)

#: drive.mount() waits 120 s by default and then goes on without credentials; the answer must come before.
DRIVE_WAIT_S: Final = 110.0
#: authenticate_user() waits for ever; a person has this long to agree.
USER_WAIT_S: Final = 600.0
#: How often the service is asked whether the user has agreed; it has no event for it.
CONSENT_POLL_S: Final = 5.0
#: userdata.get() waits 10 s.
SECRET_WAIT_S: Final = 8.0

_KINDS: Final[dict[object, CredentialKind]] = {AUTH_DRIVE: "drive", AUTH_USER: "user"}
_WAITS: Final[dict[CredentialKind, float]] = {"drive": DRIVE_WAIT_S, "user": USER_WAIT_S}
_ACKNOWLEDGED: Final = frozenset({"add_scratch_cell", "register_snippets"})
_UPLOAD_TRIES: Final = 3
_MAX_KEY: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SideAccount:
    """For whom requests of a session are answered.

    Attributes:
        project: Absolute path of the project's root.
        provider: Where its runtime comes from.
        handle: Its runtime.
    """

    project: str
    provider: AccountProvider
    handle: RuntimeHandle


class SideRequests:
    """The desk for one session; implements :class:`~colab_bridge.ports.side.SideDesk`.

    Args:
        account: Returns for whom requests are answered now.
        secrets: Where secrets come from.
        tasks: Owner of the work.
    """

    def __init__(self, account: Callable[[], SideAccount], secrets: SecretStore, tasks: anyio.abc.TaskGroup) -> None:
        self._account = account
        self._secrets = secrets
        self._tasks = tasks
        self._feeds: dict[str, UploadFeed] = {}
        self._downloads = Downloads(lambda: Path(account().project), tasks)

    # -- SideDesk --------------------------------------------------------------------------------------------

    def asked(self, line: SideLine, request: SideRequest) -> None:
        """Take a request."""
        self._tasks.start_soon(self._answer, line, request)

    def offered(self, line: SideLine, offer: DownloadOffer) -> bool:
        """Fetch a file that the kernel has ready."""
        return self._downloads.begin(line, offer)

    def heard(self, line: SideLine, message: RawMessage) -> bool:
        """Take a message of a comm; False when it is none of a download."""
        return self._downloads.heard(line, message)

    # -- answers ---------------------------------------------------------------------------------------------

    async def _answer(self, line: SideLine, request: SideRequest) -> None:
        """Task root: answer one request."""
        try:
            await self._handler(request.kind)(line, request)
        except ColabBridgeError as error:
            line.fail(request, f"{error.message}; {error.hint}" if error.hint else error.message)
        except Exception as error:
            log.exception("side request failed", extra={"kind": request.kind[:100]})
            line.fail(request, f"colab-bridge failed to answer {request.kind[:100]}: {type(error).__name__}")

    def _handler(self, kind: str) -> Callable[[SideLine, SideRequest], Awaitable[None]]:
        if kind in _ACKNOWLEDGED:
            return self._acknowledge
        handlers = {
            "request_auth": self._authorise,
            "GetSecret": self._secret,
            "cell_javascript_eval": self._javascript,
        }
        return handlers.get(kind, self._unknown)

    async def _acknowledge(self, line: SideLine, request: SideRequest) -> None:
        line.answer(request, None)

    async def _unknown(self, line: SideLine, request: SideRequest) -> None:
        line.fail(request, f"colab-bridge does not know the request {request.kind[:100]!r}")

    # -- credentials -----------------------------------------------------------------------------------------

    async def _authorise(self, line: SideLine, request: SideRequest) -> None:
        kind = _KINDS.get(request.fields.get("authType"))
        if kind is None:
            line.fail(request, f"colab-bridge does not know the sign-in {str(request.fields.get('authType'))[:100]!r}")
            return
        with anyio.move_on_after(_WAITS[kind]):
            await self._propagate(line, kind)
            line.answer(request, None)
            return
        line.fail(request, "nobody agreed in time; run the cell again and agree on the page that is shown")

    async def _propagate(self, line: SideLine, kind: CredentialKind) -> None:
        """Hand credentials to the runtime; waits for the user's consent where it is needed."""
        account = self._account()
        first = await account.provider.propagate(account.handle, kind, dry_run=True)
        if not first.granted:
            if not first.consent_url:
                raise UserError("Google does not give these credentials to the runtime", hint="colab-bridge whoami")
            who = account.handle.account or await account.provider.account() or "the account of this runtime"
            line.say(f"To go on, open this page as {who} and tick every box:\n{first.consent_url}")
        while not (await account.provider.propagate(account.handle, kind, dry_run=False)).granted:
            if first.granted:
                raise UserError("the runtime did not get the credentials", hint="run the cell again")
            await anyio.sleep(CONSENT_POLL_S)

    # -- secrets ---------------------------------------------------------------------------------------------

    async def _secret(self, line: SideLine, request: SideRequest) -> None:
        name = str(request.fields.get("key", ""))[:_MAX_KEY]
        with anyio.move_on_after(SECRET_WAIT_S):
            answer = await self._secrets.get(self._account().project, name)
            if answer.value is not None:
                line.hide(answer.value.reveal())
                line.answer(request, {"exists": True, "access": True, "payload": answer.value.reveal()})
                return
            line.answer(request, {"exists": answer.found, "access": False})
            shown = name if name.isidentifier() else "NAME"
            if answer.found:
                line.say(f"This project may not read the secret {shown} yet: colab-bridge secret allow {shown}")
            else:
                line.say(f"There is no secret {shown}: colab-bridge secret set {shown}")
            return
        line.fail(request, "the keychain of your machine did not answer in time; run the cell again")

    # -- JavaScript ------------------------------------------------------------------------------------------

    async def _javascript(self, line: SideLine, request: SideRequest) -> None:
        step = upload_step(request.fields.get("script"))
        if step is None:
            line.fail(
                request,
                "this call needs a page in a browser, which colab-bridge has not; open the notebook there: "
                "colab-bridge url --open",
            )
        elif step.first:
            await self._begin_upload(line, request)
        elif (feed := self._feeds.get(line.kernel_id)) is None:
            line.fail(request, "this upload is over; run files.upload() again")
        else:
            await self._next_piece(line, request, feed)

    async def _begin_upload(self, line: SideLine, request: SideRequest) -> None:
        for _ in range(_UPLOAD_TRIES):
            answer = await line.ask("Files to upload from this machine (separate with ;, empty to cancel): ")
            if answer is None:
                line.fail(
                    request,
                    "files.upload() needs somebody who names a file, and this run takes no input; put the file "
                    "into the project folder instead, it is there on the runtime too",
                )
                return
            try:
                files = await anyio.to_thread.run_sync(picked_files, answer, Path(self._account().project))
            except UserError as error:
                line.say(f"{error.message}; {error.hint}")
                continue
            feed = self._feeds[line.kernel_id] = UploadFeed(pieces_of(files))
            line.answer(request, feed.start())
            return
        line.fail(request, f"no file was named in {_UPLOAD_TRIES} tries")

    async def _next_piece(self, line: SideLine, request: SideRequest, feed: UploadFeed) -> None:
        try:
            result: dict[str, Any] = await anyio.to_thread.run_sync(feed.next)
        except OSError as error:
            self._feeds.pop(line.kernel_id, None)
            line.fail(request, f"a file cannot be read any more: {error.strerror}")
            return
        if result["action"] == "complete":
            self._feeds.pop(line.kernel_id, None)
        line.answer(request, result)
