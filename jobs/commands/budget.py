"""`vtm budget`: the one loss at which all clips of a run are cut, so that its tokens are spent where best."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import numpy as np

from jobs.table import print_table

DEFAULT_KEEPS = (0.1, 0.05, 0.02, 0.01)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and what is to be left of it."""
    parser.add_argument("out", metavar="RUN", help="run folder of --strategy tree")
    parser.add_argument(
        "--keep", type=float, nargs="+", metavar="SHARE", help="shares of all source patches of the run"
    )
    parser.add_argument("--tokens", type=int, nargs="+", metavar="M", help="tokens over all clips, instead")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the loss, and what it leaves and keeps, for each budget."""
    from pipeline.cache.run_budget import run_budgets

    tokens = options.tokens or ()
    keeps = options.keep or (() if tokens else DEFAULT_KEEPS)
    budgets = run_budgets(options.out, keeps=keeps, tokens=tokens)
    if options.json:
        print(json.dumps({"budgets": [asdict(budget) for budget in budgets]}, indent=1))
        return 0
    print_table(
        ["share left", "tokens", "a clip", "max_loss", "mean fidelity", "worst clip", "mean at one share for all"],
        [
            [
                f"{budget.tokens / budget.sources:.2%}",
                budget.tokens,
                f"{budget.tokens / budget.clips:.0f}",
                str(np.float32(budget.max_loss)),
                f"{budget.mean_fidelity:.4f}",
                f"{budget.worst_fidelity:.4f}",
                f"{budget.same_share_fidelity:.4f}",
            ]
            for budget in budgets
        ],
    )
    print(f'read it with TokenCache("{options.out}", max_loss=...)')
    return 0
