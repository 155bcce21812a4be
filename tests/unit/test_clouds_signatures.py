"""The signatures of the strict test servers, and of the SDKs we use, against the vendors' published examples."""

from tests.clouds import cos, oss, qiniu


def test_clouds_oss_v1_signs_like_the_vendor() -> None:
    # https://www.alibabacloud.com/help/doc-detail/31951.htm
    headers = {
        "Content-Md5": "ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=",
        "Content-Type": "text/html",
        "Date": "Thu, 17 Nov 2005 18:49:58 GMT",
        "Host": "oss-example.oss-cn-hangzhou.aliyuncs.com",
        "X-OSS-Meta-Author": "foo@bar.com",
        "X-OSS-Magic": "abracadabra",
    }
    secret = "OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV"
    assert oss.signature_v1(secret, "PUT", headers, "/oss-example/nelson") == "26NBxoKdsyly4EDv6inkoDft/yA="


def _v4(extra: dict[str, str], additional: frozenset[str] = frozenset()) -> str:
    """The request of https://github.com/aliyun/aliyun-oss-go-sdk/blob/master/oss/conn_test.go, TestAuthV4Header and those after it."""
    headers = {"x-oss-head1": "value", "abc": "value", "ZAbc": "value", "XYZ": "value", "content-type": "text/plain"}
    headers |= {"x-oss-content-sha256": "UNSIGNED-PAYLOAD", **extra}
    query = {"param1": "value1", "+param1": "value3", "|param1": "value4", "+param2": "", "|param2": "", "param2": ""}
    resource = "/bucket/1234+-/123/1.txt"
    return oss.signature_v4("sk", "PUT", resource, query, headers, region="cn-hangzhou", additional=additional)


def test_clouds_oss_v4_signs_like_the_vendor() -> None:
    assert _v4({"x-oss-date": "20231216T162057Z"}) == "e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe"
    with_token = {"x-oss-date": "20231217T034736Z", "x-oss-security-token": "token"}
    assert _v4(with_token) == "b94a3f999cf85bcdc00d332fbd3734ba03e48382c36fa4d5af5df817395bd9ea"
    additional = frozenset({"abc", "zabc"})
    assert _v4({"x-oss-date": "20231216T172512Z"}, additional) == "4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f"


# https://www.tencentcloud.com/document/product/436/7778
COS_SECRET = "BQYIM75p8x0iWVFSIgqEKwFprpRSVHlz"
COS_HOST = "examplebucket-1250000000.cos.ap-beijing.myqcloud.com"
COS_PATH = "/exampleobject(腾讯云)"


def test_clouds_cos_signs_an_upload_like_the_vendor() -> None:
    headers = {
        "Host": COS_HOST,
        "Date": "Thu, 16 May 2019 06:45:51 GMT",
        "Content-Type": "text/plain",
        "Content-Length": "13",
        "Content-MD5": "mQ/fVh815F3k6TAUm8m0eg==",
        "x-cos-acl": "private",
        "x-cos-grant-read": 'uin="100000000011"',
    }
    signature = cos.signature(COS_SECRET, "PUT", COS_PATH, {}, headers, "1557989151;1557996351")
    assert signature == "3b8851a11a569213c17ba8fa7dcf2abec6935172"


def test_clouds_cos_signs_a_download_like_the_vendor() -> None:
    query = {"response-content-type": "application/octet-stream", "response-cache-control": "max-age=600"}
    headers = {"Host": COS_HOST, "Date": "Thu, 16 May 2019 06:55:53 GMT"}
    signature = cos.signature(COS_SECRET, "GET", COS_PATH, query, headers, "1557989753;1557996953")
    assert signature == "01681b8c9d798a678e43b685a9f1bba0f6c0e012"


def test_clouds_qiniu_upload_token_like_the_vendor() -> None:
    # https://developer.qiniu.com/kodo/1208/upload-token
    body = r"{\"name\":$(fname),\"size\":$(fsize),\"w\":$(imageInfo.width),\"h\":$(imageInfo.height),\"hash\":$(etag)}"
    policy = '{"scope":"my-bucket:sunflower.jpg","deadline":1451491200,"returnBody":"' + body + '"}'
    access_key, signature, _ = qiniu.upload_token("MY_ACCESS_KEY", "MY_SECRET_KEY", policy.encode()).split(":")
    assert (access_key, signature) == ("MY_ACCESS_KEY", "wQ4ofysef1R7IKnrziqtomqyDvI=")


def test_clouds_qiniu_management_tokens_like_the_vendor() -> None:
    # https://developer.qiniu.com/kodo/1201/access-token and, of the older kind, https://developer.qiniu.com/kodo/6671/historical-document-management-certificate
    target = "/move/bmV3ZG9jczpmaW5kX21hbi50eHQ=/bmV3ZG9jczpmaW5kLm1hbi50eHQ="
    headers = {"Host": "rs.qiniu.com"}
    assert qiniu.qiniu_token("MY_ACCESS_KEY", "MY_SECRET_KEY", "POST", target, headers) == "MY_ACCESS_KEY:1uLvuZM6l6oCzZFqkJ6oI4oFMVQ="
    assert qiniu.qbox_token("MY_ACCESS_KEY", "MY_SECRET_KEY", target) == "MY_ACCESS_KEY:FXsYh0wKHYPEsIAgdPD9OfjkeEM="


def test_clouds_qiniu_hash_is_that_of_the_vendors_sdk() -> None:
    from io import BytesIO

    from qiniu.utils import etag_stream

    for size in (0, 1, 4 << 20, (4 << 20) + 1, 9 << 20):
        assert qiniu.hash_of(bytes(size)) == etag_stream(BytesIO(bytes(size)))


def test_clouds_signatures_depend_on_what_they_cover() -> None:
    headers = {"x-oss-date": "20231216T162057Z"}
    assert _v4(headers) != _v4(headers | {"content-md5": "x"})
    one = cos.signature(COS_SECRET, "PUT", "/a", {}, {"host": "h"}, "1;2")
    others = [
        cos.signature(COS_SECRET, "PUT", "/b", {}, {"host": "h"}, "1;2"),
        cos.signature(COS_SECRET, "PUT", "/a", {"uploads": ""}, {"host": "h"}, "1;2"),
        cos.signature(COS_SECRET, "PUT", "/a", {}, {"host": "i"}, "1;2"),
        cos.signature(COS_SECRET, "PUT", "/a", {}, {"host": "h"}, "1;3"),
    ]
    assert one not in others
