"""Text in any encoding."""

import random

import pytest

from components.converting.decoding import decode
from components.converting.errors import SourceError

TEXTS = {
    "de": "Das Museum für Glasbläserei öffnet um zehn Uhr. Straße: Große Gärtnergasse 5.",
    "fr": "Le musée est ouvert de dix heures à midi. L’entrée coûte 5 € — gratuit pour les élèves.",
    "pl": "Muzeum szkła otwiera się o dziesiątej. Proszę zachować ciszę. Łódź, Kraków.",
    "ru": "Где находится музей стекла? Он открывается в десять часов утра. Вход свободный.",
    "el": "Το μουσείο ανοίγει στις δέκα το πρωί. Η είσοδος είναι ελεύθερη.",
    "he": "המוזיאון נפתח בשעה עשר בבוקר. הכניסה חופשית.",
    "ja": "これは日本語の文章です。美術館は十時に開きます。入場は無料です。",
    "ko": "이것은 한국어 문장입니다. 박물관은 열 시에 엽니다.",
    "zh": "黑豹队的防守只丢了 308分，在联赛中排名第六，同时也以 24次拦截领先。",
    "table": "Stadt;Einwohner;Bürgermeister\nKöln;1.073.096;Müller\nGöttingen;118.911;Schröder\n",
}


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *(
            ("de", name)
            for name in ("utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32")
        ),
        *(("fr", name) for name in ("cp1252", "utf-16-be")),
        *(("pl", name) for name in ("cp1250", "iso8859-2")),
        *(("ru", name) for name in ("cp1251", "koi8-r", "cp866", "utf-16-le")),
        *(("ja", name) for name in ("cp932", "euc-jp", "iso2022-jp", "utf-16-le", "utf-16-be")),
        *(("zh", name) for name in ("gb18030", "utf-16-le")),
        ("el", "cp1253"),
        ("he", "cp1255"),
        ("ko", "cp949"),
        ("table", "latin-1"),
    ],
)
def test_the_encoding_is_found(language: str, encoding: str) -> None:
    """A short text is decoded right in whichever common encoding it is, without being told which."""
    decoded = decode(TEXTS[language].encode(encoding))
    assert decoded.text == TEXTS[language]
    assert decoded.note is None


def test_a_declared_charset_counts_only_where_it_can_be_right() -> None:
    """A page that says UTF-8 and is Latin-1 is read as Latin-1; one that says Latin-1 and is UTF-8, as UTF-8."""
    page = f'<meta charset="{{}}"><p>{TEXTS["de"]}</p>'
    lies, told = page.format("utf-8"), page.format("iso-8859-1")
    assert decode(lies.encode("latin-1"), is_html=True).text == lies
    assert decode(told.encode("utf-8"), is_html=True).text == told
    assert decode("Łódź".encode("iso8859-2"), charset="iso-8859-2").text == "Łódź"
    assert decode("Ärger".encode("latin-1"), charset="rot13").text == "Ärger"


def test_broken_utf_8_keeps_what_is_whole() -> None:
    """A few broken bytes in a UTF-8 text are replaced and noted, and spoil nothing else."""
    decoded = decode(TEXTS["ru"].encode() + b"\xff\xfe" + TEXTS["ja"].encode())
    assert decoded.text == TEXTS["ru"] + "\ufffd\ufffd" + TEXTS["ja"]
    assert "replaced by U+FFFD" in str(decoded.note)


@pytest.mark.parametrize("size", [50, 1_000, 50_000])
def test_bytes_that_are_no_text_are_refused(size: int) -> None:
    """Neither random bytes nor zeros are indexed as gibberish."""
    for data in (random.Random(size).randbytes(size), bytes(size)):
        with pytest.raises(SourceError, match=r"binary file.*docx, pptx, xlsx"):
            decode(data)


def test_control_characters_make_no_binary() -> None:
    """A log with colours and a zero byte is text."""
    assert decode("plain\x00\x1b[31mred\x1b[0m ünd so on and on".encode()).text.startswith("plain\x00")
