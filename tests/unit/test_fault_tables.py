# ruff: noqa: E501 - the tables read better with a case on a line, in the vendors' own words
"""What every dialect makes of its vendors' failures: the fault that routing goes by, and the pause asked for.

Bodies are what vendors document, or what people have posted. A row's answer is a whole one with a status,
or a stream's bytes; with status 200 the error is inside.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

import pytest

from fakes.eventstream import event_stream
from headgate.errors import ContextTooLong, GatewayError, ModelNotFound
from headgate.v1 import chat_pb2, content_pb2
from headgate_server.faults import Fault, fault_of
from headgate_server.providers import DIALECTS, dialect_of, vendor_of
from headgate_server.providers.base import Target
from headgate_server.providers.vendors import family_of

REQUEST = chat_pb2.ChatRequest(
    model="m",
    messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="Hi")])],
)
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"
CALLER, POLICY, CREDENTIAL, QUOTA = Fault.CALLER, Fault.POLICY, Fault.CREDENTIAL, Fault.QUOTA
RATE, OVERLOAD, PROVIDER = Fault.RATE_LIMIT, Fault.OVERLOAD, Fault.PROVIDER
TIMEOUT = Fault.TIMEOUT
# A caller's fault that has a chain of fallbacks of its own.
CONTEXT = "CONTEXT"


class Row(NamedTuple):
    kind: str
    status: int  # 0: a stream's bytes
    body: Any
    fault: Fault | str
    retry_after: float | None = None
    headers: dict[str, str] | None = None


def in_stream(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


# Anthropic.


def claude(type: str, message: str, **details: Any) -> dict[str, Any]:
    error = {"type": type, "message": message, **({"details": details} if details else {})}
    return {"type": "error", "error": error, "request_id": "req_1"}


A = "anthropic"
ANTHROPIC = [
    Row(A, 400, claude("invalid_request_error", "max_tokens: must be greater than 0"), CALLER),
    Row(A, 400, claude("invalid_request_error", "prompt is too long: 213462 tokens > 200000 maximum"), CONTEXT),
    Row(A, 400, claude("invalid_request_error", "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000"), CONTEXT),
    Row(A, 400, claude("invalid_request_error", "Request size exceeds model context window"), CONTEXT),
    Row(A, 413, claude("request_too_large", "Request exceeds the maximum size"), CALLER),
    Row(A, 400, claude("invalid_request_error", "Output blocked by content filtering policy"), POLICY),
    Row(A, 400, claude("invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."), QUOTA),
    Row(A, 400, claude("invalid_request_error", "You have reached your specified workspace API usage limits."), QUOTA),
    Row(A, 400, claude("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), QUOTA),
    Row(A, 402, claude("billing_error", "There is an issue with your billing."), QUOTA),
    Row(A, 429, claude("rate_limit_error", "Limit", error_code="enforced_spend_limit_reached"), QUOTA),
    Row(A, 429, claude("rate_limit_error", "Extra usage is required for long context requests."), QUOTA),
    Row(A, 429, claude("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."), RATE, 17.0, {"retry-after": "17"}),
    Row(A, 429, claude("rate_limit_error", "Number of request tokens has exceeded your per-minute rate limit"), RATE),
    Row(A, 401, claude("authentication_error", "invalid x-api-key"), CREDENTIAL),
    Row(A, 403, claude("permission_error", "Your API key does not have permission to use the specified resource."), CREDENTIAL),
    Row(A, 400, claude("invalid_request_error", "This organization has been disabled."), CREDENTIAL),
    Row(A, 404, claude("not_found_error", "model: claude-none"), CALLER),
    Row(A, 500, claude("api_error", "Internal server error"), PROVIDER),
    Row(A, 504, claude("timeout_error", "Request timed out"), TIMEOUT),
    Row(A, 529, claude("overloaded_error", "Overloaded"), OVERLOAD),
    Row(A, 529, b"", OVERLOAD),
    Row(A, 502, HTML, PROVIDER),
    Row(A, 200, HTML, PROVIDER),
    Row(A, 200, claude("overloaded_error", "Overloaded"), OVERLOAD),
    Row(A, 0, in_stream(claude("overloaded_error", "Overloaded")), OVERLOAD),
    Row(A, 0, in_stream(claude("rate_limit_error", "Too fast")), RATE),
    Row(A, 0, in_stream(claude("invalid_request_error", "prompt is too long: 3 tokens > 2 maximum")), CONTEXT),
    Row(A, 0, in_stream(claude("billing_error", "No more")), QUOTA),
    Row(A, 0, HTML, PROVIDER),
]  # fmt: skip

# Google.


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    error = {"code": code, "status": status, "message": message}
    return {"error": {**error, "details": list(details)} if details else error}


def rpc(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def violation(name: str, **fields: Any) -> dict[str, Any]:
    return rpc("QuotaFailure", violations=[{"quotaId": name, **fields}])


EXCEEDED = "You exceeded your current quota, please check your plan and billing details."
G = "gemini"
GEMINI = [
    Row(G, 400, google(400, "INVALID_ARGUMENT", "Invalid value at 'contents'"), CALLER),
    Row(G, 400, google(400, "INVALID_ARGUMENT", "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."), CONTEXT),
    Row(G, 400, google(400, "INVALID_ARGUMENT", "The input token count exceeds the maximum number of tokens allowed 1048576."), CONTEXT),
    Row(G, 400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", rpc("ErrorInfo", reason="API_KEY_INVALID")), CREDENTIAL),
    Row(G, 400, google(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."), CREDENTIAL),
    Row(G, 400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), CREDENTIAL),
    Row(G, 401, google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."), CREDENTIAL),
    Row(G, 403, google(403, "PERMISSION_DENIED", "Generative Language API has not been used in project 1 before"), CREDENTIAL),
    Row(G, 403, google(403, "PERMISSION_DENIED", "You do not have permission to access the File abc or it may not exist."), CALLER),
    Row(G, 404, google(404, "NOT_FOUND", "models/gemini-0 is not found for API version v1beta"), CALLER),
    Row(G, 429, google(429, "RESOURCE_EXHAUSTED", EXCEEDED, violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), rpc("RetryInfo", retryDelay="35.5s")), RATE, 35.5),
    Row(G, 429, google(429, "RESOURCE_EXHAUSTED", EXCEEDED + "\nPlease retry in 35.98s."), RATE, 35.98),
    Row(G, 429, google(429, "RESOURCE_EXHAUSTED", EXCEEDED, violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), rpc("RetryInfo", retryDelay="35s")), QUOTA),
    Row(G, 429, google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."), RATE),
    Row(G, 429, google(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), QUOTA),
    Row(G, 500, google(500, "INTERNAL", "An internal error has occurred."), PROVIDER),
    Row(G, 503, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), OVERLOAD),
    Row(G, 504, google(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."), TIMEOUT),
    Row(G, 499, google(499, "CANCELLED", "The operation was cancelled."), PROVIDER),
    Row(G, 200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, POLICY),
    Row(G, 200, HTML, PROVIDER),
    Row(G, 200, google(503, "UNAVAILABLE", "Overloaded"), OVERLOAD),
    Row(G, 0, in_stream({"promptFeedback": {"blockReason": "SAFETY"}}), POLICY),
    Row(G, 0, in_stream(google(429, "RESOURCE_EXHAUSTED", "Slow", rpc("RetryInfo", retryDelay="3s"))), RATE, 3.0),
    Row(G, 0, in_stream(google(503, "UNAVAILABLE", "The model is overloaded.")), OVERLOAD),
    Row(G, 0, in_stream(google(0, "INVALID_ARGUMENT", "The input token count (3) exceeds the maximum number of tokens allowed (2).")), CONTEXT),
    Row(G, 0, HTML, PROVIDER),
]  # fmt: skip

V = "vertex"
VERTEX = [
    Row(V, 400, google(400, "INVALID_ARGUMENT", "Unable to submit request because it must have a text parameter."), CALLER),
    Row(V, 400, google(400, "INVALID_ARGUMENT", "Unable to submit request because the input token count is 40000 but model only supports up to 32768."), CONTEXT),
    Row(V, 400, google(400, "INVALID_ARGUMENT", "The prompt could not be submitted. It contains sensitive words that violate Google's Responsible AI practices."), POLICY),
    Row(V, 400, google(400, "FAILED_PRECONDITION", "The billing account for the owning project is disabled. Enable billing."), CREDENTIAL),
    Row(V, 401, google(401, "UNAUTHENTICATED", "Expired", rpc("ErrorInfo", reason="ACCESS_TOKEN_EXPIRED")), CREDENTIAL),
    Row(V, 403, google(403, "PERMISSION_DENIED", "Permission 'aiplatform.endpoints.predict' denied on resource"), CREDENTIAL),
    Row(V, 404, google(404, "NOT_FOUND", "Publisher Model `projects/p/x` was not found or your project does not have access to it."), CALLER),
    Row(V, 404, HTML, PROVIDER),
    Row(V, 429, google(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later."), RATE),
    Row(V, 429, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model"), RATE),
    Row(V, 429, google(429, "RESOURCE_EXHAUSTED", "Limit", violation("x", quotaValue="0")), QUOTA),
    Row(V, 429, google(429, "RESOURCE_EXHAUSTED", "Slow"), RATE, 9.0, {"retry-after": "9"}),
    Row(V, 500, google(500, "INTERNAL", "Internal error encountered."), PROVIDER),
    Row(V, 503, google(503, "UNAVAILABLE", "The service is currently unavailable."), OVERLOAD),
    Row(V, 200, HTML, PROVIDER),
    Row(V, 0, in_stream(google(500, "INTERNAL", "Internal error encountered.")), PROVIDER),
]  # fmt: skip

# OpenAI's dialect: OpenAI, then its vendors.


def oai(message: str, code: Any = None, type: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


O = "openai"  # noqa: E741
OPENAI = [
    Row(O, 400, oai("Invalid value for 'temperature'", "invalid_value", "invalid_request_error"), CALLER),
    Row(O, 400, oai("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", "context_length_exceeded"), CONTEXT),
    Row(O, 400, oai("Your input exceeds the context window of this model."), CONTEXT),
    Row(O, 400, oai("max_tokens is too large: 100000. This model supports at most 16384 completion tokens"), CALLER),
    Row(O, 400, oai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_prompt"), POLICY),
    Row(O, 401, oai("Incorrect API key provided: sk-1.", "invalid_api_key"), CREDENTIAL),
    Row(O, 403, oai("Country, region, or territory not supported", "unsupported_country_region_territory"), CREDENTIAL),
    Row(O, 404, oai("The model `x` does not exist", "model_not_found"), CALLER),
    Row(O, 429, oai("Rate limit reached for gpt-5 on tokens per min (TPM): Limit 30000. Please try again in 6m0s.", "rate_limit_exceeded", "tokens"), RATE, 360.0),
    Row(O, 429, oai("Rate limit reached. Please try again in 382ms.", "rate_limit_exceeded", "requests"), RATE, 0.5, {"retry-after-ms": "500", "retry-after": "1"}),
    Row(O, 429, oai(EXCEEDED, "insufficient_quota", "insufficient_quota"), QUOTA),
    Row(O, 400, oai("Billing hard limit has been reached", "billing_hard_limit_reached"), QUOTA),
    Row(O, 500, oai("The server had an error", None, "server_error"), PROVIDER),
    Row(O, 503, oai("The engine is currently overloaded, please try again later"), OVERLOAD),
    Row(O, 408, oai("Request timed out"), TIMEOUT),
    Row(O, 200, HTML, PROVIDER),
    Row(O, 200, oai("boom", 500), PROVIDER),
    Row(O, 0, in_stream(oai("Rate limit reached. Please try again in 1.5s.", "rate_limit_exceeded")), RATE, 1.5),
    Row(O, 0, in_stream(oai("The server had an error", None, "server_error")), PROVIDER),
    Row(O, 0, in_stream(oai("too long", "context_length_exceeded", "invalid_request_error")), CONTEXT),
    Row(O, 0, HTML, PROVIDER),
]  # fmt: skip

VENDORS = [
    Row("azure", 400, oai("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), POLICY),
    Row("azure", 429, oai("Requests have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 26 seconds.", "429"), RATE, 26.0),
    Row("azure", 429, oai("No capacity", "NoCapacity"), OVERLOAD),
    Row("azure", 403, {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 02:12:05."}, QUOTA),
    Row("azure", 401, oai("Access denied due to invalid subscription key", "401"), CREDENTIAL),
    Row("azure", 404, oai("The API deployment for this resource does not exist.", "DeploymentNotFound"), CALLER),
    Row("azure", 0, in_stream(oai("Filtered", "content_filter", status=400)), POLICY),
    Row("cerebras", 400, oai("Please reduce the length of the messages or completion. Current length is 8255 while limit is 8192"), CONTEXT),
    Row("cerebras", 429, {"message": "We're experiencing high traffic right now! Please try again soon.", "type": "too_many_requests_error", "code": "queue_exceeded"}, OVERLOAD),
    Row("cerebras", 429, {"message": "Tokens per day limit exceeded - too many tokens processed.", "code": "token_quota_exceeded"}, QUOTA),
    Row("dashscope", 400, oai("Range of input length should be [1, 30720]", "invalid_parameter_error"), CONTEXT),
    Row("dashscope", 400, oai("Input data may contain inappropriate content.", "data_inspection_failed"), POLICY),
    Row("dashscope", 400, oai("Access denied, please make sure your account is in good standing.", "Arrearage"), QUOTA),
    Row("dashscope", 403, oai("The free tier of the model has been exhausted.", "AllocationQuota.FreeTierOnly"), QUOTA),
    Row("dashscope", 429, oai("You have exceeded your current request limit.", "limit_requests"), RATE),
    Row("deepseek", 400, oai("Content Exists Risk", "invalid_request_error"), POLICY),
    Row("deepseek", 402, oai("Insufficient Balance", "invalid_request_error", "unknown_error"), QUOTA),
    Row("deepseek", 400, oai("This model's maximum context length is 65536 tokens. However, you requested 70000 tokens"), CONTEXT),
    Row("deepseek", 503, b"", OVERLOAD),
    Row("groq", 413, oai("Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 6413, please reduce your message size and try again.", "rate_limit_exceeded", "tokens"), RATE),
    Row("groq", 400, oai("Please reduce the length of the messages or completion.", "context_length_exceeded"), CONTEXT),
    Row("groq", 429, oai("Rate limit reached for model `x` on tokens per day (TPD). Please try again in 7m12.5s.", "rate_limit_exceeded", "tokens"), RATE, 432.5),
    Row("groq", 498, oai("Flex tier capacity exceeded", "capacity_exceeded"), OVERLOAD),
    Row("mistral", 400, {"object": "error", "message": "Prompt contains 40002 tokens, too large for model with 32768 maximum context length", "code": "3051"}, CONTEXT),
    Row("mistral", 429, {"object": "error", "message": "Requests rate limit exceeded", "code": "1300"}, RATE),
    Row("mistral", 429, {"object": "error", "message": "Service tier capacity exceeded for this model.", "code": "3505"}, OVERLOAD),
    Row("mistral", 401, {"detail": "Unauthorized"}, CREDENTIAL),
    Row("mistral", 422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, CALLER),
    Row("moonshot", 400, oai("Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)", None, "invalid_request_error"), CONTEXT),
    Row("moonshot", 400, oai("The request was rejected because it was considered high risk", None, "content_filter"), POLICY),
    Row("moonshot", 429, oai("The engine is currently overloaded", None, "engine_overloaded_error"), OVERLOAD),
    Row("moonshot", 429, oai("Your account is suspended, please check your plan", None, "exceeded_current_quota_error"), QUOTA),
    Row("moonshot", 429, oai("Your account reached max request, try again after 1 seconds", None, "rate_limit_reached_error"), RATE, 1.0),
    Row("openrouter", 400, oai("This endpoint's maximum context length is 131072 tokens. However, you requested about 200000 tokens", 400), CONTEXT),
    Row("openrouter", 402, oai("Insufficient credits.", 402), QUOTA),
    Row("openrouter", 403, oai("Your chosen model requires moderation. Your input was flagged for \"violence\".", 403, metadata={"flagged_input": "x"}), POLICY),
    Row("openrouter", 429, oai("Rate limit exceeded: free-models-per-day.", 429), QUOTA),
    Row("openrouter", 200, oai("Provider returned error", 502, metadata={"raw": "upstream died"}), PROVIDER),
    Row("openrouter", 0, in_stream(oai("Provider returned error", 429, metadata={"raw": "slow down"})), RATE),
    Row("perplexity", 401, oai(EXCEEDED, 401, "insufficient_quota"), QUOTA),
    Row("xai", 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai."}, CREDENTIAL),
    Row("xai", 403, {"code": "The caller does not have permission to execute the specified operation", "error": "Content violates usage guidelines. Team: t, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO"}, POLICY),
    Row("xai", 429, {"code": "Some resource has been exhausted", "error": "Your team t has either used all available credits or reached its monthly spending limit."}, QUOTA),
    Row("xai", 403, {"code": "permission-denied", "error": "Access to the chat endpoint is denied."}, CREDENTIAL),
    Row("xai", 400, {"code": "invalid", "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}, CONTEXT),
    Row("zhipu", 429, {"error": {"code": "1113", "message": "您的账户已欠费,请充值后重试"}}, QUOTA),
    Row("zhipu", 400, {"error": {"code": "1261", "message": "Prompt 超长"}}, CONTEXT),
    Row("zhipu", 400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}, POLICY),
    Row("zhipu", 429, {"error": {"code": "1302", "message": "您的账户已达到速率限制"}}, RATE),
    Row("zhipu", 429, {"error": {"code": "1305", "message": "该模型当前访问量过大,请您稍后再试"}}, OVERLOAD),
    Row("zhipu", 429, {"error": {"code": "1112", "message": "您的账户已被锁定"}}, CREDENTIAL),
    # Servers of one's own: SGLang, TGI (and Together), vLLM, LM Studio.
    Row(O, 400, {"object": "error", "message": "The input (9000 tokens) is longer than the model's context length (8192 tokens).", "type": "BadRequestError", "code": 400}, CONTEXT),
    Row(O, 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens", "error_type": "validation"}, CONTEXT),
    Row(O, 400, oai("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", 400, "BadRequestError"), CONTEXT),
    Row(O, 404, oai("The model `x` does not exist.", 404, "NotFoundError"), CALLER),
    Row(O, 0, in_stream(oai("This model's maximum context length is 4096 tokens", 400, "BadRequestError")), CONTEXT),
    Row(O, 0, in_stream({"error": {"message": "The number of tokens to keep from the initial prompt is greater than the context length"}}), CONTEXT),
]  # fmt: skip

L = "local"
LOCAL = [
    Row(L, 400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error", "n_ctx": 4096}}, CONTEXT),
    Row(L, 400, {"error": {"code": 400, "message": "'messages' is required", "type": "invalid_request_error"}}, CALLER),
    Row(L, 401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}, CREDENTIAL),
    Row(L, 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}, CALLER),
    Row(L, 500, {"error": {"code": 500, "message": "context shift is disabled", "type": "server_error"}}, PROVIDER),
    Row(L, 500, {"error": {"code": 500, "message": "failed to decode", "type": "server_error"}}, PROVIDER),
    Row(L, 501, {"error": {"code": 501, "message": "no such feature", "type": "not_supported_error"}}, PROVIDER),
    Row(L, 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, OVERLOAD),
    Row(L, 200, HTML, PROVIDER),
    Row(L, 0, in_stream({"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}}), CONTEXT),
    Row(L, 0, in_stream({"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}), PROVIDER),
    Row(L, 0, in_stream({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}), OVERLOAD),
    Row(L, 0, b"", PROVIDER),
]  # fmt: skip


def failed(code: str, message: str) -> dict[str, Any]:
    response = {
        "id": "r",
        "status": "failed",
        "output": [],
        "error": {"code": code, "message": message},
    }
    return {"type": "response.failed", "response": response}  # fmt: skip


R = "openai_responses"
RESPONSES = [
    Row(R, 400, oai("Invalid type for 'input'", "invalid_type", "invalid_request_error", param="input"), CALLER),
    Row(R, 400, oai("Your input exceeds the context window of this model.", "context_length_exceeded"), CONTEXT),
    Row(R, 400, oai("This model's maximum prompt length is 131072 but the request contains 537812 tokens."), CONTEXT),
    Row(R, 400, oai("Invalid prompt", "invalid_prompt"), POLICY),
    Row(R, 403, {"code": "x", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}, POLICY),
    Row(R, 401, oai("Incorrect API key provided", "invalid_api_key"), CREDENTIAL),
    Row(R, 404, oai("The model does not exist", "model_not_found"), CALLER),
    Row(R, 404, HTML, PROVIDER),
    Row(R, 413, oai("Request too large on tokens per min (TPM)", "rate_limit_exceeded", "tokens"), RATE),
    Row(R, 429, oai("Rate limit reached. Please try again in 20s.", "rate_limit_exceeded"), RATE, 20.0),
    Row(R, 429, oai(EXCEEDED, "insufficient_quota"), QUOTA),
    Row(R, 500, oai("The server had an error", None, "server_error"), PROVIDER),
    Row(R, 503, oai("Slow down", "slow_down"), OVERLOAD),
    Row(R, 200, failed("rate_limit_exceeded", "Please try again in 2s.")["response"], RATE, 2.0),
    Row(R, 200, HTML, PROVIDER),
    Row(R, 0, in_stream(failed("server_error", "The server had an error")), PROVIDER),
    Row(R, 0, in_stream(failed("rate_limit_exceeded", "Rate limit reached. Please try again in 6.2s.")), RATE, 6.2),
    Row(R, 0, in_stream({"type": "error", "code": "context_length_exceeded", "message": "Your input exceeds the context window"}), CONTEXT),
    Row(R, 0, in_stream({"type": "error", "error": {"code": "server_is_overloaded", "message": "busy"}}), OVERLOAD),
    Row(R, 0, in_stream(failed("invalid_prompt", "flagged")), POLICY),
]  # fmt: skip


def aws(kind: str) -> dict[str, str]:
    return {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}


def thrown(kind: str, message: str, **more: Any) -> bytes:
    return event_stream(json.dumps({"exception": kind, "payload": {"message": message, **more}}))


INVALID, THROTTLED = aws("ValidationException"), aws("ThrottlingException")
B = "bedrock"
BEDROCK = [
    Row(B, 400, {"message": "The maximum tokens you requested exceeds the model limit of 4096."}, CALLER, None, INVALID),
    Row(B, 400, {"message": "Input is too long for requested model."}, CONTEXT, None, INVALID),
    Row(B, 400, {"message": "Too many input tokens. Max input tokens: 8192, request input token count: 9000"}, CONTEXT, None, INVALID),
    Row(B, 400, {"message": "prompt is too long: 213462 tokens > 200000 maximum"}, CONTEXT, None, INVALID),
    Row(B, 400, {"message": "This model's maximum context length is 8192 tokens. Please reduce the length of the prompt."}, CONTEXT, None, INVALID),
    Row(B, 400, {"message": "Output blocked by content filtering policy"}, POLICY, None, INVALID),
    Row(B, 400, {"message": "The provided model identifier is invalid."}, CALLER, None, INVALID),
    Row(B, 400, {"message": "Operation not allowed"}, CREDENTIAL, None, INVALID),
    Row(B, 403, {"message": "You don't have access to the model with the specified model ID."}, CREDENTIAL, None, aws("AccessDeniedException")),
    Row(B, 403, {"message": "The security token included in the request is expired"}, CREDENTIAL, None, aws("ExpiredTokenException")),
    Row(B, 403, {"Message": "User is not authorized"}, CREDENTIAL),
    Row(B, 429, {"message": "Too many tokens, please wait before trying again."}, RATE, None, THROTTLED),
    Row(B, 429, {"message": "Too many requests, please wait before trying again."}, RATE, 4.0, {**THROTTLED, "retry-after": "4"}),
    Row(B, 429, {"message": "Too many tokens per day, please wait before trying again."}, QUOTA, None, THROTTLED),
    Row(B, 400, {"message": "Your request exceeds the service quota for your account."}, QUOTA, None, aws("ServiceQuotaExceededException")),
    Row(B, 429, {"message": "The model is not ready"}, OVERLOAD, None, aws("ModelNotReadyException")),
    Row(B, 503, {"message": "Bedrock is unable to process your request."}, OVERLOAD, None, aws("ServiceUnavailableException")),
    Row(B, 408, {"message": "The model timed out"}, TIMEOUT, None, aws("ModelTimeoutException")),
    Row(B, 424, {"message": "failed", "originalStatusCode": 500}, PROVIDER, None, aws("ModelErrorException")),
    Row(B, 500, {"message": "Internal"}, PROVIDER, None, aws("InternalServerException")),
    Row(B, 200, HTML, PROVIDER),
    Row(B, 0, thrown("throttlingException", "Too many tokens, please wait before trying again."), RATE),
    Row(B, 0, thrown("validationException", "Input is too long for requested model."), CONTEXT),
    Row(B, 0, thrown("serviceUnavailableException", "Model is getting throttled"), OVERLOAD),
    Row(B, 0, thrown("modelStreamErrorException", "slow", originalStatusCode=429), RATE),
    Row(B, 0, thrown("internalServerException", "oops"), PROVIDER),
    Row(B, 0, HTML, PROVIDER),
]  # fmt: skip

C = "cohere"
COHERE = [
    Row(C, 400, {"message": "invalid request: all elements in history must have a message."}, CALLER),
    Row(C, 400, {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."}, CONTEXT),
    Row(C, 400, {"message": "too many tokens: max tokens must be less than or equal to 4096"}, CALLER),
    Row(C, 422, {"message": "message is too long: exceeds the model's context window"}, CONTEXT),
    Row(C, 400, {"message": "invalid request: blocked output: please adjust your prompt"}, POLICY),
    Row(C, 498, {"message": "a deny-listed token was found"}, POLICY),
    Row(C, 401, {"message": "invalid api token"}, CREDENTIAL),
    Row(C, 403, {"message": "Your API key is not allowed"}, CREDENTIAL),
    Row(C, 402, {"message": "Please add or update your payment method to continue"}, QUOTA),
    Row(C, 404, {"message": "model 'command-x' not found, make sure the correct model ID was used"}, CALLER),
    Row(C, 429, {"message": "You are using a Trial key, which is limited to 10 API calls / minute."}, RATE),
    Row(C, 429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, QUOTA),
    Row(C, 429, {"message": "Please wait and try again later"}, RATE, 12.0, {"retry-after": "12"}),
    Row(C, 499, {"message": "client closed request"}, PROVIDER),
    Row(C, 500, {"message": "internal server error"}, PROVIDER),
    Row(C, 503, {"message": "service unavailable"}, OVERLOAD),
    Row(C, 504, b"", TIMEOUT),
    Row(C, 200, HTML, PROVIDER),
    Row(C, 0, in_stream({"message": "internal server error"}), PROVIDER),
    Row(C, 0, in_stream({"message": "too many tokens: size limit exceeded by 12 tokens."}), CONTEXT),
    Row(C, 0, HTML, PROVIDER),
]  # fmt: skip


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


OL = "ollama"
OLLAMA = [
    Row(OL, 400, {"error": "invalid options: num_ctx"}, CALLER),
    Row(OL, 400, {"error": "prompt too long; exceeded max context length by 5 tokens"}, CONTEXT),
    Row(OL, 500, {"error": "the input length exceeds the context length"}, CONTEXT),
    Row(OL, 400, {"error": '"llama2" does not support tools'}, CALLER),
    Row(OL, 404, {"error": "model 'nope' not found"}, CALLER),
    Row(OL, 401, {"error": "unauthorized"}, CREDENTIAL),
    Row(OL, 403, {"error": "this model requires a subscription, upgrade for access"}, CREDENTIAL),
    Row(OL, 429, {"error": "you have reached your session usage limit, please wait or upgrade to continue"}, QUOTA),
    Row(OL, 429, {"error": "you (x) have reached your weekly usage limit, upgrade for higher limits"}, QUOTA),
    Row(OL, 429, {"error": "too many concurrent requests"}, RATE, 5.0, {"retry-after": "5"}),
    Row(OL, 500, {"error": "llama runner process has terminated: exit status 2"}, PROVIDER),
    Row(OL, 500, {"error": "model requires more system memory (9.0 GiB) than is available (4.0 GiB)"}, PROVIDER),
    Row(OL, 503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, OVERLOAD),
    Row(OL, 502, HTML, PROVIDER),
    Row(OL, 200, HTML, PROVIDER),
    Row(OL, 0, line({"error": "an error was encountered while running the model: unexpected EOF"}), PROVIDER),
    Row(OL, 0, line({"error": "prompt too long; exceeded max context length by 5 tokens"}), CONTEXT),
    Row(OL, 0, HTML, PROVIDER),
]  # fmt: skip

TABLE = [
    *(*ANTHROPIC, *GEMINI, *VERTEX, *OPENAI, *VENDORS, *LOCAL),
    *(*RESPONSES, *BEDROCK, *COHERE, *OLLAMA),
]


def bytes_of(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()


def error_of(row: Row) -> GatewayError:
    vendor = vendor_of(row.kind, None)
    dialect = dialect_of(row.kind, vendor, 1 << 20)
    target = Target(row.kind, row.kind, "m", vendor, family_of("m"))
    if row.status not in (0, 200):
        return dialect.decode_error(row.status, row.headers or {}, bytes_of(row.body))
    with pytest.raises(GatewayError) as caught:
        if row.status:
            dialect.decode(bytes_of(row.body), REQUEST, target)
        else:
            decoder = dialect.stream_decoder(REQUEST, target)
            assert not decoder.feed(row.body), "an error before any content has no events"
            decoder.finish()
    return caught.value


def said(row: Row) -> str:
    where = row.status or "stream"
    return f"{row.kind}-{where}-{bytes_of(row.body)[:90].decode(errors='replace')}"


@pytest.mark.parametrize("row", TABLE, ids=said)
def test_the_fault_and_the_pause(row: Row) -> None:
    error = error_of(row)
    fault = CONTEXT if isinstance(error, ContextTooLong) else fault_of(error)
    assert fault == row.fault, repr(error)
    if fault is not QUOTA:
        assert error.retry_after == pytest.approx(row.retry_after)


def stated(row: Row) -> bool:
    """Whether the row's answer is an error object with status 200."""
    return row.status == 200 and row.body != HTML and "promptFeedback" not in row.body


