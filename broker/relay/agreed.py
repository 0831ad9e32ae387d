"""What the caller of one call and its upstream have agreed on beyond the core: extensions, and tasks.

Nothing here is understood but what the broker must know to keep callers apart: names, URIs, and whose task is whose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.core.era import TASKS, is_modern, knows_tasks
from broker.core.extensions import share
from broker.core.rewrite import rewrite_error_data, rewrite_foreign
from broker.core.shape import is_object
from broker.core.tasks import created_task, is_task_id, listed_tasks, publish_task, publish_task_content, tells_all
from broker.errors import MalformedAnswer
from broker.relay.call import Call
from broker.relay.tasks import Tasks


@dataclass(slots=True)
class Agreed:
    """See the module. Made when it is asked for: most calls never do. Never changed."""

    call: Call
    tasks: Tasks

    # -- extensions ---------------------------------------------------------------------------------------------------

    def extends(self) -> bool:
        """Whether the caller and the upstream have declared an extension that both know."""
        shelf = self.call.shelf
        return shelf is not None and share(shelf.listing, self.call.exchange.capabilities, self.call.version)

    def knows_kind(self, result: Mapping[str, Any]) -> bool:
        """Whether a kind of result that the core does not know may pass. Spec: 2026-07-28 basic, "Result Type"."""
        kind = result.get("resultType")
        if not isinstance(kind, str) or kind == "task":
            return False
        return is_modern(self.call.link.version) and is_modern(self.call.version) and self.extends()

    def foreign(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is of an extension, with what the broker knows in it under public names."""
        shelf = self.call.shelf
        if shelf is not None:
            rewrite_foreign(params, shelf.publish, shelf.public_of_own)
        return params

    # -- tasks --------------------------------------------------------------------------------------------------------

    def own_task(self, public: str) -> str | None:
        """The upstream's own id of a task of this caller's."""
        return self.tasks.own_id(self.call.permit.caller.principal, self.call.server, public)

    def takes_task(self, result: dict[str, Any]) -> bool:
        """Whether a result is a task that both sides know of: then it is the caller's from here on.

        Raises: MalformedAnswer, if it has no id that can be kept.
        """
        call, exchange = self.call, self.call.exchange
        if call.method != "tools/call" or is_modern(call.link.version) != is_modern(call.version):
            return False
        created = created_task(result, call.link.version)
        if created is None or not self._may_create():
            return False
        if not is_task_id(created.get("taskId")):
            raise MalformedAnswer(call.server, "a task without an id")
        task = self.tasks.bind(
            created,
            call.permit.entry,
            call.permit.caller.principal,
            is_modern=is_modern(call.version),
            link=call.link,
            session=exchange.who.session,
            token=exchange.token,
            now=exchange.now,
        )
        (result if task.is_modern else result["task"])["taskId"] = task.public
        return True

    def _may_create(self) -> bool:
        """Whether the caller has said that it can take a task for an answer."""
        if not is_modern(self.call.version):
            return knows_tasks(self.call.version) and is_object(self.call.params.get("task"))
        extensions = self.call.exchange.capabilities.get("extensions")
        return is_object(extensions) and TASKS in extensions

    def error_data(self, data: Any) -> Any:
        """The data of an error in public form: a URI, and the task that was asked about."""
        data, task = rewrite_error_data(data, self.call.publish), self.call.task
        if task is not None and is_object(data) and data.get("taskId") == task.own:
            return {**data, "taskId": task.public}
        return data

    def about_task(self, result: dict[str, Any]) -> None:
        """The result of a request about tasks, under public ids; a look at a task renews its time. In place."""
        call, exchange = self.call, self.call.exchange
        if call.method == "tasks/list":
            listed = [{**one, "taskId": publish_task(call.server, one["taskId"])} for one in listed_tasks(result)]
            result["tasks"] = [one for one in listed if self.own_task(one["taskId"]) is not None]
            return
        assert call.task is not None
        self.tasks.renew(call.task, result, call.link, exchange.who.session, exchange.now)
        call.task.is_over = call.task.is_over or tells_all(call.method, result, call.version)
        if "taskId" in result:
            result["taskId"] = call.task.public
        if is_modern(call.version):
            publish_task_content(result, call.server, call.publish)
