r"""The secrets that `redact` knows by their form.

Each rule has two faces. `triggers` are Hyperscan expressions, searched in the undecoded JSON of a whole batch and in
decoded texts alike; wherever `find` can match in a decoded text, a trigger matches in its JSON, whatever way that was
escaped (`\n`, `\/`, `\u00e9`; escapes of ASCII characters are searched for apart). `find` is a Python expression that
takes linear time; its group `s`, or all of it, is the secret, once `check` has said how much of it really is one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

# Behind a letter or digit nothing begins, unless they are an escape of JSON inside JSON: `\n4111…`, `\u00e94111…`.
_ESCAPED = r"(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4})"
LEFT = r"(?:(?<![0-9A-Za-z])|" + _ESCAPED + ")"
# The same behind the first character: an expression that begins with a set is what Python's matcher skips quickly to.
LEFT_OF_LAST = r"(?:(?<![0-9A-Za-z].)|(?<=\\[bfnrt].)|(?<=\\u[0-9a-fA-F]{4}.))"
RIGHT = r"(?![0-9A-Za-z])"
SPACE = r"(?:\s|\\++[nrt])++"


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of secret."""

    triggers: tuple[str, ...]
    find: re.Pattern[str]
    check: Callable[[str], int] = len
    """How many characters of what was found are a secret; 0: none."""
    sign: str = ""
    """A character that everything found has in it, with no blank before it: the search can begin at its word."""


def luhn(digits: bytes) -> bool:
    """Whether ASCII digits end in the right check digit (ISO/IEC 7812-1, annex B)."""
    return (sum(digits[-1::-2].translate(_PLAIN)) + sum(digits[-2::-2].translate(_DOUBLED))) % 10 == 0


_PLAIN = bytes(max(0, n - 48) for n in range(256))
_DOUBLED = bytes(sum(divmod(2 * max(0, n - 48), 10)) % 256 for n in range(256))


def card(text: str) -> int:
    """The length of the card number at the head of digits in groups, whose last group may be something else."""
    digits = text.encode().translate(None, b" -")
    if 13 <= len(digits) <= 19 and luhn(digits):
        return len(text)
    head = text[: max(text.rfind(" "), text.rfind("-"), 0)]
    return card(head) if len(head) >= 13 else 0


# The length of an IBAN by country (SWIFT's IBAN registry).
_IBAN = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20YE30",
    )
}


def iban(text: str) -> int:
    """The length of the IBAN at the head of a text (ISO 13616-1: mod 97 is 1)."""
    length, compact = _IBAN.get(text[:2], 0), text.replace(" ", "")
    if not length or len(compact) < length:
        return 0
    number = compact[4:length] + compact[:4]
    if int("".join(str(int(c, 36)) for c in number)) % 97 != 1:
        return 0
    end = length
    while len(text[:end].replace(" ", "")) < length:
        end += 1
    return 0 if text[end : end + 1].isalnum() else end


def basic(text: str) -> int:
    """All of it where it is base64 of `user:password` (RFC 7617)."""
    plain = text.replace("\\", "").rstrip("=")
    try:
        return len(text) if b":" in base64.b64decode(plain + "=" * (-len(plain) % 4), b"-_") else 0
    except binascii.Error:
        return 0


def phone(text: str) -> int:
    """All of it where it has as many digits as a telephone number can (E.164: at most 15)."""
    return len(text) if 8 <= sum(map(str.isdigit, text)) <= 15 else 0


def ipv6(text: str) -> int:
    """The length of the IPv6 address at the head of a text that may end in punctuation."""
    for length in (len(text), len(text) - 1):
        try:
            return length if IPv6Address(text[:length]) else 0
        except AddressValueError:
            continue
    return 0


_VENDORS = (
    r"gh[oprsu]_[0-9A-Za-z]{30}",  # GitHub: personal, OAuth, user, server and refresh tokens
    r"github_pat_[0-9A-Za-z_]{22}",
    r"glpat-[\w-]{20}",  # GitLab
    r"xox[abeoprs]-[0-9A-Za-z-]{10}",  # Slack
    r"xapp-[0-9A-Za-z-]{10}",
    r"[prs]k_(?:live|test)_[0-9A-Za-z]{10}",  # Stripe
    r"whsec_[0-9A-Za-z]{20}",
    r"AIza[\w-]{35}",  # Google
    r"ya29\.[\w-]{20}",
    r"sk-[\w-]{20}",  # OpenAI and others that took the form over
    r"npm_[0-9A-Za-z]{36}",
    r"hf_[A-Za-z]{30}",  # Hugging Face
    r"SG\.[\w-]{16}",  # SendGrid
    r"dop_v1_[0-9a-f]{40}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"pypi-[\w-]{50}",
)

# Words that follow "bearer" in sentences and challenges.
_PROSE = r"(?!(?:tokens?|auth(?:entication|orization)?|schemes?|is|was|of|or|and|not|for|in|to)(?![\w~+/=-])|realm=)"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})"


def _ascii(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.ASCII)


