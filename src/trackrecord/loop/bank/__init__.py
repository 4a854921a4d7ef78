"""The question bank: data files, what reads them, and what checks that they keep their promises."""
