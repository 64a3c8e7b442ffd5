"""SMS segments as Twilio counts them: GSM-7 160/153 septets, UCS-2 70/67 UTF-16 units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.kinds.sms import segments

GSM7 = st.text("abcXYZ 0123@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉäöñüà§¿¡\n\r", max_size=700)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("é" * 160, 1),
        # one character that GSM-7 does not know makes all of it UCS-2
        ("ç" + "a" * 69, 1),
        ("ç" + "a" * 70, 2),
        ("’" + "a" * 133, 2),
        ("’" + "a" * 134, 3),
        # the extension table: two septets each
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("\f^{}\\[~]|€" * 8, 1),
        ("{" + "a" * 158, 1),
        ("{" + "a" * 159, 2),
        # an escape and its character stay together: 152 + 2 do not fit in 153
        ("a" * 152 + "€" + "a" * 151, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        # so do the two halves of an emoji: 33 to a segment of 67
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),
        ("😀" * 67, 3),
        ("😜" + "2" * 68, 1),
        ("😜" + "2" * 69, 2),
        ("\r\n" * 80, 1),
        ("ا" * 70, 1),
        ("`" + "a" * 69, 1),  # the backtick is not in GSM-7
        ("`" + "a" * 70, 2),
    ],
)
def test_segments(body: str, expected: int) -> None:
    assert segments(body) == expected


@given(GSM7)
def test_gsm7_segments_follow_from_the_length(body: str) -> None:
    assert segments(body) == (1 if len(body) <= 160 else -(-len(body) // 153))


@given(st.text(max_size=400), st.text(max_size=400))
def test_more_text_never_takes_fewer_segments(body: str, more: str) -> None:
    assert segments(body) <= segments(body + more)
