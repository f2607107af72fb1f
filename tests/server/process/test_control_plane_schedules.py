"""A control plane under random schedules: what must hold whatever happens in which order."""

import random

import pytest

from convserve_server.core.policies import ModelPolicy
from tests.server.process.fake_members import FakeServer

STEPS = 400


class Schedule:
    """One server, to which a random thing happens at each step.

    The newest version of mnist only ever grows, but for versions that turn out to be bad: those are
    never served. So once a worker has answered with a version, none may answer with an older one.
    Unless all have ended: a version that then cannot be loaded again gives way to an older one.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        workers = self.random.choice([1, 2, 3])
        policy = ModelPolicy(versions=self.random.choice([1, 2]))
        self.server = FakeServer(workers, mnist=policy)
        self.slots = workers
        self.published = 0
        self.newest_answer = 0
        self.deaths = 0

    def step(self) -> None:
        happens = self.random.choices(
            [self.publish, self.scan, self.read, self.load, self.die, self.start, self.wait],
            [3, 6, 40, 12, 1, 4, 4],
        )[0]
        happens()
        self.check()

    def publish(self) -> None:
        self.published += 1
        name = self.random.choice(["mnist", "cats"])
        self.server.put(f"{name}/{self.published}")

    def scan(self) -> None:
        self.server.scan()

    def read(self) -> None:
        if busy := [worker for worker in self.server.workers.values() if worker.inbox]:
            self.random.choice(busy).read()

    def load(self) -> None:
        if busy := [worker for worker in self.server.workers.values() if worker.loading]:
            worker = self.random.choice(busy)
            if self.random.random() < 0.1:
                worker.fail()
            else:
                worker.finish(at=self.random.randrange(len(worker.loading)))

    def die(self) -> None:
        if self.server.workers:
            key = self.random.choice(list(self.server.workers))
            self.server.kill(key, explained=self.random.random() < 0.5)

    def start(self) -> None:
        if len(self.server.workers) < self.slots:
            self.deaths += 1
            self.server.start(f"again {self.deaths}")

    def wait(self) -> None:
        self.server.wait(self.random.choice([0.1, 3.0, 31.0]))

    def check(self) -> None:
        """No worker that accepts calls answers with less than any has answered with before."""
        if not any(member.admitted for member in self.server.plane.members.values()):
            self.newest_answer = 0
        serving = [worker for worker in self.server.workers.values() if worker.listens]
        self.random.shuffle(serving)
        for worker in serving:
            version = worker.answer() or 0
            assert version >= self.newest_answer or not version
            if self.newest_answer and len(serving) > 1:
                tables = {one.answer() for one in serving}
                assert len(tables) == 1
            self.newest_answer = max(self.newest_answer, version)

    def finish(self) -> None:
        """Let everything come to its end; nothing may be left undone."""
        for _ in range(self.slots - len(self.server.workers)):
            self.start()
        for _ in range(4):
            self.server.scan()
            self.server.settle()
            self.server.wait(31.0)
            self.server.settle()
        plane = self.server.plane
        tables = [worker.table for worker in self.server.workers.values()]
        assert all(worker.listens for worker in self.server.workers.values())
        assert all(table == plane.table for table in tables)
        assert plane.table.bundles == set(plane.wanted())
        assert plane.table.loading == ()
        for worker in self.server.workers.values():
            assert worker.loaded == plane.table.bundles
        assert not any(member.retiring for member in plane.members.values())


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_no_worker_answers_with_an_older_version_than_any_has_before(first: int) -> None:
    for seed in range(first, first + 40):
        schedule = Schedule(seed)
        for _ in range(STEPS):
            schedule.step()
        schedule.finish()
