"""The command `thresher worker`."""

from typing import Annotated, Literal

import typer

from serve.commands.terminal import err, out, plain_errors
from settings import Settings


def worker(
    check: Annotated[
        Literal["alive", "ready"] | None,
        typer.Option(help="Start nothing; say whether a worker of this machine lives, or can also work."),
    ] = None,
) -> None:
    """Work on the ingestion jobs in Redis (REDIS_URL). Stop it with Ctrl-C; its jobs go on in other workers."""
    with plain_errors():
        settings = Settings.load()
        if check is not None:
            raise typer.Exit(_check(settings, must_be_ready=check == "ready"))
        from serve.telemetry import log_as_set, log_uncaught
        from serve.worker import Worker

        log_as_set(settings)
        log_uncaught()
        Worker(settings).run()


def _check(settings: Settings, must_be_ready: bool) -> int:
    from serve.heartbeat import living_workers

    workers = living_workers(settings.data_dir)
    for pid, state in workers.items():
        out.print(f"worker {pid}: {state}", markup=False, highlight=False, soft_wrap=True)
    if not workers:
        err.print(f"no worker has shown itself under {settings.data_dir}", markup=False, soft_wrap=True)
    return 0 if any(state == "ok" or not must_be_ready for state in workers.values()) else 1
