"""Made traffic: its rates and moments, what is independent of what, and traces from files."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from statistics import fmean, pstdev

import pytest

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.traffic import Arrival, Lengths, Tenant, arrivals, read_trace

SHORT = Lengths("fixed", 1)
LONG_TAILED = Lengths("lognormal", 200, cv=1.0)
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def first(count: int, *tenants: Tenant, seed: int = 0) -> list[Arrival]:
    return list(islice(arrivals(tenants, seed), count))


def times(count: int, tenant: Tenant, seed: int = 0) -> list[float]:
    quick = replace(tenant, prompt=SHORT, output=SHORT)
    return [arrival.time for arrival in first(count, quick, seed=seed)]


def gaps(count: int, tenant: Tenant) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0.0, *times(count, tenant)])]


# --- when


@pytest.mark.parametrize(
    ("tenant", "variation"),
    [
        (Tenant(rate=5, arrivals="poisson"), 1.0),
        (Tenant(rate=5, arrivals="gamma", burstiness=1.0), 1.0),
        (Tenant(rate=5, arrivals="gamma", burstiness=3.0), 3.0),
        (Tenant(rate=0.2, arrivals="gamma", burstiness=0.5), 0.5),
        (Tenant(rate=5, arrivals="constant"), 0.0),
    ],
    ids=lambda value: f"{value.arrivals} {value.burstiness}" if isinstance(value, Tenant) else None,
)
def test_gaps_have_the_rate_and_the_variation_that_was_asked_for(
    tenant: Tenant, variation: float
) -> None:
    found = gaps(30_000, tenant)
    mean = fmean(found)
    assert mean == pytest.approx(1 / tenant.rate, rel=0.05)
    assert pstdev(found) / mean == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_a_day_has_its_mean_rate_and_one_peak() -> None:
    tenant = Tenant(rate=0.5, arrivals="diurnal", peak_to_mean=1.8)
    hours = [0] * 24
    for time in times(86_400, tenant):
        if time < 86_400:
            hours[int(time // 3600)] += 1
    assert sum(hours) / 86_400 == pytest.approx(0.5, rel=0.02)
    busiest = max(range(24), key=lambda hour: hours[hour - 1] + hours[hour])
    quietest = (busiest + 12) % 24
    assert (hours[busiest - 1] + hours[busiest]) / 7200 == pytest.approx(0.5 * 1.8, rel=0.1)
    assert (hours[quietest - 1] + hours[quietest]) / 7200 == pytest.approx(0.5 * 0.2, rel=0.5)


@pytest.mark.parametrize("kind", ["poisson", "gamma", "constant", "diurnal"])
def test_time_never_goes_back(kind: str) -> None:
    found = times(2000, Tenant(rate=3, arrivals=kind))
    assert found == sorted(found)
    assert found[0] >= 0


def test_tenants_arrive_in_one_order_of_time() -> None:
    tenants = [Tenant("a", rate=2), Tenant("b", rate=1), Tenant("c", rate=1, arrivals="constant")]
    found = first(8000, *tenants)
    assert [arrival.time for arrival in found] == sorted(arrival.time for arrival in found)
    shares = {name: sum(arrival.tenant == name for arrival in found) / 8000 for name in "abc"}
    assert shares == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=0.02)


def test_a_request_has_the_priority_of_its_tenant() -> None:
    found = first(50, Tenant("a", priority=0), Tenant("b", priority=7))
    assert {(arrival.tenant, arrival.priority) for arrival in found} == {("a", 0), ("b", 7)}


# --- how much


def draws(lengths: Lengths, count: int = 40_000) -> list[int]:
    rng = Random(7)
    return [lengths.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
def test_a_lognormal_length_has_its_mean_and_variation(cv: float) -> None:
    found = draws(Lengths("lognormal", 500, cv=cv))
    assert fmean(found) == pytest.approx(500, rel=0.04)
    assert pstdev(found) / fmean(found) == pytest.approx(cv, rel=0.1)


def test_a_fixed_length_is_fixed() -> None:
    assert set(draws(Lengths("fixed", 77), 100)) == {77}


def test_a_uniform_length_takes_every_value_between_its_ends() -> None:
    found = draws(Lengths("uniform", least=10, most=20))
    assert set(found) == set(range(10, 21))
    assert fmean(found) == pytest.approx(15, rel=0.01)


def test_an_empirical_length_is_one_that_was_observed() -> None:
    found = draws(Lengths("empirical", values=(5, 5, 5, 100)))
    assert set(found) == {5, 100}
    assert fmean(found) == pytest.approx((15 + 100) / 4, rel=0.03)


@pytest.mark.parametrize("kind", ["lognormal", "fixed", "empirical"])
def test_bounds_hold_for_every_kind(kind: str) -> None:
    lengths = Lengths(kind, 300, cv=3.0, least=50, most=250, values=(1, 10_000))
    found = draws(lengths, 2000)
    assert 50 <= min(found) <= max(found) <= 250


# --- what depends on what


def facts(found: list[Arrival]) -> list[tuple[float, list[int], int, int]]:
    return [(a.time, a.prompt_token_ids, a.output_tokens, a.key) for a in found]


BASE = Tenant(
    "t", rate=4, prompt=LONG_TAILED, output=LONG_TAILED, prefixes=5, prefix_tokens=32, turns=3
)


def test_a_seed_fixes_everything() -> None:
    assert facts(first(300, BASE, seed=3)) == facts(first(300, BASE, seed=3))


def test_another_seed_changes_times_lengths_and_prefixes() -> None:
    one, other = first(300, BASE, seed=3), first(300, BASE, seed=4)
    assert [a.time for a in one] != [a.time for a in other]
    assert [a.output_tokens for a in one] != [a.output_tokens for a in other]
    assert [a.key for a in one] != [a.key for a in other]


@pytest.mark.parametrize(
    "changes",
    [{"rate": 40.0}, {"arrivals": "gamma"}, {"arrivals": "constant"}, {"think_seconds": 1.0}],
    ids=str,
)
def test_when_requests_come_does_not_change_what_they_are(changes: dict[str, object]) -> None:
    one, other = first(300, BASE), first(300, replace(BASE, **changes))  # type: ignore[arg-type]
    assert [fact[1:] for fact in facts(one)] == [fact[1:] for fact in facts(other)]


@pytest.mark.parametrize(
    "changes", [{"prompt": SHORT}, {"prefixes": 0, "prefix_tokens": 0}, {"turns": 1}], ids=str
)
def test_what_requests_are_does_not_change_when_they_come(changes: dict[str, object]) -> None:
    one, other = first(300, BASE), first(300, replace(BASE, **changes))  # type: ignore[arg-type]
    assert [a.time for a in one] == [a.time for a in other]


def test_prefixes_do_not_change_lengths() -> None:
    plain = first(300, replace(BASE, prefixes=0, prefix_tokens=0))
    shared = first(300, BASE)
    assert [a.output_tokens for a in plain] == [a.output_tokens for a in shared]
    assert [len(a.prompt_token_ids) + 32 for a in plain] == [
        len(a.prompt_token_ids) for a in shared
    ]


def test_a_second_tenant_leaves_the_first_as_it_was() -> None:
    alone = first(100, BASE)
    among = [a for a in first(400, BASE, Tenant("u", rate=3)) if a.tenant == "t"]
    assert facts(among[:100]) == facts(alone[: len(among)])


# --- what is shared


def test_requests_of_a_key_share_its_prefix_and_nothing_after_it() -> None:
    by_key: dict[int, list[list[int]]] = {}
    for arrival in first(500, replace(BASE, prompt=Lengths("fixed", 40))):
        by_key.setdefault(arrival.key, []).append(arrival.prompt_token_ids)
    assert len(by_key) == 5
    heads = {key: {tuple(prompt[:32]) for prompt in prompts} for key, prompts in by_key.items()}
    assert all(len(head) == 1 for head in heads.values())
    assert len(set.union(*heads.values())) == 5
    own = [tuple(prompt[32:48]) for prompts in by_key.values() for prompt in prompts]
    assert len(set(own)) == 500


def test_prefixes_are_drawn_evenly() -> None:
    found = first(5000, replace(BASE, prompt=SHORT))
    counts = [sum(arrival.key == key for arrival in found) for key in {a.key for a in found}]
    assert min(counts) > 850
    assert max(counts) < 1150


def test_prompts_that_share_nothing_differ_in_their_first_block() -> None:
    tenants = [Tenant(f"t{n}", prompt=Lengths("fixed", 16)) for n in range(20)]
    found = first(8000, *tenants)
    assert len({tuple(arrival.prompt_token_ids) for arrival in found}) == 8000
    assert len({arrival.key for arrival in found}) == 8000


# --- sessions


def test_a_next_turn_begins_with_all_of_the_last_one() -> None:
    one = first(1, BASE)[0]
    assert one.following is not None
    tokens = [*one.prompt_token_ids, 8, 9, 10]
    two = one.following(tokens, 50.0)
    assert two.prompt_token_ids[: len(tokens)] == tokens
    assert len(two.prompt_token_ids) > len(tokens)


def test_a_next_turn_keeps_its_key_and_comes_after_the_answer() -> None:
    one = first(1, replace(BASE, priority=3))[0]
    assert one.following is not None
    two = one.following(one.prompt_token_ids, 50.0)
    assert two.time > 50
    assert (two.key, two.tenant, two.priority) == (one.key, one.tenant, one.priority)


def test_a_session_has_as_many_turns_as_it_should() -> None:
    arrival, turns = first(1, BASE)[0], 1
    while arrival.following is not None:
        arrival = arrival.following(arrival.prompt_token_ids, arrival.time)
        turns += 1
    assert turns == 3


def test_people_think_as_long_as_was_said() -> None:
    thoughts = []
    for arrival in first(4000, replace(BASE, prompt=SHORT, think_seconds=12.0)):
        assert arrival.following is not None
        thoughts.append(arrival.following(arrival.prompt_token_ids, 100.0).time - 100)
    assert fmean(thoughts) == pytest.approx(12, rel=0.05)
    assert pstdev(thoughts) == pytest.approx(12, rel=0.05)


def test_later_turns_do_not_change_who_comes_next() -> None:
    """Faster engines ask for later turns sooner; the traffic must be the same for them."""
    plain = first(50, BASE)
    asked = []
    for arrival in islice(arrivals((BASE,), 0), 50):
        asked.append(arrival)
        assert arrival.following is not None
        arrival.following(arrival.prompt_token_ids, arrival.time)
    assert facts(asked) == facts(plain)


def test_a_turn_is_the_same_whichever_session_was_answered_first() -> None:
    def turns(order: list[int]) -> dict[int, tuple[float, int, int]]:
        found = first(10, BASE)
        made = {}
        for number in order:
            following = found[number].following
            assert following is not None
            turn = following([1, 2, 3], 100.0)
            made[number] = (turn.time, len(turn.prompt_token_ids), turn.output_tokens)
        return made

    assert turns(list(range(10))) == turns(list(range(9, -1, -1)))


# --- traces


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


def test_a_trace_gives_times_and_lengths(trace: Path) -> None:
    trace.write_text(HEADER + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05,12,3\n")
    entries = read_trace(trace)
    assert [entry[1:] for entry in entries] == [(4808, 10), (12, 3)]
    assert entries[1][0] - entries[0][0] == pytest.approx(1.02004, abs=2e-6)


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:05.4799600"),
        ("2023-11-16 18:17:03.5", "2023-11-16 18:17:05"),
        ("2023-11-16T18:17:03.500Z", "2023-11-16T18:17:05.000Z"),
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:01.509930+00:00"),
        ("2023-12-31 23:59:59", "2024-01-01 00:00:00.500000"),
        ("12.25", "13.75"),
        ("0", "1.5"),
    ],
)
def test_times_are_read_as_they_are_published(early: str, late: str, trace: Path) -> None:
    trace.write_text(f"{HEADER}{early},1,1\n{late},1,1\n")
    one, other = read_trace(trace)
    assert other[0] - one[0] == pytest.approx(1.5, abs=2e-6)


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(trace: Path) -> None:
    trace.write_bytes(b"\xef\xbb\xbf" + (HEADER + "1,2,3\n").replace("\n", "\r\n").encode())
    assert read_trace(trace) == [(1.0, 2, 3)]


def test_columns_may_be_in_another_order_and_among_others(trace: Path) -> None:
    trace.write_text("GeneratedTokens,Model,TIMESTAMP,ContextTokens\n3,m,1,2\n")
    assert read_trace(trace) == [(1.0, 2, 3)]


def test_empty_lines_are_passed_over(trace: Path) -> None:
    trace.write_text(HEADER + "\n1,2,3\n\n2,4,5\n\n")
    assert read_trace(trace) == [(1.0, 2, 3), (2.0, 4, 5)]


def test_an_hour_without_requests_stays_one(trace: Path) -> None:
    trace.write_text(HEADER + "10,1,1\n3610,1,1\n")
    assert [a.time for a in arrivals((Tenant(trace=str(trace)),), 0)] == [0.0, 3600.0]


def test_a_trace_can_be_played_faster(trace: Path) -> None:
    trace.write_text(HEADER + "0,5,2\n100,6,3\n")
    played = list(arrivals((Tenant(trace=str(trace), trace_speed=4.0),), 0))
    assert [a.time for a in played] == [0.0, 25.0]
    assert [(len(a.prompt_token_ids), a.output_tokens) for a in played] == [(5, 2), (6, 3)]


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        ("", "must name TIMESTAMP"),
        ("TIMESTAMP,ContextTokens\n1,2\n", "must name TIMESTAMP"),
        (HEADER, "holds no request"),
        (HEADER + "\n\n", "holds no request"),
        (HEADER + "1,2,3\nyesterday,2,3\n", "line 3"),
        (HEADER + "1,2\n", "line 2"),
        (HEADER + "1,,3\n", "line 2"),
        (HEADER + "1,2,3\n1,2.5,3\n", "line 3"),
        (HEADER + "1,-2,3\n", "line 2"),
        (HEADER + "1,2,0\n", "line 2"),
        (HEADER + "nan,2,3\n", "line 2"),
        (HEADER + "inf,2,3\n", "line 2"),
        (HEADER + "2023-13-40 00:00:00,2,3\n", "line 2"),
        (HEADER + "1,100000000000,3\n", "line 2"),  # no memory holds such a prompt
        (HEADER + "1," + "9" * 5000 + ",3\n", "line 2"),
        (HEADER + "2,1,1\n1,1,1\n", "line 3: earlier"),
        (HEADER + "\n\n2,1,1\n1,1,1\n", "line 5: earlier"),
        (HEADER + "1,2,\ufffd\n", "line 2"),
    ],
    ids=lambda value: repr(value)[-24:],
)
def test_a_trace_that_cannot_be_used_names_the_line(content: str, saying: str, trace: Path) -> None:
    trace.write_text(content)
    with pytest.raises(InvalidInputError, match=saying):
        read_trace(trace)


@pytest.mark.parametrize("content", [b"\x00\x01\xff" * 100, b'TIMESTAMP,"' + b"x" * 200_000])
def test_a_file_of_junk_is_refused(content: bytes, trace: Path) -> None:
    trace.write_bytes(content)
    with pytest.raises(InvalidInputError):
        read_trace(trace)


@pytest.mark.parametrize("name", ["nothing.csv", ".", "a\0b", "x" * 5000], ids=lambda n: n[:8])
def test_a_trace_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        read_trace(tmp_path / name)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": -1.0}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"rate": math.inf}, "rate"),
        ({"arrivals": "uniform"}, "arrivals"),
        ({"burstiness": 0.0}, "burstiness"),
        ({"peak_to_mean": 0.5}, "peak_to_mean"),
        ({"peak_to_mean": 2.5}, "peak_to_mean"),
        ({"turns": 0}, "turns"),
        ({"think_seconds": -1.0}, "think_seconds"),
        ({"trace_speed": 0.0}, "trace_speed"),
        ({"prefixes": 3}, "prefix_tokens"),
        ({"prefix_tokens": 3}, "prefix_tokens"),
        ({"prefixes": -1}, "prefixes"),
        ({"prefixes": 2, "prefix_tokens": 10**12}, "prefix_tokens"),
    ],
    ids=str,
)
def test_a_tenant_that_cannot_be_is_refused(changes: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Tenant(**changes)  # type: ignore[arg-type]
    assert refused.value.param == param


@pytest.mark.parametrize("burstiness", [1e-200, 1e200])
def test_a_burstiness_beyond_arithmetic_is_refused(burstiness: float) -> None:
    with pytest.raises(InvalidInputError, match="burstiness"):
        Tenant(arrivals="gamma", burstiness=burstiness)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"kind": "normal"}, "kind"),
        ({"mean": 0.0}, "mean"),
        ({"mean": math.nan}, "mean"),
        ({"mean": 10.0, "most": 1 << 39}, "least"),  # no memory holds such a prompt
        ({"kind": "lognormal", "mean": 10.0, "cv": 0.0}, "cv"),
        ({"kind": "uniform", "least": 9, "most": 3}, "least"),
        ({"kind": "uniform", "least": 0, "most": 3}, "least"),
        ({"kind": "empirical"}, "values"),
        ({"kind": "empirical", "values": (3, 0)}, "values"),
    ],
    ids=str,
)
def test_lengths_that_cannot_be_are_refused(changes: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Lengths(**changes)  # type: ignore[arg-type]
    assert refused.value.param == param
