"""One daemon at a time."""

from __future__ import annotations

from colab_bridge.agent.process.lease import SILENCE_S, Lease


def test_a_free_lease_goes_to_who_asks() -> None:
    assert Lease().ask("a", "A", 0, take=False) is None


def test_a_second_owner_is_told_who_holds_it() -> None:
    lease = Lease()
    lease.ask("a", "A", 10, take=False)
    lease.heard("a", 50)
    holder = lease.ask("b", "B", 60, take=False)
    assert holder is not None
    assert (holder.label, holder.since, holder.heard) == ("A", 10, 50)


def test_the_owner_comes_back_at_any_time_and_keeps_its_beginning() -> None:
    lease = Lease()
    lease.ask("a", "A", 10, take=False)
    assert lease.ask("a", "A2", 100, take=False) is None
    holder = lease.holder(100)
    assert holder is not None
    assert (holder.since, holder.label) == (10, "A2")


def test_a_silent_owner_loses_it_after_two_minutes_and_not_before() -> None:
    lease = Lease()
    lease.ask("a", "A", 0, take=False)
    assert lease.ask("b", "B", SILENCE_S - 0.001, take=False) is not None
    assert lease.ask("b", "B", SILENCE_S, take=False) is None
    assert lease.ask("a", "A", SILENCE_S + 1, take=False) is not None


def test_it_can_be_taken() -> None:
    lease = Lease()
    lease.ask("a", "A", 0, take=False)
    assert lease.ask("b", "B", 1, take=True) is None
    lease.heard("a", 2)
    holder = lease.holder(2)
    assert holder is not None
    assert (holder.owner, holder.heard) == ("b", 1)


def test_only_its_holder_gives_it_back() -> None:
    lease = Lease()
    lease.ask("a", "A", 0, take=False)
    lease.release("b")
    assert lease.holder(1) is not None
    lease.release("a")
    assert lease.ask("b", "B", 1, take=False) is None
