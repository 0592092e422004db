"""Chat templates as an attacker writes them: well-formed mostly, and made to grow."""

from random import Random

PIECES = [
    "{% for a in range(9999) %}", "{% for m in messages %}", "{% for c in m.content %}", "{% endfor %}", "{{ m.role }}",
    "{% set n = namespace(x='a', y=[]) %}", "{% set n.x = n.x ~ n.x %}", "{% set n.y = [n.y, n.y] %}", "{{ n.x }}",
    "{% set n.x = n.x * 99 %}", "{{ n.y }}", "{{ messages | tojson(indent=4) }}", "{{ 'a' | center(99999) }}", "{%",
    "{% if n.x == n.y %}", "{% endif %}", "{{ '%9d' % 1 }}", "{{ n.y | string | length }}", "{{ strftime_now('%Y') }}",
    "{% macro f(x) %}{{ f(x) ~ f(x) }}{% endmacro %}", "{{ f(1) }}", "{{ n.x.replace('a', 'bb') }}", "}}", "{#", "|",
    "{{ messages | map('tojson') | join('x' * 999) }}", "{{ n.x | list | sort | unique | list }}", "{{ [n.x] * 999 }}",
    "{{ range(99999) | list | sum }}", "{{ ''.__class__ }}", "{{ cycler }}", "{{ loop.index }}", "{{ 9 ** 999 }}",
    "{{ raise_exception('no') }}", "{{ ('x' * 999) | indent(999) }}", "{% break %}", "{{ self }}", "{{ dict(a=n.x) }}",
]  # fmt: skip
TEXTS = ["n.x", "'ab'", "'\\n\\t'", "m.role", "bos_token", "n.x[1:]", "n.x[::-1]", "f(n.x)", "'{0:999}'", "'%s%s'"]
LISTS = [
    "n.y",
    "messages",
    "[1, n.x]",
    "range(999)",
    "m.content",
    "n.y[:9]",
    "(n.x, n.y)",
    "'abc'",
    "dict(a=n.y).items()",
]
NUMBERS = [
    "0",
    "1",
    "-1",
    "7",
    "99",
    "4096",
    "99999",
    "10 ** 9",
    "2 ** 59",
    "1e308",
    "n.x | length",
    "loop.index",
    "none",
]
FILTERS = [  # {t} a text, {n} a number, {l} a list
    *("upper", "center({n})", "replace({t}, {t})", "indent({n}, true, true)", "trim({t})", "string", "length", "list"),
    *("join({t})", "sort", "unique | list", "batch({n}) | list", "slice({n}) | list", "tojson(indent={n})", "sum"),
    *("map('center', {n}) | list", "map('upper') | join", "selectattr({t}) | list", "groupby({t})", "reverse | list"),
    *("round({n})", "truncate({n})", "wordcount", "urlencode", "title", "format({n}, {t})", "dictsort", "items | list"),
    *("first", "last", "random", "min", "max", "default({t})", "int", "float", "abs", "escape", "safe", "attr({t})"),
]
METHODS = [
    *(
        "replace({t}, {t})",
        "split({t})",
        "join({l})",
        "center({n})",
        "zfill({n})",
        "ljust({n}, 'x')",
        "format({t}, {n})",
    ),
    *("expandtabs({n})", "rsplit({t}, {n})", "strip({t})", "rfind({t})", "splitlines()", "encode()", "format_map({l})"),
    *("count({t})", "translate({l})", "partition({t})", "title()", "append({t})", "items()", "get({t})", "copy()"),
]
STATEMENTS = [
    *("{{{{ {v} }}}}", "{{% set n.x = {t} ~ {v} %}}", "{{% set n.y = [{v}, {l}] %}}", "{{% set n.x = {t} * {n} %}}"),
    *("{{% set n.y = {l} + {l} %}}", "{{{{ {v} == {v} }}}}", "{{{{ {v} in {l} }}}}", "{{% do {v} %}}", "text"),
    *("{{% if {v} %}}{b}{{% else %}}{b}{{% endif %}}", "{{% for a in {l} %}}{b}{{% endfor %}}", "{{{{ {n} ** {n} }}}}"),
    *("{{% for a in {l} recursive %}}{b}{{{{ loop({l}) }}}}{{% endfor %}}", "{{% filter upper %}}{b}{{% endfilter %}}"),
    *("{{% set z %}}{b}{{% endset %}}", "{{% call f({t}) %}}{b}{{% endcall %}}", "{{{{ {t} % ({v}, {n}) }}}}"),
    *("{{% for a in {l} if {v} %}}{b}{{% endfor %}}", "{{% generation %}}{b}{{% endgeneration %}}"),
]
START = "{% set n = namespace(x='ab', y=[1]) %}{% macro f(x) %}{{ x ~ x }}{{ caller() if caller }}{% endmacro %}"
LOOP = "{% for m in messages %}"


def template(choices: Random) -> str:
    """One of these: half are pieces in any order, half are well-formed."""
    if choices.random() < 0.3:
        return "".join(choices.choices(PIECES, k=choices.randrange(1, 12)))
    return START + LOOP + _body(choices, 0) + "{% endfor %}"


def _body(choices: Random, depth: int) -> str:
    return "".join(_statement(choices, depth) for _ in range(choices.randrange(1, 5 - min(depth, 3))))


def _statement(choices: Random, depth: int) -> str:
    pattern = choices.choice(STATEMENTS)
    if depth > 5 and "{b}" in pattern:
        pattern = STATEMENTS[1]
    return _filled(pattern, choices, depth)


def _filled(pattern: str, choices: Random, depth: int) -> str:
    """The pattern with something in each place, not the same in two of them."""
    makers = {
        "{t}": lambda: _expression(TEXTS, choices, depth),
        "{l}": lambda: _expression(LISTS, choices, depth),
        "{n}": lambda: choices.choice(NUMBERS),
        "{v}": lambda: _expression(choices.choice([TEXTS, LISTS, NUMBERS]), choices, depth),
        "{b}": lambda: _body(choices, depth + 1),
    }
    parts, rest = [], pattern
    while rest:
        if rest[:3] in makers:
            parts.append(makers[rest[:3]]())
            rest = rest[3:]
        elif rest[:2] in ("{{", "}}"):
            parts.append(rest[0])
            rest = rest[2:]
        else:
            parts.append(rest[0])
            rest = rest[1:]
    return "".join(parts)


def _expression(atoms: list[str], choices: Random, depth: int) -> str:
    value = choices.choice(atoms)
    while choices.random() < 0.4 and depth < 9:
        depth += 1
        if choices.random() < 0.6:
            value = f"({value} | {_filled(choices.choice(FILTERS), choices, depth + 4)})"
        else:
            value = f"({value}).{_filled(choices.choice(METHODS), choices, depth + 4)}"
    return value
