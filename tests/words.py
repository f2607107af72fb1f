"""Fails if code or pages use a word that tests/words.toml refuses: `python -m tests.words`.

Reads every text file that git does not ignore. Of Python's it checks comments and string literals
as text, and the names that they define; of all others the text. Words between backticks are names,
not text.
"""

import argparse
import ast
import fnmatch
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "words.toml"

TEXT = (
    *(".css", ".html", ".in", ".js", ".json", ".md"),
    *(".proto", ".sh", ".svg", ".toml", ".yaml", ".yml"),
)
TEXT_NAMES = ("Makefile", "Dockerfile", "run")

KINDS = ("text", "comments", "docstrings", "strings")

_BACKTICKS = re.compile(r"`[^`\n]*`|``[^`]*``")
_CODE = re.compile(r"[^\S\n]*(?:\0[^\S\n]*)+")
_FIELD = re.compile(r"\{[^{}\n]*\}")
_PREFIX = re.compile(r"^[ \t]*(?://+|#+:?|/?\*+|<!--)", re.MULTILINE)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Rule:
    """A word or phrase that is refused.

    Attributes:
        match: The expression, as the list has it.
        use: What to write instead.
        allowed: Expressions of what is ordinary: of the text around a phrase, of the words of a
            name around its word.
        kinds: Of a phrase, where it is looked for: some of `KINDS`.
    """

    match: str
    use: str
    allowed: tuple[str, ...]
    kinds: tuple[str, ...] = KINDS

    def found_in(self, text: str) -> Iterator[tuple[int, str]]:
        """Yields where the phrase begins in a text, and what it is there."""
        matches = list(_phrase(rf"\b(?:{self.match})(?![\w-])", text))
        if not matches:
            return
        ordinary = [found.span() for each in self.allowed for found in _phrase(each, text)]
        for found in matches:
            if not any(start < found.end() and found.start() < end for start, end in ordinary):
                yield found.start(), " ".join(found[0].split())

    def refuses_name(self, name: str) -> bool:
        """Returns whether a name has the word among those that it is made of."""
        words = "_".join(word.lower() for word in _PARTS.findall(name))
        for ordinary in self.allowed:
            words = re.sub(rf"(?<![^_]){ordinary}(?![^_])", "", words)
        return any(re.fullmatch(self.match, word) for word in words.split("_"))


@dataclass(frozen=True)
class Words:
    """The list: phrases of text, words of names, files that are passed over."""

    phrases: tuple[Rule, ...]
    names: tuple[Rule, ...]
    skip: tuple[str, ...]
    pending: dict[str, list[str]]

    def skips(self, path: str) -> bool:
        """Returns whether a file is not checked at all."""
        return any(fnmatch.fnmatch(path, pattern) for pattern in self.skip)

    def is_pending(self, path: str, rule: Rule) -> bool:
        """Returns whether a rule is not yet applied to a file."""
        lists = [rules for start, rules in self.pending.items() if path.startswith(start)]
        return any("*" in rules or rule.match in rules for rules in lists)


@dataclass(frozen=True)
class Problem:
    """A word that is refused, and where it is."""

    path: str
    line: int
    found: str
    rule: Rule

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.found}": use {self.rule.use}'


def read_words(path: Path = LIST) -> Words:
    """Returns the list in a file."""
    content = tomllib.loads(path.read_text())
    return Words(
        phrases=tuple(map(_rule, content["phrase"])),
        names=tuple(map(_rule, content["name"])),
        skip=tuple(content["skip"]),
        pending=content["pending"],
    )


def check(path: str, content: str, words: Words) -> list[Problem]:
    """Returns the refused words of one file, in the order of its lines.

    Args:
        path: Of the file, relative to the root.
        content: Of the file.
        words: The list.
    """
    problems = [
        Problem(path, 1, part, rule)
        for part in path.split("/")
        for rule in words.names
        if rule.refuses_name(Path(part).stem)
    ]
    nodes = list(ast.walk(ast.parse(content))) if path.endswith(".py") else []
    parts = _python_texts(content, nodes) if nodes else {"text": _PREFIX.sub(_blank, content)}
    for kind, text in parts.items():
        plain = _BACKTICKS.sub(_blank, text)
        for rule in words.phrases:
            if kind in rule.kinds:
                problems += [
                    Problem(path, plain.count("\n", 0, start) + 1, found, rule)
                    for start, found in rule.found_in(plain)
                ]
    problems += [
        Problem(path, line, name, rule)
        for name, line in _defined(nodes)
        for rule in words.names
        if rule.refuses_name(name)
    ]
    return sorted(set(problems), key=lambda problem: (problem.line, problem.found))


