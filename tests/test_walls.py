"""The walls between the rooms: what each may import."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What all programs share.
LIB = {"convserve_bundle", "convserve_host", "convserve_imaging"}

#: Each package with its folder, and which others it may import.
PACKAGES = {
    "protos/convserve_protos": set[str](),
    "lib/convserve_host": set[str](),
    "lib/convserve_imaging": set[str](),
    "lib/convserve_bundle": {"convserve_protos", "convserve_host", "convserve_imaging"},
    "trainer/convserve_trainer": {"convserve_protos", *LIB},
    "server/convserve_server": {"convserve_protos", *LIB},
    "clients/convserve": {"convserve_protos", *LIB},
}
OURS = {package.partition("/")[2] for package in PACKAGES}

#: Libraries, and the only folders whose packages may import them.
LIBRARIES = {
    "tensorflow": {"trainer"},
    "keras": {"trainer"},
    "jax": {"trainer"},
    "tf2onnx": {"trainer"},
    "onnx": {"trainer"},
    "onnxslim": {"trainer"},
    "onnxruntime": {"server", "trainer"},
    "grpc": {"server", "clients", "protos"},
    "grpc_health": {"server", "clients"},
    "grpc_reflection": {"server"},
    "pygrpc_native": {"server"},
    "uvloop": {"server"},
    "PIL": {"lib", "clients"},
    "shtab": {"lib"},
    "simplejpeg": {"lib"},
    "cykooz_resizer": {"lib"},
}


def imports(file: Path) -> Iterator[str]:
    """The top-level names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def breaches(package: str) -> list[str]:
    """What the files of a package import although they may not."""
    folder, _, name = package.partition("/")
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        for other in imports(file):
            ours = other in OURS and other != name and other not in PACKAGES[package]
            library = folder not in LIBRARIES.get(other, {folder})
            if ours or library or other in {"tests", "benchmarks", "examples"}:
                found.append(f"{file.relative_to(ROOT)} imports {other}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_it_may(package: str) -> None:
    assert list((ROOT / package).rglob("*.py")), "the package is empty"
    assert breaches(package) == []


@pytest.mark.parametrize("folder", sorted({package.partition("/")[0] for package in PACKAGES}))
def test_folder_holds_its_packages_and_no_other(folder: str) -> None:
    found = {path.name for path in (ROOT / folder).iterdir() if (path / "__init__.py").exists()}
    assert {f"{folder}/{name}" for name in found} == {
        package for package in PACKAGES if package.startswith(f"{folder}/")
    }


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("lib/convserve_bundle", "import convserve_server"),
        ("lib/convserve_bundle", "import onnx"),
        ("lib/convserve_imaging", "from convserve_bundle import contract"),
        ("clients/convserve", "from convserve_trainer import errors"),
        ("server/convserve_server", "import keras"),
    ],
)
def test_import_that_is_not_allowed_is_seen(
    package: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / package).mkdir(parents=True)
    (tmp_path / package / "planted.py").write_text(f"def late():\n    {line}\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert breaches(package) == [f"{package}/planted.py imports {line.split()[1]}"]


#: Rooms in a package, from the ground up: each may import those of the lower floors.
TRAINER = (
    {"errors", "wording"},
    {"host"},
    {"recipes", "data", "pages"},
    {"nets", "check_data"},
    {"scores", "runs"},
    {"export", "fitting"},
    {"bundles"},
    {"seeds"},
    {"report"},
    {"lecture"},
    {"train"},
    {"commands"},
    {"sweep"},
    {"main", "job"},
    {"__main__"},
)


SERVER = (
    {"digests", "errors", "logs", "security"},
    {"settings"},
    {"front", "host", "models_folder", "outputs"},
    {"process"},
    {"batching", "engines"},
    {"decode"},
    {"repository"},
    {"service"},
    {"fronts"},
    {"main", "worker"},
    {"__main__"},
)


@pytest.mark.parametrize(
    ("package", "floors"),
    [("trainer/convserve_trainer", TRAINER), ("server/convserve_server", SERVER)],
)
def test_rooms_import_only_those_below(package: str, floors: tuple[set[str], ...]) -> None:
    folder = ROOT / package
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    found = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} == floor_of.keys()
    breaches = [
        f"{file.relative_to(folder)} imports {other}"
        for file in sorted(folder.rglob("*.py"))
        if (room := file.relative_to(folder).parts[0].removesuffix(".py")) in floor_of
        for other in own_imports(file, folder.name)
        if other != room and floor_of[other] >= floor_of[room]
    ]
    assert breaches == []


def test_client_library_knows_neither_its_command_nor_the_load_generator() -> None:
    package = ROOT / "clients/convserve"
    for file in package.glob("*.py"):
        if file.name not in ("main.py", "__main__.py"):
            assert not {"command", "bench", "main"} & set(own_imports(file, "convserve")), file.name


def own_imports(file: Path, package: str) -> Iterator[str]:
    """The modules or packages right below a package that a file imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    for top, _, rest in (name.partition(".") for name in names):
        if top == package and rest:
            yield rest.partition(".")[0]


def test_rooms_are_seen_however_they_are_imported(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    lines = ["import ours.a.b", "from ours import c, d", "from ours.e import f", "import other.g"]
    file.write_text("\n".join(lines))
    assert list(own_imports(file, "ours")) == ["a", "c", "d", "e"]


def test_imports_are_seen_inside_functions_too(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("def late():\n    import tensorflow.keras\n    from grpc import aio\n")
    assert set(imports(file)) == {"tensorflow", "grpc"}
