"""What `image-analyzer local …` does."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from image_analyzer import wiring
from image_analyzer.local.airflow import LocalAirflow
from image_analyzer.local.stack import Stack
from image_analyzer.settings import load_settings


def start(console: Console, folder: Path, *, airflow: bool, port: int) -> None:
    """Start the stack, and Airflow if asked for; make the tables."""
    stack = Stack(folder)
    stack.up()
    stack.adopt()
    wiring.make_warehouse(load_settings()).create_tables()
    if airflow:
        console.print("Starting Airflow, which takes half a minute …")
        local = LocalAirflow(folder / "airflow", stack.environment(), port)
        local.set_up()
        local.start()
    show_status(console, folder)


def stop(console: Console, folder: Path, *, delete: bool) -> None:
    """Stop everything."""
    stack = Stack(folder)
    if LocalAirflow(folder / "airflow", {}).stop():
        console.print("Airflow stopped.")
    console.print(f"{stack.down()} servers stopped.")
    if delete:
        stack.delete_data()
        console.print(f"{folder} deleted.")


def show_status(console: Console, folder: Path) -> None:
    """Print what runs, where, and where its log is."""
    table = Table("server", "address", "process", "log")
    for service in Stack(folder).services():
        table.add_row(service.name, service.url, str(service.pid), service.log)
    airflow = LocalAirflow(folder / "airflow", {})
    if airflow.is_running():
        table.add_row("airflow", airflow.address(), "", str(airflow.folder / "standalone.log"))
    console.print(table if table.row_count else "Nothing runs. `image-analyzer local up` starts the stack.")


def print_environment(folder: Path) -> None:
    """Print `export` lines."""
    for name, value in Stack(folder).environment().items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
