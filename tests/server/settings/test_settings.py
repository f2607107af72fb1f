"""Settings in sections, and what single models have of their own."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convserve_server.settings import sources
from convserve_server.settings.kinds import Value
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import (
    PER_MODEL,
    SECTIONS,
    SETTINGS,
    ModelSettings,
    make_settings,
)
from tests.pages import blocks


def write(folder: Path, text: str) -> str:
    file = folder / "settings.toml"
    file.write_text(text)
    return str(file)


def load(folder: Path, text: str, *arguments: str) -> sources.Loaded:
    return sources.load(["--config", write(folder, text), *arguments], {})


def message_of(folder: Path, text: str) -> str:
    with pytest.raises(SettingError) as caught:
        load(folder, text)
    return str(caught.value).removeprefix(f"{folder / 'settings.toml'}: ")


def test_each_setting_is_in_one_section_under_its_name() -> None:
    settings = make_settings(models="here", max_batch=7, port=0)
    assert settings.batching.max_batch == 7
    assert settings.listen.port == 0
    assert settings.models.folder == "here"
    assert settings.values().keys() == SETTINGS.keys()
    renamed = {name: one.attribute for name, one in SETTINGS.items() if one.attribute != name}
    assert renamed == {"models": "folder", "models_cache": "cache"}
    # A key of the file that is both is the section if its value is a table, else the setting.
    assert set(SECTIONS) & set(SETTINGS) == {"engine", "models"}


def test_replaced_values_are_checked_and_the_others_stay() -> None:
    settings = make_settings({"mnist": {"max_batch": 3}}, models="here", port=5)
    changed = settings.replace(max_batch=7, models="there", grace_s=1.0)
    expected = make_settings(
        {"mnist": {"max_batch": 3}}, models="there", port=5, max_batch=7, grace_s=1.0
    )
    assert changed == expected
    with pytest.raises(SettingError, match="^max_batch: expected .*, got -1$"):
        settings.replace(max_batch=-1)


def test_queue_holds_the_largest_request_that_is_allowed() -> None:
    make_settings({"mnist": {"max_queue": 7}}, models="here", max_queue=5)
    make_settings({"mnist": {"max_queue": 300}}, models="here", max_images=300, max_queue=300)
    expected = "^max_images: expected at most max_queue, 256, got 5000$"
    with pytest.raises(SettingError, match=expected):
        make_settings(models="here", max_images=5000, max_queue=256)
    expected = "^models.mnist.max_queue: expected at least max_images, 300, got 299$"
    with pytest.raises(SettingError, match=expected):
        make_settings({"mnist": {"max_queue": 299}}, models="here", max_images=300)


def test_labels_are_in_the_settings_or_in_a_file_beside_the_versions() -> None:
    make_settings({"mnist": {"rollout": "label"}, "cats": {"labels": {"a": 1}}}, models="here")
    expected = (
        "models.mnist.labels: expected none, since rollout is label and the labels are those of "
        "mnist/labels.json, got {stable = 3}"
    )
    labels = {"stable": 3}
    both: dict[str, Value] = {"labels": labels, "rollout": "label"}
    with pytest.raises(SettingError, match=f"^{re.escape(expected)}$"):
        make_settings({"mnist": both}, models="here")
    with pytest.raises(SettingError, match=f"^{re.escape(expected)}$"):
        make_settings({"mnist": {"labels": labels}}, models="here", rollout="label")
    make_settings({"mnist": {**both, "rollout": "newest"}}, models="here", rollout="label")


def test_labels_move_in_a_file_only_where_the_folder_is_looked_at() -> None:
    expected = "^control: expected poll, since rollout is label, got explicit$"
    with pytest.raises(SettingError, match=expected):
        make_settings(models="here", rollout="label", control="explicit")
    expected = "^models.mnist.control: expected poll, since rollout is label, got none$"
    with pytest.raises(SettingError, match=expected):
        make_settings({"mnist": {"rollout": "label"}}, models="here", control="none")


# Tables by section


def test_settings_may_stand_in_the_tables_of_their_sections(tmp_path: Path) -> None:
    lines = ["[models]", 'folder = "here"']
    values: dict[str, Any] = {"models": "here"}
    for section in SECTIONS:
        if section != "models":
            lines.append(f"[{section}]")
        for name, one in SETTINGS.items():
            if one.section == section and one.low is not None:
                values[name] = one.type(one.high)
                lines.append(f"{one.attribute} = {values[name]}")
    # The table [models] was opened first: what belongs to it comes there.
    models = [name for name in values if SETTINGS[name].section == "models" and name != "models"]
    lines = [line for line in lines if line.partition(" ")[0] not in models]
    lines[2:2] = [f"{name} = {values[name]}" for name in models]
    loaded = load(tmp_path, "\n".join(lines))
    assert loaded.settings == make_settings(**values)
    assert {loaded.origins[name] for name in values} == {str(tmp_path / "settings.toml")}


def test_tables_and_keys_outside_them_go_together(tmp_path: Path) -> None:
    text = 'models = "here"\nmax_queue = 5\n[batching]\nmax_batch = 6\n'
    assert load(tmp_path, text).settings == make_settings(models="here", max_queue=5, max_batch=6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch = 1\n[batching]\nmax_batch = 2",
            "max_batch: expected once, got it in a table and outside it",
        ),
        (
            "[batching]\nport = 2",
            "batching.port: expected in the table [listen], got it in [batching]",
        ),
        (
            "[batching]\nmax_bach = 2",
            "batching.max_bach: unknown setting (did you mean max_batch?)",
        ),
        ("[models]\nfoldr = '.'", "models.foldr: unknown setting (did you mean folder?)"),
        ("[bathing]\nmax_batch = 2", "bathing: unknown setting (did you mean batching?)"),
        (
            "[batching]\nmax_batch = -1",
            "batching.max_batch: expected a whole number from 0 to 4096, got -1",
        ),
        ("batching = 3", "batching: unknown setting"),
        ("[max_batch]\nx = 1", "max_batch: expected a whole number from 0 to 4096, got {'x': 1}"),
    ],
)
def test_key_that_is_wrong_in_its_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message_of(tmp_path, text).startswith(message)


# Tables of models

#: What a message says of the versions to serve.
VERSIONS = "expected a whole number from 1 to 100, all, or a list of versions as [3, 5]"

TABLES = """
[models]
folder = "here"
[models.mnist]
max_batch = 32
max_delay_ms = 2
[models."cats.v2"]
max_queue = 9
device = "cpu"
engine_threads = 3
"""


def of_model(**values: Any) -> ModelSettings:
    """What holds for a model that has these values and the defaults of the others."""
    return ModelSettings(**{name: one.default for name, one in PER_MODEL.items()} | values)


def test_model_has_its_own_values_and_those_of_all_for_the_rest(tmp_path: Path) -> None:
    settings = load(tmp_path, TABLES, "--max-batch", "8", "--engine-threads", "2").settings
    assert settings.for_model("other") == of_model(max_batch=8, engine_threads=2)
    assert settings.for_model("mnist") == of_model(max_batch=32, max_delay_ms=2.0, engine_threads=2)
    assert settings.for_model("cats.v2") == of_model(
        max_batch=8, max_queue=9, device="cpu", engine_threads=3
    )


def test_zero_of_a_model_is_its_own_choice_but_for_engine_threads() -> None:
    tables = {"mnist": {"max_batch": 0, "max_delay_ms": 0.0, "engine_threads": 0}}
    settings = make_settings(tables, models="here", max_batch=8, max_delay_ms=5.0, engine_threads=2)
    assert settings.for_model("mnist") == of_model(max_batch=0, max_delay_ms=0.0, engine_threads=2)


def test_origins_of_a_models_values_are_known(tmp_path: Path) -> None:
    loaded = load(tmp_path, TABLES)
    file = str(tmp_path / "settings.toml")
    own = {name for name in loaded.origins if name not in SETTINGS}
    assert own == {
        *("models.mnist.max_batch", "models.mnist.max_delay_ms"),
        *(f"models.cats.v2.{key}" for key in ("max_queue", "device", "engine_threads")),
    }
    assert {loaded.origins[name] for name in own} == {file}


def test_folder_is_still_given_by_flag_or_variable_beside_tables_of_models(tmp_path: Path) -> None:
    file = write(tmp_path, "[models.mnist]\nmax_batch = 1\n")
    for loaded in (
        sources.load(["--config", file, "--models", "here"], {}),
        sources.load([], {"CONVSERVE_CONFIG": file, "CONVSERVE_MODELS": "here"}),
    ):
        assert loaded.settings.models.folder == "here"
        assert loaded.settings.for_model("mnist").max_batch == 1


def test_model_called_as_a_setting_is_a_table(tmp_path: Path) -> None:
    settings = load(tmp_path, "[models.folder]\nmax_batch = 1\n", "--models", "here").settings
    assert settings.by_model == {"folder": {"max_batch": 1}}


def test_file_on_the_page_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "deploy.md"
    [block] = [block for block in blocks(page.read_text()) if block.language == "toml"]
    settings = load(tmp_path, block.code).settings
    assert settings.models.folder == "/models"
    assert settings.for_model("mnist").max_batch == 256
    assert settings.for_model("cats-dogs").max_batch == 64


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "[models.mnist]\nmax_bach = 1",
            f"models.mnist: expected keys of {', '.join(PER_MODEL)}, got 'max_bach' "
            "(did you mean max_batch?)",
        ),
        ("[models.mnist]\nport = 1", "models.mnist: expected keys of "),
        (
            "[models.mnist]\nmax_batch = -1",
            "models.mnist.max_batch: expected a whole number from 0 to 4096, got -1",
        ),
        (
            '[models.mnist]\ndevice = "gpu"',
            "models.mnist.device: expected one of auto, cpu, cuda, got 'gpu'",
        ),
        (
            "[models.mnist.extra]\nx = 1",
            "models.mnist: expected keys of ",
        ),
        (
            '[models.mnist]\nversions = "al"',
            f"models.mnist.versions: {VERSIONS}, got 'al' (did you mean all?)",
        ),
        ("[models.mnist]\nversions = 0", f"models.mnist.versions: {VERSIONS}, got 0"),
        ("[models.mnist]\nversions = 101", f"models.mnist.versions: {VERSIONS}, got 101"),
        ("[models.mnist]\nversions = []", f"models.mnist.versions: {VERSIONS}, got []"),
        ("[models.mnist]\nversions = [3, 0]", f"models.mnist.versions: {VERSIONS}, got [3, 0]"),
        (
            f"[models.mnist]\nversions = [{10**18}]",
            f"models.mnist.versions: {VERSIONS}, got [{10**18}]",
        ),
        ("[models.mnist]\nversions = true", f"models.mnist.versions: {VERSIONS}, got True"),
        (
            '[models.mnist]\ncontrol = "pol"',
            "models.mnist.control: expected one of poll, explicit, none, got 'pol' "
            "(did you mean poll?)",
        ),
        (
            "[models.mnist]\nunload_after_s = -1",
            "models.mnist.unload_after_s: expected a number from 0 to 2592000, got -1",
        ),
        (
            '[models.mnist]\nlabels = "stable"',
            "models.mnist.labels: expected labels with a version each, as {stable = 3}, "
            "got 'stable'",
        ),
        (
            '[models.mnist.labels]\nstable = "x"',
            "models.mnist.labels.stable: expected a version from 1 up, got 'x'",
        ),
        (
            "[models.mnist]\nlabels = {stable = 0}",
            "models.mnist.labels.stable: expected a version from 1 up, got 0",
        ),
        (
            "[models.mnist]\nlabels = {stable = true}",
            "models.mnist.labels.stable: expected a version from 1 up, got True",
        ),
        (
            '[models.mnist]\nlabels = {"a b" = 1}',
            "models.mnist.labels: expected as a label 1 to 64 of A-Z a-z 0-9 . _ -, beginning "
            "with A-Z a-z 0-9, got 'a b'",
        ),
        (
            "[models.mnist]\nlabel = {stable = 1}",
            f"models.mnist: expected keys of {', '.join(PER_MODEL)}, got 'label' "
            "(did you mean labels?)",
        ),
        ('[models."a b"]\nmax_batch = 1', "models: expected as a model's name 1 to 64 of "),
        ('[models.".hidden"]\nmax_batch = 1', "models: expected as a model's name 1 to 64 of "),
    ],
)
def test_table_of_a_model_that_is_wrong_says_so(tmp_path: Path, table: str, message: str) -> None:
    assert message_of(tmp_path, table).startswith(message)


def test_tables_made_in_code_are_checked_as_well() -> None:
    with pytest.raises(SettingError, match=r"^models\.mnist\.max_batch: expected .*, got -1$"):
        make_settings({"mnist": {"max_batch": -1}}, models="here")


def test_what_a_model_may_have_is_defined_with_the_settings() -> None:
    assert [field.name for field in dataclasses.fields(ModelSettings)] == list(PER_MODEL)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("versions = 2", {"versions": 2}),
        ('versions = "all"', {"versions": "all"}),
        ("versions = [3, 5]", {"versions": (3, 5)}),
        ('control = "explicit"', {"control": "explicit"}),
        ('rollout = "label"', {"rollout": "label"}),
        ("unload_after_s = 60", {"unload_after_s": 60.0}),
        ("labels = {stable = 3, canary = 5}", {"labels": {"stable": 3, "canary": 5}}),
        ("labels = {}", {"labels": {}}),
    ],
)
def test_what_the_operator_wants_of_a_model(
    tmp_path: Path, line: str, expected: dict[str, Any]
) -> None:
    settings = load(tmp_path, f'[models]\nfolder = "here"\n[models.mnist]\n{line}\n').settings
    assert settings.for_model("mnist") == of_model(**expected)
    # In one form, however it was given, and for nobody to change.
    assert settings == make_settings({"mnist": expected}, models="here")
    assert settings.for_model("other") == of_model()


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("all", "all"), ("100", 100), (" 2", 2)])
def test_versions_of_all_models_by_flag(text: str, expected: object) -> None:
    settings = sources.load(["--models", "here", "--versions", text], {}).settings
    assert settings.for_model("any").versions == expected


def test_labels_of_all_models_make_no_sense(tmp_path: Path) -> None:
    assert message_of(tmp_path, "labels = {stable = 3}") == "labels: unknown setting"
    assert "labels" not in SETTINGS


def test_help_says_what_only_one_model_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sources.load(["--help"], {})
    words = " ".join(capsys.readouterr().out.split())
    assert "labels = {LABEL = VERSION, ...}: a call may ask for a label" in words


# The rest of the command line


def test_format_without_check_is_refused() -> None:
    with pytest.raises(SettingError, match="^--format: expected together with --check"):
        sources.load(["--models", "here", "--format", "json"], {})


@pytest.mark.parametrize(
    ("arguments", "check"),
    [([], ""), (["--check"], "text"), (["--check", "--format", "json"], "json")],
)
def test_check_says_how_to_print(arguments: list[str], check: str) -> None:
    assert sources.load(["--models", "here", *arguments], {}).check == check


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_settings(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sources.load(["--print-completion", shell], {})
    assert caught.value.code == 0
    assert "max-delay-ms" in capsys.readouterr().out


def test_settings_are_read_without_libraries_that_are_slow_to_import() -> None:
    script = (
        "import sys; from convserve_server.settings import sources; "
        "sources.load(['--models', 'here'], {}); "
        "print({'shtab', 'numpy', 'grpc', 'google', 'onnxruntime', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout == b"set()\n"


@pytest.mark.parametrize("value", ["example.org", "https://a/path", "https://A.example", " ,", 3])
def test_origin_that_is_not_one_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match=r"http_origins: expected origins as https://"):
        make_settings(models="m", http_origins=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", "http://collector:4317", "https://[::1]:4317/"])
def test_url_of_a_collector_is_kept(value: str) -> None:
    assert make_settings(models="m", traces=value).telemetry.traces == value


@pytest.mark.parametrize(
    "value", ["collector:4317", "ftp://a", "http://", "http://user:key@a", "http://a/path", 1]
)
def test_url_of_a_collector_that_is_not_one_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match=r"traces: expected a URL as http://"):
        make_settings(models="m", traces=value)  # type: ignore[arg-type]
