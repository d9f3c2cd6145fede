"""`/v1/links/{kind}/{id}`: what is tied to an object, across the five APIs."""

from fixloop import boot  # isort: skip

from fixloop.http import Api, Reply, Request
from fixloop.links import Kind, Linked, LinksQuery, linked

handler = Api()


@handler.route("GET", "/v1/links/<kind>/<key>", query=LinksQuery, answers={200: Linked})
def get_links(request: Request, kind: Kind, key: str) -> Reply:
    query = request.parameters(LinksQuery)
    return Reply(200, linked(request.org, kind, key, query.limit, request.now))


boot.done()
