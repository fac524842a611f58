"""`thresher serve` and `thresher worker` with embeddings by hashing, for tests of what is around them."""

import argparse

from benchmarks.hashing import HashingResources
from serve import server
from serve.app import build_app
from serve.jobs import JobQueue
from serve.service import Service
from serve.telemetry import log_as_set, log_uncaught
from serve.worker import Worker
from settings import Settings


def main() -> None:
    """Run what the command line names, with the settings of the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["serve", "worker"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lease", type=float, help="seconds after which a dead worker's jobs are taken over")
    options = parser.parse_args()
    if options.lease:
        defaults = JobQueue.__init__.__kwdefaults__
        assert defaults is not None
        defaults["lease_seconds"] = options.lease
    settings = Settings.load(port=options.port)
    log_as_set(settings)
    log_uncaught()
    if options.what == "worker":
        Worker(settings, HashingResources(settings)).run()
        return
    bound = server.bind(settings)
    service = Service(settings, HashingResources(settings))
    server.run(build_app(service), bound, service.lock, service.settings)


if __name__ == "__main__":
    main()
