"""Finishes the MP4 parts of a recording that has no worker any more. Rewriting them takes the muxers, which the agent does not load."""

from functools import partial

from recorder.outputs import slice_record
from recorder.outputs.mp4 import salvage_part
from recorder.outputs.salvage import Leftover, next_sequence, parts
from recorder.protocol import Slice
from storage.spool import RecordingSpool


def salvage(spool: RecordingSpool, epoch: int) -> None:
    """Commit what is whole of every part, after whoever still writes the recording has gone; `epoch` is the last one given out."""
    spool.lock(wait=True)
    try:
        for item in parts(spool):
            salvage_part(item, spool.partial, partial(_commit, spool, item, epoch))
    finally:
        spool.close()


def _commit(spool: RecordingSpool, item: Leftover, epoch: int, duration_ns: int) -> Slice:
    sequence = next_sequence(spool.records(), epoch)
    record = slice_record(item.draft, epoch=epoch, sequence=sequence, duration_ns=duration_ns)
    return Slice.model_validate(spool.commit(item.draft.name, record))
