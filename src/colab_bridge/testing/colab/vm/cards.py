"""Cards, memory and environment of each kind of machine, and the pages that show them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final

from colab_bridge.testing.colab.vm.contracts import Gpu, MachineSpec

__all__ = ["accelerator_environment", "gpus_of", "gpus_to_json", "memory_bytes", "resources"]

_MIB: Final = 1024 * 1024
# Product names and sizes as nvidia-smi prints them on such machines.
_CARDS: Final = MappingProxyType(
    {
        "T4": Gpu(name="Tesla T4", memory_total_bytes=15360 * _MIB),
        "L4": Gpu(name="NVIDIA L4", memory_total_bytes=23034 * _MIB),
        "A100": Gpu(name="NVIDIA A100-SXM4-40GB", memory_total_bytes=40960 * _MIB),
        "H100": Gpu(name="NVIDIA H100 80GB HBM3", memory_total_bytes=81559 * _MIB),
        "G4": Gpu(name="NVIDIA RTX PRO 6000 Blackwell Server Edition", memory_total_bytes=97887 * _MIB),
    }
)
_TPU_TYPES: Final = MappingProxyType({"V28": "v2-8", "V5E1": "v5litepod-1", "V6E1": "v6e-1"})
# Measured on such machines and reported publicly: 12.7 GiB and 54.8 GB; disk 253 GB.
_MEMORY_BYTES: Final = 13_609_431_040
_HIGH_MEMORY_BYTES: Final = 54_800_000_000
_DISK_BYTES: Final = 253_000_000_000
_DISK_USED_BYTES: Final = 40_000_000_000


def gpus_of(spec: MachineSpec) -> tuple[Gpu, ...]:
    """Return the cards that a machine really has."""
    if spec.gpus is not None:
        return spec.gpus
    if spec.kind != "gpu":
        return ()
    unknown = Gpu(name=f"NVIDIA {spec.accelerator}", memory_total_bytes=16384 * _MIB)
    return (_CARDS.get(spec.accelerator, unknown),)


def gpus_to_json(gpus: Sequence[Gpu]) -> list[dict[str, Any]]:
    """Return the cards as the ``nvidia-smi`` of the machine reads them."""
    return [asdict(gpu) for gpu in gpus]


def accelerator_environment(spec: MachineSpec) -> dict[str, str]:
    """Return the variables by which code on the machine finds its accelerator."""
    found = {"COLAB_GPU": "1" if spec.kind == "gpu" else "0"}
    if spec.kind == "gpu":
        found["NVIDIA_VISIBLE_DEVICES"] = "all"
    if spec.kind == "tpu":
        found["TPU_ACCELERATOR_TYPE"] = _TPU_TYPES.get(spec.accelerator, spec.accelerator.lower())
        found["COLAB_TPU_ADDR"] = "localhost:8470"
        found["TPU_NAME"] = "local"
    return found


def memory_bytes(spec: MachineSpec) -> int:
    """Return the memory that a machine claims to have."""
    return _HIGH_MEMORY_BYTES if spec.high_memory else _MEMORY_BYTES


def resources(spec: MachineSpec, gpus: Sequence[Gpu]) -> dict[str, Any]:
    """Return what ``/api/colab/resources`` says: byte counts are numbers, utilisation is between 0 and 1."""
    total = memory_bytes(spec)
    found: dict[str, Any] = {
        "memory": {"totalBytes": total, "freeBytes": total * 4 // 5},
        "disks": [{"filesystem": {"label": "kernel", "totalBytes": _DISK_BYTES, "usedBytes": _DISK_USED_BYTES}}],
    }
    if gpus:
        found["gpus"] = [
            {
                "name": gpu.name,
                "memoryUsedBytes": gpu.memory_used_bytes,
                "memoryTotalBytes": gpu.memory_total_bytes,
                "gpuUtilization": gpu.utilisation,
                "memoryUtilization": gpu.memory_used_bytes / gpu.memory_total_bytes,
                "everUsed": gpu.ever_used,
            }
            for gpu in gpus
        ]
    return found
