"""What a soak run does to its workers and their broker: seeded, spread over the whole run, and written down."""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.fault_points import Fault

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.support.kafka_server import KafkaServer
    from tests.support.members import Member
    from tests.support.soak_environment import Site

RANDOM = "random instant"
AT_START = ("loading", "recovering")  # points that a worker passes before its first commit
POINTS = (
    *("before produce", "after produce", "before commit", "after commit") * 3,
    *("making a snapshot", "writing a snapshot", *AT_START) * 2,
    *(RANDOM,) * 6,
)
NETWORK = ("cut", "half closed", "cut", "delayed", "blocked")
BROKER = ("killed", "frozen", *NETWORK[:2], "killed", "cut", "delayed", "killed", "blocked", "stopped for 25 s")
LEAST_PATIENCE_S = 20.0  # then a point that is not reached is given up for a random instant
STUCK_S = 60.0  # without progress although there is work: Kafka may need somebody to start it again
HOPELESS_S = 600.0
OUT_OF_SYNC = "out of sync with the underlying log"  # a coordinator of Kafka that will not load any more
QUIET_S = 8.0  # without progress, after the last fault: all is done
SESSION_S = 6.0


def spread(kinds: tuple[str, ...], count: int, random_: random.Random) -> deque[str]:
    """So many, each about as often as it stands in ``kinds``, in random order."""
    return deque(random_.sample(kinds * (count // len(kinds) + 1), count))


def step_boundaries(count: int, total: int, random_: random.Random) -> deque[int]:
    """Progress at which each is due."""
    return deque(sorted(random_.randint(total // 100, total * 97 // 100) for _ in range(count)))


@dataclass
class Slot:
    """A place that always has a worker."""

    broker: dict[str, object]
    member: Member | None = None
    kind: str = RANDOM
    dying_until: float | None = None
    paused_until: float | None = None


@dataclass
class Harm:
    """Drives a run until every fault has happened and the work is done.

    Args:
        site: Where the workers work.
        random_: All choices come from it; what they meet also depends on the machine's pace.
        total: Scores to come.
        progress: How many are there by now.
        kills: How many.
        server: Kafka; None without.
        broker_faults: How many.
        say: Called with a line for every fault.
    """

    site: Site
    random_: random.Random
    total: int
    progress: Callable[[], int]
    kills: int
    server: KafkaServer | None = None
    broker_faults: int = 0
    say: Callable[[str], None] = print
    killed: Counter[str] = field(default_factory=Counter)
    harmed: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)  # stalls, joins and leaves

    def run(self) -> None:
        self._began = time.monotonic()
        self._kinds = spread(POINTS, self.kills, self.random_)
        self._kill_marks = step_boundaries(self.kills, self.total, self.random_)
        self._broker_kinds = spread(BROKER, self.broker_faults, self.random_)
        self._broker_marks = step_boundaries(self.broker_faults, self.total, self.random_)
        self._stall_marks = step_boundaries(self.broker_faults // 5, self.total, self.random_)
        self._guest_marks = step_boundaries(self.broker_faults // 3, self.total, self.random_)
        self._broker_fault: Iterator[float] | None = None
        self._broker_due = 0.0
        self._guest: Member | None = None
        several = self.server is not None
        # one worker is known to its group by name and comes back at once, the other is missed for a session first
        self._slots = [Slot({"instance_id": "first"}), Slot({})] if several else [Slot({})]
        done, since = -1, time.monotonic()
        self._moved = since
        try:
            while True:
                now, before = time.monotonic(), done
                done = max(done, self.progress())
                if done != before:
                    since = self._moved = now
                busy = self._advance(done)
                if busy:
                    since = now
                elif now - since > QUIET_S:
                    return self._end()
                time.sleep(0.05)
        finally:
            for member in [slot.member for slot in self._slots] + [self._guest]:
                if member is not None:
                    member.kill()

    def _advance(self, done: int) -> bool:
        """Whether there is still something to be done to somebody."""
        self._done = done
        self._harm_broker(done)
        if done < self.total and self._broker_fault is None and time.monotonic() - self._moved > STUCK_S:
            self._unstick(done)
        for slot in self._slots:
            self._look_after(slot, done)
        self._invite(done)
        free = [slot for slot in self._slots if slot.dying_until is None and slot.paused_until is None]
        if self._kill_marks and done >= self._kill_marks[0] and free:
            self._begin_kill(self.random_.choice(free))
        elif self._stall_marks and done >= self._stall_marks[0] and len(free) > 1:
            self._stall_marks.popleft()
            slot = self.random_.choice(free)
            slot.member.pause()
            slot.paused_until = time.monotonic() + SESSION_S + self.random_.uniform(-3, 3)
            self._note(self.others, "worker stopped for a while (SIGSTOP)", done)
        return bool(
            self._kill_marks
            or self._broker_marks
            or self._broker_fault
            or any(slot.dying_until or slot.paused_until for slot in self._slots)
        )

    def _look_after(self, slot: Slot, done: int) -> None:
        now, member = time.monotonic(), slot.member
        if slot.paused_until is not None and now >= slot.paused_until:
            member.resume()
            slot.paused_until = None
        if member is not None and member.poll() is None:
            if slot.dying_until is not None and now >= slot.dying_until:
                if slot.kind != RANDOM:
                    self._kinds.append(slot.kind)  # the point is not reached now; another one shall try
                slot.kind = RANDOM
                member.kill()
            return
        if member is None:
            pass
        elif self._gave_up(member):  # whoever runs it starts it again
            self._note(self.others, "start given up while Kafka was away, and repeated", done)
        elif member.poll() == -signal.SIGKILL and (slot.dying_until is not None or slot.kind in AT_START):
            self._note(self.killed, slot.kind, done)
            if self._kill_marks:
                self._kill_marks.popleft()
        else:
            raise RuntimeError(f"a worker ended by itself with {member.poll()}:\n{member.said()[-3000:]}")
        self._start(slot)

    def _gave_up(self, member: Member) -> bool:
        return member.poll() == 1 and "No Kafka broker answered" in member.said()

    def _start(self, slot: Slot) -> None:
        left = len(self._kill_marks) - sum(one.dying_until is not None for one in self._slots if one is not slot)
        slot.kind = self._kinds.popleft() if self._kinds and left > 0 else RANDOM
        slot.dying_until = None
        fault = None
        if slot.kind in AT_START:
            fault = Fault(slot.kind, at=self.random_.randint(1, 2))
            slot.dying_until = time.monotonic() + LEAST_PATIENCE_S
        elif slot.kind != RANDOM:
            fault = Fault(slot.kind, at=self.random_.randint(1, 3), dormant=True)
        slot.member = self.site.member(fault, **slot.broker)

    def _begin_kill(self, slot: Slot) -> None:
        if slot.kind == RANDOM:
            slot.dying_until = time.monotonic() + self.random_.uniform(0, 0.5)
        else:
            slot.member.rouse()
            patience_s = LEAST_PATIENCE_S if self._done < self.total else 1.0
            slot.dying_until = time.monotonic() + patience_s

    def _invite(self, done: int) -> None:
        """A third worker joins, and leaves in good order."""
        if self._guest is not None and self._gave_up(self._guest):
            self._guest = None
        if not self._guest_marks or done < self._guest_marks[0]:
            return
        if self._guest is not None and (self._broker_fault is not None or "shards assigned" not in self._guest.said()):
            return  # it is still joining, or could not leave before Kafka is there again
        self._guest_marks.popleft()
        if self._guest is None:
            self._guest = self.site.member()
            self._note(self.others, "third worker joined", done)
        else:
            self._guest.terminate()
            if self._guest.wait() != 0:
                raise RuntimeError(f"a worker did not leave in good order:\n{self._guest.said()[-3000:]}")
            self._guest = None
            self._note(self.others, "third worker left", done)

    def _harm_broker(self, done: int) -> None:
        now = time.monotonic()
        if self._broker_fault is not None and now >= self._broker_due:
            if (pause := next(self._broker_fault, None)) is None:
                self._broker_fault = None
            else:
                self._broker_due = time.monotonic() + pause
        elif self._broker_fault is None and self._broker_marks and done >= self._broker_marks[0]:
            self._broker_marks.popleft()
            kind = self._broker_kinds.popleft()
            self._note(self.harmed, kind, done)
            self._broker_fault, self._broker_due = self._fault(kind), 0.0

    def _unstick(self, done: int) -> None:
        """Do what its operator would do to a Kafka that says in its log what it needs; only to such a one."""
        if self.server is not None and OUT_OF_SYNC in self.server.said():
            self._note(self.others, "Kafka restarted, since a coordinator of it did not load", done)
            self.server.restart()
            self._moved = time.monotonic()
        elif time.monotonic() - self._moved > HOPELESS_S:
            said = "\n".join(slot.member.hangs() for slot in self._slots if slot.member is not None)
            raise RuntimeError(f"no progress for {HOPELESS_S:.0f} s, with {done} scores; the workers:\n{said}")

    def _fault(self, kind: str) -> Iterator[float]:
        """What is done to the broker, with pauses."""
        server, uniform = self.server, self.random_.uniform
        if kind == "killed":
            server.kill()
            yield uniform(0, 2)
            server.start()
        elif kind.startswith("stopped"):
            server.stop()
            yield 25
            server.start()
        elif kind == "frozen":
            server.pause()
            yield uniform(1, 12)
            server.resume()
        elif kind == "delayed":
            server.proxy.delay(uniform(0.05, 0.4))
            yield uniform(2, 5)
            server.proxy.delay(0)
        elif kind == "blocked":
            server.proxy.block()
            yield uniform(1, 10)
            server.proxy.unblock()
        else:
            for _ in range(self.random_.randint(1, 5)):
                server.proxy.cut() if kind == "cut" else server.proxy.half_close()
                yield uniform(0, 0.5)

    def _note(self, counter: Counter[str], what: str, done: int) -> None:
        counter[what] += 1
        passed, kills, faults = time.monotonic() - self._began, sum(self.killed.values()), sum(self.harmed.values())
        self.say(f"{passed:7.1f} s {done:>9,} scores {kills:>4} kills {faults:>3} broker faults: {what}")

    def _end(self) -> None:
        for slot in self._slots:
            slot.member.stop()
            slot.member = None
        if self._guest is not None and not self._gave_up(self._guest):
            self._guest.stop()
        self._guest = None