# In the order in which they are applied: what contains others comes first.
RULES: dict[str, Rule] = {
    "private_key": Rule(
        (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY",),
        # One that was cut off reaches to the end of the text.
        _ascii(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?:[^-]++|-(?!----END ))*+(?:-----END [A-Z0-9 ]{0,40}(?:-----)?)?"
        ),
    ),
    "url": Rule(
        (r":(?:\\*/){2}[^/\s:@\x22]*:[^/\s@\x22]+@",),
        _ascii(r":(?:\\*+/){2}[^/\s:@\"'<>\\]*+:(?P<s>[^/\s@\"'<>\\]++)@"),
    ),
    "bearer": Rule(
        (r"(?i)bearer[\s\\]",),
        _ascii(rf"[Bb]{LEFT_OF_LAST}(?i:earer){SPACE}{_PROSE}(?P<s>[^\s\"'\\,;(){{}}<>\[\]]++)"),
    ),
    "basic": Rule(
        (r"(?i)basic[\s\\]",),
        _ascii(rf"[Bb]{LEFT_OF_LAST}(?i:asic){SPACE}(?P<s>(?:[\w+/-]|\\+/){{4,}}+={{0,2}})"),
        basic,
    ),
    "jwt": Rule(
        (r"eyJ[\w-]{5}",),
        # Not in the middle of a run of its characters: each run is read once.
        _ascii(r"(?:(?<![\w-])|" + _ESCAPED + r")eyJ[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+){0,3}"),
    ),
    "aws": Rule(
        (r"A(?:KIA|SIA|BIA|CCA)[0-9A-Z]{16}", r"(?i)secret[-_ ]?(?:access[-_ ]?)?key[^0-9a-z]"),
        _ascii(
            rf"A{LEFT_OF_LAST}(?:KIA|SIA|BIA|CCA)[0-9A-Z]{{16}}{RIGHT}"
            r"|[Ss](?i:ecret[-_ ]?(?:access[-_ ]?)?key)[\"'\\\s:=>]{1,16}+(?P<s>[0-9A-Za-z/+]{40})(?![0-9A-Za-z/+])"
        ),
    ),
    "vendor": Rule(
        _VENDORS,
        _ascii(rf"{LEFT}(?:{'|'.join(_VENDORS)})[\w.-]*+"),
    ),
    "card": Rule(
        # With the groups spelled out it compiles in 3 ms; a separator allowed between any two digits takes 170.
        (
            (
                r"(?:^|[^0-9A-Za-z.]|\\[bfnrt]|\\u[0-9a-fA-F]{4})"
                r"(?:[2-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{4})"
            ),
        ),
        _ascii(
            rf"[2-6]{LEFT_OF_LAST}(?<!\..)(?:"
            r"[0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,4}(?:[ -]?[0-9]{1,3})?"
            rf"|(?<=3)[0-9]{{3}}[ -][0-9]{{6}}[ -][0-9]{{4,5}}(?:[ -][0-9]{{1,4}})?){RIGHT}"
        ),
        card,
    ),
    "email": Rule(
        (r"[\w%+.'\x80-\xff-]@[\w\x80-\xff.\\-]*\.(?:[A-Za-z\x80-\xff]|\\u)",),
        re.compile(r"(?<![\w.%+'-])(?:(?<=\\)[bfnrt](?=\w))?(?P<s>[\w.%+'-]++@(?:[\w-]++\.)+[^\W\d_]{2,})"),
        sign="@",
    ),
    "iban": Rule(
        (r"[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]){11}",),
        _ascii(rf"{LEFT}[A-Z]{{2}}[0-9]{{2}}(?: ?[0-9A-Z]){{11,30}}"),
        iban,
    ),
    "ssn": Rule(
        (r"[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}",),
        # Areas 000, 666 and 9xx, group 00 and serial 0000 are never given out (SSA).
        _ascii(
            rf"{LEFT}(?<![0-9][.-])(?!000|666|9)[0-9]{{3}}(?:-(?!00)[0-9]{{2}}-| (?!00)[0-9]{{2}} )"
            rf"(?!0000)[0-9]{{4}}(?!-[0-9]){RIGHT}"
        ),
    ),
    "phone": Rule(
        (r"\+[1-9](?:[ .()-]{0,2}[0-9]){7}", r"[0-9]{3}(?:\) ?|[-. ])[0-9]{3}[-. ][0-9]{4}"),
        _ascii(
            rf"(?<!\+)\+[1-9](?:[ .()-]{{0,2}}[0-9]){{7,14}}{RIGHT}"
            rf"|{LEFT}(?<![0-9][.-])(?:\([0-9]{{3}}\) ?|[0-9]{{3}}[-. ])[0-9]{{3}}[-. ][0-9]{{4}}(?![-.][0-9]){RIGHT}"
        ),
        phone,
    ),
    "ipv4": Rule(
        (r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",),
        # Not the version of a browser (Chrome/126.0.0.0) nor part of a longer number.
        _ascii(rf"{LEFT}(?<![0-9]\.)(?<![A-Za-z]/){_OCTET}(?:\.{_OCTET}){{3}}(?!\.[0-9]){RIGHT}"),
    ),
    "ipv6": Rule(
        (r":[0-9A-Fa-f]{0,4}:",),
        _ascii(r"(?:(?<![\w:.])|" + _ESCAPED + r")(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:.]{2,46}(?![\w:.])"),
        ipv6,
    ),
}
"""The built-in rules by name."""
