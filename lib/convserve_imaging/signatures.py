"""What bytes look like, for messages about files that are not what they should be."""

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
    (b"\x00\x05\x16\x07", "an AppleDouble file (a resource fork)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy array"),
)
_BRANDS = {
    b"avif": "an AVIF",
    b"avis": "an AVIF",
    b"crx ": "a Canon raw file",
    b"heic": "a HEIC",
    b"heix": "a HEIC",
    b"hevc": "a HEIC",
    b"mif1": "a HEIC",
    b"msf1": "a HEIC",
    b"qt  ": "a QuickTime film",
}
_HEAD = 512  # bytes that are looked at


def looks_like(data: bytes) -> str:
    """Returns what bytes look like, as a noun for a message: "a PNG", "HTML", "12 bytes ..."."""
    head = bytes(data[:_HEAD])
    if not head:
        return "nothing (0 bytes)"
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF":
        return "a WebP" if head[8:12] == b"WEBP" else "a RIFF file"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "an MP4 film")
    if not any(head):
        return f"zeros ({len(data):,} bytes)"
    inside = head.find(b"\xff\xd8\xff")
    if inside > 0:
        return f"a JPEG with {inside} other bytes before it"
    size = f"{len(data):,} bytes" if len(data) > 1 else "1 byte"
    return _text(head) or f"{size} beginning with {head[:8].hex(' ')}"


def _text(head: bytes) -> str | None:
    """Returns what kind of text it is; None if it is none."""
    try:
        # A character may be cut in two at the end of the head.
        text = head.decode(errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    lowered = text.lstrip("\ufeff \t\r\n").lower()
    if lowered.startswith(("<!doctype html", "<html")):
        return "HTML"
    if lowered.startswith("<"):
        return "SVG" if "<svg" in lowered else "XML"
    return "JSON" if lowered.startswith(("{", "[")) else "text"
