"""Each document of `hostile_yaml.tsv` is read as its line says, and no page loses it or answers with a server error."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from policystore.policies.models import Policy
from policystore.policy_language.document import check
from tests.attack.bad_inputs.asking import STORE, world

FORM = "application/x-www-form-urlencoded"
# Of the documents that the short form puts to the page: every so-manieth.
STEP = 12
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def corpus():
    """Pairs of the outcome and the text."""
    lines = (Path(__file__).parent / "hostile_yaml.tsv").read_text(encoding="utf-8").split("\n")
    for line in lines:
        if line and not line.startswith("#"):
            outcome, written = line.split("\t")
            value = json.loads(written)
            pieces = [value] if isinstance(value, str) else value
            yield outcome, "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces)


CORPUS = list(corpus())


def outcome_of(text):
    checked = check(text)
    return checked.errors[0].code if checked.errors else "accepted"


def test_each_document_is_read_as_its_line_says(tell):
    assert len({text for _, text in CORPUS}) == len(CORPUS) > 700
    assert [(outcome_of(text), text) for _, text in CORPUS] == CORPUS
    tell(f"hostile YAML: {len(CORPUS)} documents, {len({outcome for outcome, _ in CORPUS})} outcomes, each as expected")


def test_what_is_accepted_means_what_another_reader_of_yaml_takes_it_for():
    accepted = [text for outcome, text in CORPUS if outcome == "accepted"]
    assert len(accepted) > 100
    for text in accepted:
        theirs, ours = yaml.load(text, Loader=LOADER), check(text).document
        assert ours.egress_policy == theirs.get("egress-policy", "audit"), text
        assert ours.disable_sudo == (theirs.get("disable-sudo", False) in (True, "true")), text


def as_sent(text):
    """What arrives of a text: browsers send UTF-8, and what is none cannot be read as characters."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\r\n", "\n")


def shown_in(page):
    """The text that the editor of a page holds, as a browser reads it: either end of a line is one to it."""
    found = re.search(r"<textarea[^>]* data-editor=[^>]*>\n(.*?)</textarea>", page, re.S).group(1)
    return html.unescape(found).replace("\r\n", "\n")


@pytest.mark.django_db
def test_the_page_saves_or_refuses_each_and_keeps_what_was_typed(full, tell):
    there = world()
    answers = Counter()
    for number, (outcome, text) in enumerate(CORPUS[:: 1 if full else STEP]):
        typed = urlencode({"name": f"draft {number}", "text": text}, errors="surrogatepass")
        answer = there.client.generic("POST", f"{STORE}new/", typed, content_type=FORM)
        preview = there.client.generic("POST", f"{STORE}check/", typed, content_type=FORM)
        answers[answer.status_code] += 1
        assert preview.status_code == 200, text
        assert answer.status_code == (302 if _can_be_saved(as_sent(text)) else 422), (outcome, text)
        if answer.status_code == 302:
            assert Policy.objects.get(name=f"draft {number}").text == as_sent(text)
        else:
            assert shown_in(answer.content.decode()) == as_sent(text)
    assert set(answers) == {302, 422}
    tell(f"hostile YAML on the page: {sum(answers.values())} documents, answers {dict(answers)}, no text lost")


def _can_be_saved(text):
    """Only one endpoint set is there, so that a document that includes another is refused."""
    document = check(text).document
    return document is not None and {name.lower() for name in document.endpoint_sets} <= {"npm"}
