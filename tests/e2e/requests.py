"""Bodies of start requests."""

from typing import Any


def mix(storage: dict[str, Any], *, mp4: bool = True, idle_seconds: int = 30, layout: int = 1) -> dict[str, Any]:
    canvas = {"width": 640, "height": 360, "fps": 30, "bitrate": 1000, "mixedVideoLayout": layout}
    return {
        "recordingConfig": {"channelType": 0, "streamTypes": 2, "maxIdleTime": idle_seconds, "transcodingConfig": canvas},
        "recordingFileConfig": {"avFileType": ["hls", "mp4"] if mp4 else ["hls"]},
        "storageConfig": storage,
    }


def individual(storage: dict[str, Any], *, idle_seconds: int = 30) -> dict[str, Any]:
    return {
        "recordingConfig": {"channelType": 0, "streamTypes": 2, "maxIdleTime": idle_seconds, "subscribeUidGroup": 1},
        "recordingFileConfig": {"avFileType": ["hls"]},
        "storageConfig": storage,
    }
