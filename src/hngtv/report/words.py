"""Numbers in words, for the answer and for the tables of the page."""

import numpy as np
from markupsafe import Markup, escape

NO_NUMBER = "\N{EN DASH}"
Number = float | str | None


def format_number(value: Number, digits: int = 3, sign: str = "") -> str:
    """A number for a table; a dash where there is none, and a word for an infinite one."""
    if value is None or value == "" or np.isnan(float(value)):
        return NO_NUMBER
    return f"{float(value):{sign}z.{digits}f}".replace("inf", "infinite")


def format_signed(value: Number, digits: int = 3) -> str:
    return format_number(value, digits, sign="+")


def format_count(value: Number) -> str:
    text = format_number(value, 0)
    return f"{int(text):,}" if text.isdigit() else text


def format_interval(low: Number, high: Number, sign: str = "", digits: int = 3) -> str:
    ends = [format_number(end, digits, sign) for end in (low, high)]
    return "no interval" if NO_NUMBER in ends else " to ".join(ends)


def format_name(name: str) -> Markup:
    """A name as HTML that may go on in the next line after each underscore, where its cell is narrow."""
    return escape(name).replace("_", Markup("_<wbr>"))


def format_p(p: float) -> str:
    """A p value in words that follow \"p\"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def format_p_cell(value: Number) -> str:
    text = format_number(value)
    return text if text == NO_NUMBER else format_p(float(value or 0)).removeprefix("= ")
