"""
What processes write to standard error, on its way to that of this program.
"""

from __future__ import annotations

import os
import sys
from codecs import getincrementaldecoder

from asynqueue.processes.guard import report

# So much of what a process wrote is kept, to say why it died.
_TAIL_BYTES = 4096

_PIECE = 1 << 16


class Errors:
    """
    Passes on what a process writes to standard error.

    @ivar tail: the last of it.
    """

    def __init__(self) -> None:
        self.tail = b""
        # A character may come in two pieces.
        self._text = getincrementaldecoder("utf-8")("replace")
        self._hasComplained = False

    def passOn(self, descriptor: int) -> int:
        """
        Read what is there, and write it to this program's standard error, whatever that is.

        @param descriptor: where to read. It does not block.
        @return: how many bytes: 0 at the end, -1 if there is nothing now.
        """
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return -1
        except OSError:
            # It is of no use any more.
            return 0
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        ours = getattr(sys, "stderr", None)
        if data and ours is not None:
            try:
                ours.write(self._text.decode(data))
            except (OSError, ValueError):
                # Nobody reads ours any more.
                pass
            except BaseException as error:
                # The seam to whatever stands there, as the console of a window.
                if not self._hasComplained or isinstance(error, KeyboardInterrupt):
                    self._hasComplained = True
                    report(error, "passing on what a process writes to standard error")
        return len(data)
