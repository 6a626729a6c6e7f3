"""The Bedrock dialect against AWS's own SDK: its service model, its serialiser, its parsers.

The golden requests must be what boto3 sends for the same call, the golden answers what boto3 reads.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

from fakes.eventstream import event_stream
from fakes.upstream import FakeUpstream, answer
from headgate.v1 import chat_pb2
from headgate_server.providers.base import Endpoint, Target
from headgate_server.providers.bedrock import BedrockDialect
from headgate_server.providers.vendors import family_of, vendors

GOLDEN = Path(__file__).parents[1] / "golden" / "bedrock"
MODEL = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")
# What this case is about is to pass on what AWS does not know.
FOREIGN = {"unsupported_pass"}
REQUESTS = sorted(
    path.parent
    for path in GOLDEN.glob("*/upstream_request.json")
    if path.parent.name not in FOREIGN
)
STREAMS = sorted(path.parent for path in GOLDEN.glob("*/upstream.eventstream.jsonl"))
# Members and blocks that AWS does not know yet.
UNKNOWN_TO_AWS = {"unknown_block", "unknown_block_streamed", "service_tier_and_performance"}
ANSWERS = sorted(
    path.parent
    for path in GOLDEN.glob("*/upstream_response.json")
    if path.parent.name not in UNKNOWN_TO_AWS and (path.parent / "response.json").exists()
)


def name_of(folder: Path) -> str:
    return folder.name


def as_parameters(value: Any, shape: Shape) -> Any:
    """JSON as the values that boto3 takes: bytes where the wire has base64."""
    kind = shape.type_name
    if kind == "blob":
        return base64.b64decode(value, validate=True)
    if kind == "structure" and not shape.metadata.get("document"):
        members = shape.members  # type: ignore[attr-defined]
        return {
            name: as_parameters(inner, members[name]) if name in members else inner
            for name, inner in value.items()
        }
    if kind == "list":
        return [as_parameters(inner, shape.member) for inner in value]  # type: ignore[attr-defined]
    return value


def parameters_of(folder: Path, operation: str = "Converse") -> dict[str, Any]:
    sent = json.loads((folder / "upstream_request.json").read_text())
    shape = MODEL.operation_model(operation).input_shape
    quoted = sent["url"].split("/model/")[1].split("/")[0]
    return {"modelId": unquote(quoted), **as_parameters(sent["body"], shape)}


def client(**options: Any) -> Any:
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
        **options,
    )


@pytest.mark.parametrize("operation", ["Converse", "ConverseStream"])
@pytest.mark.parametrize("folder", REQUESTS, ids=name_of)
def test_requests_are_valid(folder: Path, operation: str) -> None:
    shape = MODEL.operation_model(operation).input_shape
    report = ParamValidator().validate(parameters_of(folder, operation), shape)
    assert not report.has_errors(), report.generate_report()


class _Body:
    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield b"{}"


@pytest.fixture(scope="module")
def silent_client() -> Any:
    """A boto3 client that sends nothing; what it would have sent is in `sent`."""
    made = client()
    made.sent = []

    def keep(request: Any, **_: object) -> AWSResponse:
        made.sent.append(request)
        return AWSResponse(request.url, 200, {}, _Body())

    made.meta.events.register("before-send.bedrock-runtime", keep)
    return made


@pytest.mark.parametrize("folder", REQUESTS, ids=name_of)
def test_boto3_sends_the_same(folder: Path, silent_client: Any) -> None:
    ours = json.loads((folder / "upstream_request.json").read_text())
    silent_client.sent.clear()
    silent_client.converse(**parameters_of(folder))
    (theirs,) = silent_client.sent
    assert theirs.url == ours["url"]
    assert theirs.headers["Content-Type"] == b"application/json"
    assert json.loads(theirs.body) == ours["body"]


def test_boto3_counts_with_the_same_call(silent_client: Any) -> None:
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    to = Target("aws", "bedrock", model, vendors()["bedrock"], family_of(model))
    asked = chat_pb2.ChatRequest(model="m")
    asked.messages.add(role=3).parts.add(text="Hi")
    endpoint = Endpoint("https://bedrock-runtime.us-east-1.amazonaws.com", {})
    ours = BedrockDialect(1 << 20).encode_count(asked, to, endpoint)
    assert ours is not None
    silent_client.sent.clear()
    silent_client.count_tokens(modelId=model, **json.loads(ours.body))
    (theirs,) = silent_client.sent
    assert theirs.url == ours.url
    assert json.loads(theirs.body) == json.loads(ours.body)


def without_padding(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name != "p"}


def as_json(value: Any) -> Any:
    """What boto3 has read, as the JSON that it came from."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: as_json(inner) for name, inner in value.items()}
    return value


