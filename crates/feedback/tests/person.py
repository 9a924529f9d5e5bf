"""Judges in a pseudo-terminal as a person would: `person.py PROGRAM FOLDER`. Prints `ok` at the end."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import unicodedata

PROGRAM, FOLDER = sys.argv[1:3]
DATA = os.path.join(FOLDER, "data.jsonl")
LOG = os.path.join(FOLDER, "log.jsonl")


class Screen:
    """As much of a terminal as the program uses."""

    def __init__(self, columns, rows):
        self.size = columns, rows
        self.lines = [[" "] * columns for _ in range(rows)]
        self.at = [0, 0]
        self.modes = set()
        self.rest = b""
        self.said = ""

    def feed(self, data):
        text, self.rest = self.rest + data, b""
        while text:
            sequence = re.match(rb"\x1b\[([?<>=]?)([0-9;]*)([A-Za-z])", text)
            if sequence:
                self.obey(*(part.decode() for part in sequence.groups()))
                text = text[sequence.end() :]
            elif text[:1] == b"\x1b" and len(text) < 24:
                self.rest, text = text, b""
            else:
                # A character may be cut in two.
                length = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}.get(text[0] >> 4, 1)
                if len(text) < length:
                    self.rest, text = text, b""
                else:
                    self.put(text[:length].decode())
                    text = text[length:]

    def obey(self, private, numbers, command):
        numbers = [int(number or 0) for number in numbers.split(";")]
        if private == "?" and command in "hl":
            (self.modes.add if command == "h" else self.modes.discard)(numbers[0])
        elif command == "H":
            self.at = [max(n, 1) - 1 for n in (numbers + [1])[:2]]
        elif command == "J":
            self.lines = [[" "] * self.size[0] for _ in range(self.size[1])]
        else:
            assert command in "mlh", (private, numbers, command)

    def put(self, character):
        if 1049 not in self.modes:
            self.said += character
            return
        assert character.isprintable(), repr(character)
        row, column = self.at
        wide = unicodedata.east_asian_width(character) in "WF"
        self.lines[row][column] = character
        if wide:
            self.lines[row][column + 1] = ""
        self.at[1] += 1 + wide

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.lines)


class Sitting:
    """The program in a terminal of its own."""

    def __init__(self, annotator, columns=80, rows=24, log=LOG):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            # The program waits until its terminal has a size.
            sys.stdin.readline()
            os.execv(PROGRAM, [PROGRAM, DATA, log, annotator])
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.terminal)
        os.write(self.terminal, b"\n")

    def resize(self, columns, rows):
        self.screen = Screen(columns, rows)
        self.screen.modes = {1049} if hasattr(self, "before") else set()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    def read(self, seconds):
        """Reads what there is; false at the end."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            some = os.read(self.terminal, 65536)
        except OSError:
            return False
        self.screen.feed(some)
        return bool(some)

    def expect(self, *texts):
        """Waits until all are on the screen."""
        end = time.monotonic() + 20
        while not all(text in self.screen.text() for text in texts):
            shown = self.screen.text()
            assert self.read(0.1), f"ended before {texts}: {shown}\n{self.screen.said}"
            assert time.monotonic() < end, f"no {texts}: {shown}"

    def press(self, keys, *expected):
        os.write(self.terminal, keys.encode())
        self.expect(*expected)

    def wait(self):
        while self.read(0.1):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def lines(path=LOG):
    with open(path, encoding="utf-8") as log:
        return [json.loads(line) for line in log]


def wait_for(condition, what):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


with open(DATA, "w", encoding="utf-8") as data:
    for i in range(8):
        row = {"prompt": f"question{i} 質問", "chosen": f"good{i}\x1b[2J", "rejected": f"bad{i}"}
        data.write(json.dumps(row, ensure_ascii=False) + "\n")

