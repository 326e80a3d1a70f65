"""What the desk answers to code on a runtime. Google's part is played by a provider of ours; files are real."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from colab_bridge.errors import AuthError
from colab_bridge.model.account import Propagation
from colab_bridge.model.credentials import SecretAnswer
from colab_bridge.model.runtime import RuntimeHandle, Secret
from colab_bridge.ports.account import AccountProvider
from colab_bridge.sessions import side_requests
from colab_bridge.sessions.side_requests import SideAccount, SideRequests
from colab_bridge.wire.colab_side import DownloadOffer, SideRequest
from colab_bridge.wire.message import RawMessage


class Line:
    """Keeps what the desk says."""

    kernel_id = "kernel-1"

    def __init__(self, answers: list[str | None] | None = None) -> None:
        self.answers = answers or []
        self.said: list[str] = []
        self.hidden: list[str] = []
        self.messages: list[RawMessage] = []
        self._sent: asyncio.Queue[RawMessage] = asyncio.Queue()
        self._results: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._words: asyncio.Queue[str] = asyncio.Queue()

    def answer(self, request: SideRequest, data: Any) -> None:
        self._results.put_nowait(("answer", data))

    def fail(self, request: SideRequest, text: str) -> None:
        self._results.put_nowait(("fail", text))

    def cell(self) -> Mapping[str, Any]:
        return {"msg_id": "cell"}

    def say(self, text: str, cell: Mapping[str, Any] | None = None) -> None:
        self.said.append(text)
        self._words.put_nowait(text)

    async def ask(self, prompt: str) -> str | None:
        return self.answers.pop(0)

    def hide(self, value: str) -> None:
        self.hidden.append(value)

    def send(self, message: RawMessage) -> None:
        self.messages.append(message)
        self._sent.put_nowait(message)

    async def result(self) -> tuple[str, Any]:
        with anyio.fail_after(5):
            return await self._results.get()

    async def message(self) -> RawMessage:
        with anyio.fail_after(5):
            return await self._sent.get()

    async def word(self) -> str:
        with anyio.fail_after(5):
            return await self._words.get()


class Provider:
    """Gives credentials after a number of asks."""

    def __init__(self) -> None:
        self.until_granted = 0
        self.dry: Propagation = Propagation(granted=True)
        self.error: Exception | None = None
        self.asked: list[tuple[str, bool]] = []

    async def account(self) -> str:
        return "ada@example.org"

    async def propagate(self, handle: RuntimeHandle, kind: str, *, dry_run: bool) -> Propagation:
        self.asked.append((kind, dry_run))
        if self.error is not None:
            raise self.error
        if dry_run:
            return self.dry
        self.until_granted -= 1
        return Propagation(granted=self.until_granted < 0)


class Secrets:
    """Knows two secrets; one of them is approved."""

    async def get(self, project: str, name: str) -> SecretAnswer:
        if name == "HF_TOKEN":
            return SecretAnswer(found=True, allowed=True, value=Secret("hf_geheim"))
        return SecretAnswer(found=name == "OTHER")


class Desk:
    """The desk under test with its surroundings."""

    def __init__(self, desk: SideRequests, provider: Provider, project: Path) -> None:
        self.desk = desk
        self.provider = provider
        self.project = project


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    provider = Provider()
    account = SideAccount(
        project=str(tmp_path),
        provider=cast("AccountProvider", provider),
        handle=RuntimeHandle(provider="colab", id="m"),
    )
    async with anyio.create_task_group() as tasks:
        yield Desk(SideRequests(lambda: account, Secrets(), tasks), provider, tmp_path)
        tasks.cancel_scope.cancel()


def asks(kind: str, **fields: Any) -> SideRequest:
    return SideRequest(kind=kind, reply_id=1, fields=fields)


def first_script() -> SideRequest:
    return asks("cell_javascript_eval", script='google.colab._files._uploadFiles("a", "b")')


def next_script() -> SideRequest:
    return asks("cell_javascript_eval", script='google.colab._files._uploadFilesContinue("b")')


async def test_an_approved_secret_is_handed_out_and_hidden(desk: Desk) -> None:
    line = Line()
    desk.desk.asked(line, asks("GetSecret", key="HF_TOKEN"))
    assert await line.result() == ("answer", {"exists": True, "access": True, "payload": "hf_geheim"})
    assert line.hidden == ["hf_geheim"]


async def test_a_secret_that_is_not_approved_is_named_with_the_command_that_approves_it(desk: Desk) -> None:
    line = Line()
    desk.desk.asked(line, asks("GetSecret", key="OTHER"))
    assert await line.result() == ("answer", {"exists": True, "access": False})
    assert "colab-bridge secret allow OTHER" in line.said[0]


async def test_an_unknown_secret_is_none_and_a_hostile_name_is_not_repeated(desk: Desk) -> None:
    line = Line()
    desk.desk.asked(line, asks("GetSecret", key="x; rm -rf ~"))
    assert await line.result() == ("answer", {"exists": False, "access": False})
    assert "rm -rf" not in line.said[0]


async def test_credentials_that_are_granted_already_are_handed_over_without_a_question(desk: Desk) -> None:
    line = Line()
    desk.desk.asked(line, asks("request_auth", authType="dfs_ephemeral"))
    assert await line.result() == ("answer", None)
    assert desk.provider.asked == [("drive", True), ("drive", False)]
    assert line.said == []


async def test_consent_is_asked_for_with_the_right_account_and_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_requests, "CONSENT_POLL_S", 0.01)
    desk.provider.dry = Propagation(granted=False, consent_url="https://accounts.example/consent")
    desk.provider.until_granted = 2
    line = Line()
    desk.desk.asked(line, asks("request_auth", authType="auth_user_ephemeral"))
    assert await line.result() == ("answer", None)
    assert "ada@example.org" in line.said[0]
    assert "https://accounts.example/consent" in line.said[0]
    assert desk.provider.asked == [("user", True), ("user", False), ("user", False), ("user", False)]


async def test_a_user_who_does_not_agree_in_time_gets_an_error_and_not_silence(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(side_requests._WAITS, "drive", 0.05)
    monkeypatch.setattr(side_requests, "CONSENT_POLL_S", 0.01)
    desk.provider.dry = Propagation(granted=False, consent_url="https://accounts.example/consent")
    desk.provider.until_granted = 10_000
    line = Line()
    desk.desk.asked(line, asks("request_auth", authType="dfs_ephemeral"))
    kind, text = await line.result()
    assert kind == "fail"
    assert "in time" in text


async def test_a_refused_sign_in_reaches_the_cell_with_its_hint(desk: Desk) -> None:
    desk.provider.error = AuthError("the sign-in was revoked", hint="colab-bridge auth login")
    line = Line()
    desk.desk.asked(line, asks("request_auth", authType="dfs_ephemeral"))
    assert await line.result() == ("fail", "the sign-in was revoked; colab-bridge auth login")


async def test_credentials_that_do_not_arrive_are_an_error(desk: Desk) -> None:
    desk.provider.until_granted = 10
    line = Line()
    desk.desk.asked(line, asks("request_auth", authType="dfs_ephemeral"))
    assert (await line.result())[0] == "fail"


@pytest.mark.parametrize(
    "request_",
    [asks("request_auth", authType="other"), asks("brand_new"), asks("cell_javascript_eval", script="alert(1)")],
)
async def test_what_cannot_be_done_fails_at_once(desk: Desk, request_: SideRequest) -> None:
    line = Line()
    desk.desk.asked(line, request_)
    assert (await line.result())[0] == "fail"


@pytest.mark.parametrize("kind", ["add_scratch_cell", "register_snippets"])
async def test_what_the_kernel_ignores_is_acknowledged(desk: Desk, kind: str) -> None:
    line = Line()
    desk.desk.asked(line, asks(kind))
    assert await line.result() == ("answer", None)


async def test_a_defect_still_answers(desk: Desk) -> None:
    desk.provider.error = RuntimeError("boom")
    line = Line()
    desk.desk.asked(line, asks("request_auth", authType="dfs_ephemeral"))
    kind, text = await line.result()
    assert kind == "fail"
    assert "RuntimeError" in text


async def test_files_that_the_user_names_are_handed_over_whole(desk: Desk) -> None:
    (desk.project / "a.bin").write_bytes(bytes(range(256)) * 600)
    (desk.project / "empty.txt").touch()
    line = Line(["a.bin; empty.txt"])
    desk.desk.asked(line, first_script())
    assert (await line.result())[1]["action"] not in ("append", "complete")
    got: dict[str, bytes] = {}
    while True:
        desk.desk.asked(line, next_script())
        _, step = await line.result()
        if step["action"] == "complete":
            break
        assert len(step["data"]) <= 100 * 1024
        got[step["file"]] = got.get(step["file"], b"") + base64.b64decode(step["data"])
    assert got == {"a.bin": bytes(range(256)) * 600, "empty.txt": b""}


async def test_a_wrong_path_is_asked_for_again(desk: Desk) -> None:
    (desk.project / "a.txt").write_text("x")
    line = Line(["nowhere.txt", "a.txt"])
    desk.desk.asked(line, first_script())
    assert (await line.result())[0] == "answer"
    assert "nowhere.txt" in line.said[0]


async def test_an_empty_answer_uploads_nothing(desk: Desk) -> None:
    line = Line([""])
    desk.desk.asked(line, first_script())
    await line.result()
    desk.desk.asked(line, next_script())
    assert await line.result() == ("answer", {"action": "complete"})


async def test_an_upload_where_nobody_can_be_asked_fails_with_the_way_out(desk: Desk) -> None:
    line = Line([None])
    desk.desk.asked(line, first_script())
    kind, text = await line.result()
    assert kind == "fail"
    assert "project folder" in text


async def test_a_continuation_without_an_upload_fails(desk: Desk) -> None:
    line = Line()
    desk.desk.asked(line, next_script())
    assert (await line.result())[0] == "fail"


def piece(comm_id: str, data: bytes) -> RawMessage:
    return RawMessage.build(
        "iopub", "comm_msg", {"comm_id": comm_id, "data": {}}, msg_id="k", session="kernel", buffers=[data]
    )


def closed(comm_id: str) -> RawMessage:
    return RawMessage.build("iopub", "comm_close", {"comm_id": comm_id, "data": {}}, msg_id="k", session="kernel")


async def opened(line: Line) -> str:
    first = await line.message()
    assert first.msg_type == "comm_open"
    assert first.content_fields()["target_name"] == "download_1"
    assert (await line.message()).msg_type == "comm_msg"
    return str(first.content_fields()["comm_id"])


async def test_a_download_arrives_piece_by_piece_in_the_folder_downloads(desk: Desk) -> None:
    line = Line()
    assert desk.desk.offered(line, DownloadOffer(target="download_1", name="../../evil/a.csv", size_bytes=6))
    comm = await opened(line)
    assert desk.desk.heard(line, piece(comm, b"abc"))
    assert (await line.message()).msg_type == "comm_msg"
    desk.desk.heard(line, piece(comm, b"def"))
    await line.message()
    desk.desk.heard(line, closed(comm))
    assert await line.word() == "saved downloads/a.csv"
    assert (desk.project / "downloads" / "a.csv").read_bytes() == b"abcdef"


async def test_a_download_never_replaces_a_file(desk: Desk) -> None:
    (desk.project / "downloads").mkdir()
    (desk.project / "downloads" / "a.csv").write_text("mine")
    line = Line()
    desk.desk.offered(line, DownloadOffer(target="download_1", name="a.csv", size_bytes=1))
    comm = await opened(line)
    desk.desk.heard(line, piece(comm, b"x"))
    await line.message()
    desk.desk.heard(line, closed(comm))
    assert await line.word() == "saved downloads/a (1).csv"
    assert (desk.project / "downloads" / "a.csv").read_text() == "mine"


@pytest.mark.parametrize("size", [1, 5])
async def test_a_download_of_another_size_than_announced_leaves_nothing(desk: Desk, size: int) -> None:
    line = Line()
    desk.desk.offered(line, DownloadOffer(target="download_1", name="a.csv", size_bytes=size))
    comm = await opened(line)
    desk.desk.heard(line, piece(comm, b"abc"))
    desk.desk.heard(line, closed(comm))
    assert "failed" in await line.word()
    assert [path for path in desk.project.rglob("*") if path.is_file()] == []


async def test_a_flood_of_pieces_that_nobody_asked_for_ends_the_download(desk: Desk) -> None:
    line = Line()
    desk.desk.offered(line, DownloadOffer(target="download_1", name="a.csv", size_bytes=3))
    comm = await opened(line)
    for _ in range(50):
        assert desk.desk.heard(line, piece(comm, b"abc"))
    assert "failed" in await line.word()


async def test_a_file_beyond_the_limit_is_not_fetched(desk: Desk) -> None:
    line = Line()
    assert desk.desk.offered(line, DownloadOffer(target="download_1", name="a", size_bytes=10**15))
    assert "colab-bridge download" in line.said[0]
    assert line.messages == []


async def test_comms_of_others_are_left_alone(desk: Desk) -> None:
    assert not desk.desk.heard(Line(), piece("widget", b"x"))
