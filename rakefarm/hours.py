"""Quiet hours: a span of the day in which a machine would rather be left alone."""

import time


def parse_hours(text: str) -> tuple[int, int] | None:
    """`22:00-06:30` as minutes of the day; None for the empty text. Raises ValueError."""
    if not text:
        return None
    begin, _, end = text.partition("-")
    minutes = []
    for part in (begin, end):
        moment = time.strptime(part.strip(), "%H:%M")
        minutes.append(moment.tm_hour * 60 + moment.tm_min)
    return minutes[0], minutes[1]


def is_within(hours: tuple[int, int], now: time.struct_time) -> bool:
    """Whether local time `now` is between the two; past midnight when the first is the later."""
    begin, end = hours
    minute = now.tm_hour * 60 + now.tm_min
    return begin <= minute < end if begin <= end else minute >= begin or minute < end
