"""
Where what calls print goes: to the descriptor of the standard output, which a child shares
with its parent; or to the C{sys.stdout} of the parent, while that is redirected.

What code in C and other programs write to the descriptor stays there. This module imports
no Twisted.
"""

from __future__ import annotations

import sys
from codecs import getincrementaldecoder
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

_STDOUT = 1

# The most characters of a message, and the most that wait for the end of their line.
_MOST = 1 << 14


class Output(FileIO):
    """
    What is below C{sys.stdout} in a child.

    @ivar isRedirected: whether text is told to the parent.
    """

    def __init__(self, tell: Callable[[bytes], None], encoding: str) -> None:
        """
        @param tell: takes text for the parent, as UTF-8. It must not wait for another
            thread that prints.
        @param encoding: that of what is written.
        """
        super().__init__(_STDOUT, "w", closefd=False)
        self.isRedirected = False
        self._tell = tell
        self._decoder = getincrementaldecoder(encoding)("replace")
        self._rest = ""

    def write(self, data: Any) -> int:
        """
        Write, or tell whole lines.
        """
        if not self.isRedirected:
            return super().write(data)
        text = self._rest + self._decoder.decode(data)
        # With the latter a line is written anew.
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        if len(text) - end > _MOST:
            end = len(text)
        self._rest = text[end:]
        self._tellPieces(text[:end])
        return len(data)

    def finish(self) -> None:
        """
        Tell the rest, though its line has not ended.
        """
        rest, self._rest = self._rest, ""
        self._tellPieces(rest)

    def forget(self) -> None:
        """
        Drop the rest, and tell the parent nothing any more: this is a fork.
        """
        self._rest = ""
        self.isRedirected = False

    def _tellPieces(self, text: str) -> None:
        while text:
            end = len(text)
            if end > _MOST:
                end = text.rfind("\n", 0, _MOST) + 1 or _MOST
            self._tell(text[:end].encode("utf-8", "surrogatepass"))
            text = text[end:]


def install(tell: Callable[[bytes], None]) -> Output:
    """
    Have what is printed go by an L{Output}, line by line where Python was told not to
    buffer: a line and its end would be written apart, and those of several children would be
    mixed.
    """
    before: Any = sys.stdout
    if before is None:
        # It was closed.
        before = TextIOWrapper(FileIO(_STDOUT, "w", closefd=False))
    output = Output(tell, before.encoding)
    sys.stdout = TextIOWrapper(
        BufferedWriter(output),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering or before.write_through,
    )
    if isinstance(sys.stderr, TextIOWrapper) and sys.stderr.write_through:
        sys.stderr.reconfigure(line_buffering=True, write_through=False)
    return output
