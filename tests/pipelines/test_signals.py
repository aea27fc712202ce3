"""Handlers that are set while a block runs."""

import signal
import threading

from sluice.pipelines.signals import handling


def test_the_handler_gets_the_signals_of_the_block_alone() -> None:
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    got: list[int] = []
    with handling(lambda number, frame: got.append(number), signal.SIGUSR1, signal.SIGUSR2):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
    assert got == [signal.SIGUSR1, signal.SIGUSR2]
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before


def test_outside_the_main_thread_it_sets_nothing() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    found: list[object] = []

    def work() -> None:
        with handling(lambda number, frame: None, signal.SIGUSR1):
            found.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
