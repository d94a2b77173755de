"""
The places for the processes of a pool: some more, some less, and all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from asynqueue.processes.process import ChildProcess
from asynqueue.processes.supervisor import Supervisor


class Supervisors:
    """
    Those who keep the places of a pool filled. Iteration gives those that take calls.
    """

    def __init__(self, new: Callable[[], Supervisor]) -> None:
        """
        @param new: makes one more.
        """
        self._new = new
        self._staying: list[Supervisor] = []
        # Those that were taken away, and still end what they have.
        self._leaving: list[Supervisor] = []

    def __len__(self) -> int:
        return len(self._staying)

    def __iter__(self) -> Iterator[Supervisor]:
        return iter(self._staying)

    @property
    def present(self) -> list[Supervisor]:
        """
        Those that take calls, and those that were taken away and still end what they have.
        """
        return [*self._staying, *self._leaving]

    @property
    def children(self) -> list[ChildProcess]:
        """
        The processes that are not gone.
        """
        return [child for each in self.present for child in each.children]

    @property
    def jobs(self) -> list[Any]:
        """
        What the processes have, begun or not.
        """
        return [job for child in self.children for job in child.calls.held.values()]

    def grow(self, n: int) -> None:
        """
        Add places.

        @param n: how many.
        """
        for _ in range(n):
            self._staying.append(self._new())

    def shrink(self, n: int) -> None:
        """
        Take places away. A process that is busy ends its call first.

        @param n: how many.
        @raise ValueError: none would be left.
        """
        if n >= len(self):
            raise ValueError(
                f"a pool of {len(self)} cannot shrink by {n!r}: one process must be left"
            )
        # Those without work go first.
        sorted_ = sorted(self._staying, key=lambda each: any(m.calls.held for m in each.children))
        self._staying = sorted_[n:]
        for each in sorted_[:n]:
            if each.children:
                self._leaving.append(each)
            each.cancel()

    def fill(self) -> None:
        """
        Have a process in each place, soon.
        """
        for each in self._staying:
            each.fill()

    def renew(self) -> None:
        """
        Have the processes go that there are, each when it has ended its call.
        """
        for each in self._staying:
            each.renew()

    def onIdle(self, child: ChildProcess) -> None:
        """
        Take note that a process has nothing to do: it may be time for it to go.
        """
        for each in self.present:
            if child in each.children:
                each.checkMemory(child)
                each.onIdle(child)

    def exited(self, supervisor: Supervisor) -> None:
        """
        Take note that a process is gone: who was taken away may have had it as the last.
        """
        if supervisor in self._leaving and not supervisor.children:
            self._leaving.remove(supervisor)

    def takeBack(self) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @return: their jobs.
        """
        return [job for child in self.children for job in child.calls.takeBack()]

    def finish(self) -> None:
        """
        Let all processes go. They have nothing to do.
        """
        for each in self.present:
            each.finish()

    def crash(self, reason: str) -> None:
        """
        End all processes at once.
        """
        for each in self.present:
            each.crash(reason)

    def clear(self) -> None:
        """
        Have no place any more, and ask nothing of those that there were.
        """
        self._staying, self._leaving = [], []
