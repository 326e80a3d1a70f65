"""Runs a script, a module or a command inside a kernel so that it behaves as it does in a terminal.

The text of this file is sent as one cell, followed by a call of :func:`colab_bridge_run`, so every import sits
inside the functions: nothing but that one name enters the user's namespace, and the call removes it again.
"""


def colab_bridge_run(job):
    """Run one program and return its exit status.

    Args:
        job: Mapping with ``kind`` (``script``, ``module``, ``command``), ``argv``, ``path`` and ``source`` (script),
            ``module``, ``command``, ``cwd`` (absolute, used when it exists).

    Returns:
        The exit status a shell would see.
    """
    import atexit
    import builtins
    import contextlib
    import linecache
    import os
    import runpy
    import subprocess
    import sys
    import threading
    import traceback

    class InputFile:
        """``sys.stdin`` on top of the kernel's input requests, line by line."""

        encoding = "utf-8"
        errors = "replace"
        closed = False
        newlines = None

        def __init__(self):
            self.rest = ""
            self.ended = False

        def readline(self, size=-1):
            if not self.rest and not self.ended:
                try:
                    self.rest = builtins.input("") + "\n"
                except EOFError:
                    self.ended = True
            line = self.rest if size is None or size < 0 else self.rest[:size]
            self.rest = self.rest[len(line) :]
            return line

        def __iter__(self):
            return iter(self.readline, "")

        def __next__(self):
            line = self.readline()
            if not line:
                raise StopIteration
            return line

        def readlines(self, hint=-1):
            return list(self)

        def read(self, size=-1):
            if size is None or size < 0:
                return "".join(self)
            parts = []
            while size > 0:
                part = self.readline(size)
                if not part:
                    break
                parts.append(part)
                size -= len(part)
            return "".join(parts)

        def isatty(self):
            return False

        def readable(self):
            return True

        def writable(self):
            return False

        def fileno(self):
            raise OSError("the input of a remote run has no file descriptor")

        def flush(self):
            return None

        def close(self):
            return None

    def exit_status(value):
        if value is None:
            return 0
        if isinstance(value, int):
            return value & 0xFF
        print(value, file=sys.stderr)
        return 1

    def show(error):
        """Print a traceback as the interpreter does, without the frames of this file."""
        own = {colab_bridge_code, run_script.__code__, run_module.__code__}
        step = error.__traceback__
        while step is not None and (step.tb_frame.f_code in own or step.tb_frame.f_code.co_filename in runpy_files):
            step = step.tb_next
        if sys.excepthook is not hook_before:
            sys.excepthook(type(error), error.with_traceback(step), step)  # the program's own
            return
        # Not the interpreter's hook, which reads source lines from the disk: the script may be on another machine.
        traceback.print_exception(type(error), error, step)

    def run_script():
        path, source = job["path"], job["source"]
        main = sys.modules["__main__"].__dict__
        linecache.cache[path] = (len(source), None, source.splitlines(True), path)
        folder = os.path.dirname(os.path.abspath(path)) if path != "-" else ""
        if sys.path[:1] != [folder]:
            sys.path.insert(0, folder)
        sys.argv = [path, *job["argv"]]
        main["__file__"] = path
        code = compile(source, "<stdin>" if path == "-" else path, "exec", dont_inherit=True)
        exec(code, main)  # running the user's script is the job

    def run_module():
        sys.argv = [job["module"], *job["argv"]]
        if sys.path[:1] != [""]:
            sys.path.insert(0, "")
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)

    def run_command():
        import codecs

        def pump(source, target):
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            while True:
                data = source.read1(65536)
                target.write(decode(data, final=not data))
                target.flush()
                if not data:
                    return

        try:
            child = subprocess.Popen(  # running the user's command is the job
                job["command"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            print(f"{job['command'][0]}: {error.strerror or error}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126
        pumps = [
            threading.Thread(target=pump, args=pair, daemon=True)
            for pair in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
        ]
        for thread in pumps:
            thread.start()
        try:
            code = child.wait()
        except KeyboardInterrupt:
            import signal

            child.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            try:
                code = child.wait(3)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                child.kill()
                code = child.wait()
        for thread in pumps:
            thread.join(5)
        return code if code >= 0 else 128 - code

    def wait_for_threads():
        """Wait, as an interpreter does at its end, for threads that the program started and that are no daemons."""
        pools = vars(sys.modules.get("concurrent.futures.thread", threading))
        while True:
            left = [t for t in threading.enumerate() if not t.daemon and t not in threads_before]
            queues = [queue for t, queue in list(pools.get("_threads_queues", {}).items()) if t in left]
            if not left:
                return
            # Workers of a pool that was not shut down wait for ever; at the end of an interpreter they are told.
            if queues:
                pools["_shutdown"] = True
            try:
                for queue in queues:
                    queue.put(None)
                for thread in left:
                    thread.join()
            finally:
                if queues:
                    pools["_shutdown"] = False

    def register(function, *args, **kwargs):
        at_exit.append((function, args, kwargs))
        return function

    def unregister(function):
        at_exit[:] = [entry for entry in at_exit if entry[0] != function]
        unregister_before(function)

    def run_at_exit():
        """Call what the program wants called at its end, which is not the end of this interpreter."""
        for entry in reversed(at_exit[:]):  # what is registered meanwhile is not called
            function, args, kwargs = entry
            try:
                if entry in at_exit:
                    function(*args, **kwargs)
            except SystemExit:
                pass
            except BaseException as error:  # as the interpreter does: said, and the others are called
                print(f"Exception ignored in atexit callback: {function!r}", file=sys.stderr)
                show(error)

    colab_bridge_code = sys._getframe().f_code
    runpy_files = (runpy.__file__, "<frozen runpy>")
    sys.modules["__main__"].__dict__.pop("colab_bridge_run", None)
    hook_before = sys.excepthook
    threads_before = threading.enumerate()
    at_exit = []
    register_before, unregister_before = atexit.register, atexit.unregister
    cwd = job.get("cwd")
    if cwd and os.path.isdir(cwd):
        os.chdir(cwd)
    if job["kind"] == "command":
        return run_command()
    sys.stdin = InputFile()
    vars(atexit).update(register=register, unregister=unregister)
    try:
        run_script() if job["kind"] == "script" else run_module()
        status = 0
    except SystemExit as error:
        status = exit_status(error.code)
    except KeyboardInterrupt as error:
        show(error)
        status = 130
    except BaseException as error:  # the task root of a user's program
        show(error)
        status = 1
    try:
        wait_for_threads()
    except KeyboardInterrupt as error:
        show(error)
        status = 130
    run_at_exit()
    atexit.register, atexit.unregister = register_before, unregister_before
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # the program has closed or replaced it
            stream.flush()
    return status
