"""Charsets of mail by their registered names (IANA, "Character Sets") and the usual others, as Python calls them."""

CODECS = {
    # windows-31J is what Japanese mail that says Shift_JIS with vendors' characters really is.
    "cp932": ("windows_31j", "cswindows31j"),
    "shift_jis": ("x_sjis",),
    "euc_jp": ("cseucpkdfmtjapanese", "extended_unix_code_packed_format_for_japanese", "x_euc_jp", "x_eucjp"),
    "gb2312": ("csgb2312", "gb_2312_80", "cn_gb"),
    "gbk": ("x_gbk", "csgbk", "windows_936"),
    "gb18030": ("csgb18030",),
    "big5": ("x_x_big5", "cn_big5", "x_big5"),
    "big5hkscs": ("csbig5hkscs",),
    "euc_kr": ("ks_c_5601_1989", "ksc_5601", "iso_ir_149", "cseuckr", "csksc56011987", "x_euc_kr"),
    "cp874": ("windows_874", "cswindows874", "x_windows_874"),
    "tis_620": ("cstis620",),
    "iso8859_6": ("iso_8859_6_i", "iso_8859_6_e", "csiso88596i", "csiso88596e"),
    "iso8859_8": ("iso_8859_8_i", "iso_8859_8_e", "csiso88598i", "csiso88598e", "visual", "logical"),
    "iso8859_13": ("csiso885913",),
    "iso8859_14": ("csiso885914",),
    "iso8859_15": ("csiso885915", "latin_9"),
    "iso8859_16": ("csiso885916",),
    "latin_1": ("iso88591", "8859_1", "x_iso_8859_1"),
    "cp1252": ("cp_1252", "x_ansi", "x_cp1252"),
    "cp858": ("ibm00858", "ccsid00858", "cp00858", "pc_multilingual_850+euro"),
    "cp862": ("dos_862",),
    "cp720": ("dos_720",),
    "koi8_u": ("cskoi8u",),
    "koi8_r": ("koi", "koi8"),
    "mac_roman": ("csmacintosh", "x_mac_roman", "mac"),
    "mac_cyrillic": ("x_mac_cyrillic", "x_mac_ukrainian"),
    "utf_8": ("csutf8", "unicode_1_1_utf_8", "x_unicode_2_0_utf_8"),
    "utf_16": ("csutf16",),
    "utf_16_be": ("csutf16be",),
    "utf_16_le": ("csutf16le",),
    **{f"cp{number}": (f"cswindows{number}", f"x_cp{number}") for number in range(1250, 1259) if number != 1252},
}
NAMES = {name: codec for codec, names in CODECS.items() for name in names} | {"cswindows1252": "cp1252"}


def codec_of(charset: str) -> str:
    """The name that Python has for it, in lower case and with `_`; its own where this table has none."""
    name = charset.lower().replace("-", "_").replace(":", "_")
    return NAMES.get(name, name)
