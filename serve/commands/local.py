"""The service inside a command: the same application as `thresher serve` runs, for the time of the command."""

import logging
import threading
import time

from serve import server
from serve.access import Caller
from serve.app import build_app
from serve.commands.terminal import quiet_level
from serve.service import Service
from serve.telemetry import configure_logging
from serve.tenancy import Tenancy
from settings import Settings

_START_SECONDS = 0.01
# A command that is through does not wait long for a batch of somebody else's job: all that is lost is that batch.
_GRACE_SECONDS = 0.5


class LocalServiceError(RuntimeError):
    """The service could not be started."""


class LocalService:
    """
    Runs the service in a thread of this process, on a free port of the loopback interface.

    Usage example:
    ```python
    with LocalService(settings) as service:
        httpx.get(f"{service.url}/ingest/")
    ```
    """

    def __init__(self, settings: Settings, works: bool = True) -> None:
        """
        Take the data directory and start.

        :param settings: the service's; its address is not used.
        :param works: whether jobs are worked on; otherwise they can be read, cancelled and accepted.
        :raises DataDirInUseError: if another process has the data directory.
        :raises LocalServiceError: if the service does not start.
        """
        # Once more: what is imported with this module has set up its own.
        configure_logging(quiet_level(settings))
        grace = min(settings.worker_grace, _GRACE_SECONDS)
        private = settings.model_copy(
            update={"host": "127.0.0.1", "port": 0, "metrics_port": None, "worker_grace": grace}
        )
        self._bound = server.bind(private)
        try:
            self._service = _UnhurriedService(private, works=works)
        except BaseException:
            self._bound.close()
            raise
        self.url = server.url_of(self._bound)
        self.api_key = self._service.access.own_key
        """What this process shows it as its key."""
        self._server = server.make(build_app(self._service), self._bound, self._service.lock, settings)
        # A second Ctrl-C may end the process without waiting; no job is lost by that.
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._bound]}, name="service", daemon=True
        )
        self._thread.start()
        self._wait_until_started()

    def tenant_of(self, api_key: str | None) -> str:
        """
        Decide the tenant of who names none, so that it is the same whether the service runs here or elsewhere.

        :param api_key: the user's key; the process itself may come in without one.
        :returns: the tenant of the key, else `default`.
        :raises TenantRequiredError: if the key is for several.
        """
        access = self._service.access
        found = access.keyring.find(api_key.encode()) if api_key and access.is_on else None
        return Tenancy(found or Caller()).tenant(None)

    def _wait_until_started(self) -> None:
        while not self._server.started:
            if not self._thread.is_alive():
                self._bound.close()
                reason = self._service.failure or "the log says why"
                raise LocalServiceError(f"the service could not be started: {reason}")
            time.sleep(_START_SECONDS)

    def close(self) -> None:
        """Stop at the end of the batches under way; unfinished jobs go on at the next start."""
        self._server.should_exit = True
        self._thread.join()
        self._bound.close()


class _UnhurriedService(Service):
    """Loads a model when it is first used, and no wrapper: listing jobs needs none."""

    serves_wrappers = False
    serves_itself = True
    failure: Exception | None = None

    async def start(self) -> None:
        """Begin, and keep what went wrong for the command to say."""
        try:
            await super().start()
        except Exception as error:
            self.failure = error
            logging.getLogger("uvicorn.error").disabled = True
            raise

    def _warm_up(self) -> None:
        """Load nothing ahead."""
