"""
L{asynqueue.exchange} without a fork: channels whose both ends are here, and
exchanges of such.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from asynqueue import exchange as public
from asynqueue.codec import encode
from asynqueue.cores import cores
from asynqueue.errors import (
    AcknowledgementError,
    FrameInvalid,
    FrameTooLarge,
    MaybeEncodingError,
    RemoteTraceback,
)
from asynqueue.exchange import (
    Channel,
    Exchange,
    MakeParallel,
    MakeReusable,
    Map,
    PersistentChannel,
    Queue,
    connect_persistent,
    get_number_of_cores,
)
from asynqueue.exchange.messages import ACKNOWLEDGED, DATA, Messages
from asynqueue.framing import head, packed

Ends = tuple[Channel, Channel]

# More than a pipe or a socket takes at once.
LARGE = bytes(range(256)) * 8192


def oneSocket() -> Ends:
    """
    Ends that are a socket each.
    """
    here, there = socket.socketpair()
    return Channel(0, here, here), Channel(0, there, there)


def pipes() -> Ends:
    """
    Ends that are two descriptors each.
    """
    (read, farWrite), (farRead, write) = os.pipe(), os.pipe()
    return Channel(0, read, write), Channel(0, farRead, farWrite)


def files() -> Ends:
    """
    Ends that are two file objects each.
    """
    (read, farWrite), (farRead, write) = os.pipe(), os.pipe()
    return (
        Channel(0, open(read, "rb"), open(write, "wb")),
        Channel(0, open(farRead, "rb"), open(farWrite, "wb")),
    )


def oneTerminal() -> Ends:
    """
    Ends that are one descriptor each, for both ways.
    """
    here, there = socket.socketpair()
    return Channel(0, *[here.detach()] * 2), Channel(0, *[there.detach()] * 2)


@pytest.fixture(params=[oneSocket, pipes, files, oneTerminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """
    Both ends of a connection, of each kind.
    """
    both = request.param()
    yield both
    for end in both:
        end.close()


@pytest.fixture
def pair() -> Iterator[Ends]:
    """
    Both ends of a connection.
    """
    both = oneSocket()
    yield both
    for end in both:
        end.close()


class Meanwhile:
    """
    Something that a thread does.

    @ivar result: what came of it: a value, or an exception.
    """

    def __init__(self, f: Callable[..., Any], *args: Any) -> None:
        self.result: Any = None
        self._thread = Thread(target=self._do, args=(f, args))
        self._thread.start()

    def _do(self, f: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.result = f(*args)
        except Exception as error:
            # All of it is for the test.
            self.result = error

    def end(self) -> Any:
        """
        Wait for it.
        """
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.result


class Given(Exchange):
    """
    Keeps what comes, in the order of arrival.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.given: list[Any] = []
        super().__init__(*args, **kw)

    def store_data(self, channel: Channel) -> None:
        """
        Keep it.
        """
        self.given.append(channel.receive())


class Recorder:
    """
    The channel of a process, for functions that take one.
    """

    def __init__(self, calls: list[Any], refused: type = bytes) -> None:
        """
        @param calls: what it receives, one after the other.
        @param refused: what it cannot send.
        """
        self.pid = 0
        self.sent: list[Any] = []
        self._calls = calls
        self._refused = refused

    def send(self, obj: Any) -> None:
        """
        Keep it.
        """
        if isinstance(obj, self._refused):
            raise MaybeEncodingError("it is refused", repr(obj))
        self.sent.append(obj)

    def receive(self) -> Any:
        """
        Give the next one.
        """
        return self._calls.pop(0)

    def leaving(self, inOrder: bool) -> None:
        """
        Nobody has to know.
        """

    def close(self) -> None:
        """
        There is nothing to close.
        """


# Channels


@pytest.mark.parametrize("value", [None, 5, "text", {"a": [1, 2]}, LARGE, [LARGE, LARGE], b""])
def test_objectArrives(ends: Ends, value: Any) -> None:
    """
    An object of any size arrives as it was sent, over whatever there is.
    """
    here, there = ends
    sending = Meanwhile(there.send, value)
    assert here.receive() == value
    assert sending.end() is None


