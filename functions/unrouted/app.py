"""The API's default route: whatever no family serves is a 404 in the dialect that the path suggests."""

from fixloop import boot  # isort: skip

from fixloop.http import Api

handler = Api()

boot.done()
