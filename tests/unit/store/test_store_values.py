"""Sessions, kernels and runs go into the store and come back equal."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from colab_bridge.errors import UserError
from colab_bridge.model.records import (
    KernelPurpose,
    KernelRecord,
    Run,
    RunKind,
    RunStatus,
    Session,
    SessionState,
)
from colab_bridge.model.runtime import RuntimeHandle
from colab_bridge.store import Store

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.integers(-(2**53), 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)
TIMES = st.floats(0, 4e9)
HANDLES = st.builds(RuntimeHandle, provider=TEXT, id=TEXT, root=st.none() | TEXT, data=OBJECTS, label=TEXT)
SESSIONS = st.builds(
    Session,
    name=TEXT,
    project=TEXT,
    provider=TEXT,
    default=st.booleans(),
    options=OBJECTS,
    handle=st.none() | HANDLES,
    state=st.sampled_from(SessionState),
    created_at=TIMES,
)
KERNELS = st.builds(
    KernelRecord,
    id=TEXT,
    session=st.just("s"),
    remote_id=TEXT,
    ws_session_id=TEXT,
    purpose=st.sampled_from(KernelPurpose),
    key=TEXT,
    spec=TEXT,
    language=TEXT,
    cwd=TEXT,
    identity=OBJECTS,
    created_at=TIMES,
)
RUNS = st.builds(
    Run,
    id=TEXT,
    session=TEXT,
    kernel=TEXT,
    kind=st.sampled_from(RunKind),
    title=TEXT,
    spec=OBJECTS,
    status=st.sampled_from(RunStatus),
    first_seq=st.integers(0, 2**62),
    exit_code=st.none() | st.integers(-(2**31), 2**31),
    output_may_be_lost=TEXT,
    created_at=TIMES,
    finished_at=st.none() | TIMES,
    progress=OBJECTS,
)


def session(name: str = "s", **changes: object) -> Session:
    return Session(**{"name": name, "project": "/p", "provider": "local", **changes})  # type: ignore[arg-type]


def kernel(identifier: str = "k", **changes: object) -> KernelRecord:
    values = {
        "id": identifier,
        "session": "s",
        "remote_id": "r",
        "ws_session_id": "w",
        "key": "main",
        "spec": "python3",
    }
    return KernelRecord(**{**values, "purpose": KernelPurpose.MAIN, **changes})  # type: ignore[arg-type]


def run(identifier: str = "r", **changes: object) -> Run:
    values = {"id": identifier, "session": "s", "kernel": "k", "kind": RunKind.CODE, "title": "1 + 1"}
    return Run(**{**values, **changes})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(sessions=st.lists(SESSIONS, max_size=5, unique_by=lambda one: one.name))
def test_sessions_come_back_equal_after_a_reopen(sessions: list[Session]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "state.db")
        for one in sessions:
            store.put_session(one)
        store.close()
        store = Store.open(Path(folder) / "state.db")
        assert sorted(store.sessions(), key=lambda one: one.name) == sorted(sessions, key=lambda one: one.name)
        for one in sessions:
            assert store.session(one.name) == one
            assert one in store.sessions(one.project)
        assert store.notices == []
        store.close()


@settings(max_examples=60, deadline=None)
@given(kernels=st.lists(KERNELS, max_size=5, unique_by=lambda one: one.id))
def test_kernels_come_back_equal(kernels: list[KernelRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "state.db")
        store.put_session(session())
        for one in kernels:
            store.put_kernel(one)
        assert [store.kernel(one.id) for one in kernels] == kernels
        assert len(store.kernels("s")) == len(store.kernels()) == len(kernels)
        store.close()


@settings(max_examples=60, deadline=None)
@given(runs=st.lists(RUNS, max_size=6, unique_by=lambda one: one.id), project=TEXT)
def test_runs_come_back_equal_and_newest_first(runs: list[Run], project: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "state.db")
        for one in runs:
            store.put_run(one, project)
        assert [store.run(one.id) for one in runs] == runs
        listed = store.runs(project=project)
        assert len(listed) == len(runs)
        assert [one.created_at for one in listed] == sorted((one.created_at for one in runs), reverse=True)
        assert all(store.run_project(one.id) == project for one in runs)
        store.close()


def test_what_is_unknown_is_none_and_deleting_it_is_no_error(store: Store) -> None:
    assert (store.session("x"), store.kernel("x"), store.run("x"), store.run_project("x")) == (None, None, None, None)
    store.delete_session("x")
    store.delete_kernel("x")


def test_putting_a_session_again_replaces_it_and_keeps_its_kernels(store: Store) -> None:
    store.put_session(session())
    store.put_kernel(kernel())
    store.put_session(session(state=SessionState.READY, default=True))
    assert store.sessions() == [session(state=SessionState.READY, default=True)]
    assert store.kernels("s") == [kernel()]


def test_deleting_a_session_forgets_its_kernels_only(store: Store) -> None:
    for name in ("s", "t"):
        store.put_session(session(name))
        store.put_kernel(kernel(f"k-{name}", session=name))
    store.delete_session("s")
    assert [one.id for one in store.kernels()] == ["k-t"]
    store.delete_kernel("k-t")
    assert store.kernels() == []


def test_runs_stay_listed_under_their_project_after_their_session_went(store: Store) -> None:
    store.put_session(session(project="/mine"))
    store.put_run(run())
    store.delete_session("s")
    store.put_run(run(status=RunStatus.OK))
    assert store.runs(project="/mine") == store.runs(session="s") == [run(status=RunStatus.OK)]


def test_a_kernel_of_an_unknown_session_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="no session 's'"):
        store.put_kernel(kernel())
    assert store.kernels() == []


def test_sessions_are_listed_by_project(store: Store) -> None:
    for name, project in (("a", "/p"), ("b", "/q"), ("c", "/p")):
        store.put_session(session(name, project=project))
    assert [one.name for one in store.sessions("/p")] == ["a", "c"]
    assert [one.name for one in store.sessions()] == ["a", "b", "c"]


def test_runs_are_filtered_and_limited(store: Store) -> None:
    for number in range(10):
        status = RunStatus.RUNNING if number % 2 else RunStatus.OK
        store.put_run(run(f"r{number}", session=f"s{number % 3}", status=status, created_at=float(number)), "/p")
    assert [one.id for one in store.runs(status=RunStatus.RUNNING, session="s0")] == ["r9", "r3"]
    assert [one.id for one in store.runs(limit=3)] == ["r9", "r8", "r7"]
    assert store.runs(project="/elsewhere") == []


def test_pruning_keeps_unfinished_new_and_recent_runs(store: Store) -> None:
    for number in range(10):
        status = RunStatus.RUNNING if number == 1 else RunStatus.OK
        store.put_run(run(f"r{number}", status=status, created_at=100.0 * number))
    assert store.prune_runs(older_than_s=400, keep=3) == 5
    assert [one.id for one in store.runs()] == ["r9", "r8", "r7", "r6", "r1"]
    assert store.prune_runs(older_than_s=0, keep=100) == 0