def test_largeBothWays(ends: Ends) -> None:
    """
    Two who send each other much at once do not wait for each other for ever: each
    learns that the other one sends, and what was sent can be received.
    """
    here, there = ends
    sending = Meanwhile(there.send, ["there", LARGE])
    with pytest.raises(AcknowledgementError, match="something else"):
        here.send(["here", LARGE])
    assert isinstance(sending.end(), AcknowledgementError)
    assert here.receive()[0] == "there"
    assert there.receive()[0] == "here"


def test_lateAcknowledgementIsNotForTheNext(pair: Ends) -> None:
    """
    An acknowledgement that comes late is not taken for that of the next object.
    """
    here, there = pair
    there.post("other")
    with pytest.raises(AcknowledgementError):
        here.send("first")
    assert there.receive() == "first"
    assert here.receive() == "other"
    sending = Meanwhile(here.send, "second")
    assert there.receive() == "second"
    assert sending.end() is None


def test_exceptionIsRaised(ends: Ends) -> None:
    """
    An exception that is sent is raised where it is received, with its own type and
    the traceback of the sender.
    """
    here, there = ends
    sending = Meanwhile(there.send, KeyError("a"))
    with pytest.raises(KeyError, match="a") as caught:
        here.receive()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert sending.end() is None


def test_whatCannotBePickledIsRefused(pair: Ends) -> None:
    """
    An object that cannot be pickled is refused, and the channel is as it was.
    """
    here, there = pair
    with pytest.raises(MaybeEncodingError, match="generator"):
        here.send(x for x in "abc")
    there.post(1)
    assert here.receive() == 1


class Unmakeable:
    """
    Can be pickled, and not be made again.
    """

    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_whatCannotBeMadeIsAnError(pair: Ends) -> None:
    """
    What cannot be unpickled is an exception here, and the channel goes on.
    """
    here, there = pair
    there.post(Unmakeable())
    there.post(2)
    with pytest.raises(ValueError, match="no number"):
        here.receive()
    assert here.receive() == 2


def test_goneEnd(ends: Ends) -> None:
    """
    When the other end is gone, what it has sent is received, and then its end is.
    """
    here, there = ends
    there.post(1)
    there.close()
    assert here.receive() == 1
    for _ in range(2):
        with pytest.raises(EOFError):
            here.receive()
    assert here.isOver
    assert here.isTold


def test_goneEndAcknowledgesNothing(ends: Ends) -> None:
    """
    What is sent to an end that is gone is not acknowledged, which is an error.
    """
    here, there = ends
    there.close()
    with pytest.raises(AcknowledgementError, match="that created this one did not"):
        here.send(1)


def test_endGoesWhileSending(ends: Ends) -> None:
    """
    An end that goes in the middle of a large message is an error for who sends it.
    """
    here, there = ends
    sending = Meanwhile(here.send, LARGE)
    there.close()
    assert isinstance(sending.end(), AcknowledgementError)


def test_closed(ends: Ends) -> None:
    """
    A closed channel neither sends nor receives, and can be closed again.
    """
    here, _ = ends
    here.close()
    here.close()
    assert here.fileno() == -1
    assert here.descriptors() == []
    for act in (here.receive, lambda: here.send(1), lambda: here.post(1)):
        with pytest.raises(OSError, match="the channel is closed"):
            act()
    here.leaving(True)


def test_noDescriptor() -> None:
    """
    What is not open cannot be a channel.
    """
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(OSError, match="descriptor"):
        Channel(0, read, write)
    os.close(write)


def receivedRaw(data: bytes, paired: bool) -> Any:
    """
    What is received where somebody writes this, and goes.
    """
    here, there = socket.socketpair()
    channel = Channel(0, here, os.dup(here.fileno()) if paired else here)
    there.sendall(data)
    there.close()
    try:
        return channel.receive()
    finally:
        channel.close()


@pytest.mark.parametrize("paired", [False, True])
def test_halfAMessage(paired: bool) -> None:
    """
    An end that goes in the middle of its message is gone: there is no message.
    """
    with pytest.raises(EOFError):
        receivedRaw(packed(1, 1, b"abc")[:-1], paired)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (packed(9, 1, b"abc"), FrameInvalid),
        (b"GET / HTTP/1.1\r\n" * 4, FrameInvalid),
        (head(1, 1, [1 << 40]), FrameTooLarge),
        (head(1, 1, [3], shared=True), FrameInvalid),
    ],
)
def test_noMessage(data: bytes, error: type[Exception], paired: bool) -> None:
    """
    What is no message is an error that says from where it came.
    """
    with pytest.raises(error) as caught:
        receivedRaw(data, paired)
    assert caught.value.__notes__ == ["It came from process 0."]


