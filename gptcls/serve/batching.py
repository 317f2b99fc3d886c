"""Many callers, one thread that computes: what arrives at about the same time is answered together.

A network answers 64 texts in far less than 64 times the time of one. While a batch is computed, the next
one gathers, so under load batches grow by themselves; a moment of waiting gathers the first.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class BusyError(Exception):
    """Nothing more is taken now; the message is a line that says why."""


@dataclass(frozen=True, eq=False)
class Job(Generic[Item, Result]):
    """What one caller asked, in one piece."""

    items: Sequence[Item]
    future: "Future[list[Result]]" = field(default_factory=Future)


STOP: Job = Job(())  # what ends the thread


class Batcher(Generic[Item, Result]):
    """A thread that answers the items of all callers, each caller its own, in the order they came.

    ``answer`` maps a list of items to as many results; it is called by this thread alone. Where it raises,
    every caller's items are tried by themselves, so that nobody's error is another's.

    Args:
        most: items of a batch; a caller with more gives them in several pieces, between which others come.
        wait: seconds that the first item of a batch waits for others.
        room: items that may wait; beyond them :meth:`submit` raises :class:`BusyError`.

    >>> with Batcher(lambda texts: [text.upper() for text in texts]) as batcher:
    ...     first, second = batcher.submit(["a", "b"]), batcher.submit(["c"])
    ...     first.result(), second.result()
    (['A', 'B'], ['C'])
    """

    def __init__(
        self, answer: Callable[[list[Item]], Sequence[Result]], most: int = 64, wait: float = 0.0,
        room: int = 10_000,
    ) -> None:  # fmt: skip
        self.answer, self.most, self.wait, self.room = answer, most, wait, room
        self._jobs: SimpleQueue[Job[Item, Result]] = SimpleQueue()
        self._lock = threading.Lock()
        self._n_waiting, self._open = 0, True
        # A daemon: what is computed when the process is told to end at once cannot hold it up.
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def __enter__(self) -> "Batcher[Item, Result]":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return self._n_waiting

    @property
    def alive(self) -> bool:
        """Whether what is submitted will be answered."""
        return self._open and self._thread.is_alive()

    def submit(self, items: Sequence[Item]) -> "Future[list[Result]]":
        """Hand in at most ``most`` items. A future that is cancelled before its turn is never computed."""
        if len(items) > self.most:
            raise ValueError(f"{len(items)} items at once, of at most {self.most}")
        job: Job[Item, Result] = Job(items)
        with self._lock:
            if not self._open:
                raise BusyError("the server is stopping")
            if self._n_waiting + len(items) > self.room:
                raise BusyError(f"{self._n_waiting:,} are waiting already; try again in a moment")
            self._n_waiting += len(items)
            self._jobs.put(job)
        return job.future

    def close(self, seconds: float = 5.0) -> None:
        """Take no more, answer what waits, and end the thread; what is not answered after ``seconds`` raises
        :class:`BusyError`."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._jobs.put(STOP)
            self._thread.join(seconds)
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not STOP and job.future.set_running_or_notify_cancel():
                job.future.set_exception(BusyError("the server has stopped"))

    def _run(self) -> None:
        held: Job | None = None
        while (job := held or self._jobs.get()) is not STOP:
            jobs, size, end, held = [job], len(job.items), time.monotonic() + self.wait, None
            while size < self.most and held is None:
                try:
                    job = self._jobs.get(timeout=max(0.0, end - time.monotonic()))
                except Empty:
                    break
                if job is STOP or size + len(job.items) > self.most:
                    held = job
                else:
                    jobs.append(job)
                    size += len(job.items)
            with self._lock:
                self._n_waiting -= size
            self._settle([each for each in jobs if each.future.set_running_or_notify_cancel()])

    def _settle(self, jobs: list[Job[Item, Result]]) -> None:
        """Give each job its results, or the error that it alone raises."""
        try:
            results = iter(self.answer([item for job in jobs for item in job.items]) if jobs else ())
            for job in jobs:
                job.future.set_result([next(results) for _ in job.items])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:
                self._settle([job])
