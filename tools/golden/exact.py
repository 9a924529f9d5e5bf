"""Numbers that lm-eval takes from texts: python exact.py ../../crates/eval/tests/golden/exact.json

pip install --no-deps lm-eval==0.4.13 pyyaml==6.0.3
The two filters of its task `gsm8k` and what its metric takes away before it compares.

Every text below is made here. Texts of SAME are read alike there and here. Texts of OTHER are read otherwise
here on purpose: with the number a reader would take, or None.
"""

import importlib.util, itertools, json, pathlib, re, sys, types

import yaml

SITE = pathlib.Path(importlib.util.find_spec("lm_eval").origin).parent
# The packages above the filter import a whole harness: stand-ins keep it out.
for name in ("lm_eval", "lm_eval.api", "lm_eval.api.filter", "lm_eval.api.registry"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["lm_eval.api.filter"].Filter = object
sys.modules["lm_eval.api.registry"].register_filter = lambda name: lambda cls: cls
spec = importlib.util.spec_from_file_location("extraction", SITE / "filters/extraction.py")
extraction = importlib.util.module_from_spec(spec)
spec.loader.exec_module(extraction)

task = yaml.safe_load((SITE / "tasks/gsm8k/gsm8k.yaml").read_text())
ignored = task["metric_list"][0]["regexes_to_ignore"]
filters = {}
for entry in task["filter_list"]:
    settings = dict(entry["filter"][0])
    assert settings.pop("function") == "regex"
    filters[entry["name"]] = extraction.RegexFilter(**settings)


def read(name, text):
    """What the metric compares; None if the filter finds nothing."""
    (found,), = filters[name].apply([[text]], [{}])
    for pattern in ignored:
        found = re.sub(pattern, "", found)
    return None if found == "[invalid]" else found


NUMBERS = ["0", "7", "12", "350", "1,200", "45,000", "1,234,567", "-3", "-48", "2.5", "0.75", "-1.25"]
WORKING = ["", "First 3 + 4 = 7, then 7 * 2 = 14.\n", "There are 5 boxes of 6.\nThat makes 30.\n\n", "She pays $4.50 twice.\n"]
MARKED = ["#### {}", "#### {}\n", "#### {} apples", "#### {}\nThis was easy."]
SAID = ["The answer is {}.", "So the answer is {}", "Therefore, they have {} left.", "That is {} in all", "= {}"]
SAME = [w + t.format(n) for w, t, n in itertools.product(WORKING, MARKED + SAID, NUMBERS)]
SAME += ["", "I do not know.", "There is no answer to this.", "$5", "It costs $1,250", "it was 3,", "(8)", "[9]", "from 5\u20137", "a debt of -$20"]

OTHER = [
    ("#### $5 for the 2 of them", "5", "currency after the marker"),
    ("####5 for 2", "5", "no space after the marker"),
    ("#### **7**, as 4 and 3", "7", "emphasis after the marker"),
    ("#### 3\nNo, that is wrong.\n#### 4", "4", "the last marker counts"),
    ("#### 1. Add\nBoth make 9", "9", "a numbered heading is no answer"),
    ("#### \u22126", "-6", "the minus of Unicode"),
    ("#### 5.0", "5", "numbers are compared, not texts"),
    ("#### 1/2", "1/2", "fractions"),
    ("#### 2 million", "2000000", "scales in words"),
    ("\\boxed{42} is what 6 times 7 makes, or 40 and 2", "42", "boxes"),
    ("\\boxed{\\frac{3}{4}}", "3/4", "boxes with fractions"),
    ("\\boxed{\\text{impossible}} after 3 tries", None, "a box without a number"),
    ("The answer is 8. I used 3 steps.", "8", "an announced answer goes before a later number"),
    ("The answer is 8, which is 2 more than 6.", "8", "an announced answer goes before a later number"),
    ("It is 10-3", "3", "a subtraction is no sign"),
    ("It grew from 5-7", "7", "a range is no sign"),
    ("He ran 1/2 of it", "1/2", "fractions"),
    ("1 1/2 cups", "3/2", "mixed numbers"),
    ("There are 4 atoms in H2O2", "4", "digits of a name"),
    ("an area of 6 m^2", "6", "exponents of units"),
    ("She has $5.00", "5", "numbers are compared, not texts"),
    ("It is 2.50 in all", "5/2", "numbers are compared, not texts"),
    ("No number...", None, "stops are no number"),
    ("a, b, and $, too", None, "punctuation is no number"),
    ("1.5e3", "1500", "powers of ten"),
    ("12 \\times 10^{3}", "12000", "powers of ten"),
    ("1{,}234", "1234", "separators of LaTeX"),
    ("1\u202f234", "1234", "narrow spaces as separators"),
    ("\u00bd", "1/2", "fractions of Unicode"),
    ("1,2,3", "3", "a list is no number"),
    ("We need 9.\n\nQuestion: Ann has 4 cats.\nAnswer: 5", "9", "a question that the model goes on to invent"),
]

cases = []
for text, expected, why in [(text, None, None) for text in SAME] + OTHER:
    case = dict(text=text, strict=read("strict-match", text), flexible=read("flexible-extract", text))
    if why:
        case |= dict(expected=expected, why=why)
    cases.append(case)
with open(sys.argv[1], "w") as file:
    lines = (json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    file.write("[" + ",\n".join(lines) + "]\n")
print(len(SAME), "alike,", len(OTHER), "otherwise")
