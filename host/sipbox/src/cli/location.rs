//! `sipbox location`: bindings of a running proxy, in a table.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;
use sipbox_admin::{Client, Params};

use super::Instance;

#[derive(Debug, Args)]
pub(super) struct LocationArgs {
    #[command(flatten)]
    instance: Instance,
    #[command(subcommand)]
    command: LocationCommand,
}

#[derive(Debug, Subcommand)]
enum LocationCommand {
    /// List every binding: address of record, contact, seconds left, where from
    List,
    /// Show the bindings of one address of record, with all that is known
    Show {
        /// user@domain
        aor: String,
    },
    /// Remove the bindings of an address of record, or one of them
    Rm {
        /// user@domain
        aor: String,
        /// The Contact URI of the one to remove
        contact: Option<String>,
    },
}

pub(super) fn location(args: LocationArgs) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(&args.instance.socket()?)?;
    let words =
        |words: &[&str]| Params::Positional(words.iter().map(|word| Value::from(*word)).collect());
    match args.command {
        LocationCommand::List => {
            let dump = client.call("ul_dump", Params::None)?;
            for row in rows(&dump) {
                println!("{row}");
            }
        }
        LocationCommand::Show { aor } => {
            let shown = client.call("ul_show_contact", words(&["location", &aor]))?;
            println!("{shown:#}");
        }
        LocationCommand::Rm { aor, contact: None } => {
            client.call("ul_rm", words(&["location", &aor]))?;
        }
        LocationCommand::Rm {
            aor,
            contact: Some(contact),
        } => {
            client.call("ul_rm_contact", words(&["location", &aor, &contact]))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tab-separated rows, fit for `cut` and `column -t`.
fn rows(dump: &Value) -> Vec<String> {
    let list = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let mut rows = Vec::new();
    for domain in list(dump, "Domains") {
        for aor in list(&domain, "AORs") {
            for contact in list(&aor, "Contacts") {
                rows.push(format!(
                    "{}\t{}\t{}\t{}",
                    text(&aor, "AOR"),
                    text(&contact, "Contact"),
                    text(&contact, "Expires"),
                    text(&contact, "Received"),
                ));
            }
        }
    }
    rows
}
