"""
A program whose reactor sleeps while a signal comes to another of its threads.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from asynqueue.reactors import theReactor
from asynqueue.signals import EndSignals

reactor: Any = theReactor()


def shoot() -> None:
    """
    Send a signal to this thread, once the reactor sleeps.
    """
    asleep.wait()
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)


def heard(number: signal.Signals) -> None:
    """
    Tell of it, and end.
    """
    print(number.name, threading.current_thread() is threading.main_thread())
    print(signals.ignore(heard), signal.getsignal(number) == reactor.sigTerm)
    reactor.stop()


def begin() -> None:
    """
    The reactor runs.
    """
    signals.hear(heard)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    reactor.callLater(0, asleep.set)


signals = EndSignals()
asleep = threading.Event()
thread = threading.Thread(target=shoot, daemon=True)
thread.start()
reactor.callWhenRunning(begin)
reactor.run()
