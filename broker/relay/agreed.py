"""What the caller of one call and its upstream have agreed on beyond the core: extensions, and tasks.

Nothing here is understood but what the broker must know to keep callers apart: names, URIs, and whose task is whose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.core.catalog import Shelf
from broker.core.era import TASKS, is_modern, knows_tasks
from broker.core.extensions import share
from broker.core.rewrite import rewrite_error_data, rewrite_foreign
from broker.core.shape import is_object
from broker.core.tasks import created_task, is_task_id, listed_tasks, publish_task, publish_task_content, tells_all
from broker.errors import MalformedAnswer
from broker.relay.call import Call
from broker.relay.exchange import Exchange
from broker.relay.tasks import Tasks
from broker.upstream.link import Link


@dataclass(slots=True)
class Agreed:
    """See the module. `shelf` is what is known of the upstream, None if nothing is. Never changed."""

    call: Call
    link: Link
    shelf: Shelf | None
    tasks: Tasks

    def publish(self, uri: str) -> str:
        """The public form of an upstream's own URI."""
        return uri if self.shelf is None else self.shelf.publish(uri)

    # -- extensions ---------------------------------------------------------------------------------------------------

    def extends(self, exchange: Exchange) -> bool:
        """Whether the caller and the upstream have declared an extension that both know."""
        return self.shelf is not None and share(self.shelf.listing, exchange.capabilities, self.call.version)

    def knows_kind(self, result: Mapping[str, Any], exchange: Exchange) -> bool:
        """Whether a kind of result that the core does not know may pass. Spec: 2026-07-28 basic, "Result Type"."""
        kind = result.get("resultType")
        if not isinstance(kind, str) or kind == "task":
            return False
        return is_modern(self.link.version) and is_modern(self.call.version) and self.extends(exchange)

    def foreign(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is of an extension, with what the broker knows in it under public names."""
        if self.shelf is not None:
            rewrite_foreign(params, self.shelf.publish, self.shelf.public_of_own)
        return params

    # -- tasks --------------------------------------------------------------------------------------------------------

    def own_task(self, public: str) -> str | None:
        """The upstream's own id of a task of this caller's."""
        return self.tasks.own_id(self.call.permit.caller.principal, self.call.server, public)

    def takes_task(self, result: dict[str, Any], exchange: Exchange) -> bool:
        """Whether a result is a task that both sides know of: then it is the caller's from here on.

        Raises: MalformedAnswer, if it has no id that can be kept.
        """
        if self.call.method != "tools/call" or is_modern(self.link.version) != is_modern(self.call.version):
            return False
        created = created_task(result, self.link.version)
        if created is None or not self._may_create(exchange):
            return False
        if not is_task_id(created.get("taskId")):
            raise MalformedAnswer(self.call.server, "a task without an id")
        task = self.tasks.bind(
            created,
            self.call.permit.entry,
            self.call.permit.caller.principal,
            is_modern=is_modern(self.call.version),
            link=self.link,
            session=exchange.owner,
            token=exchange.token,
            now=exchange.now,
        )
        (result if task.is_modern else result["task"])["taskId"] = task.public
        return True

    def _may_create(self, exchange: Exchange) -> bool:
        """Whether the caller has said that it can take a task for an answer."""
        if not is_modern(self.call.version):
            return knows_tasks(self.call.version) and is_object(self.call.params.get("task"))
        extensions = exchange.capabilities.get("extensions")
        return is_object(extensions) and TASKS in extensions

    def error_data(self, data: Any) -> Any:
        """The data of an error in public form: a URI, and the task that was asked about."""
        data, task = rewrite_error_data(data, self.publish), self.call.task
        if task is not None and is_object(data) and data.get("taskId") == task.own:
            return {**data, "taskId": task.public}
        return data

    def about_task(self, result: dict[str, Any], exchange: Exchange) -> None:
        """The result of a request about tasks, under public ids; a look at a task renews its time. In place."""
        if self.call.method == "tasks/list":
            server = self.call.server
            listed = [{**one, "taskId": publish_task(server, one["taskId"])} for one in listed_tasks(result)]
            result["tasks"] = [one for one in listed if self.own_task(one["taskId"]) is not None]
            return
        assert self.call.task is not None
        self.tasks.renew(self.call.task, result, self.link, exchange.owner, exchange.now)
        self.call.task.is_over = self.call.task.is_over or tells_all(self.call.method, result, self.call.version)
        if "taskId" in result:
            result["taskId"] = self.call.task.public
        if is_modern(self.call.version):
            publish_task_content(result, self.call.server, self.publish)
