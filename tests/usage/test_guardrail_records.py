"""What guardrails have said is in the records: who reads them sees which one it was, and why; a caller does not."""

from pathlib import Path
from typing import Any

from broker.core.directory import Directory
from broker.core.era import LATEST_LEGACY, LATEST_MODERN
from broker.core.policy import decide
from broker.core.questions import Question
from broker.core.request import Kind
from broker.reload import Reloads
from broker.usage import line_trail
from broker.usage.audit import LineAudit
from tests.guardrails.test_calls import ALLOW, BLOCK, CRASH, MARK, configured
from tests.relay.fake import Asked, Fake, Json, answering, house, tool, write_config
from tests.usage.audited import ANN, ask, audited, call, records

REASON = "because\\x1b[2J"


def judging(**phases: list[str]) -> dict[str, tuple[str, Json]]:
    texts = {"mark": MARK, "block": BLOCK, "crash": CRASH, "allow": ALLOW}
    return {name: (texts[name], {"phases": given}) for name, given in phases.items()}


async def test_what_each_guardrail_has_said_of_a_call_is_in_its_record(tmp_path: Path) -> None:
    rules = configured(tmp_path, **judging(mark=["request"], allow=["request", "result"]))
    async with audited(tmp_path, guardrails=rules) as place:
        await ask(place, *call("one__echo", text="secret"))
    (one,) = records(tmp_path)
    said = [(each["guardrail"], each["phase"], each["verdict"]) for each in one["judgements"]]
    assert said == [("mark", "request", "rewrite"), ("allow", "request", "pass"), ("allow", "result", "pass")]
    assert one["outcome"] == "done" and all(each["ms"] > 0 for each in one["judgements"])


async def test_a_blocked_call_has_one_record_and_its_caller_does_not_hear_why(tmp_path: Path) -> None:
    async with audited(tmp_path, guardrails=configured(tmp_path, **judging(block=["request"]))) as place:
        answer = await ask(place, *call("one__echo"))
        assert place.fakes["one"].asked == []
    (one,) = records(tmp_path)
    assert (one["outcome"], one["rule"]) == ("blocked", "guardrail:block")
    (said,) = one["judgements"]
    assert (said["phase"], said["verdict"], said["reason"]) == ("request", "reject", REASON)
    assert "because" not in str(answer)


async def test_a_blocked_result_and_a_fault_are_told_apart(tmp_path: Path) -> None:
    async with audited(tmp_path, guardrails=configured(tmp_path, **judging(crash=["result"]))) as place:
        answer = await ask(place, *call("one__echo", text="hunter2"))
    (one,) = records(tmp_path)
    (said,) = one["judgements"]
    assert (one["outcome"], said["phase"], said["verdict"]) == ("blocked", "result", "fault") and said["reason"]
    assert "hunter2" not in str(one) and said["reason"] not in str(answer)


async def test_a_guardrail_that_refuses_what_is_no_tool_leaves_the_code_too(tmp_path: Path) -> None:
    fake = Fake(resources=[{"uri": "file:///readme", "name": "readme"}], templates=[])
    async with audited(tmp_path, fake, guardrails=configured(tmp_path, **judging(block=["request"]))) as place:
        answer = await ask(place, "resources/read", {"uri": "one+file:///readme"})
    (one,) = records(tmp_path)
    assert (one["outcome"], one["code"]) == ("blocked", answer["error"]["code"])
    assert [each["guardrail"] for each in one["judgements"]] == ["block"]


async def test_questions_of_a_call_are_judged_in_its_record(tmp_path: Path) -> None:
    async def ask_twice(asked: Asked) -> Json:
        for _ in range(2):
            await asked.ask("elicitation/create", {"message": "?", "requestedSchema": {"type": "object"}})
        return {"content": []}

    fake = Fake(tools=[tool("echo")], answers={"echo": ask_twice})
    async with audited(tmp_path, fake, guardrails=configured(tmp_path, **judging(block=["question"]))) as place:
        await ask(place, *call("one__echo"), version=LATEST_LEGACY)
    (one,) = records(tmp_path)
    assert [(each["phase"], each["verdict"]) for each in one["judgements"]] == [("question", "reject")] * 2


