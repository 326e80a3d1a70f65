"""Which provider with which options a request means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.config.settings import Settings
from colab_bridge.errors import UserError
from colab_bridge.sessions.targets import choose_target, session_slug, unique_name


def settings(**values: object) -> Settings:
    return Settings.model_validate(values)


def test_without_a_wish_it_is_the_local_runtime() -> None:
    target = choose_target(settings())
    assert (target.runtime, target.provider, target.options) == ("local", "local", {"isolated": False})


def test_an_address_means_a_jupyter_server() -> None:
    target = choose_target(settings(), options={"url": "http://h:1/?token=x"})
    assert (target.runtime, target.provider) == ("jupyter", "jupyter")
    assert target.options == {"url": "http://h:1/?token=x"}


def test_a_named_runtime_brings_its_configuration() -> None:
    target = choose_target(settings(runtimes={"gpu": {"url": "http://gpu:8888"}}), runtime="gpu")
    assert (target.runtime, target.provider) == ("gpu", "jupyter")
    assert target.options["url"] == "http://gpu:8888"


def test_what_is_asked_for_wins_over_what_is_configured() -> None:
    configured = settings(local={"isolated": True, "python": "/usr/bin/python3"})
    target = choose_target(configured, options={"isolated": False, "python": None})
    assert target.options == {"isolated": False, "python": "/usr/bin/python3"}


def test_an_unknown_runtime_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"known: local, gpu") as caught:
        choose_target(settings(runtimes={"gpu": {"url": "http://gpu:8888"}}), runtime="tpu")
    assert "add-runtime tpu" in caught.value.hint


def test_a_jupyter_server_needs_an_address() -> None:
    with pytest.raises(UserError, match="needs its address"):
        choose_target(settings(), provider="jupyter")


def test_a_provider_asked_for_by_name_is_taken() -> None:
    target = choose_target(settings(local={"isolated": True}), provider="local")
    assert (target.runtime, target.options) == ("local", {"isolated": True})


@pytest.mark.parametrize(
    ("project", "runtime", "slug"),
    [
        ("/home/ada/sales", "local", "sales"),
        ("/home/ada/Sales 2026!", "gpu", "sales-2026-gpu"),
        ("/", "local", "project"),
        ("/p/数据", "local", "project"),
        ("/p/" + "x" * 90, "local", "x" * 40),
    ],
)
def test_a_session_is_called_after_its_folder(project: str, runtime: str, slug: str) -> None:
    assert session_slug(project, runtime) == slug


@given(st.text(min_size=1, max_size=5), st.sets(st.text(max_size=7), max_size=20))
def test_a_unique_name_is_free_and_begins_as_wanted(wanted: str, taken: set[str]) -> None:
    name = unique_name(wanted, taken)
    assert name not in taken
    assert name.startswith(wanted)
    assert (name == wanted) == (wanted not in taken)
