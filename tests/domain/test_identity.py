"""Keys: how they are presented, what they allow, when they end."""

import pytest

from fixloop.identity import Principal, Scope, User, digest, presented

KEY = Principal(key_id="key_1", org_id="org_1", user=User(id=7))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk_live_1"},
        {"authorization": "bearer  sk_live_1 "},
        {"authorization": "sk_live_1"},
        {"x-api-key": "sk_live_1"},
        {"authorization": "", "x-api-key": " sk_live_1"},
    ],
)
def test_a_key_is_presented_in_three_ways(headers: dict[str, str]) -> None:
    assert presented(headers) == "sk_live_1"


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "  "}, {"x-api-key": " "}])
def test_no_key_is_presented(headers: dict[str, str]) -> None:
    assert presented(headers) is None


def test_the_authorization_header_goes_first() -> None:
    assert presented({"authorization": "a", "x-api-key": "b"}) == "a"


def test_a_scope_includes_the_ones_before_it() -> None:
    allowed = {(held, needed): held.allows(needed) for held in Scope for needed in Scope}
    assert [pair for pair, yes in allowed.items() if not yes] == [
        (Scope.READ, Scope.WRITE),
        (Scope.READ, Scope.ADMIN),
        (Scope.WRITE, Scope.ADMIN),
    ]


def test_a_key_is_usable_until_it_expires() -> None:
    key = KEY.model_copy(update={"expires_at": 1000})
    assert key.usable(999)
    assert not key.usable(1000)


def test_a_revoked_key_is_not_usable_at_any_time() -> None:
    assert KEY.usable(0)
    assert not KEY.model_copy(update={"revoked_at": 1000}).usable(0)


def test_what_is_stored_of_a_key_is_a_hash_of_all_of_it() -> None:
    assert digest("sk_live_1") != digest("sk_live_2")
    assert len(digest("\ud800")) == 64
