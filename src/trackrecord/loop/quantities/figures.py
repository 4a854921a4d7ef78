"""Numbers in prose, before their units: digits, words, powers and fractions; and what is none.

Names (`H100`, `FP8`, `llama-3-70b`, `TP=4`), places (`step 3`, `section 3.2`), versions, dates,
ordinals and percentiles are hidden before anything is read.

Invariant: every search is bounded, so that reading is linear in the text, and no text makes it
fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

_PLACES = frozenset(
    "step section chapter figure fig table equation eq version release level area question part "
    "phase stage layer block request req rank line page issue pr number no rule point item option "
    "case appendix cuda python pytorch torch triton arxiv volume week day session rfc gpu device "
    "node seq sequence slot expert head gen generation sm bullet commit id".split()
)
"""Words that a number behind them names one of."""
_VERBS = frozenset(
    "releases issues requests points pages numbers ranks levels stages blocks".split()
)
"""What looks like several of them, and is a verb: `releases 90 blocks`."""
_PLACE = re.compile(
    r"\b([A-Za-z]{2,10})(?: |(?<=\b(?i:fig|sec))\. ?|(?<=\b(?i:eq|no))\. ?)#?\d[\d.]*"
    r"(?:(?:,| and| to|-|–) ?\d+)*\b"
    r"(?!\.?\d* ?(?:%|[kKMGTPE]i?B|ms|us|µs|[x×*/=+]))"
)
_MONTHS = "jan|feb|mar|apr|may|june?|july?|aug|sep|sept|oct|nov|dec"
_FAMILIES = "llama|qwen|mistral|mixtral|deepseek|gemma|phi|gpt|opt|glm|kimi"
_NAMES = re.compile(
    "|".join(
        (
            r"https?://\S+",
            r"\b\d{4}-\d\d-\d\d\b|\b\d{1,2}/\d{1,2}/\d{4}\b|\b\d{1,2}:\d\d(?::\d\d)?\b",
            rf"\b(?:\d{{1,2}} )?(?i:(?:{_MONTHS})[a-z]*) (?:\d{{1,2}},? )?\d{{4}}\b",
            r"\b(?i:in|since|by|until|of) (?:199|20[0-3])\d\b(?! *[a-zA-Z/%])",
            r"\bv?\d+\.\d+\.\d+(?:[.\w-]*\w)?|\bv\d+(?:\.\d+)*\b|#\d+|\b0x[0-9a-fA-F]+\b",
            r"\b\d+(?:st|nd|rd|th)\b",
            rf"\b(?i:{_FAMILIES})[ -]?v?\d[\w.]*+(?:[- ]\d+(?:\.\d+)?[bB]\b|-[\w.]++)*",
            r"(?<![\w.-])(?<!\d )(?!(?:sub|non|pre|post|under|over|mid|near)-)"
            r"[A-Za-z_][\w.]*+(?:-(?!\d)[\w.]++)*-\d[\w.]*+(?:-[\w.]++)*",
            r"\b\d+x\d+(?:\.\d+)?[bB]\b",
            r"\b(?i:tp|pp|dp|ep|cp|sp|pcp|dcp)[ ]?[=:]?[ ]?\d+\b(?![,.]\d)"
            r"(?! ?(?:[x×*] |[kKMGT]i?B\b|m?s\b|us\b|B\b|tok|req))",
            r"(?m:^[ \t]*(?:\d+[.)]|\(\d+\)) )",
            r"\b[A-Za-z_]++\d\w*+",
        )
    )
)
HIDDEN = "\ue000"
_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2010\u2011", "-"),
        **dict.fromkeys("\u00f7\u2044\u2215", "/"),
        **dict.fromkeys("\t\r\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u2715\u2a09", "×"),
        "\u22c5": "·",
        "\u2019": "'",
        "\u03bc": "µ",
        HIDDEN: "?",
    }
)
_TIMES_SIGN = re.compile(r"(?<=[\d\s)])[xX](?=\s{0,4}[\d(.$])")
_WRAPPED = re.compile(r"(?<!\n)\n(?! {0,4}(?:[\n*•-]|\d{1,2}[.)]\s))")


def plain_text(text: str) -> str:
    """`text`, letter for letter: one sign for each meaning, wrapped lines joined, names hidden."""
    text = _NAMES.sub(_hidden, text.translate(_SAME))
    text = _PLACE.sub(_hidden_place, text)
    return _TIMES_SIGN.sub("×", _WRAPPED.sub(" ", text))


def _hidden(found: re.Match[str]) -> str:
    return HIDDEN * len(found.group())


def _hidden_place(found: re.Match[str]) -> str:
    word = found.group(1).lower()
    one = word if word in _VERBS else word.removesuffix("s")
    return _hidden(found) if one in _PLACES else found.group()


_DIGITS = (
    r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d{1,3}(?:[ '_]\d{3})+(?! ?[\d'])(?:\.\d+)?"
    r"|\d[\d_]*(?:\.\d+)?|\.\d+"
)
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w\d)\]] )(?<![\w)\].])-)?"
    rf"(?P<digits>{_DIGITS})(?:[eE](?P<exp>[+-]?\d{{1,3}})(?![\w.]))?",
    re.ASCII,
)
_NAME_BEFORE = re.compile(rf"(?:[^\W_]_?|{HIDDEN}|__)\Z")
_POWER_OF_TEN = re.compile(r" ?[×·*] ?10(?:(?:\^|\*\*) ?(?P<p>-?\d{1,3})|(?P<s>[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+))")
_POWER = re.compile(r"(?:\^|\*\*) ?(?P<p>-?\d{1,3})(?![\d.])|(?P<s>[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_RANGE = re.compile(r" ?[-–—] ?(?=[\d.])| (?:to|and|or) (?=[\d.])")
_NO_RANGE = re.compile(r"\s{0,3}[=≈×*/+]")
_FRACTION = re.compile(r"(?P<a>\d{1,2}) ?/ ?(?P<b>\d{1,2})(?![\d.,]*\d)(?! ?[=≈])", re.ASCII)
_VULGAR = {"½": 0.5, "⅓": 1 / 3, "⅔": 2 / 3, "¼": 0.25, "¾": 0.75, "⅕": 0.2, "⅛": 0.125, "⅒": 0.1}

_SMALL = {
    word: float(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10.0 * value
    for value, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2
    )
}
_LARGE = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_UNITS = _SMALL | _TENS
_PARTS = {
    "half": 0.5, "third": 1 / 3, "quarter": 0.25, "fourth": 0.25, "fifth": 0.2,
    "sixth": 1 / 6, "eighth": 0.125, "tenth": 0.1, "sixteenth": 1 / 16, "hundredth": 0.01,
}  # fmt: skip
_FACTORS = {
    "twice": 2.0, "thrice": 3.0, "halved": 0.5, "halves": 0.5, "doubling": 2.0,
    "double": 2.0, "doubles": 2.0, "doubled": 2.0, "triple": 3.0, "triples": 3.0, "tripled": 3.0,
    "quadruple": 4.0, "quadruples": 4.0, "quadrupled": 4.0,
    **{f"{word}fold": value for word, value in (_UNITS | {"hundred": 100.0}).items() if value > 1},
}  # fmt: skip
_STARTS = "|".join(
    sorted({*_UNITS, *_PARTS, *_FACTORS, *_LARGE, "dozen", "hundred"}, key=len, reverse=True)
)
CANDIDATE = re.compile(
    rf"(?P<money>(?:US)?\$ ?)?(?:{_NUMBER.pattern})|(?P<vulgar>[{''.join(_VULGAR)}])"
    rf"|(?P<words>(?<![A-Za-z\d_-])(?:(?:[Aa]n?|[Oo]ne) )?(?i:{_STARTS})(?![A-Za-z]))",
    re.ASCII,
)
_A_WORD = re.compile(r"[ -]?([A-Za-z]{1,20})")


@dataclass(frozen=True)
class Figure:
    """A number without its unit."""

    value: float
    start: int
    end: int
    is_plain: bool = True  # digits alone
    is_times: bool = False  # twice, tenfold


def figure_at(plain: str, found: re.Match[str]) -> Figure | None:
    """The number of a match of `CANDIDATE`, or None where it is part of a name or of no use."""
    if found.group("words"):
        return _in_words(plain, found.start())
    if found.group("vulgar"):
        return Figure(_VULGAR[found.group("vulgar")], found.start(), found.end(), False)
    return _in_digits(plain, found)


def _in_digits(text: str, found: re.Match[str]) -> Figure | None:
    """The number that `found` begins: with its power, or the fraction that it is the top of."""
    start, end = found.start(), found.end()
    if _NAME_BEFORE.search(text[max(0, start - 2) : start]):
        return None
    value = float(re.sub(r"[, '_]", "", found.group("digits")))
    sign = -1.0 if found.group("sign") else 1.0
    if exponent := found.group("exp"):
        value *= _ten_to(int(exponent))
    elif power := _POWER_OF_TEN.match(text, end):
        value *= _ten_to(_exponent(power))
        end = power.end()
    elif power := _POWER.match(text, end):
        if not 0 < value < 1e6 or abs(_exponent(power)) > 40:
            return None
        value, end = value ** _exponent(power), power.end()
    elif part := _FRACTION.match(text, found.start("digits")):
        above, below = int(part.group("a")), int(part.group("b"))
        before, after = (
            text[max(0, start - 2) : start].strip()[-1:],
            text[part.end() : part.end() + 2],
        )
        if 0 < above < below and before not in {*"/×*+"} and "/" not in after:
            value, end = above / below, part.end()
    return Figure(sign * value, start, end) if isfinite(value) else None


def _exponent(power: re.Match[str]) -> int:
    return int((power.group("p") or power.group("s")).translate(_SUPER))


def upper_end(plain: str, lower: Figure) -> Figure | None:
    """The upper end, where `lower` is the lower end of a range."""
    dash = _RANGE.match(plain, lower.end)
    if dash is None or not lower.is_plain:
        return None
    before = plain[max(0, lower.start - 9) : lower.start]
    if dash.group().strip() == "and" and not before.endswith("between "):
        return None
    if before.rstrip().endswith((*"×*/+·",)):
        return None  # 80 x 4 - 16
    number = _NUMBER.match(plain, dash.end())
    upper = _in_digits(plain, number) if number else None
    if upper is None or upper.value <= lower.value or _NO_RANGE.match(plain, upper.end):
        return None
    return upper


def _ten_to(power: int) -> float:
    return 10.0**power if abs(power) < 300 else float("inf")


def _in_words(text: str, start: int) -> Figure | None:
    """`three hundred`, `two and a half`, `two thirds`, `a dozen`, `half a`, `twice`."""
    words: list[tuple[str, int]] = []
    at = start
    while len(words) < 10 and (found := _A_WORD.match(text, at)):
        words.append((found.group(1).lower(), found.end()))
        at = found.end()
    if len(words) > 1 and words[0][0] in ("a", "an") and words[1][0] in _FACTORS:
        words = words[1:]
    if not words:
        return None
    first, end = words[0]
    if first in _FACTORS:
        return Figure(_FACTORS[first], start, end, False, is_times=True)
    if first in _PARTS:  # "third", alone, is an ordinal
        is_part = first in ("half", "quarter")
        return (
            Figure(_PARTS[first], start, _past_article(words, 1, end), False) if is_part else None
        )
    value, used = _counted([word for word, _ in words])
    if not used:
        return None
    if fraction := _fraction(words, value, used, start):
        return fraction
    end = words[used - 1][1]
    if used == 1 and first in ("a", "an"):
        return None
    if text.startswith("-fold", end):
        return Figure(value, start, end + 5, False, is_times=True)
    return Figure(value, start, end, False)


def _counted(words: list[str]) -> tuple[float, int]:
    """The number that the words begin with, and how many of them it takes; `a` is one."""
    total, current, used = 0.0, 0.0, 0
    for index, word in enumerate(words):
        if word in ("a", "an") and index == 0:
            current = 1.0
        elif word in _UNITS and (index == 0 or current % (100 if word in _TENS else 10) == 0):
            current += _UNITS[word]
        elif word in ("hundred", "dozen"):
            current = (current or 1.0) * (100 if word == "hundred" else 12)
        elif word in _LARGE:
            total, current = total + (current or 1.0) * _LARGE[word], 0.0
        elif word == "and" and words[index + 1 : index + 2] and total + current >= 100:
            if words[index + 1] not in _UNITS or words[index + 2 : index + 3] == ["half"]:
                break
            continue
        else:
            break
        used = index + 1
    return total + current, used


def _fraction(words: list[tuple[str, int]], value: float, used: int, start: int) -> Figure | None:
    """`two thirds`, `two and a half`, where the number takes the first `used` words."""
    following = [word for word, _ in words[used : used + 3]]
    if following[:2] == ["and", "half"] or (
        following[:2] in (["and", "a"], ["and", "one"]) and following[2:] in _WHOLE_PARTS
    ):
        last = used + (1 if following[1] == "half" else 2)
        return Figure(value + _PARTS[words[last][0]], start, words[last][1], False)
    part = _part(following[0]) if following and value < 100 else None
    if part is None:
        return None
    is_ordinal = words[0][0] in ("a", "an") and part not in ("half", "quarter")
    if is_ordinal and following[1:2] not in (["of"], ["as"], ["less"], ["more"]):
        return None  # "a third request"
    return Figure(
        value * _PARTS[part], start, _past_article(words, used + 1, words[used][1]), False
    )


_WHOLE_PARTS = (["half"], ["quarter"], ["third"])


def _part(word: str) -> str | None:
    """The singular of a fraction's name."""
    singular = {"halves": "half"}.get(word, word.removesuffix("s"))
    return singular if singular in _PARTS else None


