"""`python -m tests.fuzz`: the long forms of the search for requests that nobody foresaw, with a seed of one's own."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.api import Fuzzed, fuzz, fuzzed_service

_CASES_OF_COVERAGE = 1_700
_OPERATIONS = 33


def main() -> None:
    """Fuzz the HTTP API with schemathesis, then the property tests with many examples; exit 1 on any finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--cases", type=int, default=10_000, help="about how many requests schemathesis sends"
    )
    options = parser.parse_args()
    found = _fuzz_api(options.seed, options.cases)
    print(found.report, *found.unforeseen, sep="\n")
    print(
        f"{found.cases} requests, seed {options.seed}; errors in the service's log: {len(found.unforeseen)}"
    )
    command = [sys.executable, "-m", "pytest", "tests", "-m", "hypothesis", "-q", "--timeout", "3600"]
    command += ["--hypothesis-profile", "long", "--hypothesis-seed", str(options.seed)]
    properties = subprocess.run(command, check=False).returncode
    sys.exit(0 if found.passed and not found.unforeseen and properties == 0 else 1)


def _fuzz_api(seed: int, cases: int) -> Fuzzed:
    each = max(1, (cases - _CASES_OF_COVERAGE) // _OPERATIONS)
    with (
        tempfile.TemporaryDirectory(prefix="thresher-fuzz-") as folder,
        fuzzed_service(Path(folder)) as service,
    ):
        return fuzz(service, "--max-examples", str(each), "--seed", str(seed))


if __name__ == "__main__":
    main()
