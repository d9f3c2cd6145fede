"""The examples of GoMobile's page on call reports, as they are published."""

JOB = r"""{
  "jobId": "ec8edce0-f898-4d34-b2fc-542ef98f38a5",
  "status": "completed",
  "finalOutcome": "completed",
  "attempts": [
    {
      "callId": "1cbdf482-4dac-41ed-a430-2e311add389d",
      "attempt": 1,
      "call": {
        "status": "busy",
        "direction": "outbound",
        "from": "1000",
        "to": "6001",
        "createdAt": "2025-12-16T11:15:00.062Z",
        "dialedAt": "2025-12-16T11:15:00.103Z",
        "terminatedAt": "2025-12-16T11:15:07.352Z"
      },
      "outcome": "busy",
      "outcomeReason": "Flow completed (Error in dial node: Remote hangup for call ...: busy (cause: 17, code: 17))",
      "flowExecution": {
        "flowId": "03418632-e6da-451e-875f-23b55f938e3e",
        "flowName": "credit-dtmf-playback-test",
        "flowVersion": 1,
        "executionPath": [
          {
            "nodeId": "dial-1",
            "nodeType": "dial",
            "nodeLabel": "Dial Contact",
            "timestamp": "2025-12-16T11:15:00.071Z",
            "outputPath": "onBusy"
          },
          {
            "nodeId": "hangup-1",
            "nodeType": "hangup",
            "nodeLabel": "End Call",
            "timestamp": "2025-12-16T11:15:07.333Z",
            "outputPath": "terminated"
          }
        ],
        "finalVariables": {
          "contact.id": "6fd21c0b-bf05-407e-bcd7-9f9aab7ab91e",
          "sys.callId": "1cbdf482-4dac-41ed-a430-2e311add389d",
          "sys.attempt": 1,
          "sys.maxAttempts": 3,
          "contact.phone": "6001",
          "contact.fullName": "dev-anouar-1",
          "contact.customAttributes.credit": 90856
        },
        "nodeExecutionCount": 2,
        "flowStartedAt": "2025-12-16T11:15:00.070Z",
        "flowCompletedAt": "2025-12-16T11:15:07.352Z"
      },
      "events": [
        {
          "type": "dial",
          "timestamp": "2025-12-16T11:15:00.072Z",
          "data": {
            "to": "6001",
            "from": "1000",
            "timeout": 30000,
            "enableAMD": false,
            "nodeContext": {
              "nodeId": "dial-1",
              "nodeType": "dial",
              "nodeExecutionIndex": 2
            }
          }
        },
        {
          "type": "hangup",
          "timestamp": "2025-12-16T11:15:07.352Z",
          "data": {
            "hangupType": "busy",
            "hangupReason": "Flow completed (...)",
            "nodeContext": {
              "nodeId": "hangup-1",
              "nodeType": "hangup",
              "nodeExecutionIndex": 3
            }
          }
        }
      ]
    },
    {
      "callId": "eae26ac8-be39-490b-b9ed-a82e7f4048f6",
      "attempt": 2,
      "call": {
        "status": "completed",
        "direction": "outbound",
        "from": "1000",
        "to": "6001",
        "createdAt": "2025-12-16T11:15:30.105Z",
        "dialedAt": "2025-12-16T11:15:30.139Z",
        "answeredAt": "2025-12-16T11:15:34.479Z",
        "durationMs": 7757
      },
      "outcome": "completed",
      "flowExecution": {
        "flowId": "03418632-e6da-451e-875f-23b55f938e3e",
        "flowName": "credit-dtmf-playback-test",
        "flowVersion": 1,
        "executionPath": [
          {
            "nodeId": "dial-1",
            "nodeType": "dial",
            "nodeLabel": "Dial Contact",
            "timestamp": "2025-12-16T11:15:30.114Z",
            "outputPath": "onAnswer"
          },
          {
            "nodeId": "play-credit",
            "nodeType": "play",
            "nodeLabel": "Play Credit Balance",
            "timestamp": "2025-12-16T11:15:34.481Z",
            "outputPath": "onComplete"
          }
        ],
        "finalVariables": {
          "answeredBy": "human",
          "sys.attempt": 2,
          "sys.maxAttempts": 3,
          "contact.customAttributes.credit": 90856
        },
        "nodeExecutionCount": 2,
        "flowStartedAt": "2025-12-16T11:15:30.113Z"
      },
      "events": [
        {
          "type": "dial",
          "timestamp": "2025-12-16T11:15:30.115Z",
          "data": {
            "to": "6001",
            "from": "1000",
            "timeout": 30000,
            "enableAMD": false,
            "nodeContext": {
              "nodeId": "dial-1",
              "nodeType": "dial",
              "nodeExecutionIndex": 2
            }
          }
        },
        {
          "type": "answer",
          "timestamp": "2025-12-16T11:15:34.479Z",
          "data": {
            "answeredBy": "human",
            "ringDurationMs": 4340,
            "nodeContext": {
              "nodeId": "dial-1",
              "nodeType": "dial",
              "nodeExecutionIndex": 2
            }
          }
        },
        {
          "type": "play",
          "timestamp": "2025-12-16T11:15:42.231Z",
          "data": {
            "durationMs": 6420,
            "bufferCount": 2,
            "completedBy": "stopped",
            "nodeContext": {
              "nodeId": "play-credit",
              "nodeType": "play",
              "nodeExecutionIndex": 3
            }
          }
        }
      ]
    }
  ]
}"""

