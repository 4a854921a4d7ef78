"""The mock staff loop: four timed sessions, graded in three layers, and what becomes of the marks.

`items` is what can be asked, `marks` what grading says, `areas` what both are about; every other
module makes or uses these. A question lives in `bank`, a design in `design`, a live fault in
`incidents`; `session` sits a person down to them; `grading` reads prose, `quantities` numbers;
`outcome` turns marks into a matrix, a map and a revision list.
"""
