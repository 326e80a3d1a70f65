"""The composition root: folders and settings in, a running object graph out."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from colab_bridge.config.caller import caller_env
from colab_bridge.config.paths import Paths
from colab_bridge.config.services import service_urls
from colab_bridge.config.settings import Settings, load_settings
from colab_bridge.credentials.manager import Credentials
from colab_bridge.credentials.secret_box import SecretBox
from colab_bridge.drive.client import DriveClient
from colab_bridge.errors import UserError
from colab_bridge.execution.deployments import Deployments
from colab_bridge.execution.estimates import Estimates
from colab_bridge.execution.jobs import Jobs
from colab_bridge.execution.notices import NoticeService
from colab_bridge.execution.repair import NotebookRepair
from colab_bridge.execution.request import RunRequest
from colab_bridge.execution.schedules import ScheduleService
from colab_bridge.execution.service import RunService
from colab_bridge.kernels.record import MessageRecord
from colab_bridge.model.records import KernelRecord, RunStatus
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.clock import Clock, SystemClock
from colab_bridge.providers.colab.provider import ColabProvider
from colab_bridge.providers.registry import ProviderRegistry, installed_providers
from colab_bridge.sessions.agent_access import AgentDoors
from colab_bridge.sessions.agents import Agents
from colab_bridge.sessions.forwards import Forwards
from colab_bridge.sessions.frontends import FrontEnds
from colab_bridge.sessions.keeping import RuntimeKeeper
from colab_bridge.sessions.kernels import KernelPool
from colab_bridge.sessions.machines import Machines
from colab_bridge.sessions.meter import Meter
from colab_bridge.sessions.queue import AgentQueue
from colab_bridge.sessions.service import SessionService
from colab_bridge.sessions.side_desks import SideDesks
from colab_bridge.sessions.targets import choose_target
from colab_bridge.store.store import Store
from colab_bridge.sync.manager import SyncManager

__all__ = ["App", "open_app"]

log = logging.getLogger(__name__)

#: Most seconds that a request waits for the take-over; local runtimes need some milliseconds.
RECOVERY_WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything that the front doors need.

    Attributes:
        paths: Our folders.
        store: The state database.
        sessions: Sessions.
        providers: Where runtimes come from.
        credentials: Who is signed in with Google.
        secrets: Secrets that the user has set for code on runtimes.
        pool: Kernels.
        keeper: Keeps runtimes of accounts, and gives them back.
        agents: The links to the agents on the runtimes.
        sync: Pairs of folders that are kept in step.
        machines: How the machines of the sessions are.
        front_ends: Who is attached to kernels.
        runs: Runs.
        jobs: The runs among them that nobody has to watch.
        estimates: How far runs are.
        announcer: Tells the user what has become of runs.
        schedules: Runs that are started again and again.
        deployments: Notebooks that are published in Drive and run.
        forwards: Ports here that lead to runtimes.
        clock: Time source.
        stopping: Set when the process is to end.
        recovered: Set when everything that an earlier daemon left has been taken over.
        started_at: Unix seconds.
        notices: Sentences about the state that was found at the start.
    """

    paths: Paths
    store: Store
    sessions: SessionService
    providers: ProviderRegistry
    credentials: Credentials
    secrets: SecretBox
    pool: KernelPool
    keeper: RuntimeKeeper
    agents: Agents
    sync: SyncManager
    machines: Machines
    front_ends: FrontEnds
    runs: RunService
    jobs: Jobs
    estimates: Estimates
    announcer: NoticeService
    schedules: ScheduleService
    deployments: Deployments
    forwards: Forwards
    clock: Clock
    stopping: anyio.Event
    recovered: anyio.Event
    started_at: float
    notices: list[str] = field(default_factory=list)

    async def wait_recovered(self) -> None:
        """Wait until sessions, kernels and runs of an earlier daemon are known again, or for a while.

        A server that does not answer must not hold up what has nothing to do with it.
        """
        with anyio.move_on_after(RECOVERY_WAIT_S):
            await self.recovered.wait()

    def all_notices(self) -> list[str]:
        """Return every sentence that ``status`` shows."""
        problem = [self.announcer.problem] if self.announcer.problem else []
        return [*self.notices, *self.store.notices, *self.sessions.notices, *problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What everything is built on, under the names that :class:`App` and :func:`open_app` give it."""

    paths: Paths
    store: Store
    settings: Settings
    clock: Clock
    tasks: anyio.abc.TaskGroup
    notices: list[str]


@contextlib.asynccontextmanager
async def open_app(paths: Paths, *, clock: Clock | None = None) -> AsyncIterator[App]:
    """Open the state, take over what an earlier daemon left, and run until the context is left.

    Args:
        paths: Our folders.
        clock: Time source; the machine's own when omitted.
    """
    clock = clock or SystemClock()
    notices: list[str] = []
    settings = _own_settings(paths, notices)
    store = Store.open(paths.database)
    try:
        async with anyio.create_task_group() as tasks:
            app = _build(
                _Ground(paths=paths, store=store, settings=settings, clock=clock, tasks=tasks, notices=notices)
            )
            for service in (app.announcer, app.keeper, app.schedules):
                tasks.start_soon(service.run, app.recovered)
            tasks.start_soon(_take_over, app, settings.record.keep_days)
            try:
                yield app
            finally:
                # In this order: a run that saw its record end before it was cancelled would count as lost.
                tasks.cancel_scope.cancel()
                app.forwards.close()
                app.pool.close()
                await app.sync.aclose()
                await app.providers.aclose()
    finally:
        store.close()


def _build(ground: _Ground) -> App:
    """Make every service and tie them together; nothing runs yet."""
    paths, store, clock, tasks = ground.paths, ground.store, ground.clock, ground.tasks
    credentials = Credentials(paths, os.environ, store=ground.settings.credential_store, clock=clock)
    secrets = SecretBox(paths, credentials.vaults)
    providers = _providers(paths, credentials, clock)
    sessions = SessionService(store, providers, paths, clock)
    sessions.on_caller(credentials.learn)
    agents = Agents(AgentDoors(paths.state_dir / "agents", sessions.endpoint).open, tasks)
    pool = _pool(ground, sessions, agents)
    pool.answer_with(SideDesks(sessions.session, providers, secrets, tasks).desk)
    sync = SyncManager(sessions, agents, paths.state_dir / "sync", clock, tasks, lambda: caller_env(os.environ))
    pool.keep_with(sync)
    keeper = _keeper(ground, sessions, pool, providers)
    stopping = anyio.Event()
    runs = RunService(store, sessions, pool, paths, clock, tasks)
    runs.queue = AgentQueue(pool, agents, store)
    announcer = NoticeService(store, clock, lambda project: sessions.settings(project, caller_env(os.environ)).notify)
    sessions.acquirer.on_waited(announcer.waited)
    estimates = Estimates(store, clock)
    deployments = _deployments(ground, runs, sessions, providers, credentials)
    for observer in (announcer, estimates, sync, keeper, deployments):
        runs.observe(observer)
    return App(
        paths=paths,
        store=store,
        sessions=sessions,
        providers=providers,
        credentials=credentials,
        secrets=secrets,
        pool=pool,
        keeper=keeper,
        agents=agents,
        sync=sync,
        machines=Machines(agents),
        front_ends=_front_ends(ground, pool, stopping),
        runs=runs,
        jobs=Jobs(store, runs),
        estimates=estimates,
        announcer=announcer,
        schedules=_schedules(ground, runs, announcer),
        deployments=deployments,
        forwards=Forwards(sessions.session, agents.link),
        clock=clock,
        stopping=stopping,
        recovered=anyio.Event(),
        started_at=clock.time(),
        notices=ground.notices,
    )


def _providers(paths: Paths, credentials: Credentials, clock: Clock) -> ProviderRegistry:
    """Return all providers; that of Colab is made here because it signs in as the user."""

    def colab(folder: Path) -> ColabProvider:
        # Fixed for the life of the daemon: a caller with an emulator's addresses must not have real runtimes looked
        # for there, and so taken for lost.
        return ColabProvider(folder, credentials, service_urls(os.environ), clock)

    return ProviderRegistry(paths.runtimes_dir, {**installed_providers(), "colab": colab})


def _account_of(sessions: SessionService, request: RunRequest) -> str:
    """Return the account that a run is for: that of its session or runtime, else the project's; empty for any."""
    if request.session:
        return str(sessions.session(request.session).options.get("account") or "")
    settings = sessions.settings(request.project, request.env)
    target = choose_target(settings, runtime=request.runtime, provider=request.provider, options=request.options)
    return str(target.options.get("account") or settings.account)


def _browser_link(sessions: SessionService, providers: ProviderRegistry, name: str, file_id: str) -> str:
    """Return the page that opens a notebook of Drive on the runtime of a session; empty where there is none."""
    session = sessions.session(name)
    provider = providers.get(session.provider)
    if session.handle is None or not isinstance(provider, AccountProvider):
        return ""
    return provider.browser_url(session.handle, file_id=file_id)


def _pool(ground: _Ground, sessions: SessionService, agents: Agents) -> KernelPool:
    """Return the kernels, which say when a session's runtime answers and learn when it is another one."""
    pool = KernelPool(
        ground.store,
        ground.paths.records_dir,
        ground.clock,
        ground.tasks,
        sessions.endpoint,
        record_bytes=ground.settings.record.max_mb * 1024 * 1024,
        agents=agents,
        transport_of=sessions.transport,
    )
    sessions.ask_first(pool.answers, pool.connected)
    sessions.on_replaced(pool.runtime_gone)
    return pool


def _keeper(ground: _Ground, sessions: SessionService, pool: KernelPool, providers: ProviderRegistry) -> RuntimeKeeper:
    keeper = RuntimeKeeper(
        sessions.sessions,
        providers,
        pool.busy,
        lambda project: sessions.settings(project, caller_env(os.environ)),
        lambda name: sessions.stop(name, pool),
        Meter(ground.paths.state_dir / "usage.json", ground.clock),
        ground.clock,
        ground.notices.append,
        ground.store.put_run_units,
    )
    pool.on_state(keeper.state_changed)
    return keeper


def _front_ends(ground: _Ground, pool: KernelPool, stopping: anyio.Event) -> FrontEnds:
    """Return who is attached; notebooks that nobody looks at any more get their outputs all the same."""
    front_ends = FrontEnds(pool, ground.clock, ground.tasks, stopping)
    repair = NotebookRepair(
        ground.tasks,
        save_interval_s=ground.settings.notebook.save_interval_s,
        collapse_progress=ground.settings.notebook.collapse_progress,
        tell=ground.notices.append,
    )
    front_ends.on_orphaned(repair.begin, repair.leave)
    return front_ends


def _schedules(ground: _Ground, runs: RunService, announcer: NoticeService) -> ScheduleService:
    return ScheduleService(
        ground.store,
        ground.clock,
        lambda request, schedule: runs.start(request, schedule=schedule),
        announcer.start_failed,
    )


def _deployments(
    ground: _Ground,
    runs: RunService,
    sessions: SessionService,
    providers: ProviderRegistry,
    credentials: Credentials,
) -> Deployments:
    return Deployments(
        ground.store,
        runs.start,
        lambda account: DriveClient(credentials, service_urls(os.environ), account=account),
        lambda request: _account_of(sessions, request),
        lambda session, file_id: _browser_link(sessions, providers, session, file_id),
        ground.tasks,
        ground.notices.append,
    )


def _own_settings(paths: Paths, notices: list[str]) -> Settings:
    """Read the user's settings.

    A broken file must not keep the daemon from starting, because nobody could be told then.
    """
    try:
        return load_settings(paths, None, {}, {}).settings
    except UserError as error:
        notices.append(f"{error.message}; {error.hint}")
        return Settings()


async def _take_over(app: App, keep_days: float) -> None:
    """Task root of the take-over. A defect in it must not end the daemon, which would fail at each start then."""
    adopted: list[KernelRecord] = []
    try:
        adopted = await app.sessions.recover(app.pool, app.store.runs(status=RunStatus.RUNNING, limit=1000))
        await app.runs.recover(adopted)
    except Exception as error:
        log.exception("take-over failed")
        app.notices.append(
            f"not everything of the daemon before was found again ({type(error).__name__}); "
            "see: colab-bridge daemon logs"
        )
        return  # records are not pruned: which kernels live is not known
    finally:
        app.recovered.set()
    for kernel in adopted:
        app.front_ends.expect_return(kernel)
    app.deployments.recover()
    await app.sessions.reconcile()
    await anyio.to_thread.run_sync(_prune_records, app.paths.records_dir, {k.id for k in adopted}, keep_days)


def _prune_records(folder: Path, living: set[str], keep_days: float) -> None:
    """Delete records and outputs of kernels that ended more than ``keep_days`` ago."""
    limit = time.time() - keep_days * 86_400
    if not folder.is_dir():
        return
    for record in folder.iterdir():
        try:
            newest = max((file.stat().st_mtime for file in record.iterdir()), default=record.stat().st_mtime)
        except OSError:
            continue
        if record.name not in living and newest < limit:
            MessageRecord.delete(record)
            shutil.rmtree(record, ignore_errors=True)
