"""What people do with their words in a thread: claim, give up, point elsewhere, report a fix.

`clauses` cuts a comment into clauses in one plain spelling, `lexicon` turns the phrases of
`lexicon.toml` and `languages.toml` into patterns, `acts` reads each clause with them. Nothing here
knows the thread: who spoke, when, and what follows from it is the claimed check's business.
"""
