"""The Drive client against a small strict Drive of ours, played in process: Google cannot be reached here."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest

from colab_bridge.config.services import ServiceUrls
from colab_bridge.drive import client as drive_client
from colab_bridge.drive.client import DriveClient
from colab_bridge.errors import AuthError, QuotaError, TransientError, UserError
from colab_bridge.model.credentials import DRIVE_SCOPES, AccessToken
from colab_bridge.model.runtime import Secret

BASE = "https://drive.example"


class Tokens:
    """Gives tokens; each stale one is followed by the next."""

    def __init__(self) -> None:
        self.number = 1

    async def token(
        self, *, account: str = "", scopes: frozenset[str] = frozenset(), stale: AccessToken | None = None
    ) -> AccessToken:
        assert scopes == DRIVE_SCOPES
        if stale is not None and stale.value.reveal() == f"t{self.number}":
            self.number += 1
        return AccessToken(value=Secret(f"t{self.number}"), quota_project="proj")


class Drive:
    """Keeps files; refuses what Drive refuses; fails when told to."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.failures: list[tuple[int, bytes] | None] = []
        self.valid = "t1"
        self.shared: list[tuple[str, str]] = []
        self.requests: list[str] = []
        self.keep_only: int | None = None

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        assert request.headers["x-goog-user-project"] == "proj"
        if self.failures:
            failure = self.failures.pop(0)
            if failure is None:
                raise httpx2.ConnectError("cut")
            return httpx2.Response(failure[0], content=failure[1])
        if request.headers["authorization"] != f"Bearer {self.valid}":
            return httpx2.Response(401, json={"error": {"code": 401}})
        if path.endswith("/permissions"):
            return self._permissions(request)
        if path.startswith("/upload/drive/v3/files"):
            return self._piece(request) if "upload_id" in request.url.params else self._begin(request)
        assert path == "/drive/v3/files"
        key = request.url.params["q"].split("value='")[1].split("'")[0]
        found = [f for f in self.files.values() if f["key"] == key]
        return httpx2.Response(200, json={"files": [{"id": f["id"], "name": f["name"]} for f in found]})

    def _begin(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.params["uploadType"] == "resumable"
        metadata = json.loads(request.content)
        file_id = request.url.path.rpartition("/files")[2].strip("/")
        upload = f"u{len(self.uploads)}"
        self.uploads[upload] = {"id": file_id, "metadata": metadata, "data": b""}
        return httpx2.Response(
            200, headers={"location": f"{BASE}{request.url.path}?uploadType=resumable&upload_id={upload}"}
        )

    def _piece(self, request: httpx2.Request) -> httpx2.Response:
        upload = self.uploads[request.url.params["upload_id"]]
        span, _, total = request.headers["content-range"].removeprefix("bytes ").partition("/")
        if span != "*":
            first, last = map(int, span.split("-"))
            assert first == len(upload["data"])
            assert last - first + 1 == len(request.content)
            taken = request.content if self.keep_only is None else request.content[: self.keep_only]
            self.keep_only = None
            upload["data"] += taken
        if len(upload["data"]) < int(total):
            held = len(upload["data"])
            headers = {"range": f"bytes=0-{held - 1}"} if held else {}
            return httpx2.Response(308, headers=headers)
        file_id = upload["id"] or f"f{len(self.files) + 1}"
        key = upload["metadata"].get("appProperties", {}).get("colabBridge") or self.files[file_id]["key"]
        self.files[file_id] = {
            "id": file_id,
            "name": upload["metadata"]["name"],
            "key": key,
            "data": upload["data"],
            "type": upload["metadata"]["mimeType"],
        }
        return httpx2.Response(
            200, json={"id": file_id, "name": upload["metadata"]["name"], "webViewLink": "https://x"}
        )

    def _permissions(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json={"permissions": [{"emailAddress": "Old@x.org", "role": "reader"}]})
        assert request.url.params["sendNotificationEmail"] == "false"
        body = json.loads(request.content)
        self.shared.append((body["emailAddress"], body["role"]))
        return httpx2.Response(200, json={"id": "p"})


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    made = Drive()
    monkeypatch.setattr(drive_client, "FIRST_PAUSE_S", 0.0)

    async def client(_self: DriveClient) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(made.handle))

    monkeypatch.setattr(DriveClient, "_client", client)
    return made


@pytest.fixture
def client(drive: Drive) -> DriveClient:
    return DriveClient(Tokens(), ServiceUrls(drive=BASE))


async def test_a_notebook_is_made_once_and_updated_after_that(drive: Drive, client: DriveClient) -> None:
    first = await client.put_notebook("k", "a.ipynb", b"{}")
    second = await client.put_notebook("k", "a.ipynb", b'{"cells": []}')
    assert (first.created, second.created) == (True, False)
    assert first.id == second.id
    assert [f["data"] for f in drive.files.values()] == [b'{"cells": []}']
    assert next(iter(drive.files.values()))["type"] == "application/vnd.google.colaboratory"


