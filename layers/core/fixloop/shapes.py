"""What the OpenAPI document says of a value where its type alone does not tell; nothing here runs in a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:  # what makes JSON Schema takes longer to load than a family's models
    from pydantic import GetJsonSchemaHandler


@dataclass(frozen=True, eq=False)
class Like:
    """Put behind a type in `Annotated`: on the wire it is a `shape`, which something else than the type checks."""

    shape: Any

    def __get_pydantic_json_schema__(self, _: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        from pydantic import TypeAdapter

        return handler(TypeAdapter(self.shape).core_schema)


@dataclass(frozen=True, eq=False)
class Said:
    """Put behind a type in `Annotated`: its JSON Schema."""

    schema: dict[str, Any]

    def __get_pydantic_json_schema__(self, _core: Any, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


Time = Annotated[str, Said({"type": "string", "format": "date-time"})]
INSTANT = Said(
    {
        "type": "string",
        "description": "ISO 8601: a date, or a date and time, in UTC unless it has a zone.",
        "anyOf": [{"format": "date"}, {"format": "date-time"}],
    }
)


def without_null(schema: dict[str, Any]) -> None:
    """Of a model whose fields may be left out but not be null (`json_schema_extra`)."""
    for told in schema["properties"].values():
        kinds = [kind for kind in told.pop("anyOf", []) if kind != {"type": "null"}]
        told |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
        told.pop("default", None)
