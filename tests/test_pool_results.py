"""
What reads the results of a pool, over output queues of this module and over a real
channel; and what callers hold.
"""

from __future__ import annotations

import socket
import threading
from asyncio import CancelledError
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from asynqueue.channels import Channel, channelPair
from asynqueue.errors import ImplementationError
from asynqueue.framing import Frame, packed
from asynqueue.pool.results import AsyncResult, ResultHandler
from asynqueue.processes.protocol import Kind
from tests import test_loops_adapters as ofLoops
from tests.doubles import readingLogs
from tests.test_loops_adapters import Driver

UP = int(Kind.UP)
RETURNED = int(Kind.RETURNED)


class Outq:
    """
    An output queue that does as it is told.

    @ivar script: what C{receive} returns, or raises, one after the other.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script)

    def receive(self) -> Sequence[Frame]:
        """
        The next of the script.
        """
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        frames: Sequence[Frame] = step
        return frames


class SeenOutq:
    """
    An output queue over a channel, which notes what comes.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.frames: list[Frame] = []

    def receive(self) -> list[Frame]:
        """
        Take what is there.
        """
        frames = self._channel.receive()
        self.frames += frames
        return frames


class Readers:
    """
    A loop that only notes what it is asked to watch.

    @ivar calls: what to call for each descriptor.
    """

    def __init__(self) -> None:
        self.calls: dict[int, Any] = {}

    def add_reader(self, fd: int, callback: Any, *args: Any) -> None:
        """
        Note it.
        """
        self.calls[fd] = lambda: callback(*args)

    def remove_reader(self, fd: int) -> None:
        """
        Forget it.
        """
        del self.calls[fd]


def handlerOf(queues: dict[int, Any], alive: Any = None) -> tuple[ResultHandler, Readers]:
    """
    A handler of some queues, registered with a loop that only notes.
    """
    readers = Readers()
    handler = ResultHandler(
        fileno_to_outq=queues, on_process_alive=alive or (lambda pid: None), unknown="ignored"
    )
    handler.register_with_event_loop(readers)
    return handler, readers


# An event loop of each kind.
driver = ofLoops.driver


# The handler


def test_unregisteredIsAnError() -> None:
    """
    Without a loop no event can be handled.
    """
    handler = ResultHandler(fileno_to_outq={5: Outq([])}, on_process_alive=lambda pid: None)
    with pytest.raises(RuntimeError, match="register_with_event_loop"):
        handler.handle_event(5)


def test_whatIsNoLoopIsRefused() -> None:
    """
    So is the registration with what is no loop.
    """
    handler = ResultHandler(fileno_to_outq={}, on_process_alive=lambda pid: None)
    with pytest.raises(ImplementationError):
        handler.register_with_event_loop(object())


def test_otherArgumentsAreIgnored() -> None:
    """
    Arguments that it does not know are for those who override more.
    """
    handler = ResultHandler(
        1, 2, fileno_to_outq={}, on_process_alive=lambda pid: None, three=3, four=4
    )
    assert handler.fileno_to_outq == {}


def test_registrationWatchesAllThatAreThere() -> None:
    """
    The loop watches every queue there is.
    """
    _, readers = handlerOf({5: Outq([]), 7: Outq([])})
    assert set(readers.calls) == {5, 7}


def test_laterQueuesAreWatched() -> None:
    """
    A queue that comes later is watched when that is said, if there is a loop.
    """
    queues = {5: Outq([])}
    unregistered = ResultHandler(fileno_to_outq=queues, on_process_alive=lambda pid: None)
    unregistered.watch(5)
    handler, readers = handlerOf(queues)
    queues[7] = Outq([])
    handler.watch(7)
    assert set(readers.calls) == {5, 7}


def test_unknownDescriptorsAreUnwatched() -> None:
    """
    When the process of a descriptor is gone, the loop watches it no more.
    """
    queues = {5: Outq([])}
    handler, readers = handlerOf(queues)
    queues.clear()
    handler.handle_event(5)
    handler.handle_event(99)
    assert readers.calls == {}


def test_whatOthersWatchIsUnwatched() -> None:
    """
    A loop may have been given the handler by somebody else, as it is, with the
    descriptor: at its end that watch ends, too.
    """
    queues: dict[int, Any] = {}
    handler, readers = handlerOf(queues)
    queues[5] = Outq([], EOFError("end"))
    for fileno in (5, 99):
        readers.add_reader(fileno, handler.handle_event, fileno)
    readers.calls[99]()
    readers.calls[5]()
    assert set(readers.calls) == {5}
    readers.calls[5]()
    assert readers.calls == {}


