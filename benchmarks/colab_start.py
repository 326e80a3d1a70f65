"""A machine of Colab, emulated: from Enter to the first output, and from Ctrl-C to the end behind a slow link."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.product import console_script, end_product, environment
from colab_bridge.client.connect import connect
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.client.follow import follow_run
from colab_bridge.config.paths import Paths
from colab_bridge.testing.colab import EmulatorOptions
from colab_bridge.testing.colab.assembly import start_real
from colab_bridge.testing.colab.machines import MachineHooks, RunningMachine
from colab_bridge.testing.colab.threaded import threaded_emulator
from colab_bridge.testing.colab.vm.contracts import MachineSpec

__all__ = ["measure"]

_TIMEOUT_S = 120.0
_LATENCY_S = 0.06
_BYTES_PER_S = 2_500_000.0
_BUSY = "print('busy', flush=True)\nwhile True:\n    pass"


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure ``run --gpu T4`` with and without a daemon, the time that the emulator takes for its machine taken off.

    Args:
        quick: Fewer rounds.
    """
    rounds = 2 if quick else 8
    with _user(EmulatorOptions()) as user:
        user.start(cold=True)  # fills the caches of the system
        cold = [user.start(cold=True) for _ in range(rounds)]
        warm = [user.start(cold=False) for _ in range(rounds)]
    with _user(EmulatorOptions(latency_s=_LATENCY_S, bytes_per_s=_BYTES_PER_S)) as user:
        interrupts = user.interrupts(5 if quick else 20)
    for what, times in (("no daemon yet", cold), ("daemon there", warm)):
        yield Row(
            item="colab-start",
            what=f"run --gpu T4 to its first output, without the machine's own start; {what}",
            unit="s",
            ours=summarize(times),
            target=Target(measure=Measure.VALUE, limit=4.0),
        )
    yield Row(
        item="colab-start",
        what="interrupt of a busy loop behind 60 ms and 20 Mbit/s",
        unit="s",
        ours=summarize(interrupts),
        target=Target(measure=Measure.VALUE, limit=1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _User:
    """Somebody with an account of the emulator.

    Attributes:
        folder: Home and project.
        paths: Those of the home.
        env: What a caller of the daemon brings.
        machine_starts: Seconds that the emulator has taken for each machine.
    """

    folder: Path
    paths: Paths
    env: dict[str, str]
    machine_starts: list[float] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def client(self) -> DaemonClient:
        return connect(paths=self.paths)

    def start(self, *, cold: bool) -> float:
        """Return the seconds to the first output, those of the emulator's machine taken off; leaves no machine."""
        program = console_script()
        if cold:
            self.command(program, "daemon", "stop")
        self.machine_starts.clear()
        begun = time.perf_counter()
        argv = [program, "run", "--gpu", "T4", "hello.py"]
        with subprocess.Popen(
            argv, cwd=self.project, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            took = time.perf_counter() - begun
            _rest, said = process.communicate(timeout=_TIMEOUT_S)
        if first != "hello\n" or process.returncode:
            raise BenchmarkError(f"the run ended with {process.returncode}: {said.strip()[-300:]}")
        self.command(program, "stop", "--all", "--yes")
        return took - sum(self.machine_starts)

    def command(self, *argv: str) -> None:
        subprocess.run(argv, cwd=self.project, capture_output=True, timeout=_TIMEOUT_S, check=False)

    def interrupts(self, rounds: int) -> list[float]:
        """Return the seconds from each interrupt to the end of the cell that it meets."""
        client = self.client()
        times = []
        for _ in range(rounds):
            run = {
                "kind": "code",
                "code": _BUSY,
                "project": str(self.project),
                "cwd": str(self.project),
                "options": {"gpu": "T4"},
                "env": self.env,
                "allow_stdin": False,
            }
            begun, run_id = 0.0, ""
            for event in follow_run(client, run):
                if event["type"] == "started":
                    run_id = str(event["run"]["id"])
                elif event["type"] == "stream" and event["text"] == "busy\n":
                    begun = time.perf_counter()
                    client.post(f"/v1/runs/{run_id}/interrupt")
                elif event["type"] == "finished":
                    if event["status"] != "interrupted":
                        raise BenchmarkError(f"the busy loop ended with {event['status']}")
                    times.append(time.perf_counter() - begun)
        return times


@contextlib.contextmanager
def _user(options: EmulatorOptions) -> Iterator[_User]:
    starts: list[float] = []

    async def start_machine(spec: MachineSpec, hooks: MachineHooks) -> RunningMachine:
        begun = time.perf_counter()
        machine = await start_real(spec, hooks, options)
        starts.append(time.perf_counter() - begun)
        return machine

    with (
        tempfile.TemporaryDirectory(prefix="cb-bench-", ignore_cleanup_errors=True) as name,
        environment(Path(name)),
        threaded_emulator(options, start_machine=start_machine) as colab,
    ):
        os.environ.update(colab.env())
        folder = Path(name).resolve()
        found = _User(folder=folder, paths=Paths.from_env(os.environ), env=colab.env(), machine_starts=starts)
        (found.project / ".colab-bridge").mkdir(parents=True)
        (found.project / "hello.py").write_text("print('hello')\n", encoding="utf-8")
        try:
            yield found
        finally:
            end_product(found.client(), found.paths)
