"""Settings of a simulated dataset, and what follows from them for each participant and visit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tau_pipeline.errors import SettingError
from tau_pipeline.simulate.heads import HeadDraw
from tau_pipeline.simulate.pet import PetDraw

PetKind = Literal["static", "dynamic", "mixed"]
_FRAME_COUNT = 4
#: Axis order and direction in which T1w images are stored, in turn.
_STORED = ("RAS", "LAS", "PSR", "LIA")


@dataclass(frozen=True)
class Simulation:
    """Settings of `simulate_dataset`.

    Attributes
    ----------
    participants
        How many, 1 to 999.
    seed
        Any integer from 0.
    voxel_mm
        Voxel size of the T1w images, 0.8 to 4 mm; PET follows where it is over 2.
    pet
        All scans static, all dynamic, or some of each.
    sessions
        Whether every third participant has two sessions (in every other of these, the second has no T1w image).
    visits
        Sessions of each participant, a year apart, 1 to 9; with 2 or more, ``sessions`` does not count, and every one
        has a T1w image. The head lies otherwise at each, and the scanner is the same.
    annual_change
        Change of the uptake of the temporal tau regions in a year, in percent of the first visit, -20 to 20; that of
        other cortex is half of it. Needs ``visits``. 0, the default, changes neither uptake nor tissue.
    annual_atrophy
        Thickness that the cortex loses in a year beside what tau takes, mm, 0 to 0.3; the ventricles grow with it.
    t1w_differs
        Whether contrast, noise, coil, and motion of the T1w differ between the visits, as where a protocol was changed;
        needs ``visits``. PET stays as it is.
    scanner_bias
        Error of the scanners in the posterior fossa, 0 to 0.5: none, plus and minus this share of the activity for
        the three. 0, the default, leaves the SUVR of all scanners comparable but for resolution and noise.
    p_tau217
        Whether participants.tsv has plasma p-tau217, which follows the amount of tau.

    Raises
    ------
    SettingError
        A value is out of its range.
    """

    participants: int = 4
    seed: int = 0
    voxel_mm: float = 1.0
    pet: PetKind = "mixed"
    sessions: bool = False
    scanner_bias: float = 0.0
    p_tau217: bool = False
    visits: int = 1
    annual_change: float = 0.0
    annual_atrophy: float = 0.0
    t1w_differs: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.participants <= 999:
            raise SettingError(f"participants is {self.participants}; give a number from 1 to 999")
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}; give 0 or a positive number")
        if not 0.8 <= self.voxel_mm <= 4:
            raise SettingError(f"voxel size is {self.voxel_mm} mm; give a size from 0.8 to 4 mm")
        if self.pet not in get_args(PetKind):
            raise SettingError(f"pet is {self.pet!r}; give one of {', '.join(get_args(PetKind))}")
        if not 0 <= self.scanner_bias <= 0.5:
            raise SettingError(f"scanner bias is {self.scanner_bias}; give a share from 0 to 0.5")
        self._check_visits()

    def _check_visits(self) -> None:
        if not 1 <= self.visits <= 9:
            raise SettingError(f"the number of sessions is {self.visits}; give a number from 1 to 9")
        if not -20 <= self.annual_change <= 20:
            raise SettingError(f"annual change is {self.annual_change} %; give a percentage from -20 to 20")
        if not 0 <= self.annual_atrophy <= 0.3:
            raise SettingError(f"annual atrophy is {self.annual_atrophy} mm; give a thickness from 0 to 0.3 mm")
        if self.visits == 1 and (self.annual_change or self.annual_atrophy or self.t1w_differs):
            raise SettingError("a change between visits needs several; add --sessions with a number from 2")


@dataclass(frozen=True)
class Plan:
    """Properties that follow from the number of a participant: group, scanner, kind of scan, sessions."""

    label: str
    group: str
    scanner: int
    frames: int
    moves: bool
    sessions: tuple[str | None, ...]
    t1w_sessions: tuple[str | None, ...]
    stored: str
    yearly: bool = False


@dataclass(frozen=True)
class Visit:
    """The draws of one visit; ``head`` is that of the first visit where this one has no T1w image."""

    session: str | None
    has_t1w: bool
    burden: float
    head: HeadDraw
    uptake: dict[int, float]
    pet: PetDraw | None
    years: float = 0.0


def plan_participant(number: int, settings: Simulation) -> Plan:
    """Settle what participant ``number`` (from 1) is; groups and manufacturers are crossed in every nine.

    The first four show the kinds: a static scan, a dynamic one with motion, a static one with much tau, no PET.
    """
    turn = number - 1
    dynamic = {"static": False, "dynamic": True, "mixed": number % 4 == 2 or number % 5 == 0}[settings.pet]
    yearly = settings.visits > 1
    two = settings.sessions and number % 3 == 2 and not yearly
    sessions: tuple[str | None, ...] = ("01", "02") if two else (None,)
    if yearly:
        sessions = tuple(f"{count:02d}" for count in range(1, settings.visits + 1))
    return Plan(
        label=f"sub-{number:02d}",
        group=("MCI", "CN", "AD")[(turn + turn // 3) % 3],
        scanner=turn % 3,
        frames=0 if number == 4 else _FRAME_COUNT if dynamic else 1,
        moves=number % 5 != 0,
        sessions=sessions,
        t1w_sessions=("01",) if two and number % 6 == 5 else sessions,
        stored=_STORED[turn % len(_STORED)],
        yearly=yearly,
    )
