"""``jupyter_kernel_test`` with all samples against one kernelspec; prints what passed as JSON.

Run by test_kernel_conformance.py in a process of its own, once for plain ipykernel and once for the proxy kernel.
"""

from __future__ import annotations

import json
import sys
import unittest
from typing import Any

import jupyter_kernel_test as jkt


class AllKernelTests(jkt.KernelTests):
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}, {"text": "impor"}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('x')"
    code_execute_result = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {"code": "'ä' * 2", "result": "'ää'"},
    ]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search", "range")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class WelcomeTests(jkt.IopubWelcomeTests):
    support_iopub_welcome = True


class Collector(unittest.TestResult):
    """Notes the outcome of each test and each subtest."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def _note(self, test: Any, outcome: str) -> None:
        self.outcomes[test.id().removeprefix("__main__.")] = outcome

    def addSuccess(self, test: Any) -> None:
        self.outcomes.setdefault(test.id().removeprefix("__main__."), "passed")

    def addFailure(self, test: Any, err: Any) -> None:
        self._note(test, f"failed: {err[1]}")

    def addError(self, test: Any, err: Any) -> None:
        self._note(test, f"error: {err[1]!r}")

    def addSkip(self, test: Any, reason: str) -> None:
        self._note(test, f"skipped: {reason}")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        self._note(subtest, "passed" if err is None else f"failed: {err[1]}")


def main() -> None:
    """Run everything against the kernelspec that is named on the command line."""
    result = Collector()
    suite = unittest.TestSuite()
    for case in (AllKernelTests, WelcomeTests):
        case.kernel_name = sys.argv[1]
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    suite.run(result)
    print(json.dumps(result.outcomes))


if __name__ == "__main__":
    main()
