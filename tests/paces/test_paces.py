"""How fast workers call a model: in simulated time against every kind of cap, and once in real time over HTTP."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from cloud import REGION, Cloud
from fixloop.aws import clients_from
from fixloop.models import Endpoint, Prompt, Throttled
from fixloop.models.openai import OpenAI
from fixloop.settings import settings
from fixloop.storage import paces
from fixloop.storage.paces import Pace, Shared
from fixloop.traces import Message
from paces.simulation import START, Bucket, Fixed, Server, Sliding, Unlimited, World, worker
from storage.memory import Memory

WORKERS = (1, 4)
THREADS = 50
ONE = {"org": "org_1", "model": "openai:acme/m"}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"AWS_REGION": REGION, **Cloud().environment()}


@pytest.fixture(autouse=True)
def memory(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    stored = Memory()
    stored.table(settings().platform_table)
    with clients_from(lambda service: stored):
        yield stored
    settings.cache_clear()


@pytest.fixture
def world(memory: Memory) -> World:
    """Where every access to the table takes 5 ms."""
    made = World()
    memory.before = lambda operation: made.sleep(0.005)
    return made


def paced(world: World, threads: int = THREADS, ahead: float = 0.0) -> Pace:
    """A worker's pace; its wall clock is `ahead` of the others' by so many seconds."""
    return Pace(
        **ONE,
        concurrency=threads,
        clock=world.clock,
        wall=lambda: world.now + ahead,
        sleep=world.sleep,
        condition=world.condition,
    )


def crew(server: Server, calls: int, workers: int = 1, threads: int = THREADS) -> list[Callable[[], None]]:
    """Every thread of workers that share `calls`; each worker is called by its number."""
    work = list(range(calls))
    shared = [(str(number), paced(server.world, threads)) for number in range(workers)]
    return [worker(server, pace, work, name) for name, pace in shared for _ in range(threads)]


def test_a_model_without_a_cap_is_soon_called_as_fast_as_it_answers(world: World, memory: Memory):
    server = Server(world, Unlimited())
    assert world.run(*crew(server, 1000)) <= 2.5
    assert len(server.calls) == 1000
    assert server.accepted_between(0, 0.05) < 10, "the start is not careful"
    assert sum(memory.calls.values()) <= 15


def test_no_more_calls_are_under_way_than_a_worker_may_have(world: World):
    server = Server(world, Unlimited())
    world.run(*crew(server, 400, threads=8))
    ends = sorted([(at, 1) for at, _, _ in server.calls] + [(at + 0.1 - 1e-6, -1) for at, _, _ in server.calls])
    under_way = highest = 0
    for _, change in ends:
        under_way += change
        highest = max(highest, under_way)
    assert highest == 8


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("says_when", [False, True], ids=["without Retry-After", "with Retry-After"])
@pytest.mark.parametrize("kind", [Fixed, Sliding, Bucket])
def test_a_cap_is_found_and_kept(world: World, workers: int, says_when: bool, kind: Callable[[int], Any]):
    server = Server(world, kind(20), says_when=says_when)
    assert world.run(*crew(server, 300, workers)) <= 16.5
    assert len(server.calls) <= 330


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("phase", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_cap_is_kept_wherever_the_providers_seconds_begin(world: World, workers: int, phase: float):
    server = Server(world, Fixed(20, phase), says_when=True)
    assert world.run(*crew(server, 300, workers)) <= 16.5
    assert len(server.calls) <= 330


@pytest.mark.parametrize("kind", [Fixed, Sliding, Bucket])
def test_a_cap_is_kept_by_a_model_that_is_now_quicker_now_slower(world: World, kind: Callable[[int], Any]):
    chance = random.Random(5)
    server = Server(world, kind(20), latency=lambda: chance.uniform(0.09, 0.13), says_when=True)
    assert world.run(*crew(server, 300, workers=4)) <= 16.5
    assert len(server.calls) <= 335


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", [Fixed, Sliding])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cap_is_found_also_where_calls_overtake_each_other_on_their_way(
    world: World, seed: int, kind: Callable[[int], Any], workers: int
):
    chance = random.Random(seed)
    server = Server(world, kind(20), way=lambda: chance.uniform(0, 0.02), says_when=True)
    assert world.run(*crew(server, 300, workers)) <= 16.5
    assert len(server.calls) <= 335


class Changing:
    """A cap that is another one from a time on."""

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps, self.model = steps, Sliding(0)

    def accepts(self, now: float) -> bool:
        self.model.cap = next(cap for since, cap in reversed(self.steps) if now - START >= since)
        return self.model.accepts(now)

    def free_in(self, now: float) -> float:
        return self.model.free_in(now)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_cap_that_changes_is_followed(world: World, workers: int):
    server = Server(world, Changing((0, 20), (20, 60), (80, 10)), says_when=True)
    world.run(*crew(server, 2600, workers))
    assert server.accepted_between(5, 15) >= 0.9 * 20 * 10
    assert server.accepted_between(70, 80) >= 0.9 * 60 * 10
    assert server.accepted_between(83, 93) >= 0.8 * 10 * 10
    refused_early = [at for at in server.refused if at < 80]
    assert len(refused_early) <= 0.05 * server.accepted_between(0, 80)
    assert len([at for at in server.refused if 83 < at < 93]) <= 5


class Stern(Sliding):
    """Asks for a pause of three seconds when its cap is met."""

    def free_in(self, now: float) -> float:
        return 3.0


def test_what_the_provider_asks_to_wait_is_waited_by_every_worker(world: World):
    server = Server(world, Stern(20), says_when=True)
    world.run(*crew(server, 60, workers=4, threads=10))
    first = server.refused[0] + 0.1
    assert len({name for at, name, _ in server.calls if at < first}) == 4
    assert not [at for at, _, _ in server.calls if first + paces.LEASE < at < first + 3]
    assert {name for at, name, _ in server.calls if at >= first + 3} == {"0", "1", "2", "3"}


def test_a_worker_that_comes_later_waits_too_and_begins_at_the_rate_that_is_known(world: World):
    server = Server(world, Sliding(20), says_when=True)
    world.run(*crew(server, 100))
    before = len(server.refused)
    world.run(*crew(server, 100))
    assert len(server.refused) == before


def test_a_budget_is_forgotten_when_nobody_came_for_long(world: World):
    world.run(*crew(Server(world, Sliding(20)), 60))
    world.now += paces.KEPT + 1
    server = Server(world, Unlimited())
    assert world.run(*crew(server, 1000)) <= 2.5


def test_models_and_organisations_have_budgets_of_their_own(world: World):
    world.run(*crew(Server(world, Sliding(20)), 60))

    def look() -> None:
        assert Shared(**ONE).read()[0].limited
        assert not Shared("org_2", ONE["model"]).read()[0].limited
        assert not Shared(ONE["org"], "openai:acme/other").read()[0].limited

    world.run(look)


def test_refusals_that_do_not_follow_the_rate_do_not_stop_the_work(world: World):
    class Moody(Unlimited):
        chance = random.Random(3)

        def accepts(self, now: float) -> bool:
            return self.chance.random() > 0.3

    server = Server(world, Moody(), retry_after=1)
    assert world.run(*crew(server, 200)) <= 250
    for at in server.refused:
        early = [other for other, _, _ in server.calls if at + 0.1 + 1e-6 < other < at + 1.1 - 1e-6]
        assert not early, f"called at {early} though refused at {at}"


def test_when_everything_was_refused_for_a_while_the_rate_comes_back(world: World):
    server = Server(world, Changing((0, 50), (3, 0), (13, 50)), retry_after=1)
    world.run(*crew(server, 1500))
    assert len([at for at in server.refused if 5 < at < 13]) <= 10
    assert server.accepted_between(14, 24) >= 0.8 * 50 * 10


def test_a_slow_model_is_not_waited_for_at_the_start(world: World):
    server = Server(world, Unlimited(), latency=lambda: 10.0)
    assert world.run(*crew(server, 100, threads=100)) <= 20


def test_fewer_calls_are_under_way_after_failures(world: World):
    pace = paced(world)
    times: list[float] = []

    def fail() -> None:
        while len(times) < 40 and pace.take(START + 60):
            times.append(world.now - START)
            world.sleep(0.1)
            pace.failed()

    world.run(*[fail] * THREADS)
    assert len([at for at in times if at < 0.05]) <= 5
    assert len([at for at in times if 1 < at < 1.95]) <= 10


def test_a_table_that_cannot_be_reached_leaves_each_worker_to_its_own_pace(world: World, memory: Memory):
    def unreachable(operation: str) -> None:
        world.sleep(0.5)
        raise EndpointConnectionError(endpoint_url="https://dynamodb")

    memory.before = unreachable
    server = Server(world, Unlimited())
    assert world.run(*crew(server, 1000)) <= 3.5
    capped = Server(world, Sliding(20), says_when=True)
    assert world.run(*crew(capped, 100)) <= 9
    assert len(capped.refused) <= 30


def test_workers_find_together_again_when_the_table_is_back(world: World, memory: Memory):
    def away(operation: str) -> None:
        if 2 < world.now - START < 8:
            raise EndpointConnectionError(endpoint_url="https://dynamodb")
        world.sleep(0.005)

    memory.before = away
    server = Server(world, Sliding(20), says_when=True)
    assert world.run(*crew(server, 500, workers=4)) <= 45
    late = [at for at in server.refused if at > 15]
    assert len(late) <= 15


def test_clocks_that_differ_a_little_do_no_harm(world: World):
    server = Server(world, Sliding(20), says_when=True)
    work = list(range(300))
    clocks = [paced(world, ahead=0.02 * number) for number in range(4)]
    took = world.run(*[worker(server, pace, work) for pace in clocks for _ in range(THREADS)])
    assert took <= 20
    assert len(server.calls) <= 340


def test_nothing_is_waited_for_that_comes_after_the_deadline(world: World):
    pace = paced(world)
    told: list[tuple[bool, float]] = []

    def ask() -> None:
        assert pace.take(START + 1)
        pace.throttled(30)
        told.append((pace.take(START + 20), world.now - START))

    world.run(ask)
    assert told == [(False, pytest.approx(0.015, abs=0.011))]


def test_a_thread_that_never_said_what_came_of_its_call_takes_no_place(world: World):
    pace = paced(world, threads=1)
    taken: list[bool] = []

    def ask() -> None:
        for _ in range(3):
            taken.append(pace.take(world.now + 1))

    world.run(ask)
    assert taken == [True, True, True]


def test_no_number_is_given_twice_however_many_take_them(memory: Memory):
    shared = Shared(**ONE)
    budget, _ = shared.join(START)
    shared.change(budget, paces.pacing.limited(budget, 20, START, START, None), START)
    limited, _ = shared.read()

    def take(_: int) -> list[int]:
        after = shared.take(limited, 3, START + 0.1)
        return list(range(after.taken - 3, after.taken))

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for taken in pool.map(take, range(40)) for number in taken]
    assert sorted(numbers) == list(range(120))


class Capped(ThreadingHTTPServer):
    """Answers after 50 ms, at most `cap` calls in each second of the clock; the others get 429 and Retry-After."""

    daemon_threads = True

    def __init__(self, cap: int) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.cap = cap
        self.lock = threading.Lock()
        self.seen: dict[int, int] = {}
        self.refused = 0


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Capped

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        second = int(time.time())
        with self.server.lock:
            self.server.seen[second] = self.server.seen.get(second, 0) + 1
            full = self.server.seen[second] > self.server.cap
            self.server.refused += full
        time.sleep(0.05)
        body = json.dumps({"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}).encode()
        self.send_response(429 if full else 200)
        if full:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_capped_endpoint_is_called_in_real_time_by_real_threads():
    calls, cap = 160, 40
    prompt = Prompt("", [Message(role="user", content="Well?")])
    with Capped(cap) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        serving.start()
        model = OpenAI(Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1"), "m")
        crew = [Pace(**ONE, concurrency=16) for _ in range(2)]
        started = time.monotonic()

        def ask(number: int) -> int:
            pace, tries = crew[number % 2], 0
            while True:
                tries += 1
                assert pace.take(started + 60)
                try:
                    model.complete(prompt)
                except Throttled as refused:
                    pace.throttled(refused.retry_after)
                else:
                    pace.succeeded()
                    return tries

        with ThreadPoolExecutor(32) as pool:
            tries = sum(pool.map(ask, range(calls)))
        took = time.monotonic() - started
        server.shutdown()
        serving.join()
    assert tries == calls + server.refused
    assert server.refused <= 60
    assert took <= 3 * calls / cap
