import ast
import re
from pathlib import Path

import convserve_trainer
from convserve_trainer.wording import counted

FOLDER = Path(convserve_trainer.__file__).parent
#: Right behind a count in braces: what is so for several only.
SEVERAL = re.compile(r"^ (of them answer|epochs|steps|trials|seeds|kernels|filters|mistakes)\b")


def test_a_single_one_is_no_several() -> None:
    assert counted(1, "epoch") == "1 epoch"
    assert counted(0, "epoch") == "0 epochs"
    assert counted(1_000, "class", "classes") == "1,000 classes"
    assert counted(1, "is", "are") == "1 is"


def test_counts_in_messages_go_through_it() -> None:
    found = []
    for file in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, after in zip(node.values, node.values[1:], strict=False):
                plain = isinstance(value, ast.FormattedValue) and not isinstance(
                    value.value, ast.Call
                )
                if plain and isinstance(after, ast.Constant) and SEVERAL.match(str(after.value)):
                    found.append(f"{file.name}:{node.lineno} {ast.unparse(value)}{after.value!r}")
    assert found == []