@pytest.mark.parametrize("folder", STREAMS, ids=name_of)
async def test_boto3_reads_the_golden_streams(folder: Path) -> None:
    text = (folder / "upstream.eventstream.jsonl").read_text()
    body = event_stream(text)
    form = "application/vnd.amazon.eventstream"

    def read(url: str) -> tuple[list[tuple[str, Any]], str]:
        found, failure = [], ""
        stream = client(endpoint_url=url).converse_stream(
            modelId="m", messages=[{"role": "user", "content": [{"text": "Hi"}]}]
        )["stream"]
        try:
            for event in stream:
                ((kind, payload),) = event.items()
                found.append((kind, as_json(payload)))
        except EventStreamError as error:
            failure = error.response["Error"]["Code"]
        return found, failure

    async with FakeUpstream() as upstream:
        upstream.default(answer(body, content_type=form))
        found, failure = await asyncio.to_thread(read, upstream.origin)

    expected = [line for line in map(json.loads, text.splitlines()) if isinstance(line, list)]
    failed = [line for line in map(json.loads, text.splitlines()) if isinstance(line, dict)]
    assert failure == (failed[0]["exception"] if failed else "")
    if folder.name in UNKNOWN_TO_AWS or folder.name == "error_stream_malformed":
        return
    known = MODEL.shape_for("ConverseStreamOutput").members  # type: ignore[attr-defined]
    assert found == [
        (kind, shaped(without_padding(payload), known[kind])) for kind, payload in expected
    ]


def shaped(value: Any, shape: Shape) -> Any:
    """What boto3 makes of JSON: members that it does not know are gone."""
    if shape.type_name == "structure" and not shape.metadata.get("document"):
        members = shape.members  # type: ignore[attr-defined]
        return {
            name: shaped(inner, members[name]) for name, inner in value.items() if name in members
        }
    if shape.type_name == "list":
        return [shaped(inner, shape.member) for inner in value]  # type: ignore[attr-defined]
    if shape.type_name == "blob":
        return base64.b64encode(base64.b64decode(value)).decode()
    return value


@pytest.mark.parametrize("folder", ANSWERS, ids=name_of)
async def test_boto3_reads_the_golden_answers(folder: Path) -> None:
    body = (folder / "upstream_response.json").read_bytes()

    def read(url: str) -> Any:
        return client(endpoint_url=url).converse(
            modelId="m", messages=[{"role": "user", "content": [{"text": "Hi"}]}]
        )

    async with FakeUpstream() as upstream:
        upstream.default(answer(body))
        found = await asyncio.to_thread(read, upstream.origin)
    del found["ResponseMetadata"]
    expected = shaped(json.loads(body), MODEL.operation_model("Converse").output_shape)
    assert as_json(found) == expected


@pytest.mark.parametrize(
    "folder",
    sorted(
        path.parent
        for path in GOLDEN.glob("error_*/upstream_error.json")
        if "errortype" in path.read_text()
    ),
    ids=name_of,
)
async def test_boto3_reads_the_golden_errors(folder: Path) -> None:
    failed = json.loads((folder / "upstream_error.json").read_text())

    def read(url: str) -> None:
        client(endpoint_url=url).converse(modelId="m", messages=[])

    async with FakeUpstream() as upstream:
        upstream.default(answer(failed["body"], failed["status"], headers=failed["headers"]))
        with pytest.raises(ClientError) as caught:
            await asyncio.to_thread(read, upstream.origin)
    ours = json.loads((folder / "error.json").read_text())
    assert caught.value.response["Error"]["Code"] == ours["metadata"]["upstream_code"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == failed["status"]
