"""S3 that tells an SQS queue of new objects, both moto's: the embedded stack's S3 tells nobody."""

from __future__ import annotations

import json
import logging
import urllib.request
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "images"
logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request


class TellingBucket:
    """A bucket and the queue into which it tells."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint_url = f"http://{host}:{port}"
        # What servers of one process hold is one thing.
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint_url}/moto-api/reset", method="POST"), timeout=10)
        self.s3, self.sqs = self._client("s3"), self._client("sqs")
        self.s3.create_bucket(Bucket=BUCKET)
        self.queue_url = self.sqs.create_queue(QueueName="new-images")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        tells = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]}
        self.s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=tells)
        self.topic, self._mailbox = self._topic()

    def _topic(self) -> tuple[str, str]:
        """Make a topic and a queue that hears it; return the topic's ARN and the queue's address."""
        sns = self._client("sns")
        topic = sns.create_topic(Name="notices")["TopicArn"]
        mailbox = self.sqs.create_queue(QueueName="mailbox")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=mailbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return topic, mailbox

    def notices(self) -> list[tuple[str, str]]:
        """Return subject and text of what was published and not yet returned."""
        found = self.sqs.receive_message(QueueUrl=self._mailbox, MaxNumberOfMessages=10).get("Messages", [])
        for message in found:
            self.sqs.delete_message(QueueUrl=self._mailbox, ReceiptHandle=message["ReceiptHandle"])
        return [(notice["Subject"], notice["Message"]) for notice in (json.loads(one["Body"]) for one in found)]

    def left(self) -> int:
        """Return how many messages are in the queue, those included that somebody has received and not deleted."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=list(names))["Attributes"]
        return sum(int(found[name]) for name in names)

    def settings(self) -> dict[str, str]:
        """Return the settings of who is told."""
        extra = {"endpoint_url": self.endpoint_url, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": "a", "password": "b", "extra": extra}
        return {
            "S3_ENDPOINT_URL": self.endpoint_url, "SQS_ENDPOINT_URL": self.endpoint_url, "EVENTS_QUEUE_URL": self.queue_url,
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        }  # fmt: skip

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def _client(self, name: str) -> Any:
        return boto3.client(
            name, region_name="us-east-1", endpoint_url=self.endpoint_url, aws_access_key_id="a",
            aws_secret_access_key="b",
        )  # fmt: skip