def test_theLoopHoldsTheHandler() -> None:
    """
    What a loop is given is L{ResultHandler.handle_event} and the descriptor.
    """
    given: list[tuple[Any, ...]] = []
    loop = SimpleNamespace(
        add_reader=lambda *args: given.append(args), remove_reader=lambda fd: None
    )
    handler = ResultHandler(fileno_to_outq={5: Outq()}, on_process_alive=lambda pid: None)
    handler.register_with_event_loop(loop)
    assert given == [(5, handler.handle_event, 5)]


def test_aLoopThatForgetsNothingIsNoError() -> None:
    """
    If a loop cannot end a watch, that is logged.
    """

    def fail(fd: int) -> None:
        raise LookupError("of a test")

    loop = SimpleNamespace(add_reader=lambda *args: None, remove_reader=fail)
    handler = ResultHandler(
        fileno_to_outq={5: Outq(EOFError("end"))}, on_process_alive=lambda pid: None
    )
    handler.register_with_event_loop(loop)
    with readingLogs() as logs:
        handler.handle_event(5)
    assert [str(error) for error in logs.errors()] == ["of a test"]


@pytest.mark.parametrize("nothing", [None, [], iter(())])
def test_nothingMayCome(nothing: Any) -> None:
    """
    A queue that has no message yet gives none, in any form, and stays watched.
    """
    _, readers = handlerOf({5: Outq(nothing)})
    with readingLogs() as logs:
        readers.calls[5]()
    assert logs.errors() == []
    assert set(readers.calls) == {5}


def test_upIsToldToWhomTheHandlerNames() -> None:
    """
    Who is told that a process is up is an attribute, and may be replaced.
    """
    told: list[tuple[str, int]] = []
    handler, readers = handlerOf(
        {5: Outq([(UP, 1, b"", ())], [(UP, 2, b"", ())])}, lambda pid: told.append(("first", pid))
    )
    handler.on_process_alive(0)
    readers.calls[5]()
    handler.on_process_alive = lambda pid: told.append(("second", pid))
    readers.calls[5]()
    assert told == [("first", 0), ("first", 1), ("second", 2)]


def test_upIsTold() -> None:
    """
    The message that a process is up is told with its ID, and no other is.
    """
    told: list[int] = []
    frames = [(RETURNED, 8, b"", ()), (UP, 4711, b"", ()), (RETURNED, 9, b"", ())]
    _, readers = handlerOf({5: Outq(frames, [])}, told.append)
    readers.calls[5]()
    readers.calls[5]()
    assert told == [4711]


@pytest.mark.parametrize("end", [EOFError("end"), OSError("gone"), ConnectionResetError("gone")])
def test_theEndIsUnwatched(end: Exception) -> None:
    """
    A queue at its end is watched no more; the others are.
    """
    _, readers = handlerOf({5: Outq([], end), 7: Outq([])})
    readers.calls[5]()
    assert set(readers.calls) == {5, 7}
    readers.calls[5]()
    assert set(readers.calls) == {7}


def test_aReusedDescriptorStaysWatched() -> None:
    """
    If another process has got the descriptor when the end of one is found, that is
    watched.
    """
    queues: dict[int, Any] = {}

    class Replaced(Outq):
        def receive(self) -> Sequence[Frame]:
            queues[5] = Outq([])
            return super().receive()

    queues[5] = Replaced(EOFError("end"))
    _, readers = handlerOf(queues)
    readers.calls[5]()
    assert set(readers.calls) == {5}


def test_otherErrorsAreLogged() -> None:
    """
    Whatever else a queue raises is logged, and the queue is read on.
    """
    told: list[int] = []
    outq = Outq(LookupError("of a test"), [(UP, 4711, b"", ())])
    _, readers = handlerOf({5: outq}, told.append)
    with readingLogs() as logs:
        readers.calls[5]()
    assert [str(error) for error in logs.errors()] == ["of a test"]
    readers.calls[5]()
    assert told == [4711]


@pytest.mark.parametrize("message", [None, (), 5])
def test_strangeMessagesAreLogged(message: Any) -> None:
    """
    So is a message that is none.
    """
    _, readers = handlerOf({5: Outq([message])})
    with readingLogs() as logs:
        readers.calls[5]()
    assert len(logs.errors()) == 1
    assert set(readers.calls) == {5}


@pytest.mark.parametrize(
    "error", [LookupError("of a test"), OSError("of a test"), SystemExit("of a test")]
)
def test_whatCallbacksRaiseIsLogged(error: Exception) -> None:
    """
    So is what the callback raises: the process is not taken for gone.
    """

    def fail(pid: int) -> None:
        raise error

    _, readers = handlerOf({5: Outq([(UP, 4711, b"", ())])}, fail)
    with readingLogs() as logs:
        readers.calls[5]()
    assert logs.errors() == [error]
    assert set(readers.calls) == {5}


