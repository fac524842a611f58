"""Bytes become text: in whichever encoding they are, or they are refused."""

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import CharsetMatch, from_bytes

from components.converting.errors import SourceError
from components.converting.kinds import READ

# In the order of preference among encodings that explain a text equally well. Left out are those of machines that are
# gone: of a short text, an old Macintosh's and a mainframe's make sense too often.
_ENCODINGS = (
    "cp1252",
    "gb18030",
    "cp932",
    "big5",
    "euc_jp",
    "cp949",
    "cp1251",
    "koi8_r",
    "cp1250",
    "iso8859_2",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "iso8859_15",
    "cp874",
    "cp866",
)  # fmt: skip
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]|\x1b\([BJ]")
_META_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)\s*=\s*[\"']?([\w-]{2,30})", re.I
)
_CONTROL = bytes({*range(0x20), 0x7F} - set(b"\t\n\x0b\x0c\r\x1b"))
# Python has more codecs than charsets, and not all of them are harmless.
_CHARSET = re.compile(
    r"(utf|us-ascii|iso|windows|cp\d|latin|koi8|gb|big5|shift|sjis|euc|tis|mac)[\w-]*", re.I
)
_TYPOGRAPHY = frozenset("’‘‚“”„«»‹›–—…•·§°€£©®™¿¡ºª´×½\xa0、。「」『』（），：；？！％～・【】《》")
# An ASCII letter beside one of an alphabet that is not the Latin one.
_MIXED = re.compile("(?<=[a-zA-Z])[\u0370-\u1dff]|[\u0370-\u1dff](?=[a-zA-Z])")
_BINARY = (
    f"is no text but a binary file, or a text in an encoding that is not known; send one of these: {READ}; a text in "
    "UTF-8"
)
_SAMPLE = 65_536


@dataclass(frozen=True)
class Decoded:
    """A text, and what was lost while it was decoded."""

    text: str
    note: str | None = None


def decode(data: bytes, charset: str | None = None, is_html: bool = False) -> Decoded:
    """
    Decode a text in any common encoding.

    Asked in turn are: a byte order mark; UTF-16 without one; UTF-8; the charset that is declared; UTF-8 with a few
    broken bytes; and the encoding in which the bytes make most sense.

    :param data: the bytes.
    :param charset: the charset that was declared with them.
    :param is_html: whether to look for a charset that HTML declares.
    :returns: the text with U+FFFD for each byte that could not be decoded, and a note where that happened.
    :raises SourceError: if it is no text.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _leniently(data[len(bom) :], encoding)
    # Before UTF-8: English in UTF-16 is valid UTF-8 with a zero byte between any two letters.
    if b"\0" in data and (wide := _utf_16_without_bom(data)):
        return _leniently(data, wide)
    if _ISO_2022_JP.search(data, 0, _SAMPLE) and (japanese := _strictly(data, "iso2022_jp")):
        return Decoded(japanese)
    text = _strictly(data, "utf-8")
    if text is not None:
        _refuse_binary(data, most=0.2)
        return Decoded(text)
    if wide := _utf_16_without_bom(data):
        return _leniently(data, wide)
    _refuse_binary(data, most=0.02)
    return _not_utf_8(data, charset, is_html)


def _not_utf_8(data: bytes, charset: str | None, is_html: bool) -> Decoded:
    in_page = _META_CHARSET.search(data, 0, 4096) if is_html else None
    for declared in (charset, in_page and in_page[1].decode("ascii")):
        if declared and _CHARSET.fullmatch(declared) and (text := _strictly(data, declared)):
            return Decoded(text)
    damaged = _leniently(data, "utf-8")
    broken = damaged.text.count("\ufffd")
    if sum(character > "\x7f" for character in damaged.text) - broken > broken:
        return damaged
    if match := _most_sensible(data):
        return _leniently(data, match.encoding)
    raise SourceError(_BINARY)


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError, UnicodeError):
        return None


def _leniently(data: bytes, encoding: str) -> Decoded:
    text = _strictly(data, encoding)
    if text is not None:
        return Decoded(text)
    text = data.decode(encoding, "replace")
    return Decoded(text, f"some bytes are no valid {encoding.upper()} and were replaced by U+FFFD")


def _refuse_binary(data: bytes, most: float) -> None:
    control = len(data) - len(data.translate(None, _CONTROL))
    if control > 4 and control > most * len(data):
        raise SourceError(_BINARY)


def _utf_16_without_bom(data: bytes) -> str | None:
    """Tell UTF-16 by its blanks and line ends, or by East Asian commas and stops, which are one unit in a hundred."""
    sample = data[: _SAMPLE - _SAMPLE % 4]
    for encoding, blanks in (
        ("utf-32-le", (b" \0\0\0", b"\n\0\0\0")),
        ("utf-16-le", (b" \0", b"\n\0", b"\x01\x30", b"\x02\x30", b"\x0c\xff")),
        ("utf-16-be", (b"\0 ", b"\0\n", b"\x30\x01", b"\x30\x02", b"\xff\x0c")),
    ):
        width = len(blanks[0])
        pairs = [sample[start : start + width] for start in range(0, len(sample) - width + 1, width)]
        few = pairs.count(bytes(width))
        if sum(map(pairs.count, blanks)) * 100 > len(pairs) and few * 1000 <= len(pairs):
            text = sample.decode(encoding, "replace")
            if sum(character.isprintable() or character in "\t\r\n\f" for character in text) > 0.9 * len(
                text
            ):
                return encoding
    return None


def _most_sensible(data: bytes) -> CharsetMatch | None:
    matches = list(from_bytes(data, cp_isolation=list(_ENCODINGS)))
    if not matches:
        return None
    coherent = max(match.coherence for match in matches) - 0.2
    near = [match for match in matches if match.chaos <= matches[0].chaos + 0.12]
    # Encodings of one family differ in a few letters: take the one that gives letters and not signs, makes the most
    # sense in a language, and is the most usual.
    return max(
        near,
        key=lambda match: (
            round(_lettered(str(match)[:_SAMPLE]), 2),
            match.coherence >= coherent,
            match.chaos <= matches[0].chaos + 0.03,
            -_ENCODINGS.index(match.encoding),
        ),
    )


def _lettered(text: str) -> float:
    """Give the share of letters and typography in what is not ASCII; words that mix alphabets do not count."""
    foreign = sum(character > "\x7f" for character in text)
    good = sum(character > "\x7f" and (character.isalpha() or character in _TYPOGRAPHY) for character in text)
    return (good - len(_MIXED.findall(text))) / max(foreign, 1)
