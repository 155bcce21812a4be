"""The region codes of the public API, per vendor, as each vendor's SDK spells the region."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from storage.errors import BadOptions

QINIU, AMAZON, ALIBABA, TENCENT, KINGSOFT, HUAWEI, BAIDU = 0, 1, 2, 3, 4, 7, 8


def _numbered(names: Sequence[str]) -> Mapping[int, str]:
    return MappingProxyType(dict(enumerate(names)))


# fmt: off
REGIONS: Mapping[int, Mapping[int, str]] = MappingProxyType({
    QINIU: _numbered(("z0", "z1", "z2", "na0", "as0")),
    AMAZON: MappingProxyType(dict(enumerate((
        "us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1",
        "ap-southeast-1", "ap-southeast-2", "ap-northeast-1", "ap-northeast-2", "sa-east-1", "ca-central-1", "ap-south-1",
        "cn-north-1", "cn-northwest-1", "us-gov-west-1", "af-south-1", "ap-east-1", "ap-northeast-3", "eu-north-1",
        "me-south-1", "us-gov-east-1", "ap-southeast-3", "eu-south-1",
    ))) | {28: "il-central-1"}),
    ALIBABA: _numbered((
        "cn-hangzhou", "cn-shanghai", "cn-qingdao", "cn-beijing", "cn-zhangjiakou", "cn-huhehaote", "cn-shenzhen", "cn-hongkong",
        "us-west-1", "us-east-1", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-5", "ap-northeast-1",
        "ap-south-1", "eu-central-1", "eu-west-1", "eu-east-1", "ap-southeast-6", "cn-heyuan", "cn-guangzhou", "cn-chengdu",
        "cn-nanjing", "cn-fuzhou", "cn-wulanchabu", "ap-northeast-2", "ap-southeast-7",
    )),
    TENCENT: _numbered((
        "ap-beijing-1", "ap-beijing", "ap-shanghai", "ap-guangzhou", "ap-chengdu", "ap-chongqing", "ap-shenzhen-fsi",
        "ap-shanghai-fsi", "ap-beijing-fsi", "ap-hongkong", "ap-singapore", "ap-mumbai", "ap-seoul", "ap-bangkok", "ap-tokyo",
        "na-siliconvalley", "na-ashburn", "na-toronto", "eu-frankfurt", "eu-moscow",
    )),
    KINGSOFT: _numbered((
        "cn-hangzhou", "cn-shanghai", "cn-qingdao", "cn-beijing", "cn-guangzhou", "cn-hk-1", "jr-beijing", "jr-shanghai",
        "rus", "sgp",
    )),
    HUAWEI: _numbered((
        "cn-north-1", "cn-north-4", "cn-east-2", "cn-east-3", "cn-south-1", "cn-southwest-2", "ap-southeast-1", "ap-southeast-2",
        "ap-southeast-3", "af-south-1", "sa-argentina-1", "sa-peru-1", "na-mexico-1", "sa-brazil-1", "la-south-2", "sa-chile-1",
    )),
    BAIDU: _numbered(("bj", "bd", "su", "gz", "hkg", "sin", "fwh", "fsh")),
})
# fmt: on


def region_name(vendor: int, code: int) -> str:
    """How the vendor's SDK calls the region.

    Raises:
        BadOptions: the vendor has no region with this code.
    """
    try:
        return REGIONS[vendor][code]
    except KeyError:
        raise BadOptions(f"storage vendor {vendor} has no region {code}") from None
