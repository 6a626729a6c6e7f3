"""Which generation of the API's rules a model follows, beside the facts of its family.

The families are those of families.toml.
"""

from __future__ import annotations

from headgate_server.providers.vendors import Family

# https://ai.google.dev/gemini-api/docs/thinking: 2.5 takes budgets and refuses levels.
_BUDGET_FAMILIES = frozenset({"gemini-2.5-pro", "gemini-2.5-flash"})


def is_gemini_3(family: Family) -> bool:
    """Whether the model is of Gemini 3 or newer.

    These refuse a function call of the current turn without its thought signature, take media in function
    responses (https://ai.google.dev/gemini-api/docs/function-calling), and know calls by their ids.
    """
    return family.name.startswith("gemini-3")


def is_gemma(family: Family) -> bool:
    """Whether the model is an open one, which takes neither thoughts nor their signatures back."""
    return family.name.startswith("gemma")


def thinks_by_budget(family: Family) -> bool:
    """Whether thinking is measured in tokens; else in levels."""
    return family.name in _BUDGET_FAMILIES