# A whole sitting: choose, change one's mind, give a reason, resize, take back, quit.
ann = Sitting("ann")
ann.expect("0/8 done", "\u241b[2J", "Which answer is better?")
ann.press("a", "A: how much better")
assert lines() == [], "nothing is judged yet"
ann.press("\x1b", "Which answer is better?")
ann.press("b", "B: how much better")
ann.press("r", "Why: ")
ann.press("clear\x1b[200~ and\nq\x1b[201~", "Why: clear and q\u258f")
ann.press("\r", "B: how much better", "Why: clear and q")
ann.press("2", "1/8 done", "Saved: B, clearly better")
first = lines()[0]
assert first["annotator"] == "ann" and first["reason"] == "clear and q", first
assert first["verdict"] == {"choice": {"answer": first["shown"][1], "strength": 2}}, first
assert first["started"] <= first["ended"] and first["ended"].endswith("Z"), first
ann.resize(50, 20)
ann.expect("1/8 done", "Answer A", "Which answer is better?")
if len(sys.argv) > 3:
    print(ann.screen.text())
ann.press("t", "2/8 done", "Saved: a tie")
ann.press("u", "1/8 done", "Taken back")
ann.press("s", "2/8 done", "Saved: skipped")
os.write(ann.terminal, b"q")
assert ann.wait() == 0
assert "saved 2 in this sitting; 2/8 done" in ann.screen.said, ann.screen.said
assert ann.screen.modes == {25}, "the screen is given back, with its cursor"
assert termios.tcgetattr(ann.terminal) == ann.before, "and echoes again"
kinds = ["retracted" in line and "retracted" or str(line["verdict"]) for line in lines()]
assert kinds[1:] == ["tie", "retracted", "skipped"], kinds

# Two at once, and Ctrl-C ends one.
bob, eve = Sitting("bob"), Sitting("eve", 50, 20)
for sitting in (bob, eve):
    sitting.expect("0/8")
for i in range(1, 9):
    for sitting in (bob, eve):
        sitting.press("a", "A: how much")
        sitting.press("3", f"{i}/8 done")
bob.expect("All 8 are done")
os.write(bob.terminal, b"q")
os.write(eve.terminal, b"\x03")
assert bob.wait() == 0 and eve.wait() == 0
assert len(lines()) == 20

# Killed with an item open: all but that item is there.
kim = Sitting("kim")
kim.expect("0/8")
for i in range(1, 4):
    kim.press("b", "B: how much")
    kim.press("1", f"{i}/8")
kim.press("a", "A: how much")
os.kill(kim.pid, signal.SIGKILL)
assert kim.wait() == -signal.SIGKILL
assert len(lines()) == 23
# What a crash within a line leaves is cut off, and said.
with open(LOG, "ab") as log:
    log.write(b'{"id":"torn')
kim = Sitting("kim")
kim.expect("3/8 done")
assert "log.jsonl:24: the last line was never written whole" in kim.screen.said
kim.press("t", "4/8")
os.write(kim.terminal, b"q")
assert kim.wait() == 0
assert len(lines()) == 24

# Killed at any moment while judging as fast as keys go: what was said to be saved is saved.
for attempt in range(6):
    log = os.path.join(FOLDER, f"killed{attempt}.jsonl")
    zoe = Sitting("zoe", log=log)
    zoe.expect("0/8")
    for i in range(1, 4):
        zoe.press("t", f"{i}/8")
    os.write(zoe.terminal, b"t")
    time.sleep(attempt * 0.002)
    os.kill(zoe.pid, signal.SIGKILL)
    zoe.wait()
    with open(log, "rb") as file:
        whole = [line for line in file if line.endswith(b"\n")]
    assert len(whole) in (3, 4), len(whole)
    assert all(json.loads(line)["verdict"] == "tie" for line in whole)
    zoe = Sitting("zoe", log=log)
    zoe.expect(f"{len(whole)}/8")
    os.write(zoe.terminal, b"q")
    assert zoe.wait() == 0

print("ok")