def test_pidOfNobody(pair: Ends) -> None:
    """
    There is no process to wait for at the end of a channel to the creator.
    """
    assert pair[0].wait() is None
    assert pair[0].process is None


# Exchanges


def test_readyTellsWhoHasSomething(pair: Ends) -> None:
    """
    Ready are those channels that can be received from without waiting.
    """
    here, there = pair
    quiet, far = oneSocket()
    exchange = Exchange([here, quiet])
    assert exchange.ready(0) == []
    there.post(1)
    assert exchange.ready() == [here]
    assert exchange.ready(0) == [here]
    here.receive()
    assert exchange.ready(1) == []
    far.close()
    assert exchange.ready() == [quiet]
    quiet.close()


def test_partOfAMessageIsNotReady(pair: Ends) -> None:
    """
    A message of which a part has come keeps nobody waiting.
    """
    here, there = pair
    exchange = Exchange([here])
    whole = packed(1, 1, b"N.")
    os.write(there.fileno(), whole[:-1])
    assert exchange.ready(1) == []
    os.write(there.fileno(), whole[-1:])
    assert exchange.ready() == [here]
    assert here.receive() is None


def test_nothingToWaitFor() -> None:
    """
    An exchange without channels does not wait, and has nothing to do.
    """
    exchange = Given()
    assert exchange.ready() == []
    exchange.store()
    exchange.finish()
    exchange.wait()
    assert not exchange.active()
    assert not exchange.unfinished()
    assert not exchange.busy()


@pytest.mark.parametrize("autoclose", [0, 1])
def test_removedIsClosed(pair: Ends, autoclose: int) -> None:
    """
    A channel that is removed is closed, unless that is turned off.
    """
    here, _ = pair
    exchange = Exchange([here], autoclose=autoclose)
    assert exchange.active() == [here]
    exchange.remove(here)
    exchange.remove(here)
    assert exchange.active() == []
    assert (here.fileno() == -1) == bool(autoclose)


def test_storeIsForSubclasses(pair: Ends) -> None:
    """
    The exchange itself does not know what to do with what comes.
    """
    here, there = pair
    exchange = Exchange([here])
    there.post(1)
    with pytest.raises(NotImplementedError, match="Exchange"):
        exchange.store()


def test_storeWaitsNoLongerThanItMay(pair: Ends) -> None:
    """
    With a timeout, store returns also when nothing has come.
    """
    exchange = Given([pair[0]])
    exchange.store(1)
    assert exchange.given == []
    assert exchange.unfinished()


def test_oneResultOfEachChannel(pair: Ends) -> None:
    """
    A channel that has given its result is removed.
    """
    here, there = pair
    exchange = Given([here], limit=1)
    assert exchange.busy()
    there.post(7)
    exchange.wait()
    assert exchange.given == [7]
    assert not exchange.unfinished()


def test_continuousChannelsStay(pair: Ends) -> None:
    """
    With C{continuous}, a channel stays until its process says goodbye.
    """
    here, there = pair
    exchange = Given([here], continuous=1)
    for number in range(3):
        there.post(number)
    exchange.store()
    assert exchange.active() == [here]
    there.leaving(True)
    exchange.finish()
    assert exchange.given == [0, 1, 2]
    assert exchange.removed == [here]


def test_continuousChannelIsLost(pair: Ends) -> None:
    """
    With C{continuous}, a process that goes without goodbye is an error, once.
    """
    here, there = pair
    exchange = Given([here], continuous=1)
    there.post(1)
    there.close()
    with pytest.raises(EOFError):
        exchange.finish()
    exchange.finish()
    assert exchange.given == [1]


def test_goodbyeAfterAResultIsNoError(pair: Ends) -> None:
    """
    Who receives outside of the exchange does not hear of the end of a process that
    has sent something.
    """
    here, there = pair
    exchange = Exchange([here])
    there.post(1)
    there.leaving(True)
    assert exchange.ready() == [here]
    here.receive()
    assert exchange.ready() == []
    assert exchange.removed == [here]


