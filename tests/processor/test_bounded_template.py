"""Chat templates are programs of strangers: each way to make one run for ever, or fill the memory, ends in one line."""

import re
import time
from datetime import datetime
from threading import Event, Thread

import pytest

from mlx_smolvlm.processor.chat_template import FAMILY_TEMPLATE, MAX_TEMPLATE_CHARS, render
from mlx_smolvlm.processor.template_limits import MAX_TEXT

MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]


def growing(what: str) -> str:
    """A template that puts `what` in the place of x, which begins as 'a', a hundred times."""
    return "{% set n = namespace(x='a') %}{% for i in range(100) %}{% set n.x = " + what + " %}{% endfor %}{{ n.x }}"


TEXT, STEPS, ALL = "a text or list larger", "1000000 steps", "characters in all"
WIDE, NESTED = "fields wider than 999", "fields within fields"
HOSTILE = {
    # loops
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}": STEPS,
    "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}{% endfor %}": STEPS,
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}": STEPS,
    "{% macro f() %}{{ f(varargs, varargs) }}{% endmacro %}{{ f() }}": TEXT,
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}": "recursion",
    # strings and lists that double
    growing("n.x + n.x"): TEXT,
    growing("n.x ~ n.x"): TEXT,
    growing("n.x * 2"): TEXT,
    growing("[n.x, n.x] | join"): TEXT,
    growing("n.x.replace('a', 'aa')"): TEXT,
    growing("'%s%s' % (n.x, n.x)"): TEXT,
    growing("'{0}{0}'.format(n.x)"): TEXT,
    growing("[n.x, n.x]"): TEXT,
    growing("(n.x, n.x)"): TEXT,
    growing("{1: n.x, 2: n.x}"): TEXT,
    growing("dict(a=n.x, b=n.x)"): TEXT,
    growing("namespace(a=n.x, b=n.x)"): TEXT,
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x %}{{ n.x ~ n.x }}{% endset %}{% endfor %}": TEXT,
    "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = n.x + [i] %}{% endfor %}": ALL,
    "{% set x = 'a' * 4000000 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}": ALL,
    # one call that makes it all
    "{{ 'a' * 10**9 }}": TEXT,
    "{{ 10**9 * [1] }}": TEXT,
    "{{ 'x' | center(10**9) }}": TEXT,
    "{{ 'x'.center(10**9) }}": TEXT,
    "{{ 'x'.ljust(width=10**9) }}": TEXT,
    "{{ 'x'.zfill(10**9) }}": TEXT,
    "{{ ('\t' * 9999).expandtabs(99999) }}": TEXT,
    "{{ ['x'] | map('center', 10**9) | list }}": TEXT,
    "{{ range(99999) | map('center', 9999) | join }}": ALL,
    "{{ range(99999) | map('string') | join('x' * 9999) }}": TEXT,
    "{{ ('x' * 99999).join(range(99999) | map('string')) }}": TEXT,
    "{{ ('a\n' * 9999) | indent(9999) }}": TEXT,
    "{{ ('a\n' * 9999) | indent('x' * 9999) }}": TEXT,
    "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}": TEXT,
    "{{ [1] | batch(10**9, 'x') | list }}": TEXT,
    "{{ [1] | slice(10**9) | list }}": TEXT,
    "{{ 1.5 | round(10**9, 'ceil') }}": TEXT,
    "{{ messages | tojson(indent=10**9) }}": "JSON by other than 0 to 32",
    "{{ " + "[" * 60 + "[1] * 99999" + "]" * 60 + " | tojson(indent=32) }}": TEXT,
    "{{ '%1000000000d' % 1 }}": WIDE,
    "{{ '%*d' % (10**9, 1) }}": WIDE,
    "{{ '%.1000000000f' | format(1) }}": WIDE,
    "{{ '{:1000000000}'.format(1) }}": NESTED,
    "{{ '{:{}}'.format(1, 10**9) }}": NESTED,
    "{{ '{a:1000000000}'.format_map({'a': 1}) }}": NESTED,
    "{{ strftime_now('%1000000000d') }}": "dates with a width",
    "{{ strftime_now('%Y' * 9999) }}": "long format",
    "{{ 10 ** 99999 }}": "60 bits",
    growing("i * 0 + 10 if n.x == 'a' else n.x * n.x"): "60 bits",
    "{{ (5).to_bytes(10**9, 'big') }}": "'to_bytes' is not allowed",
    "{{ 'a'.translate({97: 'b' * 9999}) }}": "'translate' is not allowed",
    "{{ range(0, 99999 * 2305843009213693951, 2305843009213693951) | unique | list }}": "60 bits",
    "{{ ('a' * 999999).strip('b' * 999999 ~ 'a') }}": "strips more than 100",
    "{{ ('a' * 999999) | trim('b' * 999999 ~ 'a') }}": "strips more than 100",
    "{{ ('a' * 999999).rfind('a' * 99999 ~ 'b' ~ 'a' * 99999) }}": "searches a long text",
    "{{ 'a' | urlize }}": "'urlize' is not allowed",
    "{{ lipsum(10**6) }}": "undefined",
    "{{ raise_exception('x' * 4000000) }}": "xxx",
    "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}": "recursion",
    "{#" * MAX_TEMPLATE_CHARS: f"the limit is {MAX_TEMPLATE_CHARS}",
}


