"""Secrets are made once, readable by their owner alone, and the environment wins."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.secrets import Secrets, SecretsError, load_secrets

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    var = tmp_path / "var"
    first = load_secrets(var=var, environ={})
    assert load_secrets(var=var, environ={}) == first
    assert (var / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(base64.urlsafe_b64decode(first.exitmgr_keys[0])) == 32
    other = load_secrets(var=tmp_path / "other", environ={})
    shared = [name for name in Secrets.__dataclass_fields__ if getattr(first, name) == getattr(other, name)]
    assert shared == []


def test_many_first_starts_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_secrets(var=tmp_path / "var", environ={}), range(16)))
    assert found == [found[0]] * 16


def test_a_missing_secret_is_added_and_the_others_stay(tmp_path: Path) -> None:
    before = load_secrets(var=tmp_path, environ={})
    path = tmp_path / "secrets.json"
    stored = json.loads(path.read_text())
    del stored["FLOWER_PASSWORD"]
    path.write_text(json.dumps(stored))
    after = load_secrets(var=tmp_path, environ={})
    changed = [name for name in Secrets.__dataclass_fields__ if getattr(after, name) != getattr(before, name)]
    assert changed == ["flower_password"]


def test_the_environment_wins_and_is_not_stored(tmp_path: Path) -> None:
    other = base64.urlsafe_b64encode(b"o" * 32).decode()
    given = {"SECRET_KEY": "from outside", "EXITMGR_KEYS": f"{KEY}, {other}"}
    secrets = load_secrets(var=tmp_path, environ=given)
    assert secrets.secret_key == "from outside"
    assert secrets.exitmgr_keys == (KEY, other)
    assert "from outside" not in (tmp_path / "secrets.json").read_text()


@pytest.mark.parametrize(
    ("_case", "keys", "message"),
    [
        ("too short", "c2hvcnQ=", "key 1 is not urlsafe base64 of 32 bytes"),
        ("second is not base64", f"{KEY},!", "key 2 is not"),
        ("only commas", ",,", "EXITMGR_KEYS is empty"),
    ],
)
def test_unusable_encryption_keys_are_refused(_case: str, keys: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SecretsError, match=message):
        load_secrets(var=tmp_path, environ={"EXITMGR_KEYS": keys})


@pytest.mark.parametrize(
    ("_case", "content"),
    [("cut off", '{"SECRET_KEY": "x'), ("not an object", "[]"), ("not strings", '{"a": 1}')],
)
def test_a_damaged_file_is_refused_and_left_alone(_case: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(content)
    with pytest.raises(SecretsError, match=r"secrets\.json"):
        load_secrets(var=tmp_path, environ={})
    assert path.read_text() == content
