"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal

from sharpzo_edge.run.interrupt import Interrupt


def test_under_nohup_a_closed_terminal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.received == 0
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Interrupt() as interrupt:
            for _ in range(2):  # a shell sends one, and the system another
                os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.received == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
