"""The data files of vendors and model families, typed.

Owns `vendors.toml` and `families.toml`: what their keys mean, their defaults, and the lookup of a
model's family. It reads those two package files and nothing else, and knows nothing of requests:
dialects apply what it says.
"""

import fnmatch
import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Literal, TypeVar

import msgspec

Auth = Literal["bearer", "api-key", "x-api-key", "x-goog-api-key", "aws", "google", "none"]
"""How we authenticate.

- `bearer`: the key as `Authorization: Bearer`.
- `api-key`, `x-api-key`, `x-goog-api-key`: the key in a header of that name.
- `aws`: a signature for each request; or the key, if there is one, as bearer.
- `google`: an access token that is renewed; or the key, if there is one, as `x-goog-api-key`.
- `none`: as bearer if there is a key.
"""

MaxTokensField = Literal["as_sent", "max_tokens", "max_completion_tokens"]
"""The one name of the output limit that is understood, or `as_sent` if both are."""

ReasoningField = Literal["reasoning_content", "reasoning", "think_tags", "none"]
"""Where an assistant message of the history carries its reasoning back, if it may: in a member of that
name, or in front of the text between the family's thinking tags."""

Thinking = Literal["enable_thinking", "think_directive", "thinking_object", "native", "effort"]
"""What the caller's thinking boolean becomes.

- `enable_thinking`: the boolean member of that name.
- `think_directive`: the text " /think" or " /no_think" at the end of the last user message.
- `thinking_object`: `thinking: {"type": "enabled"}` or `"disabled"`.
- `effort`: `reasoning_effort`.
- `native`: nothing; only the caller's own `thinking` object is passed on.

Dialects other than OpenAI's have a place of their own for it, and do not look here.
"""

Prefilled = Literal["never", "if_asked", "always"]
"""Whether the model's chat template opens the thinking itself, so that only the closing tag arrives.

- `always`: the model cannot but think.
- `if_asked`: a switch decides; it is relied on only where the request itself switches thinking on.
"""

ThinkingType = Literal["adaptive", "enabled", "disabled", "between_tools"]
"""A value of Claude's `thinking.type`."""

Modality = Literal["text", "image", "audio", "video", "file"]


