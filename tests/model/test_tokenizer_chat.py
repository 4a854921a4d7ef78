"""Chat templates: rendered as transformers renders them, and harmless when they are hostile."""

from __future__ import annotations

from datetime import datetime

import pytest
from transformers import PreTrainedTokenizerFast
from vocabularies import byte_level, byte_level_fields

from mini_vllm.errors import InvalidInputError
from mini_vllm.model import chat_template, embedded
from mini_vllm.model.gguf_header import read_header
from mini_vllm.model.tokenizer import Tokenizer

# Four shapes that templates in the wild have; whitespace control and helpers are the point.
HEADERS = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|header|>system<|/header|>\\n\\n" }}
{%- if tools is not none %}
    {{- "You may call functions.\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message + eos_token }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n' }}
        {{- message['content'] | trim ~ eos_token }}
    {%- elif 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' ~ call.name ~ '", "parameters": ' ~ call.arguments | tojson ~ "}" }}
    {%- else %}
        {{- '<|header|>tool<|/header|>' ~ (message.content | tojson) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
"""
ALTERNATING = """{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}
    {% set system_message = messages[0]['content'].strip() + '\\n\\n' %}
{% else %}
    {% set loop_messages = messages %}
    {% set system_message = '' %}
{% endif %}
{{ bos_token }}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant') }}
    {% endif %}
    {% if loop.first %}
        {% set content = system_message + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ '[INST] ' + content.strip() + ' [/INST]' }}
    {% else %}
        {% generation %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}
"""
NAMESPACES = """{%- macro block(role, text) -%}
<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro -%}
{%- set ns = namespace(last_user=-1, roles=[], count=0) -%}
{%- for m in messages -%}
  {%- if m.role == "user" %}{% set ns.last_user = loop.index0 %}{% endif -%}
  {%- set ns.roles = ns.roles + [m.role | upper] -%}
{%- endfor -%}
{%- for m in messages | selectattr("role", "ne", "tool") -%}
  {%- if m.content is string and m.content.startswith("/skip") %}{% continue %}{% endif -%}
  {{- block(m.role, m.content.replace("a", "<a>").split("</think>")[-1] | trim) -}}
  {%- if loop.last %}{{ "[last of %d: %s]" % (loop.length, loop.revindex) }}{% endif -%}
{%- endfor -%}
{{- ns.roles | join(", ") }} {{ ", ".join(ns.roles) }} {{ ns.last_user * 2 }}
{{ ns.roles | length }}
{%- if tools %}
{% for name, value in tools[0].items() %}{{ name }}={{ value | tojson }};{% endfor %}
{%- endif %}
{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}
{%- for key, value in dict(b=1, a=2) | dictsort %}{{ key }}{{ value }}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}"
TEMPLATES = {
    "headers": HEADERS,
    "alternating": ALTERNATING,
    "namespaces": NAMESPACES,
    "plain": PLAIN,
}
USER = {"role": "user", "content": '  What\'s the <capital> of\n France & "Spain"? 😀 '}
CONVERSATIONS = {
    "user": [USER],
    "system": [{"role": "system", "content": " Be brief. "}, USER],
    "turns": [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of {{ Germany }}?"},
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Überall <b>Wetter</b> & 'more'",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template, messages=(USER,), **options):
    options = {"add_generation_prompt": True} | options
    return Tokenizer(byte_level(), SPECIAL, template).apply_chat_template(messages, **options)


@pytest.fixture(scope="module")
def reference():
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(), **SPECIAL)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("generate", [True, False], ids=["generate", "complete"])
def test_prompts_equal_transformers(reference, template, conversation, tools, generate):
    messages = CONVERSATIONS[conversation]
    theirs = reference.apply_chat_template(
        messages,
        chat_template=TEMPLATES[template],
        tools=tools,
        add_generation_prompt=generate,
        tokenize=False,
        enable_thinking=False,
    )
    assert theirs == render(
        TEMPLATES[template],
        messages,
        tools=tools,
        add_generation_prompt=generate,
        enable_thinking=False,
    )


def test_tool_calls_and_their_results_equal_transformers(reference):
    function = {"name": "weather", "arguments": {"city": "Köln", "days": 3}}
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": "sunny"},
    ]
    theirs = reference.apply_chat_template(
        messages, chat_template=HEADERS, tokenize=False, add_generation_prompt=True
    )
    assert render(HEADERS, messages) == theirs


def test_the_embedded_models_prompt_equals_transformers():
    path = embedded.verify("smollm2-135m", full=False)
    ours = Tokenizer.from_gguf(read_header(path).metadata)
    theirs = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name)
    for messages in CONVERSATIONS.values():
        for generate in (True, False):
            prompt = ours.apply_chat_template(messages, add_generation_prompt=generate)
            assert prompt == theirs.apply_chat_template(
                messages, add_generation_prompt=generate, tokenize=False
            )
            assert ours.encode(prompt, add_special_tokens=False) == theirs.apply_chat_template(
                messages, add_generation_prompt=generate, return_dict=False
            )


def test_text_parts_are_joined_by_newlines():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}, "three"]
    assert render(PLAIN, [{"role": "user", "content": parts}]) == "user: one\ntwo\nthree\n"


