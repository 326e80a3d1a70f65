"""An emulator of Google Colab's back end, for tests: control plane, runtime proxy, machines and Drive.

Example::

    async with emulator() as colab:
        colab.faults.add(kind="status", service="colab", method="POST", path="/tun/m/assign", status=503)
        subprocess.run(["colab-bridge", "run", "train.py"], env=os.environ | colab.env())
        assert colab.violations == []
"""

from __future__ import annotations

from colab_bridge.testing.colab.assembly import ColabEmulator, emulator
from colab_bridge.testing.colab.faults import Fault
from colab_bridge.testing.colab.identity import Consent
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.threaded import ThreadedEmulator, threaded_emulator

__all__ = [
    "ColabEmulator",
    "Consent",
    "EmulatorOptions",
    "Fault",
    "ThreadedEmulator",
    "emulator",
    "threaded_emulator",
]
