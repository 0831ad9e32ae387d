"""Prompts, resources and completions of the reference server: the names and URIs that the suite asks for."""

import base64
import json
import re
import struct
import zlib

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from tests.conformance.questions import answered, ask, form

Context = ServerRequestContext

TEXT_URI = "test://static-text"
BINARY_URI = "test://static-binary"
WATCHED_URI = "test://watched-resource"
TEMPLATE = "test://template/{id}/data"
_FROM_TEMPLATE = re.compile(r"test://template/([^/]+)/data")


def _pixel() -> str:
    """A PNG of one red pixel, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + image).decode()


def _beep() -> str:
    """A WAV of eight silent samples, in base64."""
    samples = b"\x80" * 8
    wave = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    data = b"data" + struct.pack("<I", len(samples)) + samples
    return base64.b64encode(b"RIFF" + struct.pack("<I", 4 + len(wave) + len(data)) + b"WAVE" + wave + data).decode()


IMAGE = types.ImageContent(data=_pixel(), mime_type="image/png")
AUDIO = types.AudioContent(data=_beep(), mime_type="audio/wav")

RESOURCES = [
    types.Resource(name="static-text", uri=TEXT_URI, mime_type="text/plain", description="A text that never changes."),
    types.Resource(name="static-binary", uri=BINARY_URI, mime_type="image/png", description="One red pixel."),
    types.Resource(name="watched", uri=WATCHED_URI, mime_type="text/plain", description="To subscribe to."),
]
TEMPLATES = [
    types.ResourceTemplate(name="data", uri_template=TEMPLATE, mime_type="application/json", description="By id.")
]


def embedded(uri: str, text: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def read(uri: str) -> types.ReadResourceResult:
    """Raises: MCPError, for an unknown URI."""
    if uri == BINARY_URI:
        blob = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=IMAGE.data)
        return types.ReadResourceResult(contents=[blob])
    found = _FROM_TEMPLATE.fullmatch(uri)
    if found is not None:
        text, mime_type = json.dumps({"id": found[1], "from": "template"}), "application/json"
    elif uri in {TEXT_URI, WATCHED_URI}:
        text, mime_type = f"This is the text of {uri}.", "text/plain"
    else:
        raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown resource: {uri}", data={"uri": uri})
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)])


def complete(params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [value for value in ("test", "tests", "testing", "other") if value.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


# --- prompts -------------------------------------------------------------------------------------------------------


def _argument(name: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=f"The value of {name}.", required=True)


SIMPLE, WITH_ARGUMENTS = "test_simple_prompt", "test_prompt_with_arguments"
WITH_RESOURCE, WITH_IMAGE = "test_prompt_with_embedded_resource", "test_prompt_with_image"
ASKING = "test_input_required_result_prompt"

PROMPTS = [
    types.Prompt(name=SIMPLE, description="No arguments."),
    types.Prompt(name=WITH_ARGUMENTS, description="Two arguments.", arguments=[_argument("arg1"), _argument("arg2")]),
    types.Prompt(name=WITH_RESOURCE, description="Embeds a resource.", arguments=[_argument("resourceUri")]),
    types.Prompt(name=WITH_IMAGE, description="Shows an image."),
    types.Prompt(name=ASKING, description="Asks for its context first."),
]
EXTRA_PROMPT = types.Prompt(name="test_extra_prompt", description="Comes and goes.")


def _says(*contents: types.ContentBlock | str) -> types.GetPromptResult:
    blocks = [types.TextContent(text=content) if isinstance(content, str) else content for content in contents]
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=block) for block in blocks])


async def get_prompt(
    ctx: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    """Raises: MCPError, for an unknown prompt."""
    given = params.arguments or {}
    if params.name in {SIMPLE, EXTRA_PROMPT.name}:
        return _says("A prompt without arguments.")
    if params.name == WITH_ARGUMENTS:
        return _says(f"Two arguments: {given.get('arg1')!r} and {given.get('arg2')!r}.")
    if params.name == WITH_RESOURCE:
        return _says(embedded(given.get("resourceUri", TEXT_URI), "The embedded text."), "Look at the text above.")
    if params.name == WITH_IMAGE:
        return _says(IMAGE, "Look at the image above.")
    if params.name == ASKING:
        answers = await ask(ctx, params, {"user_context": form("What is the context?", context="string")})
        return _says(f"In this context: {answered(answers)}") if isinstance(answers, dict) else answers
    raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
