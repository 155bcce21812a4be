"""Lets the bearer of an access token into a channel, whichever of the two formats the token has."""

from recorder import access_token, access_token_006


def check(token: str, *, app_id: str, certificate: str, channel: str, uid: int | None, now: float) -> int:
    """Until when, in Unix seconds, the token lets `uid` (None: whoever it names) be in `channel` of `app_id`.

    Only the right to join counts, as with the original while co-host authentication is off: who may join may publish.

    Raises:
        TokenError: it does not; TokenExpired when it did once.
    """
    verify = access_token_006.verify if token.startswith(access_token_006.VERSION) else access_token.verify
    return verify(token, app_id=app_id, certificate=certificate, channel=channel, uid=uid, now=now).expires_at
