"""Every block of the pages that a beginner reads is run as it is pasted, in one shell a page.

A reader runs `make demo` first. Here small things of the same names replace what it makes:

- MNIST is 400 digits drawn from a font, in the user's cache; the digests that the programs check
  are those of these files (a sitecustomize.py in PYTHONPATH).
- pictures/ is made by the demo's own code from these digits, with fewer photographs; models/mnist/1
  is a bundle that was made without training.
- cats_dogs/, fashion/, shoe.png and the like, which a page names as the reader's own, are drawn.
- `fit` trains for some steps, `bench` measures for half a second, `--wait` is long: see CHANGED.
- The server listens on a free port, by the variables CONVSERVE_PORT and CONVSERVE_SERVER; for HTTP
  on another one in place of 8080.

A block that is not run has a comment above it that says why; its commands are at least parsed.
"""

import gzip
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import convserve.command.options
import convserve_server.settings.command_line
import convserve_trainer.cli.parser
from benchmarks.harness.ports import free_port
from convserve_imaging.mnist_files import FILES
from convserve_trainer.datasets.mnist import Dataset
from examples.demo import digits, photo_set
from tests.bundles import write_bundle
from tests.pages import Block, Shell, blocks, commands
from tests.trainer import drawn, idx_files

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "training",
            "lecture",
            "photographs",
            "errors",
            "http",
            "keys",
            "deploy",
            "kubernetes",
            "models",
            "rollout",
            "monitoring",
            "extending",
            "tls",
            "signing",
            "supply-chain",
        )
    ),
]
BLOCK_S = 600.0
"""A training takes ten seconds, and on a machine of many tests at once minutes."""

pytestmark = pytest.mark.timeout(1.5 * BLOCK_S)

CHANGED = (
    # Other settings than the recipe's also lift its floor, which such a net would miss.
    (r"convserve-train fit (digits|photos)", r"convserve-train fit \1 --epochs 2 --steps 2"),
    (r"(convserve-train fit photos .*--data cats_dogs)", r"\1 --size 64x64"),
    (r"(convserve bench .*)--seconds 5", r"\1--seconds 0.5 --warm-up 0.1"),
    # Where many tests run at once a server starts late.
    (r"--wait 30", "--wait 300"),
)

BLOCKS = [(page, block) for page in PAGES for block in blocks((ROOT / page).read_text())]
RUN = [(page, block) for page, block in BLOCKS if block.reason is None]
NOT_RUN = [(page, block) for page, block in BLOCKS if block.reason is not None]


def each(some: list[tuple[str, Block]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("page", "block"), [pytest.param(page, block, id=f"{page}-{block}") for page, block in some]
    )


def draw_digits(count: int, seed: int) -> tuple[idx_files.Array, idx_files.Array]:
    """Returns uint8 [N, 28, 28] and [N]: digits of a font, light on dark, here and there."""
    drawn_by = np.random.default_rng(seed)
    font = ImageFont.load_default(22)
    labels = np.arange(count, dtype=np.uint8) % 10
    images = np.zeros((count, 28, 28), np.uint8)
    for index, label in enumerate(labels):
        sheet = Image.new("L", (28, 28))
        corner = float(drawn_by.integers(5, 11)), float(drawn_by.integers(-2, 4))
        ImageDraw.Draw(sheet).text(corner, str(label), 255, font)
        # No two alike, or a photograph of one would be a copy of another's.
        images[index] = np.asarray(
            sheet.rotate(drawn_by.uniform(-25, 25), Image.Resampling.BICUBIC)
        )
    return images, labels


@dataclass(frozen=True)
class Home:
    """What the reader has in common on all pages: a cache with MNIST, and its digests in place."""

    folder: Path
    mnist: Dataset

    def environment(self, port: int) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if "CONVSERVE_" not in key}
        return kept | {
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPATH": str(self.folder / "site"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "CONVSERVE_PORT": str(port),
            "CONVSERVE_SERVER": f"127.0.0.1:{port}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    train, test = draw_digits(300, seed=1), draw_digits(100, seed=2)
    cache = folder / "cache" / "convserve" / "mnist"
    cache.mkdir(parents=True)
    known = {}
    for file, array in zip(FILES, (*train, *test), strict=True):
        data = idx_files.encoded(array)
        (cache / f"{file.name}.gz").write_bytes(gzip.compress(data))
        known[file.name] = (array.shape, hashlib.sha256(data).hexdigest())
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from convserve_imaging.mnist_files import FILES\n"
        f"known = {known!r}\n"
        "for file in FILES:\n"
        "    shape, digest = known[file.name]\n"
        "    object.__setattr__(file, 'shape', shape)\n"
        "    object.__setattr__(file, 'sha256', digest)\n"
    )
    dataset = Dataset(train[0][..., None], train[1], test[0][..., None], test[1])
    return Home(folder, dataset)


