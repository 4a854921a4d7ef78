"""Fields that clients may write in more than one form, brought to one.

Invariant: a complaint is one sentence that says what was wanted and what came, however large.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class TextPart(BaseModel):
    """One part of a message's content."""

    model_config = STRICT
    type: Literal["text"]
    text: str


def shown(value: Any) -> str:
    """A wrong value as the client may recognise it, however large it is."""
    if isinstance(value, (dict, list)) and len(value) > 8:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    if isinstance(value, str):
        value = value[:80]
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _wanted(message: str) -> PydanticCustomError:
    """Like pydantic's own complaints, in one sentence instead of one per branch of a union."""
    return PydanticCustomError("wanted", "{message}", {"message": message})


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def as_stop_strings(value: Any) -> list[str]:
    stop = [value] if isinstance(value, str) else value
    if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise _wanted(f"must be a string or a list of strings, got {shown(value)}")
    return stop


def as_prompts(value: Any) -> list[str | list[int]]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return value
        if all(_is_id(item) for item in value):
            return [value]
        if all(isinstance(ids, list) and ids and all(map(_is_id, ids)) for ids in value):
            return value
    raise _wanted(
        "must be a string, a list of strings, a list of token ids or a list of lists of token "
        f"ids, none of them empty, got {shown(value)}"
    )


def as_messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _wanted(f"must be a list of at least one message, got {shown(value)}")
    return [_message(index, message) for index, message in enumerate(value)]


ROLES = {
    "system": "system",
    # OpenAI's later name for the same thing; no chat template knows it.
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _message(index: int, message: Any) -> dict[str, Any]:
    """A message with its content as one text.

    Fields that are null are dropped, so that an answer's message can be sent back as it came.
    """
    if not isinstance(message, dict):
        raise _wanted(f"{index}: must be an object, got {shown(message)}")
    given = {name: value for name, value in message.items() if value is not None}
    role = given.pop("role", None)
    if not isinstance(role, str) or role not in ROLES:
        raise _wanted(f"{index}: role must be one of {', '.join(ROLES)}, got {shown(role)}")
    content = given.pop("content", None)
    for field in ("name", "refusal", "annotations", "reasoning"):
        given.pop(field, None)
    if given:
        raise _wanted(f"{index}: {shown(min(given))} is not supported in a message")
    if isinstance(content, list):
        try:
            parts = [TextPart.model_validate(part) for part in content]
        except ValidationError:
            raise _wanted(
                f'{index}: content parts must be {{"type": "text", "text": ...}}, '
                f"got {shown(content)}"
            ) from None
        content = "\n".join(part.text for part in parts)
    if not isinstance(content, str):
        raise _wanted(
            f"{index}: content must be a string or a list of text parts, got {shown(content)}"
        )
    return {"role": ROLES[role], "content": content}
