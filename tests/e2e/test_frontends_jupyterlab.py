"""JupyterLab in a real browser: a plot and a slider through the proxy kernel, and a screenshot of both."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from frontends_support import KERNEL, Bridge, bridge, eventually

__all__ = ["bridge"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARTIFACTS = Path(__file__).parents[2] / ".test-artifacts"
ENABLE = "enable it with: scripts/install-browser.sh"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_MS = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ecosystem,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason=f"no Chromium here; {ENABLE}"),
]

PLOT = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);"
SLIDER = "import ipywidgets\nslider = ipywidgets.IntSlider(value=3, description='Weight')\nslider"


@pytest.fixture
def lab(bridge: Bridge) -> Iterator[str]:
    """The address of a JupyterLab that works in the project."""
    pytest.importorskip("jupyterlab")
    pytest.importorskip("ipywidgets")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    config = bridge.home.parent / "jupyter-config" / "jupyter_server_config.json"
    quiet = config.parent / "lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True, exist_ok=True)
    quiet.write_text('{"fetchNews": "false"}', encoding="utf-8")
    config.write_text(json.dumps({"IdentityProvider": {"token": token}}), encoding="utf-8")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    options = ["--allow-root", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = bridge.home.parent / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen([*command, *options], cwd=bridge.project, stdout=output, stderr=output)
    try:
        eventually(lambda: _answers(port, token), f"JupyterLab answers, see {log}", timeout_s=60)
        yield f"http://127.0.0.1:{port}/lab/tree/NOTEBOOK?token={token}&reset"
    finally:
        server.terminate()
        server.wait(20)


def _answers(port: int, token: str) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/status", headers={"Authorization": f"token {token}"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason=f"Playwright is not installed; {ENABLE}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        found = browser.new_page(viewport={"width": 1280, "height": 1000})
        found.set_default_timeout(START_MS)
        yield found
        ARTIFACTS.mkdir(exist_ok=True)
        found.screenshot(path=str(ARTIFACTS / "jupyterlab-at-the-end.png"))
        browser.close()


def open_notebook(page: Any, address: str, bridge: Bridge, name: str, *cells: str) -> None:
    """Write a notebook, open it, and wait until its kernel is idle."""
    content = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    content.metadata["kernelspec"] = {"name": KERNEL, "display_name": "Colab Bridge (local)", "language": "python"}
    nbformat.write(content, bridge.project / name)
    page.goto(address.replace("NOTEBOOK", name))
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    # The indicator in the toolbar says idle before there is a kernel, so that alone proves nothing.
    eventually(bridge.kernels, "the kernel is there", timeout_s=60)
    page.get_by_text("Colab Bridge (local) | Idle").wait_for()


def run_all(page: Any) -> None:
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def test_a_plot_and_a_slider_work_in_jupyterlab(lab: str, page: Any, bridge: Bridge) -> None:
    open_notebook(page, lab, bridge, "lab.ipynb", PLOT, SLIDER)
    run_all(page)
    plot = page.locator(".jp-OutputArea-output img")
    plot.wait_for()
    assert plot.evaluate("image => image.complete && image.naturalWidth") > 100
    readout = page.locator(".widget-slider .widget-readout")
    readout.wait_for()
    handle = page.locator(".widget-slider .noUi-handle")
    handle.focus()
    for _ in range(4):
        handle.press("ArrowRight")
    assert readout.inner_text() == "7"
    assert_kernel_sees(page, "print('slider', slider.value)", "slider 7")
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(state="attached")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / "jupyterlab-plot-and-slider.png"))


def assert_kernel_sees(page: Any, code: str, expected: str) -> None:
    """Run code in a new cell at the end and wait for its output."""
    page.locator(".jp-Notebook .jp-CodeCell").last.locator(".cm-content").click()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.type(code)
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-OutputArea-output", has_text=expected).wait_for()


def test_restart_in_jupyterlab_clears_the_variables(lab: str, page: Any, bridge: Bridge) -> None:
    open_notebook(page, lab, bridge, "restart.ipynb", "print('count', globals().setdefault('n', 0)); n += 1")
    run_all(page)
    page.locator(".jp-OutputArea-output", has_text="count 0").wait_for()
    run_all(page)
    page.locator(".jp-OutputArea-output", has_text="count 1").wait_for()
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(".jp-OutputArea-output", has_text="count 0").wait_for()
    assert len(bridge.kernels()) == 1


def test_the_end_of_jupyterlab_leaves_no_kernel(lab: str, page: Any, bridge: Bridge) -> None:
    open_notebook(page, lab, bridge, "end.ipynb", "print('run' + 'ning')")
    run_all(page)
    page.locator(".jp-OutputArea-output", has_text="running").wait_for()
    assert bridge.kernels()
    address = lab.split("/lab", maxsplit=1)[0]
    token = lab.split("token=")[1].split("&", maxsplit=1)[0]
    request = urllib.request.Request(
        f"{address}/api/shutdown", method="POST", headers={"Authorization": f"token {token}"}
    )
    urllib.request.urlopen(request, timeout=10).close()
    eventually(lambda: not bridge.kernels(), "no kernel is left", timeout_s=10)
