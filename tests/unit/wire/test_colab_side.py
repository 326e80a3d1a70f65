"""The side protocol of google.colab, against what its package is published to do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.wire.colab_side import (
    UploadFeed,
    download_offer,
    read_side_request,
    side_answer,
    side_failure,
    upload_step,
)
from colab_bridge.wire.message import RawMessage


def published(
    metadata: dict[str, Any], content: dict[str, Any], msg_type: str = "colab_request", channel: str = "iopub"
) -> RawMessage:
    return RawMessage.build(
        channel, msg_type, content, msg_id="k1", session="kernel", parent={"session": "s"}, metadata=metadata
    )


def test_a_blocking_request_carries_the_number_that_its_answer_needs() -> None:
    request = read_side_request(
        published({"colab_request_type": "GetSecret", "colab_msg_id": 3}, {"request": {"key": "HF"}})
    )
    assert request is not None
    assert (request.kind, request.reply_id, dict(request.fields)) == ("GetSecret", 3, {"key": "HF"})
    assert request.parent == {"session": "s"}


def test_a_request_without_a_number_waits_for_nothing() -> None:
    request = read_side_request(
        published({"colab_request_type": "cell_display_stdin"}, {"request": {"delayMillis": 500}})
    )
    assert request is not None
    assert request.reply_id is None


@pytest.mark.parametrize(
    ("metadata", "content"),
    [
        ({}, {"request": {}}),
        ({"colab_request_type": 7, "colab_msg_id": 1}, {"request": {}}),
        ({"colab_request_type": ""}, {}),
    ],
)
def test_a_request_that_names_no_kind_is_none(metadata: dict[str, Any], content: dict[str, Any]) -> None:
    assert read_side_request(published(metadata, content)) is None


def test_a_request_with_senseless_fields_has_none() -> None:
    request = read_side_request(published({"colab_request_type": "x", "colab_msg_id": True}, {"request": [1]}))
    assert request is not None
    assert request.reply_id is None
    assert dict(request.fields) == {}


def test_only_iopub_carries_requests() -> None:
    assert read_side_request(published({"colab_request_type": "GetSecret"}, {}, channel="shell")) is None
    assert read_side_request(published({"colab_request_type": "GetSecret"}, {}, msg_type="stream")) is None


def test_bytes_that_are_no_json_are_no_request() -> None:
    header = json.dumps({"msg_id": "a", "msg_type": "colab_request"}).encode()
    assert read_side_request(RawMessage("iopub", header, b"{}", b"nonsense", b"{}")) is None


def test_an_answer_is_an_input_reply_with_an_object_in_it() -> None:
    message = side_answer(5, {"exists": True}, session="ours", parent={"msg_id": "cell"})
    assert (message.channel, message.msg_type, message.parent_id) == ("stdin", "input_reply", "cell")
    assert message.content_fields() == {"value": {"type": "colab_reply", "colab_msg_id": 5, "data": {"exists": True}}}
    assert message.header_fields()["session"] == "ours"


def test_a_failure_carries_the_text_that_the_kernel_raises() -> None:
    message = side_failure(5, "no", session="ours", parent={})
    assert message.content_fields()["value"] == {"type": "colab_reply", "colab_msg_id": 5, "error": "no"}


def test_the_scripts_of_an_upload_are_told_apart() -> None:
    first = upload_step('google.colab._files._uploadFiles("files-1", "result-1")')
    more = upload_step('google.colab._files._uploadFilesContinue("result-1")')
    assert first is not None
    assert more is not None
    assert first.first
    assert not more.first


@pytest.mark.parametrize("script", ["google.colab.kernel.proxyPort(8000)", "", None, 7, ["x"]])
def test_any_other_script_is_no_upload(script: object) -> None:
    assert upload_step(script) is None


@given(st.lists(st.tuples(st.text(min_size=1), st.binary(max_size=200)), max_size=8))
def test_what_an_upload_hands_over_is_the_files_piece_by_piece(pieces: list[tuple[str, bytes]]) -> None:
    feed = UploadFeed(iter(pieces))
    assert feed.start()["action"] not in ("complete", "append")
    got = []
    while (step := feed.next())["action"] == "append":
        got.append((step["file"], base64.b64decode(step["data"])))
    assert step == {"action": "complete"}
    assert got == pieces


def shown(script: object) -> RawMessage:
    return published({}, {"data": {"application/javascript": script}, "metadata": {}}, "display_data")


def test_a_download_names_its_target_file_and_size() -> None:
    offer = download_offer(shown('download("download_0b1-2", "a \\"b\\" \\u00e4.csv", 12)'))
    assert offer is not None
    assert (offer.target, offer.name, offer.size_bytes) == ("download_0b1-2", 'a "b" ä.csv', 12)


@pytest.mark.parametrize(
    "script",
    [
        "async function download(id, filename, size) {}",
        'download("other_1", "a", 1)',
        'download("download_1", "a", 1000000000000000000000)',
        'download("download_1", "\\x", 1)',
        {"not": "text"},
        None,
    ],
)
def test_other_javascript_is_no_download(script: object) -> None:
    assert download_offer(shown(script)) is None


@given(st.text())
def test_every_file_name_that_json_can_write_is_read_back(name: str) -> None:
    offer = download_offer(shown(f'download("download_x", {json.dumps(name)}, 1)'))
    assert offer is not None
    assert offer.name == name
