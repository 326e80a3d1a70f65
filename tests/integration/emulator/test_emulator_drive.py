"""Drive as the emulator plays it."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx2
import pytest

from colab_bridge.testing.colab import ColabEmulator
from colab_bridge.testing.colab.identity import (
    CLOUD_SDK_CLIENT,
    DESKTOP_CLIENT,
    SCOPE_COLAB,
    SCOPE_DRIVE,
    SCOPE_DRIVE_FILE,
    SCOPE_EMAIL,
)
from emulator_caller import Caller, open_caller

FILES, UPLOAD = "/drive/v3/files", "/upload/drive/v3/files"
CHUNK = 256 * 1024
FOLDER = "application/vnd.google-apps.folder"


def granted(colab: ColabEmulator, *scopes: str, client_id: str = DESKTOP_CLIENT) -> str:
    email = colab.options.email
    return colab.identity.access_token(account=email, scopes=frozenset(scopes), client_id=client_id).value


async def put(caller: Caller, name: str, content: bytes, **metadata: Any) -> str:
    """Upload a small file with its description; return its id."""
    description = json.dumps({"name": name, **metadata}).encode()
    body = (
        b"--b\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        + description
        + b"\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n"
        + content
        + b"\r\n--b--\r\n"
    )
    answer = await caller.call(
        "POST",
        "drive",
        UPLOAD,
        params={"uploadType": "multipart"},
        content=body,
        headers={"Content-Type": "multipart/related; boundary=b"},
    )
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"kind", "id", "name", "mimeType"}
    return str(answer.json()["id"])


async def listed(caller: Caller, **query: str) -> list[str]:
    answer = await caller.call("GET", "drive", FILES, params=query)
    assert answer.status_code == 200, answer.text
    return [file["name"] for file in answer.json()["files"]]


async def test_a_file_goes_up_and_comes_down(caller: Caller) -> None:
    content = bytes(range(256)) * 100
    file_id = await put(caller, "a.bin", content)
    down = await caller.call("GET", "drive", f"{FILES}/{file_id}", params={"alt": "media"})
    assert down.content == content
    ranged = await caller.call(
        "GET", "drive", f"{FILES}/{file_id}", params={"alt": "media"}, headers={"Range": "bytes=10-19"}
    )
    assert (ranged.status_code, ranged.content) == (206, content[10:20])
    assert ranged.headers["content-range"] == f"bytes 10-19/{len(content)}"
    told = await caller.call("GET", "drive", f"{FILES}/{file_id}", params={"fields": "size,md5Checksum,parents"})
    assert told.json()["size"] == "25600"
    assert len(told.json()["parents"]) == 1


async def test_folders_searches_and_pages(caller: Caller) -> None:
    made = await caller.call("POST", "drive", FILES, json={"name": "runs", "mimeType": FOLDER})
    folder = made.json()["id"]
    for number in range(5):
        await put(caller, f"out-{number}.csv", b"x", parents=[folder], appProperties={"run": str(number)})
    inside = f"'{folder}' in parents and trashed = false"
    assert await listed(caller, q=inside, orderBy="name desc") == [f"out-{n}.csv" for n in (4, 3, 2, 1, 0)]
    assert await listed(caller, q="appProperties has { key='run' and value='3' }") == ["out-3.csv"]
    assert await listed(caller, q=f"mimeType = '{FOLDER}' and 'root' in parents") == ["runs"]
    first = (await caller.call("GET", "drive", FILES, params={"q": inside, "pageSize": "3", "orderBy": "name"})).json()
    query = {"q": inside, "pageSize": "3", "orderBy": "name", "pageToken": first["nextPageToken"]}
    rest = (await caller.call("GET", "drive", FILES, params=query)).json()
    names = [file["name"] for file in first["files"] + rest["files"]]
    assert names == [f"out-{n}.csv" for n in range(5)]
    assert "nextPageToken" not in rest


async def start_upload(caller: Caller, size: int | None, name: str = "big.bin") -> str:
    headers = {"X-Upload-Content-Type": "application/octet-stream"}
    headers |= {} if size is None else {"X-Upload-Content-Length": str(size)}
    answer = await caller.call(
        "POST", "drive", UPLOAD, params={"uploadType": "resumable"}, json={"name": name}, headers=headers
    )
    assert answer.status_code == 200
    return str(answer.headers["location"])


async def chunk(caller: Caller, where: str, span: str, data: bytes = b"") -> httpx2.Response:
    return await caller.http.put(where, content=data, headers={"Content-Range": f"bytes {span}"})


async def test_a_large_file_goes_up_in_chunks_and_can_be_resumed(colab: ColabEmulator, caller: Caller) -> None:
    content = bytes(range(256)) * 2500
    total = len(content)
    where = await start_upload(caller, total)
    none_yet = await chunk(caller, where, f"*/{total}")
    assert (none_yet.status_code, none_yet.headers.get("range")) == (308, None)
    first = await chunk(caller, where, f"0-{CHUNK - 1}/{total}", content[:CHUNK])
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{CHUNK - 1}")
    asked = await chunk(caller, where, f"*/{total}")
    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{CHUNK - 1}")
    second = await chunk(caller, where, f"{CHUNK}-{2 * CHUNK - 1}/{total}", content[CHUNK : 2 * CHUNK])
    assert second.status_code == 308
    done = await chunk(caller, where, f"{2 * CHUNK}-{total - 1}/{total}", content[2 * CHUNK :])
    assert done.status_code == 200
    down = await caller.call("GET", "drive", f"{FILES}/{done.json()['id']}", params={"alt": "media"})
    assert down.content == content
    assert colab.violations == []


async def test_a_chunk_of_an_odd_size_is_refused(colab: ColabEmulator, caller: Caller) -> None:
    where = await start_upload(caller, 1_000_000)
    assert (await chunk(caller, where, "0-999/1000000", b"x" * 1000)).status_code == 400
    assert [violation.expected for violation in colab.violations] == [f"a multiple of {CHUNK}"]


async def test_a_session_for_chunks_ends_after_a_week(colab: ColabEmulator, caller: Caller) -> None:
    where = await start_upload(caller, None)
    await colab.advance(7 * 86_400)
    assert (await chunk(caller, where, "0-0/1", b"x")).status_code == 404


async def test_content_is_replaced(caller: Caller) -> None:
    file_id = await put(caller, "a.txt", b"one")
    params = {"uploadType": "media"}
    await caller.call("PATCH", "drive", f"{UPLOAD}/{file_id}", params=params, content=b"two")
    down = await caller.call("GET", "drive", f"{FILES}/{file_id}", params={"alt": "media"})
    assert down.content == b"two"


async def test_a_file_is_renamed_moved_trashed_and_removed(caller: Caller) -> None:
    folder = (await caller.call("POST", "drive", FILES, json={"name": "f", "mimeType": FOLDER})).json()["id"]
    file_id = await put(caller, "a.txt", b"one")
    path = f"{FILES}/{file_id}"
    moved = await caller.call("PATCH", "drive", path, params={"addParents": folder}, json={"name": "b.txt"})
    assert moved.json()["name"] == "b.txt"
    assert await listed(caller, q=f"'{folder}' in parents") == ["b.txt"]
    await caller.call("PATCH", "drive", path, json={"trashed": True})
    assert await listed(caller, q=f"'{folder}' in parents and trashed = false") == []
    assert (await caller.call("DELETE", "drive", path)).status_code == 204
    assert (await caller.call("GET", "drive", path)).status_code == 404


async def test_two_files_may_have_one_name(caller: Caller) -> None:
    first, second = await put(caller, "a.txt", b"1"), await put(caller, "a.txt", b"2")
    assert first != second
    assert await listed(caller) == ["a.txt", "a.txt"]


async def test_a_hostile_name_stays_inside_the_drive(colab: ColabEmulator, caller: Caller) -> None:
    for name in ["../../escaped.txt", "..", "/etc/x", "nul\0byte", "..\\..\\x", "C:x"]:
        await put(caller, name, b"x")
    assert len(await listed(caller)) == 6
    folder = colab.state.drive_folder(colab.state.account(colab.options.email))
    assert len(list(folder.iterdir())) == 6


async def test_with_drive_file_a_client_sees_only_what_it_made(colab: ColabEmulator, caller: Caller) -> None:
    foreign = await put(caller, "others.txt", b"x")
    token = granted(colab, SCOPE_DRIVE_FILE, client_id="another-client")
    async with open_caller(colab, token) as narrow:
        assert await listed(narrow) == []
        assert (await narrow.call("GET", "drive", f"{FILES}/{foreign}")).status_code == 404
        assert (await narrow.call("DELETE", "drive", f"{FILES}/{foreign}")).status_code == 404
        await put(narrow, "mine.txt", b"x")
        assert await listed(narrow) == ["mine.txt"]
    async with open_caller(colab, granted(colab, SCOPE_DRIVE, client_id="another-client")) as wide:
        assert sorted(await listed(wide)) == ["mine.txt", "others.txt"]


async def test_what_a_machine_writes_into_the_mount_needs_the_wide_scope(colab: ColabEmulator, caller: Caller) -> None:
    folder = colab.state.drive_folder(colab.state.account(colab.options.email))
    (folder / "results").mkdir()
    (folder / "results" / "plot.png").write_bytes(b"png")
    assert sorted(await listed(caller)) == ["plot.png", "results"]
    async with open_caller(colab, granted(colab, SCOPE_DRIVE_FILE)) as narrow:
        assert await listed(narrow) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights of an administrator there")
async def test_a_link_in_the_mount_is_no_file_of_the_drive(colab: ColabEmulator, caller: Caller) -> None:
    folder = colab.state.drive_folder(colab.state.account(colab.options.email))
    (folder / "link").symlink_to("/etc/hostname")
    (folder / "dangling").symlink_to("nothing")
    assert await listed(caller) == []


async def test_what_the_api_makes_is_in_the_mount(colab: ColabEmulator, caller: Caller) -> None:
    folder = (await caller.call("POST", "drive", FILES, json={"name": "data", "mimeType": FOLDER})).json()["id"]
    await put(caller, "in.csv", b"1,2", parents=[folder])
    mounted = colab.state.drive_folder(colab.state.account(colab.options.email))
    assert (mounted / "data" / "in.csv").read_bytes() == b"1,2"


async def test_scopes_and_the_quota_project_are_checked(colab: ColabEmulator, caller: Caller) -> None:
    async with open_caller(colab, granted(colab, SCOPE_COLAB, SCOPE_EMAIL)) as poor:
        refused = await poor.call("GET", "drive", FILES)
        assert refused.status_code == 403
        assert refused.json()["error"]["errors"][0]["reason"] == "insufficientPermissions"
    async with open_caller(colab, granted(colab, SCOPE_DRIVE_FILE, client_id=CLOUD_SDK_CLIENT)) as borrowed:
        refused = await borrowed.call("GET", "drive", FILES)
        assert refused.json()["error"]["errors"][0]["reason"] == "accessNotConfigured"
        headers = {"x-goog-user-project": "mine"}
        assert (await borrowed.call("GET", "drive", FILES, headers=headers)).status_code == 200


async def test_a_file_is_shared(caller: Caller) -> None:
    path = f"{FILES}/{await put(caller, 'a.txt', b'x')}/permissions"
    body = {"role": "reader", "type": "user", "emailAddress": "b@example.com"}
    shared = (await caller.call("POST", "drive", path, json=body)).json()
    assert {"role": "reader", "type": "user"}.items() <= shared.items()
    roles = [entry["role"] for entry in (await caller.call("GET", "drive", path)).json()["permissions"]]
    assert roles == ["owner", "reader"]
    assert (await caller.call("DELETE", "drive", f"{path}/{shared['id']}")).status_code == 204
    assert len((await caller.call("GET", "drive", path)).json()["permissions"]) == 1


async def test_about_tells_the_account_and_its_space(colab: ColabEmulator, caller: Caller) -> None:
    await put(caller, "a.txt", b"12345")
    told = (await caller.call("GET", "drive", "/drive/v3/about", params={"fields": "user,storageQuota"})).json()
    assert told["user"]["emailAddress"] == colab.options.email
    assert told["storageQuota"]["usage"] == "5"


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/drive/v3/about", {}, 400),
        ("GET", FILES, {"params": {"q": "owner = 'me'"}}, 400),
        ("GET", FILES, {"params": {"pageSize": "0"}}, 400),
        ("GET", FILES, {"params": {"pageToken": "x"}}, 400),
        ("GET", FILES, {"params": {"orderBy": "size"}}, 400),
        ("GET", FILES, {"params": {"fields": "files(id"}}, 400),
        ("POST", FILES, {"json": {"name": "a", "parents": ["root", "root"]}}, 400),
        ("POST", FILES, {"content": b"no json"}, 400),
        ("POST", UPLOAD, {"params": {"uploadType": "other"}}, 400),
        ("POST", UPLOAD, {"params": {"uploadType": "multipart"}, "content": b"x"}, 400),
        ("GET", f"{FILES}/root", {"params": {"alt": "media"}}, 403),
        ("PATCH", f"{FILES}/root", {"json": {"parents": ["root"]}}, 403),
        ("POST", f"{FILES}/root/permissions", {"json": {"role": "king", "type": "user"}}, 400),
        ("POST", f"{FILES}/root/permissions", {"json": {"role": "reader", "type": "user"}}, 400),
    ],
)
async def test_what_drive_would_refuse_is_refused_and_noted(
    colab: ColabEmulator, caller: Caller, method: str, path: str, more: dict[str, Any], status: int
) -> None:
    assert (await caller.call(method, "drive", path, **more)).status_code == status
    assert len(colab.violations) == 1
