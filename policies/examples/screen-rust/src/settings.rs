//! The settings, and what makes them good ones.

use serde::Deserialize;

/// What the configuration gives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The digits in front of national numbers.
    pub country_code: String,
    /// What stands in front of international numbers.
    #[serde(default = "international_prefixes")]
    pub international_prefixes: Vec<String>,
    /// What stands in front of national numbers; empty: they are not known.
    #[serde(default = "trunk_prefix")]
    pub trunk_prefix: String,
    /// Header fields that requests lose.
    #[serde(default)]
    pub remove_headers: Vec<String>,
    /// Header fields that requests get.
    #[serde(default)]
    pub set_headers: Vec<Field>,
    /// Numbers that may not call; `*` at the end stands for anything.
    #[serde(default)]
    pub blocked_callers: Vec<String>,
    /// Numbers that may not be called.
    #[serde(default)]
    pub blocked_callees: Vec<String>,
    /// The reason phrase for both.
    #[serde(default = "reason")]
    pub reason: String,
    /// The header field of responses that says how many provisional ones there were.
    pub count_header: Option<String>,
}

/// A header field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

fn international_prefixes() -> Vec<String> {
    vec!["00".to_owned()]
}

fn trunk_prefix() -> String {
    "0".to_owned()
}

fn reason() -> String {
    "Blocked".to_owned()
}

pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_token(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b".!%*_+`'~-".contains(&b);
    !text.is_empty() && text.bytes().all(letter)
}

fn is_plain(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_control())
}

/// A number, or its beginning and `*`.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let digits = digits.strip_suffix('*').unwrap_or(digits);
    !text.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn check(name: &str, expected: &str, good: bool) -> Result<(), String> {
    if good {
        Ok(())
    } else {
        Err(format!("{name}: expected {expected}"))
    }
}

fn check_all(
    name: &str,
    expected: &str,
    list: &[String],
    good: fn(&str) -> bool,
) -> Result<(), String> {
    list.iter()
        .enumerate()
        .try_for_each(|(at, item)| check(&format!("{name}[{at}]"), expected, good(item)))
}

impl Settings {
    /// Looks at what types do not tell.
    pub(crate) fn checked(self) -> Result<Self, String> {
        const NAME: &str = "the name of a header field";
        const LINE: &str = "a text of one line";
        const NUMBER: &str = "a number, or its beginning and `*`";
        let code = &self.country_code;
        check(
            "country_code",
            "1 to 3 digits that do not begin with 0",
            is_digits(code) && code.len() <= 3 && !code.starts_with('0'),
        )?;
        check_all(
            "international_prefixes",
            "digits",
            &self.international_prefixes,
            is_digits,
        )?;
        check(
            "trunk_prefix",
            "digits or an empty text",
            self.trunk_prefix.is_empty() || is_digits(&self.trunk_prefix),
        )?;
        check_all("remove_headers", NAME, &self.remove_headers, is_token)?;
        for (at, Field { name, value }) in self.set_headers.iter().enumerate() {
            check(&format!("set_headers[{at}].name"), NAME, is_token(name))?;
            check(&format!("set_headers[{at}].value"), LINE, is_plain(value))?;
        }
        check_all("blocked_callers", NUMBER, &self.blocked_callers, is_number)?;
        check_all("blocked_callees", NUMBER, &self.blocked_callees, is_number)?;
        check("reason", LINE, is_plain(&self.reason))?;
        let counts = self.count_header.as_deref();
        check("count_header", NAME, counts.is_none_or(is_token))?;
        Ok(self)
    }
}
