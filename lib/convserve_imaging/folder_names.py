"""Names in folders of pictures: those of classes, and those that belong to a system."""

import unicodedata

_OF_SYSTEMS = frozenset(
    {
        "@eaDir",  # Synology: thumbnails
        "#recycle",
        "#snapshot",
        "__MACOSX",  # macOS, in archives
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    }
)


def is_passed_over(name: str) -> bool:
    """Returns whether a file or folder is hidden, or belongs to a system, and is to be skipped.

    Args:
        name: of the file or folder, without its parent.
    """
    return name.startswith(".") or name in _OF_SYSTEMS


def class_name(name: str) -> str:
    """Returns the name of the class that a folder, or a line of a file, names: in NFC.

    macOS writes an accent as a character of its own (NFD), others in one with its letter. Both look
    the same and are the same name.

    Source: Unicode Standard Annex 15, "Unicode Normalization Forms".
    """
    return unicodedata.normalize("NFC", name)
