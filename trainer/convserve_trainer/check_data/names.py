"""Names of files as text of one line, whatever bytes they are made of."""


def printable(name: str) -> str:
    r"""Returns a name with what is not printable as a Python escape: "a\nb", "\udcff"."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in name
    )


def escaped(name: str) -> str:
    r"""Returns the same with each backslash doubled, so that the name can be had back."""
    return printable(name.replace("\\", "\\\\"))
