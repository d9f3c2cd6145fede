"""What the tests of the loop tell."""

CALL_WITH_ISSUES = {
    "agent_id": 12,
    "start_time": "2026-04-20T18:24:00.000Z",
    "duration_seconds": 70,
    "prompt_snapshot": "You are the support agent of Aurora. Refunds are possible within 30 days of purchase.",
    "transcripts": [
        {"role": "assistant", "content": "Hello, this is Aurora. How can I help?", "start_ms": 0, "end_ms": 3000},
        {"role": "user", "content": "How long do I have to return my lamp?", "start_ms": 4000, "end_ms": 7000},
        {"role": "assistant", "content": "You can get a refund within 60 days.", "start_ms": 13000, "end_ms": 17000},
        {"role": "user", "content": "Great, thank you, bye.", "start_ms": 18000, "end_ms": 20000},
    ],
}
