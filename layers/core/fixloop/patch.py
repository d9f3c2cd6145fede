"""The body of a PATCH: only what is given changes, and nothing can be set to null."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from fixloop.shapes import without_null


class Patch(BaseModel):
    """Every field of a subclass is optional and defaults to None, which stands for not given: sent, it is refused."""

    model_config = ConfigDict(json_schema_extra=without_null)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null")
        return value

    def sent(self) -> dict[str, Any]:
        """The fields that were sent, with what they are to become."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
