"""What becomes of the marks: a matrix, a map of levels, a revision list, cards that come due.

Invariant: all of it is a function of the graded runs and a date; nothing is stored but what a
person chose to publish (`published`). `report` puts the parts together, `lines` and `review` show
them in a terminal.
"""
