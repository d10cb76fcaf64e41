//! Regular expressions of a policy, compiled once for an instance. They match in linear
//! time, whatever the pattern and the text are.

use std::collections::VecDeque;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use sipbox_core::policy::CallError;

use crate::edit;

/// How many an instance keeps; the one that was not used for the longest time makes room.
const KEPT: usize = 16;
/// The most bytes that a compiled pattern takes.
const COMPILED: usize = 64 << 10;
/// The longest pattern.
const LONGEST: usize = 512;

/// The patterns that an instance used, the latest first.
#[derive(Default)]
pub(crate) struct Patterns(VecDeque<(String, Arc<Regex>)>);

impl Patterns {
    /// The pattern, compiled now or before.
    ///
    /// # Errors
    /// [`CallError::Malformed`] when it is no regular expression, [`CallError::Limit`] when
    /// it is too large a one.
    pub(crate) fn get(&mut self, pattern: &str) -> Result<Arc<Regex>, CallError> {
        if let Some(at) = self.0.iter().position(|(known, _)| known == pattern)
            && let Some(found) = self.0.remove(at)
        {
            let compiled = Arc::clone(&found.1);
            self.0.push_front(found);
            return Ok(compiled);
        }
        if pattern.len() > LONGEST {
            return Err(CallError::Limit(format!("{LONGEST} bytes of a pattern")));
        }
        let compiled = RegexBuilder::new(pattern)
            .size_limit(COMPILED)
            .dfa_size_limit(COMPILED)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => {
                    CallError::Limit(format!("{COMPILED} bytes of a compiled pattern"))
                }
                _ => CallError::Malformed(format!(
                    "`{}` is no regular expression",
                    edit::shown(pattern)
                )),
            })?;
        let compiled = Arc::new(compiled);
        self.0.truncate(KEPT - 1);
        self.0
            .push_front((pattern.to_owned(), Arc::clone(&compiled)));
        Ok(compiled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_kept_and_bounded() {
        let mut patterns = Patterns::default();
        let first = patterns.get("nat=(yes|on)").unwrap();
        assert!(first.is_match(b"lr;nat=yes"));
        assert!(Arc::ptr_eq(&first, &patterns.get("nat=(yes|on)").unwrap()));
        for number in 0..KEPT {
            patterns.get(&format!("x{number}")).unwrap();
        }
        assert_eq!(patterns.0.len(), KEPT);
        assert!(!Arc::ptr_eq(&first, &patterns.get("nat=(yes|on)").unwrap()));
    }

    #[test]
    fn what_is_none_or_too_large_is_refused() {
        let mut patterns = Patterns::default();
        for (pattern, limit) in [
            ("(", false),
            ("(?=x)", false),
            ("((a{99}){99}){99}", true),
            (&"x".repeat(LONGEST + 1), true),
        ] {
            let error = patterns.get(pattern).unwrap_err();
            assert_eq!(matches!(error, CallError::Limit(_)), limit, "{error}");
        }
        assert_eq!(patterns.0.len(), 0);
    }
}
