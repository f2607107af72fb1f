"""Settings: one definition for flag, variable, file, default, range and help."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from convserve_server.host.port import address
from convserve_server.settings import sources
from convserve_server.settings.command_line import parser
from convserve_server.settings.kinds import Switch, shown
from convserve_server.settings.setting import Setting, SettingError
from convserve_server.settings.settings import SETTINGS, make_settings

#: Every setting; a new one is covered by what is parametrised with it.
FIELDS = list(SETTINGS.values())
NUMBERS = [field for field in FIELDS if field.type in (int, float)]
CHOICES = [field for field in FIELDS if field.choices]


def flag(field: Setting) -> str:
    return f"--{field.name.replace('_', '-')}"


def variable(field: Setting) -> str:
    return f"CONVSERVE_{field.name.upper()}"


def two_values(field: Setting) -> tuple[Any, Any]:
    """Two different values that the setting may have."""
    if field.choices:
        first, second, *_ = field.choices
        return first, second
    if field.name == "versions":
        return 3, "all"
    if isinstance(field.kind, Switch):
        return True, False
    if field.name == "http_hosts":
        return "models.example,server", "*"
    if field.name == "http_origins":
        return "https://a.example,http://b.example:8080", "*"
    if field.name == "traces":
        return "http://collector:4317", "https://[::1]"
    if field.type is str:
        return "here", "there"
    return field.type(field.low), field.type(field.high)


def for_each(fields: list[Setting]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("field", fields, ids=lambda field: field.name)


def write_toml(folder: Path, **values: object) -> str:
    """A file of settings; the values are what JSON and TOML write alike."""
    file = folder / "settings.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return str(file)


def load(
    field: Setting,
    folder: Path,
    *,
    by_flag: object = None,
    by_variable: object = None,
    by_file: object = None,
) -> Any:
    """The value of a setting that is given in these ways; models, which must be there, as well."""
    arguments, environ, content = [], {}, {}
    if field.name != "models":
        environ["CONVSERVE_MODELS"] = "models"
    if field.name == "max_images":
        # The queue must hold them.
        environ["CONVSERVE_MAX_QUEUE"] = str(field.high)
    if by_flag is not None:
        # A switch has no value: its flag says that it is on.
        arguments += [flag(field)] if by_flag is True else [flag(field), str(by_flag)]
    if by_variable is not None:
        environ[variable(field)] = str(by_variable)
    if by_file is not None:
        content[field.name] = by_file
    arguments += ["--config", write_toml(folder, **content)]
    return sources.load(arguments, environ).settings.values()[field.name]


# Where a value comes from


@for_each(FIELDS)
@pytest.mark.parametrize("swap", [False, True])
def test_setting_given_several_times_first_of_flag_variable_file(
    field: Setting, swap: bool, tmp_path: Path
) -> None:
    first, second = two_values(field)[:: -1 if swap else 1]
    assert first != second
    if first is not False:
        assert load(field, tmp_path, by_flag=first, by_variable=second, by_file=second) == first
        assert load(field, tmp_path, by_flag=first, by_file=second) == first
    assert load(field, tmp_path, by_variable=first, by_file=second) == first
    value = load(field, tmp_path, by_file=first)
    assert value == first
    assert type(value) is (type(first) if field.kind else field.type)


@for_each([field for field in FIELDS if field.name != "models"])
def test_setting_not_given_is_its_default(field: Setting, tmp_path: Path) -> None:
    assert load(field, tmp_path) == field.default


def test_config_named_by_variable_is_read(tmp_path: Path) -> None:
    file = write_toml(tmp_path, models="here")
    assert sources.load([], {"CONVSERVE_CONFIG": file}).settings.models.folder == "here"


def test_config_flag_and_variable_flag_is_read(tmp_path: Path) -> None:
    file = write_toml(tmp_path, models="here")
    environ = {"CONVSERVE_CONFIG": str(tmp_path / "missing.toml")}
    assert sources.load(["--config", file], environ).settings.models.folder == "here"


def test_whole_number_in_file_for_a_float_is_a_float(tmp_path: Path) -> None:
    file = write_toml(tmp_path, models="here", grace_s=3)
    grace_s = sources.load(["--config", file], {}).settings.process.grace_s
    assert (grace_s, type(grace_s)) == (3.0, float)


def test_origin_of_each_value_is_known(tmp_path: Path) -> None:
    file = write_toml(tmp_path, models="here", grace_s=3, port=1)
    environ = {"CONVSERVE_PORT": "2", "CONVSERVE_MAX_BATCH": "8"}
    loaded = sources.load(["--config", file, "--max-batch", "4"], environ)
    changed = {name: origin for name, origin in loaded.origins.items() if origin != "default"}
    assert changed == {
        "port": "CONVSERVE_PORT",
        "grace_s": file,
        "max_batch": "--max-batch",
        "models": file,
    }
    assert not loaded.check


def test_unknown_variables_are_named_with_what_may_be_meant() -> None:
    environ = {
        "CONVSERVE_MODELS": "here",
        "CONVSERVE_MAX_BACH": "3",
        "CONVSERVE_XYZZY": "",
        "CONVSERVE_SERVER": "localhost",
        "CONVSERVE_MODEL": "mnist",
        "OTHER_MAX_BATCH": "3",
    }
    assert sources.load([], environ).unknown == (
        "CONVSERVE_MAX_BACH (did you mean CONVSERVE_MAX_BATCH?)",
        "CONVSERVE_XYZZY",
    )


def test_variables_of_a_service_of_kubernetes_are_no_settings() -> None:
    environ = {
        "CONVSERVE_MODELS": "here",
        "CONVSERVE_PORT": "tcp://10.0.0.1:50051",
        "CONVSERVE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "CONVSERVE_PORT_50051_TCP_ADDR": "10.0.0.1",
        "CONVSERVE_SERVICE_HOST": "10.0.0.1",
        "CONVSERVE_SERVICE_PORT": "50051",
        "CONVSERVE_SERVICE_PORT_GRPC": "50051",
        "CONVSERVE_SERVER_SERVICE_HOST": "10.0.0.1",
    }
    loaded = sources.load([], environ)
    assert loaded.settings.listen.port == 50051
    assert loaded.unknown == ()


# What is refused


def message_of(arguments: list[str], environ: dict[str, str]) -> str:
    with pytest.raises(SettingError) as caught:
        sources.load(arguments, environ)
    return str(caught.value)


def range_of(field: Setting) -> str:
    def text(limit: float | None) -> str:
        assert limit is not None
        return str(int(limit)) if float(limit).is_integer() else str(limit)

    return f"{text(field.low)} to {text(field.high)}"


def expected(field: Setting) -> str:
    """What a message says of the values of a setting."""
    if field.choices:
        return f"expected one of {', '.join(field.choices)}"
    if field.kind is not None:
        return f"expected {field.kind.expected}"
    kinds = {int: "a whole number from ", float: "a number from "}
    return (
        f"expected {kinds[field.type]}{range_of(field)}" if field.type in kinds else "expected text"
    )


@for_each(NUMBERS)
@pytest.mark.parametrize("limit", ["low", "high"])
def test_number_beyond_its_range_says_origin_value_and_range(
    field: Setting, limit: str, tmp_path: Path
) -> None:
    beyond = getattr(field, limit) + (-1 if limit == "low" else 1)
    value = field.type(beyond)
    file = write_toml(tmp_path, **{field.name: value})
    problem = f"{expected(field)}, got {value}"
    assert message_of([flag(field), str(value)], {}) == f"{flag(field)}: {problem}"
    assert message_of([], {variable(field): str(value)}) == f"{variable(field)}: {problem}"
    assert message_of(["--config", file], {}) == f"{file}: {field.name}: {problem}"
    with pytest.raises(SettingError) as caught:
        make_settings(**{"models": "here", field.name: value})
    assert str(caught.value) == f"{field.name}: {problem}"


@for_each(NUMBERS)
def test_text_for_a_number_says_origin_value_and_range(field: Setting, tmp_path: Path) -> None:
    file = write_toml(tmp_path, **{field.name: "many"})
    problem = f"{expected(field)}, got 'many'"
    assert message_of([flag(field), "many"], {}) == f"{flag(field)}: {problem}"
    assert message_of([], {variable(field): "many"}) == f"{variable(field)}: {problem}"
    assert message_of(["--config", file], {}) == f"{file}: {field.name}: {problem}"


@for_each([field for field in NUMBERS if field.type is float])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_number_that_is_none_is_out_of_range(field: Setting, value: str) -> None:
    message = f"{flag(field)}: {expected(field)}, got {value}"
    assert message_of([f"{flag(field)}={value}"], {}) == message


@for_each([field for field in NUMBERS if field.type is int])
def test_fraction_for_a_whole_number_is_refused(field: Setting, tmp_path: Path) -> None:
    file = write_toml(tmp_path, **{field.name: 1.5})
    problem = expected(field)
    assert problem.startswith("expected a whole number from ")
    assert message_of(["--config", file], {}) == f"{file}: {field.name}: {problem}, got 1.5"
    assert message_of([flag(field), "1.5"], {}) == f"{flag(field)}: {problem}, got '1.5'"


@for_each(CHOICES)
def test_word_that_is_no_choice_says_the_choices(field: Setting, tmp_path: Path) -> None:
    file = write_toml(tmp_path, **{field.name: "other"})
    problem = f"expected one of {', '.join(field.choices)}, got 'other'"
    assert message_of([flag(field), "other"], {}) == f"{flag(field)}: {problem}"
    assert message_of([], {variable(field): "other"}) == f"{variable(field)}: {problem}"
    assert message_of(["--config", file], {}) == f"{file}: {field.name}: {problem}"


@for_each([field for field in FIELDS if not isinstance(field.kind, Switch)])
@pytest.mark.parametrize("value", [True, False, ["1"]], ids=repr)
def test_value_of_another_type_in_file_is_refused(
    field: Setting, value: object, tmp_path: Path
) -> None:
    file = write_toml(tmp_path, **{"models": "here", field.name: value})
    message = f"{file}: {field.name}: {expected(field)}, got {value!r}"
    assert message_of(["--config", file], {}) == message


@for_each([field for field in FIELDS if field.type is str])
def test_number_for_text_in_file_is_refused(field: Setting, tmp_path: Path) -> None:
    file = write_toml(tmp_path, **{"models": "here", field.name: 5})
    message = f"{file}: {field.name}: {expected(field)}, got 5"
    assert message_of(["--config", file], {}) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("ON", True), ("0", False), ("False", False), ("off", False)],
)
def test_switch_is_read_from_a_variable(text: str, value: bool) -> None:
    environ = {"CONVSERVE_MODELS": "here", "CONVSERVE_INSECURE": text}
    assert sources.load([], environ).settings.security.insecure is value


@pytest.mark.parametrize("value", ["maybe", "", 1, 0, ["on"]])
def test_switch_that_is_neither_on_nor_off_is_refused(value: object, tmp_path: Path) -> None:
    file = write_toml(tmp_path, models="here", insecure=value)
    problem = f"expected true or false, 1 or 0, on or off, got {value!r}"
    assert message_of(["--config", file], {}) == f"{file}: insecure: {problem}"
    if isinstance(value, str):
        environ = {"CONVSERVE_INSECURE": value}
        assert message_of([], environ) == f"CONVSERVE_INSECURE: {problem}"


def test_switch_has_a_flag_without_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert sources.load(["--models", "here", "--insecure"], {}).settings.security.insecure
    with pytest.raises(SystemExit):
        sources.load(["--models", "here", "--insecure=1"], {})
    assert "--insecure" in capsys.readouterr().err


def test_messages_of_a_few_settings_are_these() -> None:
    whole = "expected a whole number from"
    assert message_of(["--max-batch", "-1"], {}) == f"--max-batch: {whole} 0 to 4096, got -1"
    assert (
        message_of([], {"CONVSERVE_PORT": "70000"})
        == f"CONVSERVE_PORT: {whole} 0 to 65535, got 70000"
    )
    assert message_of(["--max-queue", "0"], {}) == f"--max-queue: {whole} 1 to 1000000, got 0"
    assert (
        message_of(["--max-message-bytes", "-1"], {})
        == f"--max-message-bytes: {whole} 0 to 1073741824, got -1"
    )
    assert (
        message_of(["--scan-s", "0"], {}) == "--scan-s: expected a number from 0.1 to 3600, got 0.0"
    )
    assert message_of(["--device", "tpu"], {}) == (
        "--device: expected one of auto, cpu, cuda, got 'tpu' (did you mean cpu?)"
    )
    assert (
        message_of(["--device", "xyzzy"], {})
        == "--device: expected one of auto, cpu, cuda, got 'xyzzy'"
    )


def test_models_missing_says_how_to_give_it() -> None:
    assert message_of([], {}) == (
        "models: expected the folder of bundles, as --models DIR, got none"
    )
    assert message_of(["--models", ""], {}) == message_of([], {})


@pytest.mark.parametrize(
    ("key", "hint"),
    [("max_bach", " (did you mean max_batch?)"), ("prot", " (did you mean port?)"), ("xyzzy", "")],
)
def test_unknown_key_in_file_says_the_nearest(key: str, hint: str, tmp_path: Path) -> None:
    file = write_toml(tmp_path, **{key: 1})
    assert message_of(["--config", file], {}) == f"{file}: {key}: unknown setting{hint}"


def test_config_missing_says_so(tmp_path: Path) -> None:
    file = str(tmp_path / "none.toml")
    message = f"config: cannot read {file}: No such file or directory"
    assert message_of(["--config", file], {}) == message


@pytest.mark.parametrize("content", [b"port = = 5\n", b"host = '\xff'\n"])
def test_config_that_is_no_toml_says_so(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    assert message_of(["--config", str(file)], {}).startswith(f"config: {file} is not TOML: ")


@pytest.mark.parametrize("arguments", [["--max-bat", "3"], ["--prot", "3"], ["stray"]])
def test_unknown_or_shortened_flag_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        sources.load(["--models", "here", *arguments], {})
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_settings_are_frozen() -> None:
    settings = make_settings(models="here")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.listen.port = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.listen = settings.listen  # type: ignore[misc]


# What the help says


@pytest.fixture
def help_lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The help with each setting on a line (the terminal is wide enough)."""
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("NO_COLOR", "1")
    action = argparse.ArgumentParser.format_help(parser())
    return action.splitlines()


