"""Notices on the desktop of this machine, through the tool that each system has for it.

Why no library does it: see ``docs/design/dependencies.md``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import anyio

__all__ = ["Command", "command_for", "show_on_desktop"]

_TIMEOUT_S = 10.0
_APPLICATION = "Colab Bridge"

# Source: AppleScript Language Guide, "display notification". Titles and texts come as arguments, never as code.
_APPLESCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)
# Source: Windows.UI.Notifications, ToastText02. PowerShell's own application id is registered on every Windows 10 and
# later; a toast of an unknown one is not shown. Texts come through the environment, never as code.
_POWERSHELL = """
$null = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType = WindowsRuntime]
$kind = [Windows.UI.Notifications.ToastTemplateType]::ToastText02
$xml = [Windows.UI.Notifications.ToastNotificationManager]::GetTemplateContent($kind)
$texts = $xml.GetElementsByTagName('text')
$null = $texts.Item(0).AppendChild($xml.CreateTextNode($env:COLAB_BRIDGE_NOTICE_TITLE))
$null = $texts.Item(1).AppendChild($xml.CreateTextNode($env:COLAB_BRIDGE_NOTICE_TEXT))
$app = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\\WindowsPowerShell\\v1.0\\powershell.exe'
$toast = [Windows.UI.Notifications.ToastNotification]::new($xml)
[Windows.UI.Notifications.ToastNotificationManager]::CreateToastNotifier($app).Show($toast)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process that shows a notice.

    Attributes:
        argv: Program and arguments.
        env: Variables that it gets besides ours.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def command_for(platform: str, title: str, text: str) -> Command:
    """Return the command that shows a notice.

    Args:
        platform: As ``sys.platform`` names it.
        title: One line.
        text: Some lines.
    """
    if platform == "darwin":
        script = [word for line in _APPLESCRIPT for word in ("-e", line)]
        return Command(argv=("osascript", *script, title, text))
    if platform == "win32":
        env = {"COLAB_BRIDGE_NOTICE_TITLE": title, "COLAB_BRIDGE_NOTICE_TEXT": text}
        flags = ("-NoProfile", "-NonInteractive", "-WindowStyle", "Hidden", "-Command")
        return Command(argv=("powershell", *flags, _POWERSHELL), env=env)
    # Source: Desktop Notifications Specification 1.2: the body may hold markup, the summary may not.
    return Command(argv=("notify-send", f"--app-name={_APPLICATION}", "--", title, escape(text)), env=_session_bus())


def _session_bus() -> dict[str, str]:
    """Return where the desktop listens, for a daemon that was started outside of it, such as over SSH."""
    if os.name != "posix" or os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return {}
    path = f"/run/user/{os.getuid()}/bus"
    return {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={path}"} if Path(path).exists() else {}


async def show_on_desktop(title: str, text: str) -> str:
    """Show a notice on the desktop.

    Returns:
        Empty, or why it could not be shown, one line.
    """
    command = command_for(sys.platform, title, text)
    program = shutil.which(command.argv[0])
    if program is None:
        return f"{command.argv[0]} is not installed"
    try:
        with anyio.fail_after(_TIMEOUT_S):
            done = await anyio.run_process(
                [program, *command.argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                env={**os.environ, **command.env},
            )
    except (OSError, TimeoutError) as error:
        return f"{command.argv[0]}: {type(error).__name__}"
    return f"{command.argv[0]} ended with status {done.returncode}" if done.returncode else ""
