"""Secrets that were handed out do not come back in outputs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.wire.masking import MASK, Masks
from colab_bridge.wire.message import RawMessage


def stream(text: str) -> RawMessage:
    return RawMessage.build("iopub", "stream", {"name": "stdout", "text": text}, msg_id="1", session="s")


def test_a_value_is_hidden_wherever_it_stands() -> None:
    masks = Masks()
    masks.add("hf_abcdef")
    assert masks.hide(stream("key hf_abcdef and hf_abcdef\n")).content_fields()["text"] == f"key {MASK} and {MASK}\n"


def test_a_message_without_a_value_is_the_same_object() -> None:
    masks = Masks()
    masks.add("hf_abcdef")
    message = stream("nothing here")
    assert masks.hide(message) is message


def test_short_values_are_not_looked_for() -> None:
    masks = Masks()
    assert not masks.add("abc")
    assert not masks
    assert masks.hide(stream("abc")).content_fields()["text"] == "abc"


def test_buffers_and_headers_stay_as_they_are() -> None:
    masks = Masks()
    masks.add("hf_abcdef")
    message = RawMessage.build("iopub", "display_data", {"data": "hf_abcdef"}, msg_id="1", session="s", buffers=[b"x"])
    hidden = masks.hide(message)
    assert (hidden.header, hidden.buffers, hidden.channel) == (message.header, message.buffers, "iopub")


def test_a_value_inside_another_one_is_hidden_with_it() -> None:
    masks = Masks()
    masks.add("secret")
    masks.add("secret-long")
    assert masks.hide(stream("secret-long secret")).content_fields()["text"] == f"{MASK} {MASK}"


@given(st.text(min_size=6).filter(lambda value: value not in MASK), st.text(), st.text())
def test_no_value_survives_however_it_is_written(value: str, before: str, after: str) -> None:
    masks = Masks()
    masks.add(value)
    text = masks.hide(stream(before + value + after)).content_fields()["text"]
    assert MASK in text
    assert masks.hide(stream(repr(value))).content_fields()["text"] != repr(value)
