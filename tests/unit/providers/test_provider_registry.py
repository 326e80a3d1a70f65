"""Finding providers by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from colab_bridge.errors import UserError
from colab_bridge.ports.provider import RuntimeProvider
from colab_bridge.providers.jupyter import JupyterProvider
from colab_bridge.providers.local import LocalProvider
from colab_bridge.providers.registry import GROUP, ProviderRegistry, installed_providers


def _entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


def _plugins(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))


def test_our_own_providers_are_there_without_an_installed_package(tmp_path: Path) -> None:
    registry = ProviderRegistry(tmp_path, installed_providers([]))
    assert registry.names() == ["jupyter", "local"]
    assert isinstance(registry.get("local"), LocalProvider)
    assert isinstance(registry.get("jupyter"), JupyterProvider)


def test_a_provider_is_made_once_with_a_folder_of_its_own(tmp_path: Path) -> None:
    folders: list[Path] = []

    def make(folder: Path) -> RuntimeProvider:
        folders.append(folder)
        return JupyterProvider(folder)

    registry = ProviderRegistry(tmp_path, {"mine": make})
    assert registry.get("mine") is registry.get("mine")
    assert folders == [tmp_path / "mine"]


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        ProviderRegistry(tmp_path, installed_providers([])).get("cloud")
    assert "'cloud'" in caught.value.message
    assert "jupyter, local" in caught.value.hint


def test_a_plug_in_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plugins(tmp_path, monkeypatch, cb_good="from colab_bridge.providers.jupyter import JupyterProvider as P")
    registry = ProviderRegistry(tmp_path, installed_providers([_entry("good", "cb_good:P")]))
    assert registry.names() == ["good", "jupyter", "local"]
    assert registry.get("good").name == "jupyter"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cb_missing_dep", "import a_module_that_nobody_has"),
        ("cb_no_class", "x = 1"),
        ("cb_syntax", "def ("),
        ("cb_raises", "raise RuntimeError('two\\nlines')"),
        ("cb_init", "class P:\n def __init__(self, folder): raise OSError('no disk')"),
        ("cb_incomplete", "class P:\n name = 'p'\n def __init__(self, folder): pass"),
    ],
)
def test_a_plug_in_that_does_not_load_is_named_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str
) -> None:
    _plugins(tmp_path, monkeypatch, **{module: source})
    registry = ProviderRegistry(tmp_path, installed_providers([_entry("broken", f"{module}:P")]))
    with pytest.raises(UserError) as caught:
        registry.get("broken")
    assert "broken" in caught.value.message and module in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    assert registry.get("jupyter").name == "jupyter"


def test_a_plug_in_cannot_take_the_place_of_our_own(tmp_path: Path) -> None:
    registry = ProviderRegistry(tmp_path, installed_providers([_entry("local", "evil:Provider")]))
    assert isinstance(registry.get("local"), LocalProvider)
