"""What a runtime says of its machine is believed only as far as it is plain."""

from __future__ import annotations

from colab_bridge.sessions.machines import checked


def test_numbers_texts_lists_and_objects_pass() -> None:
    value = {"machine": {"memory_total": 5, "load": 0.5, "disk_free": None}, "cards": [{"name": "T4"}], "on": True}
    assert checked(value) == value


def test_what_a_terminal_would_obey_becomes_question_marks() -> None:
    assert checked({"name": "a\x1b[31mb\u202ec\n"}) == {"name": "a?[31mb?c?"}


def test_endless_and_odd_values_are_cut() -> None:
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"x": deep}
    found = checked(
        {"text": "x" * 9_999, "list": [1] * 9_999, "deep": deep, "nan": float("nan"), "huge": 1 << 80, "odd": {1}}
    )
    assert len(found["text"]) == 300
    assert len(found["list"]) == 200
    assert (found["nan"], found["huge"], found["odd"]) == (None, None, None)
    assert str(found["deep"]).count("x") < 6
