"""What a portfolio's pages say and how: rendered from a report of made-up figures."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from bench.sample_report import sample_load, sample_report
from mini_vllm.bench.figures import Figure
from mini_vllm.bench.load import Slo
from outline import Outline
from trackrecord.portfolio.benchmark import benchmark_page
from trackrecord.portfolio.findings import findings, limits
from trackrecord.portfolio.index import index_files
from trackrecord.portfolio.page import Page
from trackrecord.portfolio.render import markdown_escape

HOSTILE = (
    "<script>alert(1)</script> | `x` [a](javascript:b) ![i](http://c) **d** \n\n# e \x1b[31m $f$ "
    '"g" {{ 7*7 }}'
)


@pytest.fixture(scope="module")
def page() -> Page:
    return benchmark_page(sample_report())


@pytest.fixture(scope="module")
def html(page) -> str:
    return page.files["benchmark.html"].decode()


@pytest.fixture(scope="module")
def markdown(page) -> str:
    return page.files["benchmark.md"].decode()


def test_the_same_report_makes_the_same_bytes(page):
    again = benchmark_page(sample_report())
    assert {n for n in page.files if page.files[n] != again.files[n]} == set()


def test_the_data_are_the_report(page):
    assert json.loads(page.files["benchmark.json"]) == sample_report().to_json()


def test_both_forms_say_the_same_figures(html, markdown):
    for figure in ("20.8", "3,706 (3,650–3,762)", "93%", "140 GFLOP/s", "21.5 GB/s", "837 ms"):
        assert figure in Outline(html).text
        assert figure in markdown


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(html):
    outline = Outline(html)
    assert outline.named("script") == []
    sources = [v for _, a in outline.tags for k, v in a.items() if k in ("src", "href")]
    assert all(not v.startswith(("http:", "https:", "//", "data:")) for v in sources)
    assert "default-src 'none'" in str(outline.named("meta"))
    assert "@import" not in html
    assert "url(http" not in html


def test_links_lead_to_files_of_the_portfolio(page, markdown):
    files = {*page.files, *index_files([page])}
    outline = Outline(page.files["benchmark.html"].decode())
    assert {a["href"] for a in outline.named("a")} <= files
    assert set(re.findall(r"\]\(([^)]*)\)", markdown)) <= files
    index = index_files([page])
    assert {a["href"] for a in Outline(index["index.html"].decode()).named("a")} <= files
    assert set(re.findall(r"\]\(([^)]*)\)", index["index.md"].decode())) <= files


def test_pictures_and_tables_can_be_understood_without_being_seen(html, markdown):
    outline = Outline(html)
    pictures = [a for a in outline.named("svg") if a.get("role") == "img"]
    assert len(pictures) == len(outline.named("svg")) == len(outline.named("figure")) == 7
    assert all(len(a["aria-label"]) > 40 for a in pictures)
    assert all(a["scope"] in ("col", "row") for a in outline.named("th"))
    assert all(a["aria-label"] for a in outline.named("table"))
    assert outline.named("html") == [{"lang": "en"}]
    assert all(len(alt) > 40 for alt in re.findall(r"!\[(.*?)\]\(", markdown))


def test_ids_are_unique_and_references_find_them(html):
    ids = [a["id"] for _, a in Outline(html).tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(ids)


def test_inlined_plots_take_the_pages_colours_and_linked_ones_bring_their_own(page, html):
    inline = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--ink)" in inline or "var(--muted)" in inline
    assert re.findall(r"(?:fill|stroke): #(?!ffffff)[0-9a-f]{6}", inline) == []
    linked = page.files["plots/latency-ttft.svg"].decode()
    assert "var(--" not in linked
    assert "fill: #ffffff" in linked
    assert page.files["plots/latency-ttft.png"].startswith(b"\x89PNG")


def test_text_from_outside_cannot_become_markup(no_plots):
    report = sample_report(model_name=HOSTILE, cpu=HOSTILE)
    page = benchmark_page(report)
    files = page.files | index_files([page], author=HOSTILE)
    plain = Outline(benchmark_page(sample_report()).files["benchmark.html"].decode())
    for name in ("benchmark.html", "index.html"):
        outline = Outline(files[name].decode())
        assert outline.named("script") == []
        assert "<script>alert(1)</script>" in outline.text
        assert "{{ 7*7 }}" in outline.text
    assert [t for t, _ in Outline(files["benchmark.html"].decode()).tags] == [
        tag for tag, _ in plain.tags
    ]
    for name in ("benchmark.md", "index.md"):
        text = files[name].decode()
        outside_code = re.sub(r"~~~sh\n.*?\n~~~", "", text, flags=re.DOTALL)
        assert "\x1b" not in text
        assert "<script" not in outside_code.replace(r"\<script", "")
        assert not re.search(r"(?<!\\)\[a(?<!\\)\]\(javascript", outside_code)
        assert "\n# e" not in text
    before, _, after = files["benchmark.md"].decode().partition("~~~sh\n")
    assert re.fullmatch(r"trackrecord portfolio build [^\n]*\n~~~\n", after)
    cells = [line for line in before.splitlines() if line.startswith("| Processor")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in cells] == [3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b*c", r"a\_b\*c"),
        ("1 | 2", r"1 \| 2"),
        ("https://x.y", r"https\://x.y"),
        ("www.x.y", r"www\.x.y"),
        ("two\nlines", r"two\\nlines"),
        ("12.3 (11.9–12.8)", "12.3 (11.9–12.8)"),
    ],
)
def test_markdown_is_escaped(text, shown):
    assert markdown_escape(text) == shown


def test_the_decode_finding_follows_from_the_figures():
    report = sample_report()
    [finding] = [f for f in findings(report) if f.title.startswith("Decode")]
    rate = 127 / 6.1
    moved = rate * (134_479_872 * 4 + 192 * 46_080)
    assert f"{100 * moved / 21.5e9:.0f}% of the machine's read bandwidth" in finding.title
    assert f"{moved / 1e9:.1f} GB/s / 21.5 GB/s" in finding.arithmetic
    assert f"would allow {21.5e9 / (moved / rate):.1f} tok/s" in finding.text


def test_weights_that_stay_in_the_caches_are_not_called_a_share_of_memory():
    report = sample_report()
    slow = dataclasses.replace(report.machine, read_bandwidth=Figure(1e9, "bytes/s"))
    [finding] = [
        f
        for f in findings(dataclasses.replace(report, machine=slow))
        if f.title.startswith("Decode")
    ]
    assert "more than the 1.00 GB/s measured" in finding.text
    assert "would allow" not in finding.text


def test_the_prefill_finding_follows_from_the_figures():
    [finding] = [f for f in findings(sample_report()) if f.title.startswith("Prefill")]
    used = 8192 / 16.9 * 2 * 106_168_320
    assert f"{100 * used / 140e9:.0f}% of the machine's arithmetic" in finding.title


def test_a_report_without_a_part_says_nothing_of_it(no_plots):
    report = sample_report()
    report = dataclasses.replace(report, load=None, workloads=report.workloads[:1])
    titles = [finding.title.split(":")[0] for finding in findings(report)]
    assert titles == ["Decode"]
    text = benchmark_page(report).files["benchmark.md"].decode()
    assert "Latency under load" not in text
    assert "plots/latency" not in text


def test_limits_name_what_ran_once_and_what_was_preempted():
    report = sample_report()
    assert any("Measured once only" in line and "batch, prefill" in line for line in limits(report))
    assert not any("preempted" in line for line in limits(report))
    crowded = [
        dataclasses.replace(result, preemptions=3 if result.name == "batch" else 0)
        for result in report.workloads
    ]
    assert any(
        "too small for batch" in line
        for line in limits(dataclasses.replace(report, workloads=crowded))
    )


def test_limits_tell_of_a_busy_machine():
    report = sample_report()
    busy = dataclasses.replace(report, other_programs=Figure(0.43, "share"))
    assert any("Other programs took 43%" in line for line in limits(busy))
    for quiet in (report, dataclasses.replace(report, other_programs=None)):
        assert not any("Other programs" in line for line in limits(quiet))


def test_goodput_is_shown_when_there_is_an_objective(no_plots):
    load = sample_load(Slo(ttft=0.5))
    phases = [dataclasses.replace(p, goodput=Figure(1.25, "requests/s")) for p in load.phases]
    report = dataclasses.replace(sample_report(), load=dataclasses.replace(load, phases=phases))
    text = benchmark_page(report).files["benchmark.md"].decode()
    assert "1.25 requests/s" in text
    assert "TTFT within 500 ms" in text
    assert "Goodput" not in benchmark_page(sample_report()).files["benchmark.md"].decode()


def test_a_page_must_bring_its_own_files():
    with pytest.raises(ValueError, match=r"has no file 'x\.md'"):
        Page("x", "X", "", {"x.html": b""})
