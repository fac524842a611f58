import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_assertions_hold(notebook: Path) -> None:
    """A notebook runs from top to bottom in a kernel of this environment, and ends in an assertion that holds."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert any(line.startswith("assert ") for line in cells[-1]["source"])
    options = ["--nbmake", "--nbmake-timeout=500", "--timeout=550", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(notebook)],
        cwd=ROOT,
        # As an editable install has it.
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-6000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(notebook: Path) -> None:
    """A notebook has no outputs and no execution counts, so that a change shows what was written."""
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
