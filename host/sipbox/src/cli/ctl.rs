//! `sipbox ctl`: any command of a running proxy.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};
use sipbox_admin::{Client, Params};

use super::Instance;

#[derive(Debug, Args)]
pub(super) struct CtlArgs {
    #[command(flatten)]
    instance: Instance,
    /// The command, such as `get_statistics`; `which` lists them
    command: String,
    /// Its parameters: NAME=VALUE, or values in the command's order
    params: Vec<String>,
}

pub(super) fn ctl(args: &CtlArgs) -> anyhow::Result<ExitCode> {
    let mut client = Client::connect(&args.instance.socket()?)?;
    let result = client.call(&args.command, params(&args.params))?;
    match result {
        Value::String(text) => println!("{text}"),
        other => println!("{other:#}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// All named, or all by position: a value may contain `=`, a name may not hold
/// anything but letters, digits and `_`.
fn params(words: &[String]) -> Params {
    let named: Option<Map<String, Value>> = words
        .iter()
        .map(|word| {
            let (name, value) = word.split_once('=')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            (!name.is_empty() && name.chars().all(plain))
                .then(|| (name.to_owned(), Value::from(value)))
        })
        .collect();
    match named {
        _ if words.is_empty() => Params::None,
        Some(named) => Params::Named(named),
        None => Params::Positional(
            words
                .iter()
                .map(|word| Value::from(word.as_str()))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Params {
        params(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn words_are_named_only_if_all_are() {
        assert_eq!(words(&[]), Params::None);
        assert!(matches!(
            words(&["aor=a@b", "table_name=location"]),
            Params::Named(_)
        ));
        assert!(matches!(words(&["location", "a@b"]), Params::Positional(_)));
        assert!(matches!(
            words(&["location", "sip:a@b;x=y"]),
            Params::Positional(_)
        ));
    }
}