class Vendor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API: where it is, how it authenticates, which dialect it speaks and where it departs from it."""

    name: str
    """For people."""
    dialect: str = "openai"
    """The name of its wire format, as in `headgate_server.providers.DIALECTS`."""
    docs: str = ""
    """The page that the facts come from."""
    base_url: str | None = None
    """As for the vendor's own SDK; `{region}` and `{project}` are filled in from the configuration. None
    if only the operator can know it."""
    models_path: str = "/models"
    """Below base_url: the list of models, which is how `doctor` tests a key. Empty if there is none."""
    requires: tuple[str, ...] = ()
    """Settings of the provider that must be given, unless `base_url` is."""
    api_key_env: tuple[str, ...] = ()
    """Variables that usually hold the key, the vendor's own name first; empty if none is needed."""
    auth: Auth = "bearer"
    models: tuple[str, ...] = ()
    """Globs, in lower case, of the bare model names whose natural home this is."""
    max_tokens_field: MaxTokensField = "as_sent"
    developer_role: bool = True
    """False: the role `developer` must be sent as `system`."""
    stream_usage: bool = True
    """False: `stream_options.include_usage` is refused; usage comes unasked or not at all."""
    usage_per_choice: bool = False
    """True: a stream of several choices tells the tokens of each in a usage chunk of its own."""
    thinking: Thinking | None = None
    """The vendor's switch for all its models; None leaves it to the model's family."""
    reasoning_field: ReasoningField = "reasoning_content"
    cache_control: bool = False
    """True: parts and tools may carry Anthropic's `cache_control`; elsewhere it is left out."""
    native_thinking: bool = True
    """False: `thinking` is an unknown member, which the vendor refuses."""
    reasoning_object: bool = False
    """True: effort, budget, switch and display go into one `reasoning` object."""
    reasoning_details: bool = False
    """True: an assistant message carries the proofs of its thinking back in `reasoning_details`."""
    thought_signatures: bool = False
    """True: Gemini's proofs go back as `extra_content.google.thought_signature`."""
    template_kwargs: bool = False
    """True: the server hands `chat_template_kwargs` to the model's template, where the family's
    `template_switch` works."""
    raw_output: bool = False
    """True: text is what the model wrote; nobody has taken thinking out of it, unless into a member
    of its own."""
    assistant_images: bool = False
    """True: an assistant message of the history may carry `images`."""
    completions: bool | str = False
    """Whether there is the legacy text completions API: at `/completions`, or at this path."""
    unsupported: tuple[str, ...] = ()
    """Tuning parameters, by OpenAI name, that the vendor refuses or documents as without effect; those
    of text completions included."""
    query: dict[str, str] = {}
    """Query parameters of every request."""


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models that behave alike wherever they are hosted. Empty and None mean: not known."""

    name: str
    match: tuple[str, ...] = ()
    """Globs, in lower case, on the part of the upstream model name after the last "/"."""
    thinking: Thinking = "native"
    template_switch: str = ""
    """The boolean of the open weights' chat template that switches thinking."""
    think_tags: tuple[str, str] | None = None
    """What the models put around their thinking, where nobody takes it out of the text."""
    think_prefilled: Prefilled = "never"
    efforts: tuple[str, ...] = ()
    """The values of `reasoning_effort` that the models take, weakest first."""
    thinking_types: tuple[ThinkingType, ...] = ()
    """What Claude takes as `thinking.type`."""
    system_turns: bool = False
    """True: Claude takes a system message in the middle of a conversation, too."""
    max_tokens_field: MaxTokensField = "as_sent"
    refuses: tuple[str, ...] = ()
    """Tuning parameters, by OpenAI name, that the models refuse."""
    refuses_while_thinking: tuple[str, ...] = ()
    """Those that they refuse beside any `reasoning_effort` but "none"."""
    input: tuple[Modality, ...] = ()
    output: tuple[Modality, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    tools: bool | None = None
    structured_output: bool | None = None
    """Whether a JSON schema can be enforced, not merely JSON."""
    reasoning: bool | None = None


UNKNOWN_FAMILY = Family(name="")
"""The family of a model that no entry matches."""

VENDORS_FILE = "vendors.toml"
FAMILIES_FILE = "families.toml"

Entry = TypeVar("Entry", Vendor, Family)

# What Bedrock puts in front of a model's name: its maker, and often a geography before that.
_GEOGRAPHY = re.compile(r"^(?:us|us-gov|eu|apac|jp|au|ca|global)\.(?=[a-z])")
_MAKER = re.compile(r"^[a-z][a-z0-9]*\.(?=[a-z])")


@functools.cache
def vendors() -> Mapping[str, Vendor]:
    """Return every vendor of the data file by its provider kind."""
    return parse_vendors(_read(VENDORS_FILE))


@functools.lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """Return the first family that matches an upstream model name, or `UNKNOWN_FAMILY`."""
    name = model.rpartition("/")[2].lower()
    name = _GEOGRAPHY.sub("", name)
    for candidate in (_MAKER.sub("", name), name):
        for family in families():
            if any(fnmatch.fnmatchcase(candidate, glob) for glob in family.match):
                return family
    return UNKNOWN_FAMILY


@functools.cache
def families() -> tuple[Family, ...]:
    """Return every family of the data file in the order of matching."""
    return parse_families(_read(FAMILIES_FILE))


def parse_vendors(text: str, file: str = VENDORS_FILE) -> Mapping[str, Vendor]:
    """Parse a vendors file.

    Raises:
        ValueError: naming the file, the table and the key that is wrong.
    """
    tables = _load(text, file)
    return MappingProxyType(
        {kind: _convert(table, Vendor, f"{file}: [{kind}]") for kind, table in tables.items()}
    )


def parse_families(text: str, file: str = FAMILIES_FILE) -> tuple[Family, ...]:
    """Parse a families file.

    Raises:
        ValueError: naming the file, the table and the key that is wrong.
    """
    tables = _load(text, file)
    entries = tables.pop("family", [])
    if tables or not isinstance(entries, list):
        msg = f"{file}: expected only [[family]] tables, found {', '.join(tables) or '[family]'}"
        raise ValueError(msg)
    found: dict[str, Family] = {}
    for number, table in enumerate(entries, 1):
        label = table.get("name") if isinstance(table, dict) else None
        family = _convert(table, Family, f"{file}: [[family]] {label or f'number {number}'}")
        if family.name in found:
            msg = f"{file}: [[family]] {family.name}: name is used twice"
            raise ValueError(msg)
        found[family.name] = family
    return tuple(found.values())


def _read(file: str) -> str:
    return resources.files(__package__).joinpath(file).read_text("utf-8")


def _load(text: str, file: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{file}: {error}"
        raise ValueError(msg) from error


def _convert(table: object, kind: type[Entry], where: str) -> Entry:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        msg = f"{where}: {error}"
        raise ValueError(msg) from error
