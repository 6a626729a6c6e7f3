"""``${NAME}`` and ``${NAME:-default}`` in one text; ``$${`` is a literal ``${``.

Must not say what a variable holds, in an error or anywhere else.
"""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPECTED = (
    "expected ${NAME} or ${NAME:-default} with the name of an environment variable; "
    "the default cannot hold { or }; write $${ for a literal ${"
)


def interpolate(text: str, env: Mapping[str, str]) -> tuple[str, str | None]:
    """Put values in the place of references; what they hold is not looked at again.

    Returns:
        The text; and, if it is empty because of its references, the first variable it names.

    Raises:
        ValueError: A reference is malformed, or its variable is not set and it has no default.
    """
    variables: list[str] = []

    def value_of(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        variable, has_default, default = (found[1] or "").partition(":-")
        if not _VARIABLE.fullmatch(variable):
            raise ValueError(_EXPECTED)
        variables.append(variable)
        value = env.get(variable)
        if has_default:
            return value or default
        if value is None:
            message = (
                f"the environment variable {variable} is not set; set it, "
                f"or write ${{{variable}:-default}}"
            )
            raise ValueError(message)
        return value

    result = _REFERENCE.sub(value_of, text)
    return result, variables[0] if variables and not result else None
