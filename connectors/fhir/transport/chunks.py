"""What the caller of `client.stream` reads: the pieces of a body, as they come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from connectors.fhir.transport.body import BodyReader
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.explain import error_for
from connectors.fhir.transport.retry_budget import RetryBudget
from connectors.fhir.transport.retry_table import Verdict, judge
from connectors.fhir.transport.sender import FAILS, Sender


class Chunks:
    """The pieces of a body. A failure under way is a TransientFetchError that names the call.

    It takes one retry out of the budget, since the caller then begins the file again; BudgetExhaustedError: it must not.
    """

    def __init__(
        self,
        call: Call,
        reader: BodyReader,
        sender: Sender,
        budget: RetryBudget,
        answering: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._answering = answering
        self._sender = sender
        self._call = call
        self._reader = reader
        self._budget = budget

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            with self._answering():
                return await anext(self._reader)
        except FAILS as error:
            seen = self._sender.failed(error)
        verdict = judge(self._call, seen)
        again = verdict.action == "retry"
        empty = again and not self._budget.take_retry()
        raise error_for(self._call, seen, Verdict(action="retry") if again else verdict, tries=1, budget_empty=empty)
