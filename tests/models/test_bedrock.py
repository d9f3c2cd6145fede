"""What Converse is asked, and what its answers and errors become."""

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

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
