"""The way from a Jupyter server to the agent: a thread on the stdin socket of a kernel that does nothing else.

The text of this file is sent as one silent cell into an extra kernel, followed by a call of
:func:`colab_bridge_doorman`. It stores the bundle, lets it find or start the agent, and then forwards bytes between the
kernel's messages of the type ``colab_bridge`` and local connections to the agent, one for each sender. It understands
nothing of what it forwards. docs/design/agent.md has the messages.
"""

import contextlib
import json
import threading

_VERSION = 2
_TYPE = "colab_bridge"
_DELIMITER = b"<IDS|MSG>"
_READ_BYTES = 256 * 1024
_MOST_CONNECTIONS = 16
# The channel has at most 16 MB under way, so whoever sends more than this is no daemon of ours.
_MOST_WAITING_BYTES = 64 * 1024 * 1024
# A full pipe tells nobody when it has room again.
_RETRY_MS = 3
_START_S = 60


def colab_bridge_doorman(request):
    """Bring up the agent and the way to it.

    Args:
        request: ``bundle`` (name of the file), ``data`` (its content, packed, in base64, or empty), ``mode``
            (``tunnel`` or ``control``), and what the bundle's ``start`` takes.

    Returns:
        JSON text: ``ok`` with what ``start`` says, or ``need`` when the bundle has to be sent, or ``message``.
    """
    import sys

    if sys.version_info < (3, 10):
        text = "the Python of the runtime's kernels is %d.%d, and the agent needs 3.10" % sys.version_info[:2]
        return json.dumps({"ok": False, "final": True, "message": text})
    try:
        kernel = globals()["get_ipython"]().kernel  # every ipykernel has it in its namespace
        bundle = _find_bundle(request["bundle"], request["hash"]) or _store_bundle(request)
        if bundle is None:
            return json.dumps({"ok": False, "need": "bundle"})
        answer = _start(bundle, {**request, "data": "", "hints": _hints()})
        if answer.get("ok"):
            _open_door(kernel, answer["address"], request["mode"])
    except Exception as error:  # the root of this cell
        text = "the way to the agent cannot be opened: %s: %s" % (type(error).__name__, error)
        return json.dumps({"ok": False, "message": text[:300]})
    answer.pop("address", None)  # its token is no business of anybody beyond this machine
    return json.dumps(answer)


def _hints():
    """Return what this kernel knows about the machine and a process without Jupyter does not."""
    import os
    import sys

    hints = {"python": sys.executable, "cwd": os.getcwd()}
    try:
        import zmq

        hints["site"] = os.path.dirname(os.path.dirname(os.path.abspath(zmq.__file__)))
        from ipykernel import get_connection_file

        hints["jupyter_runtime_dir"] = os.path.dirname(os.path.abspath(get_connection_file()))
    except Exception:
        hints["trouble"] = "the doorman's kernel has no pyzmq"
    return hints


# -- the bundle


