"""What happens to the targets, and when: the scenarios as data.

The trouble always befalls target `a`, which `priority` takes first and `cost` finds the cheapest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.simulation.world import Site, Weather

STRATEGIES = ("priority", "weighted", "least_busy", "latency", "cost", "affinity")

SITES = (
    Site("a", median=0.4, price=1.0),
    Site("b", median=0.5, price=2.0),
    Site("c", median=0.6, price=3.0),
)
# Engines of one's own: so many answers at a time, the other calls queue there.
NARROW = tuple(replace(site, median=0.25, slots=8) for site in SITES)


@dataclass(frozen=True, slots=True)
class Phase:
    """A while of the same weather.

    Attributes:
        name: "trouble" is what the numbers are of.
        seconds: how long.
        rate: requests a second, on average (Poisson).
        weather: of the targets that do not do as usual.
        label: what it is about, in a few words for a legend; empty if there is nothing to say.
    """

    name: str
    seconds: float
    rate: float = 70.0
    weather: Mapping[str, Weather] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A play for the gateway.

    Attributes:
        name: of its picture.
        title: of its picture, for people.
        what: it is about, for the document.
        phases: one after the other, among them "trouble".
        settings: sections of the configuration, as YAML; everything else is the gateway's default.
        model: settings of the public model, likewise.
        sites: the targets.
        patience: seconds until the caller's deadline.
        contrast: attributes with other values, to show beside; empty if nothing is.
        contrast_label: what they do, in a few words.
    """

    name: str
    title: str
    phases: Sequence[Phase]
    settings: str = ""
    model: str = ""
    sites: Sequence[Site] = SITES
    patience: float = 30.0
    contrast: Mapping[str, str] = field(default_factory=dict)
    contrast_label: str = ""

    def shortened(self, *seconds: float, rate: float | None = None) -> Scenario:
        """The same with phases of other lengths, and perhaps another rate, for quick tests."""
        phases = [
            replace(phase, seconds=length, rate=phase.rate if rate is None else rate)
            for phase, length in zip(self.phases, seconds, strict=True)
        ]
        return replace(self, phases=phases)

    def contrasted(self) -> Scenario:
        """The one to show beside."""
        return replace(self, **self.contrast)  # type: ignore[arg-type]


def _befalls_a(weather: Weather, label: str) -> list[Phase]:
    trouble = Phase("trouble", 40.0, weather={"a": weather}, label=label)
    return [Phase("calm", 20.0), trouble, Phase("recovery", 40.0)]


_DOWN = {
    "a": Weather(trouble="errors"),
    "b": Weather(trouble="refuses"),
    "c": Weather(trouble="overload"),
}
_B_UP = {name: weather for name, weather in _DOWN.items() if name != "b"}

SCENARIOS = (
    Scenario(
        "steady",
        "Nothing goes wrong",
        [Phase("calm", 20.0), Phase("trouble", 20.0), Phase("recovery", 20.0)],
    ),
    Scenario(
        "slow",
        "One target becomes ten times slower",
        _befalls_a(Weather(slower=10.0), "a takes ten times as long"),
    ),
    Scenario(
        "failing",
        "One target fails at once",
        _befalls_a(Weather(trouble="errors"), "a answers 500"),
    ),
    Scenario(
        "hanging",
        "One target hangs",
        _befalls_a(Weather(trouble="hangs"), "a hangs"),
        settings="timeouts: {first_byte: 5s}",
        contrast={"model": "hedge: {after: 1.5s}"},
        contrast_label="with hedging after 1.5 s",
    ),
    Scenario(
        "limited",
        "One target limits its rate",
        _befalls_a(Weather(per_second=5.0, retry_after=5.0), "a answers 429"),
    ),
    Scenario(
        "outage",
        "Every target is down",
        [
            Phase("calm", 20.0),
            Phase("trouble", 40.0, weather=_DOWN, label="all are down"),
            Phase("partly", 20.0, weather=_B_UP, label="b is back"),
            Phase("recovery", 40.0),
        ],
    ),
    Scenario(
        "overload",
        "More requests than the targets can serve",
        [
            Phase("calm", 20.0, 50.0),
            Phase("trouble", 40.0, 140.0, label="140 requests a second"),
            Phase("recovery", 40.0, 50.0),
        ],
        settings="concurrency: {adaptive: true}",
        sites=NARROW,
        contrast={"settings": ""},
        contrast_label="without a limit",
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
