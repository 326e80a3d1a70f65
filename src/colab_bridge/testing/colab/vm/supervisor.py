"""Runs the processes of one emulated machine, and ends them all when the emulator goes; a program, not a module.

Started by path with the emulator's interpreter (``python -I supervisor.py``). Its stdin is the line to the emulator:
the first line is the request, and the end of the stream, also when the emulator was killed, ends the machine. Its
stdout says one line: which kind of disk the machine got, or why there is none.

On Linux the machine sees a copy of the host's tree of mounts in which ``/content``, ``/root``, ``/home``, ``/tmp`` and
``/var/colab`` are its own, and its processes have a process namespace, so that the kernel ends every one of them.
Source: mount_namespaces(7), user_namespaces(7), pid_namespaces(7), pivot_root(2). Where that is not allowed, one
machine at a time works in the host's own ``/content``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

import psutil

# linux/sched.h, linux/mount.h, linux/prctl.h
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: Folders of the machine's own: what it sees, and where that lies below the machine's folder.
_OWN = {"content": "content", "root": "root", "home": "home", "tmp": "tmp"}
_END_WAIT_S = 5.0
_END_ROUNDS = 10
_SHARED_MARK = ".colab-bridge-emulator"
_ALLOW_MOUNTS = (
    "run on Linux with user namespaces (sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0) or, in a "
    "container, with --cap-add SYS_ADMIN"
)


class CannotError(Exception):
    """The machine cannot be had here; the text is for the user, with the fix after a line break."""


def main() -> None:
    """Run one machine from its start to its end."""
    request = json.loads(_first_line(0))
    if hasattr(os, "fork"):
        _main_posix(request)
    else:
        _main_windows(request)


def _first_line(descriptor: int) -> bytes:
    """Read up to a line end and not a byte more, since what follows is only ever the end."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(descriptor, 65536)
        if not data:
            sys.exit(0)
        line += data
    return line


