"""Pages as a browser shows them: without the whitespace that depends only on how a template is laid out."""

import re

AS_WRITTEN = re.compile(r"(<(pre|textarea|script|style)\b.*?</\2>)", re.DOTALL)
TAG = re.compile(r"<[^<>]*>")
# A browser shows no whitespace beside the tags of these elements.
BLOCKS = re.compile(
    r"\s*(</?(?:html|head|body|main|header|footer|nav|section|article|aside|div|p|h\d|[uo]l|li|d[ltd]|table|thead|tbody|tr"
    r"|t[dh]|col(?:group)?|form|fieldset|legend|details|summary|option|optgroup|datalist|br|title|meta|link|button"
    r"|noscript|template|label|select)\b[^<>]*>)\s*"
)


def layout_removed(page: str) -> str:
    """The HTML with one space for each run of whitespace, and none beside tags of blocks or inside the end of a tag."""
    parts = AS_WRITTEN.split(page)
    # Each match adds two items: the element with its whitespace, and its name.
    return "".join(part if i % 3 else _without_layout(part) for i, part in enumerate(parts) if i % 3 != 2)


def _without_layout(html: str) -> str:
    html = TAG.sub(lambda tag: re.sub(r"\s*>$", ">", tag[0]), re.sub(r"\s+", " ", html))
    return BLOCKS.sub(r"\1", html)
