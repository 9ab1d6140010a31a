"""One connection to Ray for all runs of a study: each of them would start it anew."""

from __future__ import annotations

from bench.discovery.stdout import set_aside
from bench.running.executors.cluster import Connection, connect
from bench.running.executors.protocol import Executable, Executor, OpenExecutor
from bench.running.prepared import Prepared
from bench.running.run import executor_of


class SharedCluster:
    """The connection of the last run, kept for the next one that wants the same."""

    def __init__(self) -> None:
        self._wanted: object = None
        self._connection: Connection | None = None

    def executor_of(self, prepared: Prepared) -> OpenExecutor:
        """Return the executor of a run; for workers of Ray, the connection is there already."""
        opens, config = executor_of(prepared), prepared.config
        if config.executor != "ray":
            return opens

        def connected(run: Executable) -> Executor:
            wanted = config.ray_address, config.workers
            if wanted != self._wanted:
                self.close()
                with set_aside():  # Ray prints what it has to say
                    self._connection = connect(*wanted)
                self._wanted = wanted
            return opens(run)

        return connected

    def close(self) -> None:
        """Disconnect; a Ray of our own ends."""
        connection, self._connection, self._wanted = self._connection, None, None
        if connection is not None:
            with set_aside():
                connection.close()
