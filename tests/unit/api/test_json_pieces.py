"""JSON in pieces is the JSON that it would be in one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.api import json_pieces as module
from colab_bridge.api.json_pieces import json_pieces

texts = st.text(alphabet=st.sampled_from('ab"\\\n\u2028é😀\ud800'), max_size=20)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@given(values)
def test_pieces_are_what_the_whole_would_be(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_CHARACTERS", 3)
        pieces = b"".join(json_pieces(value))
    assert pieces == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def test_no_piece_of_a_giant_text_is_giant() -> None:
    event = {"seq": 1, "data": {"text/html": "x" * (10 * module.PIECE_CHARACTERS)}}
    assert max(map(len, json_pieces(event))) <= module.PIECE_CHARACTERS
