"""The words and signs that units are written with, and how they are put together.

Decimal prefixes are decimal and IEC prefixes binary: GB is 1e9 B, GiB is 2**30 B; `Gb` and `Gbit`
are bits. A name all in lower case (`gb`) is bytes, carelessly typed. `FLOPS` is FLOP/s, `FLOPs` are
FLOP, or perhaps FLOP/s. A month is 730 hours and a year 8,760.

Invariant: what is matched at a place depends on a bounded stretch of text behind it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

from trackrecord.loop.quantities.measure import Dimensions, Measure, UnitError


@dataclass(frozen=True)
class Written:
    """A unit as it stands in a text.

    Args:
        unit: its scale, with its dimensions.
        end: where it ends in the text.
        others: what else it may mean: GB for GiB, FLOPs for FLOP/s.
    """

    unit: Measure
    end: int
    others: tuple[Measure, ...] = ()


@dataclass(frozen=True)
class _Atom:
    unit: Measure
    kind: str  # "byte", "time", "flop", "flops", "noun", "times" or ""
    others: tuple[float, ...] = ()  # scales it may also have


_LETTERS = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_BINARY_OF = {"k": 1.024, "K": 1.024} | {
    letter: BINARY[f"{letter}i"] / _LETTERS[letter] for letter in "MGTP"
}
_PREFIX_WORDS = {"kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12, "peta": 1e15, "exa": 1e18}
_BINARY_WORDS = {"kibi": 2.0**10, "mebi": 2.0**20, "gibi": 2.0**30, "tebi": 2.0**40}
_SMALL = {"m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9}
SCALES = {
    "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12,
    "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "bn": 1e9, "Bn": 1e9, "mn": 1e6, "G": 1e9, "T": 1e12,
}  # fmt: skip
"""Words and letters that multiply a count."""
_HOUR = 3600.0


@cache
def nouns() -> tuple[dict[str, str], frozenset[str]]:
    """Every word for a counted noun with its singular, and the kinds of them."""
    file = resources.files(__package__).joinpath("nouns.toml")
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    words = {}
    for noun, others in document["nouns"].items():
        for word in (noun, *others):
            words[word] = words[plural(word)] = noun
    return words, frozenset(document["kinds"].split())


def plural(noun: str) -> str:
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ch", "sh", "ss")) else "s")


@cache
def _symbols() -> dict[str, _Atom]:
    """Units by exact spelling."""
    table: dict[str, _Atom] = {}

    def add(names: str, scale: float, dims: Dimensions, kind: str = "", *others: float) -> None:
        for name in names.split():
            table[name] = _Atom(Measure(scale, dims), kind, others)

    byte, second, flop, rate = (("B", 1),), (("s", 1),), (("FLOP", 1),), (("FLOP", 1), ("s", -1))
    byte_rate = (("B", 1), ("s", -1))
    add("B byte bytes Byte Bytes", 1, byte, "byte")
    add("bit bits", 1 / 8, byte, "byte")
    for letter, scale in _LETTERS.items():
        binary = scale * _BINARY_OF.get(letter, 1.0)
        low = letter.lower()
        add(f"{letter}B {letter}Byte {letter}Bytes", scale, byte, "byte", binary)
        add(f"{letter}Bps", scale, byte_rate, "", binary)
        add(f"{letter}bps", scale / 8, byte_rate)
        add(f"{letter}bit {letter}bits", scale / 8, byte, "byte")
        if letter.isupper():
            add(f"{letter}b", scale / 8, byte, "byte")
            add(f"{low}b", scale, byte, "byte", binary)
        add(f"{letter}FLOP {letter}OP {low}flop", scale, flop, "flop")
        add(f"{letter}FLOPs {letter}OPs", scale, flop, "flop?")
        add(f"{letter}FLOPS {letter}OPS {low}ops", scale, rate, "rate")
        add(f"{low}flops {letter}Flops", scale, rate, "rate?")
        add(f"{letter}W", scale, (("W", 1),))
        add(f"{letter}Wh", scale * _HOUR, (("W", 1), ("s", 1)))
        add(f"{letter}J", scale, (("W", 1), ("s", 1)))
        add(f"{letter}Hz", scale, (("s", -1),))
    for prefix, scale in BINARY.items():
        add(f"{prefix}B {prefix.lower()}b", scale, byte, "byte")
        add(f"{prefix}bit {prefix}b", scale / 8, byte, "byte")
    for prefix, scale in (_PREFIX_WORDS | _BINARY_WORDS).items():
        letter = prefix[0].upper()
        others = (scale * _BINARY_OF[letter],) if prefix in _PREFIX_WORDS and letter != "E" else ()
        add(f"{prefix}byte {prefix}bytes", scale, byte, "byte", *others)
        add(f"{prefix}bit {prefix}bits", scale / 8, byte, "byte")
        add(f"{prefix}flop", scale, flop, "flop")
        add(f"{prefix}flops", scale, rate, "rate?")
        add(f"{prefix}watt {prefix}watts", scale, (("W", 1),))
        add(f"{prefix}joule {prefix}joules", scale, (("W", 1), ("s", 1)))
    add("gig gigs", 1e9, byte, "byte", 2.0**30)
    add("meg megs", 1e6, byte, "byte", 2.0**20)
    add("s sec secs second seconds", 1, second, "time")
    for letter, scale in _SMALL.items():
        add(f"{letter}s {letter}sec {letter}secs", scale, second, "time")
    add("millis millisecond milliseconds", 1e-3, second, "time")
    add("micros microsecond microseconds", 1e-6, second, "time")
    add("nanos nanosecond nanoseconds", 1e-9, second, "time")
    add("min mins minute minutes", 60, second, "time")
    add("h hr hrs hour hours", _HOUR, second, "time")
    add("day days", 24 * _HOUR, second, "time")
    add("week weeks", 168 * _HOUR, second, "time")
    add("month months", 730 * _HOUR, second, "time")
    add("year years", 8760 * _HOUR, second, "time")
    add("FLOP flop op ops", 1, flop, "flop")
    add("FLOPs flops Flops", 1, flop, "flop?")
    add("FLOPS", 1, rate, "rate")
    add("W watt watts", 1, (("W", 1),))
    add("mW milliwatts", 1e-3, (("W", 1),))
    add("Wh", _HOUR, (("W", 1), ("s", 1)))
    add("J joule joules", 1, (("W", 1), ("s", 1)))
    add("mJ millijoules millijoule", 1e-3, (("W", 1), ("s", 1)))
    add("Hz hertz", 1, (("s", -1),))
    add("USD usd dollar dollars $", 1, (("USD", 1),))
    add("cent cents ¢", 0.01, (("USD", 1),))
    add("% percent pct", 0.01, (), "times")
    add("x × times fold", 1, (), "times")
    add("qps QPS rps RPS", 1, (("request", 1), ("s", -1)))
    add("tps TPS", 1, (("token", 1), ("s", -1)))
    return table


@lru_cache(4096)
def _atom(word: str) -> _Atom | None:
    """The unit that one word names."""
    symbols, (counted, _) = _symbols(), nouns()
    if found := symbols.get(word):
        return found
    low = word.lower()
    if low in counted:
        return _Atom(Measure(1.0, ((counted[low], 1),)), "noun")
    if len(low) > 3 and low in symbols and symbols[low].kind != "rate":
        return symbols[low]
    if word[0] in "kKMBGT" and word[1:] in counted and len(word) > 3:
        return _Atom(Measure(SCALES[word[0]], ((counted[word[1:]], 1),)), "noun")
    return None


_WORD = re.compile(r"[A-Za-zµμ]+|[%$¢×]")
_MODEL = re.compile(
    r"(?:NVIDIA |AMD )?(?:GB?[23]00|[HBAV][123]00|L40S?|L4|T4|A10G?|MI\d{3}[xX]?)s?(?![A-Za-z0-9])"
)
_COLLECTIVE = re.compile(r"all-?reduces?\b", re.IGNORECASE)
_NAME_GOES_ON = re.compile(r"_?[^\W_¹²³]")
_POWER = re.compile(r"\^(-?\d)(?!\d)|\*\*(-?\d)(?!\d)|(⁻?)([¹²³])")
_SCALE = re.compile(
    r"(thousand|million|billion|trillion|bn|Bn|mn|[kKMBGT])(?![A-Za-z/])[ \u00a0\u202f-]?"
)
_COUNT = re.compile(
    r"(10{0,2}(?:[, _]?000)*|1e\d)(?![\d.,])(?: ?(?=[kKMBG](?:[ -]|$)|thou|mill|bill)|(?<=000) | )"
)
_PER = re.compile(
    r" ?/ ?|(?: |-)per(?: |-)(?:each |every )?"
    r"| (?:for )?(?:each|every) | an? (?!few|lot|time)| for an? "
)
_OF_PER = re.compile(
    r" (?:of|for) (?:[\w/-]+ ){1,3}?(?:per|for each|for every|each|every|for an?|an?) "
)
_KIND_WORD = re.compile(r"([A-Za-z]+(?:[-/][A-Za-z]+)*)[ -]")
_NO_KIND = frozenset(
    (
        "a an the is are was were be been and or but of in on at to by for from with than then so "
        "as if it its that this these those we you they i per each every not no can could may "
        "must will would should do did done has have had need take give make get fit more less "
        "same such only one two three four five six seven eight nine ten also when where while "
        "which who what over under into between against via plus minus both all any"
    ).split()
)


def _one(text: str, at: int, prose: bool) -> tuple[_Atom, int] | None:
    """A unit of one word, with its power, at `at`; counted nouns with the words before them."""
    if model := _MODEL.match(text, at):
        return _Atom(Measure(1.0, (("device", 1),)), "noun"), model.end()
    if several := _COLLECTIVE.match(text, at):
        return _Atom(Measure(1.0, (("collective", 1),)), "noun"), several.end()
    if text.startswith("per cent", at):
        return _Atom(Measure(0.01), "times"), at + 8
    word = _WORD.match(text, at)
    if word is None:
        return None
    found, end = _atom(word.group()), word.end()
    if _NAME_GOES_ON.match(text, end):
        return None
    if found is None or found.kind == "noun":
        later = _noun_after_kinds(text, at, found, prose)
        if later is not None:
            return later
    if found is None:
        return None
    if power := _POWER.match(text, end):
        digits = power.group(1) or power.group(2) or "123"["¹²³".index(power.group(4))]
        exponent = -int(digits) if power.group(3) else int(digits)
        return _Atom(found.unit**exponent, ""), power.end()
    return found, end


def _noun_after_kinds(
    text: str, at: int, first: _Atom | None, prose: bool
) -> tuple[_Atom, int] | None:
    """`free blocks`, `key/value heads`, `request slots`: the noun that the words before it lead to.

    A noun in the singular may be the first of two; in prose, one of the words may be any."""
    words, kinds = nouns()
    strange = 0
    for count in range(5):
        if count:
            word = _WORD.match(text, at)
            atom = _atom(word.group()) if word else None
            if word and atom and atom.kind == "noun":
                if count == 1 and first is not None and word.group().lower() in words.values():
                    return None  # two singulars: not one noun
                return atom, word.end()
        kind = _KIND_WORD.match(text, at)
        if kind is None:
            return None
        low = kind.group(1).lower()
        singular = count == 0 and first is not None and words.get(low, "") == low
        if low not in kinds and not singular:
            strange += 1
            usual = low in _NO_KIND or low.endswith("s") or len(low) < 3 or low in words
            if not prose or strange > 1 or usual or low in SCALES:
                return None
        at = kind.end()
    return None


def _product(
    text: str, at: int, prose: bool, counts: bool = False
) -> tuple[Measure, int, _Atom] | None:
    """Units that multiply: `GPU-hours`, `million tokens`, `TB s⁻¹`; with `counts` also `1M tokens`,
    `1,000 tokens`."""
    scale, start = 1.0, at
    if counts and (count := _COUNT.match(text, at)):
        scale, at = float(re.sub(r"[, _]", "", count.group(1))), count.end()
    if word := _SCALE.match(text, at):
        following = _one(text, word.end(), prose)
        if following and following[0].kind == "noun":
            scale, at = scale * SCALES[word.group(1)], word.end()
        elif _atom(word.group(1)) is None:
            unit = Measure(scale * SCALES[word.group(1)])
            return unit, word.start() + len(word.group(1)), _Atom(unit, "times")
    first = _one(text, at, prose)
    if first is None:
        return None
    atom, end = first
    unit = Measure(scale) * atom.unit
    for _ in range(4):
        if end >= len(text) or text[end] not in " -·⋅":
            break
        more = _one(text, end + 1, False)
        if more is None or more[0].kind == "times":
            break
        is_hours = atom.kind == "noun" and more[0].kind == "time"
        is_power = more[0].kind == "" and text[more[1] - 1] in "¹²³0123456789"
        if text[end] == " " and not (is_hours or is_power):
            break
        if text[end] == "-" and not is_hours:
            break
        unit, end, atom = unit * more[0].unit, more[1], more[0]
    return (unit, end, first[0]) if end > start else None


def match_unit(text: str, at: int = 0, prose: bool = False, counts: bool = False) -> Written | None:
    """The unit that begins at `at`, as far as it goes; None where none does.

    `prose` lets words stand between: `KiB of KV cache per token`, `unpinned blocks`; `counts` lets
    powers of ten: `USD per 1M tokens`. An expression has neither.
    """
    try:
        return _matched(text, at, prose, counts)
    except UnitError:  # a power beyond all use
        return None


def _matched(text: str, at: int, prose: bool, counts: bool) -> Written | None:
    head = _product(text, at, prose)
    if head is None:
        return None
    unit, end, atom = head
    divisors: list[Measure] = []
    while len(divisors) < 5:
        per = _PER.match(text, end)
        if per is None and prose and not divisors:
            per = _OF_PER.match(text, end)
        if per is None or (atom.kind == "times" and per.group().strip() in ("a", "an")):
            break
        is_price = unit.dims == (("USD", 1),)  # else " / 1000" divides
        below = _product(text, per.end(), False, counts and (per.group() != " / " or is_price))
        if below is None or (below[2].kind == "times" and below[1] <= per.end() + 1):
            break
        divisors.append(below[0])
        end = below[1]
    return _divided(unit, end, atom, divisors)


def _divided(unit: Measure, end: int, atom: _Atom, divisors: list[Measure]) -> Written:
    """`unit` over the divisors, and what else the writer may have meant."""
    others: list[Measure] = []
    second = Measure(1.0, (("s", 1),))
    if atom.kind.startswith("rate") and divisors:  # "FLOPS per byte" counts operations
        unit = unit * second
    elif atom.kind == "rate?":
        others.append(unit * second)
    elif atom.kind == "flop?" and not divisors:
        others.append(unit / second)
    others += [Measure(unit.value * scale / atom.unit.value, unit.dims) for scale in atom.others]
    for divisor in divisors:
        unit = unit / divisor
        others = [other / divisor for other in others]
    return Written(unit, end, tuple(others))
