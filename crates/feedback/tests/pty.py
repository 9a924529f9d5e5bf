"""Judges in a pseudo-terminal as a person would: `pty.py PROGRAM FOLDER`. Prints `ok` at the end."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

PROGRAM, FOLDER = sys.argv[1:3]
DATA = os.path.join(FOLDER, "data.jsonl")
LOG = os.path.join(FOLDER, "log.jsonl")


class Sitting:
    """The program in a terminal of its own."""

    def __init__(self, annotator, columns=80, rows=24, log=LOG):
        self.output = b""
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
        self.output += some
        return bool(some)

    def expect(self, text, since=0):
        """Waits until the text was drawn. Only changes are drawn, so it is best without spaces."""
        end = time.monotonic() + 20
        while text.encode() not in self.output[since:]:
            assert self.read(0.1), f"ended before {text!r}: {self.output[-2000:]!r}"
            assert time.monotonic() < end, f"no {text!r}: {self.output[-2000:]!r}"

    def press(self, keys, expected):
        since = len(self.output)
        os.write(self.terminal, keys.encode())
        self.expect(expected, since)

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
ann.expect("0/8")
ann.expect("\u241b[2J")
ann.press("a", "slightly")
wait_for(lambda: lines() == [], "nothing is judged yet")
ann.press("\x1b", "skip")
ann.press("b", "slightly")
ann.press("r", "Why")
ann.press("clear", "clear")
ann.press("\r", "slightly")
ann.press("2", "1/8")
first = lines()[0]
assert first["annotator"] == "ann" and first["reason"] == "clear", first
assert first["verdict"] == {"choice": {"answer": first["shown"][1], "strength": 2}}, first
assert first["started"] <= first["ended"] and first["ended"].endswith("Z"), first
since = len(ann.output)
ann.resize(50, 20)
ann.expect("question", since)
ann.press("t", "2/8")
ann.press("u", "1/8")
ann.press("s", "2/8")
os.write(ann.terminal, b"q")
assert ann.wait() == 0
assert b"saved 2 in this sitting; 2/8 done" in ann.output, ann.output[-500:]
assert b"\x1b[?1049l" in ann.output and b"\x1b[?25h" in ann.output, "the screen is given back"
kinds = ["retracted" in line and "retracted" or str(line["verdict"]) for line in lines()]
assert kinds[1:] == ["tie", "retracted", "skipped"], kinds

# Two at once, and Ctrl-C ends one.
bob, eve = Sitting("bob"), Sitting("eve", 50, 20)
for sitting in (bob, eve):
    sitting.expect("0/8")
for i in range(1, 9):
    for sitting in (bob, eve):
        sitting.press("a", "slightly")
        sitting.press("3", f"{i}/8")
bob.expect("done.")
os.write(bob.terminal, b"q")
os.write(eve.terminal, b"\x03")
assert bob.wait() == 0 and eve.wait() == 0
assert len(lines()) == 20

# Killed with an item open: all but that item is there.
kim = Sitting("kim")
kim.expect("0/8")
for i in range(1, 4):
    kim.press("b", "slightly")
    kim.press("1", f"{i}/8")
kim.press("a", "slightly")
os.kill(kim.pid, signal.SIGKILL)
assert kim.wait() == -signal.SIGKILL
assert len(lines()) == 23
# What a crash within a line leaves is cut off, and said.
with open(LOG, "ab") as log:
    log.write(b'{"id":"torn')
kim = Sitting("kim")
kim.expect("written")
kim.expect("3/8")
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
