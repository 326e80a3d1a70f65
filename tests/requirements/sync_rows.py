"""Every row of the sync's scenario table, its properties, faults and threats: what must hold, in one sentence.

Tests carry the ids (``@pytest.mark.rows("A01")``); ``test_sync_rows`` checks both ways. Rows of our own have numbers
that the design leaves free. ``python tests/requirements/sync_rows.py`` prints which tests show which row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent.parent
FOLDERS = (
    "unit/sync",
    "unit/sync_core",
    "unit/sync_transfer",
    "integration/sync",
    "integration/sync_rows",
    "integration/sync_apply",
    "integration/sync_scan",
)
"""Where tests of the sync are."""
THROUGH = ("unit/sync/", "integration/sync/", "integration/sync_rows/")
"""Tests here go through the controller; each row needs one of them."""

_TABLE = """
A01 a new file here goes there | A02 a new file there comes here
A03 a change here replaces, the old one is in the trash
A04 a change there replaces, the old one is in the trash here | A05 a deletion here | A06 a deletion there
A07 a touch is no change | A08 a touch there is none either | A09 an emptied file | A10 very many files, one agreement
A11 sizes around the limit of a batch, up | A12 the same, down | A13 two files, one change on each side
A14 changes in one folder from both sides | A15 deleted and made again the same | A16 the same there
A17 equal trees without an agreement send nothing | A18 two trees are united | A19 a first clash keeps both versions
B01 equal changes are adopted | B02 different changes, ours stays, theirs is kept | B03 the same without an agreement
B04 both deleted | B05 their edit beats our deletion | B06 our edit beats their deletion | B07 the runtime may win
B08 also without an agreement | B09 a loser too large to keep holds both | B10 later equal edits leave the kept one
B11 a later edit there goes on | B12 a later deletion there | B13 a kept version put back goes to both sides
B14 a bit here and content there | B15 content here and a bit there | B16 the same bit on both sides
B17 line ends are content | B18 notebooks are files | B19 edits and deletions crosswise
C01 an empty folder | C02 its deletion | C03 a folder with content deleted here | C04 the same there
C05 a new file survives the deletion of its folder | C06 deletions of different depth | C07 an emptied folder stays
C08 also when emptied there | C09 a folder becomes a file here | C10 and there | C11 a stripped folder gives way
C12 also the other way round | C13 a file becomes a folder on one side | C14 two new folders are one
C15 a folder against a file | C16 a new file in a folder that was deleted here | C17 left-out content stays
C18 a folder becomes a link | C19 a folder never becomes a link that leads out | C20 a folder there cannot be listed
C21 a folder here cannot be listed | C22 a folder replaced by one with the same names
D01 a rename sends nothing | D02 nor does that of a large folder | D03 renamed here, edited there
D04 renamed differently on both sides | D05 two files change places | D06 renamed onto a new name there
D07 moved into a new folder | D08 a folder renamed here, a file in it edited there | D09 renamed here, grown there
D10 three files in a ring | D11 content comes out of the trash | D12 files change places there
E01 another spelling on a folding disk | E02 twins from the runtime, one is blocked | E03 a twin of ours is blocked
E04 respelled here, edited there | E05 edited here, respelled there | E06 two Unicode forms are one file
E07 twins in two forms | E08 deleted here, respelled there | E09 names of 255 bytes | E10 paths of 1,024 bytes
E11 names that Windows reserves | E12 names that are no text | E13 odd but legal names | E14 spoofed names
E15 letters with odd cases | E16 names that another system cannot have | E17 impossible paths | E18 very many names
F01 a link | F02 a dangling link inside | F03 our absolute link stays here | F04 theirs stays there
F05 a link above the root | F06 a chain that leads out | F07 writing through a link | F08 equal new links
F09 three versions of a link | F10 a link becomes a file | F11 a file becomes a link | F12 a deleted link
F13 kinds that do not exist | F14 a loop of links | F15 a link to a renamed folder | F16 a loop through a folder
F17 a root that is a link | F18 a mount inside | F19 impossible targets | F20 our links while theirs lead out
F22 pipes and sockets
G01 a bit set here | G02 a bit set there is told only | G03 an executable file changed there loses it
G04 a bit cleared here | G05 a disk without the bit | G06 a module changed twice in a second | G07 times coming down
G08 times going up | G09 the umask | G10 a read-only file | G11 a read-only folder
H01 left out here | H02 left out there | H03 a new rule deletes nothing | H04 nor sends on | H05 a rule taken back
H06 rules changed there are held | H07 another rule set is a broken rule | H08 a pattern and an exception
H09 build output | H10 kinds of patterns | H11 left out and deleted in one edit | H12 one rule for another
H13 a thousand rules | H14 the built-in list | H15 left-out folders are not walked | H16 secrets
I01 equal size and restored time | I02 no stamp tells: the audit | I03 a write in the tick of the look
I04 saves in quick succession | I05 a burst in known folders | I06 in new folders | I07 in deep folders
I08 all at once
I09 no more watches | I10 a renamed folder | I11 a mapped store | I12 several mapped stores | I13 over several runs
I14 how editors save | I15 gone for a moment, again and again | I16 nothing left out is watched | I17 a used inode
I18 a growing file | I19 a log there | I20 its beginning is whole | I21 old times | I22 a disk that tells nothing
J01 nothing changed | J02 one change here | J03 one change there | J04 both at one path | J05 a large change first
J06 results of a run | J07 deletions of a run | J09 a file still open | J10 a dead kernel | J11 a stopped run
J12 a save there meanwhile | J13 a cut around the run | J14 late answers | J15 a save here meanwhile
J16 files that never rest | J17 several barriers at once | J18 a large result follows | J19 it holds up nobody
J21 the pipelined barrier fails closed | J22 200,000 entries | J23 running with old files is said
K01 an empty workspace | K02 another machine | K03 a copied marker | K04 an emptied project | K05 most deleted here
K06 an incomplete listing | K07 an unmounted project | K08 a whole folder deleted there | K09 a rewritten tree
K10 little room | K11 very many new files | K12 one very large file | K13 a copied project | K14 a second client
K15 an approval that came too late | K16 a rejection | K17 a project in a project
L01 a change in the middle | L02 an insertion | L03 a file that grew | L04 one that shrank | L05 another file
L06 zeros | L07 weak hashes that collide | L08 two halves change places | L09 changed on the way
L10 replaced after its signatures | L11 noise travels as it is | L13 a cut | L14 damage in the stage | L15 copies
M01 impossible paths | M02 a link and a child | M03 chains | M04 hard links | M05 Git | M06 editors | M07 assistants
M08 shells | M09 build tools | M10 a shadowed module | M11 a bomb | M12 a shadowing folder | M13 huge lengths
M14 content that nobody wants | M15 wrong content | M17 a trickle | M18 odd pages | M19 odd frames
M21 questions by the runtime | M22 bits | M23 files and folders in turn | M24 a lie about what was done
M25 odd signatures | M26 equal weak hashes | M27 odd spellings | M28 clocks | M29 a false root | M30 a forged identity
N01 memory lost | N02 damaged | N03 an older one | N04 garbage | N05 another agent | N06 agent or machine new
N07 hours asleep | N08 the clock set back | N09 a full trash | N10 restored | N11 torn files | N13 no secrets inside
P1 nothing is lost | P2 both sides agree | P3 a second sync does nothing | P4 single changes win | P5 deletions are done
P6 nothing is invented | P7 the agreement is true | P8 a death changes nothing | P9 mirrored | P10 any order
P11 nothing outside is touched | P12 quiet means equal | P13 differences rebuild exactly | P14 rules delete nothing
P15 any answer is an answer or a known error
X01 death here | X02 death there | X03 a power cut | X04 a full disk | X05 no inodes | X06 a cut after each frame
X07 odd frames | X08 odd clocks | X09 content without a stamp | X10 savers in the middle | X11 a folder becomes a link
X12 permissions taken | X13 few descriptors | X14 the watch dies | X15 events lost | X16 memory not writable
X17 a stopped agent | X18 asleep in the middle | X19 the trash elsewhere | X20 no exchange | X21 a folding disk
X22 no watches at all
T01 paths | T02 through a link | T03 swapped in between | T04 chains | T05 hard links | T06 special files | T07 Git
T08 editors | T09 shells | T10 assistants | T11 Python's start | T12 tools | T13 modules | T14 scripts | T15 lures
T16 rules | T17 reading here | T18 bombs | T19 floods | T20 work | T21 destruction | T22 replays | T23 lies
T24 terminals | T25 races | T26 stores | T27 code | T28 clocks | T29 spellings | T30 watchers | T31 bait | T32 root
"""

ROWS: dict[str, str] = {
    row.strip().partition(" ")[0]: row.strip().partition(" ")[2]
    for line in _TABLE.strip().splitlines()
    for row in line.split(" | ")
}

NOT_SHOWN = {
    "J21": "the barrier that runs ahead of its answer is not built: one round trip is what it costs now",
    "J22": "a matter of time: benchmarks/ measures the barrier of large trees",
    "J23": "shown where a run is started: tests/integration/tunnel_stack/test_degraded_runtimes.py",
}
"""Rows without a test among these, and why."""


def seen() -> dict[str, list[str]]:
    """Collect the tests of the sync, and return which of them show which row."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            "-p",
            "rows_seen",
            "--collect-only",
        ]
        done = subprocess.run(
            [*command, *(str(TESTS / each) for each in FOLDERS)],
            env={**os.environ, "PYTHONPATH": path, "SYNC_ROWS_TO": str(target)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        found: dict[str, list[str]] = json.loads(target.read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    tests = seen()
    for number, sentence in ROWS.items():
        sys.stdout.write(f"{number:4} {sentence}\n")
        for test in tests.get(number, [NOT_SHOWN.get(number, "-")]):
            sys.stdout.write(f"       {test}\n")
