#!/usr/bin/env python3
"""Fills in sipbox.toml for the perf lab and adds its 10,000 accounts.

    prepare.py SIPBOX FOLDER IP PORT UAS1 WORKERS [COMPONENT | without-dialogs]

COMPONENT goes in front of the residential policy. With that of policies/examples/balance,
calls to `balanced` are spread over the four ports from UAS1 on; that of policies/nat
mends Contact and session description, as the other targets do in S5.

`without-dialogs` has the residential policy keep none, as the other targets.

The accounts go into the database directly: through the command line each would
be a process of its own. HA1s only, as `sipbox user add` stores them.
"""
import hashlib
import pathlib
import sqlite3
import subprocess
import sys

USERS = 10000
PASSWORD = "secret"
CHAIN = "[[tenant.policy]]"


def main():
    sipbox, folder, ip, port, uas1, workers, *component = sys.argv[1:]
    folder = pathlib.Path(folder)
    text = pathlib.Path(__file__).with_name("sipbox.toml").read_text()
    for name, value in dict(ip=ip, port=port, uas1=uas1, workers=workers).items():
        text = text.replace(f"@{name}@", value)
    if component == ["without-dialogs"]:
        text = text.replace("settings = {", "settings = { dialogs = false,", 1)
    elif component:
        text = text.replace(CHAIN, chain_link(component[0], ip, int(uas1)) + CHAIN, 1)
    (folder / "sipbox.toml").write_text(text)
    # The program itself makes the tables.
    subprocess.run([sipbox, "user", "add", "-c", folder / "sipbox.toml", f"first@{ip}",
                    "--password", PASSWORD], check=True)
    with sqlite3.connect(folder / "sipbox.sqlite") as database:
        database.executemany(
            "INSERT INTO subscriber (username, domain, password, ha1, ha1_sha256) VALUES (?, ?, '', ?, ?)",
            (row(f"u{number:05}", ip) for number in range(USERS)))


def chain_link(component, ip, uas1):
    if pathlib.Path(component).name == "policy-nat.wasm":
        settings = 'preserve_uri = false, sdp = ["rewrite-media-ip", "rewrite-origin-ip"]'
    else:
        gateways = ", ".join(f'{{ uri = "sip:{ip}:{uas1 + i}" }}' for i in range(4))
        settings = f'users = ["balanced"], gateways = [{gateways}]'
    return f'{CHAIN}\ncomponent = "{component}"\nsettings = {{ {settings} }}\n\n'


def row(user, realm):
    text = f"{user}:{realm}:{PASSWORD}".encode()
    return user, realm, hashlib.md5(text).hexdigest(), hashlib.sha256(text).hexdigest()


if __name__ == "__main__":
    main()
