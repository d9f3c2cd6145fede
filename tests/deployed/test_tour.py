"""The curl tours of the README and of every API's page, run as a user pastes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deployed.world import ROOT, World

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

TOUR = re.compile(r"<!-- tour -->(.*?)<!-- /tour -->", re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
END = "--- end of block"
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if TOUR.search(page.read_text())]


def documents(text: str) -> list[object]:
    """The JSON documents in a text, one after the other. Raises ValueError when it is something else."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_tour_works_as_pasted(world: World, page: Path):
    tour = TOUR.search(page.read_text())
    assert tour
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
        assert documents(output) is not None
        if re.search(r"^(?:curl|ask) ", block, re.MULTILINE):
            assert documents(output), f"{block}\nprinted\n{output}"


def test_every_api_has_its_tour():
    assert {page.name for page in PAGES} >= {"README.md", *(page.name for page in ROOT.glob("docs/api-*.md"))}
