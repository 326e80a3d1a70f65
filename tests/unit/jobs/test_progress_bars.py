r"""Progress bars in output: tqdm's own, others that write over their line, and text that only looks like one."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.execution.estimates_bars import Bar, BarReader, parse_bar


@pytest.mark.parametrize(
    ("line", "bar"),
    [
        (
            "train:  41%|####1     | 41/100 [00:10<00:14,  4.1it/s]",
            Bar(label="train", fraction=0.41, n=41, of=100, rate=4.1, unit="it", eta_s=14),
        ),
        (
            " 60%|██████    | 3.00M/5.00M [00:00<1:00:02, 97.2MB/s]\x1b[A",
            Bar(fraction=0.6, n=3e6, of=5e6, rate=97.2e6, unit="B", eta_s=3602),
        ),
        (
            "Epoch 2:   5%|▌         | 1/20 [00:03<01:02,  3.25s/epoch, loss=0.3]",
            Bar(label="Epoch 2", fraction=0.05, n=1, of=20, rate=1 / 3.25, unit="epoch", eta_s=62),
        ),
        ("  0%|          | 0/100 [00:00<?, ?it/s]", Bar(fraction=0, n=0, of=100, unit="it")),
        (
            "\x1b[1m 45/100\x1b[0m \x1b[32m━━━━\x1b[0m\x1b[37m━━\x1b[0m \x1b[1m12s\x1b[0m 30ms/step - loss: 0.1",
            Bar(fraction=0.45, n=45, of=100),
        ),
        ("45/100 [====>...........] - ETA: 12s - loss: 0.52", Bar(fraction=0.45, n=45, of=100, eta_s=12)),
        ("45/100 [====>...........] - ETA: 1:02 - loss: 0.52", Bar(fraction=0.45, n=45, of=100, eta_s=62)),
        ("model.bin   37%[======>      ]  1.2M  800KB/s    eta 1m", Bar(label="model.bin", fraction=0.37)),
        ("downloading  62.5 %", Bar(label="downloading", fraction=0.625)),
    ],
)
def test_bars_as_programs_print_them(line: str, bar: Bar) -> None:
    assert parse_bar(line) == bar


@pytest.mark.parametrize(
    "line",
    [
        "", "hello", "120% of the cells", "see a/b", "2026/11/21 10:00", "0/0", "7/3", "1.2.3/4.5.6",
        "1/0 [00:00<00:00]",
        "ETA: soon", "http://h/1/2/3",
    ],
)  # fmt: skip
def test_text_that_only_looks_like_a_bar_is_none(line: str) -> None:
    assert parse_bar(line) is None


@pytest.mark.parametrize("total", [3, 250])
def test_what_tqdm_itself_prints_is_read_back(total: int) -> None:
    tqdm = pytest.importorskip("tqdm")
    screen, reader = io.StringIO(), BarReader()
    with tqdm.tqdm(total=total, desc="fit", file=screen, mininterval=0, ncols=80) as meter:
        for done in range(total - 1):
            before = len(screen.getvalue())
            meter.update(1)
            reader.feed(screen.getvalue()[before:], now=float(done))
            found = reader.current(float(done))
            assert found is not None
            assert (found.label, found.n, found.of) == ("fit", done + 1, total)
        meter.update(1)
    reader.feed(screen.getvalue(), now=float(total))
    assert reader.current(float(total)) is None


def test_a_percentage_in_a_line_that_is_not_written_over_is_no_bar() -> None:
    reader = BarReader()
    reader.feed("accuracy 93 %\nloss 12/50\n", 0.0)
    assert reader.current(0.0) is None
    reader.feed("\rloading 93 %", 1.0)
    assert reader.current(1.0) == Bar(label="loading", fraction=0.93)


def test_the_time_left_of_a_bar_that_names_none_follows_from_its_speed() -> None:
    reader = BarReader()
    for second in range(11):
        reader.feed(f"\rcopied {10 * second}/400", float(second))
    found = reader.current(10.0)
    assert found is not None
    assert found.eta_s == pytest.approx(30)
    assert found.rate == pytest.approx(10)


def test_time_left_goes_down_while_a_bar_stands_still_and_never_below_zero() -> None:
    reader = BarReader()
    reader.feed("\r 10%|#         | 1/10 [00:10<01:30, 10.0s/it]", 100.0)
    assert [bar.eta_s for now in (100, 160, 250) if (bar := reader.current(now))] == [90, 30, 0]


def test_of_bars_inside_one_another_the_one_that_takes_longest_counts() -> None:
    reader = BarReader()
    reader.feed(
        "\repochs:  10%|#   | 1/10 [00:10<01:30, 10.0s/it]\n\rbatches:  50%|##  | 5/10 [00:05<00:05, 1.0it/s]", 0.0
    )
    found = reader.current(0.0)
    assert found is not None
    assert found.label == "epochs"


def test_an_inner_bar_that_begins_anew_is_not_as_slow_as_both_its_rounds() -> None:
    reader = BarReader()
    for start in (0.0, 100.0):
        for step in range(5):
            reader.feed(f"\rbatch {step}/10", start + step)
    found = reader.current(104.0)
    assert found is not None
    assert found.eta_s == pytest.approx(6)


def test_a_bar_that_was_left_in_the_middle_is_forgotten() -> None:
    reader = BarReader()
    reader.feed("\rloading 30 %", 0.0)
    assert reader.current(100.0) is not None
    assert reader.current(1000.0) is None


_bits = st.sampled_from(["%|", "|", "/", "[", "]", "<", ",", "\r", "\n", "\x1b[A", "1", "99", "100", ":", "it/s",
                         "ETA ", "?", "k", ".", "9" * 400, " ", "\x08", "é", "²", "٣"])  # fmt: skip


@given(st.lists(_bits, max_size=60).map("".join), st.floats(0, 1e6))
@settings(max_examples=500)
def test_whatever_a_program_prints_is_a_sound_bar_or_none(text: str, now: float) -> None:
    reader = BarReader()
    reader.feed("\r" + text, now)
    found = reader.current(now)
    if found is not None:
        assert found.fraction is not None
        assert 0 <= found.fraction < 1
        assert found.eta_s is None or 0 <= found.eta_s < 4e7
        assert found.of is None or found.of > 0


def test_a_flood_of_output_costs_little_memory() -> None:
    reader = BarReader()
    for number in range(2000):
        reader.feed(
            f"\rbar {chr(97 + number % 26)}{chr(97 + number % 23)} {number % 50}/50" + "x" * 10_000, float(number)
        )
        reader.feed("\r" + "%|" * 50_000, float(number))
    assert len(reader._bars) <= 8
