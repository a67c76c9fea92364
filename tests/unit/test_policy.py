"""The IAM policy allows what the code does, and no more."""

from __future__ import annotations

import json
import re
from typing import Any

from image_analyzer.settings import PROJECT_ROOT

CORE = PROJECT_ROOT / "include" / "image_analyzer" / "clients"
NEEDS = {
    "get_object": "s3:GetObject",
    "put_object": "s3:PutObject",
    "delete_object": "s3:DeleteObject",
    "get_paginator": "s3:ListBucket",
    "receive_message": "sqs:ReceiveMessage",
    "delete_message_batch": "sqs:DeleteMessage",
}


def test_the_policy_allows_what_the_code_calls() -> None:
    """Every call of a client has its permission, every permission a call; originals are nowhere deleted or written over."""
    code = "".join((CORE / name).read_text() for name in ("s3_store.py", "event_queue.py"))
    called = set(re.findall(r"self\._client\.(\w+)\(", code))
    statements = json.loads((PROJECT_ROOT / "include/aws/pipeline_policy.json").read_text())["Statement"]
    allowed = {action for statement in statements for action in _actions(statement)}

    by_airflow = {"sns:Publish"}  # its notifier, NOTIFY_SNS_TOPIC
    assert {NEEDS[name] for name in called} | by_airflow == allowed
    writing = [s for s in statements if {"s3:PutObject", "s3:DeleteObject"} & set(_actions(s))]
    assert writing
    assert not [s for s in writing if "incoming/" in json.dumps(s["Resource"])]
    assert not [s for s in statements if any("*" in action for action in _actions(s)) or s["Resource"] == "*"]


def _actions(statement: dict[str, Any]) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else found
