"""Names: case, Unicode form, length, and what no name may be. Foreign file systems are shims."""

from __future__ import annotations

from unicodedata import normalize

import pytest

import folding_disk
from sync_pair import tree_of
from sync_words import Row, edit, run_row

pytestmark = pytest.mark.anyio

NFC, NFD = normalize("NFC", "é"), normalize("NFD", "é")

ON_A_FOLDING_DISK = [
    Row("E01", "A.py=1", "", "A.py~a.py", "a.py=1 0"),
    Row("E01", "D/A.py=1", "", "D~d", "d/A.py=1 0"),
    Row("E02", "g=0", "", "A=1 a=2", "here: g=0 A=1 there: g=0 A=1 a=2 N(blocked:a)"),
    Row("E03", "a=1", "", "A=2", "here: a=1 there: a=1 A=2 N(blocked:A)"),
    Row("E05", "a=1", "a=2", "a~A", "A=2"),
    Row("E04", "a=1", "a~A", "a=2", "A=2"),
    Row("E08", "a=1", "-a", "a~A", "here: there:"),
]


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.rows(row.id, "X21"), id=row.id) for row in ON_A_FOLDING_DISK]
)
async def test_a_disk_that_ignores_case_shows_one_name_and_overwrites_nothing(row, channels, quick_root, monkeypatch):
    folding_disk.install(monkeypatch, quick_root / "home" / "project", folding_disk.FoldingFolder)
    async with channels(watch=False) as pair:
        assert pair.local.folder.probe.folds_case
        await run_row(pair, row)


@pytest.mark.rows("E06")
@pytest.mark.parametrize(("here", "there"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
async def test_two_forms_of_one_name_are_one_file(here, there, pairs):
    async with pairs() as pair:
        (pair.here / here).write_text("1")
        (pair.there / there).write_text("1")
        await pair.sync.sync("sync")
        (pair.there / there).write_text("2")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == {here: "2"}
        assert tree_of(pair.there) == {there: "2"}
        (pair.here / here).write_text("3")
        (pair.there / there).write_text("4")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == {here: "3"}
        assert tree_of(pair.there) == {there: "3"}
        assert pair.kept() == {NFC: "4"}


@pytest.mark.rows("E07")
async def test_of_two_forms_of_a_name_on_the_runtime_one_is_blocked(channels, quick_root, monkeypatch):
    folding_disk.install(monkeypatch, quick_root / "home" / "project", folding_disk.NormalisingFolder)
    async with channels(watch=False) as pair:
        assert pair.local.folder.probe.normalises
        (pair.there / NFC).write_text("nfc")
        (pair.there / NFD).write_text("nfd")
        report = await pair.sync.sync("sync")
        (name,) = tree_of(pair.here)
        assert normalize("NFC", name) == NFC
        assert [notice.kind for notice in report.notices] == ["blocked"]
        assert tree_of(pair.there) == {NFC: "nfc", NFD: "nfd"}


@pytest.mark.rows("E06")
async def test_a_disk_that_keeps_another_form_has_no_endless_changes(channels, quick_root, monkeypatch):
    folding_disk.install(monkeypatch, quick_root / "home" / "project", folding_disk.NormalisingFolder)
    async with channels(watch=False) as pair:
        (pair.there / f"d{NFC}").mkdir()
        (pair.there / f"d{NFC}" / NFC).write_text("1")
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == {f"d{NFD}/{NFD}": "1"}
        (pair.there / f"d{NFC}" / NFC).write_text("2")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == {f"d{NFD}/{NFD}": "2"}
        again = await pair.sync.sync("sync")
        assert (again.up, again.down) == ((), ())


LONG = [
    ("E09", "n" * 255, True),
    ("E09", "ü" * 127 + "n", True),
    ("E10", "/".join(["n" * 204] * 5), True),
    ("E10", "/".join([*["n" * 204] * 4, "n" * 205]), False),
    ("E10", "/".join(["d"] * 64 + ["f"]), False),
]


@pytest.mark.parametrize(
    ("path", "travels"), [pytest.param(path, ok, marks=pytest.mark.rows(row), id=row) for row, path, ok in LONG]
)
async def test_a_name_is_as_long_as_it_may_be_and_no_longer(path, travels, pairs):
    async with pairs() as pair:
        edit(pair.there, "g=0")
        (pair.there / path).parent.mkdir(parents=True, exist_ok=True)
        (pair.there / path).write_text("1")
        report = await pair.sync.sync("sync")
        assert (path in tree_of(pair.here)) is travels
        assert bool(report.notices or report.holds) is not travels
        again = await pair.sync.sync("sync")
        assert (again.up, again.down) == ((), ())


@pytest.mark.rows("E11")
@pytest.mark.parametrize("name", ["CON", "nul.txt", "com1 .log", "aux.tar.gz", "LPT¹", "a:b", "x.", "y ", "q?"])
async def test_a_name_that_some_system_does_not_have_is_not_made_here_and_goes_up_from_here(name, pairs):
    async with pairs() as pair:
        (pair.there / name).write_text("1")
        (pair.there / "g").write_text("0")
        report = await pair.sync.sync("sync")
        assert tree_of(pair.here) == {"g": "0"}
        assert [hold.stop.value for hold in report.holds] == ["NAME"]
        (pair.there / name).unlink()
        (pair.here / name).write_text("2")
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == tree_of(pair.here) == {"g": "0", name: "2"}


@pytest.mark.rows("E12")
async def test_a_name_that_is_no_text_stays_where_it_is_and_the_rest_travels(pairs):
    async with pairs() as pair:
        for side in (pair.here, pair.there):
            with open(bytes(side) + b"/bad\xff" + side.name.encode(), "wb"):
                pass
            (side / f"good-{side.name}").write_text("1")
        report = await pair.sync.sync("sync")
        assert {"good-project", "good-workspace"} <= tree_of(pair.here).keys() & tree_of(pair.there).keys()
        assert len(tree_of(pair.here)) == len(tree_of(pair.there)) == 3
        assert {notice.kind for notice in report.notices} == {"blocked"}


@pytest.mark.rows("E15")
async def test_letters_with_odd_cases_are_separate_names_where_the_disk_keeps_them_apart(pairs):
    names = ["İ", "i", "I", "ı", "ß", "ẞ", "ss", "SS", "ﬁ", "fi"]
    async with pairs() as pair:
        edit(pair.here, " ".join(f"{name}.txt={number}" for number, name in enumerate(names)))
        report = await pair.sync.sync("sync")
        assert len(tree_of(pair.there)) == len(names)
        assert tree_of(pair.there) == tree_of(pair.here)
        assert report.notices == ()


@pytest.mark.rows("E18")
async def test_a_folder_of_very_many_names_takes_one_more(pairs):
    async with pairs() as pair:
        edit(pair.here, " ".join(f"many/n{number:05}=" for number in range(5_000)))
        await pair.sync.sync("sync")
        edit(pair.here, "many/one-more=1")
        report = await pair.sync.sync("pre")
        assert (report.up, report.round_trips) == (("many/one-more",), 1)
        assert tree_of(pair.there) == tree_of(pair.here)
