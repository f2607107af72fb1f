"""Decides what all workers serve. It does no input or output; its owner tells it what happens.

    in the folder ──one worker──▶ prepared ──all workers──▶ staged by all ──one write──▶ served
                      └─failed, died, hung──▶ refused, for all            └─later table──▶ retired

A version is loaded by one worker first, so that a file that ends a worker ends only one. When all
workers have a version, they are sent the next table; when all have that, its number is written to
memory that they share, and from then on it counts for all. One table at a time.

A worker that starts later loads all that is served, and is sent the table, before it may accept
calls: no call meets a worker that lacks what others serve.
"""

import logging
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import replace

from convserve_server.core.descriptions import Findings
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.tables import Bundle, IdleModel, Table
from convserve_server.process.idle import IdleModels
from convserve_server.process.labels import log_moves
from convserve_server.process.loads import Load, Loads
from convserve_server.process.members import Member
from convserve_server.process.memory_check import MemoryCheck
from convserve_server.process.messages import Commit, Listen, Prepare, Retire, Stage
from convserve_server.process.refusals import Refusals
from convserve_server.process.scan import Interest, Scan
from convserve_server.process.times import TimesByBundle
from convserve_server.process.too_large import TooLarge
from convserve_server.process.wishes import Wish, Wishes

log = logging.getLogger(__name__)

ToMember = Prepare | Stage | Commit | Retire | Listen

#: Until a model that is slow to load no longer keeps the others waiting, s.
PATIENCE_S = 5.0
#: Until a worker tries again to load what others serve and it could not, s.
_RETRY_S = 30.0


