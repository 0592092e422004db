"""Clocks of recordings that were joined: where one restarts, wraps or jumps, time goes on by one frame."""

from bisect import bisect_right
from dataclasses import dataclass, field

BACK_S = 0.1  # a keyframe that is this much earlier than a frame before it begins another recording
BACK_WITHIN_GROUP_S = 0.5  # the same for other frames, in formats that are cut anywhere
GAP_S = {True: 10.0, False: 3600.0}  # the longest gap of a recording, in formats whose clocks may jump and in others
HEARD = 0.5  # share of a gap in which there is sound: then nothing moved for so long
PAUSE_S = 1.0  # of sound that goes on all the same
RARE = 0.1  # of all frames: more gaps than that are the pace of the recording, as in time lapses


@dataclass
class Segments:
    """Where another clock begins, counted in packets, and what to take from its times so that time goes on."""

    positions: list[int] = field(default_factory=lambda: [0])
    shifts: list[int] = field(default_factory=lambda: [0])

    @property
    def is_joined(self) -> bool:
        """Whether the file's own times do not ascend, so that they are of no use to seek."""
        return len(self.positions) > 1

    def shift_at(self, position: int) -> int:
        """What to take from the times of the packet at this position."""
        return self.shifts[bisect_right(self.positions, position) - 1]

    def add_back(self, position: int, gap: int) -> None:
        """Undo a jump, which was a gap: from this position on, times are later again."""
        for index, start in enumerate(self.positions):
            if start >= position:
                self.shifts[index] -= gap
        index = self.positions.index(position)
        if self.shifts[index] == self.shifts[index - 1]:
            del self.positions[index], self.shifts[index]


class Timeline:
    """Follows the packets of a stream in file order. Times are in ticks of the stream's time base."""

    def __init__(self, time_base: float, may_jump: bool):
        self.segments = Segments()
        self.gaps: list[tuple[int, int]] = []  # (position, length) of those that were taken for jumps
        self._may_jump = may_jump
        self._back, self._back_within = BACK_S / time_base, BACK_WITHIN_GROUP_S / time_base
        self._longest_gap = GAP_S[may_jump] / time_base
        self._position = 0
        self._shift = 0
        self._latest: int | None = None  # presentation time, on the file's own clock
        self._latest_dts: int | None = None
        self._step = max(1, round(0.04 / time_base))  # from one frame to the next
        self._pause = PAUSE_S / time_base
        self._sound: tuple[int, int] | None = None  # from when to when it goes on, on the file's own clock

    def shift(self, pts: int | None, dts: int | None, is_keyframe: bool) -> int:
        """What to take from the times of the next packet."""
        time = dts if pts is None else pts
        if time is not None:
            if self._latest is None:
                self.segments.shifts[0] = self._shift = time
            elif self._goes_back(pts, dts, is_keyframe):
                self._begin(time - (self._latest - self._shift) - self._step)
            else:
                self._pass_gap(time, dts)
            if dts is not None and self._latest_dts is not None and 0 < dts - self._latest_dts <= self._longest_gap:
                self._step = dts - self._latest_dts
            self._latest = time if self._latest is None else max(self._latest, time)
            self._latest_dts = time if dts is None else dts
        self._position += 1
        return self._shift

    def hear(self, start: int, end: int) -> None:
        """Note a packet of sound, which may lie in the file before the frames that are shown with it."""
        if self._sound is not None and abs(start - self._sound[1]) <= self._pause:
            start = self._sound[0]
        self._sound = start, end

    @property
    def sound_end(self) -> int:
        """When the last sound ends; 0 if there is none beside the last frames."""
        if self._sound is None or self._latest is None or self._sound[0] > self._latest:
            return 0
        return self._sound[1] - self._shift

    def real_gaps(self, frame_count: int) -> list[tuple[int, int]]:
        """The gaps that are the recording's own pace after all."""
        return self.gaps if len(self.gaps) > max(1, RARE * frame_count) else []

    def _goes_back(self, pts: int | None, dts: int | None, is_keyframe: bool) -> bool:
        time = dts if pts is None else pts
        if time is None or self._latest is None:
            return False
        if is_keyframe or pts is None:
            return time < self._latest - self._back
        is_cut_anywhere = self._may_jump and dts is not None and self._latest_dts is not None
        return is_cut_anywhere and (dts or 0) < (self._latest_dts or 0) - self._back_within

    def _pass_gap(self, time: int, dts: int | None) -> None:
        """Take a gap that is too long for a clock's jump, unless sound goes on in it."""
        last = self._latest if dts is None or self._latest_dts is None else self._latest_dts
        gap = (time if dts is None else dts) - (last or 0)
        if gap > self._longest_gap and self._heard(time - gap, time) < HEARD * gap:
            shift = self._shift + gap - self._step
            if self._sound is None:
                self.gaps.append((self._position, gap - self._step))
            self._begin(shift)

    def _heard(self, start: int, end: int) -> int:
        """How long there is sound between two times."""
        return 0 if self._sound is None else min(end, self._sound[1]) - max(start, self._sound[0])

    def _begin(self, shift: int) -> None:
        self._shift = shift
        self.segments.positions.append(self._position)
        self.segments.shifts.append(shift)
        self._latest = self._latest_dts = None
