"""Two channels and a link between them that a test can cut, delay, swallow and mix up."""

from __future__ import annotations

import random
from collections import deque

from colab_bridge.agent.channel import Channel
from colab_bridge.agent.events import Event
from colab_bridge.agent.limits import Limits


class Pair:
    """A client and a server, driven by hand; ``pump`` moves everything over a perfect link."""

    def __init__(self, *, client: Limits | None = None, server: Limits | None = None, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.limits = {"client": client, "server": server}
        self.ends = {role: self.make(role) for role in ("client", "server")}
        self.links = {"client": 0, "server": 0}
        self.events: dict[str, list[Event]] = {"client": [], "server": []}
        self.wire: dict[str, deque[bytes]] = {"client": deque(), "server": deque()}

    def make(self, role: str) -> Channel:
        return Channel(role, now=self.now, limits=self.limits[role], random_id=lambda: self.random.getrandbits(64))

    @property
    def client(self) -> Channel:
        return self.ends["client"]

    @property
    def server(self) -> Channel:
        return self.ends["server"]

    def connect(self) -> None:
        for role, end in self.ends.items():
            self.wire[role].clear()
            self.links[role] = end.connected(self.now)

    def cut(self) -> None:
        for role, end in self.ends.items():
            end.disconnected(self.links[role], self.now)

    def restart(self, role: str) -> None:
        """Replace one end by a new object, as a new process would be."""
        self.ends[role] = self.make(role)

    def take(self, role: str) -> list[Event]:
        """Move the events of one end to its list and return the new ones."""
        fresh = []
        while (event := self.ends[role].next_event()) is not None:
            fresh.append(event)
        self.events[role] += fresh
        return fresh

    def step(self) -> bool:
        moved = False
        for role, other in (("client", "server"), ("server", "client")):
            data = self.ends[role].data_to_send(self.now)
            if data:
                moved = True
                self.ends[other].receive(self.links[other], data, self.now)
        for role in self.ends:
            moved |= bool(self.take(role))
        return moved

    def pump(self, *, seconds: float = 0.1) -> None:
        """Let everything flow until nothing moves for so long."""
        until = self.now + seconds
        while True:
            while self.step():
                pass
            if self.now >= until:
                return
            self.now = min(until, self.now + 0.02)
            for end in self.ends.values():
                end.tick(self.now)

    def up(self) -> Pair:
        self.connect()
        self.pump()
        assert self.client.is_up
        assert self.server.is_up
        return self

    def of(self, role: str, kind: type) -> list:
        return [event for event in self.events[role] if isinstance(event, kind)]
