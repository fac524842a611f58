"""API keys: what is kept of them, in which file, and how the service takes note of a change."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from serve.access import Caller, Role
from serve.access.asking import Access
from serve.access.errors import InvalidKeyError, KeysError, MissingKeyError
from serve.access.key_file import KeyFile
from serve.access.keyring import Keyring
from serve.access.keys import new_key, read_keys
from settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys" / "api_keys.json")


def added(file: KeyFile, tenant: str = "acme", expires_at: datetime | None = None) -> tuple[bytes, str]:
    """:returns: A new key of the file, and its id."""
    secret, key = new_key([tenant], [Role.QUERY], expires_at=expires_at)
    file.add(key)
    return secret.encode(), key.id


def test_the_file_holds_no_key_and_is_for_its_owner_alone(file: KeyFile) -> None:
    """What is kept is a hash, in a file that others can't read, and nothing partial stays beside it."""
    secret, _ = added(file)
    assert secret.removeprefix(b"thr_") not in file.path.read_bytes()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert len(secret) >= len("thr_") + 43
    assert {path.name for path in file.path.parent.iterdir()} == {"api_keys.json", "api_keys.json.lock"}


def test_keys_added_at_once_are_all_kept(file: KeyFile) -> None:
    """Whoever changes the file at the same time as others undoes nothing of theirs."""
    threads = [threading.Thread(target=added, args=(file,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.id for key in file.read()}) == 12


def test_a_key_names_its_tenants_and_roles_until_it_is_revoked_or_over(file: KeyFile) -> None:
    """A key counts as long as it stands in the file, and no longer than its time."""
    keyring = Keyring(file)
    secret, key_id = added(file)
    assert keyring.find(secret) == Caller(key_id, frozenset({"acme"}), frozenset({Role.QUERY}))
    over, _ = added(file, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert keyring.find(over) is None
    for wrong in (
        secret[:-1],
        secret + b"x",
        secret.upper(),
        b"",
        key_id.encode(),
        b"\xff" * 9,
        b"x" * 10_000,
    ):
        assert keyring.find(wrong) is None
    file.remove(key_id)
    assert keyring.find(secret) is None


def test_the_hash_is_no_key(file: KeyFile) -> None:
    """Who reads the file can't come in with what stands there."""
    added(file)
    [kept] = file.read()
    assert Keyring(file).find(kept.sha256.encode()) is None


def test_a_file_that_breaks_keeps_the_last_good_keys_and_says_so(
    file: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken file locks nobody out and lets nobody in, is told once, and a good one holds again."""
    secret, key_id = added(file)
    keyring = Keyring(file)
    good = file.path.read_text("utf-8")
    for broken in ("{", good.replace(key_id, "no id!"), good.replace('"roles"', '"rolls"'), good[:-10]):
        file.path.write_text(broken, "utf-8")
        caplog.clear()
        assert keyring.find(secret) is not None
        assert keyring.find(secret) is not None
        assert keyring.fault is not None
        assert len(caplog.records) == 1
        assert keyring.fault in caplog.text
    file.path.write_text(good.replace("query", "ingest"), "utf-8")
    found = keyring.find(secret)
    assert found is not None
    assert found.roles == {Role.INGEST}
    assert keyring.fault is None


@pytest.mark.parametrize("failing", ["stat", "read_bytes"])
def test_a_file_that_can_not_be_read_for_a_moment_is_read_again(
    file: KeyFile, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was revoked while the system refused the file ends a second later, and so does the fault."""
    secret, key_id = added(file)
    now = 0.0
    tried: list[float] = []
    keyring = Keyring(file, clock=lambda: now)

    def refused(*_: object, **__: object) -> None:
        tried.append(now)
        raise OSError(24, "Too many open files")

    file.remove(key_id)
    with monkeypatch.context() as patch:
        patch.setattr(Path, failing, refused)
        for _ in range(3):
            assert keyring.find(secret) is not None
    assert len(tried) == 1
    assert keyring.fault is not None
    now = 1.0
    assert keyring.find(secret) is None
    assert keyring.fault is None


def test_a_file_that_is_gone_leaves_no_keys(file: KeyFile) -> None:
    """Removing the file revokes every key."""
    secret, _ = added(file)
    keyring = Keyring(file)
    file.path.unlink()
    assert keyring.find(secret) is None
    assert keyring.is_empty


def test_a_file_that_is_replaced_through_a_link_is_read_again(tmp_path: Path) -> None:
    """Mounted secrets change by turning a link to another directory."""
    secrets = []
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        secrets.append(added(KeyFile(tmp_path / version / "api_keys.json"))[0])
    (tmp_path / "data").symlink_to("1")
    keyring = Keyring(KeyFile(tmp_path / "data" / "api_keys.json"))
    assert keyring.find(secrets[0]) is not None
    (tmp_path / "new").symlink_to("2")
    os.replace(tmp_path / "new", tmp_path / "data")
    assert [keyring.find(secret) is not None for secret in secrets] == [False, True]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenants", []),
        ("tenants", ["../other"]),
        ("tenants", "acme"),
        ("roles", []),
        ("roles", ["owner"]),
        ("sha256", "SECRET"),
        ("expires_at", "soon"),
        ("expires_at", "2027-01-31T00:00:00"),
        ("expires", "2027-01-31T00:00:00Z"),
    ],
)
def test_what_is_not_understood_of_a_key_is_refused_without_being_shown(field: str, value: object) -> None:
    """A key with a wrong or unknown field is no key, for what it was to forbid is not known."""
    _, key = new_key(["acme"], [Role.QUERY])
    kept = {**json.loads(key.model_dump_json(exclude_none=True)), field: value}
    with pytest.raises(KeysError, match=field) as caught:
        read_keys(json.dumps({"keys": [kept]}), "API_KEYS")
    assert "SECRET" not in str(caught.value)
    assert key.sha256 not in str(caught.value)


def asking(tmp_path: Path, **more: object) -> Access:
    return Access(Settings.load(data_dir=tmp_path, **more))


def test_a_loopback_service_asks_for_keys_from_the_first_one_on(tmp_path: Path) -> None:
    """Without keys anybody may come in; with the first, nobody without, also when it is gone again."""
    access = asking(tmp_path)
    assert access.caller(Headers({})) == Caller()
    assert access.caller(Headers({"authorization": "Bearer acme"})).named_tenant == "acme"
    secret, key_id = added(KeyFile(tmp_path / "api_keys.json"))
    shown = Headers({"authorization": f"Bearer {secret.decode()}"})
    assert access.caller(shown).key_id == key_id
    with pytest.raises(MissingKeyError):
        access.caller(Headers({}))
    (tmp_path / "api_keys.json").unlink()
    with pytest.raises(InvalidKeyError):
        access.caller(shown)
    with pytest.raises(MissingKeyError):
        access.caller(Headers({}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "rag.example.com"])
def test_a_service_that_others_reach_does_not_start_without_keys(tmp_path: Path, host: str) -> None:
    """Bound to a network without a key that holds, it says what to do; so it does with an expired one."""
    with pytest.raises(KeysError, match="thresher keys create"):
        asking(tmp_path, host=host)
    file = KeyFile(tmp_path / "api_keys.json")
    added(file, expires_at=datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(KeysError, match="AUTH=off"):
        asking(tmp_path, host=host)
    added(file)
    assert asking(tmp_path, host=host).is_on


def test_auth_is_on_or_off_where_it_is_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`on` needs a key on loopback too; `off` on a network is warned of, and on loopback it is not."""
    with pytest.raises(KeysError, match="AUTH is on"):
        asking(tmp_path, auth="on")
    added(KeyFile(tmp_path / "api_keys.json"))
    assert asking(tmp_path, auth="on").is_on
    assert not asking(tmp_path, auth="off").is_on
    assert caplog.records == []
    assert not asking(tmp_path, auth="off", host="0.0.0.0").is_on
    assert "AUTH is off" in caplog.text


def test_keys_also_come_from_the_environment(tmp_path: Path) -> None:
    """`API_KEYS` holds beside the file; what is wrong with it stops the start and is not repeated."""
    secret, key = new_key(["*"], list(Role))
    given = json.dumps({"keys": [json.loads(key.model_dump_json(exclude_none=True))]})
    in_file, _ = added(KeyFile(tmp_path / "api_keys.json"))
    access = asking(tmp_path, api_keys=given, host="0.0.0.0")
    caller = access.caller(Headers({"x-api-key": secret}))
    assert (caller.key_id, caller.tenants, caller.roles) == (key.id, None, frozenset(Role))
    assert access.caller(Headers({"x-api-key": in_file.decode()})).tenants == {"acme"}
    with pytest.raises(KeysError, match="API_KEYS holds no valid"):
        asking(tmp_path, api_keys='["SECRET"]')


def test_two_different_keys_are_none(tmp_path: Path) -> None:
    """A request that shows a good key and another one is refused, wherever they stand and in whichever order."""
    secret, _ = added(KeyFile(tmp_path / "api_keys.json"))
    access, good = asking(tmp_path), f"Bearer {secret.decode()}".encode()
    other = b"Bearer thr_other"
    for pairs in (
        [(b"authorization", good), (b"authorization", other)],
        [(b"authorization", other), (b"authorization", good)],
        [(b"authorization", good), (b"x-api-key", b"thr_other")],
        [(b"authorization", good), (b"x-api-key", b"\xff")],
    ):
        with pytest.raises(InvalidKeyError):
            access.caller(Headers(raw=pairs))
    same = [(b"authorization", good), (b"x-api-key", secret), (b"authorization", b"Basic eDp5")]
    assert access.caller(Headers(raw=same)).tenants == {"acme"}
    with pytest.raises(MissingKeyError):
        access.caller(Headers({"authorization": "Basic eDp5"}))
