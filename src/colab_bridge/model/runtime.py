"""What a provider hands out: runtimes and the way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

__all__ = ["Endpoint", "RuntimeHandle", "RuntimeRequest", "Secret"]


class Secret:
    """A string whose ``repr`` and ``str`` hide it; :meth:`reveal` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself; call it only where it goes onto the wire."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The way in to the Jupyter server of a runtime.

    Attributes:
        base_url: ``http(s)://host:port/prefix`` without a trailing slash and without a token.
        headers: Request headers that authenticate us, values secret.
        expires_at: Unix seconds after which the provider must be asked again; None when it does not expire.
        verify_tls: False only when the user's configuration says so.
        unlimited_output: True when the server is known not to limit the rate of iopub messages.
        nodelay: True when the server is known to send small frames at once, with nothing between it and us.
        renew: Returns another way in, because what stands before the server refuses this one; None where it does not
            expire. Raises what ``RuntimeProvider.attach`` raises.
    """

    base_url: str
    headers: Mapping[str, Secret] = field(default_factory=dict)
    expires_at: float | None = None
    verify_tls: bool = True
    unlimited_output: bool = False
    nodelay: bool = False
    renew: Callable[[], Awaitable[Endpoint]] | None = field(default=None, compare=False, repr=False)

    def plain_headers(self) -> dict[str, str]:
        """Return the headers as they go onto the wire."""
        return {name: value.reveal() for name, value in self.headers.items()}


def _say_nothing(_line: str) -> None:
    """Stand in where nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRequest:
    """What a session asks a provider for.

    Attributes:
        session: Name of the session, used for folder names and labels.
        project: Absolute path of the project's root on this machine.
        options: Provider options, already validated (``isolated``, ``url``, ``token``, ``python`` ...).
        report: Called with one line for people whenever there is something new to say while a machine is waited for.
    """

    session: str
    project: str
    options: Mapping[str, Any] = field(default_factory=dict)
    report: Callable[[str], None] = field(default=_say_nothing, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeHandle:
    """A runtime that a provider holds for us; JSON-ready, so that another process can adopt it.

    Attributes:
        provider: Name of the provider.
        id: The provider's own identifier of the machine.
        root: Folder on the runtime that stands for the project's root; None when the server decides.
        served: Folder below which the runtime's server names files and starts kernels, where that is not ``root``.
        data: Whatever the provider needs to attach again; may hold secrets, is stored 0600 and never shown.
        label: One line for people, such as ``local, pid 4711``; holds no secret.
        here: Folder of this runtime on this machine, where its kernels run here and as this user: what belongs to the
            runtime goes there and is removed with it, and the kernels' connection files are in ``runtime`` below it.
            None for all other runtimes.
    """

    provider: str
    id: str
    root: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    here: str | None = None
    served: str | None = None

    @property
    def account(self) -> str:
        """Whose account pays for it; empty where none does, or nobody knows."""
        return str(self.data.get("account") or "")

    @property
    def start_folder(self) -> str:
        """Return the project's folder relative to what the server serves, with ``/``; empty when it is the same."""
        if self.root is None or self.served is None:
            return ""
        return PurePosixPath(self.root).relative_to(self.served).as_posix()
