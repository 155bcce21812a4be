"""Kingsoft KS3, through its S3-compatible interface."""

from typing import Final

from storage import CheckAddress, ObjectStore, StoreOptions
from storage.endpoints import endpoint_url
from storage.regions import KINGSOFT, region_name
from storage.remote import RemoteStore
from storage.s3_protocol import S3Client

NUMBERS = (4,)

# How signatures call the region where that is not the end of the host's name in capitals.
_SIGNED_REGIONS: Final = {"cn-hk-1": "HONGKONG", "rus": "RUSSIA", "sgp": "SINGAPORE"}


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    region = region_name(KINGSOFT, options.region)
    client = S3Client(
        options,
        region=_SIGNED_REGIONS.get(region) or region.removeprefix("cn-").upper().replace("-", "_"),
        url=endpoint_url(options.endpoint) if options.endpoint else f"https://ks3-{region}.ksyuncs.com",
        path_style=bool(options.endpoint),
        check=check_address if options.endpoint else None,
        sha256_enforced=False,
    )
    return RemoteStore(client)
