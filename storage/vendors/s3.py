"""Amazon S3, and any store that speaks its protocol."""

from storage import CheckAddress, ObjectStore, StoreOptions
from storage.endpoints import endpoint_url
from storage.regions import AMAZON, region_name
from storage.remote import RemoteStore
from storage.s3_protocol import S3Client

NUMBERS = (1, 11)


def create(options: StoreOptions, check_address: CheckAddress) -> ObjectStore:
    """For Amazon the endpoint may be left out; with one, as of a private network, the bucket stands in the path."""
    amazon = options.vendor == AMAZON
    url = endpoint_url(options.endpoint) if options.endpoint or not amazon else None
    client = S3Client(
        options,
        region=region_name(AMAZON, options.region) if amazon else "us-east-1",
        url=url,
        path_style=url is not None,
        check=check_address if url else None,
        sha256_enforced=amazon,
    )
    return RemoteStore(client)