def test_partialMessagesAreKept(driver: Driver) -> None:
    """
    What has come of a message is kept, without blocking, until the rest is there.
    """
    here, there = socket.socketpair()
    here.setblocking(False)
    channel = Channel(here)
    outq = SeenOutq(channel)
    told: list[int] = []
    fileno = channel.fileno()
    handler = ResultHandler(fileno_to_outq={fileno: outq}, on_process_alive=told.append)
    handler.register_with_event_loop(driver.loop)
    message = packed(RETURNED, 3, b"x" * 1000) + packed(UP, 4711, b"")
    for end in (5, 500, len(message) - 3):
        there.send(message[:end])
        message = message[end:]
        driver.step()
    there.send(message)
    driver.until(lambda: told)
    there.close()
    driver.step()
    handler.handle_event(fileno)
    channel.close()
    assert told == [4711]
    assert [(kind, number, bytes(body)) for kind, number, body, _ in outq.frames] == [
        (RETURNED, 3, b"x" * 1000),
        (UP, 4711, b""),
    ]


# Stopping without a loop


def test_stopReadsAllToTheEnd() -> None:
    """
    With neither a thread nor a loop all queues are read to their ends, and workers
    are joined until all is in.
    """
    pairs = [channelPair() for _ in range(3)]
    queues = {here.fileno(): SeenOutq(here) for here, _ in pairs}
    joined: list[int] = []

    def join() -> bool:
        joined.append(len(joined))
        if len(joined) == 3:
            for _, there in pairs[1:]:
                there.close()
        return False

    handler = ResultHandler(
        fileno_to_outq=queues, on_process_alive=lambda pid: None, join_exited_workers=join
    )
    for number, (_, there) in enumerate(pairs):
        for _ in range(100):
            there.send(RETURNED, number, b"x" * 500)
    pairs[0][1].close()
    handler.on_stop_not_started()
    for here, _ in pairs:
        here.close()
    assert [len(outq.frames) for outq in queues.values()] == [100] * 3
    assert len(joined) > 3


def test_stopReadsWhatIsThere() -> None:
    """
    With nothing but the promised keywords, what has been sent by then is read, of
    processes that have exited and of others; nothing more is waited for.
    """
    pairs = [channelPair() for _ in range(2)]
    queues = {here.fileno(): SeenOutq(here) for here, _ in pairs}
    told: list[int] = []
    handler = ResultHandler(fileno_to_outq=queues, on_process_alive=told.append)
    for number, (_, there) in enumerate(pairs):
        there.send(UP, number, b"")
        for _ in range(100):
            there.send(RETURNED, 1, b"x" * 500)
    pairs[0][1].close()
    handler.on_stop_not_started()
    pairs[1][1].close()
    for here, _ in pairs:
        here.close()
    assert sorted(told) == [0, 1]
    assert [len(outq.frames) for outq in queues.values()] == [101] * 2


def test_stopReadsWhatCameBeforeTheExit() -> None:
    """
    What a worker has sent before it was joined is read after that.
    """
    here, there = channelPair()
    outq = SeenOutq(here)

    def join() -> bool:
        if there.fileno() >= 0:
            there.send(RETURNED, 1, b"the last")
            there.close()
        return True

    handler = ResultHandler(
        fileno_to_outq={here.fileno(): outq},
        on_process_alive=lambda pid: None,
        join_exited_workers=join,
    )
    handler.on_stop_not_started()
    here.close()
    assert [bytes(body) for _, _, body, _ in outq.frames] == [b"the last"]


def test_stopReadsLongMessages() -> None:
    """
    A message that comes in several pieces is read, too.
    """
    here, there = socket.socketpair()
    here.setblocking(False)
    outq = SeenOutq(Channel(here))
    handler = ResultHandler(fileno_to_outq={here.fileno(): outq}, on_process_alive=lambda pid: None)
    message = packed(RETURNED, 3, b"x" * 100_000)
    assert there.send(message) == len(message)
    handler.on_stop_not_started()
    there.close()
    here.close()
    assert [len(body) for _, _, body, _ in outq.frames] == [100_000]