QUEUED = r"""{
  "jobId": "550e8400-e29b-41d4-a716-446655440000",
  "status": "queued",
  "attempts": []
}"""

CALL = r"""{
  "callId": "60e8fbc0-2cda-4b2e-bc0f-221c3121bf09",
  "attempt": 1,
  "programId": "abc12345-1234-5678-9012-abcdef123456",
  "programExecutionId": "exec-9876-5432-1098-fedcba987654",
  "contactId": "6fd21c0b-bf05-407e-bcd7-9f9aab7ab91e",
  "call": {
    "status": "completed",
    "direction": "outbound",
    "from": "1000",
    "to": "6001",
    "createdAt": "2025-12-18T14:17:32.736Z",
    "dialedAt": "2025-12-18T14:17:32.800Z",
    "answeredAt": "2025-12-18T14:17:36.100Z",
    "terminatedAt": "2025-12-18T14:18:01.134Z",
    "durationMs": 25001
  },
  "outcome": "completed",
  "outcomeReason": "Flow completed successfully",
  "flowExecution": {
    "flowId": "03418632-e6da-451e-875f-23b55f938e3e",
    "flowName": "credit-dtmf-playback-test",
    "flowVersion": 1,
    "executionPath": [
      {
        "nodeId": "dial-1",
        "nodeType": "dial",
        "nodeLabel": "Dial Contact",
        "timestamp": "2025-12-18T14:17:32.740Z",
        "outputPath": "onAnswer"
      },
      {
        "nodeId": "play-credit",
        "nodeType": "play",
        "nodeLabel": "Play Credit Balance",
        "timestamp": "2025-12-18T14:17:36.105Z",
        "outputPath": "onComplete"
      }
    ],
    "finalVariables": {
      "contact.id": "6fd21c0b-bf05-407e-bcd7-9f9aab7ab91e",
      "sys.callId": "60e8fbc0-2cda-4b2e-bc0f-221c3121bf09",
      "sys.attempt": 1,
      "contact.customAttributes.credit": 90856
    },
    "nodeExecutionCount": 2,
    "flowStartedAt": "2025-12-18T14:17:32.738Z",
    "flowCompletedAt": "2025-12-18T14:18:01.134Z"
  },
  "billing": {
    "nodes": [
      {
        "nodeId": "dial-1",
        "nodeType": "dial",
        "durationMs": 25001,
        "cost": 1.875075,
        "costPerUnit": 0.075,
        "unit": "second",
        "minDurationMs": 10000
      }
    ],
    "totalCost": 1.875075
  },
  "events": [
    {
      "type": "dial",
      "timestamp": "2025-12-18T14:17:32.741Z",
      "data": {
        "to": "6001",
        "from": "1000",
        "timeout": 30000,
        "nodeContext": {
          "nodeId": "dial-1",
          "nodeType": "dial",
          "nodeExecutionIndex": 1
        }
      }
    },
    {
      "type": "answer",
      "timestamp": "2025-12-18T14:17:36.100Z",
      "data": {
        "answeredBy": "human",
        "ringDurationMs": 3300,
        "nodeContext": {
          "nodeId": "dial-1",
          "nodeType": "dial",
          "nodeExecutionIndex": 1
        }
      }
    },
    {
      "type": "play",
      "timestamp": "2025-12-18T14:17:58.500Z",
      "data": {
        "durationMs": 22000,
        "completedBy": "stopped",
        "nodeContext": {
          "nodeId": "play-credit",
          "nodeType": "play",
          "nodeExecutionIndex": 2
        }
      }
    }
  ]
}"""
