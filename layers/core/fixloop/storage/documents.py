"""Documents, one to a row of a family's lists: added, found, paged, and changed as they stand.

A row holds its document as JSON under `doc`, the attributes of its lists, and under `rev` how often the document was
changed; of one that never was it has none. What else is counted on a row is no change of its document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fixloop.errors import NotFound
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import Filter, Lists, Place

_ATTEMPTS = 10

Document = TypeVar("Document")


@dataclass(frozen=True)
class Documents(Generic[Document]):
    """One family's documents.

    `name` is what an error calls one; `key` gives the key of a row by the document's id, `place` where a document
    stands in the lists, `fields` what its row has besides these, and `of` the document in a row.
    """

    name: str
    table: Callable[[], str]
    lists: Lists
    key: Callable[[str, str], Item]
    place: Callable[[str, Document], Place]
    fields: Callable[[Document], Item]
    of: Callable[[Item], Document]

    def add(self, org: str, document_id: str, document: Document, *also: Action, **counted: Any) -> None:
        """Stores a new document, whose row begins with what is `counted` on it.

        Raises ConditionFailed when one of `also` is refused, with its index from 1.
        """
        place = self.place(org, document)
        self.lists.announce(org, place.leaf)
        row = {**self.key(org, document_id), **counted, "at": place.t, **self._attributes(place, document)}
        dynamo.write([dynamo.put_action(self.table(), row, condition="attribute_not_exists(pk)"), *also])
        if place.n % self.lists.chunk == 0:
            self.lists.seal(org, place.t)

    def look(self, org: str, document_id: str) -> Document | None:
        item = dynamo.get(self.table(), self.key(org, document_id))
        return self.of(item) if item else None

    def find(self, org: str, document_id: str) -> Document:
        """Raises NotFound."""
        return self.of(self.row(org, document_id))

    def row(self, org: str, document_id: str) -> Item:
        """Raises NotFound."""
        item = dynamo.get(self.table(), self.key(org, document_id))
        if item is None:
            raise NotFound(f"{self.name} {document_id} not found")
        return item

    def page(self, org: str, wanted: Filter, offset: int, limit: int) -> tuple[list[Document], int]:
        """Newest first, and how many match."""
        found = self.lists.page(org, wanted, offset=offset, limit=limit, total=True)
        return self.behind(found.rows), found.total or 0

    def all(self, org: str, wanted: Filter) -> list[Document]:
        """Newest first."""
        return self.behind(list(self.lists.walk(org, wanted)))

    def behind(self, rows: Sequence[Item], *, consistent: bool = True) -> list[Document]:
        """The documents of rows as an index gives them, in their order."""
        return [self.of(item) for item in dynamo.get_rows(self.table(), rows, consistent=consistent)]

    def change(self, org: str, document_id: str, ask: Callable[[Document], tuple[Document, list[Action]]]) -> Document:
        """Makes of a document, as it stands, what `ask` says, together with further writes; asked anew on each attempt.

        Nothing is written when `ask` gives the document back as it was, and no writes. Raises NotFound, what `ask`
        raises, and Contended when others keep getting in between.
        """
        for _ in range(_ATTEMPTS):
            item = self.row(org, document_id)
            old = self.of(item)
            new, also = ask(old)
            if new is old and not also:
                return old
            before, after = self.place(org, old), self.place(org, new)
            try:
                self.lists.move(before, after, self._replaced(item, before, after, new), *also)
            except ConditionFailed:
                continue
            return new
        raise Contended(f"{self.name} {document_id} kept changing")

    def _replaced(self, item: Item, before: Place, after: Place, new: Document) -> Action:
        fields = {**self._attributes(after, new), "rev": item.get("rev", 0) + 1}
        gone = self.lists.attributes(before).keys() - fields.keys()
        where = {"pk": item["pk"], "sk": item["sk"]}
        return dynamo.set_action(self.table(), where, fields, remove=sorted(gone), **unchanged(item))

    def _attributes(self, place: Place, document: Document) -> Item:
        return {**self.lists.attributes(place), **self.fields(document)}


def unchanged(item: Item) -> dict[str, Any]:
    """The condition of a write, with its values, that the document of a row is the one that was read."""
    if "rev" in item:
        return {"condition": "rev = :rev", "values": {":rev": item["rev"]}}
    return {"condition": "attribute_exists(pk) AND attribute_not_exists(rev)"}


class Dated(Protocol):
    """A document that says when it was changed, in ms."""

    updated_at: int

    def model_copy(self, *, update: dict[str, Any]) -> Any: ...


Kept = TypeVar("Kept", bound=Dated)


def updated(old: Kept, fields: dict[str, Any], now: int) -> Kept:
    """`old` with the fields, changed now at the earliest; `old` itself where they say nothing new."""
    if all(getattr(old, name) == value for name, value in fields.items()):
        return old
    new: Kept = old.model_copy(update={"updated_at": max(now, old.updated_at), **fields})
    return new
