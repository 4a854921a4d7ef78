"""A comment cut into clauses, each in one plain spelling that the lexicon's phrases can match.

Quotations, code, struck-out text and headings are not the author's statements and are left out.
What remains is brought to one form: lower case, contractions spelled out, threads as `pull_12`,
`issue_12` or `ref_12` (an address tells which it is, `#12` does not), logins as `user_name`,
versions as `version_0.6.3`, code as `code_`, other addresses as `url_`, long direct speech as
`said_`.

Invariant: every token of `Clause.text` ends with one space and nothing stands before the first, so
a phrase made of "word " pieces matches whole words alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trackrecord.issues.markdown import Block, blocks

MAX_CLAUSES = 400
"""Clauses read of one text; people say what they do near its beginning or its end."""
MAX_PARAGRAPH = 4_000
"""Characters read of one paragraph."""

KindOf = Callable[[int], bool | None]
"""Whether the thread of a number is a pull request; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause.

    Attributes:
        text: the plain spelling; every token ends with a space.
        source: the words as written, on one line.
        line: line of the whole text it begins on, from 1.
        question: whether it asks.
        ticked: whether it is a ticked box of a form.
    """

    text: str
    source: str
    line: int
    question: bool = False
    ticked: bool = False

    @property
    def is_bare_reference(self) -> bool:
        """Threads and logins alone: somebody drops a link."""
        return all(_BARE.fullmatch(token) for token in self.text.split())


def clauses(text: str, repo: str = "", is_pull: KindOf = lambda number: None) -> list[Clause]:
    """The clauses that the author of `text` wrote, in order; of too many, those at both ends.

    Args:
        repo: "owner/name" of the thread; threads of other repositories become `foreign_`.
        is_pull: what kind of thread a bare `#12` is.
    """
    found = [
        clause
        for block in blocks(text)
        if block.kind == "prose" and not block.quoted
        for clause in _of_block(block, repo, is_pull)
    ]
    if len(found) > MAX_CLAUSES:
        return found[: MAX_CLAUSES // 2] + found[-MAX_CLAUSES // 2 :]
    return found


def without_greeting(text: str) -> str:
    """A clause's text from where its statement begins: no salutation, no thanks, no addressee."""
    return text[found.end() :] if (found := _GREETING.match(text)) else text


