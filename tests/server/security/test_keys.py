"""The file of keys: what is read of it, and what is refused."""

import datetime
import hashlib

import pytest

from convserve_server.security.keys import (
    DEFAULT_PERMISSIONS,
    NOBODY,
    Key,
    Permission,
    found,
    read_keys,
)

A, B = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b"))


def only(lines: str) -> Key:
    """The key of a file that has one."""
    (key,) = read_keys(f'[[key]]\nname = "web"\nsha256 = "{A}"\n{lines}').keys
    return key


def test_key_with_nothing_else_may_ask_and_see_all_models_as_often_as_it_likes() -> None:
    key = only("")
    assert key == Key(name="web", digest=bytes.fromhex(A))
    assert key.permissions == DEFAULT_PERMISSIONS
    assert Permission.ADMIN not in key.permissions
    assert Permission.REFLECTION not in key.permissions
    assert key.sees_all
    assert not key.is_limited


def test_every_field_is_read() -> None:
    key = only(
        'permissions = ["ask", "admin"]\nmodels = ["mnist", "photo-*"]\nrate = 50\nburst = 3\n'
        "images_rate = 0.5\nquota_per_day = 7\nexpires = 2027-01-31T01:00:00+01:00"
    )
    assert key.permissions == {Permission.ASK, Permission.ADMIN}
    assert [key.sees(name) for name in ("mnist", "photo-1", "mnist2", "photo", "")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert (key.rate, key.burst, key.images_rate, key.quota_per_day) == (50.0, 3, 0.5, 7)
    assert key.expires == datetime.datetime(2027, 1, 31, tzinfo=datetime.UTC).timestamp()
    assert key.is_limited


def test_day_without_a_time_begins_at_midnight_of_utc() -> None:
    day = datetime.datetime(2027, 1, 31, tzinfo=datetime.UTC).timestamp()
    assert only("expires = 2027-01-31").expires == day


@pytest.mark.parametrize(("rate", "burst"), [(100, 10), (5, 1), (1000.5, 100)])
def test_rate_allows_a_tenth_of_a_second_at_once(rate: float, burst: int) -> None:
    assert only(f"rate = {rate}").burst == burst


def test_no_models_are_no_models() -> None:
    key = only("models = []")
    assert not key.sees_all
    assert not key.sees("mnist")
    assert not key.sees("")


def test_callers_without_a_key_may_do_nothing_unless_the_file_says_so() -> None:
    table = read_keys(f'[[key]]\nname = "web"\nsha256 = "{A}"')
    assert table.anonymous == NOBODY
    assert not NOBODY.permissions
    assert not NOBODY.sees("mnist")
    table = read_keys('[anonymous]\npermissions = ["health"]')
    assert table.keys == ()
    assert table.anonymous.permissions == {Permission.HEALTH}
    assert not table.anonymous.sees("mnist")


def test_keys_are_found_by_token_and_by_certificate() -> None:
    table = read_keys(
        f'[[key]]\nname = "web"\nsha256 = "{A.upper()}"\n'
        '[[key]]\nname = "robot"\ncertificate = "client.test"'
    )
    web, robot = table.keys
    assert found(table.by_digest, "a") is web
    assert found(table.by_digest, "") is None
    assert found(table.by_digest, A) is None
    assert found(table.by_digest, "\udce9") is None
    assert table.by_certificate == {"client.test": robot}


KEY = f'[[key]]\nname = "web"\nsha256 = "{A}"\n'
OTHER = f'[[key]]\nname = "other"\nsha256 = "{B}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keys: expected [[key]] or [anonymous], got neither"),
        ("[keys]", "keys: expected [[key]] and [anonymous], got 'keys'"),
        ("[key]", "keys: expected tables [[key]], got key as another value"),
        ("anonymous = 1", "keys: expected a table [anonymous], got another value"),
        (
            f'[[key]]\nsha256 = "{A}"',
            "keys: key[0].name: expected 1 to 64 letters, digits, dots, dashes and underscores, "
            "got none",
        ),
        (
            f'[[key]]\nname = "a b"\nsha256 = "{A}"',
            "keys: key[0].name: expected 1 to 64 letters, digits, dots, dashes and underscores, "
            "got 'a b'",
        ),
        (
            f'[[key]]\nname = "anonymous"\nsha256 = "{A}"',
            "keys: key[0].name: expected another name than that of callers without a key, "
            "got 'anonymous'",
        ),
        (
            '[[key]]\nname = "web"',
            "keys: key[0]: expected sha256 or certificate, got neither",
        ),
        (
            KEY + 'certificate = "client"',
            "keys: key[0]: expected sha256 or certificate, got both",
        ),
        (
            '[[key]]\nname = "web"\nsha256 = "my-secret"',
            "keys: key[0].sha256: expected the SHA-256 of a key, 64 hexadecimal digits, got "
            "9 characters",
        ),
        (
            '[[key]]\nname = "web"\ncertificate = ""',
            "keys: key[0].certificate: expected a name in certificates, got ''",
        ),
        (
            KEY + "quota = 1",
            "keys: key[0]: expected fields of name, sha256, certificate, expires, permissions, "
            "models, rate, burst, images_rate, quota_per_day, got 'quota'",
        ),
        (
            KEY + OTHER + 'rate = "fast"',
            "keys: key[1].rate: expected a number above 0, up to 1000000000, got 'fast'",
        ),
        (
            KEY + "rate = 0",
            "keys: key[0].rate: expected a number above 0, up to 1000000000, got 0",
        ),
        (
            KEY + "rate = nan",
            "keys: key[0].rate: expected a number above 0, up to 1000000000, got nan",
        ),
        (
            KEY + "rate = true",
            "keys: key[0].rate: expected a number above 0, up to 1000000000, got True",
        ),
        (KEY + "burst = 2", "keys: key[0].burst: expected a rate beside it, got none"),
        (
            KEY + "rate = 1\nburst = 0",
            "keys: key[0].burst: expected a whole number from 1 to 9007199254740992, got 0",
        ),
        (
            KEY + "quota_per_day = 1.5",
            "keys: key[0].quota_per_day: expected a whole number from 1 to 9007199254740992, "
            "got 1.5",
        ),
        (
            KEY + 'permissions = "ask"',
            "keys: key[0].permissions: expected a list of ask, list, health, reflection, admin, "
            "got 'ask'",
        ),
        (
            KEY + 'permissions = ["root"]',
            "keys: key[0].permissions: expected a list of ask, list, health, reflection, admin, "
            "got 'root'",
        ),
        (
            KEY + "models = [1]",
            "keys: key[0].models: expected a list of names or patterns of models, got 1",
        ),
        (
            KEY + "expires = 2027-01-31T00:00:00",
            "keys: key[0].expires: expected a day, or a time with its offset as "
            "2027-01-31T00:00:00Z, got 2027-01-31 00:00:00",
        ),
        (
            "[anonymous]\nexpires = 2027-01-31",
            "keys: anonymous: expected fields of permissions, models, rate, burst, images_rate, "
            "quota_per_day, got 'expires'",
        ),
        (KEY + KEY.replace(A, B), "keys: key[1].name: expected one of its own, got that of key[0]"),
        (
            KEY + KEY.replace("web", "other"),
            "keys: key[1].sha256: expected one of its own, got that of key[0]",
        ),
    ],
)
def test_file_that_is_not_valid_is_refused_and_says_where(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        read_keys(text)
    assert str(caught.value) == message


def test_text_that_is_not_toml_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^keys: expected TOML, got others: "):
        read_keys("[[key")
