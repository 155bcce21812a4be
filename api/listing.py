"""Which files a recording tells its customer of."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import and_, bindparam, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from api.lifecycle import Status
from api.tables import File, Recording, Slice

_FILES: Final = select(File).where(File.sid == bindparam("of")).order_by(File.start_ms, File.name)  # built once: each query runs it


async def files_of(session: AsyncSession, row: Recording) -> Sequence[File]:
    """Playlists and MP4 files by their start: of a recording that goes on all that were begun, later those that have media."""
    wanted = _FILES
    if row.status >= Status.STOPPED:  # a file that was opened and got no media before its worker died will never be there
        there = Slice.stored.is_not(None) if row.finished else true()
        made = select(Slice.name).where(Slice.sid == row.sid, there)
        begun = select(Slice.playlist).where(Slice.sid == row.sid, there, Slice.playlist.is_not(None))
        track = aliased(File)  # a merged list is there as soon as one of its participant's tracks is
        people = select(track.uid).where(track.sid == row.sid, track.name.in_(begun))
        merged = and_(File.track == "audio_and_video", ~File.mixed, File.uid.in_(people))
        wanted = wanted.where(or_(File.name.in_(made), File.name.in_(begun), merged))
    return (await session.scalars(wanted, {"of": row.sid})).all()