def test_the_callers_messages_are_left_alone():
    messages = [{"role": "user", "content": [{"type": "text", "text": "one"}]}]
    render(PLAIN, messages)
    assert messages == [{"role": "user", "content": [{"type": "text", "text": "one"}]}]


def test_the_date_is_todays():
    def today() -> str:
        return datetime.now().astimezone().strftime("%d %B %Y")

    before, rendered = today(), render("{{ strftime_now('%d %B %Y') }}")
    assert rendered in (before, today())


def test_a_model_without_a_template_says_what_to_do():
    tokenizer = Tokenizer.from_gguf(byte_level_fields("gpt-2"))
    with pytest.raises(InvalidInputError, match=r"no chat template.*plain prompt") as caught:
        tokenizer.apply_chat_template([USER])
    assert caught.value.param == "messages"


BAD_MESSAGES = {
    "no object": ["hello"],
    "no role": [{"content": "hello"}],
    "role is a number": [{"role": 1, "content": "hello"}],
    "no content": [{"role": "user"}],
    "content is a number": [{"role": "user", "content": 3}],
    "an image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    "a part that is no object": [{"role": "user", "content": [3]}],
    "text is a number": [{"role": "user", "content": [{"type": "text", "text": 3}]}],
    "an object with methods": [{"role": "user", "content": "x", "extra": datetime.now}],
    "refused by the template": [{"role": "assistant", "content": "I speak first"}],
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_messages_that_cannot_be_used_are_refused(case):
    with pytest.raises(InvalidInputError) as caught:
        render(ALTERNATING, BAD_MESSAGES[case])
    assert caught.value.param == "messages"
    assert "\n" not in str(caught.value)


def test_what_the_template_says_reaches_the_person():
    with pytest.raises(InvalidInputError, match="says: Roles must alternate user/assistant"):
        render(ALTERNATING, BAD_MESSAGES["refused by the template"])


DOUBLED = "{% set x %}{{ x }}{{ x }}{% endset %}" * 40
HOSTILE = {
    # reaching the host
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['json'].dumps }}",
    "function code": "{{ strftime_now.__code__.co_code }}",
    "type": "{{ dict.__subclasses__() }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "format_map": "{{ '{messages.__class__}'.format_map({}) }}",
    "context": "{{ self._TemplateReference__context.environment.filters }}",
    "lipsum": "{{ lipsum.__globals__.os.popen('id').read() }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "file": "{% include '/etc/hostname' %}",
    "import": "{% import 'os' as os %}{{ os.getcwd() }}",
    "change": "{{ messages.append(1) }}",
    # taking its memory
    "repeat": "{{ 'a' * 10**10 }}",
    "repeat reversed": "{{ 10**10 * 'a' }}",
    "repeat a list": "{{ ([0] * 10**10)|length }}",
    "power": "{{ (10**10)**(10**10) }}",
    "squares": "{% set ns = namespace(x=3) %}"
    "{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "double by plus": "{% set ns = namespace(x='aa') %}"
    "{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "double by tilde": "{% set ns = namespace(x='aa') %}"
    "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "double by set": "{% set x = 'aa' %}" + DOUBLED,
    "double by macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}"
    "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = f(ns.x) %}{% endfor %}",
    "print": "{% set x = 'a' * 10**6 %}{% for i in range(9999) %}{{ x }}{% endfor %}",
    "replace": "{{ ('a' * 10**5).replace('a', 'b' * 10**6) }}",
    "replace filter": "{{ ('a' * 10**5)|replace('a', 'b' * 10**6) }}",
    "join": "{{ ('b' * 10**6).join(['a'] * 10**5) }}",
    "join filter": "{{ (['a'] * 10**5)|join('b' * 10**6) }}",
    "center": "{{ 'a'.center(10**10) }}",
    "center filter": "{{ 'a'|center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ 'a'.zfill(10**10) }}",
    "tabs": "{{ '\t'.expandtabs(10**10) }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (10**10, 1) }}",
    "indent": "{{ messages|tojson(indent=10**10) }}",
    # taking its time
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}"
    "{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a list, nested": "{% set x = range(99999)|list %}"
    "{% for i in x %}{% for j in x %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "branching recursion": "{% macro f(n) %}{% if n %}{% set _ = f(n-1) ~ f(n-1) %}{% endif %}"
    "{% endmacro %}{{ f(40) }}",
    # plain nonsense
    "syntax": "{% if %}",
    "unknown filter": "{{ messages|nonsense }}",
    "undefined": "{{ nothing.here }}",
    "division": "{{ 1 / 0 }}",
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_template_gets_an_error_and_nothing_else(case):
    with pytest.raises(InvalidInputError) as caught:
        render(HOSTILE[case])
    assert "\n" not in str(caught.value)
    assert caught.value.param == "messages"


def test_a_template_sees_no_objects_of_the_host():
    class Handle:
        secret = "hidden"

        def read(self) -> str:
            return self.secret

    with pytest.raises(InvalidInputError, match="JSON values, got a Handle"):
        render("{{ handle.read() }}", handle=Handle())


def test_a_long_conversation_is_within_the_bounds():
    turn = [{"role": "user", "content": "x" * 1000}, {"role": "assistant", "content": "y" * 1000}]
    prompt = chat_template.render(
        ALTERNATING, turn * 2000, add_generation_prompt=False, variables=SPECIAL
    )
    assert prompt.count("x") == 2_000_000
