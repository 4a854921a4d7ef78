"""What one Python file says: definitions, imports, and who its names belong to."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackrecord.upstream.index import reader
from trackrecord.upstream.index.reader import SourceFacts, read_source

ROOTS = frozenset({"vllm", "tests"})


def read(text: str, module: str = "vllm.a", is_package: bool = False) -> SourceFacts:
    return read_source(textwrap.dedent(text).encode(), module, is_package, ROOTS)


def references(text: str, module: str = "vllm.a") -> set[tuple[str, str]]:
    return {(name, owner) for name, owner, _, _ in read(text, module).references}


def test_definitions_have_lines_signatures_and_first_doc_lines() -> None:
    facts = read('''
        LIMIT = 3
        names = []

        @decorated(1)
        class Pool(Base):
            """A pool.

            More."""
            size: int = 0

            async def take(
                self,
                count: int,  # how many
            ) -> list[int]:
                "Take."
                def inner(): pass
    ''')
    found = [(d.qualname, d.kind, d.line, d.end_line) for d in facts.definitions]
    assert found == [
        ("LIMIT", "constant", 2, 2),
        ("names", "variable", 3, 3),
        ("Pool", "class", 6, 17),
        ("Pool.size", "attribute", 10, 10),
        ("Pool.take", "method", 12, 17),
        ("Pool.take.inner", "function", 17, 17),
    ]
    pool, take = facts.definitions[2], facts.definitions[4]
    assert (pool.doc, pool.marks) == ("A pool.", "@decorated(1)")
    assert take.signature == "async def take(self, count: int) -> list[int]"
    assert take.doc == "Take."


def test_imports_say_what_where_and_how() -> None:
    facts = read(
        """
        import vllm.b as b
        from . import c
        from ..d import e as f
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from vllm.t import T
        def g():
            from vllm.late import x
            patch("vllm.patched.Thing")
        """,
        module="vllm.p.a",
    )
    assert set(facts.imports) == {
        (2, "vllm.b", "", "b", "module"),
        (3, "vllm.p", "c", "c", "module"),
        (4, "vllm.d", "e", "f", "module"),
        (5, "typing", "TYPE_CHECKING", "TYPE_CHECKING", "module"),
        (7, "vllm.t", "T", "T", "typing"),
        (9, "vllm.late", "x", "x", "function"),
        (10, "vllm.patched.Thing", "", "", "string"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from vllm.b import f\nf()", ("f", "vllm.b")),
        ("import vllm.b\nvllm.b.f()", ("f", "vllm.b")),
        ("import vllm.b as x\nx.f()", ("f", "vllm.b")),
        ("def f(): pass\ndef g(): f()", ("f", "vllm.a")),
        ("from vllm.b import C\ndef g(c: C): c.f()", ("f", "vllm.b.C")),
        ("from vllm.b import C\ndef g(c: 'C | None'): c.f()", ("f", "vllm.b.C")),
        ("from vllm.b import C\ndef g(c: Optional[C]): c.f()", ("f", "vllm.b.C")),
        ("from vllm.b import C\ndef g():\n    c = C()\n    c.f()", ("f", "vllm.b.C")),
        ("from vllm.b import C\ndef g(): C().f()", ("f", "vllm.b.C")),
        ("class D:\n    def f(self): pass\n    def g(self): self.f()", ("f", "vllm.a.D")),
        (
            "from vllm.b import C\nclass D:\n    def __init__(self): self.c = C()\n"
            "    def g(self): self.c.f()",
            ("f", "vllm.b.C"),
        ),
        (
            "from vllm.b import C\nclass D:\n    def __init__(self, c: C): self.c = c\n"
            "    def g(self): self.c.f()",
            ("f", "vllm.b.C"),
        ),
        ("def g(pool): pool.f()", ("f", "?pool")),
        ("def g(x): x.pool.f()", ("f", "?pool")),
    ],
)
def test_a_use_belongs_to_what_the_file_says_it_belongs_to(
    text: str, expected: tuple[str, str]
) -> None:
    assert expected in references(text)


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.f()",
        "def g(f): f()",
        "def g():\n    f = 1\n    f()",
        "x = 'f'",
    ],
)
def test_locals_and_outsiders_are_left_out(text: str) -> None:
    assert "f" not in {name for name, _ in references(text)}


def test_a_reference_counts_once_per_definition_at_its_first_line() -> None:
    facts = read("from vllm.b import f\ndef g():\n    f()\n    f()\ndef h(): f()")
    uses = [(symbol, line) for name, _, symbol, line in facts.references if name == "f"]
    assert sorted(uses) == [(0, 3), (1, 5)]


def test_notes_take_the_comment_lines_that_follow() -> None:
    facts = read("""
        x = 1  # TODO(ada): fix when
        # the other lands.

        # FIXME: at once
        # XXX another
        s = "not a note"  # todo lower case
    """)
    assert facts.notes == [
        (2, "TODO(ada): fix when the other lands."),
        (5, "FIXME: at once"),
        (6, "XXX another"),
    ]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"def f(:", "line 1"),
        (b"print 'python 2'", "line 1"),
        (b"x = '\xff'", "not UTF-8 at byte 5"),
        (b"x = 1\0", "null bytes"),
        (b"x" * (reader.MAX_SOURCE_BYTES + 1), "too large"),
        (b"(" * 5000 + b")" * 5000, ""),
        (b"-" * 100_000 + b"1", ""),
    ],
)
def test_what_cannot_be_parsed_is_flagged_and_nothing_else_is_said(
    source: bytes, says: str
) -> None:
    facts = read_source(source, "vllm.a", False, ROOTS)
    assert facts.problem
    assert says in facts.problem
    assert "\n" not in facts.problem
    assert not facts.definitions
    assert not facts.references


def test_a_byte_order_mark_is_no_problem() -> None:
    assert read_source(b"\xef\xbb\xbfx = 1", "vllm.a", False, ROOTS).definitions


NAMES = st.sampled_from(["f", "g", "C", "D", "x"])
STATEMENTS = st.recursive(
    st.one_of(
        NAMES.map(lambda n: f"{n} = {n}.{n}({n})"),
        NAMES.map(lambda n: f"from vllm.{n} import {n}"),
        NAMES.map(lambda n: f"self.{n} = {n}()"),
        st.just("pass"),
    ).map(lambda line: [line]),
    lambda inner: st.tuples(
        st.sampled_from(["def f(self, x):", "class C(D):", "if x:", "for x in f():", "try:"]),
        st.lists(inner, min_size=1, max_size=3),
    ).map(
        lambda pair: [
            pair[0],
            *("    " + line for block in pair[1] for line in block),
            *(["finally:", "    pass"] if pair[0] == "try:" else []),
        ]
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(STATEMENTS, min_size=1, max_size=4))
def test_every_place_named_lies_inside_of_what_holds_it(blocks: list[list[str]]) -> None:
    lines = [line for block in blocks for line in block]
    facts = read_source("\n".join(lines).encode(), "vllm.a", False, ROOTS)
    assert not facts.problem
    for definition in facts.definitions:
        assert 1 <= definition.line <= definition.end_line <= len(lines)
    for _, owner, symbol, line in facts.references:
        assert owner.startswith("?") or owner.split(".")[0] in ROOTS
        if symbol >= 0:
            holder = facts.definitions[symbol]
            assert holder.line <= line <= holder.end_line


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_a_line_ends_where_python_ends_it(end: str) -> None:
    text = "LIMIT = 3\n# TODO: raise\ndef f(\n    a,\n    b,\n):\n    return g(a)\n"
    facts = read_source(text.replace("\n", end).encode(), "vllm.a", False, ROOTS)
    assert facts == read_source(text.encode(), "vllm.a", False, ROOTS)
    assert [(d.qualname, d.line, d.signature) for d in facts.definitions] == [
        ("LIMIT", 1, "LIMIT = 3"),
        ("f", 3, "def f(a, b)"),
    ]
