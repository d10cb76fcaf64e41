//! The name of a dialog: in `dialog.dlg_id` as a number, and as the value of the
//! parameter `did` of our Record-Route.

use std::fmt;

/// The URI parameter of our Record-Route that names the dialog.
pub const DID_PARAM: &str = "did";

/// How many entries the hash of dialogs has: the first part of a name.
pub(super) const ENTRIES: u32 = 4096;

/// A dialog: the entry that its Call-ID falls into, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogId(pub u64);

impl DialogId {
    pub(super) const fn new(entry: u32, number: u32) -> Self {
        Self((entry as u64) << 32 | number as u64)
    }

    /// The hash entry.
    #[must_use]
    pub fn entry(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(0)
    }

    /// The number within it.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// Reads `xx.yyyy`, or the plain number of `dlg_id`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let hexadecimal = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u32::from_str_radix(part, 16).ok()).flatten()
        };
        match text.split_once('.') {
            Some((entry, number)) => Some(Self::new(hexadecimal(entry)?, hexadecimal(number)?)),
            None => text.parse().ok().map(Self),
        }
    }
}

/// `xx.yyyy`, in hexadecimal.
impl fmt::Display for DialogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.entry(), self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let id = DialogId::new(0xabc, 0x1234_5678);
        assert_eq!(id.to_string(), "abc.12345678");
        assert_eq!(DialogId::parse(b"abc.12345678"), Some(id));
        assert_eq!(DialogId::parse(id.0.to_string().as_bytes()), Some(id));
        for wrong in ["", ".", "a.", ".b", "a.b.c", "x.1", "+1.2", "1.123456789"] {
            assert_eq!(DialogId::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