@pytest.mark.parametrize("row", [row for row in TABLE if stated(row)], ids=said)
def test_the_same_body_where_a_stream_was_due(row: Row) -> None:
    vendor = vendor_of(row.kind, None)
    for body in (row.body, [row.body]) if row.kind == "gemini" else (row.body,):
        found = dialect_of(row.kind, vendor, 1 << 20).error_in_body(bytes_of(body))
        assert found is not None
        assert fault_of(found) is row.fault


@pytest.mark.parametrize("kind", sorted({row.kind for row in TABLE}))
def test_a_page_is_no_error_object(kind: str) -> None:
    """So that `HttpProvider` says what came instead of a stream."""
    assert dialect_of(kind, vendor_of(kind, None), 1 << 20).error_in_body(HTML) is None


@pytest.mark.parametrize("row", [row for row in TABLE if row.status > 200], ids=said)
def test_what_a_status_tells_is_in_the_facts(row: Row) -> None:
    assert error_of(row).metadata["upstream_status"] == str(row.status)


def test_every_dialect_has_its_rows() -> None:
    rows = Counter(
        "local" if row.kind == "local" else vendor_of(row.kind, None).dialect for row in TABLE
    )
    assert rows.keys() == DIALECTS.keys()
    assert min(rows.values()) >= 12
    streamed = {row.kind for row in TABLE if not row.status}
    assert {"anthropic", "bedrock", "cohere", "gemini", "local", "ollama", "openai"} <= streamed