def test_addWaitsForRoom(pair: Ends) -> None:
    """
    A channel is added when another one has given its result.
    """
    here, there = pair
    other, far = oneSocket()
    exchange = Given([here], limit=1)
    there.post(1)
    exchange.add_wait(other)
    assert exchange.given == [1]
    assert exchange.active() == [other]
    exchange.remove(other)
    far.close()


def test_userRemovesWhileStoring(pair: Ends) -> None:
    """
    A channel may be removed by the very method that stores what it gave.
    """

    class Removing(Given):
        def store_data(self, channel: Channel) -> None:
            super().store_data(channel)
            self.remove(channel)

    exchange = Removing([pair[0]])
    pair[1].post(1)
    exchange.finish()
    assert exchange.given == [1]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
def test_limitLeavesRoom(limit: Any) -> None:
    """
    A limit that lets nothing run is refused.
    """
    with pytest.raises(ValueError, match="limit must be a whole number, 1 or more"):
        Map(limit=limit)


def test_queueGivesExceptionsAndGoesOn() -> None:
    """
    A queue gives results as they arrive, raises those that are exceptions, and goes
    on after that.
    """
    queue = Queue()
    far = []
    for value in (1, KeyError("a"), StopIteration(), 4):
        here, there = oneSocket()
        queue.add(here)
        there.post(value)
        far.append(there)
    assert next(queue) == 1
    assert len(queue) + len(queue.active()) == 3
    with pytest.raises(KeyError):
        next(queue)
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(queue)
    assert list(queue) == [4]
    assert bool(queue)
    for there in far:
        there.close()


def test_mapGivesInOrder() -> None:
    """
    A map gives results in the order of start, by index, slice and iteration.
    """
    map = Map()
    pairs = [oneSocket() for _ in range(4)]
    for here, _ in pairs:
        map.add(here)
    for number in (2, 0, 3, 1):
        pairs[number][1].post(number * 10)
    assert len(map) == 4
    assert map[1] == 10
    assert map[-1] == 30
    assert map[1:3] == [10, 20]
    assert list(map) == [0, 10, 20, 30]
    assert map == [0, 10, 20, 30]
    assert map == map
    assert map != [0]
    assert map != "text"
    with pytest.raises(IndexError, match="4 were started"):
        map[4]
    for _, there in pairs:
        there.close()


def test_mapGivesExceptionsAndGoesOn() -> None:
    """
    What a computation raised is raised at its place, also in an iteration, which
    goes on after that.
    """
    map = Map()
    far = []
    for value in (KeyError("a"), StopIteration(), 3):
        here, there = oneSocket()
        map.add(here)
        there.post(value)
        far.append(there)
    results = iter(map)
    with pytest.raises(KeyError):
        next(results)
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)
    assert list(results) == [3]
    for there in far:
        there.close()


def test_mapKnowsWhatWasRemoved(pair: Ends) -> None:
    """
    A computation whose channel was removed has no result, which is an error.
    """
    map = Map([pair[0]])
    map.remove(pair[0])
    assert len(map) == 1
    with pytest.raises(LookupError, match="removed"):
        map[0]


def test_makeParallelSendsTheResult() -> None:
    """
    A function that knows nothing of channels becomes one that takes a channel.
    """
    channel = Recorder([])
    MakeParallel(divmod)(channel, 7, 2)
    assert channel.sent == [(3, 1)]


def test_makeReusableIsCalledAgain() -> None:
    """
    A reusable function is called until there are no more calls; what it raises, and
    that a result cannot be sent, are results.
    """

    def half(number: int) -> Any:
        return number // 2 if number else b"refused"

    channel = Recorder([((6,), {}), (("a",), {}), ((0,), {}), ((), {"number": 2}), None])
    MakeReusable(half)(channel, 10)
    five, three, error, refused, one = channel.sent
    assert (five, three, one) == (5, 3, 1)
    assert isinstance(error, TypeError)
    assert isinstance(refused, MaybeEncodingError)


def test_exitIsForChildren(pair: Ends) -> None:
    """
    A process cannot be ended through the channel to it.
    """
    here, _ = pair
    here.pid = 5
    with pytest.raises(ValueError, match="process 5"):
        public.exit(here)


def test_cores() -> None:
    """
    As many processes may run at once as this one may use cores.
    """
    assert get_number_of_cores() == cores()


