"""Follows runs and sends what is to be announced: each notice once, also over the death of the daemon.

A notice is in the store before it is sent, and counts as sent from the moment when sending begins: what a killed
daemon was just sending may be missing, but is never there twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator

import anyio

from colab_bridge.config.settings import NotifySettings
from colab_bridge.errors import ColabBridgeError
from colab_bridge.execution.notices.decide import (
    Question,
    announce_end,
    announce_no_start,
    announce_question,
    announce_wait,
    wanted,
    webhook_document,
)
from colab_bridge.execution.notices.desktop import show_on_desktop
from colab_bridge.execution.notices.webhook import Delivery, post_notice
from colab_bridge.execution.outcome import Outcome
from colab_bridge.model.jobs import Notice, NoticeState, Schedule, WaitEnd
from colab_bridge.model.records import Run
from colab_bridge.ports.clock import Clock
from colab_bridge.store.store import Store
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["NoticeService"]

log = logging.getLogger(__name__)

#: Pauses after tries that certainly did not arrive; a laptop that wakes up has its network within the first ones.
RETRY_PAUSES_S = (2.0, 10.0, 60.0, 300.0, 900.0)
_KEEP_S = 90 * 86_400.0
#: The longest wait for something that is due: timers stand still while a laptop sleeps.
_LOOK_S = 30.0
_TAIL_CHARACTERS = 1000

SettingsOf = Callable[[str], NotifySettings]
Desktop = Callable[[str, str], Awaitable[str]]


@dataclasses.dataclass(slots=True)
class _Watched:
    """What is known of a run that may be announced."""

    run: Run
    tail: str = ""
    skip_until: str = ""  # after a take-over: the newest question that is known; what comes before it was answered


class NoticeService:
    """Implements :class:`~colab_bridge.execution.jobs_observer.RunObserver`.

    Args:
        store: Where notices are kept.
        clock: Time source.
        settings_of: Gives the settings for a project.
        desktop: Shows a notice on the desktop, and returns why it could not.
    """

    def __init__(
        self, store: Store, clock: Clock, settings_of: SettingsOf, *, desktop: Desktop = show_on_desktop
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings_of = settings_of
        self._desktop = desktop
        self._watched: dict[str, _Watched] = {}
        self._wake = anyio.Event()
        self.problem = ""

    # -- what runs tell --------------------------------------------------------------------------------------

    def began(self, run: Run, *, resumed: bool) -> None:
        """Watch a run whose notices are wanted."""
        if not wanted(run, self._settings(run)):
            return
        watched = _Watched(run)
        self._watched[run.id] = watched
        with _goes_on(run.id):
            if resumed:
                known = [notice.subject for notice in self._store.notices_of(run=run.id) if notice.subject]
                watched.skip_until = known[0] if known else ""

    def message(self, run_id: str, message: RawMessage) -> None:
        """Keep the last line, and take note of questions."""
        watched = self._watched.get(run_id)
        if watched is None:
            return
        with _goes_on(run_id), contextlib.suppress(MessageError):
            if message.msg_type == "stream":
                text = message.content_fields().get("text")
                if isinstance(text, str) and text:
                    watched.tail = (watched.tail + text)[-_TAIL_CHARACTERS:]
            elif message.msg_type == "input_request":
                self._asked(watched, message)

    def _asked(self, watched: _Watched, message: RawMessage) -> None:
        subject = f"{message.parent_id} {message.msg_id}"
        if watched.skip_until.partition(" ")[0] == message.parent_id:
            if watched.skip_until == subject:
                watched.skip_until = ""
            return
        prompt = message.content_fields().get("prompt")
        question = Question(
            subject=subject, prompt=prompt if isinstance(prompt, str) else "", asked_at=self._clock.time()
        )
        self._put(announce_question(watched.run, self._settings(watched.run), question))

    def answered(self, run_id: str) -> None:
        """Take back what was to be announced about a question."""
        if run_id in self._watched:
            with _goes_on(run_id):
                self._drop_questions(run_id)

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Announce the end of a run, unless that was done."""
        watched = self._watched.pop(run.id, None)
        error = f"{outcome.ename}: {outcome.evalue}" if outcome.ename else ""
        tail = last_line(watched.tail) if watched else ""
        notices = announce_end(run, self._settings(run), error=error, last_line=tail)
        with _goes_on(run.id):
            self._drop_questions(run.id)
            self._put(tuple(notice for notice in notices if self._store.notice(notice.id) is None))

    def start_failed(self, schedule: Schedule, reason: str) -> None:
        """Announce that a scheduled run could not be started."""
        self._put(announce_no_start(schedule, self._read_settings(schedule.project), reason, self._clock.time()))

    def waited(self, end: WaitEnd) -> None:
        """Announce that a machine was got after a wait, or that it will not be."""
        with _goes_on(end.session):
            self._put(announce_wait(end, self._read_settings(end.project)))

    def _drop_questions(self, run_id: str) -> None:
        for notice in self._store.notices_of(run=run_id, state=NoticeState.WAITING):
            self._store.put_notice(dataclasses.replace(notice, state=NoticeState.DROPPED))

    def _put(self, notices: tuple[Notice, ...]) -> None:
        for notice in notices:
            self._store.put_notice(notice)
        if notices:
            self._wake.set()

    def _read_settings(self, project: str) -> NotifySettings:
        try:
            return self._settings_of(project)
        except ColabBridgeError as error:
            log.warning("settings for notices not read", extra={"project": project, "reason": error.message})
            return NotifySettings()

    def _settings(self, run: Run) -> NotifySettings:
        settings = self._read_settings(str(run.spec.get("project") or ""))
        # What held where the run was started, flags and variables included; the secret is not kept with a run.
        kept = run.spec.get("announce")
        return settings.model_copy(update=kept) if isinstance(kept, dict) else settings

    # -- sending ---------------------------------------------------------------------------------------------

    async def run(self, ready: anyio.Event) -> None:
        """Send what is due, until cancelled.

        Args:
            ready: Set when the runs of the daemon before are known; what has become of a question is not known sooner.
        """
        await ready.wait()
        try:
            self._take_over()
        except ColabBridgeError as error:
            log.warning("notices of the daemon before not read", extra={"reason": error.message})
        while True:
            self._wake = anyio.Event()
            pause = await self._round()
            with anyio.move_on_after(pause):
                await self._wake.wait()

    def _take_over(self) -> None:
        for notice in self._store.notices_of(state=NoticeState.SENDING):
            self._store.put_notice(dataclasses.replace(notice, state=NoticeState.FAILED))
        self._store.prune_notices(_KEEP_S)

    async def _round(self) -> float | None:
        """Send what is due now and return the seconds until something else is; None when nothing is left."""
        try:
            open_notices = [*self._of(NoticeState.PENDING), *self._of(NoticeState.WAITING)]
            now = self._clock.time()
            due = [notice for notice in open_notices if notice.due_at <= now]
            async with anyio.create_task_group() as tasks:
                for notice in due:
                    tasks.start_soon(self._send, notice)
            left = [*self._of(NoticeState.PENDING), *self._of(NoticeState.WAITING)]
        except ColabBridgeError as error:
            log.warning("notices not read", extra={"reason": error.message})
            return _LOOK_S
        if not left:
            return None
        # Never at once: what was due and is still there could not be stored.
        return min(_LOOK_S, max(0.1, min(notice.due_at for notice in left) - self._clock.time()))

    def _of(self, state: NoticeState) -> list[Notice]:
        return self._store.notices_of(state=state)

    async def _send(self, notice: Notice) -> None:
        """Task root of one notice; a defect in sending must not end the daemon."""
        try:
            current = self._store.notice(notice.id)
            if current is None or current.state not in (NoticeState.PENDING, NoticeState.WAITING):
                return
            claimed = dataclasses.replace(current, state=NoticeState.SENDING, tries=current.tries + 1)
            self._store.put_notice(claimed)
            self._settle(claimed, await self._deliver(claimed))
        except ColabBridgeError as error:
            log.warning("notice not sent", extra={"notice": notice.id, "reason": error.message})
        except Exception:
            log.exception("notice not sent", extra={"notice": notice.id})

    async def _deliver(self, notice: Notice) -> Delivery:
        if notice.channel == "desktop":
            brief = notice.body.get("brief", "")
            return Delivery(problem=await self._desktop(str(notice.body["title"]), str(brief)))
        url = self._read_settings(self._project_of(notice)).webhook
        return await post_notice(url, webhook_document(notice)) if url else Delivery(problem="no address is set")

    def _project_of(self, notice: Notice) -> str:
        if project := notice.body.get("project"):
            return str(project)
        schedule = self._store.schedule(str(notice.body.get("schedule") or ""))
        return schedule.project if schedule is not None else self._store.run_project(notice.run) or ""

    def _settle(self, notice: Notice, delivery: Delivery) -> None:
        if not delivery.problem:
            self._store.put_notice(dataclasses.replace(notice, state=NoticeState.SENT))
            return
        log.warning("notice not taken", extra={"notice": notice.id, "reason": delivery.problem})
        if delivery.again and notice.tries <= len(RETRY_PAUSES_S):
            pause = max(RETRY_PAUSES_S[notice.tries - 1], delivery.after_s)
            again = dataclasses.replace(notice, state=NoticeState.PENDING, due_at=self._clock.time() + pause)
            self._store.put_notice(again)
            return
        self.problem = f"a notice could not be sent ({notice.channel}): {delivery.problem}"
        self._store.put_notice(dataclasses.replace(notice, state=NoticeState.FAILED))


@contextlib.contextmanager
def _goes_on(what: str) -> Iterator[None]:
    """Keep a full disk, which stops notices, from ending the run or the session that they are about."""
    try:
        yield
    except ColabBridgeError as error:
        log.warning("notice not stored", extra={"about": what, "reason": error.message})


def last_line(text: str) -> str:
    r"""Return the last line that says something; of one that was overwritten with ``\r`` what stands last."""
    for line in reversed(text.replace("\r", "\n").split("\n")):
        if line.strip():
            return line.strip()
    return ""
