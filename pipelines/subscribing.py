"""What a stream reads, whoever runs it: its subscription, and how messages are handed out."""

import dataclasses

from google.cloud.pubsub_v1 import SubscriberClient

from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.plan.streaming_job import StreamingPlan
from sluice.transforms.pubsub.message_buffer import BundleOptions
from sluice.transforms.pubsub.resources import check_subscription, create_subscription


def subscribed(plan: StreamingPlan, client: SubscriberClient) -> StreamingPlan:
    """Returns the plan, completed by what its subscription says, which is made where the plan has only a topic.

    Raises:
      UsageError: the subscription cannot be read.
    """
    if not plan.subscription:
        return dataclasses.replace(plan, subscription=create_subscription(client, plan.topic))
    allowed = check_subscription(client, plan.subscription, (plan.output_topic, plan.failures.topic))
    return dataclasses.replace(plan, max_delivery_attempts=plan.max_delivery_attempts or max(0, allowed - 1))


def bundle_options(options: StreamingOptions) -> BundleOptions:
    """Returns how messages are handed out."""
    return BundleOptions(max_messages=options.max_bundle_messages, gather_secs=options.bundle_delay_ms / 1000)
