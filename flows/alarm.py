"""Being told of failed gates: `python -m flows.alarm URL` has Prefect's server post to a web hook whenever one fails.

It makes a block of type Webhook and an automation that calls it, which Prefect's user interface shows. Called again, it
changes the address.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from prefect.automations import Automation, CallWebhook, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.posting import GATES_FAILED

NAME = "microtome-gates-failed"
PAYLOAD = '{"text": {{ event.payload.text|tojson }}}'
"""JSON as Slack, Mattermost, Rocket.Chat and Google Chat take it, in the server's templates."""


def alarm(url: str) -> None:
    """Have the server that Prefect's settings name post to a web hook when gates fail.

    Args:
        url: takes POST requests with JSON.
    """
    hook = Webhook(url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
    block = cast(UUID, hook.save(NAME, overwrite=True))  # a coroutine only where one is awaited
    trigger = EventTrigger(
        expect={GATES_FAILED}, match={"prefect.resource.id": "microtome.audit.*"}, posture=Posture.Reactive
    )
    wanted = Automation(
        name=NAME,
        description="Gates of an audit failed: somebody is told.",
        trigger=trigger,
        actions=[CallWebhook(block_document_id=block, payload=PAYLOAD)],
    )
    with get_client(sync_client=True) as client:
        for old in client.read_automations_by_name(NAME):
            client.delete_automation(old.id)
    wanted.create()


def main(arguments: Sequence[str]) -> None:
    """Entry point."""
    if len(arguments) != 1 or not arguments[0].startswith(("http://", "https://")):
        sys.exit("usage: python -m flows.alarm URL (from http:// or https://), which takes POST requests with JSON")
    alarm(arguments[0])
    print(f"the automation {NAME} posts there when gates fail")  # the address may be a secret


if __name__ == "__main__":
    main(sys.argv[1:])
