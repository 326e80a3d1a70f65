"""``google.colab`` on an emulated machine: what it asks its front end, and what it makes of the answers."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import pytest

from colab_bridge.testing.colab.vm.machine import Machine
from vm_support import ControlSide, KernelClient, kernel

pytestmark = pytest.mark.anyio

GET_SECRET = "from google.colab import userdata\nprint(userdata.get('KEY'))"


def says(**value: Any):
    """Answer every request with the same value."""
    return lambda kind, fields: value


@pytest.mark.parametrize("style", ["vs", "cli"])
async def test_a_secret_arrives_whatever_the_reply_names_as_its_parent(vm: Machine, style: str) -> None:
    async with kernel(vm, style) as cells:
        done = await cells.run(GET_SECRET, says(data={"exists": True, "access": True, "payload": "s3"}))
    assert done.text == "s3\n"
    (request,) = done.requests
    assert request["metadata"] == {"colab_request_type": "GetSecret", "colab_msg_id": 1}
    assert request["content"] == {"request": {"key": "KEY"}}
    assert request["parent_header"] == {"session": cells.session}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"data": {"exists": False, "access": False}}, "SecretNotFoundError"),
        ({"data": {"exists": True, "access": False}}, "NotebookAccessError"),
        ({"data": None}, "TimeoutException"),
        ({"error": "not here"}, "MessageError: not here"),
    ],
)
async def test_each_way_of_having_no_secret_is_an_error_of_its_own(
    vm: Machine, value: dict[str, Any], error: str
) -> None:
    async with kernel(vm) as cells:
        assert (await cells.run(GET_SECRET, says(**value))).error.startswith(error)


async def test_numbers_count_on_and_answers_to_other_requests_are_skipped(vm: Machine) -> None:
    async with kernel(vm) as cells:
        await cells.run(GET_SECRET, says(data={"exists": True, "access": True, "payload": "a"}))

        async def late(kind: str, fields: dict[str, Any]) -> None:
            for number, payload in ((1, "old"), (2, "new")):
                data = {"exists": True, "access": True, "payload": payload}
                await reply(cells, {"type": "colab_reply", "colab_msg_id": number, "data": data})

        done = await cells.run(GET_SECRET, late)
    assert done.text == "new\n"


async def test_what_a_user_types_meanwhile_is_lost(vm: Machine) -> None:
    async def typed_first(kind: str, fields: dict[str, Any]) -> None:
        await reply(cells, "typed by a person")
        await reply(cells, {"type": "colab_reply", "colab_msg_id": 1, "data": "the answer"})

    async with kernel(vm) as cells:
        done = await cells.run("from google.colab import output\nprint(output.eval_js('1+1'))", typed_first)
    assert done.text == "the answer\n"


async def test_an_unanswered_request_gives_none_when_its_time_is_over(vm: Machine) -> None:
    async with kernel(vm) as cells:
        done = await cells.run("from google.colab import output\nprint(output.eval_js('1+1', timeout_sec=0.2))")
        parent = done.requests[0]["parent_header"]
    assert done.text == "None\n"
    assert parent["msg_type"] == "execute_request"


async def test_a_script_whose_result_is_not_wanted_has_a_number_all_the_same(vm: Machine) -> None:
    async with kernel(vm) as cells:
        done = await cells.run("from google.colab import output\nprint(output.eval_js('x()', ignore_result=True))")
    assert done.text == "None\n"
    assert done.requests[0]["metadata"]["colab_msg_id"] == 1
    assert done.requests[0]["content"]["request"] == {"script": "x()"}


async def test_drive_is_mounted_once_credentials_have_been_propagated(vm: Machine, control: ControlSide) -> None:
    (vm.spec.folder / "drive" / "note.txt").write_text("from Drive")

    def propagate(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        assert (kind, fields) == ("request_auth", {"authType": "dfs_ephemeral"})
        control.propagated["dfs_ephemeral"] = "ya29.emulated"
        return {"data": None}

    mount = "from google.colab import drive\ndrive.mount('/content/drive')\n"
    async with kernel(vm) as cells:
        done = await cells.run(mount + "print(open('/content/drive/MyDrive/note.txt').read())", propagate)
        assert done.text == "Mounted at /content/drive\nfrom Drive\n"
        again = await cells.run(mount)
        assert again.text.startswith("Drive already mounted at /content/drive")
        assert not again.requests
        await cells.run("drive.flush_and_unmount()\nimport os; os.rmdir('/content/drive')")
    control.propagated.clear()


async def test_drive_fails_to_mount_when_the_reply_came_without_credentials(vm: Machine) -> None:
    async with kernel(vm) as cells:
        done = await cells.run("from google.colab import drive\ndrive.mount('/content/drive')", says(data=None))
        assert done.error == "ValueError: mount failed"
        unanswered = await cells.run("drive.mount('/content/drive', timeout_ms=200)")
    assert unanswered.error == "ValueError: mount failed"


async def test_drive_is_not_mounted_where_the_front_end_reports_an_error(vm: Machine, control: ControlSide) -> None:
    control.propagated["dfs_ephemeral"] = "ya29.emulated"
    async with kernel(vm) as cells:
        done = await cells.run(
            "from google.colab import drive\ndrive.mount('/content/drive')", says(error="the user refused")
        )
    control.propagated.clear()
    assert done.error == "MessageError: the user refused"


async def test_drive_wants_the_file_that_only_such_machines_have(vm: Machine) -> None:
    hostname = vm.spec.folder / "var-colab" / "hostname"
    text = hostname.read_text()
    assert text == vm.spec.endpoint + "\n"
    hostname.unlink()
    async with kernel(vm) as cells:
        done = await cells.run("from google.colab import drive\ndrive.mount('/content/drive')")
    hostname.write_text(text)
    assert done.error.startswith("NotImplementedError")


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("/content/my drive", "must not contain a space"),
        ("/nowhere/drive", "must be in a directory that exists"),
        ("/usr", "must not already contain files"),
    ],
)
async def test_drive_is_not_mounted_where_it_does_not_belong(vm: Machine, folder: str, problem: str) -> None:
    async with kernel(vm) as cells:
        done = await cells.run(f"from google.colab import drive\ndrive.mount({folder!r})")
    assert problem in done.error
    assert not done.requests


async def test_the_user_is_authenticated_by_propagation(vm: Machine, control: ControlSide) -> None:
    control.propagated["auth_user_ephemeral"] = "ya29.emulated"
    code = (
        "from google.colab import auth\nauth.authenticate_user()\n"
        "import os\nprint('GOOGLE_APPLICATION_CREDENTIALS' in os.environ)"
    )
    async with kernel(vm) as cells:
        done = await cells.run(code, says(data=None))
        control.propagated.clear()
        refused = await cells.run("auth.authenticate_user()", says(data=None))
    assert done.requests[0]["content"]["request"] == {"authType": "auth_user_ephemeral"}
    assert done.text == "True\n"
    assert refused.error.startswith("AuthorizationError")


async def test_without_propagation_the_user_is_asked_for_a_code(vm: Machine) -> None:
    code = (
        "import os\nos.environ['USE_AUTH_EPHEM'] = '0'\nfrom google.colab import auth\n"
        "auth.authenticate_user()\nprint(open(os.environ['GOOGLE_APPLICATION_CREDENTIALS']).read())"
    )
    async with kernel(vm) as cells:
        done = await cells.run(code, typed="4/code")
    assert len(done.prompts) == 1
    assert "verification code" in done.prompts[0]
    assert not done.requests
    assert "4/code" in done.text


async def test_files_are_uploaded_in_pieces_under_names_that_are_free(vm: Machine) -> None:
    pieces = iter(
        [
            {"action": "starting"},
            {"action": "append", "file": "a.txt", "data": base64.b64encode(b"one ").decode()},
            {"action": "append", "file": "a.txt", "data": base64.b64encode(b"two").decode()},
            {"action": "complete"},
        ]
    )

    def feed(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        assert kind == "cell_javascript_eval"
        return {"data": next(pieces)}

    name = f"up-{uuid.uuid4().hex}"
    async with kernel(vm) as cells:
        await cells.run(f"import os; os.mkdir({name!r}); os.chdir({name!r}); open('a.txt', 'w').close()")
        done = await cells.run("from google.colab import files\nprint(files.upload())", feed)
    assert done.text.endswith("{'a (1).txt': b'one two'}\n"), done
    scripts = [request["content"]["request"]["script"] for request in done.requests]
    assert scripts[0].startswith("google.colab._files._uploadFiles(")
    assert all(script.startswith("google.colab._files._uploadFilesContinue(") for script in scripts[1:])


async def test_a_download_is_offered_by_script_and_comes_over_a_comm_in_pieces_of_one_mebibyte(vm: Machine) -> None:
    code = (
        "open('big.bin', 'wb').write(bytes(range(256)) * 5000)\n"
        "from google.colab import files\nfiles.download('big.bin')"
    )
    async with kernel(vm) as cells:
        done = await cells.run(code)
        scripts = [
            message["content"]["data"]["application/javascript"]
            for message in done.messages
            if message["header"]["msg_type"] == "display_data"
        ]
        assert scripts[-1].startswith('download("download_')
        assert scripts[-1].endswith(', "big.bin", 1280000)')
        target = scripts[-1].split('"')[1]
        comm_id = uuid.uuid4().hex
        await cells.send("shell", "comm_open", {"comm_id": comm_id, "target_name": target, "data": {}})
        received = []
        while True:
            await cells.send("shell", "comm_msg", {"comm_id": comm_id, "data": {}})
            message = await of_kind(cells, ("comm_msg", "comm_close"))
            if message["header"]["msg_type"] == "comm_close":
                break
            received.append(message["buffers"][0])
    assert [len(piece) for piece in received] == [1 << 20, 1280000 - (1 << 20)]
    assert b"".join(received) == bytes(range(256)) * 5000


async def test_the_machine_can_ask_for_its_own_release(vm: Machine, control: ControlSide) -> None:
    async with kernel(vm) as cells:
        done = await cells.run("from google.colab import runtime\nruntime.unassign()")
    assert not done.error
    assert control.released == [vm.spec.endpoint]
    assert done.requests[0]["metadata"]["colab_request_type"] == "cell_javascript_eval"


async def of_kind(cells: KernelClient, kinds: tuple[str, ...]) -> dict[str, Any]:
    while (message := await cells.receive())["header"]["msg_type"] not in kinds:
        pass
    return message


async def reply(cells: KernelClient, value: object) -> None:
    await cells.send("stdin", "input_reply", {"value": value})
