"""
Of which flows how many jobs are claimed: by their weights, as the tasks of a queue are served.

It is start-time fair queueing (Goyal, Vin and Cheng, 1996) over the flows that wait in a store, in
steps of a job. No I/O, no Twisted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import count

from asynqueue.stores.operations import Want
from asynqueue.stores.records import Band, Flow

_order = count()


class _Tail:
    """
    What of a flow is in the store.

    @ivar cost: what a job costs in virtual time: one over the weight.
    @ivar tag: the virtual time at which the next one starts.
    @ivar isWaiting: whether there may be any.
    @ivar isTold: whether that was said while a claim was on its way.
    @ivar chosen: how many that claim wants.
    """

    __slots__ = ("chosen", "cost", "flow", "isTold", "isWaiting", "order", "tag")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.cost = 2.0 ** (flow.niceness / 10)
        self.order = next(_order)
        self.tag = 0.0
        self.isWaiting = self.isTold = False
        self.chosen = 0


class Shares:
    """
    The flows that have jobs in a store, and the shares that they have had.
    """

    def __init__(self) -> None:
        self._tails: dict[Flow, _Tail] = {}
        self._now = 0.0

    def __len__(self) -> int:
        """
        Return how many flows may have jobs.
        """
        return sum(tail.isWaiting for tail in self._tails.values())

    @property
    def series(self) -> set[str]:
        """
        The series of the flows that may have jobs.
        """
        return {flow.series for flow, tail in self._tails.items() if tail.isWaiting}

    def waits(self, flow: Flow) -> None:
        """
        Note that a flow has jobs.
        """
        tail = self._tails.get(flow)
        if tail is None:
            tail = self._tails[flow] = _Tail(flow)
        if not tail.isWaiting:
            tail.isWaiting = True
            # Shares are of the time in which a flow has jobs: none are saved.
            tail.tag = max(tail.tag, self._now)
        tail.isTold = True

    def choose(self, room: int, rooms: Mapping[str, int]) -> tuple[Want, ...]:
        """
        Choose whose jobs are claimed next.

        @param room: how many, at most.
        @param rooms: how many of each series, at most.
        """
        left = dict(rooms)
        wants: list[Want] = []
        for band in Band:
            heap = [
                (tail.tag, tail.order, tail)
                for tail in self._tails.values()
                if tail.isWaiting and tail.flow.band is band and left.get(tail.flow.series, 0) > 0
            ]
            heapify(heap)
            chosen: dict[_Tail, None] = {}
            while heap and room > 0:
                tag, order, tail = heap[0]
                series = tail.flow.series
                if not left[series]:
                    heappop(heap)
                    continue
                # Where it is alone, all are its.
                step = min(room, left[series]) if len(heap) == 1 else 1
                self._now = max(self._now, tag + (step - 1) * tail.cost)
                tail.chosen += step
                tail.tag = tag + step * tail.cost
                chosen[tail] = None
                left[series] -= step
                room -= step
                heapreplace(heap, (tail.tag, order, tail))
            for tail in chosen:
                tail.isTold = False
                wants.append(Want(tail.flow, tail.chosen))
                tail.chosen = 0
        return tuple(wants)

    def answered(self, wants: Sequence[Want], found: Mapping[Flow, int]) -> None:
        """
        Note how many jobs a claim has found of each flow. One that had fewer than were wanted has
        none now, unless it was told of meanwhile.
        """
        for want in wants:
            tail = self._tails[want.flow]
            missing = want.count - found.get(want.flow, 0)
            tail.tag -= missing * tail.cost
            if missing and not tail.isTold:
                tail.isWaiting = False
                if tail.tag <= self._now:
                    # It has no share to remember.
                    del self._tails[want.flow]
        if self._tails and not any(tail.isWaiting for tail in self._tails.values()):
            # Nobody competes.
            self._tails.clear()

    def failed(self, wants: Sequence[Want]) -> None:
        """
        Note that a claim was not made: what was wanted still waits.
        """
        for want in wants:
            self._tails[want.flow].tag -= want.count * self._tails[want.flow].cost
