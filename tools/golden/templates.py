"""Chat templates as transformers renders them: python templates.py ../../crates/data/tests/golden/templates.json

The templates are written for this file; between them they use what templates on the hub use: loops with filters and loop controls,
namespaces, macros, whitespace control, slices, tests, string and dictionary methods, tojson, exceptions, generation blocks.
"""

import json, sys
from transformers.utils.chat_template_utils import render_jinja_template

TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "namespace": "{%- set ns = namespace(last=-1, seen='') -%}\n{%- for m in messages -%}\n  {%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}\n  {%- set ns.seen = ns.seen ~ m.role[0] -%}\n{%- endfor -%}\n[{{ ns.last }}|{{ ns.seen }}]",
    "alternate": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{% continue %}{% endif %}{% if (message['role'] == 'user') != (loop.index0 % 2 == (messages[0].role == 'system') | int) %}{{ raise_exception('Roles must alternate, not ' + message['role']) }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% else %}{{ ' ' ~ message['content'].strip() ~ eos_token }}{% endif %}{% endfor %}",
    "headers": "{%- macro head(role) -%}\n<|start|>{{ role | upper }}<|end|>\n\n{%- endmacro -%}\n{{- bos_token }}\n{%- for m in messages %}\n    {{- head(m['role']) }}{{ m['content'] | trim }}<|eot|>\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- head('assistant') }}\n{%- endif %}",
    "blocks": "{% for m in messages %}\n{% if m.role == 'assistant' %}\n{% generation %}\n{{ m.content }}\n{% endgeneration %}\n{% elif m.role == 'user' %}\nQ: {{ m.content }}\n{% endif %}\n{% endfor %}",
    "reverse": "{% for m in messages[::-1] %}{% if loop.index > 2 %}{% break %}{% endif %}{{ loop.index }}/{{ loop.length }} {{ m.content | length }}{{ ',' if not loop.last }}{% endfor %}",
    "methods": "{% for m in messages %}{{ m.content.split(' ')[-1] }}|{{ m.content.startswith('W') }}|{{ m.content.replace('a', 'A').lower().rstrip('.?! ') }}|{{ m.get('name', 'none') }};{% endfor %}{% for k, v in messages[0].items() %}{{ k }}={{ v }} {% endfor %}",
    "json": "{{ messages | tojson }}\n{{ messages[0] | tojson(indent=2) }}\n{{ {'b': [1, 2.5, none, true], 'a': 'ü<&>'} | tojson }}",
    "tests": "{{ tools is none }} {{ tools is defined }} {{ nothing is defined }} {{ messages is iterable }} {{ messages[0] is mapping }} {{ messages[0].content is string }} {{ 3 is odd }} {{ 'a' in 'abc' }} {{ 'user' in messages | map(attribute='role') | list }} {{ (messages | selectattr('role', 'equalto', 'user') | list) | length }} {{ messages | map(attribute='content') | join('+') }}",
    "python": "{{ [1, 'two', none, true, 2.0] }} {{ {'k': 'it\\'s'} }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ -7 % 3 }} {{ 'x' * 3 }} {{ 'a' ~ 1 }} {{ [3, 1, 2] | sort }} {{ none or 'default' }} {{ range(3) | list }} {{ 'abc'[1:] }} {{ 'title me' | title }} {{ 'é' | upper }}",
    "think": "{%- for m in messages -%}{%- set content = m.content -%}{%- if '</think>' in content -%}{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}<{{ m.role }}>{{ content }}</{{ m.role }}>{{- '\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}<assistant>{%- if enable_thinking is defined and enable_thinking is false -%}<think></think>{%- endif -%}{%- endif -%}",
    "whitespace": "  {% if true %}\n  yes  \n  {%- else %}\n no\n  {% endif %}\n\n{# a comment #}\n{%- for m in messages %}\n\t{{ m.role }}  \n{% endfor -%}\n  end",
}
CONVERSATIONS = [
    [{"role": "user", "content": " What is this?  "}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    [{"role": "user", "content": "Wow. A cat"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes, a \"cat\" & more 日本."}, {"role": "user", "content": "And?"}],
    [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "No\nI do."}],
]
cases = []
for name, template in TEMPLATES.items():
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            try:
                rendered, _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt,
                                                    bos_token="<s>", eos_token="</s>")
                cases.append(dict(name=name, template=template, messages=messages, prompt=prompt, text=rendered[0]))
            except Exception as error:
                cases.append(dict(name=name, template=template, messages=messages, prompt=prompt, error=str(error)))
json.dump(cases, open(sys.argv[1], "w"), ensure_ascii=False, indent=0)
