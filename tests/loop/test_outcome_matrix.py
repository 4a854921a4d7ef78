"""The matrix, the calibration and the change between two runs."""

from __future__ import annotations

from loop.graded_runs import SENTENCES, graded, sat
from trackrecord.loop.outcome.calibration import calibration
from trackrecord.loop.outcome.change import change_between
from trackrecord.loop.outcome.evidence import counted, one_line
from trackrecord.loop.outcome.matrix import Matrix, make_matrix
from trackrecord.loop.outcome.report import build_report


def matrix_of(*runs: object) -> Matrix:
    return make_matrix(counted(runs))  # type: ignore[arg-type]


def scores_of(matrix: Matrix, area: int) -> list[float | None]:
    return [cell.score for cell in matrix.areas[area].cells]


def test_a_cell_nobody_was_asked_about_is_empty() -> None:
    matrix = matrix_of(sat("a", graded("02/x", (0, 0, 0))))
    assert scores_of(matrix, 2) == [0, 0, 0]
    assert scores_of(matrix, 3) == [None, None, None]
    assert [row.name for row in matrix.asked] == ["02-paged-kv-cache"]


def test_a_cell_is_the_mean_over_its_items() -> None:
    matrix = matrix_of(sat("a", graded("02/x", (4, 3, 2)), graded("02/y", (1, 3, 0))))
    assert scores_of(matrix, 2) == [2.5, 3, 1]
    memory = next(row for row in matrix.competencies if row.name == "memory")
    assert [cell.score for cell in memory.cells] == [2.5, 3, 1]


def test_the_last_answer_to_an_item_replaces_the_ones_before() -> None:
    early, late = graded("02/x", (1, 1, 1)), graded("02/x", (4, 3, 3))
    matrix = matrix_of(sat("b", late, day=5), sat("a", early))
    assert scores_of(matrix, 2) == [4, 3, 3]
    assert matrix.areas[2].answers == 1


def test_an_answer_counts_in_each_of_its_areas() -> None:
    matrix = matrix_of(sat("a", graded("design", (3, 4, 2), areas=(10, 14))))
    assert scores_of(matrix, 10) == scores_of(matrix, 14) == [3, 4, 2]


def test_practice_is_shown_apart_and_counts_nowhere() -> None:
    practice = sat("p", graded("02/x", (4, 4, 4), own=(1, 1, 1)), practice=True)
    report = build_report([practice], practice.started.date())
    assert report.matrix.asked == ()
    assert report.calibration.pairs == ()
    assert report.strongest == ()
    assert [row.title for row in report.practised] == ["Paged KV cache"]


def test_a_cell_has_the_quote_the_item_and_the_day_of_its_best_answer() -> None:
    better = graded("02/y", (4, 3, 3), text="a shared prefix", quotes=("a shared prefix",) * 3)
    matrix = matrix_of(sat("a", graded("02/x", (2, 3, 3)), better))
    best = matrix.areas[2].cells[0].best
    assert best is not None
    assert (best.item, best.quote.quote) == ("question:02/y", "a shared prefix")
    assert best.at.isoformat() == "2026-07-01"


def test_the_gap_is_own_minus_machine_where_an_own_score_was_given() -> None:
    run = sat("a", graded("02/x", (2, 2, 2), own=(4, 1, 2)), graded("02/y", (1, 1, 1)))
    assert [cell.gap for cell in matrix_of(run).areas[2].cells] == [2, -1, 0]
    found = calibration(run.answers)
    assert [(gap.answers, gap.gap) for gap in found.layers] == [(1, 2), (1, -1), (1, 0)]
    assert set(found.pairs) == {(4, 2, 1), (1, 2, 1), (2, 2, 1)}


def test_without_own_scores_there_is_no_gap() -> None:
    run = sat("a", graded("02/x", (2, 2, 2)))
    assert matrix_of(run).areas[2].gap is None
    assert "nothing to calibrate" in calibration(run.answers).words


def test_the_change_says_what_was_gained_lost_new_and_left_out() -> None:
    before = sat("a", graded("02/x", (2, 3, 1)), graded("04/x", (3, 3, 3), areas=(4,)))
    after = sat("b", graded("02/y", (3, 2, 2)), graded("05/x", (3, 3, 3), areas=(5,)), day=3)
    change = change_between(before, after)
    assert [step.kind for step in change.steps[:3]] == ["gained", "lost", "better"]
    assert change.steps[0].words == "Paged KV cache, mechanism: gained, from 2.0 to 3.0"
    assert {step.area for step in change.of("new")} == {"Model execution, compilation and graphs"}
    assert {step.area for step in change.of("not asked again")} == {
        "Attention kernels and backends"
    }
    assert "1 gained, 1 better, 1 lost, 3 new, 3 not asked again" in change.words


def test_the_report_compares_the_last_two_runs_that_count() -> None:
    runs = [sat(name, graded("02/x", (2, 2, 2)), day=n) for n, name in enumerate("abc")]
    practice = sat("p", graded("02/x", (2, 2, 2)), day=9, practice=True)
    change = build_report([*runs, practice], practice.started.date()).change
    assert change is not None
    assert (change.earlier, change.later) == ("b", "c")
    assert build_report(runs[:1], practice.started.date()).change is None


def test_a_quotation_is_one_short_line_without_control_characters() -> None:
    assert one_line("a\n  b\x1b[2J\u202e") == "a b\\x1b[2J\\u202e"
    long = one_line(SENTENCES[0] * 500)
    assert len(long) <= 200
    assert long.endswith("…")