async def test_two_notebooks_of_one_name_stay_two(drive: Drive, client: DriveClient) -> None:
    await client.put_notebook("k1", "a.ipynb", b"1")
    await client.put_notebook("k2", "a.ipynb", b"2")
    assert sorted(f["data"] for f in drive.files.values()) == [b"1", b"2"]


async def test_a_large_file_goes_up_in_pieces(
    drive: Drive, client: DriveClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive_client, "PIECE_BYTES", 4)
    await client.put_notebook("k", "a.ipynb", b"0123456789")
    assert next(iter(drive.files.values()))["data"] == b"0123456789"
    assert sum(request.startswith("PUT") for request in drive.requests) == 3


async def test_after_a_cut_the_upload_goes_on_where_drive_stands(
    drive: Drive, client: DriveClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive_client, "PIECE_BYTES", 4)
    plain = drive._piece
    cuts = [True]

    def cut_once(request: httpx2.Request) -> httpx2.Response:
        if cuts and request.headers["content-range"].startswith("bytes 4-"):
            cuts.clear()
            drive.keep_only = 2  # half of the piece arrived, the answer did not
            plain(request)
            raise httpx2.ReadError("cut")
        return plain(request)

    monkeypatch.setattr(drive, "_piece", cut_once)
    await client.put_notebook("k", "a.ipynb", b"0123456789")
    assert not cuts
    assert next(iter(drive.files.values()))["data"] == b"0123456789"


async def test_an_empty_file_can_be_kept_too(drive: Drive, client: DriveClient) -> None:
    await client.put_notebook("k", "a.ipynb", b"")
    assert next(iter(drive.files.values()))["data"] == b""


async def test_a_refused_token_is_renewed_once(drive: Drive, client: DriveClient) -> None:
    drive.valid = "t2"
    assert (await client.put_notebook("k", "a.ipynb", b"x")).created


async def test_a_sign_in_that_stays_refused_is_said(drive: Drive, client: DriveClient) -> None:
    drive.valid = "never"
    with pytest.raises(AuthError) as caught:
        await client.put_notebook("k", "a.ipynb", b"x")
    assert caught.value.hint == "colab-bridge auth login"


async def test_a_busy_drive_is_asked_again(drive: Drive, client: DriveClient) -> None:
    slow = json.dumps({"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}).encode()
    drive.failures = [(403, slow), None, (503, b"")]
    assert (await client.put_notebook("k", "a.ipynb", b"x")).created


async def test_a_drive_that_never_answers_is_said(drive: Drive, client: DriveClient) -> None:
    drive.failures = [None] * 50
    with anyio.fail_after(5), pytest.raises(TransientError):
        await client.put_notebook("k", "a.ipynb", b"x")


@pytest.mark.parametrize(
    ("status", "reason", "error", "hint"),
    [
        (403, "insufficientPermissions", AuthError, "colab-bridge auth login --drive"),
        (403, "accessNotConfigured", UserError, "enable it"),
        (403, "storageQuotaExceeded", QuotaError, "free some space"),
        (403, "somethingNew", UserError, "whoami"),
        (404, "notFound", UserError, "whoami"),
    ],
)
async def test_each_refusal_names_what_helps(
    drive: Drive, client: DriveClient, status: int, reason: str, error: type[Exception], hint: str
) -> None:
    drive.failures = [(status, json.dumps({"error": {"message": "m", "errors": [{"reason": reason}]}}).encode())]
    with pytest.raises(error) as caught:
        await client.put_notebook("k", "a.ipynb", b"x")
    assert hint in getattr(caught.value, "hint", "")


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"error": 1}', b'{"error": {"errors": [1, {}]}}'])
async def test_an_error_body_of_any_form_is_survived(drive: Drive, client: DriveClient, body: bytes) -> None:
    drive.failures = [(400, body)]
    with pytest.raises(UserError):
        await client.put_notebook("k", "a.ipynb", b"x")


async def test_an_upload_address_elsewhere_gets_no_token(drive: Drive, client: DriveClient) -> None:
    begin = drive._begin

    def elsewhere(request: httpx2.Request) -> httpx2.Response:
        begin(request)
        return httpx2.Response(200, headers={"location": "https://evil.example/upload/drive/v3/files?upload_id=u0"})

    drive._begin = elsewhere  # type: ignore[method-assign]
    with pytest.raises(TransientError):
        await client.put_notebook("k", "a.ipynb", b"x")
    assert not [request for request in drive.requests if request.startswith("PUT")]


async def test_only_new_people_are_invited_and_nobody_gets_a_mail(drive: Drive, client: DriveClient) -> None:
    new = await client.share("f1", ["old@x.org", "ada@x.org", "ada@x.org"])
    assert new == ["ada@x.org"]
    assert drive.shared == [("ada@x.org", "reader")]
