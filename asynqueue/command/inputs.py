"""
Where inputs come from: arguments, lines of files, lines of standard input.

They are read by blocking calls, in a thread. The reactor takes them from there
in batches, and the thread is at most a window of batches ahead: so an input
may be as long as it likes, even endless.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence

from attrs import frozen

from asynqueue.errors import AsynQueueError

# The bytes that are asked for at once; what is there is taken. The lines of up to
# 64 such blocks wait for their turn.
_BLOCK = 1 << 14

# Arguments come in batches, too.
_BATCH = 1000

STDIN = "-"


class UnreadableInput(AsynQueueError, OSError):
    """
    A file of inputs cannot be read.
    """

    def __init__(self, name: str, reason: str) -> None:
        """
        @param name: which file.
        @param reason: why.
        """
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {self.name}: {self.reason}"


@frozen
class Text:
    """
    An input that was given as an argument.
    """

    text: str


@frozen
class Lines:
    """
    A file whose lines are inputs.

    @ivar path: which; C{-} is standard input.
    """

    path: str

    def name(self) -> str:
        """
        Return what to call it in a message.
        """
        return "standard input" if self.path == STDIN else self.path


Source = Text | Lines


def sourcesOf(arguments: Sequence[str], areFiles: bool) -> list[Source]:
    """
    Return what the arguments of the command stand for.

    @param areFiles: whether they name files with lines.
    """
    if not arguments:
        return [Lines(STDIN)]
    return [
        Lines(argument) if areFiles or argument == STDIN else Text(argument)
        for argument in arguments
    ]


class Inputs:
    """
    Iterates over inputs, in batches. It is iterated over in a thread, and asked
    how far it is in any.
    """

    def __init__(self, sources: Sequence[Source], *, block: int = _BLOCK) -> None:
        """
        @param sources: where they come from, in this order.
        @param block: how many bytes of a file are asked for at once.
        """
        self._block = block
        self._sources = sources
        self._seen = 0
        self._bytesSeen = 0
        self._bytes = _sizeOf(sources)
        self._finished = False
        if all(isinstance(source, Text) for source in sources):
            self._seen = len(sources)
            self._finished = True

    def total(self) -> int | None:
        """
        Return how many inputs there are: known when all have been read, and estimated where that
        can be done.
        """
        if self._finished:
            return self._seen
        if self._bytes and self._bytesSeen:
            return max(self._seen, round(self._seen * self._bytes / self._bytesSeen))
        return None

    def batches(self) -> Iterator[list[str]]:
        """
        Give the inputs, as they come. Runs in a thread.

        @raise UnreadableInput: a file cannot be read, or not further.
        """
        if self._finished:
            texts = [source.text for source in self._sources if isinstance(source, Text)]
            for start in range(0, len(texts), _BATCH):
                yield texts[start : start + _BATCH]
            return
        for source in self._sources:
            if isinstance(source, Text):
                self._seen += 1
                yield [source.text]
            else:
                yield from self._linesOf(source)
        self._finished = True

    def _linesOf(self, source: Lines) -> Iterator[list[str]]:
        # No file object: a thread that hangs while it reads standard input would
        # keep the lock of one, and the interpreter cannot end without it.
        try:
            fd = _opened(source)
            try:
                rest: list[bytes] = []
                while block := os.read(fd, self._block):
                    self._bytesSeen += len(block)
                    whole, newline, tail = block.rpartition(b"\n")
                    if newline:
                        lines = [_decoded(line) for line in b"".join([*rest, whole]).split(b"\n")]
                        rest = []
                        self._seen += len(lines)
                        yield lines
                    if tail:
                        rest.append(tail)
            finally:
                if source.path != STDIN:
                    os.close(fd)
        except OSError as error:
            raise UnreadableInput(source.name(), error.strerror or str(error)) from error
        if rest:
            self._seen += 1
            yield [_decoded(b"".join(rest))]


def _opened(source: Lines) -> int:
    if source.path != STDIN:
        return os.open(source.path, os.O_RDONLY)
    if sys.stdin is None:
        # Its descriptor may be something else by now.
        raise UnreadableInput(source.name(), "it is closed")
    return 0


def _decoded(line: bytes) -> str:
    """
    Return a line as a string, as Python has file names: nothing is lost of what is no UTF-8.
    """
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")


def _sizeOf(sources: Sequence[Source]) -> int:
    """
    Return how many bytes there are to read, or 0 if not all are of regular files.
    """
    size = 0
    for source in sources:
        if isinstance(source, Text):
            return 0
        try:
            status = os.fstat(0) if source.path == STDIN else os.stat(source.path)
        except OSError:
            # What reads it will say so.
            return 0
        if not stat.S_ISREG(status.st_mode):
            return 0
        size += status.st_size
    return size
