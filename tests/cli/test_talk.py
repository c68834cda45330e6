"""What a run says on a terminal: messages stand on lines of their own above the bar, and the bar claims no end."""

import os
import pty
import re
import subprocess
import sys

import pytest
from checkout import ROOT

SHOWN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import badpix; badpix.__path__.append({str(ROOT)!r})\n" + (
    "import logging, time\n"
    "from badpix.cli.talk import Talk\n"
    "talk, log = Talk({}), logging.getLogger('badpix.prepare')\n"
    "with talk.progress('steps') as tick:\n"
    "    time.sleep(1.1); tick(1, 3); time.sleep(0.1)\n"
    "    log.info('jw1: dq_init'); log.warning('[red]odd[/red] value'); time.sleep(0.1)\n"
    "    tick(3, 3); time.sleep(0.1); log.info('pictures'); time.sleep(0.1)\n"
    "talk.say('done')\n"
)


@pytest.mark.slow
def test_messages_stand_above_the_bar():
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", SHOWN], stderr=its, env=environment)
    os.close(its)
    out = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        out += part
    assert process.wait(30) == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.decode())
    lines = [part.strip() for part in re.split(r"[\r\n]+", text)]
    for message in ("jw1: dq_init", "note: [red]odd[/red] value", "pictures", "done"):
        assert message in lines
    assert "33%" in text
    assert "100%" not in text
    assert "steps, finishing" in text