@pytest.mark.parametrize("kind", sorted({row.kind for row in TABLE}))
def test_a_body_that_did_not_come_leaves_it_to_the_status(kind: str) -> None:
    """As where an upstream sends the head of an error, and stalls."""
    for status, fault in (
        (400, PROVIDER), (401, CREDENTIAL), (403, CREDENTIAL), (404, PROVIDER), (408, TIMEOUT),
        (413, CALLER), (429, RATE), (500, PROVIDER), (502, PROVIDER), (503, OVERLOAD),
        (504, TIMEOUT), (529, OVERLOAD),
    ):  # fmt: skip
        for body in (b"", b'{"error": {"mess', HTML):
            assert fault_of(error_of(Row(kind, status, body, fault))) is fault, (status, body)


@pytest.mark.parametrize("kind", sorted({row.kind for row in TABLE}))
def test_a_refused_key_is_never_quoted(kind: str) -> None:
    words = "Incorrect API key provided: sk-secret"
    for body in (oai(words, "invalid_api_key"), {"error": words}, {"message": words}):
        for status in (400, 401, 403):
            error = error_of(Row(kind, status, body, CREDENTIAL))
            assert fault_of(error) is CREDENTIAL or status == 400
            if fault_of(error) is CREDENTIAL:
                assert "sk-secret" not in error.message


def test_a_model_that_nobody_knows_is_the_callers_fault() -> None:
    row = next(row for row in OPENAI if row.status == 404)
    assert isinstance(error_of(row), ModelNotFound)
