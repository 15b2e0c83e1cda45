"""Which checkpoints stay: the retention policy, without a file in sight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grilly_optim.checkpoint._payload import Mode

SECONDS_PER_HOUR = 60 * 60


@dataclass(frozen=True)
class Entry:
    """A checkpoint that is there.

    Attributes:
        file: Its name, without a directory.
        size: Its bytes.
        serial: Counts the saves under this name.
        score: Its performance score.
        timestamp: When it was saved, in seconds since the epoch.
    """

    file: str
    size: int
    serial: int
    score: float
    timestamp: float


@dataclass(frozen=True)
class Decision:
    """What a save does to the checkpoints that are there.

    Attributes:
        promoted: The one that becomes permanent, if one does.
        new_is_permanent: Whether the new one does.
        deleted: Those that go.
    """

    promoted: Entry | None
    new_is_permanent: bool
    deleted: list[Entry]


def merit(score: float, mode: Mode) -> float:
    """The score, turned round where low ones are good."""
    return score if mode == "max" else -score


def best_first(entries: Iterable[Entry], mode: Mode) -> list[Entry]:
    """By score; of equal ones the newest first."""
    return sorted(entries, key=lambda e: (merit(e.score, mode), e.timestamp, e.serial), reverse=True)


def decide(
    entries: list[Entry],
    permanent: set[int],
    *,
    score: float,
    timestamp: float,
    first_timestamp: float,
    mode: Mode,
    max_ckpts_to_keep: int,
    keep_ckpt_every: float | None,
) -> Decision:
    """What to do when a checkpoint of this score comes at this time.

    Args:
        entries: The checkpoints that are there.
        permanent: The serials of those that are permanent.
        score: The new one's.
        timestamp: The new one's, in seconds since the epoch.
        first_timestamp: That of the first one ever saved under this name.
        mode: Whether high or low scores are good.
        max_ckpts_to_keep: The most that stay besides permanent ones, the new one counted.
        keep_ckpt_every: Hours between permanent ones; None for no permanent ones.
    """

    def hours(seconds: float) -> float:
        return (seconds - first_timestamp) / SECONDS_PER_HOUR

    kept = [e for e in entries if e.serial not in permanent]
    promoted, new_is_permanent = None, False
    if keep_ckpt_every is not None and hours(timestamp) >= keep_ckpt_every:
        window = (hours(timestamp) // keep_ckpt_every - 1) * keep_ckpt_every
        if not any(hours(e.timestamp) >= window for e in entries if e.serial in permanent):
            best = best_first((e for e in kept if hours(e.timestamp) >= window), mode)
            if best and merit(best[0].score, mode) > merit(score, mode):
                promoted = best[0]
                kept.remove(promoted)
            else:
                new_is_permanent = True
    surplus = max(0, len(kept) - (max_ckpts_to_keep - 1))
    worst_first = best_first(kept, mode)[::-1]
    return Decision(promoted, new_is_permanent, worst_first[:surplus])
