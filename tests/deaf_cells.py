"""Cells that print ``ready`` and then do not listen to an interrupt."""

from __future__ import annotations

#: Holds the interpreter in C code, where no interrupt is looked at; the pause lets the line out before.
IN_C_CODE = """\
import time
print('ready', flush=True)
try:
    time.sleep(0.5)
finally:
    sum(range(10**11))
"""
STUBBORN = """\
import time
print('ready', flush=True)
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        print('ignored', flush=True)
"""
