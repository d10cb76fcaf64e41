//! The demo that `sipbox run` starts without a file: its configuration, its
//! accounts, and what it says.

use std::path::Path;

use sipbox_store::StoreError;

use crate::parts::Fixed;
use crate::start::Running;

/// The domain: an address, so that any phone finds it without DNS.
const DOMAIN: &str = "127.0.0.1";
const ACCOUNTS: [&str; 2] = ["alice", "bob"];

/// The demo's configuration, in the words of a user's file. Its paths are those of a
/// file that lies in the state folder.
pub(crate) fn configuration() -> String {
    format!(
        r#"# The demo of `sipbox run`.
[[listener]]
name = "udp"
transport = "udp"
address = "127.0.0.1:5060"

[[listener]]
name = "tcp"
transport = "tcp"
address = "127.0.0.1:5060"

[store]
path = "sipbox.sqlite"

[control]
socket = "control.sock"

[[tenant]]
name = "demo"
domains = ["{DOMAIN}"]
grants = ["auth", "location", "nat", "dialogs", "leases"]

[[tenant.policy]]
name = "residential"
builtin = "residential"
settings = {{ domains = {{ "{DOMAIN}" = {{ auth = "all" }} }} }}
"#
    )
}

/// Gives both accounts new passwords (only their HA1 is stored, so old ones
/// cannot be shown again) and says what to do next.
pub(crate) async fn welcome(running: &Running, fixed: &Fixed) -> anyhow::Result<()> {
    let subscribers = running.store().subscribers();
    let mut lines = String::new();
    for user in ACCOUNTS {
        let password = password()?;
        match subscribers.passwd(user, DOMAIN, &password).await {
            Err(StoreError::Missing(_)) => subscribers.add(user, DOMAIN, &password).await?,
            other => other?,
        }
        running.node.credentials.forget(user, DOMAIN);
        lines.push_str(&format!("    sip:{user}@{DOMAIN}   password {password}\n"));
    }
    println!(
        "\
Sipbox is running on 127.0.0.1:5060, UDP and TCP, with two accounts:

{lines}
Next:
  Register two phones with them, and call one from the other. With linphonec:
    register sip:alice@{DOMAIN} sip:{DOMAIN} PASSWORD
    call sip:bob@{DOMAIN}
  Watch what happens, in another terminal:
    sipbox location list
    sipbox ctl get_statistics core: tm:
    sipbox user add carol@{DOMAIN}
  Write your own: `sipbox run -c sipbox.toml`, `sipbox check sipbox.toml`.

Database and control socket: {}
Ctrl-C stops it.
",
        fixed.database.parent().unwrap_or(Path::new(".")).display()
    );
    Ok(())
}

/// 16 letters and digits that cannot be mistaken for each other: 80 bits.
fn password() -> anyhow::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = crate::start::random::<16>()?;
    Ok(bytes
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(byte % 32)))
        .map(|letter| char::from(*letter))
        .collect())
}
