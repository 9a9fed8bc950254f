"""Faults by rule: which call, and what happens to it."""

import itertools

from protocol import Ec2Error
from states import Hold, SpecError

# What a rule can do; README.md says what each means.
EFFECTS = {
    "error", "drop", "drop-after", "delay", "stale", "hide", "becomes", "takes", "reason", "unsuccessful", "device", "override",
}
DEVICE = {"present", "serial", "model", "size", "namespace", "controller", "eio", "partition_table", "link_to"}
FIELDS = {"action", "nth", "times", "match", "access_key", "region", "effect"}


class Rule:
    def __init__(self, number, spec):
        unknown = set(spec) - FIELDS
        if unknown or "action" not in spec or "effect" not in spec:
            raise SpecError(f"a rule has action, effect and of {', '.join(sorted(FIELDS))} what it needs, not {sorted(spec)}")
        self.number = number
        self.spec = spec
        self.nth = spec.get("nth", 1)
        # 0: always.
        self.times = spec.get("times", 1)
        self.seen = 0
        self.hits = 0
        self.effect = parse_effect(spec["effect"])

    def matches(self, request):
        spec = self.spec
        return (
            spec["action"] in ("*", request.action)
            and spec.get("access_key", request.access_key) == request.access_key
            and spec.get("region", request.region) == request.region
            and all(request.params.get(name) == value for name, value in spec.get("match", {}).items())
        )

    def count(self):
        """Counts a call that matches; whether it is hit."""
        self.seen += 1
        return self.seen >= self.nth and (self.times == 0 or self.seen < self.nth + self.times)

    def describe(self):
        return {"id": self.number, "seen": self.seen, "hits": self.hits, **self.spec}


def parse_effect(effect):
    if isinstance(effect, str):
        effect = {effect: True}
    unknown = set(effect) - EFFECTS
    if unknown:
        raise SpecError(f"no such effect: {', '.join(sorted(unknown))}; there are {', '.join(sorted(EFFECTS))}")
    for name in ("hide", "takes"):
        if name in effect:
            Hold.parse(effect[name])
    if "error" in effect and "code" not in effect["error"]:
        raise SpecError('an error is {"status": 400, "code": "…", "message": "…"}')
    check_device(effect.get("device", {}))
    return effect


def check_device(spec):
    unknown = set(spec) - DEVICE
    if unknown:
        raise SpecError(f"a device has no {', '.join(sorted(unknown))}; there are {', '.join(sorted(DEVICE))}")


class Faults:
    def __init__(self):
        self.rules = []
        self._numbers = itertools.count(1)

    def add(self, specs):
        """Adds rules, each of which counts calls from now on; returns their numbers."""
        rules = [Rule(next(self._numbers), spec) for spec in (specs if isinstance(specs, list) else [specs])]
        self.rules += rules
        return [rule.number for rule in rules]

    def clear(self):
        self.rules.clear()

    def take(self, request):
        """What happens to this call: the effect of the first rule whose turn it is. All that match count it."""
        hit = [rule for rule in self.rules if rule.matches(request) and rule.count()]
        if not hit:
            return {}
        hit[0].hits += 1
        return hit[0].effect

    def wants_history(self):
        return any("stale" in rule.effect for rule in self.rules)


def raise_error(effect):
    error = effect.get("error")
    if error:
        raise Ec2Error(error["code"], error.get("message", "injected"), error.get("status", 400))
