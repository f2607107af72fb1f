"""What each package, and each layer of a package, may import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What all programs share.
LIB = {"convserve_bundle", "convserve_host", "convserve_imaging", "convserve_store"}

#: Each package with its folder, and which others it may import.
PACKAGES = {
    "protos/convserve_protos": set[str](),
    "lib/convserve_host": set[str](),
    "lib/convserve_imaging": set[str](),
    "lib/convserve_bundle": {"convserve_protos", "convserve_host", "convserve_imaging"},
    "lib/convserve_store": {"convserve_protos", "convserve_host", "convserve_bundle"},
    "trainer/convserve_trainer": {"convserve_protos", *LIB},
    "server/convserve_server": {"convserve_protos", *LIB},
    "scoring/convserve_scoring": {"convserve_server", "convserve_protos", *LIB},
    "clients/convserve": {"convserve_bench", "convserve_protos", *LIB},
    "clients/convserve_bench": {"convserve", "convserve_protos"},
}
OURS = {package.partition("/")[2] for package in PACKAGES}

#: Libraries, and the only folders whose packages may import them.
LIBRARIES = {
    "tensorflow": {"trainer"},
    "keras": {"trainer"},
    "jax": {"trainer"},
    "mlflow": {"trainer"},
    "tf2onnx": {"trainer"},
    "onnx": {"trainer"},
    "onnxslim": {"trainer"},
    "onnxruntime": {"server", "trainer"},
    "grpc": {"server", "clients", "protos"},
    "grpc_health": {"server", "clients"},
    "grpc_reflection": {"server"},
    "pygrpc_native": {"server"},
    "uvloop": {"server"},
    "PIL": {"lib", "clients", "trainer"},
    "shtab": {"lib"},
    "hpack": {"clients"},
    "simplejpeg": {"lib"},
    "httptools": {"server"},
    "msgspec": {"scoring", "server", "trainer"},
    "pyarrow": {"scoring", "trainer"},
    "yaml": {"trainer"},
    "ray": {"scoring"},
    "dask": {"scoring"},
    "distributed": {"scoring"},
    "python_multipart": {"server"},
    "cykooz_resizer": {"lib"},
    "prometheus_client": {"server", "clients"},
    "opentelemetry": {"server"},
    "rich": {"clients"},
    "model_signing": {"lib"},
    "fsspec": {"lib"},
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
        ("scoring/convserve_scoring", "import grpc"),
    ],
)
def test_import_that_is_not_allowed_is_seen(
    package: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / package).mkdir(parents=True)
    (tmp_path / package / "planted.py").write_text(f"def late():\n    {line}\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert breaches(package) == [f"{package}/planted.py imports {line.split()[1]}"]


#: Layers of a package, from the bottom up: each may import those below it.
TRAINER = (
    {"errors", "wording"},
    {"host"},
    {"recipes", "datasets", "html"},
    {"nets", "check_data"},
    {"evaluation", "runs"},
    {"export", "fitting"},
    {"bundles"},
    {"tracking"},
    {"seeds"},
    {"report"},
    {"lecture", "context"},
    {"joint"},
    {"pipeline", "sweep"},
    {"following"},
    {"cli"},
    {"main", "job"},
    {"__main__"},
)


SERVER = (
    {"logs", "security"},
    {"settings"},
    {"host", "telemetry"},
    {"engines"},
    {"core"},
    {"protocols"},
    {"transports"},
    {"process"},
    {"main"},
    {"__main__"},
)

#: Libraries, and the only layers of the server that may import them.
SERVER_LIBRARIES = {
    "onnxruntime": {"engines"},
    "convserve_protos": {"engines", "protocols"},
    "google": {"engines", "protocols"},
    "grpc": {"transports"},
    "grpc_health": {"protocols"},
    "grpc_reflection": {"protocols"},
    "pygrpc_native": {"transports"},
    "uvloop": {"transports"},
    "prometheus_client": {"telemetry"},
    "opentelemetry": {"telemetry"},
}


@pytest.mark.parametrize(
    ("package", "layers"),
    [("trainer/convserve_trainer", TRAINER), ("server/convserve_server", SERVER)],
)
def test_layers_import_only_those_below(package: str, layers: tuple[set[str], ...]) -> None:
    folder = ROOT / package
    level_of = {part: level for level, parts in enumerate(layers) for part in parts}
    found = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} == level_of.keys()
    breaches = [
        f"{file.relative_to(folder)} imports {other}"
        for file in sorted(folder.rglob("*.py"))
        if (part := file.relative_to(folder).parts[0].removesuffix(".py")) in level_of
        for other in own_imports(file, folder.name)
        if other != part and level_of[other] >= level_of[part]
    ]
    assert breaches == []


def library_breaches(folder: Path) -> list[str]:
    """What the layers of the server import although other layers alone may."""
    return [
        f"{file.relative_to(folder)} imports {library}"
        for file in sorted(folder.rglob("*.py"))
        for library in sorted(set(imports(file)) & SERVER_LIBRARIES.keys())
        if file.relative_to(folder).parts[0] not in SERVER_LIBRARIES[library]
    ]


def test_libraries_stay_in_their_layers_of_the_server() -> None:
    assert library_breaches(ROOT / "server/convserve_server") == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/batcher.py", "import grpc"),
        ("core/models.py", "from convserve_protos import bundle_pb2"),
        ("core/classifier.py", "from google.protobuf import message"),
        ("protocols/health.py", "import grpc"),
        ("transports/native.py", "import onnxruntime"),
    ],
)
def test_library_in_a_wrong_layer_is_seen(file: str, line: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(f"def late():\n    {line}\n")
    library = line.split()[1].partition(".")[0]
    assert library_breaches(tmp_path) == [f"{file} imports {library}"]


def test_core_brings_neither_grpc_nor_protobuf_nor_onnxruntime() -> None:
    program = """if True:
        import importlib, pkgutil, sys
        import convserve_server.core as core
        for module in pkgutil.iter_modules(core.__path__):
            importlib.import_module(f"convserve_server.core.{module.name}")
        print(*sorted({"google", "grpc", "onnxruntime"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def modules_of(package: Path) -> set[str]:
    """What the files of a package import, as whole names of modules."""
    found: set[str] = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found


def test_scoring_imports_of_the_server_only_its_engines() -> None:
    found = modules_of(ROOT / "scoring/convserve_scoring")
    server = {name for name in found if name.partition(".")[0] == "convserve_server"}
    assert server
    assert {name for name in server if not name.startswith("convserve_server.engines.")} == set()


def test_supervisor_brings_nothing_heavy() -> None:
    program = """if True:
        import sys
        import convserve_server.process.supervisor
        heavy = {"botocore", "fsspec", "google", "grpc", "numpy", "onnxruntime", "uvloop"}
        print(*sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def test_client_library_knows_neither_its_command_nor_the_load_generator() -> None:
    package = ROOT / "clients/convserve"
    for file in package.glob("*.py"):
        if file.name not in ("main.py", "__main__.py"):
            assert not {"command", "main"} & set(own_imports(file, "convserve")), file.name
    users = [file for file in package.rglob("*.py") if "convserve_bench" in imports(file)]
    assert users == [package / "command/options.py"]
    module = ast.parse(users[0].read_text())
    assert "convserve_bench" not in ast.dump(ast.Module([*_at_import(module)], []))


def _at_import(module: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module that run when it is imported."""
    return (each for each in module.body if not isinstance(each, ast.FunctionDef))


def test_only_the_load_generator_needs_its_extra() -> None:
    users = {file for file in (ROOT / "clients").rglob("*.py") if "hpack" in set(imports(file))}
    assert users == {ROOT / "clients/convserve_bench/header_blocks.py"}


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


def test_parts_are_seen_however_they_are_imported(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    lines = ["import ours.a.b", "from ours import c, d", "from ours.e import f", "import other.g"]
    file.write_text("\n".join(lines))
    assert list(own_imports(file, "ours")) == ["a", "c", "d", "e"]


def test_imports_are_seen_inside_functions_too(tmp_path: Path) -> None:
    file = tmp_path / "late.py"
    file.write_text("def late():\n    import tensorflow.keras\n    from grpc import aio\n")
    assert set(imports(file)) == {"tensorflow", "grpc"}


def test_only_the_server_imports_the_messages_of_open_inference() -> None:
    # Other projects' clients have a file of the same package: one process cannot hold two.
    importers = {
        file.relative_to(ROOT).parts[0]
        for folder in ("clients", "lib", "server", "trainer")
        for file in (ROOT / folder).rglob("*.py")
        if "open_inference_pb2" in file.read_text()
    }
    assert importers == {"server"}
