"""Machine types in each of Colab's dialects. Pure.

This table is the emulator's own on purpose: it must not agree with a client because both read the same module.
Source: the enumerations and accelerators that Google's public clients know.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from colab_bridge.testing.colab.refused import RefusedValueError

__all__ = ["CARDS", "Ask", "Card", "Variant", "ask_from_query", "ask_from_spec", "specs"]

#: Value of ``accelerator`` where there is none.
NO_CARD: Final = "NONE"


class Variant(enum.Enum):
    """Kind of machine: number, name in URLs, name in the internal API, name in the public API."""

    CPU = (0, "DEFAULT", "VARIANT_UNSPECIFIED", "VARIANT_CPU", "cpu")
    GPU = (1, "GPU", "VARIANT_GPU", "VARIANT_GPU", "gpu")
    TPU = (2, "TPU", "VARIANT_TPU", "VARIANT_TPU", "tpu")

    def __init__(
        self, number: int, tunnel: str, internal: str, public: str, kind: Literal["cpu", "gpu", "tpu"]
    ) -> None:
        self.number = number
        self.tunnel = tunnel
        self.internal = internal
        self.public = public
        self.kind: Literal["cpu", "gpu", "tpu"] = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An accelerator.

    Attributes:
        variant: Kind of machine that has it.
        high_memory_only: It has one memory shape, the larger one, and none may be asked for.
        units_hourly: Compute units an hour; Google publishes no table, these are in the usual proportions.
    """

    variant: Variant
    high_memory_only: bool = False
    units_hourly: float


CARDS: Final[Mapping[str, Card]] = MappingProxyType(
    {
        NO_CARD: Card(variant=Variant.CPU, units_hourly=0.08),
        "T4": Card(variant=Variant.GPU, units_hourly=1.76),
        "L4": Card(variant=Variant.GPU, high_memory_only=True, units_hourly=4.82),
        "G4": Card(variant=Variant.GPU, high_memory_only=True, units_hourly=8.0),
        "A100": Card(variant=Variant.GPU, units_hourly=11.77),
        "H100": Card(variant=Variant.GPU, high_memory_only=True, units_hourly=18.0),
        "V28": Card(variant=Variant.TPU, high_memory_only=True, units_hourly=1.76),
        "V5E1": Card(variant=Variant.TPU, high_memory_only=True, units_hourly=3.0),
        "V6E1": Card(variant=Variant.TPU, high_memory_only=True, units_hourly=6.0),
    }
)

_FIRST_CARD: Final = MappingProxyType({Variant.CPU: NO_CARD, Variant.GPU: "T4", Variant.TPU: "V5E1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A machine that is asked for, in nobody's dialect.

    Attributes:
        variant: Kind.
        accelerator: Name of the card; ``NONE`` without one.
        high_memory: The machine's memory shape.
        version: Version label of the image; empty for the latest.
    """

    variant: Variant = Variant.CPU
    accelerator: str = NO_CARD
    high_memory: bool = False
    version: str = ""

    @property
    def units_hourly(self) -> float:
        """Compute units an hour."""
        return CARDS[self.accelerator].units_hourly


def ask_from_query(query: Mapping[str, str], versions: tuple[str, ...]) -> Ask:
    """Read the parameters of ``/tun/m/assign``.

    Args:
        query: The parameters; unknown ones are ignored.
        versions: Version labels that exist.

    Raises:
        RefusedValueError: a value is none that the service knows.
    """
    name = query.get("variant", Variant.CPU.tunnel)
    variant = next((v for v in Variant if v.tunnel == name), None)
    if variant is None:
        raise RefusedValueError(f"variant={name}", "DEFAULT, GPU or TPU")
    accelerator = query.get("accelerator") or NO_CARD
    if accelerator == NO_CARD:
        accelerator = _FIRST_CARD[variant]
    card = _card(accelerator, variant)
    shape = query.get("shape", "")
    if shape not in {"", "hm"}:
        raise RefusedValueError(f"shape={shape}", "hm, or no shape")
    if shape and card.high_memory_only:
        raise RefusedValueError(f"shape=hm with {accelerator}", "no shape: this accelerator has only one")
    version = query.get("runtime_version_label", "")
    return _ask(variant, accelerator, bool(shape), version, versions)


def ask_from_spec(body: Mapping[str, Any], versions: tuple[str, ...]) -> Ask:
    """Read the body of the public API's CreateRuntime.

    Args:
        body: The decoded JSON object.
        versions: Version labels that exist.

    Raises:
        RefusedValueError: a member is missing, or its value is none that the service knows.
    """
    spec = body.get("runtimeSpec")
    if not isinstance(spec, dict):
        raise RefusedValueError("no runtimeSpec", "an object with variant, accelerator and shape")
    variant = next((v for v in Variant if v.public == spec.get("variant")), None)
    if variant is None:
        raise RefusedValueError(
            f"runtimeSpec.variant {spec.get('variant')!r}", "VARIANT_CPU, VARIANT_GPU or VARIANT_TPU"
        )
    accelerator = str(spec.get("accelerator", NO_CARD))
    card = _card(accelerator, variant)
    shape = spec.get("shape", "SHAPE_UNSPECIFIED")
    if shape not in {"SHAPE_UNSPECIFIED", "SHAPE_STANDARD", "SHAPE_HIGHMEM"}:
        raise RefusedValueError(f"runtimeSpec.shape {shape!r}", "SHAPE_STANDARD or SHAPE_HIGHMEM")
    if card.high_memory_only and shape == "SHAPE_STANDARD":
        raise RefusedValueError(f"{accelerator} with SHAPE_STANDARD", "a spec of the list of runtime specs")
    return _ask(variant, accelerator, shape == "SHAPE_HIGHMEM", str(body.get("version", "")), versions)


def _card(accelerator: str, variant: Variant) -> Card:
    card = CARDS.get(accelerator)
    if card is None or card.variant is not variant:
        names = ", ".join(name for name, other in CARDS.items() if other.variant is variant)
        raise RefusedValueError(f"accelerator={accelerator} with variant {variant.tunnel}", f"one of {names}")
    return card


def _ask(variant: Variant, accelerator: str, high_memory: bool, version: str, versions: tuple[str, ...]) -> Ask:
    if version and version not in versions:
        raise RefusedValueError(f"version {version}", f"one of {', '.join(versions)}")
    high_memory = high_memory or CARDS[accelerator].high_memory_only
    return Ask(variant=variant, accelerator=accelerator, high_memory=high_memory, version=version)


def specs() -> list[Ask]:
    """Return every machine type that exists."""
    return [
        Ask(variant=card.variant, accelerator=name, high_memory=high_memory)
        for name, card in CARDS.items()
        for high_memory in ((True,) if card.high_memory_only else (False, True))
    ]
