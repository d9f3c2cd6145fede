"""The examples of ThinkHive's published page of issues, fixes and shadow tests, in the page's order."""

LISTED_ISSUES = """{
  "success": true,
  "data": [
    {
      "id": "iss_8f3k2m",
      "title": "Incorrect refund policy citations",
      "description": "Agent cites outdated refund policy when customers ask about returns after 30 days",
      "severity": "high",
      "status": "open",
      "traceCount": 47,
      "agentId": "agent_abc123",
      "agentName": "Customer Support Bot",
      "tags": ["retrieval", "policy", "refunds"],
      "createdAt": "2025-08-12T14:30:00Z",
      "updatedAt": "2025-08-14T09:15:00Z"
    },
    {
      "id": "iss_9x7p4n",
      "title": "Hallucinated product features",
      "description": "Agent invents product capabilities not present in the knowledge base",
      "severity": "critical",
      "status": "proposed_fix",
      "traceCount": 23,
      "agentId": "agent_abc123",
      "agentName": "Customer Support Bot",
      "tags": ["hallucination", "product-info"],
      "createdAt": "2025-08-10T08:00:00Z",
      "updatedAt": "2025-08-13T16:45:00Z"
    }
  ],
  "pagination": {
    "page": 1,
    "limit": 10,
    "total": 2,
    "hasMore": false
  }
}"""
SHOWN_ISSUE = """{
  "success": true,
  "data": {
    "id": "iss_8f3k2m",
    "title": "Incorrect refund policy citations",
    "description": "Agent cites outdated refund policy when customers ask about returns after 30 days",
    "severity": "high",
    "status": "open",
    "traceCount": 47,
    "agentId": "agent_abc123",
    "agentName": "Customer Support Bot",
    "tags": ["retrieval", "policy", "refunds"],
    "traceIds": ["tr_a1b2c3", "tr_d4e5f6", "tr_g7h8i9"],
    "fixes": [],
    "metadata": {
      "firstSeenAt": "2025-08-10T11:22:00Z",
      "lastSeenAt": "2025-08-14T09:15:00Z",
      "affectedCustomers": 38,
      "clusterConfidence": 0.92
    },
    "createdAt": "2025-08-12T14:30:00Z",
    "updatedAt": "2025-08-14T09:15:00Z"
  }
}"""
CREATE_ISSUE = """{
  "title": "Shipping estimate miscalculations",
  "description": "Agent provides incorrect delivery date estimates for international orders, consistently understating transit time by 3-5 days",
  "agentId": "agent_abc123",
  "severity": "medium",
  "traceIds": ["tr_x1y2z3", "tr_m4n5o6", "tr_p7q8r9"],
  "tags": ["shipping", "international", "estimates"]
}"""  # noqa: E501
CREATED_ISSUE = """{
  "success": true,
  "data": {
    "id": "iss_4r7t2w",
    "title": "Shipping estimate miscalculations",
    "description": "Agent provides incorrect delivery date estimates for international orders, consistently understating transit time by 3-5 days",
    "severity": "medium",
    "status": "open",
    "traceCount": 3,
    "agentId": "agent_abc123",
    "tags": ["shipping", "international", "estimates"],
    "createdAt": "2025-08-15T10:00:00Z",
    "updatedAt": "2025-08-15T10:00:00Z"
  }
}"""  # noqa: E501
PATCH_ISSUE = """{
  "severity": "high",
  "status": "proposed_fix",
  "tags": ["shipping", "international", "estimates", "escalated"]
}"""
PATCHED_ISSUE = """{
  "success": true,
  "data": {
    "id": "iss_4r7t2w",
    "title": "Shipping estimate miscalculations",
    "severity": "high",
    "status": "proposed_fix",
    "tags": ["shipping", "international", "estimates", "escalated"],
    "updatedAt": "2025-08-15T11:30:00Z"
  }
}"""
DELETED_ISSUE = """{
  "success": true,
  "message": "Issue deleted successfully"
}"""
LISTED_FIXES = r"""{
  "success": true,
  "data": [
    {
      "id": "fix_3a9c7e",
      "issueId": "iss_8f3k2m",
      "type": "prompt_update",
      "status": "proposed",
      "description": "Add explicit instruction to cross-reference refund policy effective dates before citing",
      "changes": {
        "promptDiff": "- Answer refund questions using the knowledge base.\n+ Answer refund questions using the knowledge base. Always verify the policy effective date matches the customer's purchase date before citing specific terms."
      },
      "author": "user_abc123",
      "createdAt": "2025-08-13T16:00:00Z",
      "updatedAt": "2025-08-13T16:00:00Z"
    }
  ],
  "pagination": {
    "page": 1,
    "limit": 20,
    "total": 1,
    "hasMore": false
  }
}"""  # noqa: E501
SHOWN_FIX = r"""{
  "success": true,
  "data": {
    "id": "fix_3a9c7e",
    "issueId": "iss_8f3k2m",
    "type": "prompt_update",
    "status": "testing",
    "description": "Add explicit instruction to cross-reference refund policy effective dates before citing",
    "changes": {
      "promptDiff": "- Answer refund questions using the knowledge base.\n+ Answer refund questions using the knowledge base. Always verify the policy effective date matches the customer's purchase date before citing specific terms."
    },
    "shadowTests": [
      {
        "id": "st_7k2m9p",
        "status": "completed",
        "improvementRate": 0.85
      }
    ],
    "author": "user_abc123",
    "createdAt": "2025-08-13T16:00:00Z",
    "updatedAt": "2025-08-14T10:30:00Z"
  }
}"""  # noqa: E501
CREATE_FIX = r"""{
  "issueId": "iss_9x7p4n",
  "type": "prompt_update",
  "description": "Add grounding instruction to prevent hallucinated feature claims",
  "changes": {
    "promptDiff": "- Help customers understand our product capabilities.\n+ Help customers understand our product capabilities. Only describe features explicitly listed in the provided product documentation. If a customer asks about a feature not in your context, say you are not sure and offer to connect them with a product specialist."
  }
}"""  # noqa: E501
CREATED_FIX = r"""{
  "success": true,
  "data": {
    "id": "fix_6b4d8f",
    "issueId": "iss_9x7p4n",
    "type": "prompt_update",
    "status": "draft",
    "description": "Add grounding instruction to prevent hallucinated feature claims",
    "changes": {
      "promptDiff": "- Help customers understand our product capabilities.\n+ Help customers understand our product capabilities. Only describe features explicitly listed in the provided product documentation. If a customer asks about a feature not in your context, say you are not sure and offer to connect them with a product specialist."
    },
    "createdAt": "2025-08-14T12:00:00Z",
    "updatedAt": "2025-08-14T12:00:00Z"
  }
}"""  # noqa: E501
PATCH_FIX = """{
  "status": "applied",
  "description": "Updated grounding instruction with stricter guardrail language"
}"""
PATCHED_FIX = """{
  "success": true,
  "data": {
    "id": "fix_6b4d8f",
    "status": "applied",
    "description": "Updated grounding instruction with stricter guardrail language",
    "updatedAt": "2025-08-16T09:00:00Z"
  }
}"""
LISTED_TESTS = """{
  "success": true,
  "data": [
    {
      "id": "st_7k2m9p",
      "fixId": "fix_3a9c7e",
      "status": "completed",
      "traceCount": 10,
      "config": {
        "comparisonMode": "side_by_side"
      },
      "results": {
        "improved": 8,
        "unchanged": 1,
        "regressed": 1,
        "improvementRate": 0.8
      },
      "createdAt": "2025-08-14T10:00:00Z",
      "completedAt": "2025-08-14T10:25:00Z"
    }
  ],
  "pagination": {
    "page": 1,
    "limit": 20,
    "total": 1,
    "hasMore": false
  }
}"""
SHOWN_TEST = """{
  "success": true,
  "data": {
    "id": "st_7k2m9p",
    "fixId": "fix_3a9c7e",
    "status": "completed",
    "traceCount": 10,
    "config": {
      "comparisonMode": "side_by_side"
    },
    "results": {
      "improved": 8,
      "unchanged": 1,
      "regressed": 1,
      "improvementRate": 0.8
    },
    "traceResults": [
      {
        "traceId": "tr_a1b2c3",
        "verdict": "improved",
        "originalScore": 0.35,
        "fixedScore": 0.88,
        "explanation": "Fixed response correctly cites the current refund policy effective January 2025"
      },
      {
        "traceId": "tr_d4e5f6",
        "verdict": "regressed",
        "originalScore": 0.60,
        "fixedScore": 0.45,
        "explanation": "Fixed response is overly cautious and declines to answer a valid refund question"
      }
    ],
    "createdAt": "2025-08-14T10:00:00Z",
    "completedAt": "2025-08-14T10:25:00Z"
  }
}"""
CREATE_TEST = """{
  "fixId": "fix_3a9c7e",
  "traceIds": ["tr_a1b2c3", "tr_d4e5f6", "tr_g7h8i9"],
  "config": {
    "comparisonMode": "side_by_side"
  }
}"""
CREATED_TEST = """{
  "success": true,
  "data": {
    "id": "st_2n5q8s",
    "fixId": "fix_3a9c7e",
    "status": "pending",
    "traceCount": 3,
    "config": {
      "comparisonMode": "side_by_side"
    },
    "createdAt": "2025-08-15T14:00:00Z"
  }
}"""
PATCH_TEST = """{
  "status": "failed",
  "results": {
    "error": "Upstream model returned 429 during replay"
  }
}"""
EXECUTE = """{
  "fixId": "fix_3a9c7e",
  "traceId": "tr_a1b2c3"
}"""
EXECUTED = """{
  "success": true,
  "data": {
    "traceId": "tr_a1b2c3",
    "fixId": "fix_3a9c7e",
    "originalOutput": "Our refund policy allows returns within 60 days...",
    "fixedOutput": "Our current refund policy (effective January 2025) allows returns within 30 days of purchase...",
    "verdict": "improved",
    "originalScore": 0.35,
    "fixedScore": 0.91,
    "explanation": "The fixed response accurately cites the current 30-day refund window instead of the outdated 60-day policy",
    "latencyMs": 2400,
    "executedAt": "2025-08-15T14:05:00Z"
  }
}"""  # noqa: E501
NOT_FOUND = """{
  "success": false,
  "error": {
    "code": "NOT_FOUND",
    "message": "Issue iss_nonexistent not found"
  }
}"""
