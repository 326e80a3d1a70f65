"""What the agent remembers of the requests it has sent."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from colab_bridge.agent.tunnel.requests import Requests


def opened(path: Path) -> Requests:
    requests = Requests(path)
    requests.load()
    return requests


def test_a_request_is_known_to_the_next_agent(tmp_path: Path) -> None:
    first = opened(tmp_path / "r")
    first.sent('odd "id"\n', 3, "execute_request", "shell")
    again = opened(tmp_path / "r")
    assert again.knows('odd "id"\n')
    assert again.executing
    assert again.flying['odd "id"\n'].number == 3
    first.close()
    again.close()


def test_a_request_has_ended_with_its_reply_and_its_idle_in_any_order(tmp_path: Path) -> None:
    requests = opened(tmp_path / "r")
    for msg_id in ("a", "b"):
        requests.sent(msg_id, 1, "execute_request", "shell")
    assert requests.replied("a", "ok") is None
    ended = requests.idled("a")
    assert ended is not None
    assert ended.status == "ok"
    assert requests.idled("b") is None
    assert requests.replied("b", "error") is not None
    assert not requests.executing
    assert requests.idled("nobody's") is None
    requests.close()
    assert opened(tmp_path / "r").flying == {}


def test_what_needs_no_reply_is_known_but_not_under_way(tmp_path: Path) -> None:
    requests = opened(tmp_path / "r")
    requests.sent("c", 1, "comm_msg", "shell")
    requests.sent("i", 2, "input_reply", "stdin")
    assert requests.knows("c")
    assert not requests.flying
    requests.close()


def test_the_end_of_the_process_ends_all_requests(tmp_path: Path) -> None:
    requests = opened(tmp_path / "r")
    requests.sent("a", 1, "execute_request", "shell")
    requests.process_ended()
    requests.close()
    again = opened(tmp_path / "r")
    assert again.knows("a")
    assert not again.flying
    again.close()


def test_a_torn_last_line_and_foreign_lines_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b'["s","a",1,"execute_request","shell"]\nnonsense\n[]\n{}\n["s",1]\n["s","b",2,"execute_re')
    requests = opened(path)
    assert requests.knows("a")
    assert not requests.knows("b")
    requests.close()


def test_ten_thousand_ids_are_kept_and_the_file_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "r"
    requests = opened(path)
    for number in range(45_000):
        requests.sent(f"id-{number}", number + 1, "comm_msg", "shell")
    requests.close()
    again = opened(path)
    assert all(again.knows(f"id-{number}") for number in range(35_000, 45_000))
    assert not again.knows("id-34999")
    assert path.stat().st_size < 600_000
    again.close()


def test_a_folder_that_cannot_be_written_leaves_the_ids_in_memory(tmp_path: Path) -> None:
    requests = opened(tmp_path / "missing" / "r")
    requests.sent("a", 1, "execute_request", "shell")
    assert requests.knows("a")
    requests.close()


class RequestsMachine(RuleBasedStateMachine):
    """Requests against two sets, over any sequence of events and restarts."""

    ids = st.sampled_from([f"m{number}" for number in range(6)])

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "r"
        self.requests = opened(self.path)
        self.known: set[str] = set()
        self.flying: dict[str, set[str]] = {}

    @rule(msg_id=ids)
    def send(self, msg_id: str) -> None:
        if not self.requests.knows(msg_id):
            self.requests.sent(msg_id, 1, "execute_request", "shell")
            self.flying[msg_id] = {"reply", "idle"}
        self.known.add(msg_id)

    @rule(msg_id=ids, what=st.sampled_from(["reply", "idle"]))
    def hear(self, msg_id: str, what: str) -> None:
        ended = self.requests.replied(msg_id, "ok") if what == "reply" else self.requests.idled(msg_id)
        wanted = self.flying.get(msg_id, set())
        wanted.discard(what)
        assert (ended is not None) == (msg_id in self.flying and not wanted)
        if not wanted:
            self.flying.pop(msg_id, None)

    @rule()
    def end_process(self) -> None:
        self.requests.process_ended()
        self.flying.clear()

    @rule()
    def restart(self) -> None:
        self.requests.close()
        self.requests = opened(self.path)
        for wanted in self.flying.values():
            wanted.update({"reply", "idle"})

    @invariant()
    def the_same_is_known(self) -> None:
        assert set(self.requests.flying) == set(self.flying)
        assert all(self.requests.knows(msg_id) for msg_id in self.known)

    def teardown(self) -> None:
        self.requests.close()
        self.folder.cleanup()


TestRequestsAgainstSets = RequestsMachine.TestCase
TestRequestsAgainstSets.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
