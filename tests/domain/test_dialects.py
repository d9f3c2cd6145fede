"""Each API's voice: which one a path is answered in, and how it says an error."""

import pytest

from fixloop.dialects import BLAND, GOMOBILE, THINKHIVE, THUNDERPHONE, ZYLON, Dialect, of_path
from fixloop.errors import Conflict, FixloopError, Forbidden, Invalid, NotFound, RateLimited, TooLarge, Unauthorized

ALL = (THUNDERPHONE, THINKHIVE, ZYLON, BLAND, GOMOBILE)
ERRORS = [
    Invalid({"title": ["too short"]}),
    Unauthorized(),
    Forbidden("no"),
    NotFound("gone"),
    Conflict("twice"),
    TooLarge("much"),
    RateLimited(7),
    FixloopError("Internal server error."),
]


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/issue-reports", THUNDERPHONE),
        ("/v1/calls/1", THUNDERPHONE),
        ("/v1/triage/issues", BLAND),
        ("/v1/triage", BLAND),
        ("/v1/triages", THUNDERPHONE),
        ("/api/v1/app/issues", ZYLON),
        ("/api/v1/apps", THINKHIVE),
        ("/api/issues", THINKHIVE),
        ("/api/v1/cases", THINKHIVE),
        ("/call-report/j", GOMOBILE),
        ("/api/call-requests/j", GOMOBILE),
        ("", THUNDERPHONE),
    ],
)
def test_a_path_has_the_dialect_of_its_api(path: str, dialect: Dialect) -> None:
    assert of_path(path) is dialect


def test_thunderphone_names_bad_fields_or_gives_a_detail() -> None:
    assert THUNDERPHONE.error(Invalid({"title": ["too short"], "limit": ["a", "b"]})) == {
        "title": ["too short"],
        "limit": ["a", "b"],
    }
    assert THUNDERPHONE.error(Invalid(message="not JSON")) == {"detail": "not JSON"}
    assert THUNDERPHONE.error(NotFound("gone")) == {"detail": "gone"}


def test_thinkhive_says_everything_nested_and_repeats_code_and_message_on_top() -> None:
    assert THINKHIVE.error(NotFound("gone")) == {
        "success": False,
        "error": {"code": "NOT_FOUND", "message": "gone"},
        "code": "NOT_FOUND",
        "message": "gone",
    }
    assert THINKHIVE.error(Invalid({"title": ["too short"]}))["error"] == {
        "code": "VALIDATION_ERROR",
        "message": "title: too short",
        "details": {"title": ["too short"]},
    }


def test_zylon_gives_a_message() -> None:
    assert ZYLON.error(Forbidden("no")) == {"message": "no"}


def test_bland_lists_errors_and_has_a_word_of_its_own_for_a_bad_key() -> None:
    assert BLAND.error(NotFound("gone")) == {"data": None, "errors": [{"error": "not_found", "message": "gone"}]}
    assert BLAND.error(Invalid(message="x"))["errors"][0]["error"] == "bad_request"
    assert BLAND.error(RateLimited(7))["errors"][0]["error"] == "rate_limited"
    assert BLAND.error(Unauthorized())["errors"] == [{"error": "AUTH_FAILURE", "message": "Unauthorized"}]


def test_gomobile_names_the_exception() -> None:
    assert GOMOBILE.error(NotFound("gone")) == {"statusCode": 404, "message": "gone", "error": "NotFoundException"}


@pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_dialect_can_say_every_error(dialect: Dialect, error: FixloopError) -> None:
    said = dialect.error(error)
    assert said
    if error.status != 401:
        assert error.message in str(said) or "too short" in str(said)


def test_times_are_written_to_the_millisecond_or_to_the_second() -> None:
    written = {dialect.name: dialect.time(1_776_709_511_002) for dialect in ALL}
    assert {name for name, text in written.items() if text.endswith("11.002Z")} == {"thunderphone", "bland", "gomobile"}
    assert {name for name, text in written.items() if text.endswith("11Z")} == {"thinkhive", "zylon"}
