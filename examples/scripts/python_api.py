"""Code on a runtime from a Python program.

python examples/scripts/python_api.py
"""

from __future__ import annotations

from colab_bridge import LocalColab


def main() -> None:
    """Run three pieces of code on one kernel; the last one fails on purpose."""
    with LocalColab() as colab:
        colab.run("x = 20")
        print("value:", colab.run("x + 22").value)

        result = colab.run("for i in range(3): print('line', i)")
        print("printed:", result.stdout.splitlines())

        failed = colab.run("1 / 0", check=False)
        if failed.error is not None:
            print("error:", failed.error.ename)


if __name__ == "__main__":
    main()
