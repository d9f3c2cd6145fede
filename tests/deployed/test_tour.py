"""The README's curl tour, run as a user pastes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from deployed.world import ROOT, World

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

TOUR = re.compile(r"<!-- tour -->(.*?)<!-- /tour -->", re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END = "--- end of block"


def documents(text: str) -> list[object]:
    """The JSON documents in a text, one after the other. Raises ValueError when it is something else."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_tour_works_as_pasted(world: World):
    tour = TOUR.search((ROOT / "README.md").read_text())
    assert tour, "README.md has no tour"
    blocks = BLOCK.findall(tour[1])
    assert blocks
    caller = world.caller()
    script = "set -eo pipefail\n" + f"echo '{END}'\n".join(blocks)
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "FIXLOOP_URL": world.stack.url, "FIXLOOP_API_KEY": caller.key},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    outputs = ran.stdout.split(f"{END}\n")
    assert len(outputs) == len(blocks)
    for block, output in zip(blocks, outputs, strict=True):
        if "curl" in block:
            assert documents(output), f"{block}\nprinted\n{output}"
