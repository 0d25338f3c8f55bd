"""Made-up texts that policies may be handed in as: good documents that were spoiled in many ways, and raw text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

KEYS = """egress-policy allowed-endpoints endpoint-sets disable-sudo disable-sudo-and-containers
    disable-file-monitoring disable-telemetry lockdown-mode""".split()
ODD_KEYS = "egress_policy Egress-Policy egress-polcy with << policy y 0 null = ~ ключ".split()
WORDS = """audit block Block true false on off yes no null ~ 0 1e3 0x1F .nan 2001-01-31 12:30:45 0o17 1_000 -.inf <<
= ' " &a *a !!str | > # - ? {} [] | >""".split()
NUMBERS = """0 -1 65535 65536 1e999 18446744073709551616 0x7fffffffffffffffffffffff 1_000_000 0b11 017 +443 443.0
٤٤٣ ⁴⁴³ \uff14\uff14\uff13""".split()
NUMBERS += ["9" * 40, "1" + "0" * 400, "0x" + "f" * 60]
HOSTS = """github.com GitHub.com *.github.com * ** *a a*b.com *.*.com *.com *.co.uk *.github.io pastebin.com *.paste.ee
localhost 10.0.0.1 10.0.0.0/8 0x7f000001 2130706433 127.1 [::1] ::1 ::ffff:10.0.0.1 fe80::1%eth0 a..b .a a.
-a.com a-.com _x.com a_b.com xn--gthub-n2e.com xn-- xn--a g\u0456thub.com \uff47ithub.com ß.de İ.com
a\u200db.com 💥.example ٣.com https://github.com/x?y#z http://u:p@h:1/ ftp:// :// u@h a,b a;b a/b (a) {a} <a> 'a'
"a" a\\b %2e%2e $HOME `id` # #a a#b ${{secrets.X}} evil.example *.evil.example never*""".split()
HOSTS += ["a" * 64 + ".com", "a." * 130 + "com", "x\u00a0y.com", "é" * 70 + ".com"]
ODD_CHARACTERS = "\0\a\b\t\v\f\r\x1b\x7f\x85\xa0\xad\u034f\u061c\u180e\u200b\u200d\u200f\u2028\u2029\u202e\u2060\u2066"
ODD_CHARACTERS += "\u3000\ud800\udfff\ufdd0\ufe0f\ufeff\ufffd\ufffe\uffff\U0001f4a5\U000e0041\U0010ffff\u0335İıßﬁ\u0661"
INDICATORS = "-?:,[]{}#&*!|>'\"%@`\\ \n\t<=~.0aé"
TENFOLD = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefghi")]
BOMBS = (
    "\n".join(["a: &a [x, x, x, x, x, x, x, x, x]", *TENFOLD, ""]),
    "a: &a {x: 1}\n" + "".join(f"k{n}: &k{n}\n  <<: [{', '.join(['*a'] * 9)}]\n" for n in range(20)),
    "a: &a\n  - *a\n",
    "? &a [*a]\n: *a\n",
    "<<: {egress-policy: audit}\n",
    "<<: [*a, *b]\n",
)
LONG = r"""[ { [a, {a: *a &a !t [] {}, ' "\x41 # | é 💥 \ 9 : 1: . a. - % a, , a@""".split()
LONG += ["- ", "? ", "a: ", "&a ", "\n", " ", "\t", "# #\n", "a:\n", "- a\n", "a: b\n", "  x.example:443\n", "- - "]
LONG += ["\0", "x.example:443 ", "*.x ", "  https://x\n", ": ", "\u2028", "? a\n: ", "x: {\n", "é.com ", "  - {}\n"]
MANY = ("  h{}.example.com", "  *.h{}.com:99", "  - h{}.io", "k{}: v", "  *h{}", "# {}", "  é{}.com", "{}", "  1.{}")
MOST = 70_000
# Mostly small, since what is large takes most of the time.
SIZES = (*[3, 30, 100] * 8, 300, 300, 1_900, 2_001, 4_000, MOST)