def _say(**report: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the emulator has been killed
        os.write(1, json.dumps(report).encode("ascii") + b"\n")


def _end_all(mark: str) -> None:
    """End every process below us, and (where there is no subreaper) every one that carries the machine's mark."""
    for _ in range(_END_ROUNDS):  # one may start another while we look
        found = psutil.Process().children(recursive=True)
        if sys.platform != "linux":
            found += [one for one in psutil.process_iter() if _is_marked(one, mark)]
        if not found:
            return
        for one in found:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(found, timeout=_END_WAIT_S)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ().get("COLAB_BRIDGE_VM") == mark
    return False


def _remove(folder: str) -> None:
    """Remove the machine's disk, but never through a mount: the mount points go first or nothing does."""
    for name in ("rootfs", "layers"):
        try:
            Path(folder, name).rmdir()
        except OSError:
            return
    shutil.rmtree(folder, ignore_errors=True)


def _main_posix(request: dict[str, Any]) -> None:
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shared = None
    try:
        machine, shared = _start(request)
    except CannotError as error:
        message, _, hint = str(error).partition("\n")
        _say(error=message, hint=hint)
        machine = 0
    os.close(request["guest_fd"])
    if machine:
        _say(disk="private" if shared is None else "shared")
        _wait_for_end(machine)
        _end_all(request["env"]["COLAB_BRIDGE_VM"])
        _say(ended=True)
        while os.read(0, 4096):  # where the machine has ended by itself, somebody may want to read its log
            pass
    if shared is not None:
        shared.give_back()
    _remove(request["folder"])


def _start(request: dict[str, Any]) -> tuple[int, SharedContent | None]:
    """Start the machine's first process, on a disk of its own if possible; return its id."""
    reason = "this system has no private mounts"
    if sys.platform == "linux" and not request["shared"]:
        for flags in _namespaces():
            pid, reason = _start_private(request, flags)
            if pid:
                return pid, None
    shared = SharedContent(request, reason)
    request["env"].update(request["shared_env"])
    pid = os.fork()
    if pid == 0:
        _run_guest(request)
    return pid, shared


def _namespaces() -> list[int]:
    """Return the sets of namespaces to try, best first."""
    plain = [_CLONE_NEWNS | _CLONE_NEWPID, _CLONE_NEWNS] if os.geteuid() == 0 else []
    return [*plain, _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID, _CLONE_NEWUSER | _CLONE_NEWNS]


def _start_private(request: dict[str, Any], flags: int) -> tuple[int, str]:
    """Start the machine in namespaces; return its id and nothing, or 0 and the reason."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _enter(request, flags, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reason = pipe.read().decode()  # ends when all of the child's have been closed
    if not reason:
        return pid, ""
    os.waitpid(pid, 0)
    return 0, reason


def _enter(request: dict[str, Any], flags: int, writer: int) -> NoReturn:
    """Become the machine's first process (or its parent, since a process namespace holds only children)."""
    try:
        uid, gid = os.geteuid(), os.getegid()
        _check(_libc().unshare(flags), "unshare")
        if flags & _CLONE_NEWUSER:
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
        _die_with_parent()  # after the change of credentials, which forgets it
        rootfs = _mirror(request)
        _cover(request, rootfs, "userxattr" if flags & _CLONE_NEWUSER else "")
        if flags & _CLONE_NEWPID and (pid := os.fork()):
            os.close(writer)
            os.close(request["guest_fd"])
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
        if flags & _CLONE_NEWPID:
            _die_with_parent()
            _mount("proc", f"{rootfs}/proc", "proc", 0)
        else:
            _mount("/proc", f"{rootfs}/proc", None, _MS_BIND | _MS_REC)
        os.chdir(rootfs)
        _check(_libc().pivot_root(b".", b"."), "pivot_root")
        _check(_libc().umount2(b".", _MNT_DETACH), "umount2")
        os.chdir("/content")
    except OSError as error:
        os.write(writer, f"{error.filename or ''} {error.strerror}".strip().encode())
        os._exit(1)
    os.close(writer)
    _run_guest(request)


def _mirror(request: dict[str, Any]) -> str:
    """Build the machine's root: the host's, entry by entry, with the machine's own folders in their places."""
    folder = Path(request["folder"])
    rootfs = folder / "rootfs"
    # Without this, what is mounted here would appear on the host.
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", str(rootfs), "tmpfs", 0)
    _mirror_entries(Path("/"), rootfs, leave_out={*_OWN, "proc", "var"})
    (rootfs / "proc").mkdir()
    (rootfs / "var").mkdir()
    _mirror_entries(Path("/var"), rootfs / "var", leave_out={"colab"})
    for name, own in {**_OWN, "var/colab": "var-colab"}.items():
        (rootfs / name).mkdir()
        _mount(str(folder / own), str(rootfs / name), None, _MS_BIND)
    for path in request["keep"]:  # interpreters and the like that the machine's own folders have covered
        target = rootfs / path.lstrip("/")
        if path.split("/")[1] in _OWN and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.mkdir() if Path(path).is_dir() else target.touch()
            _mount(path, str(target), None, _MS_BIND | _MS_REC)
    return str(rootfs)


def _cover(request: dict[str, Any], rootfs: str, option: str) -> None:
    """Let the machine install packages without changing the host's: its writes go to a layer of its own, in memory."""
    if not request["layer"]:
        return
    layers = Path(request["folder"], "layers")
    with contextlib.suppress(OSError):  # an old kernel, or a file system that cannot be layered: then they are shared
        _mount("tmpfs", str(layers), "tmpfs", 0)
        upper, work = layers / "upper", layers / "work"
        upper.mkdir()
        work.mkdir()
        data = ",".join(filter(None, (f"lowerdir={request['layer']}", f"upperdir={upper}", f"workdir={work}", option)))
        _mount("overlay", rootfs + request["layer"], "overlay", 0, data)
        site = Path(rootfs + request["site"])
        site.mkdir(parents=True, exist_ok=True)
        # So that programs which take no notice of PYTHONPATH also find what machines of this kind have installed.
        (site / "emulated_machine.pth").write_text(request["guest"] + "\n", encoding="utf-8")


def _mirror_entries(source: Path, target: Path, leave_out: set[str]) -> None:
    for entry in os.scandir(source):
        if entry.name in leave_out:
            continue
        here = target / entry.name
        if entry.is_symlink():
            here.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            here.mkdir()
            _mount(entry.path, str(here), None, _MS_BIND | _MS_REC)
        elif entry.is_file():
            here.touch()
            _mount(entry.path, str(here), None, _MS_BIND)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    names = [os.fsencode(source), os.fsencode(target), kind.encode() if kind else None]
    done = _libc().mount(*names, flags, os.fsencode(data) if data else None)
    _check(done, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _check(_libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _wait_for_end(machine: int) -> None:
    """Wait until the emulator has gone or wants no more, or the machine has ended by itself."""
    ended_reader, ended_writer = os.pipe()

    def watch() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(machine, 0)
        os.close(ended_writer)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        ready, _, _ = select.select([0, ended_reader], [], [])
        if ended_reader in ready or (0 in ready and not os.read(0, 4096)):
            return


class SharedContent:
    """The host's own ``/content``, lent to one machine at a time.

    Args:
        request: What to start.
        reason: Why the machine has no disk of its own.

    Raises:
        CannotError: it is in use, holds somebody's files, or cannot be made.
    """

    content = Path("/content")
    colab = Path("/var/colab")

    def __init__(self, request: dict[str, Any], reason: str) -> None:
        self._made = not self.content.exists()
        self._lock = -1
        try:
            self.content.mkdir(exist_ok=True)
            self._take()
            self._clear_leftovers()
            if any(self.content.iterdir()):
                raise CannotError("/content holds files, and they are not the emulator's\nmove them away")
            self._colab_is_ours = self._write_hostname(request)
        except OSError as error:
            raise CannotError(_advice(error, reason)) from error

    def _take(self) -> None:
        import fcntl  # here, because Windows has none

        self._lock = os.open(self.content, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotError(
                "another emulated machine uses /content, and this system gives each no folder of its own\n"
                f"release that machine first, or {_ALLOW_MOUNTS}"
            ) from error

    def _clear_leftovers(self) -> None:
        """Remove what a machine left whose supervisor was killed."""
        if (self.content / _SHARED_MARK).exists():
            self._empty()

    def _write_hostname(self, request: dict[str, Any]) -> bool:
        (self.content / _SHARED_MARK).touch()
        # Without the file drive.mount says that it is not supported; nothing else needs it.
        with contextlib.suppress(OSError):
            self.colab.mkdir(exist_ok=True)
            (self.colab / "hostname").write_text(request["hostname"], encoding="utf-8")
            return True
        return False

    def _empty(self) -> None:
        for entry in self.content.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def give_back(self) -> None:
        """Remove what the machine has left."""
        self._empty()
        with contextlib.suppress(OSError):
            if self._made:
                self.content.rmdir()
        if self._colab_is_ours:
            shutil.rmtree(self.colab, ignore_errors=True)
        os.close(self._lock)


def _advice(error: OSError, reason: str) -> str:
    """Say what is missing for a ``/content``, and how to get it."""
    if sys.platform == "darwin":
        fix = "add 'content<TAB>Users/Shared/content' to /etc/synthetic.conf and restart, or use a Linux container"
    elif error.errno in (errno.EACCES, errno.EPERM):
        fix = f"{_ALLOW_MOUNTS}; or, for one machine at a time: sudo install -d -o $USER /content"
    else:
        fix = "make /content a folder that you may write to"
    return f"no machine can get a /content here: {reason}, and {error.strerror} for /content\n{fix}"


def _run_guest(request: dict[str, Any]) -> NoReturn:
    """Be the machine's first process: start the server, start programs on request, collect the dead."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        guest = socket.socket(fileno=request["guest_fd"])
        guest.set_inheritable(False)
        wake_reader, wake_writer = os.pipe()
        for descriptor in (wake_reader, wake_writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        server = _spawn(request["argv"], request["env"], "/content", (nothing, log, log), terminal=False)
        os.close(nothing)
        _serve_guest(guest, wake_reader, server, request["env"], log)
        status = 0
    except Exception:  # noqa: BLE001 - root of a process that must not unwind into its parent's code
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve_guest(guest: socket.socket, wake_reader: int, server: int, env: dict[str, str], log: int) -> None:
    """Serve until the server has ended: a machine without it is no use."""
    watched: list[Any] = [guest, wake_reader]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wake_reader in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_reader, 4096)
        if server in _collect():
            return
        if guest in ready:
            order, descriptors, _, _ = socket.recv_fds(guest, 65536, 1)
            if not order:
                watched.remove(guest)  # the emulator has gone; our supervisor notices by itself
                continue
            wish = json.loads(order)
            (theirs, *_) = descriptors
            # Without a terminal, what a program complains of must not get among what it sends.
            streams = (theirs, theirs, theirs if wish["terminal"] else log)
            with contextlib.suppress(OSError):
                _spawn(wish["argv"], {**env, **wish["env"]}, "/content", streams, terminal=wish["terminal"])
            for descriptor in descriptors:
                os.close(descriptor)


def _collect() -> set[int]:
    dead: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return dead
        if not pid:
            return dead
        dead.add(pid)


def _spawn(argv: list[str], env: dict[str, str], cwd: str, streams: tuple[int, int, int], *, terminal: bool) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        if terminal:
            _take_terminal(streams[0])
        os.chdir(cwd)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - there is nothing for a shell to do
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _take_terminal(descriptor: int) -> None:
    import fcntl  # here, because Windows has none
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def _main_windows(request: dict[str, Any]) -> None:
    content = Path("/content")
    try:
        content.mkdir()
    except OSError as error:
        _say(error=f"no machine can get a {content.resolve()}: {error.strerror}", hint="move it away, or use WSL")
        return
    with open(request["log"], "ab") as log:
        server = subprocess.Popen(
            request["argv"], env=request["env"], cwd=content, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _say(disk="shared")
        while os.read(0, 4096):
            pass
        server.kill()
        _end_all(request["env"]["COLAB_BRIDGE_VM"])
        server.wait(_END_WAIT_S)
    shutil.rmtree(content, ignore_errors=True)
    _remove(request["folder"])


if __name__ == "__main__":
    main()