def _past_article(words: list[tuple[str, int]], index: int, end: int) -> int:
    """Where the unit is looked for after a fraction: past `a` and `of a`."""
    if index < len(words) and words[index][0] in ("a", "an"):
        return words[index][1]
    if index + 1 < len(words) and words[index][0] == "of" and words[index + 1][0] in ("a", "an"):
        return words[index + 1][1]
    return end


_RESULT = re.compile(r"\d[\d,]*(?:\.\d+)?")
_ROUNDED = 0.005
"""Share that a result may be off because its operands are written with few digits."""
_NEARLY_OFF = 0.05
"""The same for one that says so, or has no more than a digit."""


def digits_of(result: str) -> float | None:
    """The number that a result begins with, whatever its unit."""
    found = _RESULT.search(result)
    return float(found.group().replace(",", "")) if found else None


def left_open(result: str, is_near: bool) -> float:
    """The share by which a calculated result, as it is written, may be off.

    Args:
        is_near: whether it says itself that it is no more than near (`about`, `≈`).
    """
    found = _RESULT.search(result)
    if is_near or found is None:
        return _NEARLY_OFF
    significant = found.group().replace(",", "").replace(".", "").lstrip("0")
    whole = significant if "." in found.group() else significant.rstrip("0")
    last = 10.0 ** (len(significant) - len(whole)) / max(int(significant or 1), 1)
    open_digits = last if "." in found.group() else last / 2
    return min(max(open_digits, _ROUNDED), _NEARLY_OFF)
