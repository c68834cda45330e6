"""Worker processes to which Ctrl-C means nothing: their parent hears it, and ends them.

Imported only where processes are started. The classes stand at the top of a module because a spawned process
is sent to its child by name.
"""

import signal
from multiprocessing import context


class Worker(context.SpawnProcess):
    """A process that is born with SIGINT blocked."""

    def start(self) -> None:
        """Start with the signal blocked, then restore the parent's mask."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Context(context.SpawnContext):
    """Fresh processes of the kind above."""

    Process = Worker
