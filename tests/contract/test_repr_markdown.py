"""The Markdown of messages and turns for a notebook."""

from __future__ import annotations

import base64

import pytest

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    Citation,
    DocumentBlock,
    FileSource,
    FinishReason,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolCallMalformed,
    ToolResultBlock,
    Turn,
    UrlSource,
)

CALL = ToolCallBlock("call_1", "weather", {"city": "Zürich"})
CALL_SHOWN = '*Call* `weather` *as* `call_1`\n\n```json\n{\n  "city": "Zürich"\n}\n```'


@pytest.mark.parametrize(
    ("blocks", "shown"),
    [
        ([TextBlock("A **word** and\n\n* a list")], "A **word** and\n\n* a list"),
        ([TextBlock("Hel"), TextBlock("lo")], "Hello"),
        ([], ""),
        ([TextBlock("one"), CALL, TextBlock("two")], f"one\n\n{CALL_SHOWN}\n\ntwo"),
        ([ToolCallBlock("c", "f", {})], "*Call* `f` *as* `c`\n\n```json\n{}\n```"),
        ([ToolCallBlock("c`", "f\ng", {})], "*Call* `f g` *as* `` c` ``\n\n```json\n{}\n```"),
        ([ToolCallBlock("c", "f", {"x": "```"})], '*Call* `f` *as* `c`\n\n````json\n{\n  "x": "```"\n}\n````'),
        ([ToolResultBlock("c", "17 °C\n\nsunny")], "*Result of* `c`\n\n> 17 °C\n>\n> sunny"),
        ([ToolResultBlock("c", "no such city", True)], "*Error of* `c`\n\n> no such city"),
        ([ReasoningBlock("Hm.\n\nYes.", "sig"), TextBlock("Yes.")], "> *Reasoning*\n>\n> Hm.\n>\n> Yes.\n\nYes."),
        ([ReasoningBlock("", "sig"), TextBlock("Yes.")], "Yes."),
        ([RedactedReasoningBlock("Zm9v")], "> *Reasoning, encrypted by the provider*"),
        ([ImageBlock(Base64Source("image/png", b"png"))], "![image](data:image/png;base64,cG5n)"),
        ([ImageBlock(Base64Source("image/svg+xml", b"<svg/>"))], "*Image* `image/svg+xml`, 6 bytes"),
        ([ImageBlock(UrlSource("https://example.com/a.png"))], "*Image* `https://example.com/a.png`"),
        ([ImageBlock(UrlSource("data:," + "x" * 500))], "*Image* `data:," + "x" * 194 + "…`"),
        ([DocumentBlock(FileSource("file-1"), name="a.pdf")], "*Document* `a.pdf`, file `file-1`"),
        ([DocumentBlock(FileSource("file-1"))], "*Document* file `file-1`"),
        ([AudioBlock(Base64Source("audio/wav", b"RIFF"))], "*Audio* `audio/wav`, 4 bytes"),
        ([ProviderBlock("anthropic", {"type": "server_tool_use"})], "*Block of anthropic* `server_tool_use`"),
        ([ProviderBlock("gemini", {"inlineData": {}})], "*Block of gemini* `inlineData`"),
    ],
)
def test_each_block_has_this_markdown(blocks: list[Block], shown: str) -> None:
    assert Message.assistant(blocks)._repr_markdown_() == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>x</script>", "<|script>x<|/script>"),
        ("<img src=x onerror=y>", "<|img src=x onerror=y>"),
        ("<ScRiPt\n>", "<|ScRiPt\n>"),
        ("`</script>` <svg> <!-- x --> <?x?>", "`<|/script>` <|svg> <|!-- x --> <|?x?>"),
        ("```html\n<a onclick='x'>\n```", "```html\n<|a onclick='x'>\n```"),
        ("$$\n```\n$$\n<b onclick=x>", "$$\n```\n$$\n<|b onclick=x>"),
        ("[a](javascript:x) [b](JavaScript:x)", "[a](javascript|:x) [b](JavaScript|:x)"),
        ("[a](java&Tab;script&colon;x) [b](&#106;s:x)", "[a]|(java&Tab;script&colon;x) [b]|(&#106;s:x)"),
        ("[a](javascript\\:x) [b]( <\tx>)", "[a]|(javascript\\:x) [b]|( <\tx>)"),
        ("[a]:\n&#106;s:x", "[a]|:\n&#106;s:x"),
        ("> [a]:\n> &#106;s:x", "> [a]|:\n> &#106;s:x"),
        ("<javascript:x> $\\href{javascript:x}{y}$", "<|javascript|:x> $\\href{javascript|:x}{y}$"),
    ],
)
def test_no_script_runs_in_a_notebook(text: str, shown: str) -> None:
    shown = shown.replace("|", "\u200b")  # the table writes the zero-width space as |
    quotation = shown.replace("\n", "\n> ")
    assert Message.assistant(text)._repr_markdown_() == shown
    assert Message.user([ToolResultBlock("c", text)])._repr_markdown_() == f"*Result of* `c`\n\n> {quotation}"
    malformed = ToolCallMalformed("c", "f", "{", text)
    assert shown in Turn(Message.assistant(text), reason=None, malformed_calls=(malformed,))._repr_markdown_()


