import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, f"--target={folder}", str(wheel)], check=True)
    return folder


def run_installed(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S leaves out the .pth file of an editable install: what the wheel lacks is not found in the checkout.
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return subprocess.run(
        [sys.executable, "-S", site / "bin" / "thresher", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(site), *libraries)), "DATA_DIR": str(cwd)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_wheel_holds_what_is_listed_and_nothing_else(wheel: Path) -> None:
    """The wheel has the packages and modules that pyproject.toml lists, and no tests, data or caches."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == listed
    assert {name.suffix for name in names if name.parts[0] in listed} == {
        *(".py", ".yml", ".txt"),
        *(".html", ".css", ".js", ".svg"),
    }


def test_command_works_beside_a_folder_with_our_names(site: Path, tmp_path: Path) -> None:
    """An installed `thresher` uses its own modules and modes, whatever lies in the working directory."""
    for name in ("components", "serve", "modes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a decoy was imported')\n")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "decoy.yml").write_text("this is no mode\n")

    shown = run_installed(site, tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "serve" in shown.stdout

    listed = run_installed(site, tmp_path, "modes")
    assert listed.returncode == 0, listed.stderr
    assert "crag_structured" in listed.stdout
    assert "decoy" not in listed.stdout