def text_files(folders: Sequence[str] = ()) -> Iterator[str]:
    """Yields the text files that git does not ignore, or those of some folders, from the root."""
    options = ["-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    command = ["git", "ls-files", *options, "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for path in listed.split("\0"):
        name = path.rpartition("/")[2]
        if (path.endswith((".py", *TEXT)) or name in TEXT_NAMES) and (ROOT / path).is_file():
            yield path


def _rule(entry: dict[str, object]) -> Rule:
    allowed, kinds = entry.get("allowed", []), entry.get("in", list(KINDS))
    assert isinstance(allowed, list)
    assert isinstance(kinds, list)
    assert set(kinds) <= set(KINDS), f"in: expected some of {KINDS}, got {kinds}"
    return Rule(str(entry["match"]), str(entry["use"]), tuple(allowed), tuple(kinds))


def _phrase(expression: str, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(expression.replace(" ", r"\s+"), text, re.IGNORECASE)


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def _python_texts(content: str, nodes: Sequence[ast.AST]) -> dict[str, str]:
    """Returns comments, docstrings and other strings, each as a text with the lines of the file.

    What is code there is one character that no phrase has, so that none goes across it.
    """
    starts = [0]
    for line in io.StringIO(content):
        starts.append(starts[-1] + len(line))
    canvas = re.sub(r"\S", "\0", content)
    texts = {kind: list(canvas) for kind in KINDS[1:]}
    docstrings = _docstring_lines(nodes)
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        name = tokenize.tok_name[token.type]
        if name not in ("COMMENT", "STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END"):
            continue
        kind = "comments" if name == "COMMENT" else "strings"
        if name == "STRING" and token.start[0] in docstrings:
            kind = "docstrings"
        start, end = (starts[line - 1] + column for line, column in (token.start, token.end))
        texts[kind][start:end] = _plain(content[start:end], name)
    return {kind: _CODE.sub("\0", "".join(text)) for kind, text in texts.items()}


def _plain(token: str, name: str) -> str:
    """Returns the text of a comment or a literal, of the same length, without its marks."""
    if name == "COMMENT":
        return re.sub(r"^#+:?", _blank, token)
    if name in ("FSTRING_START", "FSTRING_END"):
        return " " * len(token)
    if name == "STRING":
        token = re.sub(r"^[A-Za-z]*(?:\"{3}|'{3}|\"|')|(?:\"{3}|'{3}|\"|')$", _blank, token)
    return _FIELD.sub(lambda found: "\0" * len(found[0]), token)


def _docstring_lines(nodes: Sequence[ast.AST]) -> set[int]:
    """Returns the lines on which a literal begins that is a statement of its own."""
    return {
        node.lineno
        for node in nodes
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _defined(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yields the names that code gives to something, and their lines."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno


def main(arguments: Sequence[str]) -> int:
    """Prints what is refused; returns 1 if anything is."""
    parser = argparse.ArgumentParser(prog="python -m tests.words")
    parser.add_argument("paths", nargs="*", help="files and folders [default: all]")
    parser.add_argument("--all", action="store_true", help="check what is pending, too")
    parser.add_argument("--count", action="store_true", help="of all, print how many a folder has")
    options = parser.parse_args(arguments)
    words = read_words()
    problems = [
        problem
        for path in text_files(options.paths)
        if not words.skips(path)
        for problem in check(path, (ROOT / path).read_text(), words)
        if options.all or options.count or not words.is_pending(path, problem.rule)
    ]
    if options.count:
        counts = Counter(problem.path.split("/")[0] for problem in problems)
        for folder, count in counts.most_common():
            print(f"{count:6,}  {folder}")
        return 0
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