SLOW = ("f(n - 1)", "varargs", "(n.x, n.x)", "{1: n.x", "dict(", "namespace(a", "x' * 99999).join")


@pytest.mark.parametrize(
    "template",
    [pytest.param(t, marks=pytest.mark.slow if any(word in t for word in SLOW) else ()) for t in HOSTILE],
    ids=lambda template: template[:60],
)
def test_work_without_end_is_refused_in_one_short_line(template: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=re.escape(HOSTILE[template])) as caught:
        render(template, MESSAGES, {})
    assert time.monotonic() - start < 10
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


ORDINARY = {
    FAMILY_TEMPLATE: "<|im_start|>User:<image>What is this?<end_of_utterance>\nAssistant:",
    "{{ messages[0].content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(', ') }}": (
        "What is this?"
    ),
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{% endfor %}": "1True",
    "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k ~ '=' ~ v ~ ';' }}{% endfor %}": "a=1;b=[2];",
    "{{ messages[0].content[1:] | tojson }}": '[{"type": "text", "text": "What is this?"}]',
    "{{ {'a': [1]} | tojson(indent=2) }}": '{\n  "a": [\n    1\n  ]\n}',
    "{% macro say(x, n=2) %}{{ x * n }}{% endmacro %}{{ say('ab') }}{{ say(x='c', n=1) }}": "ababc",
    "{{ 'x' | center(5) }}|{{ '%03d' % 7 }}|{{ '%s-%s' | format(1, 2) }}|{{ '{}:{:>3}'.format('a', 1) }}": (
        "  x  |007|1-2|a:  1"
    ),
    "{{ ' a b '.strip().split(' ')[-1].upper() }}{{ 'abc'[::-1] }}{{ 'a,b'.replace(',', '') }}": "Bcbaab",
    "{% set n = namespace(f=true, s=[]) %}{% for i in range(3) %}{% set n.s = n.s + [i] %}{% endfor %}{{ n.s }}": (
        "[0, 1, 2]"
    ),
    "{% generation %}{{ cycler('a', 'b').next() }}{% endgeneration %}{{ bos_token }}": "a<s>",
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}": "123",
    "{{ strftime_now('%Y') }}": str(datetime.now().year),
}


@pytest.mark.parametrize("template", ORDINARY, ids=lambda template: template[:60])
def test_what_templates_do_is_done(template: str) -> None:
    assert render(template, MESSAGES, {"bos_token": "<s>"}) == ORDINARY[template]


def test_a_long_text_passes_and_a_longer_one_does_not() -> None:
    def with_text(length: int) -> str:
        return render(FAMILY_TEMPLATE, [{"role": "user", "content": [{"type": "text", "text": "a" * length}]}], {})

    assert len(with_text(MAX_TEXT - 1000)) > MAX_TEXT - 1000
    with pytest.raises(ValueError, match=str(MAX_TEXT)):
        with_text(MAX_TEXT + 1)


def test_cancel_is_heeded_and_comes_out_as_it_is() -> None:
    class CancelError(Exception):
        pass

    cancel, ended = Event(), []

    def check() -> None:
        if cancel.is_set():
            raise CancelError

    def run() -> None:
        template = "{% set x = 'a' * 999999 %}{% for i in range(99999) %}{% if x ~ '' == x %}{% endif %}{% endfor %}"
        try:
            cancel.set()
            render(template, MESSAGES, {}, check_cancelled=check)
        except CancelError:
            ended.append(time.monotonic())

    thread = Thread(target=run)
    start = time.monotonic()
    thread.start()
    thread.join(5)
    assert ended and ended[0] - start < 1
