"""What `Rows` tell while they are answered."""


def finished(rows, events=None):
    """All events by row, once every row has ended; added to `events` if some were there before."""
    events = {} if events is None else events
    while rows:
        for event in rows.step():
            events.setdefault(event.key, []).append(event)
    return events