def lay_out(folder: Path, home: Home) -> None:
    """Leaves in a folder what `make demo` does, and what pages call the reader's own."""
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    write_bundle(folder / "models")
    digits.leave(folder / "pictures" / "digits", home.mnist)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(photo_set, "TRAIN", 20)
        patched.setattr(photo_set, "VALIDATION", 10)
        photo_set.make(folder / "pictures" / "ones-and-zeros", home.mnist)
    drawn.draw_parts(folder / "cats_dogs", {"red": 20, "green": 20}, {"red": 5, "green": 5})
    idx_files.write(folder / "fashion", (20, 20, 20), (5, 5, 5), (28, 28))
    Image.fromarray(idx_files.labelled((1, 1, 1), (28, 28))[0][1]).save(folder / "shoe.png")


class Reader:
    """Reads one page: runs each of its blocks once, in order."""

    def __init__(self, page: str, folder: Path, home: Home) -> None:
        self._left = [block for block in blocks((ROOT / page).read_text()) if block.reason is None]
        lay_out(folder, home)
        environment = home.environment(free_port())
        self._server = environment["CONVSERVE_SERVER"]
        self._shell = Shell(folder, environment)
        self._http_port = free_port()

    def run_through(self, block: Block) -> None:
        """Runs the blocks that come before one, if they were not run yet, and the block."""
        while self._left and self._left[0].number <= block.number:
            first = self._left.pop(0)
            code = first.code
            for pasted, here in CHANGED:
                code = re.sub(pasted, here, code)
            code = code.replace("8080", str(self._http_port))
            code = code.replace("localhost:50051", self._server)
            print(self._shell.run(replace(first, code=code), BLOCK_S))
        if not self._left:
            self._shell.wait(BLOCK_S)

    def close(self) -> None:
        self._shell.close()


@pytest.fixture(scope="module")
def readers(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    made: dict[str, Reader] = {}

    class Readers(dict[str, Reader]):
        def __missing__(self, page: str) -> Reader:
            made[page] = self[page] = Reader(page, tmp_path_factory.mktemp("page"), home)
            return made[page]

    yield Readers()
    for reader in made.values():
        reader.close()


@each(RUN)
def test_block_runs_as_it_is_pasted(page: str, block: Block, readers: dict[str, Reader]) -> None:
    assert block.language in ("", "python"), "a block of another language says why it is not run"
    readers[page].run_through(block)


@each(NOT_RUN)
def test_block_that_is_not_run_has_a_reason_and_real_commands(page: str, block: Block) -> None:
    assert block.reason
    for path in re.findall(r"tests/[\w/.]+", block.reason):
        assert (ROOT / path).exists(), path
    for program, *arguments in commands(block.code):
        if program == "convserve":
            convserve.command.options.parser().parse_args(arguments)
        elif program == "convserve-train":
            convserve_trainer.cli.parser.parser().parse_args(arguments)
        else:
            convserve_server.settings.command_line.parser().parse_args(arguments)


def test_pages_have_blocks_that_run_and_blocks_that_do_not() -> None:
    assert {page for page, _ in RUN} == {
        "README.md",
        "docs/training.md",
        "docs/http.md",
        "docs/keys.md",
        "docs/models.md",
        "docs/rollout.md",
        "docs/signing.md",
        "docs/tls.md",
    }
    assert len(RUN) > 10
    assert len(NOT_RUN) > 10


def test_block_without_a_reason_is_run_and_a_failing_one_is_reported(tmp_path: Path) -> None:
    page = "<!-- not run: x -->\n```\na\n```\n\n```\necho in; false | true\necho on\n```\n"
    skipped, broken = blocks(page)
    assert (skipped.reason, broken.reason) == ("x", None)
    shell = Shell(tmp_path, os.environ)
    try:
        with pytest.raises(AssertionError, match=r"of \. \./\.block-1\.sh failed:\nin\n$"):
            shell.run(broken, BLOCK_S)
    finally:
        shell.close()
