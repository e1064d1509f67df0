"""A ticket: the conversation with one customer, in one row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import models

import completion
from completion import Conversation
from support.tools import TOOLS

SYSTEM_PROMPT = "You help the customers of a shop. Look an order up before you refund it."

model = completion.model(os.environ.get("COMPLETION_MODEL", "local"))


class Busy(Exception):
    """Another request continues the conversation of this ticket."""


class Ticket(models.Model):
    """``is_running``: a request is continuing the conversation. If it stays true, the process of that request was
    killed, and somebody must check what its last call has done."""

    visitor: models.CharField[str, str] = models.CharField(max_length=40, unique=True)
    stored: models.TextField[str, str] = models.TextField(blank=True)
    is_running: models.BooleanField[bool, bool] = models.BooleanField(default=False)

    def conversation(self) -> Conversation:
        """The conversation as it was stored."""
        if self.stored:
            return Conversation.from_json(self.stored, model, tools=TOOLS)
        return Conversation(model, tools=TOOLS, system_prompt=SYSTEM_PROMPT)

    @contextmanager
    def continued(self) -> Iterator[Conversation]:
        """The conversation, for this request alone. It is stored at the end of the block, also after an error."""
        # One statement, so that of two requests at the same time only one succeeds.
        if not Ticket.objects.filter(pk=self.pk, is_running=False).update(is_running=True):
            raise Busy
        self.refresh_from_db()
        conversation = self.conversation()
        try:
            yield conversation
        finally:
            self.stored, self.is_running = conversation.to_json(), False
            self.save()