@pytest.mark.parametrize("end", [[], None, LookupError("of a test")])
def test_stopEndsWithoutDescriptors(end: Any) -> None:
    """
    Queues whose descriptors are none are read until nothing comes of them.
    """
    told: list[int] = []
    queues = {
        10_000: Outq([(UP, 1, b"", ())], [(UP, 2, b"", ())], end),
        10_001: Outq(None, [(UP, 3, b"", ())]),
    }
    handler = ResultHandler(fileno_to_outq=queues, on_process_alive=told.append)
    with readingLogs() as logs:
        handler.on_stop_not_started()
    assert len(logs.errors()) == isinstance(end, Exception)
    assert told == [1, 2]


def test_stopReadsNothingAfterTheEnd() -> None:
    """
    A queue that is at its end is not read again, while others are waited for.
    """
    here, there = channelPair()
    ended = Outq(EOFError(), [(UP, 2, b"", ())])
    told: list[int] = []
    joins = iter([False, False, True])
    handler = ResultHandler(
        fileno_to_outq={10_000: ended, here.fileno(): SeenOutq(here)},
        on_process_alive=told.append,
        join_exited_workers=lambda: next(joins, True),
    )
    handler.on_stop_not_started()
    here.close()
    there.close()
    assert told == []
    assert len(ended.script) == 1


def test_stopEndsWhenAllAreJoined() -> None:
    """
    When all workers are joined, nothing more is waited for.
    """
    here, there = channelPair()
    handler = ResultHandler(
        fileno_to_outq={here.fileno(): SeenOutq(here)}, on_process_alive=lambda pid: None
    )
    handler.on_stop_not_started()
    here.close()
    there.close()


def test_stopUnwatchesWhatHasEnded() -> None:
    """
    If there is a loop all the same, it watches nothing that has ended.
    """
    here, there = channelPair()
    readers = Readers()
    handler = ResultHandler(
        fileno_to_outq={here.fileno(): SeenOutq(here)},
        on_process_alive=lambda pid: None,
        join_exited_workers=lambda: False,
    )
    handler.register_with_event_loop(readers)
    there.close()
    handler.on_stop_not_started()
    here.close()
    assert readers.calls == {}


def test_stopGoesOnWithoutThoseThatAreGone() -> None:
    """
    A queue that is taken away while others are read is waited for no more.
    """
    here, there = channelPair()
    queues = {here.fileno(): SeenOutq(here)}

    def join() -> bool:
        queues.clear()
        return False

    handler = ResultHandler(
        fileno_to_outq=queues, on_process_alive=lambda pid: None, join_exited_workers=join
    )
    handler.on_stop_not_started()
    here.close()
    there.close()


# The result of a call


def never(result: AsyncResult, timeout: float | None) -> None:
    """
    Do nothing while somebody waits.
    """


def test_aResultIsNotReadyAtFirst() -> None:
    """
    Before the call has ended, it is neither ready nor anything else.
    """
    result = AsyncResult(never)
    assert not result.ready()
    with pytest.raises(ValueError, match="ready"):
        result.successful()
    assert not result.wait(0)
    with pytest.raises(TimeoutError, match=r"0\.5 s"):
        result.get(0.5)


def test_aValueIsSuccess() -> None:
    """
    What the call returned is there, any number of times.
    """
    result = AsyncResult(never)
    result.succeed(None)
    assert result.ready()
    assert result.successful()
    assert result.wait()
    assert [result.get(), result.get(0)] == [None, None]


def test_anErrorIsRaised() -> None:
    """
    What the call raised is raised by C{get}, and only there.
    """
    result = AsyncResult(never)
    result.fail(LookupError("of a test"))
    assert result.ready()
    assert not result.successful()
    assert result.wait()
    with pytest.raises(LookupError, match="of a test"):
        result.get()


@pytest.mark.parametrize("error", [StopIteration, GeneratorExit, CancelledError, SystemExit])
def test_whoGetsIsNotEnded(error: type[BaseException]) -> None:
    """
    What would end a loop over results, or the program, is the cause of an error.
    """
    result = AsyncResult(never)
    result.fail(error("of a test"))
    with pytest.raises(RuntimeError, match=f"a call raised {error.__name__}: of a test") as told:
        result.get()
    assert type(told.value.__cause__) is error


def test_whoWaitsIsServed() -> None:
    """
    To wait is to do what is needed, for as long as there is time.
    """
    asked: list[float | None] = []

    def wait(result: AsyncResult, timeout: float | None) -> None:
        asked.append(timeout)
        result.succeed(5)

    result = AsyncResult(wait)
    assert result.get(3) == 5
    assert result.get() == 5
    assert asked == [3]


def test_anotherThreadMayEndIt() -> None:
    """
    Who blocks goes on when another thread has the result.
    """
    result = AsyncResult(AsyncResult.block)
    thread = threading.Thread(target=result.succeed, args=(5,))
    thread.start()
    assert result.get() == 5
    thread.join()
