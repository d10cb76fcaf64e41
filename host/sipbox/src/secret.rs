//! The secret that outlives a restart: what stands in dialogs of others and comes back is
//! signed with keys that are made of it. It lies in a file of its own beside the database;
//! nodes that serve the same dialogs have the same file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::start::random;

/// How many bytes; the file has twice as many hexadecimal digits, and a line end.
const LENGTH: usize = 32;

/// The secret.
pub(crate) struct Secret([u8; LENGTH]);

impl Secret {
    /// Reads the file, or makes it.
    ///
    /// # Errors
    /// When it can be neither read nor made, or holds something else.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(text.trim()).with_context(|| {
                format!(
                    "{} holds no key of {} hexadecimal digits; without it a new one is made, \
                     and dialogs that stand are not known any more",
                    path.display(),
                    2 * LENGTH
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::make(path),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The key of Record-Route parameters.
    pub(crate) fn route_key(&self) -> [u8; 16] {
        self.key(b"record-route")
    }

    /// A key for one use, from which neither the secret nor another key can be told.
    fn key(&self, purpose: &[u8]) -> [u8; 16] {
        // A block of the hash; what the secret leaves of it is zero by HMAC's own rule.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(self.0) {
            *to = from;
        }
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(purpose);
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(mac.finalize().into_bytes()) {
            *to = from;
        }
        key
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * LENGTH {
            return None;
        }
        let mut bytes = [0; LENGTH];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Written aside and linked into place: a crash leaves no half of it, and of two who
    /// start at a time one has the other's.
    fn make(path: &Path) -> anyhow::Result<Self> {
        let secret = Self(random()?);
        let aside = path.with_extension(format!("key.{}", std::process::id()));
        let text: String = secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| {
                writeln!(file, "{text}")?;
                file.sync_all()
            })
            .and_then(|()| fs::hard_link(&aside, path));
        let removed = fs::remove_file(&aside);
        match written {
            Ok(()) => {
                removed.with_context(|| format!("cannot remove {}", aside.display()))?;
                Ok(secret)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::open(path),
            Err(error) => bail!("cannot make {}: {error}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sipbox.key");
        let first = Secret::open(&path).unwrap();
        assert_eq!(Secret::open(&path).unwrap().0, first.0);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let other = Secret::open(&folder.path().join("other.key")).unwrap();
        assert_ne!(other.route_key(), first.route_key());
        assert_ne!(first.key(b"a"), first.key(b"b"));
    }

    #[test]
    fn a_file_that_holds_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sipbox.key");
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"ä".repeat(32)] {
            fs::write(&path, text).unwrap();
            let error = Secret::open(&path).err().unwrap();
            assert!(
                error.to_string().contains("64 hexadecimal digits"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), *text);
        }
    }
}
