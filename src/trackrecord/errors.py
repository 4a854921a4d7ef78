"""What can go wrong in the workbench, as the person at the terminal sees it.

Every message is one line that says what was wrong, with what value, and what to do; `console.run`
prints it and exits with 2.
"""

from __future__ import annotations

from mini_vllm.errors import MiniVLLMError


class TrackRecordError(MiniVLLMError):
    """Base of every error that is meant for the person using the workbench."""


class WorkspaceError(TrackRecordError):
    """The workspace folder or its settings cannot be used."""


class UpstreamError(TrackRecordError):
    """The upstream tree or its index is missing, damaged, or not what was asked for."""


class ArchiveError(UpstreamError):
    """An archive that is damaged, or that would write where it must not."""


class FetchError(UpstreamError):
    """Something could not be brought from the network, or was not what it should have been."""
