"""Numbers with units: what grading, the design session and the bank mean by a quantity.

measure, unit_words, units    what a number with a unit is, and how it is written
expressions, sizing_names     arithmetic in text, with the engine's own sizing as functions
figures, stated, equations    the numbers of a person's prose, and what is calculated there
reading                       all that prose says in numbers, and whether it is right
"""
