"""When output counts as lost: the table of link_rules, the server's notices, and the control pings."""

from __future__ import annotations

import itertools

import pytest

from colab_bridge.kernels.control_pings import ControlPings, is_ping_echo
from colab_bridge.kernels.link_rules import LinkEnd, limit_notice, loss_reason, reconnect_delays
from colab_bridge.wire.message import RawMessage

TABLE = [
    # end, active, unlimited, in flight, others, lost?
    (LinkEnd.SILENT, False, False, True, True, False),
    (LinkEnd.BROKEN, False, False, True, True, False),
    (LinkEnd.SILENT, True, True, False, False, True),
    (LinkEnd.SILENT, True, False, False, False, True),
    (LinkEnd.FAILED, True, True, False, False, True),
    (LinkEnd.BROKEN, True, False, False, False, True),
    (LinkEnd.BROKEN, True, True, True, False, True),
    (LinkEnd.BROKEN, True, True, False, True, True),
    (LinkEnd.BROKEN, True, True, False, False, False),
    (LinkEnd.CLOSED, True, False, False, False, True),
    (LinkEnd.CLOSED, True, True, True, False, False),
    (LinkEnd.CLOSED, True, True, False, True, True),
]


@pytest.mark.parametrize(("end", "active", "unlimited", "in_flight", "others", "lost"), TABLE)
def test_a_cut_loses_output_as_the_table_says(
    end: LinkEnd, active: bool, unlimited: bool, in_flight: bool, others: bool, lost: bool
) -> None:
    reason = loss_reason(end=end, active=active, unlimited=unlimited, in_flight=in_flight, others=others)
    assert bool(reason) is lost


def stream(text: str, name: str = "stderr") -> RawMessage:
    return RawMessage.build("iopub", "stream", {"name": name, "text": text}, msg_id="m", session="k")


def test_the_servers_notice_of_its_limit_is_recognised() -> None:
    assert "data rate" in limit_notice(stream("IOPub data rate exceeded.\nThe Jupyter server will ..."))
    assert "message rate" in limit_notice(stream("IOPub message rate exceeded.\nThe Jupyter server will ..."))


@pytest.mark.parametrize(
    "message",
    [stream("IOPub data rate exceeded.", "stdout"), stream("see: IOPub data rate exceeded."), stream("x" * 5000)],
)
def test_other_output_is_no_notice(message: RawMessage) -> None:
    assert limit_notice(message) == ""


def test_waits_between_tries_grow_to_ten_seconds_and_no_further() -> None:
    delays = list(itertools.islice(reconnect_delays(), 12))
    assert 0.1 <= delays[0] <= 0.2
    assert all(delay <= 10.0 for delay in delays)
    assert delays[-1] >= 6.6


def echo(ping: RawMessage, state: str) -> RawMessage:
    content = {"execution_state": state}
    return RawMessage.build("iopub", "status", content, msg_id="e", session="k", parent=ping.header_fields())


def control_reply(ping: RawMessage) -> RawMessage:
    return RawMessage.build("control", "kernel_info_reply", {}, msg_id="c", session="k", parent=ping.header_fields())


def test_complete_echoes_say_nothing() -> None:
    pings = ControlPings("s")
    for _ in range(50):
        ping = pings.make()
        assert is_ping_echo(echo(ping, "busy"))
        assert [pings.echo(m) for m in (echo(ping, "busy"), control_reply(ping), echo(ping, "idle"))] == ["", "", ""]


def test_an_echo_that_was_overtaken_by_the_next_means_that_messages_were_dropped() -> None:
    pings = ControlPings("s")
    pings.make()
    second = pings.make()
    assert pings.echo(echo(second, "busy")) == ""
    assert "dropped" in pings.echo(echo(second, "idle"))


def test_an_idle_without_its_busy_means_that_messages_were_dropped() -> None:
    pings = ControlPings("s")
    assert "dropped" in pings.echo(echo(pings.make(), "idle"))


def test_no_more_pings_are_sent_while_ten_are_unanswered() -> None:
    pings = ControlPings("s")
    sent = [pings.make() for _ in range(10)]
    assert pings.saturated
    pings.echo(control_reply(sent[0]))
    assert not pings.saturated