@pytest.mark.parametrize(
    "text",
    [
        "#include <stdio.h>, List<String>, 1 < 2, a <- b, x <= y",
        "[a](https://example.com/?a=1&b=2#c) <b> arr[i](x) list[int]: int",
        "script: ./run, TypeScript: a language",
    ],
)
def test_harmless_text_is_not_changed(text: str) -> None:
    assert Message.assistant(text)._repr_markdown_() == text


def test_converting_long_hostile_text_does_not_hang() -> None:
    for unit in ("<", "](", "]:", "]: >", "](a", "[a](", "javascript ", "<a", "&", "\\"):
        Message.assistant(unit * (200_000 // len(unit)))._repr_markdown_()
    Message.assistant("]:" + " " * 200_000)._repr_markdown_()


def test_a_large_image_is_not_shown() -> None:
    block = ImageBlock(Base64Source("image/png", base64.b64encode(bytes(300_000)).decode()))
    assert Message.user([block])._repr_markdown_() == "*Image* `image/png`, 300000 bytes"


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("```py\nx = 1", "```py\nx = 1\n```"),
        ("````\n```\nx", "````\n```\nx\n````"),
        ("~~~\n```", "~~~\n```\n~~~"),
        ("* a list\n\n  ```\n  x", "* a list\n\n  ```\n  x\n  ```"),
        ("```\nx\n```", "```\nx\n```"),
        ("```\nx\n```py\n", "```\nx\n```py\n\n```"),
        ("inside of ``` a line", "inside of ``` a line"),
        ("```not a fence``` x", "```not a fence``` x"),
    ],
)
def test_an_open_code_block_is_closed_before_the_next_part(text: str, closed: str) -> None:
    assert Message.assistant([TextBlock(text), CALL])._repr_markdown_() == f"{closed}\n\n{CALL_SHOWN}"


def test_an_open_code_block_at_the_end_is_not_closed() -> None:
    assert Message.assistant("```py\nx = 1")._repr_markdown_() == "```py\nx = 1"


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert Message.assistant("a\ud83d")._repr_markdown_() == "a?"


def test_arguments_that_are_not_json_are_shown() -> None:
    shown = Message.assistant([ToolCallBlock("c", "f", {"x": {1}})])._repr_markdown_()
    assert '"x": "{1}"' in shown


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        (FinishReason.END_TURN, ""),
        (FinishReason.TOOL_USE, ""),
        (FinishReason.STOP_SEQUENCE, ""),
        (FinishReason.MAX_TOKENS, "\n\n*The answer stopped early:* `max_tokens`"),
        (FinishReason.REFUSAL, "\n\n*The answer stopped early:* `refusal`"),
        (None, "\n\n*The answer broke off here.*"),
    ],
)
def test_the_markdown_of_a_turn_says_when_it_did_not_end_normally(reason: FinishReason | None, end: str) -> None:
    assert Turn(Message.assistant("Yes."), reason=reason)._repr_markdown_() == f"Yes.{end}"


def test_the_note_about_the_end_is_outside_an_open_code_block() -> None:
    turn = Turn(Message.assistant("```py\nx"), reason=FinishReason.MAX_TOKENS)
    assert turn._repr_markdown_() == "```py\nx\n```\n\n*The answer stopped early:* `max_tokens`"


def test_a_turn_shows_its_malformed_calls() -> None:
    malformed = ToolCallMalformed("c", "f", '{"x": ', "not JSON")
    turn = Turn(Message.assistant("Well."), reason=FinishReason.TOOL_USE, malformed_calls=(malformed,))
    assert turn._repr_markdown_() == 'Well.\n\n*Malformed call* `f` *as* `c`: not JSON\n\n```\n{"x": \n```'


def test_a_turn_lists_each_of_its_sources_once() -> None:
    sky, pdf = Citation("https://sky.example/", "Why *blue*?", "Rayleigh …", 0, 3), Citation(title="a.pdf")
    block = ProviderBlock("w", {"type": "citations"}, (sky, pdf, sky, Citation(cited_text="x")))
    turn = Turn(Message.assistant(["Blue.", block]), reason=FinishReason.END_TURN)
    shown = "*Sources*\n\n1. `Why *blue*?` `https://sky.example/`\n2. `a.pdf`"
    assert turn._repr_markdown_().endswith(shown)
    assert "Sources" not in Turn(Message.assistant("Hi"), reason=FinishReason.END_TURN)._repr_markdown_()


def test_the_repr_is_not_markdown() -> None:
    assert repr(Message.user("Hi")) == "Message(role='user', blocks=(TextBlock(text='Hi'),))"
    assert repr(Turn(Message.assistant("Hi"))).startswith("Turn(message=Message(role='assistant', ")
