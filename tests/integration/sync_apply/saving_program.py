"""A program that saves one file again and again, and remembers every content that it has replaced itself.

Arguments: folder, name, ``atomic`` or ``in-place``, number of saves, seconds between them, file for the memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from colab_bridge.agent.sync.disk.exchange import system_exchange
from colab_bridge.agent.sync.disk.platform_system import open_root


def main() -> None:
    where, name, how, count, pause, memory = sys.argv[1:]
    root = Path(where)
    replaced: list[str] = []
    exchange = system_exchange()
    with open_root(where) as folder:
        for number in range(int(count)):
            data = f"save {number}".encode()
            if how == "atomic":
                temporary = root / ".saving"
                temporary.write_bytes(data)
                exchange.swap(folder, ".saving", folder, name)
                replaced.append(temporary.read_text())
                temporary.unlink()
            else:
                fd = os.open(root / name, os.O_RDWR)
                replaced.append(os.read(fd, 1000).decode())
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
                os.write(fd, data)
                os.close(fd)
            end = time.perf_counter() + float(pause)
            while time.perf_counter() < end:
                pass
    Path(memory).write_text(json.dumps(replaced))


main()
