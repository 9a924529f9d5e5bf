"""Verdicts of IFEval's own program: python ifeval.py ../../crates/eval/tests/golden/ifeval.json

pip install --no-deps lm-eval==0.4.13 nltk==3.10.4 llama-index-core==0.14.25 langdetect==1.0.9
    immutabledict==4.3.1 absl-py==2.5.1 six==1.17.0 joblib==1.6.0 click==8.5.1 tqdm==4.70.1
    regex==2026.11.19 defusedxml==0.7.1 packaging==26.3
lm-eval carries the program of the paper's authors. NLTK's English models come with llama-index-core.

Every response below is written for this file; what looks odd in one is what it is there for. A case is one
instruction and one response. lm-eval drops arguments that are 0 and draws letters that are not a to z by
chance, so no case has either.
"""

import importlib.util, json, pathlib, sys, types

import langdetect, nltk

SITE = pathlib.Path(importlib.util.find_spec("langdetect").origin).parent.parent
nltk.data.path.insert(0, str(SITE / "llama_index/core/_static/nltk_cache"))
# The packages above the task import a whole harness: stand-ins keep it out.
for name in ("lm_eval", "lm_eval.tasks"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(SITE / name.replace(".", "/"))]
from lm_eval.tasks.ifeval import utils

langdetect.DetectorFactory.seed = 0

# Text that many kinds are asked about; the other responses stand beside their kind.
PLAIN = "The river was high after the rain. We waited, and then we crossed it by boat."
SHARED = [
    "", "   \n\t ", "\n\n", "*", "***", "-", "[", '"', "<<>>", "0", "é", "日本語のテキストです。", PLAIN,
    "Sure, here it is:\n" + PLAIN, PLAIN + "\n\nHope this helps!", "Sure:\n\n" + PLAIN + "\n\nBye!",
    PLAIN.upper(), PLAIN.lower(), '"' + PLAIN + '"', "* One\n* Two\n- Three\n\n***\n\n**Four** *five*",
]
WORDS7 = "one two three four five six seven"
FOX = "the quick brown fox jumps over the lazy dog and then it rests in the shade of an old tree"

