"""From sheet to page: one real simulation, every number linked, nothing from outside as markup."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import date

import pytest

from outline import Outline
from trackrecord.errors import TrackRecordError
from trackrecord.venture.page import venture_page
from trackrecord.venture.report import build_report, read_report
from trackrecord.venture.sheet import Moat, sheet_from
from venture.small import SCENARIO, shipped_document

TODAY = date(2026, 11, 27)
HOSTILE = '<script>alert(1)</script> [a](javascript:b) | # {{ 7*7 }} \x1b[31m "q" <img src=x>'


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("venture")
    (folder / "scenario.toml").write_text(SCENARIO)
    return build_report(sheet_from(shipped_document(), folder), TODAY, draws=100)


def test_the_same_sheet_makes_the_same_report(sheet, report):
    assert build_report(sheet, TODAY, draws=100) == report
    assert build_report(sheet, TODAY, draws=100, seed=1) != report


def test_the_saved_report_makes_the_same_page(report, tmp_path, no_plots):
    page = venture_page(report)
    path = tmp_path / "venture.json"
    path.write_bytes(page.files["venture.json"])
    again = venture_page(read_report(path))
    assert again.files == page.files


def test_no_figure_is_a_point_alone(report):
    known = {"probability_gross_margin", "probability_operating_margin"}
    for figure in report.figures:
        assert figure.is_uncertain or figure.key in known
        assert figure.lines
    margin = report.figure("gross_margin")
    assert margin.low < margin.value
    assert margin.with_range.endswith(" %)")


def test_every_number_of_the_thesis_links_to_its_derivation(report, no_plots):
    files = venture_page(report).files
    html, markdown = files["venture.html"].decode(), files["venture.md"].decode()
    outline = Outline(html)
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for t, a in outline.tags if t == "a" and a["href"].startswith("#")}
    assert links <= set(ids)
    thesis = html.partition('id="thesis"')[2].partition("<h3>")[0]
    unlinked = re.sub(r"<a .*?</a>|<[^>]*>", "", thesis.partition(">")[2])
    assert "gross margin" in unlinked
    assert not re.search(r"\d", unlinked)
    assert "cost-of-a-million-output-tokens" in links
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in markdown.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", markdown)) <= headings


def test_a_hope_is_called_one(report, no_plots):
    markdown = venture_page(report).files["venture.md"].decode()
    assert "### Hope, switching-cost" in markdown
    assert "### Moat, compliance" in markdown
    assert [moat.is_hope for moat in report.moats] == [False, False, True]
    assert [moat.outlasts for moat in report.moats] == [True, False, False]


def test_pictures_have_words_and_the_pages_colours(report):
    page = venture_page(report)
    html = page.files["venture.html"].decode()
    pictures = [a for t, a in Outline(html).tags if t == "svg"]
    assert len(pictures) == 6
    assert all(len(a["aria-label"]) > 40 for a in pictures)
    assert page.files["plots/venture-margin.png"].startswith(b"\x89PNG")
    assert set(re.findall(r"\]\((plots/[^)]*)\)", page.files["venture.md"].decode())) <= set(
        page.files
    )


def test_text_from_a_sheet_cannot_become_markup(document, folder, no_plots):
    document["title"] = HOSTILE
    document["thesis"] = {"text": f"# {HOSTILE} {{gross_margin}}", "falsifiers": [HOSTILE]}
    document["hardware"]["spot_gpu_hour_usd"]["source"] = HOSTILE
    sheet = sheet_from(document, folder)
    sheet = dataclasses.replace(sheet, moats=(Moat("data", HOSTILE, (HOSTILE,), 3.0, HOSTILE),))
    page = venture_page(build_report(sheet, TODAY, draws=100))
    outline = Outline(page.files["venture.html"].decode())
    assert {t for t, _ in outline.tags} & {"script", "img"} == set()
    assert "<script>alert(1)</script>" in outline.text
    assert "{{ 7*7 }}" in outline.text
    markdown = page.files["venture.md"].decode()
    assert "\x1b" not in markdown
    assert not re.search(r"(?<!\\)<script", markdown)
    assert not re.search(r"(?<!\\)\[a(?<!\\)\]\(javascript", markdown)


def test_a_verdict_needs_the_objective_the_sheet_and_the_margin(report):
    likely = report.figure("probability_gross_margin")
    sure = [dataclasses.replace(f, value=0.9) if f is likely else f for f in report.figures]
    good = dataclasses.replace(report, figures=sure)
    assert good.is_positive
    broken = dataclasses.replace(good.simulation, meets_slo=False)
    assert not dataclasses.replace(good, simulation=broken).is_positive
    doubtful = [dataclasses.replace(f, value=0.5) if f is likely else f for f in report.figures]
    assert not dataclasses.replace(report, figures=doubtful).is_positive


def _without(key):
    return lambda data: data.pop(key)


def _set(key, value):
    return lambda data: data.__setitem__(key, value)


@pytest.mark.parametrize(
    "spoil",
    [
        _without("figures"),
        _set("schema", "other/1"),
        _set("figures", []),
        _set("hours", [1.0]),
        _set("best", "rent"),
        _set("flips", [{"key": "x", "value": 1, "at": 2, "to": "buy", "within": True}]),
        _set("thesis", [[{"text": "60 %", "anchor": "nowhere"}]]),
        _set("by_utilisation", []),
        _set("draws", "many"),
        _set("more", 1),
    ],
)
def test_a_document_that_is_no_report_is_refused(report, tmp_path, spoil):
    data = json.loads(json.dumps(report.to_json()))
    spoil(data)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    with pytest.raises(TrackRecordError, match=r"make it again") as raised:
        read_report(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "[" * 100_000])
def test_junk_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(TrackRecordError):
        read_report(path)
