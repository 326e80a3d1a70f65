"""Files from and to the user's own computer."""

import base64
import json
import os
import uuid

from google.colab import output
from IPython import get_ipython
from IPython.display import HTML, Javascript, display

_CHUNK_BYTES = 1024 * 1024


def upload(target_dir=""):
    """Let the user choose files, and write them to the working folder.

    Returns:
        Content of each file, by the name that it was given.
    """
    uploaded = _upload(multiple=True)
    written = {}
    for name, content in uploaded.items():
        free = _free_name(os.path.join(target_dir, os.path.basename(name)))
        with open(free, "wb") as file:
            file.write(content)
        print(f"Saving {name} to {free}")
        written[free] = content
    return written


def _upload(multiple):
    identity = str(uuid.uuid4())
    input_id, output_id = f"files-{identity}", f"result-{identity}"
    attribute = "multiple" if multiple else ""
    display(HTML(f'<input type="file" id="{input_id}" name="files[]" {attribute} /><output id="{output_id}"></output>'))
    result = output.eval_js(f'google.colab._files._uploadFiles("{input_id}", "{output_id}")')
    received = {}
    while result["action"] != "complete":
        result = output.eval_js(f'google.colab._files._uploadFilesContinue("{output_id}")')
        if result["action"] == "append":
            received.setdefault(result["file"], bytearray()).extend(base64.b64decode(result["data"]))
    return {name: bytes(content) for name, content in received.items()}


def _free_name(path):
    stem, suffix = os.path.splitext(path)
    number, free = 0, path
    while os.path.exists(free):
        number += 1
        free = f"{stem} ({number}){suffix}"
    return free


def download(filename):
    """Offer a file to the user: the front end fetches it over a comm, piece by piece.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not os.path.exists(filename):
        raise FileNotFoundError(f"Cannot find file: {filename}")
    manager = get_ipython().kernel.comm_manager
    target = f"download_{uuid.uuid4()}"
    manager.register_target(target, lambda comm, _message: _Sender(comm, filename))
    arguments = ", ".join(json.dumps(part) for part in (target, os.path.basename(filename), os.path.getsize(filename)))
    display(
        Javascript("async function download(id, filename, size) { google.colab._files.receive(id, filename, size); }")
    )
    display(Javascript(f"download({arguments})"))


class _Sender:
    """Sends one file: a piece for each message that asks for one."""

    def __init__(self, comm, filename):
        self._comm = comm
        self._file = open(filename, "rb")
        comm.on_msg(self._send)
        comm.on_close(lambda _message: self._file.close())

    def _send(self, _message):
        data = self._file.read(_CHUNK_BYTES)
        if data:
            self._comm.send({}, None, [data])
        else:
            self._comm.close()
            self._file.close()