_MARKED = re.compile(
    r"(?P<code>`[^`\n]{1,300}`)"
    r"|!\[[^\[\]\n]{0,300}\]\([^()\s]{1,800}\)"
    r"|(?P<struck>~~[^~\n]{1,600}~~)"
    r"|(?P<tag></?[A-Za-z][^<>\n]{0,200}>)"
    r"|(?P<thread>\[[^\[\]\n]{0,300}\]\((?=https?://(?:www\.)?github\.com/[^()\s]{1,200}/(?:issues|pull)/\d))?"
    r"https?://(?:www\.)?github\.com/(?P<url_repo>[\w.-]{1,80}/[\w.-]{1,80})/"
    r"(?P<form>issues|pull|discussions)/(?P<url_number>\d{1,9})\b[^\s()<>\[\],，。；！]{0,200}\)?"
    r"|(?P<url>https?://[^\s()<>\[\]，。；]{1,800})"
    r"|(?<![\w/&#-])(?P<repo>[\w.-]{1,80}/[\w.-]{1,80})?\#(?P<number>\d{1,9})(?![\w-])"
    r"|(?<![\w/-])GH-(?P<gh>\d{1,9})\b"
    r"|(?<![\w@/.])@(?P<user>[A-Za-z0-9][A-Za-z0-9-]{0,38})"
    r"|(?<![\w./-])v?(?P<version>\d{1,2}\.\d{1,3}(?:\.\d{1,3})?(?:[._]?(?:post|rc|dev)\d{1,5}){0,2})"
    r"(?:\+\w{1,20}|x)?(?![\w%]|\.\d)"
    r"|(?P<said>\"[^\"\n]{12,400}\"|“[^”\n]{12,400}”|「[^」\n]{6,400}」|«[^»\n]{12,400}»)",
)
_HOLE = re.compile(" ?\ue000(\\d+)\ue001 ?")
"""Where a marked stretch stood, with the blanks that keep its token a word of its own."""
_BOX = re.compile(r"\s*[-*+] \[( |x|X|✓|✔)?\] ?")
_LIST_MARK = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_SKIPPED = re.compile(
    r"\s*(?:#{1,6}\s|\||<!--|Traceback|File \"|\[?\d{4}-\d\d-\d\d|(?:\(\w+[^)\n]{0,20}\) )?"
    r"(?:INFO|WARNING|ERROR|DEBUG)\b|Co-authored-by:|Signed-off-by:)"
)
_SENTENCE = re.compile(
    r"(?<=[.!?…])[\"')\]*_]{0,3}\s+|(?<=[。！？；])\s*|(?<=;)\s+|\s[-–—]{1,3}\s(?=[A-Z])"
)
_ASIDE = re.compile(
    r",\s+(?=(?:could|can|would|will|do|did|have|are|is)\s+(?:you|anyone|someone|it|this|that|there)\b)",
    re.IGNORECASE,
)
"""Where a question is hung on to a statement: "fixed by #5, could you try it?"."""
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|approx|resp)\.(?=\s)", re.I)
_AWAITS_THREAD = re.compile(r"\b(?:of|by|in|with|see|to|for|as|at|from|via)\s*$", re.I)
_ASKS = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|can|could|will|would|may|shall|should|any|how|what|"
    r"when|where|why|who|which) (?:it|this|that|there|you|i|we|anyone|anybody|someone|somebody|"
    r"user_\S+|the|these|any|update|updates|news|progress|about|long|is|are|do|does) "
)
_ASKS_EAST = re.compile(r"(?:吗|呢|么|嘛|か|나요|까요|까)[\s。.!！~～]*$")
_BARE = re.compile(r"(?:pull|issue|ref)_\d+|user_\S+|[,:]|see|cf|pr|link|here|cc|also")
_TOKEN = re.compile(
    r"(?:pull|issue|ref)_\d+|user_[\w-]+|version_[\w.]+|(?:code|url|foreign|said)_"
    r"|/[a-z][a-z-]+|\+1|[^\W_](?:[\w'’.+-]*\w)?|[,，、?？]"
)
# fmt: off
_SPELLINGS = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not",
    "ain't": "is not", "let's": "let us", "gonna": "going to", "wanna": "want to",
    "gotta": "have to", "lemme": "let me", "gimme": "give me", "dont": "do not",
    "doesnt": "does not", "didnt": "did not", "isnt": "is not", "wasnt": "was not",
    "havent": "have not", "hasnt": "has not", "cant": "can not", "wont": "will not",
    "im": "i am", "iam": "i am", "ive": "i have", "id": "i would", "cani": "can i",
    "thats": "that is", "whats": "what is", "pls": "please", "plz": "please", "u": "you",
    "ur": "your", "pull-request": "pr", "pull-requests": "prs", "mr": "pr", "mrs": "prs",
    "favour": "favor", "dupe": "duplicate", "dup": "duplicate", "thx": "thanks", "ok": "okay",
    "up-for-grabs": "up for grabs", "work-in-progress": "wip", "in-progress": "in progress",
    "noone": "nobody", "no-one": "nobody", "everyone's": "everyone is",
    "，": ",", "、": ",", "？": "?",
}
# fmt: on
_ENDINGS = {"'ll": "will", "'ve": "have", "'m": "am", "'re": "are", "'d": "would", "n't": "not"}
_IS_NOT_HAS = re.compile(r"(?:it|that|this|there|here|he|she|what|who|where|someone|somebody)'s")
_JOINED = (
    ("pull request ", "pr "),
    ("pull requests ", "prs "),
    ("merge request ", "pr "),
    ("no one ", "nobody "),
    ("work in progress ", "wip "),
)
_GREETING = re.compile(
    r"(?:(?:hi|hello|hey|dear|thanks|thank you|sorry|okay|oh|ah|well|btw|fyi|yes|yeah|yep|yup|"
    r"great|cool|nice|perfect|awesome|good (?:morning|day|catch|point|idea|job|work)|sure|so|and|"
    r"but|all|everyone|folks|team|guys|there|sir|maintainers|again|a lot|very much|so much|"
    r"for [^,]{1,60},|user_[\w-]+|,) )+"
)


