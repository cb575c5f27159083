"""Golden renderings of chat templates, made with transformers 5.17.0 (jinja2 3.1.6).

    make.py OUT

The templates were written for this test; they exercise what the templates of common model families
use. OUT/cases.json holds rows of template, context and text; "error" marks an expected exception.
"""

import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

CHAT = {
    "messages": [
        {"role": "system", "content": "  Be brief. "},
        {"role": "user", "content": "Hi\nthere 'friend' \"x\" <b>"},
        {"role": "assistant", "content": "Hello & welcome"},
        {"role": "user", "content": "été 你好 😀"},
    ],
    "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>",
}
TOOLS = dict(CHAT, tools=[{"type": "function", "function": {
    "name": "get_weather", "description": "Line\n\ttab \\ \u0001 é",
    "parameters": {"type": "object", "required": ["city"], "deep": [[], {}, [1, 2.5, None, True]],
                   "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}],
    messages=CHAT["messages"] + [{"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": {"a": 1, "b": [1.0, "x"]}}}]},
        {"role": "tool", "content": "22"}])
PARTS = {"messages": [{"role": "user", "content": [
    {"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}]}]}

CHATML = """{%- if messages[0]['role'] == 'system' -%}
    {%- set head = messages[0]['content'] | trim -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set head = 'You help.' -%}{%- set rest = messages -%}
{%- endif -%}
{{- '<|im_start|>system\\n' + head + '<|im_end|>\\n' }}
{%- for message in rest %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
INST = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}
{% set system_message = false %}{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate') }}
{% endif %}
{% if loop.index0 == 0 and system_message != false %}
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}
{% set content = message['content'] %}
{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ ' '  + content.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}
"""
TOOL_USE = """{%- macro describe(tool, depth=2) -%}
{{ tool.function.name }}({% for k, v in tool.function.parameters.properties.items() -%}
{{ k }}: {{ v.type }}{{ ", " if not loop.last }}
{%- endfor %}) depth {{ depth }}
{%- endmacro -%}
{%- set ns = namespace(found=false, count=0, last_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" and message.content is string %}
        {%- set ns.found = true %}{%- set ns.last_index = index %}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
{%- endfor %}
{{- ns.count }} {{ ns.last_index }}
{% if tools is defined and tools is not none %}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- "\\n" }}{{ tool.function.parameters | tojson(indent=4) }}
        {{- describe(tool) }} {{ describe(tool, depth=3) }}
    {%- endfor %}
{% endif %}
{%- for message in messages %}
    {%- if message.tool_calls is defined and message.tool_calls %}
        {%- for call in message.tool_calls %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<call>{"name": "' + call.name + '", "arguments": ' }}{{ call.arguments | tojson }}}
        {%- endfor %}
    {%- elif message.role == "tool" %}[{{ message.content }}]
    {%- endif %}
{%- endfor %}
"""
CONTENT_PARTS = """{% for m in messages %}{% if m.content is string %}{{ m.content }}
{% elif m.content is iterable %}{% for part in m.content | selectattr("type", "equalto", "text") %}
<{{ part.text }}>{% endfor %}{{ m.content | map(attribute="type") | join(",") }}
{{ m.content | rejectattr("type", "equalto", "text") | list | length }}{% endif %}{% endfor %}"""

SNIPPETS = [
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ 1 + 2 * 3 }}",
    "{{ 1.0 }} {{ 2.50 }} {{ 1 == 1.0 }} {{ true }} {{ none }} {{ 'a' < 'b' }} {{ [1, 'x', none] }}",
    "{{ {'a': 1, 'b': [true, \"it's\"]} }} {{ 'it\\'s \"q\"' | list }} {{ (1, 2)[0] }}",
    "{{ undefined_thing }}|{{ x is defined }}|{{ x | default('d') }}|{{ '' | default('e', true) }}",
    "{{ 'abc'[::-1] }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[-2:] }} {{ [1,2,3,4][::2] }} {{ 'été'[1] }}",
    "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a-b-c'.split('-', 1) }}",
    "{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|",
    "{{ 'hello world'.title() }} {{ 'ABC'.lower() }} {{ 'straße'.upper() }} {{ 'hELLO' | capitalize }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'a.b'.replace('.', '::') }}",
    "{{ 'a' in 'abc' }} {{ 'z' not in ['a'] }} {{ 'k' in {'k': 1} }} {{ not false and true or false }}",
    "{% for i in range(3) %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }};{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in [] %}x{% else %}empty{% endfor %} {% for i in range(6) if i is odd %}{{ loop.index0 }}:{{ i }} {% endfor %}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}",
    "{% raw %}{{ not }} {% this %}{% endraw %}{# comment #}.{%- raw -%}  a  {%- endraw -%} b",
    "  {% if true %}\n  a\n  {% endif %}\n  b {# c #}\n{{ 'x' }}\n\n{{- 'y' -}}   z\n",
    "line\n    {%- if true %}\n one\n    {%+ if true %} two {% endif %}\n{% endif %} end\n",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set text %}in {{ a }}{% endset %}{{ text | upper }}",
    "{{ [3,1,2] | first }} {{ [3,1] | last }} {{ 'abc' | length }} {{ ({'a':1} | items | list)[0] | join(':') }} {{ [1,2] | join('-') }}",
    "{{ '3' | int + 1 }} {{ 'x' | int }} {{ 3.9 | int }} {{ 5 | string ~ '!' }} {{ [1,2,3] | reverse | list }}",
    "{{ 'a' if false }}|{{ 'a' if false else 'b' if false else 'c' }}|{{ 1 if none is none else 2 }}",
    "{{ (x.y is defined) if (x is defined) else 'no' }} {{ {'a': {'b': 1}}.a.b }} {{ {'a': 1}['b'] is defined }}",
    "{% macro m(a, b='B') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m('x', 'y') }}",
    "{% macro fac(n) %}{{ n * (fac(n - 1) | int) if n > 1 else 1 }}{% endmacro %}{{ fac(5) }}",
    "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
    "{{ dict(a=1, b=2).get('b') }} {{ {'a': 1}.get('z', 'no') }} {{ {'b': 1, 'a': 2}.keys() | list }}",
    "{{ '<&>\"' | tojson }} {{ {'z': 1, 'a': [1.5, none, true]} | tojson }} {{ [] | tojson(indent=2) }} {{ [1, {}] | tojson(indent=2) }}",
    "{{ 1 is number }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ true is true }} {{ 3 is divisibleby 3 }} {{ 2 is even }}",
    "{{ 'a\\nb\\n\\nc' | indent(2) }} {{ 'x' * 3 }} {{ 'a' ~ 1 ~ none }} {{ [1] + [2] }} {{ 'abc'.find('c') }}",
    "{{- \"tab\\there\" }} {{ 'u\\u00e9 \\x41' }} {{ 'con' 'cat' }}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}",
    "{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | last }}",
    "{{ (messages | first).role | upper }} {{ messages[-1].content | trim }} {{ messages[1:] | length }}",
    "{% generation %}{{ messages[0].role }}{% endgeneration %} {{ 5 > 3 >= 3 if true }}",
]
ERRORS = ["{{ raise_exception('no ' + 'way') }}", "{{ x.y.z }}", "{{ 1 / 0 }}", "{% if %}", "{{ 'a' + 1 }}",
          "{% for x in 3 %}{% endfor %}", "{{ a", "{% endif %}", "{{ none.strip() }}", "{{ 1 < 'a' }}"]


def main(out):
    rows = []
    contexts = [CHAT, dict(CHAT, add_generation_prompt=False)]
    work = [(CHATML, c) for c in contexts] + [(INST, c) for c in contexts]
    work += [(TOOL_USE, TOOLS), (CONTENT_PARTS, PARTS), (CONTENT_PARTS, CHAT)]
    work += [(snippet, CHAT) for snippet in SNIPPETS]
    for template, context in work:
        text = _compile_jinja_template(template).render(**context)
        rows.append({"template": template, "context": context, "text": text})
    for template in ERRORS:
        try:
            _compile_jinja_template(template).render(**CHAT)
            raise SystemExit(f"no error: {template}")
        except Exception:  # whatever jinja2 raises
            rows.append({"template": template, "context": {}, "error": True})
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    (pathlib.Path(out) / "cases.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
