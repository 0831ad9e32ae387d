"""Every route of the API, in one table: what answers it, and what the document says of it. There is no other route."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.admin import keys, members, organizations, oversight, records, sessions, teams, usage
from broker.admin.bodies import (
    Body,
    KeyChange,
    MemberQuery,
    Move,
    NewKey,
    NewMember,
    NewPlace,
    PlaceQuery,
    Question,
    RecordQuery,
    Rotation,
    RulesBody,
    SightQuery,
    UsageQuery,
    ViewQuery,
)
from broker.admin.desk import Office
from broker.admin.oversight import UpstreamView
from broker.admin.sessions import Front, SessionView
from broker.admin.usage import BudgetView, UsageView
from broker.admin.views import KeyView, MadeKey, MembershipView, OrganizationView, TeamView
from broker.core.caller import Caller, Role
from broker.core.policy import ANY
from broker.core.request import LISTS
from broker.relay.served import Served
from broker.usage.searching import Archive


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: who, and of what. `body` and `query` are of the route's models."""

    office: Office
    actor: Caller
    now: Served
    front: Front
    path: Mapping[str, str]
    body: Any
    query: Any
    archive: Archive


Do = Callable[[Asked], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Gone:
    """What was deleted, and how many things that were in it."""

    teams: int = 0
    keys: int = 0


@dataclass(frozen=True, slots=True)
class NewKeyView:
    """`key` is the text of the key: it is shown this once. `view`: the rest of it."""

    id: str
    key: str
    view: KeyView


@dataclass(frozen=True, slots=True)
class CatalogView:
    """What a caller sees, as it gets it."""

    caller: str
    view: str
    tools: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    resources: list[dict[str, Any]]
    resourceTemplates: list[dict[str, Any]]
    instructions: str | None


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung of a decision."""

    rule: str
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and its rule. See `mcp-broker explain`."""

    caller: str
    name: str
    kind: str | None
    is_permitted: bool
    is_hidden: bool
    rule: str
    reason: str
    argument: str
    steps: list[Rung]


@dataclass(frozen=True, slots=True)
class RecordList:
    """Records of the audit, each as its line has it."""

    items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SightList:
    """Callers that were shown something. See `mcp-broker audit --who-saw`."""

    name: str
    seen: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path`: below the base, with `{names}` in it. `result`: what it answers; a list of them where `is_list`. What
    `is_per_worker` says of which worker it is, and a list of such is that of all workers together.
    """

    method: str
    path: str
    summary: str
    do: Do
    result: type
    body: type[Body] | None = None
    query: type[Body] | None = None
    is_list: bool = field(default=False, kw_only=True)
    is_per_worker: bool = field(default=False, kw_only=True)
    status: int = field(default=200, kw_only=True)


# Organizations and teams.


async def _list_organizations(asked: Asked) -> list[OrganizationView]:
    return await organizations.listed(asked.office, asked.actor)


async def _create_organization(asked: Asked) -> OrganizationView:
    return await organizations.create(asked.office, asked.actor, asked.body.name, asked.body.rules)


async def _show_organization(asked: Asked) -> OrganizationView:
    return await organizations.show(asked.office, asked.actor, asked.path["organization"])


async def _grant_organization(asked: Asked) -> OrganizationView:
    return await organizations.grant(asked.office, asked.actor, asked.path["organization"], asked.body.rules)


async def _delete_organization(asked: Asked) -> Gone:
    return Gone(*await organizations.delete(asked.office, asked.actor, asked.path["organization"]))


async def _list_teams(asked: Asked) -> list[TeamView]:
    return await teams.listed(asked.office, asked.actor, asked.path["organization"])


async def _create_team(asked: Asked) -> TeamView:
    return await teams.create(asked.office, asked.actor, asked.path["organization"], asked.body.name, asked.body.rules)


async def _show_team(asked: Asked) -> TeamView:
    return await teams.show(asked.office, asked.actor, *_place(asked))


async def _grant_team(asked: Asked) -> TeamView:
    return await teams.grant(asked.office, asked.actor, *_place(asked), asked.body.rules)


async def _delete_team(asked: Asked) -> Gone:
    return Gone(keys=await teams.delete(asked.office, asked.actor, *_place(asked)))


# Members.


async def _list_members(asked: Asked) -> list[MembershipView]:
    return await members.listed(asked.office, asked.actor, *_place(asked))


async def _grant_member(asked: Asked) -> MembershipView:
    body: NewMember = asked.body
    return await members.grant(asked.office, asked.actor, body.principal, *_place(asked), Role(body.role))


async def _remove_member(asked: Asked) -> Gone:
    await members.remove(asked.office, asked.actor, asked.query.principal, *_place(asked))
    return Gone()


# Keys.


async def _list_keys(asked: Asked) -> list[KeyView]:
    return await keys.listed(asked.office, asked.actor, asked.query.organization, asked.query.team)


async def _create_key(asked: Asked) -> NewKeyView:
    body: NewKey = asked.body
    return _shown_once(
        await keys.create(
            asked.office,
            asked.actor,
            body.organization,
            body.team or "",
            body.name,
            role=Role(body.role),
            expires=body.expires,
            rules=body.rules,
        )
    )


async def _show_key(asked: Asked) -> KeyView:
    return await keys.show(asked.office, asked.actor, asked.path["key"])


async def _grant_key(asked: Asked) -> KeyView:
    body: KeyChange = asked.body
    return await keys.grant(
        asked.office, asked.actor, asked.path["key"], body.rules, role=body.new_role, expires=body.expires
    )


async def _delete_key(asked: Asked) -> KeyView:
    return await keys.delete(asked.office, asked.actor, asked.path["key"])


async def _rotate_key(asked: Asked) -> NewKeyView:
    overlap = keys.OVERLAP if asked.body.overlap is None else asked.body.overlap
    return _shown_once(await keys.rotate(asked.office, asked.actor, asked.path["key"], overlap=overlap))


async def _revoke_key(asked: Asked) -> KeyView:
    return await keys.revoke(asked.office, asked.actor, asked.path["key"])


async def _move_key(asked: Asked) -> KeyView:
    body: Move = asked.body
    return await keys.move(asked.office, asked.actor, asked.path["key"], body.organization, body.team or "")


# What others see, and what is there.


async def _show_view(asked: Asked) -> CatalogView:
    query: ViewQuery = asked.query
    caller, seen = await oversight.view(asked.office, asked.actor, asked.now, query.who, query.view)
    lists = {LISTS[kind].member: items for kind, items in seen.items.items()}
    return CatalogView(caller.principal, query.view, instructions=seen.instructions, **lists)


async def _explain(asked: Asked) -> Explanation:
    body: Question = asked.body
    arguments = ANY if body.arguments is None else body.arguments
    caller, found = await oversight.explain(
        asked.office,
        asked.actor,
        asked.now,
        body.who,
        body.name,
        kind=body.of_kind,
        view=body.view,
        arguments=arguments,
    )
    return Explanation(
        caller.principal,
        found.name,
        found.kind,
        found.is_permitted,
        found.is_hidden,
        found.rule,
        found.reason,
        found.argument,
        [Rung(step.rule, step.passed, step.reason) for step in found.steps],
    )


async def _list_upstreams(asked: Asked) -> list[UpstreamView]:
    return await oversight.upstreams(asked.office, asked.actor, asked.now)


async def _show_upstream(asked: Asked) -> UpstreamView:
    return await oversight.upstream(asked.office, asked.actor, asked.now, asked.path["server"])


async def _list_usage(asked: Asked) -> list[UsageView]:
    query: UsageQuery = asked.query
    question = usage.asked(query.by, query.step, query.since, query.until, asked.office.clock.wall())
    return await usage.used(asked.office, asked.actor, question)


async def _list_budgets(asked: Asked) -> list[BudgetView]:
    return await usage.budgets(asked.office, asked.actor)


async def _list_sessions(asked: Asked) -> list[SessionView]:
    return await sessions.listed(asked.office, asked.actor, asked.front)


async def _end_session(asked: Asked) -> SessionView:
    return await sessions.end(asked.office, asked.actor, asked.front, asked.path["session"])


async def _find_records(asked: Asked) -> RecordList:
    query: RecordQuery = asked.query
    return RecordList(await records.found(asked.office, asked.actor, asked.archive, query.question, query.limit))


async def _who_saw(asked: Asked) -> SightList:
    query: SightQuery = asked.query
    seen = await records.who_saw(asked.office, asked.actor, asked.archive, query.name, query.question)
    return SightList(query.name, [one.to_json() for one in seen])


def _place(asked: Asked) -> tuple[str, str]:
    return asked.path["organization"], asked.path.get("team", "")


def _shown_once(made: MadeKey) -> NewKeyView:
    return NewKeyView(made.view.id, made.text.reveal(), made.view)


_ORG: Final = "/organizations/{organization}"
_TEAM: Final = f"{_ORG}/teams/{{team}}"
_KEY: Final = "/keys/{key}"

ROUTES: Final = (
    Route("GET", "/organizations", "List organizations", _list_organizations, OrganizationView, is_list=True),
    Route(
        "POST", "/organizations", "Make an organization", _create_organization, OrganizationView, NewPlace, status=201
    ),
    Route("GET", _ORG, "Show an organization", _show_organization, OrganizationView),
    Route("PATCH", _ORG, "Set what an organization may use", _grant_organization, OrganizationView, RulesBody),
    Route("DELETE", _ORG, "Delete an organization with its teams and keys", _delete_organization, Gone),
    Route("GET", f"{_ORG}/teams", "List the teams of an organization", _list_teams, TeamView, is_list=True),
    Route("POST", f"{_ORG}/teams", "Make a team", _create_team, TeamView, NewPlace, status=201),
    Route("GET", _TEAM, "Show a team", _show_team, TeamView),
    Route("PATCH", _TEAM, "Set what a team may use", _grant_team, TeamView, RulesBody),
    Route("DELETE", _TEAM, "Delete a team with its keys", _delete_team, Gone),
    Route("GET", f"{_ORG}/members", "List the roles in it", _list_members, MembershipView, is_list=True),
    Route("POST", f"{_ORG}/members", "Give a role in it, or change it", _grant_member, MembershipView, NewMember),
    Route("DELETE", f"{_ORG}/members", "Take a role in it away", _remove_member, Gone, query=MemberQuery),
    Route("GET", f"{_TEAM}/members", "List the roles in a team", _list_members, MembershipView, is_list=True),
    Route("POST", f"{_TEAM}/members", "Give a role in a team, or change it", _grant_member, MembershipView, NewMember),
    Route("DELETE", f"{_TEAM}/members", "Take a role in a team away", _remove_member, Gone, query=MemberQuery),
    Route("GET", "/keys", "List keys", _list_keys, KeyView, query=PlaceQuery, is_list=True),
    Route("POST", "/keys", "Make a key: its text is shown once", _create_key, NewKeyView, NewKey, status=201),
    Route("GET", _KEY, "Show a key", _show_key, KeyView),
    Route("PATCH", _KEY, "Set the rules, role and end of a key", _grant_key, KeyView, KeyChange),
    Route("DELETE", _KEY, "End a key and forget it", _delete_key, KeyView),
    Route("POST", f"{_KEY}/rotate", "Give a key a new text, shown once", _rotate_key, NewKeyView, Rotation),
    Route("POST", f"{_KEY}/revoke", "End a key, for good", _revoke_key, KeyView, Body),
    Route("POST", f"{_KEY}/move", "Move a key to another place", _move_key, KeyView, Move),
    Route("GET", "/views", "Show the exact view of a key or a place", _show_view, CatalogView, query=ViewQuery),
    Route("POST", "/explain", "Name the rule that decides", _explain, Explanation, Question),
    Route(
        "GET",
        "/upstreams",
        "List servers and how they are",
        _list_upstreams,
        UpstreamView,
        is_list=True,
        is_per_worker=True,
    ),
    Route("GET", "/upstreams/{server}", "Show how a server is", _show_upstream, UpstreamView, is_per_worker=True),
    Route("GET", "/usage", "Show who has used what", _list_usage, UsageView, query=UsageQuery, is_list=True),
    Route("GET", "/budgets", "Show budgets and what is left of them", _list_budgets, BudgetView, is_list=True),
    Route("GET", "/sessions", "List open sessions", _list_sessions, SessionView, is_list=True, is_per_worker=True),
    Route(
        "GET", "/audit", "Find records of calls, discoveries and changes", _find_records, RecordList, query=RecordQuery
    ),
    Route("GET", "/audit/who-saw", "List who was shown something", _who_saw, SightList, query=SightQuery),
    Route("DELETE", "/sessions/{session}", "End a session", _end_session, SessionView, is_per_worker=True),
)
