"""PNG files without what changes from build to build."""

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def plain_png(data: bytes) -> bytes:
    """A PNG with its critical chunks alone: no text, no time, no name of the program that wrote it.

    The format: W3C, "Portable Network Graphics (PNG) Specification", section 5. A chunk is a length, four
    letters, its data and a checksum; a small first letter marks one that a viewer may ignore. Transparency
    (tRNS) and resolution (pHYs) are such, but are part of the picture and stay.
    """
    if not data.startswith(SIGNATURE):
        raise ValueError("no PNG")
    kept, at = [SIGNATURE], len(SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if kind[:1].isupper() or kind in (b"tRNS", b"pHYs"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