CASES = {
    "change_case:capital_word_frequency": (
        [dict(capital_frequency=n, capital_relation=r) for n in (1, 2, 3, 6) for r in ("at least", "less than")],
        ["NASA and the ESA met the U.S. team.", "I DON'T KNOW; I CANNOT SAY.", "WELL-KNOWN facts", "I'm sure it's OK",
         "HELLO, WORLD!", "A B C", "Ab Cd", "ÉCOLE ÜBER straße", "DOG'S, CATS' and I'LL", "GONNA GIMME LEMME wanna",
         "(SEE NOTE) [A] {B} <C> \"D\" 'E'", "WAIT...WHAT--NO: 2ND,3RD AT 10:30PM", "*LOUD* **LOUDER**", "ǅ AǅB OK",
         "It ended. DON'T. STOP.", "A/B C&D E#F $G %H @I", "THE ‘OLD’ “NEW” DON’T", "x = Y_1 + Z2; 42 7TH",
         "Well: YES,NO and A,1 B", "SHE'D SAID THEY'VE WON'T"],
    ),
    "change_case:english_capital": (
        [{}],
        [FOX.upper(), FOX.upper() + "!", FOX, FOX.capitalize(), "THIS IS ALL IN CAPITALS, 123 TIMES.", "A", "123", "ÄÖÜ",
         "NOT QUITE aLL", "SURE:\n" + FOX.upper(), "Sure, here you are:\n" + FOX.upper(), FOX.upper() + "\nBye", "ǅ IS TITLE CASE",
         "WO BIST DU HEUTE ABEND, MEIN FREUND? ICH WARTE SCHON SEIT STUNDEN."],
    ),
    "change_case:english_lowercase": (
        [{}],
        [FOX, FOX.upper(), FOX + ".", FOX.capitalize(), "123", "i think this is a fairly long sentence in plain english.",
         "heute morgen sind wir auf den markt gegangen und haben brot und äpfel gekauft.", "Sure!\n" + FOX, FOX + "\nDone",
         "ce matin nous sommes allés au marché et nous avons acheté du pain.", "ª º " + FOX, "ǅ " + FOX, "* " + FOX],
    ),
    "combination:repeat_prompt": (
        [dict(prompt_to_repeat=p) for p in ("Name a colour. Say why.", "  What is *this*? ", "Ünder the İce")],
        ["Name a colour. Say why.\n\nBlue, for the sky.", "NAME A COLOUR. SAY WHY. Red.", " \nname a colour. say why.", "Name a colour.",
         "Sure.\nName a colour. Say why.\nBlue.", "Name a color. Say why. Blue", "What is *this*? A star.", "What is this? A star.",
         "what is *this*?", "ünder the i̇ce it is cold", "Ünder the İce", "Under the ice", "\"Name a colour. Say why.\" Blue"],
    ),
    "combination:two_responses": (
        [{}],
        ["One.\n******\nTwo.", "One.\n******\nOne.", "One.******Two.", "One.\n******\nTwo.\n******", "******\nOne.\n******\nTwo.", "One.",
         "One.\n******\nTwo.\n******\nThree.", "One.\n************\nTwo.", "One.\n*****\nTwo.", "One. ******  \n****** Two.", "******",
         "One.\n*******\nTwo.", "Here:\nA\n******\nB\n******\nC", "A******A ", "a******A"],
    ),
    "detectable_content:number_placeholders": (
        [dict(num_placeholders=n) for n in (1, 2, 3)],
        ["Dear [name],", "[a][b][c]", "[ ] [] [x]", "[[a] [b]]", "[open and\nclose]", "no brackets", "[x](http://example.org) [y]",
         "]a[ [b]", "Dear [name],\nfrom [me]\nat [place]", "［wide］ [é]", "\\[escaped\\]"],
    ),
    "detectable_content:postscript": (
        [dict(postscript_marker=m) for m in ("P.S.", "P.P.S", "P.S", "Note")],
        ["Hello.\n\nP.S. Bye", "Hello.\nP. S. Bye", "P.S Bye", "PS. Bye", "p.s. bye", "Hello P.P.S. again", "P. P. S again", "P.P.S", "p.p.s",
         "the app.s. thing", "P.\u00a0S. no-break", "P.  S. two", "no such thing", "Note: it is late", "a keynote", "P.S.", "P.\nS."],
    ),
    "detectable_format:constrained_response": (
        [{}],
        ["My answer is yes.", "My answer is no.", " My answer is maybe.\n", "my answer is yes.", "My answer is yes", "My answer is *no*.",
         "I think: My answer is maybe. Truly.", "My  answer is yes.", "**My answer is yes.**", "My answer is\nyes.", "My answer is maybe not."],
    ),
    "detectable_format:json_format": (
        [{}],
        ['{"a": 1}', '```json\n{"a": [1, 2, null]}\n```', '```\n[]\n```', '```JSON {"a": "b"}```', '```Json\n{}```', "{'a': 1}", '{"a": 1,}',
         'Here it is:\n{"a": 1}', 'Here it is:\n```json\n{"a": 1}\n```', '{"a": 1}\nThat is all.', '"text"', "12", "-0.5e3", "true", "nul", "[1 2]",
         '{"a": "line\nbreak"}', '{"a": "\\u00e9\\ud800"}', '{"a": 1} {"b": 2}', '```json```', '```python\n{}\n```', '{"*a*": "b"}', '{"a": 1e999}',
         "[" * 200 + "]" * 200, '{"a": 1, "a": 2}', '{"a": 01}', '``` \n {"ü": "日本"} \n ``` ', '[*1*, 2]', '\u00a0[]', '{"a": "\t"}'],
    ),
    "detectable_format:multiple_sections": (
        [dict(section_spliter=s, num_sections=n) for s in ("Section", "SECTION", "Day") for n in (1, 2, 3)],
        ["Section 1\nText\nSection 2\nText", "SECTION 1 a SECTION 2 b SECTION 3 c", "Section1 Section2", "Section  1", "Section\n1 Section\t2",
         "Section I\nSection II", "Day 1: rest. Day 2: rest. Day 3: rest.", "Day one, Day two", "**Section 1** x **Section 2**", "Section *1*",
         "Section 12 Section 3a", "Section 1 Section 1", "Subsection 1 Section 2", "SectionSection 1", "Section ١ Section २"],
    ),
    "detectable_format:number_bullet_lists": (
        [dict(num_bullets=n) for n in (1, 2, 3, 4)],
        ["* a\n* b", "- a\n- b\n- c", "* a\n- b", "  * a\n\t- b", "** a\n* b", "*a\n*b", "* a\n\n\n* b\n\n\n* c", "--- \n- a", "1. a\n2. b", "-\n-\n-",
         "*\n* a", "*\n\n- a", "text * a\ntext - b", "Here:\n* a\n* b\n* c\nBye", "• a\n• b", "***\n- a", "–dash\n- a", "* a\r\n* b\r\n", "*é*\n-é"],
    ),
    "detectable_format:number_highlighted_sections": (
        [dict(num_highlights=n) for n in (1, 2, 3)],
        ["*a*", "**a**", "*a* and *b*", "**a** and **b**", "***a***", "*a\nb*", "* a\n* b", "* a * b * c *", "**", "****", "* *", "** **", "*a* *b* *c*",
         "**a**b**c**", "_a_ and __b__", "*a**b*", "\\*a\\*", "*é* **日本**", "*a*b*c*", "** a ** *b*"],
    ),
    "detectable_format:title": (
        [{}],
        ["<<A title>>\nText", "<< >>", "<<<a>>>", "<a>", "<<a\nb>>", "text <<b>> text", "<<>> <<a>>", "<<<>>>", "<<a>", "*<<a>>*", "«a»", "<< é >>",
         "<<><>>", "1 << 2 and 4 >> 2"],
    ),
    "keywords:existence": (
        [dict(keywords=k) for k in (["river", "boat"], ["Rain"], ["élan"], ["a b"])],
        ["A RIVER and a boat", "rivers, boats", "river only", "rain", "brain drain", "Élan", "elan", "a b", "a  b", "a\nb", "the ri*ver* boat", "σς ELAN ÉLAN",
         "riverboat rain"],
    ),
    "keywords:forbidden_words": (
        [dict(forbidden_words=w) for w in (["river"], ["no", "yes"], ["cat", "hat"], ["über"], ["a b"])],
        ["The River rose", "rivers", "riverside", "river.", "know yesterday", "No!", "yes_no", "yes-no", "the cat's hat", "concatenate that", "chat",
         "Über uns", "darüber", "über1", "a b", "aa bb", "xa b", "ri*ver* no", "naïveno", "no1", "1no no", "é no", "हिno नno", "*no*", "river\nand no"],
    ),
    "keywords:frequency": (
        [dict(keyword=k, frequency=n, relation=r) for k, n in (("rain", 1), ("rain", 2), (" the ", 3), ("ana", 2)) for r in ("at least", "less than")],
        ["rain Rain RAIN", "brain training", "rain", "ra in", "the the the", "The other, then the", "banana", "bananas and Ana", "ananana", "ra*in* rain",
         "rain\nrain", "Sure, rain:\nrain", "nothing"],
    ),
    "keywords:letter_frequency": (
        [dict(letter=c, let_frequency=n, let_relation=r) for c, n in (("a", 1), ("Z", 2), ("e", 4)) for r in ("at least", "less than")],
        ["Aa", "zZ", "banana", "eEeE", "jazz pizza", "none", "é è ê e", "ＡＺ", "E\ne\ne\ne", "*e*e*e*", "sixty", "ⓔⒺ a", "eee\nA line with e"],
    ),
    "language:response_language": (
        [dict(language=c) for c in ("en", "de", "fr", "hi", "sw", "kn", "ru", "it")],
        [FOX, "Heute Morgen sind wir auf den Markt gegangen und haben Brot und Äpfel gekauft.",
         "Ce matin nous sommes allés au marché et nous avons acheté du pain.", "आज सुबह हम बाज़ार गए और हमने रोटी और फल खरीदे।",
         "Leo asubuhi tulienda sokoni na tulinunua mkate na matunda.", "ಇಂದು ಬೆಳಿಗ್ಗೆ ನಾವು ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗಿ ಹಣ್ಣು ಖರೀದಿಸಿದೆವು.",
         "Сегодня утром мы пошли на рынок и купили хлеб и фрукты.", "今天早上我们去市场买了面包和水果。", "123 456", "!!!", "ok",
         "Sure, here is the answer in German:\n\nHeute Morgen gingen wir auf den Markt.", "http://example.org/path me@example.org",
         "Bonjour\nHello there my dear old friend, how are you today?"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        [dict(num_paragraphs=p, nth_paragraph=n, first_word=w) for p, n, w in ((2, 1, "rain"), (2, 2, "Sun"), (3, 3, "wind"), (1, 1, "été"))],
        ["Rain fell.\n\nSun came.", "rain, then\n\nsun.", "Rain\nSun", "Rain\n\n\n\nSun", "Rain\n\nSun\n\n", "\n\nRain\n\nSun", "'Rain' fell\n\n\"Sun\" came",
         "Rain's end\n\nSun's rise", "A\n\nB\n\nWind!", "A\n\nB\n\nWindy", "Rain\n \nSun", "Été!", "été", "Rain-drops\n\nSun-rise", "*Rain*\n\n*Sun*",
         "Here:\nRain\n\nSun", "Rain\n\nSun\nBye", "Rain\r\n\r\nSun", "'\"Rain\n\n\"'Sun", "A\n\n\n\nB\n\nwind", "(Rain)\n\n(Sun)"],
    ),
    "length_constraints:number_paragraphs": (
        [dict(num_paragraphs=n) for n in (1, 2, 3)],
        ["A\n***\nB", "A\n\n***\n\nB\n\n***\n\nC", "***\nA\n***", "A***B", "A\n******\nB", "A ***  *** B", "A\n\nB", "A\n****\nB", "A\n***", " \n***\nA\n***\n \n",
         "A\n***\n\n***\nB", "Sure:\nA\n***\nB", "A\n* * *\nB", "A\n***\nB\n***\nC\n***", "**bold***A***B"],
    ),
    "length_constraints:number_sentences": (
        [dict(num_sentences=n, relation=r) for n in (1, 2, 3, 4) for r in ("at least", "less than")],
        ["One. Two. Three.", "One? Two! Three", "Mr. Fox met Dr. Owl. They talked.", "It cost 3.50 at 5 p.m. sharp.", "\"Stop!\" he cried. \"No,\" she said.",
         "1. First\n2. Second", "One.Two.Three", "Wait... what? Yes.", "He lives in the U.S. The town is small.", "(One.) (Two.) Three.", "**One.** Two.",
         "A heading\n\nA line without end\nAnother", "Is it? Yes. No! Well.", "One.  \n\n Two.\n", "No end", "He said “Go.” Then he left.", "First…\nSecond",
         "Ph.D. students read vs. write.", "She scored 2. he scored 3.", "One.\n\n---\n\nTwo.", "J. R. Smith and A. B. Jones came. All went.", "Hm.. So. It is."],
    ),
    "length_constraints:number_words": (
        [dict(num_words=n, relation=r) for n in (3, 7, 8) for r in ("at least", "less than")],
        [WORDS7, WORDS7 + " eight", "don't stop-me now", "snake_case and 3.14", "हिन्दी में लिखा", "naïve café", "日本語 テキスト", "... !!! ???", "a*b*c*d*e*f*g",
         "Intro line\n" + WORDS7, WORDS7 + "\n\nOutro", "½ ² Ⅳ x", "ﬁn ǅ é é", "a\u200bb\u00a0c", "👍 ok 👍"],
    ),
    "punctuation:no_comma": (
        [{}],
        ["No commas here.", "One, two", "Sure, here:\nNo commas here.", "No commas.\nBye, all", "1,000", "wide ，comma", "、", "a;b", "A\nB, C\nD", "Arabic ، comma"],
    ),
    "startend:end_checker": (
        [dict(end_phrase=p) for p in ("That is all.", " Any questions? ", "fin")],
        ["Hello. That is all.", "that is ALL.", "Hello. That is all.\n\n", "Hello. That is all", '"Hello. That is all."', "That is all. Bye.", "x\nThat is all.\nBye",
         "So: any questions?", "Any questions", "finfin", "Fin.", "**fin**", "fin\"\"", "“fin”", "the end is *fin*", "fin \" ", "That is all.*"],
    ),
    "startend:quotation": (
        [{}],
        ['"All of it."', ' "All of it."\n', '"', '""', '"a" and "b"', "“All of it.”", "'All of it.'", '"No end', 'No start"', 'Here:\n"All of it."', '"All."\nBye',
         '*"All of it."*', '"é"', '"a"b'],
    ),
}

groups = []
for identity, (arguments, responses) in sorted(CASES.items()):
    verdicts = []
    for place, kwargs in enumerate(arguments):
        for response in responses + (SHARED if place == 0 else []):
            inp = utils.InputExample(key=0, instruction_id_list=[identity], prompt="", kwargs=[kwargs])
            strict = utils.test_instruction_following_strict(inp, response).follow_all_instructions
            loose = utils.test_instruction_following_loose(inp, response).follow_all_instructions
            verdicts.append((place, response, bool(strict), bool(loose)))
    assert {strict for _, _, strict, _ in verdicts} == {True, False}, identity
    groups.append(dict(id=identity, kwargs=arguments, cases=verdicts))
with open(sys.argv[1], "w") as file:
    compact = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    line = lambda group: compact(group["kwargs"]) + ',"cases":[\n' + ",\n".join(map(compact, group["cases"]))
    file.write("[" + ",\n".join(f'{{"id":"{group["id"]}","kwargs":{line(group)}]}}' for group in groups) + "]\n")
