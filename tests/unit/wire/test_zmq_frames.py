"""ZMQ frames, against jupyter_client's Session in both directions."""

from __future__ import annotations

import pytest
from jupyter_client.session import Session

from colab_bridge.wire.message import MessageError, RawMessage
from colab_bridge.wire.zmq_frames import DELIMITER, Signer, split, to_frames, to_message

KEY = b"0123456789abcdef"
PARTS = [b'{"msg_id":"a","msg_type":"t"}', b"{}", b"{}", b'{"n":1}']


def message() -> RawMessage:
    return RawMessage("shell", PARTS[0], PARTS[1], PARTS[2], PARTS[3], [b"buf"])


@pytest.mark.parametrize("scheme", ["hmac-sha256", "hmac-sha512"])
def test_what_jupyter_client_signs_is_accepted(scheme: str) -> None:
    session = Session(key=KEY, signature_scheme=scheme)
    frames = session.serialize(session.msg("execute_request", {"code": "1"}), ident=[b"id1", b"id2"])
    identities, read = to_message("shell", [*frames, b"buffer"], Signer(KEY, scheme))
    assert (identities, read.msg_type, read.content_fields()) == ([b"id1", b"id2"], "execute_request", {"code": "1"})
    assert read.buffers == [b"buffer"]


def test_jupyter_client_accepts_what_we_sign() -> None:
    session = Session(key=KEY)
    identities, rest = session.feed_identities(to_frames([b"id"], message(), Signer(KEY)))
    read = session.deserialize(rest)
    assert (identities, read["content"], [bytes(b) for b in read["buffers"]]) == ([b"id"], {"n": 1}, [b"buf"])


def test_the_parts_go_through_byte_for_byte() -> None:
    odd = RawMessage("iopub", b'{ "msg_id" : "a"}', b"{ }", b"{}", b'{"x": 1.0e0}')
    assert to_message("iopub", to_frames([], odd, Signer(KEY)), Signer(KEY))[1] == odd


def test_a_delimiter_inside_the_buffers_stays_a_buffer() -> None:
    frames = [b"id", DELIMITER, b"", *PARTS, DELIMITER]
    assert split(frames) == ([b"id"], b"", PARTS, [DELIMITER])


def test_a_message_signed_with_another_key_is_refused() -> None:
    with pytest.raises(MessageError):
        to_message("shell", to_frames([], message(), Signer(b"other")), Signer(KEY))


@pytest.mark.parametrize("signature", [b"", b"\xff\xfe", b"00"])
def test_a_signature_that_is_none_is_refused(signature: bytes) -> None:
    assert not Signer(KEY).verify(PARTS, signature)


def test_a_replayed_message_is_refused() -> None:
    signer = Signer(KEY)
    frames = to_frames([], message(), Signer(KEY))
    to_message("shell", frames, signer)
    with pytest.raises(MessageError):
        to_message("shell", frames, signer)


def test_the_history_of_signatures_is_bounded_and_forgets_the_oldest() -> None:
    signer = Signer(KEY, history_size=2)
    signed = [([b"%d" % n], signer.sign([b"%d" % n])) for n in range(3)]
    assert all(signer.verify(*one) for one in signed)
    assert not signer.verify(*signed[2])
    assert signer.verify(*signed[0])


def test_without_a_key_nothing_is_signed_and_everything_accepted() -> None:
    frames = to_frames([], message(), Signer(b""))
    assert frames[1] == b""
    assert to_message("shell", frames, Signer(b""))[1] == message()


@pytest.mark.parametrize("frames", [[], [b"x"], [DELIMITER], [DELIMITER, b"", b"{}", b"{}", b"{}"]])
def test_a_message_with_missing_frames_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        to_message("shell", frames, Signer(b""))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        Signer(KEY, "hmac-nonsense")
