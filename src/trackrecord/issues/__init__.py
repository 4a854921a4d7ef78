"""Issue threads of a repository, kept on this machine: fetched or imported, searched, ranked.

`text` and `references` read what people wrote, `store` keeps it, `github` and `sync` fetch it,
`importer` takes it from a file, `similarity` finds what resembles it, `candidates` and `harvest`
say what could be worked on.
"""
