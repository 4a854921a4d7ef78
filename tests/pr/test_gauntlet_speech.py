"""What a comment does, sentence by sentence, and that no text makes the reading stumble."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackrecord.pr.gauntlet.speech.acts import Act, read_acts
from trackrecord.pr.gauntlet.speech.clauses import MAX_CLAUSES, clauses
from trackrecord.pr.gauntlet.speech.lexicon import compile_lexicon, lexicon

REPO = "vllm-project/vllm"
SENTENCES = tomllib.loads(
    (Path(__file__).parent / "gauntlet_sentences.toml").read_text(encoding="utf-8")
)
# Group to (one of these acts it is, none of these acts it may be).
MEANING: dict[str, tuple[set[str], set[str]]] = {
    "claims": ({"claim"}, set()),
    "claims_in_other_languages": ({"claim"}, set()),
    "claims_or_pulls": ({"claim", "pull"}, set()),
    "claims_or_offers": ({"claim", "offer"}, set()),
    "not_claims": (set(), {"claim", "offer"}),
    "harmless": (set(), {"claim", "offer", "leaning", "named", "pull", "fixed", "duplicate"}),
    "offers": ({"offer"}, {"claim"}),
    "leanings": ({"leaning"}, {"claim"}),
    "withdrawals": ({"withdrawal"}, {"claim"}),
    "named": ({"named"}, set()),
    "fixed": ({"fixed"}, set()),
    "not_fixed": (set(), {"fixed"}),
    "duplicates": ({"duplicate"}, set()),
    "not_duplicates": (set(), {"duplicate"}),
    "pulls": ({"pull"}, {"fixed"}),
    "not_pulls": (set(), {"pull"}),
}
CASES = [(group, text) for group, texts in SENTENCES.items() for text in texts]


def acts(text: str) -> list[Act]:
    return read_acts(text, REPO)


def kinds(text: str) -> list[str]:
    return [act.kind for act in acts(text)]


@pytest.mark.parametrize(("group", "text"), CASES)
def test_a_sentence_does_what_it_says(group: str, text: str) -> None:
    wanted, forbidden = MEANING[group]
    sure = [a.kind for a in acts(text) if not (a.kind == "duplicate" and a.hedged)]
    found = set(sure if group == "not_duplicates" else kinds(text))
    assert not wanted or found & wanted, found
    assert not found & forbidden, found


def test_there_are_enough_sentences_of_every_kind() -> None:
    assert set(SENTENCES) == set(MEANING)
    assert len(CASES) >= 150
    assert len({text for _, text in CASES}) > 0.97 * len(CASES)


# Whose words count.


def test_what_is_quoted_is_not_said() -> None:
    assert "claim" not in kinds("> I'll take this one.\n\nGreat, thanks!")
    assert "claim" in kinds("> Who will do it?\n\nI'll take this one.")


def test_nested_quotations_and_mail_are_not_said() -> None:
    mail = "Thanks!\n\nOn Thu, Jun 6, 2024 at 10:11 AM Ada wrote:\n> I am working on this."
    assert "claim" not in kinds(mail)
    assert "claim" not in kinds("> > I am working on this.\n> me too\n\nfollowing")


def test_code_and_struck_out_words_are_not_said() -> None:
    assert "claim" not in kinds("```\nI will fix this\n```")
    assert "claim" not in kinds("~~I will fix this.~~ Never mind.")
    assert "fixed" not in kinds("`fixed in #12` is what the bot printed")


def test_only_a_ticked_box_counts() -> None:
    assert kinds("- [ ] I am willing to submit a PR") == []
    assert kinds("- [x] I am willing to submit a PR") == ["offer"]


# What it is about.


def test_a_claim_may_be_about_another_thread() -> None:
    (claim,) = [a for a in acts("I will do the work on #4711 instead.") if a.kind == "claim"]
    assert claim.threads == (4711,)


def test_a_claim_names_its_pull_request() -> None:
    text = "The fix is in a PR that I opened: #5460."
    assert any(a.kind == "claim" and a.pulls == (5460,) for a in acts(text))


def test_an_address_tells_pull_requests_from_issues() -> None:
    pull = f"https://github.com/{REPO}/pull/12"
    issue = f"https://github.com/{REPO}/issues/12"
    assert kinds(f"See {pull}") == ["pull"]
    assert kinds(f"See {issue}") == ["related"]
    assert kinds(f"Fixed by [#12]({pull}).") == ["fixed"]


def test_threads_of_another_repository_are_not_ours() -> None:
    text = "Fixed in https://github.com/huggingface/transformers/pull/12"
    assert all(act.threads == () for act in acts(text))


def test_what_a_bare_number_is_can_be_known() -> None:
    text = "Should be covered by #12."
    (act,) = [a for a in read_acts(text, REPO, lambda n: True) if a.kind in ("pull", "fixed")]
    assert 12 in (*act.pulls, *act.threads)


def test_versions_are_kept_with_a_fix() -> None:
    (act,) = [a for a in acts("With v0.6.3.post1 it no longer happens.") if a.kind == "fixed"]
    assert act.versions == ("0.6.3.post1",)


def test_who_is_named() -> None:
    (act,) = [a for a in acts("FYI @Ada-L is working on this.") if a.kind == "named"]
    assert act.who == "ada-l"


# Order, conditions, negation.


def test_what_comes_later_in_a_clause_counts() -> None:
    assert "withdrawal" in kinds("I was working on this but no longer have time for it.")
    assert "claim" in kinds("I had no time last week, but I will work on this now.")


def test_a_condition_that_only_waits_for_nobody_is_a_claim() -> None:
    assert "claim" in kinds("If nobody has started, I will take this.")
    assert "offer" in kinds("If the maintainers agree, I will take this.")
    assert "leaning" in kinds("If I find the time, I will take this.")


def test_a_question_states_nothing() -> None:
    assert "fixed" not in kinds("Was this fixed in #12?")
    assert not any(a.kind == "duplicate" and not a.hedged for a in acts("Same as #12?"))


def test_a_duplicate_has_a_direction() -> None:
    assert kinds("#12 is a duplicate of this issue.") == ["duplicate-of-this"]
    assert "duplicate" in kinds("This issue is a duplicate of #12.")


def test_a_line_that_ends_before_the_address_goes_on() -> None:
    text = f"Closing in favour of\nhttps://github.com/{REPO}/issues/12"
    (act,) = [a for a in acts(text) if a.kind == "duplicate"]
    assert act.threads == (12,)


def test_evidence_is_the_words_as_written() -> None:
    text = "Hello!\n\nI'd like to *work* on this, [see](https://example.org/x)."
    (claim,) = [a for a in acts(text) if a.kind == "claim"]
    assert claim.clause.source == "I'd like to *work* on this, [see](https://example.org/x)."
    assert claim.clause.line == 3


# The lexicon.


def test_every_rule_of_the_lexicon_can_match_and_is_named_once() -> None:
    rules = [rule for found in lexicon().rules.values() for rule in found]
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(not rule.pattern.search("") for rule in rules)


def test_a_phrase_that_cannot_be_read_is_named() -> None:
    bad = {"words": {"barrier": ["not"]}, "rules": {"r": {"act": "claim", "phrases": ["(a|b"]}}}
    with pytest.raises(ValueError, match="parentheses"):
        compile_lexicon(bad, {})
    bad["rules"] = {"r": {"act": "claim", "phrases": ["{nothing}"]}}
    with pytest.raises(ValueError, match="no word class 'nothing'"):
        compile_lexicon(bad, {})


# Whatever the text.

WORDS = st.sampled_from(
    "i will take this fix #12 not if you the pr is fixed in v0.9.1 working on it duplicate of we "
    "> `code` ``` @ada https://github.com/vllm-project/vllm/pull/5 , . ? \n "
    "我 来 修复 ~~ - [x]".split(" ")
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=60).map(" ".join))
def test_words_in_any_order_are_read(text: str) -> None:
    for act in acts(text):
        assert act.clause.text.endswith(" ")
        assert 1 <= act.clause.line <= text.count("\n") + 1


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read(text: str) -> None:
    read_acts(text, REPO)


def test_a_wall_of_braille_blanks_says_nothing() -> None:
    assert acts("\u2800" * 60_000) == []


UNITS = "i will |#12 |not |a, |`|~~|(|[x](|@a |fixed in |> |我|- [x] ".split("|")


@pytest.mark.parametrize("unit", UNITS)
def test_a_wall_of_anything_is_read_to_its_end(unit: str) -> None:
    """Work that grew with the square of the text would not end before the run's time limit."""
    assert len(acts(unit * (400_000 // len(unit)))) <= 4 * MAX_CLAUSES


def test_of_a_flood_of_clauses_both_ends_are_read() -> None:
    text = "I will take this.\n\n" + "Nothing here.\n\n" * 5_000 + "I give up on this one."
    found = clauses(text)
    assert len(found) == MAX_CLAUSES
    assert {"claim", "withdrawal"} <= set(kinds(text))
