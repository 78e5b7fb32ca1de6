"""HDF5 files without the times of their objects, so that the same content gives the same bytes.

ITK lets HDF5 note when each object was made, in the header of the object. Nothing reads these times. The format is
that of the HDF5 File Format Specification 3.0, IV.A.1.b (version 2 of the object header).
"""

from __future__ import annotations

from pathlib import Path

#: Bits of the flags of an object header: width of the size of its first chunk, bounds of attributes, times.
_SIZE_WIDTH, _HAS_BOUNDS, _HAS_TIMES = 0b11, 1 << 4, 1 << 5
_SIGNATURE = b"OHDR\x02"
_N_TIMES_BYTES, _N_BOUNDS_BYTES, _N_CHECKSUM_BYTES = 16, 4, 4
_WORD = 0xFFFFFFFF


def clear_times(path: Path) -> None:
    """Set the times in all object headers of an HDF5 file to 0, and correct their checksums.

    A place that looks like a header, but whose checksum does not match, is data and is left alone.
    """
    content = bytearray(path.read_bytes())
    place = content.find(_SIGNATURE)
    while place >= 0:
        _clear_header(content, place)
        place = content.find(_SIGNATURE, place + 1)
    path.write_bytes(content)


def _clear_header(content: bytearray, start: int) -> None:
    """Clear the times of the object header that begins at ``start``, if there is one and it has times."""
    times = start + len(_SIGNATURE) + 1
    flags = content[times - 1] if times <= len(content) else 0
    if not flags & _HAS_TIMES:
        return
    size = times + _N_TIMES_BYTES + (_N_BOUNDS_BYTES if flags & _HAS_BOUNDS else 0)
    messages = size + (1 << (flags & _SIZE_WIDTH))
    end = messages + int.from_bytes(content[size:messages], "little")
    stated = int.from_bytes(content[end : end + _N_CHECKSUM_BYTES], "little")
    if end + _N_CHECKSUM_BYTES > len(content) or checksum(content[start:end]) != stated:
        return
    content[times : times + _N_TIMES_BYTES] = bytes(_N_TIMES_BYTES)
    content[end : end + _N_CHECKSUM_BYTES] = checksum(content[start:end]).to_bytes(_N_CHECKSUM_BYTES, "little")


def checksum(data: bytes | bytearray) -> int:
    """Return the checksum that HDF5 puts after its metadata: Bob Jenkins's ``lookup3``, 32 bits, initial value 0.

    >>> hex(checksum(b"Four score and seven years ago"))
    '0x17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    if not data:
        return c
    padded = bytes(data) + bytes(-len(data) % 12)
    words = [int.from_bytes(padded[place : place + 4], "little") for place in range(0, len(padded), 4)]
    for place in range(0, len(words) - 3, 3):
        a, b, c = _mixed(*((x + y) & _WORD for x, y in zip((a, b, c), words[place : place + 3], strict=True)))
    return _final(*((x + y) & _WORD for x, y in zip((a, b, c), words[-3:], strict=True)))


def _turned(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _WORD


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _WORD) ^ _turned(c, bits)
        c = (c + b) & _WORD
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turned(b, bits)) & _WORD
        a, b, c = b, c, a
    # after seven steps the roles have turned once more than twice round
    return b
