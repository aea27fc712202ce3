"""Small JPEG files of known pixels, written by hand: ITU-T T.81, annex B. Each number has an image of its own."""

from __future__ import annotations

import struct
from typing import NamedTuple

# So many images differ.
NUMBERS = 8 * 126
_COMMENT_BYTES = 65_000


class Image(NamedTuple):
    """What a decoder finds: all pixels of the image are equal, in all colours."""

    width: int
    brightness: float


def image_of(number: int) -> Image:
    """Returns the pixels of an image."""
    width, darker = number % 8, number // 8 % 126
    return Image(width + 1, 127.0 - darker)


def jpeg(number: int, size: int = 0) -> bytes:
    """Returns an image as a file of at least so many bytes: a comment fills it.

    It is one block, whose mean is coded as -4 in units of an eighth of the first quantizer.
    """
    width, brightness = image_of(number)
    quantizer = round(2 * (128 - brightness))
    frame = _segment(0xC0, struct.pack(">BHHBBBB", 8, 1, width, 1, 1, 0x11, 0))
    tables = b"".join(_segment(0xC4, bytes([kind, 1, *[0] * 15, symbol])) for kind, symbol in ((0x00, 3), (0x10, 0)))
    scan = _segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    bits = bytes([0b00110111])  # the mean has 3 bits (0), which are 011; nothing else (0); then padding
    head = b"\xff\xd8" + _segment(0xDB, bytes([0, quantizer, *[1] * 63]))
    filled = b"".join(
        _segment(0xFE, bytes(min(_COMMENT_BYTES, size - start))) for start in range(0, size, _COMMENT_BYTES)
    )
    return head + filled + frame + tables + scan + bits + b"\xff\xd9"


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