def _of_block(block: Block, repo: str, is_pull: KindOf) -> Iterator[Clause]:
    for line, raw, ticked in _paragraphs(block):
        marks: list[tuple[str, str]] = []

        def put(found: re.Match[str], marks: list[tuple[str, str]] = marks) -> str:
            marks.append((_name(found, repo, is_pull), found[0]))
            return f" \ue000{len(marks) - 1}\ue001 "

        with_holes = _MARKED.sub(put, raw[:MAX_PARAGRAPH].replace("\ue000", " "))
        for sentence in _sentences(_ABBREVIATION.sub(r"\1", with_holes)):
            text = _spell(_fill(sentence, [f" {name} " for name, _ in marks]))
            if text:
                yield Clause(
                    text,
                    source=" ".join(_fill(sentence, [words for _, words in marks]).split()),
                    line=line,
                    question=_asks(sentence, text),
                    ticked=ticked,
                )


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(text):
        yield from _ASIDE.split(sentence)


def _paragraphs(block: Block) -> Iterator[tuple[int, str, bool]]:
    """(line, text, ticked), with wrapped lines joined and boxes left out that are not ticked."""
    kept: list[str] = []
    first = block.line
    for number, line in enumerate(block.text.split("\n"), start=block.line):
        box, mark = _BOX.match(line), _LIST_MARK.match(line)
        plain = line.strip() and not (box or _SKIPPED.match(line))
        if not (kept and plain and not mark and _goes_on(kept[-1], line)):
            if kept:
                yield first, " ".join(kept), False
            kept, first = [], number
        if box and (box[1] or " ") != " ":
            yield number, line[box.end() :], True
        elif plain:
            kept.append(line[mark.end() :] if mark else line)
    if kept:
        yield first, " ".join(kept), False


def _goes_on(before: str, line: str) -> bool:
    """Whether an editor wrapped one sentence here, or a colon announces the line."""
    end = before.rstrip()[-1:]
    if end in ":：" or _AWAITS_THREAD.search(before):
        return True
    return len(before) > 60 and end not in ".!?;。！？；" and line[:1].islower()


def _name(found: re.Match[str], repo: str, is_pull: KindOf) -> str:
    """The token that stands for one marked stretch."""
    if found["code"]:
        return "code_"
    if found["user"]:
        return f"user_{found['user'].lower()}"
    if found["version"]:
        return f"version_{found['version'].lower()}"
    if found["said"]:
        return "said_"
    if found["url"]:
        return "url_"
    if digits := found["url_number"] or found["number"] or found["gh"]:
        where = found["url_repo"] or found["repo"]
        if where and repo and where.lower() != repo.lower():
            return "foreign_"
        number = int(digits)
        if found["form"]:
            return f"{'pull' if found['form'] == 'pull' else 'issue'}_{number}"
        known = is_pull(number)
        return f"{'ref' if known is None else 'pull' if known else 'issue'}_{number}"
    return ""


def _fill(text: str, values: list[str]) -> str:
    return _HOLE.sub(lambda hole: values[int(hole[1])] if int(hole[1]) < len(values) else "", text)


def _spell(sentence: str) -> str:
    """The plain spelling of a sentence: tokens, each followed by one space."""
    words: list[str] = []
    lowered = unicodedata.normalize("NFKC", sentence).lower().replace("’", "'").replace("`", "'")
    for token in _TOKEN.findall(lowered):
        words += _plain_words(token)
    while words and words[-1] in (",", "?"):
        words.pop()
    text = "".join(f"{word} " for word in words)
    for written, plain in _JOINED:
        text = text.replace(written, plain)
    return _PR_NUMBER.sub(r"pull_\1 ", _ISSUE_NUMBER.sub(r"issue_\1 ", text))


_PR_NUMBER = re.compile(r"\bprs? (?:number |no )?(?:ref|pull)_(\d+) ")
_ISSUE_NUMBER = re.compile(r"\bissues? (?:number |no )?ref_(\d+) ")


def _plain_words(token: str) -> list[str]:
    if token in _SPELLINGS:
        return _SPELLINGS[token].split() or [token]
    if "'" in token:
        if _IS_NOT_HAS.fullmatch(token):
            return [token[:-2], "is"]
        for ending, word in _ENDINGS.items():
            if token.endswith(ending) and len(token) > len(ending):
                return [*_plain_words(token[: -len(ending)]), word]
        return [token.removesuffix("'s").replace("'", "")] if token.strip("'") else []
    return [token]


def _asks(sentence: str, text: str) -> bool:
    if _HOLE.sub("", sentence).rstrip(" \"')*_~～^:").endswith(("?", "？")):
        return True
    return bool(_ASKS.match(without_greeting(text)) or _ASKS_EAST.search(sentence))
