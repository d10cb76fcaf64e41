//! What a command gets and gives.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Map, Value};

/// A command on its way.
pub type CommandFuture<'a> = Pin<Box<dyn Future<Output = Result<Value, CommandError>> + Send + 'a>>;

/// Carries commands out.
pub trait Commands: Send + Sync + 'static {
    /// The names of all commands, sorted.
    fn names(&self) -> Vec<&'static str>;

    /// Carries one out.
    fn call<'a>(&'a self, method: &'a str, params: Params) -> CommandFuture<'a>;
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such command.
    #[error("no command `{0}`")]
    NoSuchCommand(String),
    /// A parameter is missing, unknown, or not what was expected.
    #[error("{0}")]
    Params(String),
    /// What the command speaks of does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The command could not be carried out.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// The code of JSON-RPC 2.0; -32000 and below are ours. 404 is what OpenSIPS
    /// answers for a contact or account that there is not.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::NoSuchCommand(_) => -32601,
            Self::Params(_) => -32602,
            Self::NotFound(_) => 404,
            Self::Failed(_) => -32000,
        }
    }
}

/// The parameters of a command, by name or by position.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Params {
    /// None.
    #[default]
    None,
    /// By position.
    Positional(Vec<Value>),
    /// By name.
    Named(Map<String, Value>),
}

impl Params {
    /// The parameter called `name`, which by position is the `position`th.
    #[must_use]
    pub fn get(&self, name: &str, position: usize) -> Option<&Value> {
        match self {
            Self::None => None,
            Self::Positional(values) => values.get(position),
            Self::Named(values) => values.get(name),
        }
    }

    /// A text parameter, if there is one. Numbers count as their text.
    ///
    /// # Errors
    /// [`CommandError::Params`] when it is something else.
    pub fn text(&self, name: &str, position: usize) -> Result<Option<String>, CommandError> {
        match self.get(name, position) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(CommandError::Params(format!("`{name}`: expected a text"))),
        }
    }

    /// A text parameter that must be there.
    ///
    /// # Errors
    /// [`CommandError::Params`] when it is missing or something else.
    pub fn required(&self, name: &str, position: usize) -> Result<String, CommandError> {
        self.text(name, position)?
            .ok_or_else(|| CommandError::Params(format!("parameter `{name}` is missing")))
    }

    /// A number that is not negative, as such or as text, if there is one.
    ///
    /// # Errors
    /// [`CommandError::Params`] when it is something else.
    pub fn number(&self, name: &str, position: usize) -> Result<Option<u64>, CommandError> {
        let Some(text) = self.text(name, position)? else {
            return Ok(None);
        };
        let wrong = |_| CommandError::Params(format!("`{name}`: `{text}` is no number"));
        text.parse().map(Some).map_err(wrong)
    }

    /// A list of texts: the named list, or all positional parameters from `position` on.
    ///
    /// # Errors
    /// [`CommandError::Params`] when something else is in it.
    pub fn list(&self, name: &str, position: usize) -> Result<Vec<String>, CommandError> {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(CommandError::Params(format!("`{name}`: expected texts"))),
        };
        match self {
            Self::None => Ok(Vec::new()),
            Self::Named(values) => match values.get(name) {
                None => Ok(Vec::new()),
                Some(Value::Array(values)) => values.iter().map(text).collect(),
                Some(value) => text(value).map(|one| vec![one]),
            },
            Self::Positional(values) => {
                // OpenSIPS's clients pass one list, people pass several words.
                let given = values.get(position..).unwrap_or_default();
                match given {
                    [Value::Array(values)] => values.iter().map(text).collect(),
                    _ => given.iter().map(text).collect(),
                }
            }
        }
    }

    /// Refuses names that the command does not know, and positions beyond the known ones.
    ///
    /// # Errors
    /// [`CommandError::Params`] with the first unknown one.
    pub fn only(&self, names: &[&str]) -> Result<(), CommandError> {
        match self {
            Self::Named(values) => match values.keys().find(|key| !names.contains(&key.as_str())) {
                Some(key) => {
                    let known = names.join(", ");
                    Err(CommandError::Params(format!(
                        "unknown parameter `{key}`; known: {known}"
                    )))
                }
                None => Ok(()),
            },
            Self::Positional(values) if values.len() > names.len() => {
                Err(CommandError::Params(format!(
                    "{} parameters where at most {} fit",
                    values.len(),
                    names.len()
                )))
            }
            _ => Ok(()),
        }
    }
}
