"""States that take time, without waiting: counted in looks at the resource or in seconds of a clock that tests control."""

import time
from dataclasses import dataclass


class Clock:
    """Simulated seconds since the start: wall time × rate, plus what it was advanced by."""

    def __init__(self, rate=1.0):
        self.rate = rate
        self._base = 0.0
        self._since = self._origin = time.monotonic()

    def now(self):
        return self._base + (time.monotonic() - self._since) * self.rate

    def offset(self):
        """How far it is ahead of wall time."""
        return self.now() - (time.monotonic() - self._origin)

    def advance(self, seconds):
        self._base += seconds

    def set_rate(self, rate):
        self._base, self._since, self.rate = self.now(), time.monotonic(), rate


class SpecError(ValueError):
    """A test asked for something that there is not."""


@dataclass
class Hold:
    """How long something stays as it is: seen `polls` times, or `seconds` of the clock, or for ever."""

    polls: int | None = 0
    seconds: float | None = None
    started: float = 0.0

    @classmethod
    def parse(cls, spec):
        """`{"polls": 2}`, `{"seconds": 30}` or `"never"` (never ends)."""
        if spec == "never":
            return cls(polls=None)
        if isinstance(spec, dict) and len(spec) == 1:
            (kind, value), = spec.items()
            if isinstance(value, (int, float)) and value >= 0 and kind in ("polls", "seconds"):
                return cls(polls=int(value)) if kind == "polls" else cls(polls=None, seconds=float(value))
        raise SpecError(f'{spec!r} is not {{"polls": n}}, {{"seconds": s}} or "never"')

    def begin(self, now):
        return Hold(self.polls, self.seconds, now)

    def is_over(self, now):
        if self.seconds is not None:
            return now >= self.started + self.seconds
        return self.polls == 0

    def seen(self):
        if self.polls:
            self.polls -= 1


class Machine:
    """A row of states; all but the last are held for some time."""

    def __init__(self, states, holds, now):
        """`holds` has one `Hold` for each state but the last."""
        self.states = states
        self._holds = holds
        self._index = 0
        self._seen = 0
        self._polls = holds[0].polls if holds else 0
        self._hold = holds[0].begin(now) if holds else None

    @property
    def state(self):
        return self.states[self._index]

    @property
    def done(self):
        return self._index == len(self.states) - 1

    def settle(self, now, force=False):
        """Goes on to the next states whose time has come; yields each as it is entered."""
        while not self.done and (force or self._hold.is_over(now)):
            self._index += 1
            if not self.done:
                self._hold = self._holds[self._index].begin(now)
            yield self.state

    def seen(self):
        """Somebody looked."""
        if not self.done:
            self._hold.seen()
            self._seen += 1

    def jump(self, state):
        """Ends in this state now."""
        self.states, self._index, self._hold = [state], 0, None

    def percent(self, now):
        """How much of the current state's time is over, below 100."""
        if self.done:
            return 100
        if self._hold.seconds:
            return max(0, min(99, int(100 * (now - self._hold.started) / self._hold.seconds)))
        return 100 * self._seen // (self._polls + 1) if self._polls else 0


class Timing:
    """How long states are held. Each is seen once unless told otherwise."""

    KINDS = (
        "volume.creating",
        "volume.attaching",
        "volume.detaching",
        "volume.modifying",
        "volume.optimizing",
        "snapshot.pending",
        # From `attached` until the kernel has the device.
        "device.appearing",
        "refresh.pending",
        "refresh.in-progress",
        "refresh.rolling-back",
    )

    def __init__(self):
        self._holds = {kind: Hold(polls=1) for kind in self.KINDS}
        self._holds["device.appearing"] = Hold(polls=0)

    def set(self, specs):
        unknown = set(specs) - set(self.KINDS)
        if unknown:
            raise SpecError(f"no such state: {', '.join(sorted(unknown))}; there are {', '.join(self.KINDS)}")
        self._holds.update({kind: Hold.parse(spec) for kind, spec in specs.items()})

    def hold(self, kind, spec=None):
        """For the state of this kind, or what a fault said instead."""
        return self._holds[kind] if spec is None else Hold.parse(spec)
