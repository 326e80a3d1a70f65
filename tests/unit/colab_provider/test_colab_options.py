"""Options, hardware names, the ledger and the seen rates."""

from __future__ import annotations

import json
import os
import stat
import uuid
from pathlib import Path

import pytest

from colab_bridge.errors import UserError
from colab_bridge.model.hardware import CPU, Hardware
from colab_bridge.providers.colab.foreign import parse_document
from colab_bridge.providers.colab.ledger import Entry, Ledger
from colab_bridge.providers.colab.machine import really
from colab_bridge.providers.colab.options import read_options
from colab_bridge.providers.colab.rates import Rates
from colab_bridge.providers.colab.values import is_card

T4 = Hardware(kind="gpu", accelerator="T4")


def test_without_options_it_is_a_cpu_machine_of_the_newest_image() -> None:
    wanted = read_options({})
    assert (wanted.ladder, wanted.version, wanted.wait_s, wanted.account, wanted.api) == ((CPU,), "", 0.0, "", "v1")


def test_high_memory_is_never_asked_for_where_the_card_has_it_anyway() -> None:
    wanted = read_options({"gpu": "l4, a100,A100", "high_mem": True})
    assert [(each.accelerator, each.high_memory) for each in wanted.ladder] == [("L4", False), ("A100", True)]
    assert read_options({"high_mem": True}).ladder == (Hardware(high_memory=True),)


@pytest.mark.parametrize(
    "options",
    [
        {"gpu": "T5"},
        {"gpu": "V5E1"},
        {"tpu": "T4"},
        {"gpu": ","},
        {"gpu": "T4", "tpu": "V28"},
        {"runtime_version": "../x"},
        {"account": "no address"},
        {"api": "v2"},
        {"wait_s": -1},
        {"wait_s": float("nan")},
        {"wait_s": "2h"},
        {"wait_s": True},
    ],
)
def test_an_option_that_does_not_fit_is_refused_with_a_hint(options: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        read_options(options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("accelerator", "reported", "same"),
    [
        ("T4", "Tesla T4", True),
        ("L4", "NVIDIA L4", True),
        ("L4", "NVIDIA L40S", False),
        ("A100", "NVIDIA A100-SXM4-40GB", True),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("A100", "Tesla T4", False),
        ("G4", "NVIDIA RTX PRO 6000 Blackwell Server Edition", True),
        ("G4", "Tesla T4", False),
        ("B300", "NVIDIA B300", None),
        ("V28", "", None),
        ("T4", "", None),
    ],
)
def test_the_drivers_name_of_a_card_is_compared_with_googles(
    accelerator: str, reported: str, same: bool | None
) -> None:
    assert is_card(accelerator, reported) is same


def test_the_machine_has_the_last_word_about_its_card() -> None:
    def resources(*names: str) -> object:
        return parse_document("r", json.dumps({"gpus": [{"name": name} for name in names]}).encode())

    assert really(T4, resources("Tesla T4")) == T4  # type: ignore[arg-type]
    assert really(T4, resources("NVIDIA L4")).accelerator == "L4"  # type: ignore[arg-type]
    assert really(T4, resources("Abacus 9")).accelerator == "Abacus 9"  # type: ignore[arg-type]
    assert really(T4, resources()) == T4  # type: ignore[arg-type]


def entry(**changes: object) -> Entry:
    values: dict[str, object] = {"request": str(uuid.uuid4()), "session": "s", "project": "/p", "asked_for": (T4,)}
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


def test_an_entry_comes_back_as_it_was_written_and_only_the_user_can_read_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests")
    first = entry(account="me@example.com", runtime="gpu-1", name="runtimes/r", asked_at=5.0, version="2026.01")
    second = entry(asked_at=7.0, adopted=True)
    for each in (second, first):
        ledger.write(each)

    assert ledger.entries() == [first, second]
    assert ledger.find(lambda each: each.session == "s") == second
    if os.name == "posix":
        assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "requests").iterdir()} == {0o600}
        assert stat.S_IMODE((tmp_path / "requests").stat().st_mode) == 0o700
    ledger.remove(first.request)
    ledger.remove(first.request)
    assert ledger.entries() == [second]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"v": 2}', b'{"v": 1, "asked_for": [{}]}'])
def test_an_entry_that_cannot_be_read_is_set_aside_and_not_lost(tmp_path: Path, content: bytes) -> None:
    ledger = Ledger(tmp_path)
    broken = tmp_path / f"{uuid.uuid4()}.json"
    broken.write_bytes(content)
    (tmp_path / "somebody-elses.json").write_bytes(content)

    assert ledger.entries() == []
    assert broken.with_suffix(".unreadable").read_bytes() == content
    assert (tmp_path / "somebody-elses.json").exists()


def test_a_ledger_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none").entries() == []


def test_rates_that_were_seen_are_kept_by_card(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "colab" / "rates.json")
    assert rates.load() == {}
    rates.note(T4, 1.76)
    rates.note(CPU, 0.08)
    rates.note(T4, 1.5)
    assert rates.load() == {"T4": 1.5, "": 0.08}
    (tmp_path / "colab" / "rates.json").write_text("no json")
    assert rates.load() == {}
