"""`python -m benchmarks`: measure, print tables, write JSON."""

import argparse

import uvloop

from benchmarks import (
    chaos,
    conversation,
    crash,
    first_token,
    grading_cost,
    growth,
    health,
    ingest,
    overhead,
    overload,
    soak,
    tenants,
    workers,
)


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["all", *MEASUREMENTS])
    parser.add_argument("--quick", action="store_true", help="fewer queries; the ratios scatter more")
    options = parser.parse_args()
    for name, measure in MEASUREMENTS.items():
        if options.what == name or (options.what == "all" and name not in APART):
            uvloop.run(measure(options.quick))


MEASUREMENTS = {
    "overhead": overhead.measure,
    "first_token": first_token.measure,
    "grading": grading_cost.measure,
    "conversation": conversation.measure,
    "ingest": ingest.measure,
    "growth": growth.measure,
    "workers": workers.measure,
    "health": health.measure,
    "overload": overload.measure,
    "tenants": tenants.measure,
    "crash": crash.measure,
    "soak": soak.measure,
    "chaos": chaos.measure,
}
# Find faults rather than figures, and take minutes.
APART = ("crash", "soak", "chaos")

if __name__ == "__main__":
    main()
