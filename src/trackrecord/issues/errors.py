"""What can go wrong with issues, as the person at the terminal sees it."""

from __future__ import annotations

from trackrecord.errors import TrackRecordError


class IssuesError(TrackRecordError):
    """A store, an import file or an argument that cannot be used."""


class GitHubError(IssuesError):
    """GitHub refused, or did not answer; what was fetched before is kept."""


class RecordError(ValueError):
    """A record that is not of the form GitHub documents. The message names the field."""
