//! What the calls of `nat` leave behind for the rest of the transaction, and the marks of
//! bindings.

/// Marks of a binding: OpenSIPS's branch flags of nathelper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindingFlags(u8);

impl BindingFlags {
    /// Its user agent is behind address translation.
    pub const NATTED: Self = Self(1);
    /// It is pinged by a SIP request.
    pub const SIPPING: Self = Self(2);
    /// It is removed when its answers to pings fail to come.
    pub const REMOVE_ON_TIMEOUT: Self = Self(4);

    /// Each flag: its name in the contract, and the name that OpenSIPS's documentation
    /// gives to it, by which it stands in `location.cflags`.
    const NAMES: [(Self, &'static str, &'static str); 3] = [
        (Self::NATTED, "natted", "NAT"),
        (Self::SIPPING, "sipping", "SIP_PING_FLAG"),
        (Self::REMOVE_ON_TIMEOUT, "remove-on-timeout", "RM_ONTO_FLAG"),
    ];

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These, and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flag of that name in the contract.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(flag, ..)| *flag)
    }

    /// The names in the contract, with commas between.
    #[must_use]
    pub fn names(self) -> String {
        self.joined(",", |(_, name, _)| name)
    }

    /// The text of the column `cflags`: OpenSIPS's names, with spaces between.
    #[must_use]
    pub fn to_cflags(self) -> Option<String> {
        (!self.is_empty()).then(|| self.joined(" ", |(.., name)| name))
    }

    /// Reads the column; other flags are a script's of its own.
    #[must_use]
    pub fn from_cflags(text: &str) -> Self {
        text.split_ascii_whitespace()
            .filter_map(|word| Self::NAMES.iter().find(|(.., name)| *name == word))
            .fold(Self::default(), |all, (flag, ..)| all.with(*flag))
    }

    fn joined(
        self,
        between: &str,
        name: impl Fn(&(Self, &'static str, &'static str)) -> &'static str,
    ) -> String {
        let names: Vec<&str> = Self::NAMES
            .iter()
            .filter(|(flag, ..)| self.contains(*flag))
            .map(name)
            .collect();
        names.join(between)
    }
}

/// Where requests to a binding go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// To the source of the REGISTER, unless it registers another host.
    #[default]
    Auto,
    /// To the source of the REGISTER.
    Source,
    /// To the Contact, but a connection is always the way back.
    Contact,
}

impl Reached {
    /// The way of that name in the contract.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "source" => Some(Self::Source),
            "contact" => Some(Self::Contact),
            _ => None,
        }
    }
}

/// What a transaction remembers of `nat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatState {
    /// `force-rport`: responses go to the port that the request came from.
    pub force_rport: bool,
    /// `fix-nated-register`: bindings are reached at the source.
    pub register: bool,
    /// `set-binding-flags`, for what `location.save` writes.
    pub flags: BindingFlags,
    /// `restore-nated-ruri`: where a relay along the Request-URI goes.
    pub next_hop: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_opensips_names_in_the_table() {
        let all = ["natted", "sipping", "remove-on-timeout"]
            .into_iter()
            .filter_map(BindingFlags::from_name)
            .fold(BindingFlags::default(), BindingFlags::with);
        assert_eq!(all.names(), "natted,sipping,remove-on-timeout");
        let column = all.to_cflags().unwrap();
        assert_eq!(column, "NAT SIP_PING_FLAG RM_ONTO_FLAG");
        assert_eq!(BindingFlags::from_cflags(&column), all);
        assert_eq!(BindingFlags::from_cflags("MINE NAT"), BindingFlags::NATTED);
        assert_eq!(BindingFlags::default().to_cflags(), None);
        assert_eq!(BindingFlags::from_name("NAT"), None);
    }
}