@for_each(FIELDS)
def test_help_has_flag_variable_default_range_and_unit(
    field: Setting, help_lines: list[str]
) -> None:
    # A flag too long for the column has its help on the line after.
    text = "\n".join(help_lines) + "\n"
    assert f"\n  {flag(field)} " in text
    _, _, after = text.partition(f"\n  {flag(field)} ")
    entry = after[: after.index(f" [env: {variable(field)}]\n")]
    assert "[env:" not in entry
    assert field.help in entry
    if field.default != "":
        assert entry.endswith(f" [default: {shown(field.default)}]")
    if field in NUMBERS:
        assert f", {range_of(field)} " in entry
        assert entry.startswith(field.metavar)
    for choice in field.choices:
        assert choice in entry.split()[0]


def test_help_ends_with_two_examples_that_are_valid(help_lines: list[str]) -> None:
    start = help_lines.index("examples:")
    examples = [line.split() for line in help_lines[start + 1 :] if line]
    assert len(examples) == 2
    for words in examples:
        command = words.index("convserve-serve")
        environ = dict(word.split("=") for word in words[:command])
        sources.load(words[command + 1 :], environ)


def test_version_flag_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sources.load(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("convserve-serve ")


@for_each(FIELDS)
def test_default_of_each_number_is_within_its_range(field: Setting) -> None:
    if field in NUMBERS:
        assert type(field.default) is field.type
        assert field.low is not None
        assert field.high is not None
        assert isinstance(field.default, int | float)
        assert math.isfinite(field.high)
        assert field.low <= field.default <= field.high
    elif field in CHOICES:
        assert field.default in field.choices


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "127.0.0.1:5"), ("::1", "[::1]:5"), ("localhost", "localhost:5")],
)
def test_address_has_brackets_for_ipv6_alone(host: str, expected: str) -> None:
    assert address(host, 5) == expected
