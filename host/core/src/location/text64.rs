//! Bytes as letters, digits, `-` and `_` (the URL-safe alphabet of RFC 4648
//! section 5, without padding): the form of ids that stand in headers and URIs.

pub(crate) const ALPHABET: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The bytes as text.
pub(crate) fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(4).div_ceil(3));
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b));
        let bits = bits << (8 * (3 - group.len()));
        for i in 0..=group.len() {
            let six = (bits >> (18 - 6 * i)) & 63;
            text.extend(
                usize::try_from(six)
                    .ok()
                    .and_then(|i| ALPHABET.get(i))
                    .map(|b| char::from(*b)),
            );
        }
    }
    text
}

/// The bytes of a text; `None` for one that `to_text` would not make.
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len().saturating_mul(3) / 4);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for b in group {
            let six = match b {
                b'A'..=b'Z' => b - b'A',
                b'a'..=b'z' => b - b'a' + 26,
                b'0'..=b'9' => b - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        let missing = 4 - group.len();
        if missing == 3 {
            return None;
        }
        let [_, octets @ ..] = (bits << (6 * missing)).to_be_bytes();
        let (used, unused) = octets.split_at_checked(3 - missing)?;
        // One flow, one text: bits that say nothing must be zero.
        if unused.iter().any(|b| *b != 0) {
            return None;
        }
        bytes.extend(used);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_those_of_rfc_4648() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"\xfb\xff", "-_8"),
        ] {
            assert_eq!(to_text(bytes), text);
            assert_eq!(from_text(text).as_deref(), Some(bytes));
        }
        for broken in ["Z", "Zh", "Zm9", "Zg==", "Zm9v\n"] {
            assert_eq!(from_text(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(from_text(&to_text(&bytes)), Some(bytes));
        }
    }
}
