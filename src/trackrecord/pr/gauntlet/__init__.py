"""The gauntlet: five checks that can disqualify an issue, cheapest first.

    claimed         is somebody at it, is it fixed, is it a duplicate?
    reproducible    can the report be reproduced on the pin, on your hardware?
    within-map      does it land where you know the code?
    testable        can a regression test be written and run?
    reviewable      will somebody be able, and willing, to review it?

A check is the module of its name: it takes a `Case` and returns a `CheckResult` (`report`). `run`
puts them in order; `speech` reads what people wrote. No check runs anything that an issue contains.
"""
