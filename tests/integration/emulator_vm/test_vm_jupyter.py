"""The Jupyter server of an emulated machine, as clients see it through the runtime proxy."""

from __future__ import annotations

import base64
import re

import pytest

from colab_bridge.testing.colab.vm.contracts import TokenVerdict
from colab_bridge.testing.colab.vm.machine import Machine
from vm_support import TOKEN_HEADER, ControlSide, attached, client, kernel, token_for

pytestmark = pytest.mark.anyio


async def test_code_runs_in_content_as_root_on_the_machine(vm: Machine) -> None:
    async with kernel(vm) as cells:
        done = await cells.run("import os, getpass; print(os.getcwd(), os.path.expanduser('~'), os.getuid())")
    assert done.text.split() == ["/content", "/root", "0"]


async def test_a_session_with_a_path_starts_its_kernel_in_content_too(vm: Machine) -> None:
    async with client(vm) as http:
        body = {"name": "", "path": "content/a.ipynb", "type": "notebook", "kernel": {"id": "", "name": "python3"}}
        made = await http.post("/api/sessions", json=body)
        assert made.status_code == 201
        async with attached(vm, made.json()["kernel"]["id"]) as cells:
            assert (await cells.run("import os; print(os.getcwd())")).text == "/content\n"
        assert (await http.delete(f"/api/sessions/{made.json()['id']}")).status_code == 204


async def test_a_kernel_tells_when_it_was_last_used_and_how_many_are_connected(vm: Machine) -> None:
    async with kernel(vm) as cells, client(vm) as http:
        await cells.run("1")
        (model,) = (await http.get("/api/kernels")).json()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", model["last_activity"])
        assert (model["connections"], model["execution_state"]) == (1, "idle")
        async with attached(vm, model["id"]) as second:
            await second.run("1")
            assert (await http.get(f"/api/kernels/{model['id']}")).json()["connections"] == 2


async def test_interrupt_restart_and_delete_have_the_statuses_that_clients_expect(vm: Machine) -> None:
    async with client(vm) as http:
        path = "/api/kernels/" + (await http.post("/api/kernels", json={"name": "python3"})).json()["id"]
        assert (await http.post(f"{path}/interrupt")).status_code == 204
        restarted = await http.post(f"{path}/restart")
        assert (restarted.status_code, restarted.json()["name"]) == (200, "python3")
        assert (await http.delete(path)).status_code == 204


async def test_buffers_come_in_binary_frames_and_everything_else_as_text(vm: Machine) -> None:
    code = "import comm\nchannel = comm.create_comm(target_name='t', data={'n': 1}, buffers=[b'abc', bytes(300_000)])\n"
    async with kernel(vm) as cells:
        done = await cells.run(code)
    binary = [message for message in done.messages if message["frame"] == "binary"]
    assert [message["header"]["msg_type"] for message in binary] == ["comm_open"]
    assert [len(buffer) for buffer in binary[0]["buffers"]] == [3, 300_000]


async def test_a_path_may_be_percent_encoded_as_a_whole_or_not_at_all(vm: Machine) -> None:
    async with client(vm) as http:
        body = {"type": "file", "format": "base64", "content": base64.b64encode(b"\x00\xff").decode()}
        made = await http.put("/api/contents/%2Fcontent%2Fwhole.bin", json=body)
        assert made.status_code == 201
        plain = await http.get("/api/contents/content/whole.bin?format=base64&type=file")
        assert base64.b64decode(plain.json()["content"]) == b"\x00\xff"
        assert (await http.delete("/api/contents/%2Fcontent%2Fwhole.bin")).status_code == 204


async def test_a_file_sent_in_chunks_is_put_together(vm: Machine) -> None:
    async with client(vm) as http:
        for chunk, part in ((1, b"one"), (2, b"two"), (-1, b"three")):
            content = base64.b64encode(part).decode()
            body = {"type": "file", "format": "base64", "chunk": chunk, "content": content}
            assert (await http.put("/api/contents/content/parts", json=body)).status_code in (200, 201)
        assert (await http.get("/files/content/parts")).content == b"onetwothree"
        ranged = await http.get("/files/content/parts", headers={"Range": "bytes=3-5"})
        assert (ranged.status_code, ranged.content) == (206, b"two")


async def test_two_slashes_at_the_start_count_as_one(vm: Machine) -> None:
    async with client(vm) as http:
        assert (await http.get(vm.url() + "//api/kernels")).json() == []


async def test_a_missing_file_is_told_by_jupyter_itself(vm: Machine) -> None:
    async with client(vm) as http:
        answer = await http.get("/api/contents/content/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("carrier", ["header", "query", "bearer", "token"])
async def test_every_carrier_of_the_token_is_enough(vm: Machine, carrier: str) -> None:
    token = token_for(vm.spec.endpoint, 8080)
    headers = {"header": {TOKEN_HEADER: token}, "bearer": {"Authorization": f"Bearer {token}"}}.get(carrier, {})
    params = {"query": {"colab-runtime-proxy-token": token, "authuser": "0"}, "token": {"token": token}}.get(carrier)
    async with client(vm) as http:
        del http.headers[TOKEN_HEADER]
        assert (await http.get("/api/kernels", headers=headers, params=params)).status_code == 200


@pytest.mark.parametrize("token", ["", "nonsense", token_for("m-s-kkb-usc1f1-test", 7860)])
async def test_without_a_token_for_this_port_the_answer_is_404_and_not_jupyters(vm: Machine, token: str) -> None:
    async with client(vm) as http:
        answer = await http.get("/api/kernels", headers={TOKEN_HEADER: token})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "server" not in answer.headers


async def test_one_valid_token_among_others_is_enough(vm: Machine) -> None:
    async with client(vm, Authorization="Bearer ya29.of-google") as http:
        assert (await http.get("/api/colab/resources")).status_code == 200


async def test_an_expired_token_and_a_released_machine_look_alike(vm: Machine, control: ControlSide) -> None:
    control.verdicts["old"] = TokenVerdict.EXPIRED
    async with client(vm) as http:
        expired = await http.get("/api/kernels", headers={TOKEN_HEADER: "old"})
        control.assigned = False
        released = await http.get("/api/kernels")
        control.assigned = True
    assert (expired.status_code, expired.content) == (released.status_code, released.content)


async def test_the_pages_of_colab_are_guarded_and_count_in_numbers(vm: Machine) -> None:
    async with client(vm) as http:
        for page in ("resources", "drive", "build-info"):
            answer = await http.get(f"/api/colab/{page}")
            assert (answer.status_code, answer.text[:5]) == (200, ")]}'\n")
        assert (await http.get("/api/colab/resources", headers={TOKEN_HEADER: ""})).status_code == 404


async def test_the_machine_does_not_see_the_environment_of_its_host(
    vm: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kernel(vm) as cells:
        done = await cells.run("import os; print(sorted(k for k in os.environ if 'PYTEST' in k))")
    assert done.text == "[]\n"
