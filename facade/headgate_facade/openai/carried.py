"""The shapes of what answers carry beyond OpenAI's members, for histories to bring back.

`reasoning_details` and `images` are OpenRouter's: https://openrouter.ai/docs/use-cases/reasoning-tokens,
https://openrouter.ai/docs/features/multimodal/image-generation. `vendor_parts` is this gateway's own.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headgate.wire import Extra, ShapeDecoder, extra_slot
from headgate_facade.openai.wire import ImageUrl, Wire


class ReasoningDetail(Wire):
    """One piece of thinking with its proof, as OpenRouter shows it."""

    type: str
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    id: str | None = None
    format: str | None = None
    index: int | None = None
    extra: Extra = extra_slot()


class GeneratedImage(Wire):
    """A generated image, as OpenRouter shows it."""

    image_url: ImageUrl
    type: Literal["image_url"] = "image_url"
    index: int | None = None
    extra: Extra = extra_slot()


class VendorPart(Wire):
    """A block that only one vendor's API has."""

    dialect: str
    json: msgspec.Raw
    index: int | None = None


REASONING_DETAIL = ShapeDecoder(ReasoningDetail)
GENERATED_IMAGE = ShapeDecoder(GeneratedImage)
VENDOR_PART = ShapeDecoder(VendorPart)
