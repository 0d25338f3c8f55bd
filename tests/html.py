"""Pages as a browser shows them: without the line breaks that depend only on how a template is laid out."""

import re

AS_WRITTEN = re.compile(r"(<(?:pre|textarea|script|style)\b.*?</(?:pre|textarea|script|style)>)", re.DOTALL)
TAG = re.compile(r"<[^<>]*>")
QUOTED = re.compile(r'("[^"]*")')
# A browser shows no whitespace beside the tags of these elements.
BLOCKS = re.compile(
    r"\n*(</?(?:html|head|body|main|header|footer|nav|section|article|aside|div|p|h\d|[uo]l|li|d[ltd]|table|thead|tbody|tr"
    r"|t[dh]|col(?:group)?|form|fieldset|legend|details|summary|option|optgroup|datalist|br|title|meta|link|button"
    r"|noscript|template|label|select)\b[^<>]*>)\n*"
)


def layout_removed(page: str) -> str:
    """The HTML with a space for each line break and its indentation, and none beside tags of blocks or before a `>`."""
    return "".join(part if i % 2 else _without_layout(part) for i, part in enumerate(AS_WRITTEN.split(page)))


def _without_layout(html: str) -> str:
    values: list[str] = []

    def set_aside(value: re.Match[str]) -> str:
        values.append(value[0])
        return f'"{len(values) - 1}"'

    html = TAG.sub(lambda tag: QUOTED.sub(set_aside, tag[0]), html)
    html = re.sub(r"\s*\n\s*", "\n", html)
    html = TAG.sub(lambda tag: re.sub(r"\n>$", ">", tag[0]), html)
    html = BLOCKS.sub(r"\1", html).replace("\n", " ")
    return TAG.sub(lambda tag: re.sub(r'"(\d+)"', lambda number: values[int(number[1])], tag[0]), html)