async def test_judgements_of_one_call_are_bounded_and_the_others_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(line_trail, "MAX_JUDGEMENTS", 1)
    async with audited(tmp_path, guardrails=configured(tmp_path, **judging(allow=["request", "result"]))) as place:
        await ask(place, *call("one__echo"))
    (one,) = records(tmp_path)
    assert (len(one["judgements"]), one["more_judgements"]) == (1, 1)


async def test_with_required_the_decision_comes_first_and_the_judgement_with_the_outcome(tmp_path: Path) -> None:
    rules = configured(tmp_path, **judging(block=["request"]))
    async with audited(tmp_path, audit={"required": True}, guardrails=rules) as place:
        await ask(place, *call("one__echo"))
    before, after = records(tmp_path)
    assert (before["outcome"], after["outcome"]) == ("permitted", "blocked")
    assert "judgements" not in before and len(after["judgements"]) == 1


async def test_a_definition_that_is_changed_or_left_out_has_a_record_of_its_own(tmp_path: Path) -> None:
    tools = [tool("echo", description="a secret"), tool("plain")]
    rules = configured(tmp_path, **judging(mark=["definition"]))
    async with house(tmp_path, {"one": Fake(tools=tools)}, guardrails=rules, audit={"enabled": True}):
        pass
    found = records(tmp_path, "guardrail")
    assert {(one["guardrail"], one["phase"], one["verdict"]) for one in found} == {("mark", "definition", "rewrite")}
    assert {one["name"] for one in found} >= {"one__echo"} and all("principal" not in one for one in found)


async def test_after_a_reload_a_record_names_the_guardrails_that_are_in_force_then(tmp_path: Path) -> None:
    rules = configured(tmp_path, **judging(allow=["request"]))
    async with audited(tmp_path, guardrails=rules) as place:
        await ask(place, *call("one__echo"))
        write_config(tmp_path, {"one": {}}, audit={"enabled": True})
        assert await Reloads(place.broker, {}).reload()
        await ask(place, *call("one__echo"))
    before, after = records(tmp_path)
    assert before["guardrails"] and "guardrails" not in after


async def test_that_a_definition_passes_is_no_news(tmp_path: Path) -> None:
    async with audited(tmp_path, guardrails=configured(tmp_path, **judging(allow=["definition"]))) as place:
        await ask(place, "tools/list", caller=ANN, version=LATEST_MODERN)
    assert records(tmp_path, "guardrail") == []


async def test_what_is_judged_after_the_end_of_a_request_has_a_record_of_its_own(tmp_path: Path) -> None:
    fake = Fake(tools=[tool("echo")], answers={"echo": answering({"content": []})})
    async with audited(tmp_path, fake, guardrails=configured(tmp_path, **judging(allow=["question"]))) as place:
        guards, entry = place.broker.generation.guards, next(iter(place.broker.generation.catalog.entries(Kind.TOOL)))
        trail = place.broker.audit.begin(ANN, "http", LATEST_MODERN, "tools/call", "", {}, 1)
        guarded = guards.around(ANN, entry, "tools/call", trail.judged)
        trail.ended({}, 1)
        await guarded.question(Question("elicitation/create", {"message": "?"}))
    (one,) = records(tmp_path, "guardrail")
    assert (one["principal"], one["name"], one["phase"], one["verdict"]) == ("key:ann", "one__echo", "question", "pass")


async def test_a_record_names_the_guardrails_and_the_rules_of_its_decision_whatever_came_after(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        audit, served = place.broker.audit, place.broker.generation
        assert isinstance(audit, LineAudit)
        entry = served.catalog.lookup(Kind.TOOL, "one__echo")
        audit.guard({"mark": "a"})
        for _ in range(2):
            trail = audit.begin(ANN, "http", LATEST_MODERN, "tools/call", "", {}, 1)
            trail.decided(decide(served.policy, ANN, "", entry), entry, served.policy, "one__echo")
            audit.guard({"mark": "b"})
            served.adopt(Directory())
            trail.ended({}, 1)
    first, second = records(tmp_path)
    assert first["guardrails"] != second["guardrails"] and first["policy"] != second["policy"]
