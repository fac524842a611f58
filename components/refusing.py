"""Telling a reply that refuses to answer from one that answers."""

import re

_SOURCES = r"(?:passages?|context|documents?|texts?|excerpts?|sources?|information|data)"
_THE_SOURCES = (
    rf"(?:the\s+|any\s+|these\s+|this\s+)?(?:(?:given|provided|above|available|numbered)\s+)?{_SOURCES}"
)
_HOW = r"(?:(?:explicitly|directly|specifically|clearly|actually)\s+)?"
_TELL = (
    r"(?:mention|provide|contain|state|specify|include|hold|say|give|answer|discuss|address|indicate|explain|describe|"
    r"offer|list|have|tell)"
)
_TOLD = (
    r"(?:mentioned|provided|stated|specified|given|included|found|contained|available|discussed|answered|listed|"
    r"described|addressed|present)"
)
_REFUSAL = re.compile(
    "|".join(
        (
            # The passages do not mention ...
            r"^(?:(?:i'?m\s+)?sorry|unfortunately|however|based on [^,]*)?\W*(?:but\s+)?"
            rf"{_THE_SOURCES}(?:\s+\w+)?\s+(?:do|does|did)(?:\s+not|n't)\s+{_HOW}{_TELL}\b",
            # ... is not mentioned in the passages; not in the context
            rf"\b(?:not|n't|never)\s+{_HOW}(?:{_TOLD}\s+)?(?:anywhere\s+)?(?:in|by|from)\s+{_THE_SOURCES}\b",
            # There is no information on ... in the passages
            rf"\bno\s+(?:\w+\s+)?(?:information|mention|answer|details?)\b[^.]*\b{_SOURCES}\b",
            r"^(?:there\s+is\s+)?no\s+(?:\w+\s+)?(?:information|answer|mention)\s+"
            r"(?:(?:is\s+|was\s+)?(?:available|provided|given|found)|about|on|regarding|of)\b",
            # I cannot answer; cannot be determined from the passages
            r"^(?:(?:i'?m\s+)?sorry\W+(?:but\s+)?)?(?:i|we)\s+(?:cannot|can't|can not|am unable to|could not|"
            r"don't|do not)\s+(?:answer|determine|find|know)\b",
            rf"\bcan(?:not|'t| not)\s+be\s+(?:answered|determined|found)\b[^.]*\b{_SOURCES}\b",
            r"^(?:unknown|n/?a|none|not (?:known|given|stated|specified|mentioned|provided|available))\W*$",
        )
    ),
    re.IGNORECASE,
)
# Longer ones are no refusals, and each "no" in them would be tried with all that follows.
_FIRST_SENTENCE = re.compile(r"[^.!?\n]{0,1000}")


def is_refusal(text: str) -> bool:
    """
    Tell whether a reply says that the documents do not hold the answer.

    ### Usage example

    ```python
    is_refusal("The passages do not mention the height.")  # True
    is_refusal("The law does not mention foreigners.")  # False: that is what the passages say
    ```

    :param text: The reply without citation marks.
    :returns: True where its first sentence refuses.
    """
    first = _FIRST_SENTENCE.match(text.strip())
    return first is not None and _REFUSAL.search(first[0]) is not None
