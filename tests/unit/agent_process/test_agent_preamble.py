"""The first line of a connection to the agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.agent.process.preamble import MOST_BYTES, Preamble, PreambleError, dump_line, parse_line


def test_a_preamble_comes_back_as_it_was() -> None:
    said = Preamble(owner="daemon-1", label="ä@host", take=True, want="abc")
    assert Preamble.from_line(said.to_line()) == said


def test_a_preamble_is_one_line_whatever_the_label_holds() -> None:
    assert Preamble(owner="o", label="a\nb\u2028" * 1000).to_line().count(b"\n") == 1


def test_a_label_of_any_length_fits() -> None:
    assert len(Preamble(owner="o", label="\U0001f600" * 5000).to_line()) <= MOST_BYTES


def test_a_preamble_needs_an_owner_unless_it_only_asks() -> None:
    assert Preamble.from_line(Preamble(probe=True).to_line()).probe
    with pytest.raises(PreambleError, match="no owner"):
        Preamble.from_line(dump_line({"v": 1, "label": "x"}))


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b'"x"', b"{", b'{"v": 2}', b"{}", b"\xff\xfe", b"[" * 4000, b'{"v": 1, "x": "' + b"a" * 5000 + b'"}'],
)
def test_what_is_no_preamble_is_refused(line: bytes) -> None:
    with pytest.raises(PreambleError):
        parse_line(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_preamble_or_a_preamble_error(line: bytes) -> None:
    try:
        Preamble.from_line(line)
    except PreambleError:
        pass


@given(
    st.dictionaries(st.sampled_from(["owner", "label", "take", "want", "probe"]), st.none() | st.integers() | st.text())
)
def test_values_of_a_wrong_kind_never_count(fields: dict[str, object]) -> None:
    try:
        found = Preamble.from_line(dump_line({"v": 1, **fields}))
    except PreambleError:
        return
    assert found.owner == fields["owner"]
    assert not found.take
