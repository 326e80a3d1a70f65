"""What ``doctor`` looks at beyond this machine: proxies, and the runtimes that the user has configured."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO, Any

from colab_bridge.cli.doctor_checks import Check, Machine, Status, one_line
from colab_bridge.config.settings import RuntimeSettings
from colab_bridge.errors import UserError
from colab_bridge.providers.jupyter import parse_server_url

__all__ = ["check_proxy", "check_runtime", "runtime_names"]

_RUNTIME_TIMEOUT_S = 3.0
_MAX_ANSWER_BYTES = 64 * 1024
_LOOPBACK_NAMES = ("127.0.0.1", "localhost")


def runtime_names(machine: Machine) -> list[str]:
    """Return the configured runtimes that are Jupyter servers."""
    runtimes = machine.resolved.settings.runtimes if machine.resolved else {}
    return sorted(name for name, runtime in runtimes.items() if runtime.provider == "jupyter")


def check_proxy(machine: Machine) -> list[Check]:
    """See whether a proxy is set that would also get what this machine sends to itself."""
    proxies = _proxies(machine.environ)
    if not proxies:
        return [Check(id="proxy", status=Status.OK, text="no proxy is set")]
    named = ", ".join(sorted(f"{scheme.upper()}_PROXY" for scheme in proxies if scheme != "no"))
    exempt = _exempt(machine.environ)
    missing = [name for name in _LOOPBACK_NAMES if name not in exempt and "*" not in exempt]
    if missing:
        set_it = "setx" if os.name == "nt" else "export"
        value = ",".join([*(name for name in exempt if name), *missing])
        command = f'{set_it} NO_PROXY "{value}"' if os.name == "nt" else f"{set_it} NO_PROXY={value}"
        text = (
            f"{named} is set and NO_PROXY does not name {' and '.join(missing)}: local connections may go to the proxy"
        )
        return [Check(id="proxy", status=Status.WARN, text=text, fix=command)]
    return [Check(id="proxy", status=Status.OK, text=f"{named} is set, local connections are exempt")]


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    names = {name.lower(): value for name, value in environ.items() if value}
    return {scheme: names[f"{scheme}_proxy"] for scheme in ("http", "https", "all") if f"{scheme}_proxy" in names}


def _exempt(environ: Mapping[str, str]) -> list[str]:
    value = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return [name.strip() for name in value.split(",") if name.strip()]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A server that sends us elsewhere must not get our token sent there as well."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow nothing; the answer then arrives as an HTTPError with its status."""


def check_runtime(machine: Machine, name: str) -> list[Check]:
    """Ask one configured server who it is and whether it takes our token. Blocks for about three seconds at most."""
    assert machine.resolved is not None  # only configured runtimes are asked for
    settings = machine.resolved.settings
    # Without its default runtime nothing runs; another machine may well be switched off.
    worst = Status.FAIL if settings.runtime == name else Status.WARN
    runtime = settings.runtimes[name]
    check_id = f"runtime:{name}"
    try:
        base_url, url_token = parse_server_url(runtime.url)
    except UserError as error:
        return [Check(id=check_id, status=Status.FAIL, text=f"{name}: {error.message}", fix=error.hint)]
    token = runtime.token or url_token or machine.environ.get(runtime.token_env, "")
    if runtime.token_env and not token:
        text, fix = f"{name}: the variable {runtime.token_env} is not set", f"export {runtime.token_env}=..."
        return [Check(id=check_id, status=worst, text=text, fix=fix)]
    text, fix = _ask(runtime, base_url, token)
    shown = f"{name}: {text} ({base_url})"
    return [Check(id=check_id, status=worst if fix else Status.OK, text=shown, fix=fix.replace("NAME", name))]


def _ask(runtime: RuntimeSettings, base_url: str, token: str) -> tuple[str, str]:
    """Return what was found and the fix, which is empty when all is well."""
    try:
        version = _get(runtime, f"{base_url}/api", token).get("version")
        specs = _get(runtime, f"{base_url}/api/kernelspecs", token).get("kernelspecs")
    except urllib.error.HTTPError as error:
        error.close()
        return _refusal(error.code)
    except urllib.error.URLError as error:
        return _unreachable(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return _unreachable(error)
    except (ValueError, RecursionError):
        return "what answers there is no Jupyter server", "colab-bridge config add-runtime NAME --url URL"
    if not isinstance(specs, dict):
        return "what answers there is no Jupyter server", "colab-bridge config add-runtime NAME --url URL"
    return f"Jupyter server {one_line(str(version or ''), 20)} answers and takes our token", ""


def _get(runtime: RuntimeSettings, url: str, token: str) -> dict[str, Any]:
    headers = {"Accept": "application/json"} | ({"Authorization": f"token {token}"} if token else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the caller has checked the scheme
    context = ssl.create_default_context()
    if not runtime.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects(), urllib.request.HTTPSHandler(context=context)]
    if urllib.parse.urlsplit(url).hostname in _LOOPBACK_NAMES:
        handlers.append(urllib.request.ProxyHandler({}))
    with urllib.request.build_opener(*handlers).open(request, timeout=_RUNTIME_TIMEOUT_S) as answer:
        value = json.loads(answer.read(_MAX_ANSWER_BYTES))
    return value if isinstance(value, dict) else {}


def _refusal(status: int) -> tuple[str, str]:
    if status in {401, 403} or 300 <= status < 400:
        return "the server does not take our token", "colab-bridge config set runtimes.NAME.token -"
    if status in {502, 503, 504}:
        return f"the server is not up (HTTP {status})", "Start the server, then try again."
    return f"what answers there is no Jupyter server (HTTP {status})", "colab-bridge config add-runtime NAME --url URL"


def _unreachable(reason: object) -> tuple[str, str]:
    if isinstance(reason, ssl.SSLCertVerificationError):
        why = re.sub(r"\s*\(_ssl\.c:\d+\)", "", reason.verify_message)
        return (
            f"its certificate is not trusted: {one_line(why)}",
            "Set SSL_CERT_FILE to your authority's file, or: colab-bridge config set runtimes.NAME.verify_tls false",
        )
    if isinstance(reason, TimeoutError):
        return (
            f"no answer within {_RUNTIME_TIMEOUT_S:.0f} s",
            "Check its address, your network or VPN, and that it runs.",
        )
    if isinstance(reason, OSError):
        return f"not reachable: {one_line(reason.strerror or str(reason))}", "Start the server, or check its address."
    return f"not reachable: {one_line(str(reason))}", "Start the server, or check its address."
