"""Pages as a browser shows them: without the line breaks that depend only on how a template is laid out."""

import re

AS_WRITTEN = re.compile(r"(<(?:pre|textarea|script|style)\b.*?</(?:pre|textarea|script|style)>)", re.DOTALL)
# A tag of several lines: the others have no layout to remove, and are most of a page.
LONG_TAG = re.compile(r"<[^<>\n]*\n[^<>]*>")
QUOTED = re.compile(r'("[^"]*")')
# A browser shows no whitespace beside the tags of these elements.
BLOCK = (
    r"(</?(?:html|head|body|main|header|footer|nav|section|article|aside|div|p|h\d|[uo]l|li|d[ltd]|table|thead|tbody|tr"
    r"|t[dh]|col(?:group)?|form|fieldset|legend|details|summary|option|optgroup|datalist|br|title|meta|link|button"
    r"|noscript|template|label|select)\b[^<>]*>)"
)
BEFORE_BLOCK, AFTER_BLOCK = re.compile(rf"\n{BLOCK}"), re.compile(rf"{BLOCK}\n")


def layout_removed(page: str) -> str:
    """The HTML with a space for each line break and its indentation, and none beside tags of blocks or before a `>`."""
    return "".join(part if i % 2 else _without_layout(part) for i, part in enumerate(AS_WRITTEN.split(page)))


def _without_layout(html: str) -> str:
    values: list[str] = []

    def set_aside(value: re.Match[str]) -> str:
        values.append(value[0])
        return f"\0{len(values) - 1}\0"

    html = LONG_TAG.sub(lambda tag: QUOTED.sub(set_aside, tag[0]), html)
    html = re.sub(r"\s*\n\s*", "\n", html)
    html = LONG_TAG.sub(lambda tag: tag[0].replace("\n>", ">"), html)
    html = AFTER_BLOCK.sub(r"\1", BEFORE_BLOCK.sub(r"\1", html)).replace("\n", " ")
    return re.sub(r"\0(\d+)\0", lambda number: values[int(number[1])], html)