def _bundle_folders():
    import os
    import sys
    import tempfile

    home = os.path.expanduser("~")
    environ = os.environ
    temp = tempfile.gettempdir()
    shared = ["colab-bridge-%s" % (os.geteuid() if os.name == "posix" else "user"), "bundles"]
    own = ["colab-bridge", "bundles"]
    if sys.platform == "win32":
        bases = [environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")]
    elif sys.platform == "darwin":
        bases = [os.path.join(home, "Library", "Application Support"), os.path.join(home, "Library", "Caches")]
    else:
        bases = [environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")]
        bases.append(environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"))
    last = [temp] if sys.platform in ("win32", "darwin") else [temp, "/dev/shm"]  # noqa: S108  # what is made there is checked
    return [os.path.join(base, *own) for base in bases] + [os.path.join(base, *shared) for base in last]


def _is_bundle(path, content_hash):
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest().startswith(content_hash)
    except OSError:
        return False


def _find_bundle(name, content_hash):
    import os

    for folder in _bundle_folders():
        path = os.path.join(folder, name)
        if _is_bundle(path, content_hash) and _is_private(folder):
            return path
    return None


def _is_private(folder):
    import os
    import stat

    if os.name != "posix":
        return True
    for path in (folder, os.path.dirname(folder)):
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return False
    return True


def _store_bundle(request):
    import base64
    import os
    import zlib

    if not request["data"]:
        return None
    data = zlib.decompress(base64.b64decode(request["data"]))
    reasons = []
    for folder in _bundle_folders():
        path = os.path.join(folder, request["bundle"])
        temporary = "%s.%d" % (path, os.getpid())
        try:
            for needed in (os.path.dirname(folder), folder):
                os.makedirs(needed, mode=0o700, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError as error:
            reasons.append("%s: %s" % (folder, error.strerror or error))
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            continue
        if _is_bundle(path, request["hash"]) and _is_private(folder):
            return path
        reasons.append("%s: others can write there" % folder)
    raise OSError("no folder on the runtime can be written to (%s)" % "; ".join(reasons))


def _start(bundle, request):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", bundle, "start"],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=_START_S,
        check=False,
        creationflags=0x08000000 if sys.platform == "win32" else 0,  # no console window
    )
    try:
        return json.loads(done.stdout.splitlines()[0])
    except (IndexError, ValueError):
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return {"ok": False, "message": ("the agent cannot be started: %s" % (last or "no answer"))[:300]}


# -- the door


def _open_door(kernel, address, mode):
    """Let messages through to the agent; what an earlier call has opened is used or replaced."""
    import sys
    import types

    shelf = sys.modules.setdefault("_colab_bridge_doorman", types.ModuleType("_colab_bridge_doorman"))
    door = getattr(shelf, "door", None)
    if door is not None and (door.version, door.mode) == (_VERSION, mode) and door.is_open():
        door.address = address
        return
    if door is not None:
        door.shut()
    vars(shelf)["door"] = _StdinDoor(kernel, address) if mode == "tunnel" else _ControlDoor(kernel, address)


def _connect(address):
    import socket

    if address["kind"] == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(3)
            connection.connect(address["path"])
        except BaseException:
            connection.close()
            raise
        return connection
    connection = socket.create_connection((address["host"], address["port"]), timeout=3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall((address["token"] + "\n").encode())
    return connection


class _Letter:
    """Signs and reads the kernel's messages without the kernel's own session, which belongs to another thread.

    Source: Jupyter messaging protocol 5.4, the wire protocol.
    """

    def __init__(self, session):
        import hashlib
        import hmac

        digest = getattr(hashlib, session.signature_scheme.split("-", 1)[1])
        self._mac = hmac.new(session.key, digestmod=digest) if session.key else None
        self._session = session.session
        self._count = 0

    def _sign(self, parts):
        if self._mac is None:
            return b""
        mac = self._mac.copy()
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def write(self, content, data):
        from datetime import datetime, timezone

        self._count += 1
        header = {
            "msg_id": "%s_cb_%d" % (self._session, self._count),
            "msg_type": _TYPE,
            "username": "",
            "session": self._session,
            "date": datetime.now(timezone.utc).isoformat(),
            "version": "5.3",
        }
        parts = [json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode()]
        return [_DELIMITER, self._sign(parts), *parts, data]

    def read(self, frames):
        """Return sender, content and data; None when it is not for us, or not from the server."""
        import hmac

        try:
            at = frames.index(_DELIMITER)
        except ValueError:
            return None
        parts = frames[at + 2 : at + 6]
        if at != 1 or len(parts) < 4 or not hmac.compare_digest(self._sign(parts), frames[at + 1]):
            return None
        try:
            if json.loads(parts[0])["msg_type"] != _TYPE:
                return None
            content = json.loads(parts[3])
        except (ValueError, KeyError, TypeError):
            return None
        return frames[0], content if isinstance(content, dict) else {}, b"".join(frames[at + 6 :])


class _StdinDoor(threading.Thread):
    """Owns the kernel's stdin socket. Nobody in this kernel ever asks for input."""

    mode = "tunnel"
    version = _VERSION

    def __init__(self, kernel, address):
        import atexit
        import socket

        import zmq

        super().__init__(name="colab-bridge-doorman", daemon=True)
        self.address = address
        self._zmq = zmq
        found = kernel.stdin_socket
        self._router = getattr(found, "socket", found)
        # Without it a message to somebody who has gone, or beyond the high-water mark, is dropped without a word.
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._letter = _Letter(kernel.session)
        self._connections = {}
        self._stopping = False
        self._bell, self._ring = socket.socketpair()
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        self._by_number = {}
        # The kernel closes its sockets at its end; nobody may be in them then.
        atexit.register(self.shut)
        self.start()

    def is_open(self):
        return self.is_alive() and not self._stopping

    def shut(self):
        self._stopping = True
        with contextlib.suppress(OSError):
            self._ring.send(b"x")
        self.join(2)

    def run(self):
        try:
            while not self._stopping:
                self._turn()
        except self._zmq.ZMQError:
            pass  # the kernel ends
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)
            self._bell.close()
            self._ring.close()

    def _turn(self):
        retry = False
        for connection in list(self._connections.values()):
            if connection.down is not None:
                self._send_down(connection)
                retry = retry or connection.down is not None
            self._watch(connection)
        for where, events in self._poller.poll(_RETRY_MS if retry else None):
            if where is self._router:
                self._take_letters()
            elif where in self._by_number:
                self._serve(self._by_number[where], events)

    def _watch(self, connection):
        """Tell the poller what is waited for on a connection, where that has changed."""
        zmq = self._zmq
        wish = (zmq.POLLIN if connection.down is None else 0) | (zmq.POLLOUT if connection.up else 0)
        if wish != connection.wish and connection.number in self._by_number:
            connection.wish = wish
            self._poller.register(connection.number, wish)

    def _take_letters(self):
        # A few at a time, so that a flood upward does not hold up what goes down.
        for _ in range(32):
            try:
                frames = self._router.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                return
            letter = self._letter.read(frames)
            if letter is not None:
                self._take(*letter)

    def _take(self, sender, content, data):
        if content.get("op") == "knock":
            self._send(sender, {"op": "here"}, b"")
            return
        connection = self._connections.get(sender)
        if connection is None:
            if content.get("op") != "open":
                self._send(sender, {"op": "closed", "why": "there is no such connection"}, b"")
                return
            connection = self._open(sender)
        if connection is None:
            return
        connection.up.append(data)
        connection.waiting += len(data)
        if connection.waiting > _MOST_WAITING_BYTES:
            self._drop(connection, "too much waits for the agent")
        else:
            self._push_up(connection)

    def _open(self, sender):
        if len(self._connections) >= _MOST_CONNECTIONS:
            self._drop(next(iter(self._connections.values())), "others came")
        try:
            connection = _Connection(sender, _connect(self.address))
        except OSError as error:
            self._send(sender, {"op": "closed", "why": "nobody answers: %s" % (error.strerror or error)}, b"")
            return None
        self._connections[sender] = connection
        self._by_number[connection.number] = connection
        return connection

    def _close(self, connection):
        self._connections.pop(connection.sender, None)
        if self._by_number.pop(connection.number, None) is not None and connection.wish:
            self._poller.unregister(connection.number)
        connection.socket.close()

    def _serve(self, connection, events):
        if events & self._zmq.POLLOUT:
            self._push_up(connection)
        is_open = self._by_number.get(connection.number) is connection
        if is_open and connection.down is None and events & (self._zmq.POLLIN | self._zmq.POLLERR):
            self._pull_down(connection)

    def _push_up(self, connection):
        try:
            while connection.up:
                sent = connection.socket.send(connection.up[0])
                connection.waiting -= sent
                if sent < len(connection.up[0]):
                    connection.up[0] = connection.up[0][sent:]
                    return
                del connection.up[0]
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(connection, "the agent hung up: %s" % (error.strerror or error))

    def _pull_down(self, connection):
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection, "the agent hung up")
            return
        connection.down = data
        self._send_down(connection)

    def _send_down(self, connection):
        if self._send(connection.sender, {}, connection.down):
            connection.down = None

    def _send(self, sender, content, data):
        """Send a letter; False when there is no room now."""
        try:
            self._router.send_multipart([sender, *self._letter.write(content, data)], self._zmq.NOBLOCK)
        except self._zmq.Again:
            return False
        except self._zmq.ZMQError as error:
            if error.errno != self._zmq.EHOSTUNREACH:
                raise
            gone = self._connections.get(sender)
            if gone is not None:
                self._close(gone)
        return True

    def _drop(self, connection, why):
        self._close(connection)
        self._send(connection.sender, {"op": "closed", "why": why}, b"")


class _Connection:
    """One local connection to the agent, for one sender."""

    def __init__(self, sender, connected):
        connected.setblocking(False)
        self.sender = sender
        self.socket = connected
        self.number = connected.fileno()
        self.wish = 0
        self.up = []
        self.waiting = 0
        self.down = None


class _ControlDoor:
    """The same on the kernel's control channel, where stdin does not come through."""

    mode = "control"
    version = _VERSION

    def __init__(self, kernel, address):
        self.address = address
        self._kernel = kernel
        self._connections = {}
        kernel.control_handlers[_TYPE] = self._handle

    def is_open(self):
        return self._kernel.control_handlers.get(_TYPE) == self._handle

    def shut(self):
        self._kernel.control_handlers.pop(_TYPE, None)
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()

    async def _handle(self, stream, ident, message):
        sender = bytes(ident[0]) if isinstance(ident, (list, tuple)) else bytes(ident)
        content = message["content"]
        if content.get("op") == "knock":
            self._send(stream, ident, {"op": "here"}, b"")
            return
        connection = self._connections.get(sender)
        if content.get("op") == "open":
            try:
                connection = _connect(self.address)
            except OSError as error:
                self._send(stream, ident, {"op": "closed", "why": "nobody answers: %s" % error}, b"")
                return
            connection.settimeout(5)
            self._connections[sender] = connection
            reader = (stream, ident, sender, connection)
            threading.Thread(target=self._read, args=reader, daemon=True).start()
        if connection is None:
            self._send(stream, ident, {"op": "closed", "why": "there is no such connection"}, b"")
            return
        try:
            for data in message["buffers"]:
                connection.sendall(data)
        except OSError:
            connection.close()  # the reader reports it

    def _read(self, stream, ident, sender, connection):
        import socket

        loop = stream.io_loop
        while True:
            try:
                data = connection.recv(_READ_BYTES)
            except socket.timeout:
                continue
            except OSError:
                data = b""
            if not data:
                break
            loop.add_callback(self._send, stream, ident, {}, data)
        if self._connections.get(sender) is connection:
            del self._connections[sender]
        connection.close()
        loop.add_callback(self._send, stream, ident, {"op": "closed", "why": "the agent hung up"}, b"")

    def _send(self, stream, ident, content, data):
        self._kernel.session.send(stream, _TYPE, content, ident=ident, buffers=[data])