indices = st.integers(0, 2**16)
few = st.integers(0, 6)
characters = st.one_of(st.sampled_from(ODD_CHARACTERS), st.sampled_from(INDICATORS), st.characters())
ports = st.one_of(st.sampled_from(("443", "80", "8443", "", "https", "443:80", " 443", "*")), st.sampled_from(NUMBERS))
good_endpoints = st.from_regex(r"(\*\.)?[a-z]{1,8}\.(com|io|example)(:[1-9][0-9]{1,3})?", fullmatch=True)
endpoints = st.one_of(
    good_endpoints,
    st.sampled_from(HOSTS),
    st.builds("{}:{}".format, st.sampled_from(HOSTS), ports),
    st.builds("{}{}:443".format, characters, st.sampled_from(HOSTS)),
)


@st.composite
def lists(draw, items):
    """A list as people write it, in one of YAML's styles, behind its key's colon."""
    entries = draw(st.lists(items, max_size=5))
    style = draw(st.sampled_from(("folded", "bullets", "flow", "plain", "single", "double", "compact")))
    if style == "folded":
        head = draw(
            st.sampled_from((">", ">", ">", ">-", ">+", ">2", ">2-", "|", "|", "|-", "|+", "|9", ">0", "> # c", ">x"))
        )
        return f" {head}\n" + "".join(f"  {entry}\n" for entry in entries)
    if style == "bullets":
        return "\n" + "".join(f"  - {entry}\n" for entry in entries)
    if style == "compact":
        return "\n" + "".join(f"- '{entry}' # why\n" for entry in entries)
    joined = {"flow": f"[{', '.join(entries)}]", "single": f"'{' '.join(entries)}'", "double": f'"{" ".join(entries)}"'}
    return f" {joined.get(style, ' '.join(entries))}\n"


words = st.one_of(st.sampled_from(WORDS), st.sampled_from(NUMBERS), st.text(characters, max_size=4))
switches = st.sampled_from(
    (
        " true\n",
        " true\n",
        " false\n",
        " false\n",
        " true # why\n",
        " 'true'\n",
        " yes\n",
        "\n",
        " [true]\n",
        " !!bool true\n",
    )
)
lockdowns = st.sampled_from(
    (
        "\n  enabled: true\n  detections: [Reverse-Shell]\n",
        "\n  enabled: true\n  detections:\n    - Reverse-Shell\n    - Privileged-Container\n",
        "\n  enabled: false\n",
        " {enabled: true, detections: [Reverse-Shell, reverse-shell]}\n",
        "\n  enabled: maybe\n  detections: Reverse-Shell\n",
        "\n  detections: [[]]\n",
        " true\n",
    )
)
values = {
    "egress-policy": st.one_of(
        *[st.sampled_from((" block\n", " audit\n", " block # all\n"))] * 3, words.map(" {}\n".format)
    ),
    "allowed-endpoints": st.one_of(*[lists(good_endpoints)] * 3, lists(endpoints)),
    "endpoint-sets": lists(st.sampled_from(("github", "npm", "github", "npm", "GitHub", "none", "a b", "on", "#"))),
    "lockdown-mode": lockdowns,
}


@st.composite
def documents(draw):
    """A document of known keys, mostly a good one."""
    text = draw(st.sampled_from(("", "", "# ours\n", "---\n", "\n")))
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=draw(few) > 0)):
        text += f"{key}:{draw(values.get(key, switches))}"
    return text + draw(st.sampled_from(("", "", "# end\n", "...\n", "\n\n")))


def _into_line(draw, text, change):
    lines = text.split("\n")
    place = draw(indices) % len(lines)
    lines[place] = change(lines[place])
    return "\n".join(lines)


def _indent(draw, text):
    space = draw(st.sampled_from((" ", "  ", "   ", "\t", " \t", "\u3000", "\xa0")))
    return _into_line(draw, text, lambda line: space + line)


def _outdent(draw, text):
    return _into_line(draw, text, str.lstrip)


