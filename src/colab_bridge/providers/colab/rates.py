"""What a machine costs an hour, as it was seen: Google tells one figure for all runtimes of an account together."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from colab_bridge._util.atomic import write_atomic
from colab_bridge.model.hardware import Hardware

__all__ = ["Rates", "rate_name"]

log = logging.getLogger(__name__)


def rate_name(hardware: Hardware) -> str:
    """Return the name under which the rate of a machine type is kept."""
    return f"{hardware.accelerator}{', high memory' if hardware.high_memory else ''}"


class Rates:
    """Compute units an hour by accelerator; the empty name is a CPU machine. Machines with more memory cost more.

    Args:
        path: The file; its folder is made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, float]:
        """Return what was seen."""
        try:
            value = json.loads(self._path.read_bytes())
            return {str(name): float(rate) for name, rate in value["rates"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("seen rates cannot be read", extra={"why": type(error).__name__})
            return {}

    def note(self, hardware: Hardware, rate_hourly: float) -> None:
        """Keep the rate of a machine that was the only one of its account."""
        name = rate_name(hardware)
        known = self.load()
        if known.get(name) == rate_hourly:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = json.dumps({"v": 1, "rates": known | {name: rate_hourly}}).encode()
            write_atomic(self._path, data, mode=0o600)
        except OSError as error:
            log.warning("a rate was not written down", extra={"why": str(error)})
