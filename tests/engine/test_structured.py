"""Answers with a type: growing values, modes, repairs, and what does not fit."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Literal

import pytest
from typing_extensions import TypedDict

import completion
from completion import (
    AnthropicModel,
    AsyncModel,
    CancelToken,
    ChatRequest,
    FinishReason,
    GeminiModel,
    JsonSchema,
    LocalModel,
    Message,
    OutputError,
    RunConfig,
    RunFinished,
    RunResult,
    ServerError,
    StreamCancelledError,
    StreamChunk,
    StructuredStream,
    SystemBlock,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    Turn,
    TurnFinished,
    UnsupportedContentError,
    run_chat,
    structured,
    tool,
    web,
)
from completion.engine.outputs import Output
from completion.notebook import show
from completion.testing import Pause, ProviderServer, Reply, ScriptedModel, Stall, event
from completion.testing.scripted import Step
from tests.loopback import failure_of, model_of, text
from tests.runs import called, malformed, turn
from tests.wire_pieces import (
    MESSAGE_STOP,
    anthropic_stream,
    body,
    call_block,
    calls,
    delta,
    message_delta,
    piece,
    text_block,
)

pytest.importorskip("pydantic")
pytest.importorskip("jsonschema")


@dataclass
class City:
    """A city."""

    name: str
    founded: date | None = None


class Words(TypedDict):
    words: list[str]


OSLO = City("Oslo", date(1048, 1, 1))
OSLO_JSON = '{"name": "Oslo", "founded": "1048-01-01"}'
CITY_SCHEMA = JsonSchema(
    "city",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        "required": ["name", "size"],
        "additionalProperties": False,
    },
)
HI = "Describe Oslo."


class Only(ScriptedModel):
    """Refuses requests with these fields, as a wire does."""

    refused: tuple[str, ...] = ()

    def chat_stream(self, req: ChatRequest | str) -> Any:
        for field in self.refused:
            if isinstance(req, ChatRequest) and getattr(req, field):
                raise UnsupportedContentError(f"{field} cannot be sent")
        return super().chat_stream(req)


class NoFormats(Only):
    refused = ("response_format",)


class NothingButText(Only):
    refused = ("response_format", "tools")


def pieces(*deltas: str, reason: FinishReason = FinishReason.END_TURN) -> list[Step]:
    return [*map(TextDelta, deltas), TurnFinished(reason)]


def call_of(name: str, args: dict[str, Any], call_id: str = "c1") -> list[StreamChunk]:
    return [ToolCallStarted(call_id, name), ToolCallFinished(call_id, name, args)]


OSLO_CALL = call_of("City", {"name": "Oslo"})


def asked(script: Any, kind: Any = City, **options: Any) -> Any:
    return structured(ScriptedModel(script), HI, kind, **options).collect()


def fault(script: Any, kind: Any = City, **options: Any) -> OutputError:
    error = failure_of(lambda: asked(script, kind, **options))
    assert isinstance(error, OutputError)
    return error


# --- growing values --------------------------------------------------------------------------------------------------


def test_the_value_grows_and_is_validated_at_the_end() -> None:
    script = pieces('{"na', 'me": "Os', 'lo", "fou', 'nded": "1048-', '01-01"', "}")
    stream = structured(ScriptedModel(script), HI, City)
    assert list(stream) == [
        {"name": "Os"},
        {"name": "Oslo"},
        {"name": "Oslo", "founded": "1048-"},
        {"name": "Oslo", "founded": "1048-01-01"},
    ]
    assert stream.value == OSLO
    assert stream.turn.text == OSLO_JSON


def test_a_yielded_value_never_changes_later() -> None:
    script = pieces(*'{"words": ["one", "two", "three"]}')
    kept = [(value, copy.deepcopy(value)) for value in structured(ScriptedModel(script), HI, Words)]
    assert kept
    assert all(value == before for value, before in kept)


def test_changing_a_yielded_value_does_not_change_the_result() -> None:
    stream = structured(ScriptedModel(pieces(*'{"words": ["one", "two"]}')), HI, Words)
    for value in stream:
        value.get("words", []).append("mine")
    assert stream.value == {"words": ["one", "two"]}


def test_collect_continues_where_next_stopped() -> None:
    stream = structured(ScriptedModel(OSLO_JSON), HI, City)
    next(stream)
    assert stream.collect() == stream.collect() == OSLO


def test_before_the_end_there_is_no_value_and_no_turn() -> None:
    stream = structured(ScriptedModel(OSLO_JSON), HI, City)
    next(stream)
    for name in ("value", "turn"):
        with pytest.raises(RuntimeError, match=f"{name} is known only after the end"):
            getattr(stream, name)
    stream.close()
    with pytest.raises(RuntimeError, match="value is known only"):
        stream.collect()


# --- types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "answer", "value"),
    [
        (int, '{"value": 7}', 7),
        (list[City], f'{{"value": [{OSLO_JSON}]}}', [OSLO]),
        (Literal["a", "b"], '{"value": "b"}', "b"),
        (City | int, f'{{"value": {OSLO_JSON}}}', OSLO),
        (City | None, '{"value": null}', None),
        (tuple[int, str], '{"value": [1, "a"]}', (1, "a")),
        (Words, '{"words": ["a"]}', {"words": ["a"]}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[str, int], "{}", {}),
        (CITY_SCHEMA, '{"name": "Oslo", "size": 7}', {"name": "Oslo", "size": 7}),
        (JsonSchema("n", {"type": "integer"}), '{"value": 7}', 7),
    ],
    ids=str,
)
def test_any_type_can_be_asked_for(kind: Any, answer: str, value: Any) -> None:
    assert asked(answer, kind) == value


def test_a_value_that_is_not_an_object_is_wrapped_in_the_schema_and_unwrapped_as_it_grows() -> None:
    model = ScriptedModel(pieces('{"value": [', "1, 2", "3]}"))
    stream = structured(model, HI, list[int])
    assert list(stream) == [[], [1], [1, 23]]
    wanted = model.requests[0].response_format
    assert isinstance(wanted, JsonSchema)
    assert wanted.schema["required"] == ["value"]
    assert wanted.schema["additionalProperties"] is False


def test_a_wrapped_schema_that_refers_to_its_root_still_does() -> None:
    tree = JsonSchema("tree", {"type": "array", "items": {"$ref": "#"}})
    assert asked('{"value": [[], [[]]]}', tree) == [[], [[]]]
    assert "the value" in fault('{"value": 1}', tree).errors[0]


@pytest.mark.parametrize("kind", ["City", 3, None])
def test_what_is_not_a_type_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="must be a type or a JsonSchema"):
        asked(OSLO_JSON, kind)


def test_a_schema_that_is_not_valid_is_refused_before_the_call() -> None:
    with pytest.raises(ValueError, match="'x' is not a valid schema"):
        asked(OSLO_JSON, JsonSchema("x", {"type": "thing"}))


# --- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mode"), [(ScriptedModel, "schema"), (NothingButText, "prompt")])
def test_auto_is_the_first_mode_that_the_model_supports(kind: type[ScriptedModel], mode: str) -> None:
    model = kind(OSLO_JSON)
    stream = structured(model, HI, City)
    assert f"{mode} mode" in repr(stream)
    assert stream.collect() == OSLO
    assert len(model.requests) == 1


def test_without_formats_auto_forces_a_call_of_one_tool() -> None:
    deltas = [ToolCallArgsDelta("c1", part) for part in (OSLO_JSON[:12], OSLO_JSON[12:])]
    start, end = call_of("City", json.loads(OSLO_JSON))
    model = NoFormats([start, *deltas, end, TurnFinished(FinishReason.TOOL_USE)])
    stream = structured(model, HI, City)
    assert list(stream) == [{"name": "Os"}, json.loads(OSLO_JSON)]
    assert stream.value == OSLO
    assert model.requests[0].tool_choice == ToolChoice.tool("City")
    assert model.requests[0].parallel_tool_use is False


def test_a_call_without_deltas_yields_its_arguments() -> None:
    stream = structured(ScriptedModel(turn(OSLO_CALL)), HI, City, "tool")
    assert list(stream) == [{"name": "Oslo"}]
    assert stream.value == City("Oslo")


def test_the_tool_gets_a_name_that_no_other_tool_has() -> None:
    own = ToolDefinition("City", "Look a city up.", {"type": "object"})
    model = ScriptedModel(turn(call_of("City_answer", {"name": "Oslo"})))
    assert structured(model, ChatRequest(HI, tools=[own]), City, "tool").collect() == City("Oslo")
    assert [one.name for one in model.requests[0].tools] == ["City", "City_answer"]


@pytest.mark.parametrize("system", [None, "Be brief.", (SystemBlock("Be brief."),)])
def test_prompt_mode_adds_the_schema_to_the_system_prompt(system: Any) -> None:
    model = ScriptedModel(OSLO_JSON)
    structured(model, ChatRequest(HI, system_prompt=system), City, "prompt").collect()
    (request,) = model.requests
    sent = str(request.system_prompt)
    assert '"name"' in sent.replace("\\", "")
    assert ("Be brief." in sent) == (system is not None)
    assert request.response_format is None


def test_open_keys_use_prompt_mode_and_schema_mode_refuses_them() -> None:
    assert "prompt mode" in repr(structured(ScriptedModel("{}"), HI, dict[str, int]))
    with pytest.raises(TypeError, match="mode='prompt'"):
        structured(ScriptedModel(), HI, dict[str, int], "schema")
    assert asked(turn(called("dict_str_int", a=1)), dict[str, int], mode="tool") == {"a": 1}


def test_an_explicit_mode_that_the_model_lacks_is_an_error() -> None:
    with pytest.raises(UnsupportedContentError):
        structured(NoFormats(), HI, City, "schema")


def test_a_generator_function_that_refuses_a_format_late_is_asked_in_another_mode() -> None:
    class Late:
        name, model = "late", "late-1"

        def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
            if req.response_format or req.tools:
                raise UnsupportedContentError("no")
            yield TextDelta(OSLO_JSON)
            yield TurnFinished(FinishReason.END_TURN)

    assert structured(Late(), HI, City).collect() == OSLO


@pytest.mark.parametrize("arguments", [{"mode": "json"}, {"repairs": -1}, {"repairs": True}])
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="structured: "):
        asked(OSLO_JSON, **arguments)


# --- JSON in a text --------------------------------------------------------------------------------------------------

AROUND = {
    "alone": OSLO_JSON,
    "byte order mark": f"\ufeff{OSLO_JSON}",
    "code fence": f"Here it is:\n```json\n{OSLO_JSON}\n```\nAnything else?",
    "prose with braces": f"In {{braces}} as {{}}: {OSLO_JSON}",
    "thought": f'<think>{{"name": "Rome"}}</think>{OSLO_JSON}',
    "two thoughts": f'<think>{{"name": "a"}}</think> <thinking>{{"name": "b"}}</thinking>\n{OSLO_JSON}',
    "another object first": f'{{"type": "object"}} {OSLO_JSON}',
    "two answers": f'{OSLO_JSON} {{"name": "Rome"}}',
    "text behind": f"{OSLO_JSON} }}]",
    "broken object first": f'{{"size": oops}} {OSLO_JSON}',
}


@pytest.mark.parametrize("answer", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_json_is_taken_out_of_the_text(answer: str, size: int) -> None:
    cut = [answer[start : start + size] for start in range(0, len(answer), size)]
    stream = structured(ScriptedModel(pieces(*cut)), HI, City, "prompt")
    values = list(stream)
    assert stream.value == OSLO
    assert values[-1] == json.loads(OSLO_JSON)
    assert all("name" in value or value == {} for value in values)
    assert {value.get("name", "")[:1] for value in values} <= {"", "O"}


@pytest.mark.parametrize(
    "answer", ["[1, 2]", "<think>hm</think>[1, 2]", "Sure:\n```\n[1, 2]\n```", ' {"value": [1, 2]}']
)
def test_a_model_may_forget_the_object_around_the_value(answer: str) -> None:
    assert asked(answer, list[int], mode="prompt") == [1, 2]


def test_the_items_of_a_list_without_its_object_are_not_taken_for_the_answer() -> None:
    class Pair(TypedDict):
        value: int

    answer = 'See [the] list: [{"value": 1}, {"value": 2}]'
    assert asked(answer, list[Pair], mode="prompt") == [{"value": 1}, {"value": 2}]


def test_half_of_a_surrogate_pair_in_arguments_is_replaced() -> None:
    assert asked(turn(call_of("City", {"name": "\ud83d!"})), mode="tool") == City("\ufffd!")


def test_a_key_that_occurs_twice_has_its_last_value() -> None:
    assert asked('{"name": "Rome", "name": "Oslo"}') == City("Oslo")


def test_half_of_a_surrogate_pair_becomes_a_replacement_character() -> None:
    assert asked('{"name": "\\ud83d!"}') == City("\ufffd!")


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_validate_is_an_error_with_the_problems() -> None:
    error = fault('{"founded": "today", "size": 1}')
    assert error.text == '{"founded": "today", "size": 1}'
    assert error.errors[0] == "name: is missing"
    assert error.errors[1].startswith("founded")
    assert error.reason is FinishReason.END_TURN
    assert error.partial is not None
    assert error.partial.text == error.text
    assert (error.provider, error.model) == ("scripted", "scripted-1")
    assert "City" in str(error)


def test_a_json_schema_is_checked_too() -> None:
    error = fault('{"name": 1}', CITY_SCHEMA)
    assert len(error.errors) == 2
    assert any(one.startswith("name: ") for one in error.errors)


@pytest.mark.parametrize("reference", ["https://example.org/city.json", "#/$defs/missing", "#/$defs/a"])
def test_a_reference_that_leads_nowhere_is_told(reference: str) -> None:
    definitions = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}
    schema = {"type": "object", "properties": {"name": {"$ref": reference}}, "$defs": definitions}
    assert "the schema refers to" in fault(OSLO_JSON, JsonSchema("city", schema)).errors[0]


def test_the_turn_is_known_after_an_error_and_the_value_is_not() -> None:
    stream = structured(ScriptedModel("no"), HI, City)
    with pytest.raises(OutputError):
        list(stream)
    assert stream.turn.text == "no"
    with pytest.raises(RuntimeError, match="value"):
        stream.value  # noqa: B018
    assert list(stream) == []


BAD = {
    "cut": (pieces('{"name": "Os', reason=FinishReason.MAX_TOKENS), "max_tokens"),
    "refused": (pieces("I will not.", reason=FinishReason.REFUSAL), "refused"),
    "filtered": (pieces('{"name": "', reason=FinishReason.CONTENT_FILTER), "content filter"),
    "empty": (pieces(), "empty"),
    "blank": (pieces(" \n"), "empty"),
    "prose": (pieces("I do not know."), "not JSON"),
    "cut without a reason": (pieces('{"name": "Os'), "too early"),
    "broken": (pieces('{"name": "Oslo" "a"}'), "comma"),
    "another tool": (turn(called("look", x=1)), "called look"),
    "too deep": (pieces('{"name": ' + "[" * 200 + "]" * 200 + "}"), "nested deeper"),
    "huge number": (pieces('{"name": ' + "1" * 5000 + "}"), "too many digits"),
    "infinite": (pieces('{"name": 1e999}'), "too large"),
    "NaN": (pieces('{"name": NaN}'), "NaN"),
}


@pytest.mark.parametrize(("script", "words"), BAD.values(), ids=BAD)
def test_an_answer_that_is_none_is_an_error(script: list[Step], words: str) -> None:
    assert words in " ".join(fault(script).errors)


def test_in_tool_mode_the_text_of_an_error_is_the_raw_arguments() -> None:
    assert fault(turn(malformed("City", raw='{"name": "Os')), mode="tool").text == '{"name": "Os'
    assert json.loads(fault(turn(called("City", size=1)), mode="tool").text) == {"size": 1}
    assert "did not call the tool" in fault("Oslo", mode="tool").errors[0]


def test_an_output_error_pickles() -> None:
    error = pickle.loads(pickle.dumps(fault("no")))
    assert (error.text, error.errors, error.reason) == ("no", fault("no").errors, FinishReason.END_TURN)


def test_an_error_of_the_stream_is_raised_as_it_is() -> None:
    stream = structured(ScriptedModel([TextDelta('{"name": "O'), ServerError("down", status=500)]), HI, City)
    assert next(stream) == {"name": "O"}
    with pytest.raises(ServerError) as caught:
        next(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == '{"name": "O'


# --- repairs ---------------------------------------------------------------------------------------------------------


def test_a_repair_shows_the_model_what_is_wrong() -> None:
    model = ScriptedModel('{"size": 1}', OSLO_JSON)
    stream = structured(model, HI, City, repairs=1)
    assert stream.collect() == OSLO
    assert stream.turn.text == OSLO_JSON
    question, answer, correction = model.requests[1].messages
    assert (question.text, answer.text) == (HI, '{"size": 1}')
    assert "name: is missing" in correction.text
    assert model.requests[1].response_format == model.requests[0].response_format


def test_repairs_are_counted() -> None:
    model = ScriptedModel("a", "b", "c")
    error = failure_of(structured(model, HI, City, repairs=2).collect)
    assert isinstance(error, OutputError)
    assert (error.text, model.remaining) == ("c", 0)


def test_in_tool_mode_a_repair_is_the_result_of_the_call() -> None:
    model = ScriptedModel(turn(called("City", size=1)), turn(OSLO_CALL))
    assert structured(model, HI, City, "tool", repairs=1).collect() == City("Oslo")
    (result,) = model.requests[1].messages[-1].blocks
    assert isinstance(result, ToolResultBlock)
    assert result.is_error


def test_a_malformed_call_can_be_repaired() -> None:
    model = ScriptedModel(turn(malformed("City")), turn(OSLO_CALL))
    assert structured(model, HI, City, "tool", repairs=1).collect() == City("Oslo")


@pytest.mark.parametrize("reason", [FinishReason.REFUSAL, FinishReason.CONTENT_FILTER])
def test_a_refusal_is_not_repaired(reason: FinishReason) -> None:
    model = ScriptedModel(pieces("No.", reason=reason), OSLO_JSON)
    with pytest.raises(OutputError):
        structured(model, HI, City, repairs=3).collect()
    assert model.remaining == 1


# --- the connection --------------------------------------------------------------------------------------------------


def test_closing_early_hangs_up(server: ProviderServer) -> None:
    server.reply(Reply(text('{"name": "O'), Stall()))
    with structured(model_of(server), HI, City) as stream:
        assert stream.response.status == 200
        assert next(stream) == {"name": "O"}
    assert server.wait_hung_up()


def test_dropping_the_stream_hangs_up(server: ProviderServer) -> None:
    server.reply(Reply(text('{"name": "O'), Stall()))
    stream = structured(model_of(server), HI, City)
    next(stream)
    gone = weakref.ref(stream)
    gc.disable()
    try:
        del stream
        assert gone() is None
        assert server.wait_hung_up()
    finally:
        gc.enable()


def test_cancel_ends_a_blocked_next(server: ProviderServer) -> None:
    server.reply(Reply(text('{"name": "O'), Stall()))
    stream = structured(model_of(server), HI, City)
    next(stream)
    threading.Timer(0.1, stream.cancel).start()
    with pytest.raises(StreamCancelledError):
        next(stream)
    assert server.wait_hung_up()


def test_a_token_cancels_the_stream(server: ProviderServer) -> None:
    server.reply(Reply(text('{"name": "O'), Stall()))
    with CancelToken() as token:
        stream = structured(model_of(server), HI, City)
    next(stream)
    token.cancel()
    with pytest.raises(StreamCancelledError):
        next(stream)


# --- wires -----------------------------------------------------------------------------------------------------------


def test_openai_gets_a_strict_schema(server: ProviderServer) -> None:
    server.reply(Reply(body(delta(content='{"value": [1'), delta(content=", 2]}"), delta("stop"))))
    assert structured(model_of(server), HI, list[int]).collect() == [1, 2]
    sent = server.requests[0].json()["response_format"]["json_schema"]
    assert sent["strict"] is True
    assert sent["schema"]["type"] == "object"


def test_openai_answers_with_a_call_in_tool_mode(server: ProviderServer) -> None:
    answer = body(calls(piece(0, "", id="c1", name="City")), calls(piece(0, OSLO_JSON)), delta("tool_calls"))
    server.reply(Reply(answer))
    assert structured(model_of(server), HI, City, "tool").collect() == OSLO
    assert server.requests[0].json()["tool_choice"]["function"]["name"] == "City"


@pytest.mark.parametrize("mode", ["auto", "tool", "prompt"])
def test_anthropic_answers_in_each_mode(server: ProviderServer, mode: Any) -> None:
    model = AnthropicModel("claude-sonnet-4-5", api_key="k", base_url=server.url)
    block = call_block(0, OSLO_JSON, name="City") if mode == "tool" else text_block(0, OSLO_JSON[:9], OSLO_JSON[9:])
    reason = "tool_use" if mode == "tool" else "end_turn"
    server.reply(Reply(anthropic_stream(*block, message_delta(reason), MESSAGE_STOP)))
    assert structured(model, HI, City, mode).collect() == OSLO
    sent = server.requests[0].json()
    place = {"auto": "output_config", "tool": "tool_choice", "prompt": "system"}[mode]
    assert sent[place]


def test_a_wire_that_cannot_limit_the_calls_to_one_has_tool_mode_too(server: ProviderServer) -> None:
    call = {"functionCall": {"name": "City", "args": json.loads(OSLO_JSON)}}
    server.reply(Reply(event({"candidates": [{"content": {"parts": [call, call]}, "finishReason": "STOP"}]})))
    model = GeminiModel("gemini-3.5-flash", api_key="k", base_url=server.url)
    assert structured(model, HI, City, mode="tool").collect() == OSLO
    config = server.requests[0].json()["toolConfig"]["functionCallingConfig"]
    assert config == {"mode": "ANY", "allowedFunctionNames": ["City"]}


def test_the_user_may_still_ask_for_one_call_at_most(server: ProviderServer) -> None:
    model = GeminiModel("gemini-3.5-flash", api_key="k", base_url=server.url)
    with pytest.raises(UnsupportedContentError, match="parallel_tool_use"):
        structured(model, ChatRequest(HI, parallel_tool_use=False), City, mode="tool")
    assert not server.requests


def test_an_open_schema_falls_back_at_anthropic(server: ProviderServer) -> None:
    model = AnthropicModel("claude-sonnet-4-5", api_key="k", base_url=server.url)
    schema = JsonSchema("counts", {"type": "object", "additionalProperties": {"type": "integer"}})
    block = call_block(0, '{"a": 1}', name="counts")
    server.reply(Reply(anthropic_stream(*block, message_delta("tool_use"), MESSAGE_STOP)))
    assert structured(model, HI, schema).collect() == {"a": 1}


@pytest.mark.parametrize("mode", ["schema", "tool"])
def test_the_embedded_model_keeps_to_the_schema(mode: Any) -> None:
    pytest.importorskip("xllamacpp")
    request = ChatRequest("Which color has the sky?", 60, temperature=0.0, seed=1)
    stream = structured(LocalModel(), request, Literal["red", "blue"], mode)
    values = list(stream)
    assert stream.value in ("red", "blue")
    assert values[-1] == stream.value


def test_the_embedded_model_ends_a_run_with_an_output() -> None:
    pytest.importorskip("xllamacpp")
    request = ChatRequest("Which color has the sky?", 60, temperature=0.0, seed=1)
    assert run_chat(LocalModel(), request, output=Literal["red", "blue"]).collect().output in ("red", "blue")


# --- Turn.parse ------------------------------------------------------------------------------------------------------


def test_a_turn_is_parsed() -> None:
    assert ScriptedModel(OSLO_JSON).chat_stream(HI).collect().parse(City) == OSLO
    assert ScriptedModel("Seven: [7]").chat_stream(HI).collect().text == "Seven: [7]"
    assert ScriptedModel("[7]").chat_stream(HI).collect().parse(list[int]) == [7]
    assert ScriptedModel(turn(OSLO_CALL)).chat_stream(HI).collect().parse(City) == City("Oslo")
    with pytest.raises(OutputError, match="name: is missing"):
        ScriptedModel("{}").chat_stream(HI).collect().parse(City)


# --- runs ------------------------------------------------------------------------------------------------------------


@tool
def look(x: int) -> str:
    """Look."""
    return "seen"


def test_the_last_answer_of_a_run_has_the_type() -> None:
    model = ScriptedModel(turn(called("look", x=1)), OSLO_JSON)
    run = run_chat(model, HI, [look], output=City)
    result = run.collect()
    assert result.output == OSLO
    assert all(request.response_format is not None for request in model.requests)
    assert RunResult.from_json(result.to_json()).output == json.loads(OSLO_JSON)


def test_the_last_chunk_of_a_run_has_the_data() -> None:
    *_, end = run_chat(ScriptedModel(OSLO_JSON), HI, output=City)
    assert isinstance(end, RunFinished)
    assert end.output == json.loads(OSLO_JSON)
    assert RunFinished.from_json(end.to_json()) == end


def test_a_run_asks_again_until_the_answer_fits() -> None:
    model = ScriptedModel("Oslo!", '{"size": 1}', OSLO_JSON)
    result = run_chat(model, HI, output=City).collect()
    assert result.output == OSLO
    assert "name: is missing" in model.requests[-1].messages[-1].text
    assert len(result.new_messages) == 5


def test_a_run_whose_limit_is_reached_first_has_no_output() -> None:
    result = run_chat(ScriptedModel("a", "b"), HI, output=City, config=RunConfig(max_iterations=2)).collect()
    assert result.output is None
    assert result.abort is not None
    assert result.abort.kind == "max_iterations"


def test_a_refusal_in_a_run_is_an_error() -> None:
    run = run_chat(ScriptedModel(pieces("No.", reason=FinishReason.REFUSAL)), HI, output=City)
    assert isinstance(failure_of(run.collect), OutputError)


def test_a_run_without_formats_puts_the_schema_into_the_prompt() -> None:
    model = NoFormats(OSLO_JSON)
    assert run_chat(model, HI, output=City).collect().output == OSLO
    assert "JSON Schema" in str(model.requests[0].system_prompt)


def test_a_run_asks_a_generator_function_that_refuses_a_format_late_in_the_prompt() -> None:
    class Late:
        name, model = "late", "late-1"

        def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
            if req.response_format:
                raise UnsupportedContentError("no")
            yield TextDelta(OSLO_JSON)
            yield TurnFinished(FinishReason.END_TURN)

    assert run_chat(Late(), HI, output=City).collect().output == OSLO


def test_an_answer_that_the_provider_paused_and_continued_is_one_answer() -> None:
    output = Output(City)
    for reason, part in ((FinishReason.PAUSE, OSLO_JSON[:12]), (FinishReason.END_TURN, OSLO_JSON[12:])):
        assert output.on_turn_finished(None, Turn(Message.assistant(part), reason)) is None
    assert output.value == OSLO


def test_a_run_that_leaves_a_call_to_the_caller_has_no_output() -> None:
    own = ToolDefinition("open", "Open a page.", {"type": "object"})
    result = run_chat(ScriptedModel(turn(called("open"))), ChatRequest(HI, tools=[own]), output=City).collect()
    assert (result.output, result.abort, result.reason) == (None, None, FinishReason.TOOL_USE)


# --- asyncio, web, notebook ------------------------------------------------------------------------------------------


def test_with_asyncio_collect_returns_the_value_and_the_loop_yields_growing_ones() -> None:
    async def main() -> tuple[Any, list[Any]]:
        model = ScriptedModel(OSLO_JSON, OSLO_JSON)
        source = partial(structured, model, HI, City)
        value = await AsyncModel(model).stream(source).collect()
        async with AsyncModel(model).stream(source) as stream:
            return value, [one async for one in stream]

    value, values = asyncio.run(main())
    assert value == OSLO
    assert values[-1] == json.loads(OSLO_JSON)


def test_with_asyncio_an_answer_that_does_not_fit_is_raised() -> None:
    async def main() -> None:
        model = ScriptedModel("no")
        await AsyncModel(model).stream(partial(structured, model, HI, City)).collect()

    with pytest.raises(OutputError):
        asyncio.run(main())


def lines_of(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("is_asgi", [False, True], ids=["wsgi", "asgi"])
@pytest.mark.parametrize(
    ("kind", "answer", "last"),
    [
        (City, OSLO_JSON, json.loads(OSLO_JSON)),
        (City | None, '{"value": null}', None),
        (City, "no", {"type": "error", "error": {"type": "OutputError"}}),
    ],
    ids=["object", "null", "error"],
)
def test_ndjson_sends_growing_values(is_asgi: bool, kind: Any, answer: str, last: Any) -> None:
    async def read(source: Any) -> bytes:
        return b"".join([piece async for piece in web.ndjson(await AsyncModel(model).stream(source))])

    model = ScriptedModel(answer)
    source = partial(structured, model, HI, kind)
    lines = lines_of(asyncio.run(read(source)) if is_asgi else b"".join(web.ndjson(source)))
    if isinstance(last, dict) and "error" in last:
        assert lines[-1]["error"]["type"] == "OutputError"
        assert lines[-1]["error"]["message"] == "The answer does not have the expected form."
    else:
        assert lines[-1] == last


def test_the_output_of_a_run_stays_on_the_server() -> None:
    *_, end = lines_of(b"".join(web.ndjson(run_chat(ScriptedModel(OSLO_JSON), HI, output=City))))
    assert end["type"] == "run_finished"
    assert "output" not in end


def test_growing_values_cannot_be_sent_as_text() -> None:
    with pytest.raises(TypeError, match="growing values"):
        b"".join(web.text(structured(ScriptedModel(OSLO_JSON), HI, City)))


def test_show_prints_the_value_in_a_terminal_and_returns_it(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("IPython")
    script: list[Step] = [
        TextDelta(OSLO_JSON[:12]),
        Pause(0.15),
        TextDelta(OSLO_JSON[12:]),
        TurnFinished(FinishReason.END_TURN),
    ]
    assert show(structured(ScriptedModel(script), HI, City)) == OSLO
    assert json.loads(capsys.readouterr().out) == json.loads(OSLO_JSON)


def test_the_names_are_exported() -> None:
    assert completion.structured is structured
    assert completion.StructuredStream is StructuredStream
    assert issubclass(completion.OutputError, completion.CompletionError)


def test_a_finished_call_is_not_mistaken_for_the_answer_of_another_tool() -> None:
    script = [*call_of("look", {"name": "Rome"}, "c0"), *OSLO_CALL]
    assert asked([*script, TurnFinished(FinishReason.TOOL_USE)], mode="tool") == City("Oslo")
    assert isinstance(script[1], ToolCallFinished)


@pytest.mark.parametrize("pieces", [['{"n": [1]}'], ['Here: {"n": ', "[1]}"], [*'{"n": [1]}']])
def test_a_caller_that_changes_the_shown_values_does_not_change_the_result(pieces: list[str]) -> None:
    model = ScriptedModel([*map(TextDelta, pieces), TurnFinished(FinishReason.END_TURN)])
    stream = structured(model, "x", JsonSchema("numbers", {"type": "object"}), mode="prompt")
    for shown in stream:
        shown.setdefault("n", []).append(7)
    assert stream.value == {"n": [1]}