def test_whatIsReadWhileSendingIsReady() -> None:
    """
    What has come with the acknowledgement of something that was sent is ready to be received.
    """
    here, there = socket.socketpair()
    channel, peer = Channel(0, here, here), Messages(there, there, None)
    exchange = Exchange([channel])
    assert exchange.ready(0) == []
    peer.put(ACKNOWLEDGED, 1)
    peer.put(DATA, 1, *encode("result", None))
    channel.send("question")
    assert exchange.ready(0) == [channel]
    assert channel.receive() == "result"
    assert exchange.ready(0) == []
    channel.close()
    peer.close()


# Addresses


@pytest.fixture
def listening(tmp_path: Any) -> Iterator[PersistentChannel]:
    """
    The channel of a background process that is this one.
    """
    address = str(tmp_path / "address")
    endpoint = socket.socket(socket.AF_UNIX)
    endpoint.bind(address)
    endpoint.listen()
    channel = PersistentChannel(0, endpoint, address)
    yield channel
    channel.close()


def test_whoComesFirstAndGoesGetsNothing(listening: PersistentChannel) -> None:
    """
    What somebody did not receive is there for the next one.
    """
    connect_persistent(listening.address).close()
    sending = Meanwhile(listening.send, "result")
    channel = connect_persistent(listening.address)
    assert channel.receive() == "result"
    assert sending.end() is None
    channel.close()


def test_backgroundReceivesFromTheNext(listening: PersistentChannel) -> None:
    """
    What a background process waits for can come from the next one.
    """
    connect_persistent(listening.address).close()
    channel = connect_persistent(listening.address)
    sending = Meanwhile(channel.send, EOFError("it was sent"))
    with pytest.raises(EOFError, match="it was sent"):
        listening.receive()
    assert sending.end() is None
    channel.close()


def test_backgroundHearsThatSomebodySends(listening: PersistentChannel) -> None:
    """
    Who comes and sends, where something is to be collected, is no reason to wait.
    """
    channel = connect_persistent(listening.address)
    channel.post(1)
    with pytest.raises(AcknowledgementError):
        listening.send("result")
    channel.close()


def test_addressIsGivenUp(listening: PersistentChannel) -> None:
    """
    A channel that is closed leaves no file, unless it is somebody else's by now.
    """
    sending = Meanwhile(listening.send, "result")
    channel = connect_persistent(listening.address)
    assert channel.receive() == "result"
    assert sending.end() is None
    channel.close()
    listening.leaving(True)
    listening.leaving(True)
    assert not os.path.exists(listening.address)
    with pytest.raises(FileNotFoundError, match="no background process"):
        connect_persistent(listening.address)


@pytest.mark.parametrize("inOrder", [True, False])
def test_addressOfWhatWasLost(listening: PersistentChannel, inOrder: bool) -> None:
    """
    Where nobody has heard how a background process ended, whoever comes is told that nothing
    is there, and not that another one has collected its result.
    """
    listening.leaving(inOrder)
    with pytest.raises(ConnectionRefusedError, match="no background process"):
        connect_persistent(listening.address)


@pytest.mark.parametrize("collected", [True, False])
def test_whoWaitsIsToldOfTheEnd(listening: PersistentChannel, collected: bool) -> None:
    """
    Who waits behind another one knows whether that has collected all there was.
    """
    ends = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for end in ends:
        end.connect(listening.address)
    first, second = (Channel(0, end, end) for end in ends)
    sending = Meanwhile(listening.send, "result")
    assert first.receive() == "result"
    assert sending.end() is None
    listening.leaving(collected)
    assert first.look()
    assert second.look()
    assert first.endedInOrder == second.wasCollected == collected
    assert not first.wasCollected
    first.close()
    second.close()


def test_addressOfAnother(listening: PersistentChannel) -> None:
    """
    A file that is somebody else's by now is not removed.
    """
    os.rename(listening.address, listening.address + "1")
    with open(listening.address, "wb"):
        pass
    listening.close()
    assert os.path.exists(listening.address)


@pytest.mark.parametrize("knowsPeers", [True, False])
def test_otherUsersAreRefused(
    listening: PersistentChannel, monkeypatch: pytest.MonkeyPatch, knowsPeers: bool
) -> None:
    """
    Nothing is received from a process of another user.
    """
    if not knowsPeers:
        monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    connect_persistent(listening.address).close()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(PermissionError, match="of user"):
        connect_persistent(listening.address)
