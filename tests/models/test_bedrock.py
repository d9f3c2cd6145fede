"""What Converse is asked, and what its answers and errors become."""

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from fixloop import aws
from fixloop.models import ModelRefused, ModelUnavailable, Prompt, Throttled
from fixloop.models.bedrock import Bedrock
from fixloop.traces import Document, Message, Parameters

TALK = [
    Message(role="assistant", content="Hello!"),
    Message(role="user", content="Hi."),
    Message(role="user", content="How long?"),
    Message(role="assistant", content=" "),
]
PROMPT = Prompt("Answer.", TALK, [Document(id="p", text="30 days.")], Parameters(top_p=0.5, max_tokens=5))
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "30 "}, {"text": "days."}]}},
    "stopReason": "max_tokens",
    "usage": {"inputTokens": 7, "outputTokens": 2},
    "metrics": {"latencyMs": 321},
}


class Client:
    def __init__(self, answer):
        self.answer = answer

    def converse(self, **request):
        self.request = request
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def failed(code, status, **headers):
    about = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": "arn:aws:secret"}, "ResponseMetadata": about}, "Converse")


def test_a_conversation_is_put_in_the_form_that_converse_takes():
    client = Client(ANSWER)
    answer = Bedrock("amazon.nova-lite-v1:0", client).complete(PROMPT)
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("30 days.", 7, 2)
    assert (answer.latency_ms, answer.finish_reason) == (321, "length")
    assert client.request == {
        "modelId": "amazon.nova-lite-v1:0",
        "system": [{"text": "Answer.\n\nContext:\n\n[p]\n30 days."}],
        "messages": [
            {"role": "user", "content": [{"text": "(The conversation begins.)"}]},
            {"role": "assistant", "content": [{"text": "Hello!"}]},
            {"role": "user", "content": [{"text": "Hi."}, {"text": "How long?"}]},
        ],
        "inferenceConfig": {"topP": 0.5, "maxTokens": 5},
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (failed("ThrottlingException", 429), Throttled),
        (failed("ModelNotReadyException", 429), Throttled),
        (failed("ModelTimeoutException", 408), ModelUnavailable),
        (failed("ServiceUnavailableException", 503), ModelUnavailable),
        (failed("Whatever", 502), ModelUnavailable),
        (ReadTimeoutError(endpoint_url="https://x"), ModelUnavailable),
        (failed("ValidationException", 400), ModelRefused),
        (failed("AccessDeniedException", 403), ModelRefused),
    ],
)
def test_errors_are_worth_another_try_or_not(error, kind):
    with pytest.raises(kind) as raised:
        Bedrock("m", Client(error)).complete(PROMPT)
    assert "arn" not in raised.value.message
    assert getattr(raised.value, "slow", False) == isinstance(error, ReadTimeoutError)


def test_bedrock_says_when_to_come_back():
    with pytest.raises(Throttled) as raised:
        Bedrock("m", Client(failed("ThrottlingException", 429, **{"retry-after": "4"}))).complete(PROMPT)
    assert raised.value.retry_after == 4


def test_a_withheld_or_empty_answer_is_no_answer():
    withheld = {"output": {"message": {"content": []}}, "stopReason": "guardrail_intervened"}
    with pytest.raises(ModelRefused):
        Bedrock("m", Client(withheld)).complete(PROMPT)
    with pytest.raises(ModelUnavailable):
        Bedrock("m", Client({})).complete(PROMPT)


@pytest.mark.parametrize(("timeout", "seconds"), [(20.0, 20), (27.4, 24), (28.0, 28), (3.9, 2), (0.2, 1), (300.0, 120)])
def test_an_answer_is_not_waited_for_longer_than_the_caller_has_time(timeout, seconds):
    client, asked = Client(ANSWER), []

    with aws.clients_from(lambda service: client):
        made = aws.client

        def watched(service, read_timeout=None):
            asked.append((service, read_timeout))
            return made(service, read_timeout)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aws, "client", watched)
            assert Bedrock("m").complete(PROMPT, timeout=timeout).text == "30 days."
    assert asked == [("bedrock-runtime", seconds)]


def test_clients_of_models_ask_once_and_have_room_for_hundreds_of_threads(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    aws.client.cache_clear()
    usual, short = aws.client("bedrock-runtime").meta.config, aws.client("bedrock-runtime", 8).meta.config
    assert (usual.read_timeout, short.read_timeout) == (28, 8)
    for config in (usual, short):
        assert (config.connect_timeout, config.max_pool_connections) == (2, 500)
        assert config.retries["total_max_attempts"] == 1
    aws.client.cache_clear()
