"""Reading a unified diff that nobody here wrote."""

from __future__ import annotations

import pytest

from trackrecord.errors import UpstreamError
from trackrecord.upstream.diffs import parse_diff


def diff_of(path: str, hunk: str = "@@ -1 +1 @@", line: str = "b") -> str:
    return f"--- a/{path}\n+++ b/{path}\n{hunk}\n-a\n+{line}\n"


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "vllm/../../x", ".."])
def test_a_path_that_leads_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(UpstreamError, match="not a path inside the tree"):
        parse_diff(diff_of(path))


@pytest.mark.parametrize("hunk", ["@@ -1,-5 +1,-5 @@", "@@ -x +1 @@", "@@ -1 +1"])
def test_a_header_of_a_hunk_that_is_none_is_refused(hunk: str) -> None:
    with pytest.raises(UpstreamError, match="line 3 of the diff is no header"):
        parse_diff(diff_of("x.py", hunk))


@pytest.mark.parametrize("line", ["one\rtwo", "one\ftwo", "one\u2028two", "one\x1ctwo"])
def test_only_a_line_feed_ends_a_line(line: str) -> None:
    (change,) = parse_diff(diff_of("x.py", line=line))
    assert change.hunks[0].new == [line]
    assert parse_diff(diff_of("x.py", line=line).replace("\n", "\r\n")) == [change]
