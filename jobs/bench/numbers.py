"""Kinds of numbers that the options of benchmarks take; a wrong one is an error of the command line."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """An option's whole number, 1 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from error
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return number


def share(text: str) -> float:
    """An option's share, above 0 and at most 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = above_zero(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text} must be at most 1: it is a share")
    return number


def zero_or_more(text: str) -> float:
    """An option's number of 0 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = _number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return number


def above_zero(text: str) -> float:
    """An option's number above 0.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from error
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not finite")
    return number
