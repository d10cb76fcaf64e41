//! Reading one table: typed values with their places, and what is left over.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::model::Span;
use crate::syntax::duration;

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    pub(crate) found: Vec<Diagnostic>,
    /// Every setting that was asked for, with its table's name.
    #[cfg(test)]
    pub(crate) known: std::collections::BTreeSet<(String, &'static str)>,
}

impl Diagnostics {
    pub(crate) fn error(&mut self, message: impl Into<String>, span: Span, expected: &str) {
        self.found.push(Diagnostic::error(message, span, expected));
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// One table being read. Every key that is asked for counts as known; the others
/// are reported by [`Table::finish`].
pub(crate) struct Table<'t, 'i> {
    table: &'t DeTable<'i>,
    /// How the table is called in messages.
    name: &'t str,
    span: Span,
    known: Vec<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub(crate) fn new(table: &'t DeTable<'i>, name: &'t str, span: Span) -> Self {
        Self {
            table,
            name,
            span,
            known: Vec::new(),
        }
    }

    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    /// Where the value of a key stands; the table's place without it.
    pub(crate) fn place(&self, key: &str) -> Span {
        self.table
            .get(key)
            .map_or_else(|| self.span(), Spanned::span)
    }

    fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &str,
        out: &mut Diagnostics,
    ) {
        let found = match value.get_ref().type_str() {
            found @ ("array" | "integer") => format!("an {found}"),
            found => format!("a {found}"),
        };
        let message = format!("`{key}` of {} is {found}", self.name);
        out.error(message, value.span(), &format!("expected {expected}"));
    }

    fn missing(&self, key: &str, expected: &str, out: &mut Diagnostics) {
        let message = format!("{} has no `{key}`", self.name);
        out.error(
            message,
            self.span.clone(),
            &format!("expected `{key} = …`: {expected}"),
        );
    }

    /// A text.
    pub(crate) fn text(
        &mut self,
        key: &'static str,
        expected: &str,
        out: &mut Diagnostics,
    ) -> Option<At<&'t str>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At {
                value: text,
                span: value.span(),
            }),
            None => {
                self.wrong_type(key, value, &format!("a text: {expected}"), out);
                None
            }
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(
        &mut self,
        key: &'static str,
        expected: &str,
        out: &mut Diagnostics,
    ) -> Option<At<&'t str>> {
        if self.get(key).is_none() {
            self.missing(key, expected, out);
            return None;
        }
        self.text(key, expected, out)
    }

    /// A text that `parse` understands.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        out: &mut Diagnostics,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<At<T>> {
        let text = self.text(key, expected, out)?;
        match parse(text.value) {
            Some(value) => Some(At {
                value,
                span: text.span,
            }),
            None => {
                let message = format!("`{key}` of {}: `{}` will not do", self.name, text.value);
                out.error(message, text.span, &format!("expected {expected}"));
                None
            }
        }
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        out: &mut Diagnostics,
    ) -> Option<At<T>> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let expected = one_of(&names);
        let text = self.text(key, &expected, out)?;
        match choices.iter().find(|(name, _)| *name == text.value) {
            Some((_, value)) => Some(At {
                value: *value,
                span: text.span,
            }),
            None => {
                let message = format!("`{key}` of {}: there is no `{}`", self.name, text.value);
                let diagnostic =
                    Diagnostic::error(message, text.span, format!("expected {expected}"));
                out.push(suggest(diagnostic, text.value, &names));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &'static str, out: &mut Diagnostics) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false", out);
        }
        flag
    }

    /// A whole number within a range.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        out: &mut Diagnostics,
    ) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, &expected, out);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let message = format!("`{key}` of {} is out of range", self.name);
                out.error(message, value.span(), &format!("expected {expected}"));
                None
            }
        }
    }

    /// A length of time such as `"500ms"`, `"32s"`, `"3m"`, `"1h"`, within a range.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<Duration>,
        out: &mut Diagnostics,
    ) -> Option<Duration> {
        let shown = |duration: &Duration| match duration.as_millis() {
            ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
            ms => format!("{ms}ms"),
        };
        let expected = format!(
            "a time such as \"500ms\", \"32s\", \"3m\" or \"1h\", from {} to {}",
            shown(range.start()),
            shown(range.end())
        );
        let parse = |text: &str| duration(text).filter(|value| range.contains(value));
        self.parsed(key, &expected, out, parse).map(|at| at.value)
    }

    /// A list of texts.
    pub(crate) fn texts(
        &mut self,
        key: &'static str,
        expected: &str,
        out: &mut Diagnostics,
    ) -> Vec<At<&'t str>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &format!("a list: {expected}"), out);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_str() {
                Some(text) => texts.push(At {
                    value: text,
                    span: element.span(),
                }),
                None => self.wrong_type(key, element, &format!("a text: {expected}"), out),
            }
        }
        texts
    }

    /// A table within.
    pub(crate) fn table<'n>(
        &mut self,
        key: &'static str,
        name: &'n str,
        out: &mut Diagnostics,
    ) -> Option<Table<'n, 'i>>
    where
        't: 'n,
    {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Table::new(table, name, value.span())),
            None => {
                self.wrong_type(key, value, "a table", out);
                None
            }
        }
    }

    /// An array of tables within.
    pub(crate) fn tables<'n>(
        &mut self,
        key: &'static str,
        name: &'n str,
        out: &mut Diagnostics,
    ) -> Vec<Table<'n, 'i>>
    where
        't: 'n,
    {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &format!("tables: `[[{key}]]`"), out);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_table() {
                Some(table) => tables.push(Table::new(table, name, element.span())),
                None => self.wrong_type(key, element, "a table", out),
            }
        }
        tables
    }

    /// Reports keys that nobody asked for.
    pub(crate) fn finish(self, out: &mut Diagnostics) {
        #[cfg(test)]
        out.known
            .extend(self.known.iter().map(|key| (self.name.to_owned(), *key)));
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let message = format!("{} has no setting `{name}`", self.name);
                let expected = format!("expected {}", one_of(&self.known));
                let diagnostic = Diagnostic::error(message, key.span(), expected);
                out.push(suggest(diagnostic, name, &self.known));
            }
        }
    }
}

/// `a`, `b` or `c`.
pub(crate) fn one_of(names: &[&str]) -> String {
    let mut text = String::new();
    for (position, name) in names.iter().enumerate() {
        if position > 0 {
            text.push_str(if position + 1 == names.len() {
                " or "
            } else {
                ", "
            });
        }
        text.push('`');
        text.push_str(name);
        text.push('`');
    }
    text
}

/// Adds the most similar name, if one is similar enough to be meant.
pub(crate) fn suggest(diagnostic: Diagnostic, found: &str, names: &[&str]) -> Diagnostic {
    match similar(found, names) {
        Some(name) => diagnostic.help(format!("did you mean `{name}`?")),
        None => diagnostic,
    }
}

/// The name that was probably meant, if one is similar enough.
#[must_use]
pub fn similar<'n>(found: &str, names: &[&'n str]) -> Option<&'n str> {
    names
        .iter()
        .map(|name| (likeness(found, name), *name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn likeness(found: &str, name: &str) -> f64 {
    strsim::jaro_winkler(&found.to_lowercase(), &name.to_lowercase())
}
