//! `sipbox user`: accounts, through the running proxy or, where none runs, in its
//! database.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sipbox_admin::{Client, ClientError, Params};
use sipbox_store::Store;

use super::Instance;

#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(flatten)]
    instance: Instance,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add an account; its password is read from --password, or from standard input
    Add(Account),
    /// Change a password, read from --password, or from standard input
    Passwd(Account),
    /// List accounts
    List {
        /// Of this domain only
        domain: Option<String>,
    },
    /// Remove an account
    Rm {
        /// user@domain
        account: String,
    },
}

#[derive(Debug, Args)]
struct Account {
    /// user@domain
    account: String,
    /// The password; other users of the machine can see it while the command runs
    #[arg(long)]
    password: Option<String>,
}

pub(super) fn user(args: UserArgs) -> anyhow::Result<ExitCode> {
    let call = match args.command {
        UserCommand::Add(account) => account.call("subscriber_add")?,
        UserCommand::Passwd(account) => account.call("subscriber_passwd")?,
        UserCommand::List { domain } => Call {
            method: "subscriber_list",
            words: domain.into_iter().collect(),
        },
        UserCommand::Rm { account } => {
            let (user, domain) = split(&account)?;
            Call {
                method: "subscriber_rm",
                words: vec![user, domain],
            }
        }
    };
    let result = match Client::connect(&args.instance.socket()?) {
        Ok(mut client) => client.call(call.method, call.params())?,
        Err(ClientError::Connect { .. }) => call.in_database(&args.instance)?,
        Err(error) => return Err(error.into()),
    };
    if let Some(accounts) = result.get("Subscribers").and_then(Value::as_array) {
        for account in accounts {
            let text = |name: &str| {
                account
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            println!("{}@{}", text("username"), text("domain"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be done, by whomever.
struct Call {
    method: &'static str,
    words: Vec<String>,
}

impl Call {
    fn params(&self) -> Params {
        Params::Positional(
            self.words
                .iter()
                .map(|word| Value::from(word.as_str()))
                .collect(),
        )
    }

    fn in_database(&self, instance: &Instance) -> anyhow::Result<Value> {
        let path = instance.database()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let store = Store::open(&path).await?;
            let subscribers = store.subscribers();
            let word = |at: usize| self.words.get(at).map(String::as_str).unwrap_or_default();
            let result = match self.method {
                "subscriber_list" => {
                    let accounts = subscribers
                        .list(self.words.first().map(String::as_str))
                        .await?;
                    let accounts: Vec<Value> = accounts
                        .into_iter()
                        .map(|one| json!({ "username": one.username, "domain": one.domain }))
                        .collect();
                    json!({ "Subscribers": accounts })
                }
                "subscriber_rm" => json!(subscribers.remove(word(0), word(1)).await?),
                "subscriber_passwd" => {
                    json!(subscribers.passwd(word(0), word(1), word(2)).await?)
                }
                _ => json!(subscribers.add(word(0), word(1), word(2)).await?),
            };
            store.close().await;
            Ok(result)
        })
    }
}

impl Account {
    fn call(self, method: &'static str) -> anyhow::Result<Call> {
        let (user, domain) = split(&self.account)?;
        let password = match self.password {
            Some(password) => password,
            None => read_password()?,
        };
        if password.is_empty() {
            bail!("an empty password is none");
        }
        Ok(Call {
            method,
            words: vec![user, domain, password],
        })
    }
}

fn split(account: &str) -> anyhow::Result<(String, String)> {
    match account
        .strip_prefix("sip:")
        .unwrap_or(account)
        .rsplit_once('@')
    {
        Some((user, domain)) if !user.is_empty() && !domain.is_empty() => {
            Ok((user.to_owned(), domain.to_ascii_lowercase()))
        }
        _ => bail!("`{account}`: expected user@domain"),
    }
}

fn read_password() -> anyhow::Result<String> {
    let mut input = std::io::stdin();
    let mut text = String::new();
    if input.is_terminal() {
        eprint!("Password: ");
        std::io::stderr().flush()?;
        input.read_line(&mut text).context("no password")?;
    } else {
        input.read_to_string(&mut text).context("no password")?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