def _twice(draw, text):
    return _into_line(draw, text, lambda line: f"{line}\n{line}")


def _before_value(draw, text):
    mark = (
        "&a ",
        "*a",
        "!!str ",
        "!<x> ",
        "! ",
        "!!python/object:os.system ",
        "| ",
        "> ",
        "? ",
        "- ",
        "@",
        "`",
        "%",
        "!!merge ",
    )
    written = draw(st.sampled_from(mark))
    return _into_line(
        draw, text, lambda line: line.replace(": ", f": {written}", 1) if ": " in line else written + line
    )


def _key(draw, text):
    key = draw(st.one_of(st.sampled_from(ODD_KEYS), st.text(characters, max_size=3)))
    return _into_line(draw, text, lambda line: f"{key}:{line.partition(':')[2]}")


def _number(draw, text):
    number = draw(st.sampled_from(NUMBERS))
    return _into_line(draw, text, lambda line: f"{line.partition(':')[0]}: {number}")


def _insert(draw, text):
    place = draw(indices) % (len(text) + 1)
    return text[:place] + draw(characters) + text[place:]


def _cut(draw, text):
    place, length = draw(indices) % (len(text) + 1), draw(few) + 1
    return text[:place] + text[place + length :]


def _truncate(draw, text):
    return text[: draw(indices) % (len(text) + 1)]


def _deep(draw, text):
    start, end = draw(st.sampled_from((("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""))))
    depth = draw(st.sampled_from((1, 3, 8, 9, 70, 2000)))
    return _into_line(draw, text, lambda line: f"{line.partition(':')[0]}: {start * depth}{end * depth}")


def _long(draw, text):
    piece, place = draw(st.sampled_from(LONG)), draw(indices) % (len(text) + 1)
    count = draw(st.sampled_from(SIZES))
    return (text[:place] + piece * min(count, MOST // len(piece)) + text[place:])[:MOST]


def _many(draw, text):
    count = draw(st.sampled_from(SIZES))
    line = draw(st.sampled_from(MANY))
    place = text.find("\n") + 1
    return (text[:place] + "".join(f"{line.format(number)}\n" for number in range(min(count, 6_000))) + text[place:])[
        :MOST
    ]


def _bomb(draw, text):
    bomb = draw(st.sampled_from(BOMBS))
    return bomb + text if draw(st.booleans()) else text + bomb


def _lines(draw, text):
    return text.replace("\n", draw(st.sampled_from(("\r\n", "\r", "\x85", "\u2028", "\n\n", "\n\t", " \n"))))


FRAMES = (
    "%YAML 1.2\n---\n{}",
    "%TAG ! x:\n---\n{}",
    "---\n{}---\n{}",
    "{}...\n{}",
    "\ufeff{}",
    "{{{}}}",
    "a:\n{}",
    "- {}",
)


def _frame(draw, text):
    return draw(st.sampled_from(FRAMES)).format(*[text] * 2)


MUTATIONS = (
    *(_indent, _outdent, _twice, _before_value, _key, _number, _insert, _insert, _cut, _truncate, _deep, _long, _many),
    *(_bomb, _lines, _frame),
)


@st.composite
def spoiled(draw):
    """A document, and what becomes of it by one change after another."""
    family = [draw(documents())]
    for mutation in draw(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=5)):
        family.append(mutation(draw, family[-1])[:MOST])
    return family


raw = st.one_of(
    st.text(max_size=80),
    st.text(characters, max_size=60),
    st.text(st.sampled_from(INDICATORS), max_size=120),
    st.lists(st.sampled_from((*KEYS, *WORDS, *HOSTS, ": ", "\n", "\n  ", "- ")), max_size=30).map("".join),
)
# Texts that belong together, so that each can be compared with the one before.
families = st.one_of(spoiled(), spoiled(), spoiled(), st.lists(raw, min_size=1, max_size=4))
texts = st.one_of(spoiled().map(lambda family: family[-1]), raw)
