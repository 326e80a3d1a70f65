"""What an emulated machine says about its hardware, and which keys its SSH tunnel takes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from colab_bridge.model.hardware import ACCELERATORS
from colab_bridge.testing.colab.vm import cards
from colab_bridge.testing.colab.vm.contracts import Gpu, MachineSpec
from colab_bridge.testing.colab.vm.ssh import key_problem

NVIDIA_SMI = Path(cards.__file__).with_name("guest") / "nvidia_smi.py"
TWO = (Gpu(name="Tesla T4", memory_total_bytes=15360 << 20, memory_used_bytes=512 << 20, utilisation=0.25),) * 2


def spec(**values: object) -> MachineSpec:
    return MachineSpec(endpoint="e", folder=Path(), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [card.name for card in ACCELERATORS.values() if card.kind == "gpu"])
def test_every_card_that_can_be_asked_for_names_itself(name: str) -> None:
    (gpu,) = cards.gpus_of(spec(kind="gpu", accelerator=name))
    assert name in gpu.name or name == "G4"
    assert gpu.memory_total_bytes > 14 << 30


def test_what_is_really_there_wins_over_what_was_asked_for() -> None:
    assert cards.gpus_of(spec(kind="gpu", accelerator="A100", gpus=TWO)) == TWO
    assert cards.gpus_of(spec(kind="gpu", accelerator="A100", gpus=())) == ()
    assert cards.gpus_of(spec(kind="cpu")) == ()


@pytest.mark.parametrize("name", [card.name for card in ACCELERATORS.values() if card.kind == "tpu"])
def test_code_can_tell_every_tpu_from_its_variables(name: str) -> None:
    found = cards.accelerator_environment(spec(kind="tpu", accelerator=name))
    assert found["TPU_ACCELERATOR_TYPE"][:2] == "v" + name[1]
    assert found["COLAB_GPU"] == "0"


def test_resources_count_in_numbers_and_utilisation_lies_between_zero_and_one() -> None:
    shown = json.loads(json.dumps(cards.resources(spec(kind="gpu", accelerator="T4"), TWO)))
    assert all(isinstance(value, int) for value in shown["memory"].values())
    assert shown["disks"][0]["filesystem"]["usedBytes"] < shown["disks"][0]["filesystem"]["totalBytes"]
    assert [gpu["memoryTotalBytes"] for gpu in shown["gpus"]] == [15360 << 20] * 2
    assert shown["gpus"][0]["memoryUtilization"] == pytest.approx(1 / 30)
    assert "gpus" not in cards.resources(spec(), ())


def test_high_memory_is_more_memory() -> None:
    assert cards.memory_bytes(spec(high_memory=True)) > 4 * cards.memory_bytes(spec())


@pytest.mark.parametrize(
    ("arguments", "status", "shown"),
    [
        (["-L"], 0, "GPU 1: Tesla T4 (UUID: GPU-00000000-0000-0000-0000-000000000001)"),
        (["--query-gpu=name,memory.total", "--format=csv"], 0, "name, memory.total [MiB]\nTesla T4, 15360 MiB"),
        (["--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits"], 0, "512, 25\n512, 25\n"),
        (["--query-gpu=index, name", "--format=csv,noheader"], 0, "0, Tesla T4\n1, Tesla T4\n"),
        (["--query-gpu=nonsense", "--format=csv"], 2, 'Field "nonsense" is not a valid field to query.'),
        (["--query-compute-apps=pid,name", "--format=csv,noheader"], 0, ""),
        (["--reset"], 2, ""),
        ([], 0, "512MiB / 15360MiB    25% |"),
    ],
)
def test_nvidia_smi_answers_as_on_such_a_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, shown: str
) -> None:
    program = tmp_path / "nvidia_smi.py"
    program.write_bytes(NVIDIA_SMI.read_bytes())
    (tmp_path / "gpus.json").write_text(json.dumps(cards.gpus_to_json(TWO)))
    assert runpy.run_path(str(program))["main"](arguments) == status
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (None, "missing pubkey"),
        ("", "missing pubkey"),
        ("ssh-ed25519", "missing pubkey"),
        ("ssh-ed25519 AAAA me@here", ""),
        ("ecdsa-sha2-nistp521 AAAA", ""),
        ("ssh-rsa AAAA", "unsupported key type ssh-rsa"),
        ("ssh-dss AAAA", "unsupported key type ssh-dss"),
    ],
)
def test_only_modern_keys_are_taken(line: str | None, problem: str) -> None:
    assert key_problem(line) == problem
