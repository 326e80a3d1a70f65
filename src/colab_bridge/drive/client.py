"""Uploads files of ours to Google Drive, finds them again, and shares them.

A file is found by a property that only our own OAuth client sees, because names in Drive are not unique.

Source: Drive API v3, ``files`` and ``permissions``; "Upload file data", resumable uploads.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx2

from colab_bridge._util.https import explained, open_client
from colab_bridge.config.services import ServiceUrls
from colab_bridge.drive.answers import error_of, reasons_of, worth_a_retry
from colab_bridge.errors import TransientError
from colab_bridge.model.credentials import DRIVE_SCOPES, AccessToken
from colab_bridge.ports.credentials import TokenSource

__all__ = ["DriveClient", "DriveFile"]

log = logging.getLogger(__name__)

#: Drive takes pieces of a resumable upload in multiples of 256 KiB.
PIECE_BYTES: Final = 8 * 1024 * 1024
TRIES: Final = 5
FIRST_PAUSE_S: Final = 1.0
CALL_S: Final = 120.0
CONNECT_S: Final = 10.0

_KEY: Final = "colabBridge"
_FIELDS: Final = "id,name,webViewLink"
_NOTEBOOK: Final = "application/vnd.google.colaboratory"
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveFile:
    """A file in Drive.

    Attributes:
        id: Drive's id.
        name: Its name there.
        link: Page that opens it; empty when Drive does not say.
        created: Whether it was made just now.
    """

    id: str
    name: str
    link: str = ""
    created: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    body: bytes
    headers: httpx2.Headers

    def fields(self, doing: str) -> dict[str, Any]:
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise TransientError(f"Google Drive gave no readable answer to the {doing}", hint="try again")
        return document


class DriveClient:
    """Calls Drive for the account in use. Every call has a deadline and raises only :mod:`colab_bridge.errors`.

    Args:
        tokens: Where access tokens come from.
        urls: Where Drive is.
        account: E-mail address; the account in use when empty.
    """

    def __init__(self, tokens: TokenSource, urls: ServiceUrls, *, account: str = "") -> None:
        self._tokens = tokens
        self._base = urls.drive
        self._account = account

    async def put_notebook(self, key: str, name: str, content: bytes) -> DriveFile:
        """Make or update the notebook that we keep under a key.

        Args:
            key: Our own name for it, at most 100 characters.
            name: Its name in Drive.
            content: The ``.ipynb`` file.

        Raises:
            AuthError: there is no sign-in for Drive.
            QuotaError: there is no room.
            TransientError: Drive does not answer.
            UserError: no call can work, for want of a certificate or a proxy.
        """
        doing = f"upload of {name[:100]}"
        async with await self._client() as client:
            found = await self._find(client, key)
            metadata: dict[str, Any] = {"name": name, "mimeType": _NOTEBOOK}
            if found is None:
                metadata["appProperties"] = {_KEY: key}
            method, path = ("POST", "") if found is None else ("PATCH", f"/{found.id}")
            answer = await self._upload(client, method, path, metadata, content, doing)
        return _file(answer.fields(doing), created=found is None)

    async def share(self, file_id: str, emails: Sequence[str], *, role: str = "reader") -> list[str]:
        """Let people see a file, without a mail to them.

        Args:
            file_id: Drive's id.
            emails: Addresses.
            role: ``reader``, ``commenter`` or ``writer``.

        Returns:
            The addresses that could not see it before.
        """
        async with await self._client() as client:
            path = f"/drive/v3/files/{file_id}/permissions"
            listed = await self._call(
                client, "GET", path, "look at who sees a file", query={"fields": "permissions(emailAddress,role)"}
            )
            entries = listed.fields("look at who sees a file").get("permissions")
            seen = {
                str(entry.get("emailAddress", "")).lower()
                for entry in (entries if isinstance(entries, list) else [])
                if isinstance(entry, dict) and entry.get("role") in (role, "owner", "writer")
            }
            new = [email for email in dict.fromkeys(emails) if email.lower() not in seen]
            for email in new:
                body = json.dumps({"type": "user", "role": role, "emailAddress": email}).encode()
                query = {"sendNotificationEmail": "false"}
                await self._call(client, "POST", path, f"sharing with {email[:100]}", query=query, body=body)
        return new

    # -- calls -----------------------------------------------------------------------------------------------

    async def _find(self, client: httpx2.AsyncClient, key: str) -> DriveFile | None:
        escaped = key.replace("\\", "\\\\").replace("'", "\\'")
        query = {
            "q": f"appProperties has {{ key='{_KEY}' and value='{escaped}' }} and trashed = false",
            "fields": f"files({_FIELDS})",
            "orderBy": "modifiedTime desc",
            "pageSize": "1",
        }
        answer = await self._call(client, "GET", "/drive/v3/files", "search for the notebook", query=query)
        files = answer.fields("search for the notebook").get("files")
        if not isinstance(files, list) or not files or not isinstance(files[0], dict):
            return None
        return _file(files[0], created=False)

    async def _upload(
        self, client: httpx2.AsyncClient, method: str, path: str, metadata: dict[str, Any], content: bytes, doing: str
    ) -> _Answer:
        """Send a file by a resumable upload: after a cut it goes on where Drive stands."""
        begun = await self._call(
            client,
            method,
            f"/upload/drive/v3/files{path}",
            doing,
            query={"uploadType": "resumable", "fields": _FIELDS},
            body=json.dumps(metadata).encode(),
            headers={"X-Upload-Content-Type": _NOTEBOOK, "X-Upload-Content-Length": str(len(content))},
        )
        return await self._pieces(client, self._same_host(begun.headers.get("location", ""), doing), content, doing)

    async def _pieces(self, client: httpx2.AsyncClient, where: str, content: bytes, doing: str) -> _Answer:
        size, sent, failures = len(content), 0, 0
        asking = False
        while True:
            if asking:  # something went wrong: where does Drive stand?
                piece, span = b"", f"bytes */{size}"
            else:
                piece = content[sent : sent + PIECE_BYTES]
                span = f"bytes {sent}-{sent + len(piece) - 1}/{size}" if piece else f"bytes */{size}"
            answer = await self._once(client, "PUT", where, body=piece, headers={"Content-Range": span})
            if answer is not None and answer.status == 308:
                if (now := _received(answer.headers)) > sent:
                    failures = 0
                sent, asking = min(now, size), False
            elif answer is not None and answer.status < 300:
                return answer
            elif answer is not None and not worth_a_retry(answer.status, reasons_of(answer.body)):
                raise error_of(answer.status, answer.body, doing=doing)
            else:
                asking = True
            failures += 1
            if failures > TRIES:
                raise _silent(doing)
            if asking:
                await anyio.sleep(FIRST_PAUSE_S * 2 ** (failures - 1))

    def _same_host(self, address: str, doing: str) -> str:
        """Return the path of an upload's address; a foreign host would get our token."""
        there, here = urlsplit(address), urlsplit(self._base)
        if (there.scheme, there.netloc) != (here.scheme, here.netloc) or not there.path.startswith("/upload/"):
            raise TransientError(f"Google Drive gave no usable address for the {doing}", hint="try again")
        return f"{there.path}?{there.query}" if there.query else there.path

    async def _call(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        """Make one call, again after a pause where that helps; ``doing`` is for messages."""
        for attempt in range(TRIES):
            answer = await self._once(client, method, path, query=query, body=body, headers=headers)
            if answer is not None and answer.status < 300:
                return answer
            if answer is not None and not worth_a_retry(answer.status, reasons_of(answer.body)):
                raise error_of(answer.status, answer.body, doing=doing)
            if attempt < TRIES - 1:
                await anyio.sleep(FIRST_PAUSE_S * 2**attempt)
        raise _silent(doing)

    async def _once(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer | None:
        """Send one request, with another token when the first is refused; None when no answer came."""
        token = await self._tokens.token(account=self._account, scopes=DRIVE_SCOPES)
        answer = await self._send(client, method, path, token, query=query, body=body, headers=headers)
        if answer is not None and answer.status == 401:
            token = await self._tokens.token(account=self._account, scopes=DRIVE_SCOPES, stale=token)
            answer = await self._send(client, method, path, token, query=query, body=body, headers=headers)
        return answer

    async def _send(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        token: AccessToken,
        *,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> _Answer | None:
        sent = {"Authorization": f"Bearer {token.value.reveal()}", **(headers or {})}
        if token.quota_project:
            sent["x-goog-user-project"] = token.quota_project
        if method in ("POST", "PATCH"):
            sent["Content-Type"] = "application/json; charset=UTF-8"
        url = self._base + path
        try:
            with anyio.fail_after(CALL_S):
                async with client.stream(
                    method, url, params=dict(query) if query else None, content=body, headers=sent
                ) as response:
                    return _Answer(status=response.status_code, body=await _bounded(response), headers=response.headers)
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            if (for_people := explained(error, url)) is not None:
                raise for_people from None  # the exception holds the request, and so the token
            log.info("no answer of Drive", extra={"method": method, "reason": type(error).__name__})
            return None

    async def _client(self) -> httpx2.AsyncClient:
        return await open_client(self._base, call_s=CALL_S, connect_s=CONNECT_S)


async def _bounded(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise TransientError("Google Drive's answer is far too long", hint="try again")
    return bytes(body)


def _silent(doing: str) -> TransientError:
    return TransientError(
        f"Google Drive did not take the {doing} in {TRIES} tries",
        hint="check the network, then try again",
        code="CB-DRIVE-002",
    )


def _file(fields: Mapping[str, Any], *, created: bool) -> DriveFile:
    file_id = fields.get("id")
    if not isinstance(file_id, str) or not file_id.replace("-", "").replace("_", "").isalnum():
        raise TransientError("protocol changed: drive.files.id", hint="update colab-bridge")
    return DriveFile(
        id=file_id, name=str(fields.get("name", "")), link=str(fields.get("webViewLink", "")), created=created
    )


def _received(headers: httpx2.Headers) -> int:
    """Return how many bytes Drive has; its answer names the last of them, and nothing when it has none."""
    last = headers.get("range", "").rpartition("-")[2]
    return int(last) + 1 if last.isdigit() else 0