class ControlPlane:
    """The state of all workers. Not thread-safe; times are of time.monotonic().

    Args:
        policy: What the operator wants of a model, by its name.
        send: Sends a worker a message.
        write: Writes the number of the table that counts to the memory that all workers share.
        times: Keeps the times of batches.
        read_soon: Called when there is something to scan for; see interest.
        memory: Says whether there is memory for a bundle.
    """

    def __init__(
        self,
        policy: Callable[[str], ModelPolicy],
        send: Callable[[Hashable, ToMember], None],
        write: Callable[[int], None],
        times: TimesByBundle,
        read_soon: Callable[[], None] = lambda: None,
        memory: MemoryCheck | None = None,
    ) -> None:
        self._send = send
        self._write = write
        self._read_soon = read_soon
        self._times = times
        self._refusals = Refusals()
        self.wishes = Wishes(policy, self._refusals)
        self._too_large = TooLarge(memory or MemoryCheck(), self.wishes, self._refusals)
        #: Models that nobody asks for.
        self.idle = IdleModels()
        #: How long they took to load.
        self.loads = Loads()
        self.members: dict[Hashable, Member] = {}
        #: The table that counts. Empty if no worker serves.
        self.table = Table()
        #: What a scan should look at; replaced as a whole, so other threads may read it.
        self.interest = Interest()
        #: Called after everything that may have changed the table, with the time.
        self.after: Callable[[float], None] = lambda now: None
        # What was tried by a worker, and loaded, by digest.
        self._good: set[str] = set()
        # When each bundle was first sent to a worker.
        self._begun: dict[Bundle, float] = {}
        self._wanted: dict[str, Wish] = {}
        self._looked = False
        # The next table, while workers are sent it, and those that do not have it yet.
        self._next: Table | None = None
        self._waiting: set[Hashable] = set()
        self._generation = 0

    # What happens

    def on_scan(self, scan: Scan | None, now: float) -> None:
        """Notes what is in the models folder; None if it cannot be read."""
        self._looked = True
        if scan is not None:
            self.wishes.on_scan(scan)
        self.advance(now)

    def on_join(self, key: Hashable, now: float) -> None:
        """Notes a worker that can load models."""
        self.members[key] = Member(key, heard=now)
        self.advance(now)

    def on_loading(self, key: Hashable, bundle: Bundle, now: float) -> None:
        """Notes that a worker begins to load what it was sent."""
        self.members[key].loading[bundle] = now

    def on_prepared(self, key: Hashable, bundle: Bundle, findings: Findings, now: float) -> None:
        """Notes that a worker has loaded what it was sent."""
        member = self.members[key]
        load_s = now - member.preparing.get(bundle, now)
        self.idle.on_loaded(bundle, findings.description, load_s)
        provider = findings.description.provider
        self.loads.note(bundle, Load(load_s, findings.memory_bytes, provider))
        self._end_loading(member, bundle, now)
        member.prepared.add(bundle)
        if not self._times.get(bundle):
            self._times.put(bundle, findings.batch_s)
        if bundle.digest not in self._good:
            self._good.add(bundle.digest)
            if findings.advice:
                log.warning("%s: %s", bundle, findings.advice)
            others = sum(
                not one.leaving and bundle not in one.prepared for one in self.members.values()
            )
            if self._too_large.refuse_others(bundle, findings.memory_bytes, others):
                self._good.discard(bundle.digest)
        self.advance(now)

    def on_failed(self, key: Hashable, bundle: Bundle, reason: str, now: float) -> None:
        """Notes that a worker could not load what it was sent.

        Where others serve it, that is its own failure. If nobody does, it is refused for all: half
        of the workers would answer otherwise.
        """
        member = self.members[key]
        self._end_loading(member, bundle, now)
        if bundle in self._promised():
            member.failed[bundle] = now
        else:
            self._refusals.refuse(bundle, reason)
        self.advance(now)

    def on_used(self, key: Hashable, names: Collection[str], now: float) -> None:
        """Notes that calls have asked a worker for these models since it last reported, or none."""
        if key in self.members:
            self.members[key].heard = now
        self.idle.on_used(names, now)

    def on_wanted(self, name: str, now: float) -> None:
        """Notes that a call waits for a model that is idle."""
        self.idle.wake(name, now)
        self.advance(now)

    def on_staged(self, key: Hashable, generation: int, now: float) -> None:
        """Notes that a worker has a table."""
        self.members[key].staged = generation
        if self._next is not None and generation == self._next.generation:
            self._waiting.discard(key)
        self.advance(now)

    def on_retired(self, key: Hashable, bundle: Bundle) -> None:
        """Notes that a worker has unloaded a bundle."""
        self.members[key].retiring.discard(bundle)

    def on_leaving(self, key: Hashable, now: float) -> None:
        """Notes that a worker was asked to stop. Until it has, there is no other table."""
        if key in self.members:
            self.members[key].leaving = True
            self.advance(now)

    def on_end(self, key: Hashable, how: str, *, explained: bool, now: float) -> list[Bundle]:
        """Notes that a worker has ended.

        Args:
            key: Of the worker.
            how: It ended, to follow "the worker that loaded it".
            explained: Whether what it was doing is the cause. Somebody who kills a worker by hand
                has nothing against the bundle that it loads.
            now: The time.

        Returns: What is refused from now on, as what ended it.
        """
        member = self.members.pop(key, None)
        if member is None:
            return []
        self._waiting.discard(key)
        # What others serve is not to blame; and of several, one may be innocent.
        promised = self._promised()
        blamed = [bundle for bundle in member.loading if bundle not in promised]
        known = explained and len(member.loading) == 1
        refused = self._refusals.ended(blamed, how, known=known)
        if not self._admitted():
            # Nobody serves, so nothing is promised: the workers begin anew.
            self.table, self._next = Table(self.table.generation), None
            self._waiting.clear()
            self._begun.clear()
        self.advance(now)
        return refused

    def on_policies(self, policy: Callable[[str], ModelPolicy], now: float) -> None:
        """Notes that the operator has changed what is wanted of models."""
        self.wishes.on_policies(policy)
        self.advance(now)

    def excuse(self, late_s: float) -> None:
        """Does not count time against workers in which their messages could not be read."""
        for member in self.members.values():
            member.excuse(late_s)

    def late(self, now: float, limit_s: float) -> list[Hashable]:
        """Returns the workers that were sent the next table longer ago, and do not have it.

        Libraries may block all of a process while they load a model, so that does not count.
        """
        return [
            key
            for key, member in self.members.items()
            if member.sent != member.staged and not member.loading and now - member.since > limit_s
        ]

    # What follows

    def advance(self, now: float) -> None:
        """Does all that can be done; also called now and then, since some of it waits for time."""
        self._too_large.try_again(len(self.members))
        self._wish(now)
        self._prepare(now)
        self._retire()
        if self._next is None:
            self._stage(now)
        if self._next is not None and not self._waiting:
            self._commit(self._next)
            # What was waiting for it.
            self.advance(now)
            return
        self._let_join(now)
        self.after(now)

    @property
    def is_busy(self) -> bool:
        """Whether a worker has yet to load a version, or the next table, that it was sent."""
        return self._next is not None or any(one.preparing for one in self.members.values())

    def wanted(self) -> Iterator[Bundle]:
        """Yields what should be served, by name, then newest first."""
        for wish in self._wanted.values():
            yield from wish.bundles.values()

    def wants(self, name: str, version: int) -> bool:
        """Returns whether a version should be served."""
        wish = self._wanted.get(name)
        path = self.wishes.files(name).get(version)
        return wish is not None and (version in wish.bundles or path in wish.unread)

    def _wish(self, now: float) -> None:
        self._wanted = self.idle.without(
            self.wishes.all(self.table),
            self.table,
            lambda name: self.wishes.policy(name).unload_after_s,
            now,
            # Calls since then are not known yet.
            min((member.heard for member in self.members.values()), default=now),
        )
        unread = frozenset(path for wish in self._wanted.values() for path in wish.unread)
        served = frozenset(model.name for model in self.table.models)
        before, self.interest = self.interest, Interest(served, unread)
        if unread - before.unread:
            self._read_soon()

    def _prepare(self, now: float) -> None:
        """Has workers load: first what is served, then new files, each by one, then by the others.

        A bundle that is new goes to a worker that accepts no calls yet, if there is one.
        """
        for member in self._free(now):
            served = (*_in_order(self.table), *_in_order(self._next))
            any(self._begin_loading(member, bundle, now) for bundle in served)
        free = sorted(self._free(now), key=lambda one: one.admitted)
        new = [one for one in self.wanted() if free and one.digest not in self._good]
        for bundle in new:
            if not self._is_tried(bundle) and not self._too_large.refuse_first(bundle):
                any(self._begin_loading(member, bundle, now) for member in free)
        for member in self._free(now):
            good = (bundle for bundle in self.wanted() if bundle.digest in self._good)
            any(self._begin_loading(member, bundle, now) for bundle in good)

    def _free(self, now: float) -> list[Member]:
        """Returns the workers that can begin to load something."""
        return [one for one in self.members.values() if one.may_load(now, PATIENCE_S)]

    def _begin_loading(self, member: Member, bundle: Bundle, now: float) -> bool:
        path = self.wishes.file(bundle)
        if (
            path is None
            or bundle in member.prepared
            or bundle in member.preparing
            or now - member.failed.get(bundle, -_RETRY_S) < _RETRY_S
            or not member.may_load(now, PATIENCE_S)
        ):
            return False
        member.preparing[bundle] = now
        self._begun.setdefault(bundle, now)
        self._send(member.key, Prepare(bundle, str(path), self._times.get(bundle)))
        return True

    def _end_loading(self, member: Member, bundle: Bundle, now: float) -> None:
        member.preparing.pop(bundle, None)
        member.loading.pop(bundle, None)
        member.failed.pop(bundle, None)
        member.since = now

    def _is_tried(self, bundle: Bundle) -> bool:
        return any(
            bundle.digest == one.digest
            for member in self.members.values()
            for one in member.preparing
        )

    def _retire(self) -> None:
        """Has workers unload what they have prepared in vain."""
        needed = {*self._promised(), *self.wanted()}
        for member in self.members.values():
            for bundle in member.prepared - needed:
                self._drop(member, bundle)
                self._send(member.key, Retire(bundle))
        self._begun = {one: since for one, since in self._begun.items() if one in needed}

    def _drop(self, member: Member, bundle: Bundle) -> None:
        member.prepared.discard(bundle)
        member.retiring.add(bundle)

    def _stage(self, now: float) -> None:
        """Sends the next table to all that serve, if there is one; or the first to one worker."""
        if not self._looked or any(member.leaving for member in self.members.values()):
            return
        members = self._admitted() or self._first(now)
        if not members:
            return
        prepared = set.intersection(*(member.prepared for member in members))
        table = self.wishes.table(self._wanted, self.table, prepared)
        table = self.idle.whole(table, self._wanted)
        table = replace(table, idle=self.idle.models(table, self._labelled))
        if all(member.admitted for member in members) and table.says_the_same(self.table):
            return
        self._generation += 1
        self._next = replace(table, generation=self._generation)
        self._waiting = {member.key for member in members}
        for member in members:
            self._send_table(member, self._next, now)

    def _labelled(self, model: IdleModel) -> IdleModel:
        return self.wishes.labels.labelled(model, self.table)

    def _send_table(self, member: Member, table: Table, now: float) -> None:
        member.sent, member.since = table.generation, now
        self._send(member.key, Stage(table))

    def _first(self, now: float) -> list[Member]:
        """Returns the worker to serve first: it has all that should be, but for what is slow."""
        if any(wish.unread for wish in self._wanted.values()):
            return []
        wanted = set(self.wanted())
        slow = {one for one in wanted if now - self._begun.get(one, now) > PATIENCE_S}
        able = [one for one in self.members.values() if wanted - slow <= one.prepared]
        return sorted(able, key=lambda one: len(wanted - one.prepared))[:1]

    def _commit(self, table: Table) -> None:
        before, self.table, self._next = self.table, table, None
        log_moves(before, table)
        self._write(table.generation)
        for member in self.members.values():
            if member.staged != table.generation:
                continue
            if member.admitted:
                # It served these, so it unloads them by itself.
                for bundle in before.bundles - table.bundles:
                    self._drop(member, bundle)
            self._send(member.key, Commit(table.generation))
            self._admit(member)

    def _let_join(self, now: float) -> None:
        """Sends the table to workers that do not serve yet, and lets those serve that have it."""
        if not self._admitted():
            return
        table = self._next or self.table
        for member in self.members.values():
            if member.admitted:
                continue
            self._note_lacking(member)
            if member.staged == self.table.generation and self._next is None:
                self._send(member.key, Commit(self.table.generation))
                self._admit(member)
            elif member.sent != table.generation and table.bundles <= member.prepared:
                self._send_table(member, table, now)

    def _admit(self, member: Member) -> None:
        if not member.admitted:
            member.admitted, member.lacking = True, ()
            self._send(member.key, Listen())

    def _note_lacking(self, member: Member) -> None:
        """Logs, once, what keeps a worker from serving."""
        lacking = sorted(
            {
                bundle.name
                for bundle in self.table.bundles - member.prepared - member.preparing.keys()
                if bundle in member.failed or self.wishes.file(bundle) is None
            }
        )
        if lacking and tuple(lacking) != member.lacking:
            log.warning(
                "a worker accepts no calls until it has each model that the other workers serve: "
                "%s cannot be loaded",
                ", ".join(lacking),
            )
        member.lacking = tuple(lacking)

    def _admitted(self) -> list[Member]:
        return [member for member in self.members.values() if member.admitted]

    def _promised(self) -> frozenset[Bundle]:
        """Returns what is served, or is about to be."""
        return self.table.bundles | (self._next.bundles if self._next else frozenset())


def _in_order(table: Table | None) -> list[Bundle]:
    return [bundle for model in table.models for bundle in model.versions] if table else []
