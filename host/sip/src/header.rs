//! Names of header fields: the well-known ones as an enum, with their compact
//! forms (RFC 3261 7.3.3 and the IANA registry). Values are not handled here.

use std::fmt;

macro_rules! headers {
    ($($id:ident = $name:literal $(| $compact:literal)?;)+) => {
        /// A header field's name: one of the well-known ones, or `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum HeaderId {
            $(#[doc = concat!("`", $name, "`")] $id,)+
            /// A name that this list does not have.
            Other,
        }

        const NAMES: &[(&str, HeaderId)] = &[
            $(($name, HeaderId::$id), $(($compact, HeaderId::$id),)?)+
        ];

        impl HeaderId {
            /// Every well-known name, `Other` excluded.
            pub const ALL: &'static [Self] = &[$(Self::$id,)+];

            /// The canonical spelling; empty for `Other`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)+
                    Self::Other => "",
                }
            }

            /// The compact form, for names that have one.
            #[must_use]
            pub const fn compact(self) -> Option<&'static str> {
                match self {
                    $($(Self::$id => Some($compact),)?)+
                    _ => None,
                }
            }
        }
    };
}

headers! {
    Via = "Via" | "v";
    From = "From" | "f";
    To = "To" | "t";
    CallId = "Call-ID" | "i";
    CSeq = "CSeq";
    Contact = "Contact" | "m";
    MaxForwards = "Max-Forwards";
    Route = "Route";
    RecordRoute = "Record-Route";
    ContentLength = "Content-Length" | "l";
    ContentType = "Content-Type" | "c";
    Expires = "Expires";
    MinExpires = "Min-Expires";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    AuthenticationInfo = "Authentication-Info";
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Supported = "Supported" | "k";
    Unsupported = "Unsupported";
    Allow = "Allow";
    UserAgent = "User-Agent";
    Server = "Server";
    Path = "Path";
    ServiceRoute = "Service-Route";
    MaxBreadth = "Max-Breadth";
    Timestamp = "Timestamp";
    Date = "Date";
    RetryAfter = "Retry-After";
    Warning = "Warning";
    Event = "Event" | "o";
    Reason = "Reason";
    ReferTo = "Refer-To" | "r";
    ReferredBy = "Referred-By" | "b";
    PAssertedIdentity = "P-Asserted-Identity";
    PPreferredIdentity = "P-Preferred-Identity";
    Privacy = "Privacy";
    SessionExpires = "Session-Expires" | "x";
    MinSe = "Min-SE";
    Accept = "Accept";
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AcceptContact = "Accept-Contact" | "a";
    RejectContact = "Reject-Contact" | "j";
    RequestDisposition = "Request-Disposition" | "d";
    AlertInfo = "Alert-Info";
    AllowEvents = "Allow-Events" | "u";
    CallInfo = "Call-Info";
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding" | "e";
    ContentLanguage = "Content-Language";
    ErrorInfo = "Error-Info";
    InReplyTo = "In-Reply-To";
    MimeVersion = "MIME-Version";
    Organization = "Organization";
    Priority = "Priority";
    ReplyTo = "Reply-To";
    Subject = "Subject" | "s";
    SubscriptionState = "Subscription-State";
    Replaces = "Replaces";
    Join = "Join";
    TargetDialog = "Target-Dialog";
    RAck = "RAck";
    RSeq = "RSeq";
    SipEtag = "SIP-ETag";
    SipIfMatch = "SIP-If-Match";
    Identity = "Identity" | "y";
    IdentityInfo = "Identity-Info" | "n";
    HistoryInfo = "History-Info";
    Diversion = "Diversion";
    FlowTimer = "Flow-Timer";
    FeatureCaps = "Feature-Caps";
    Geolocation = "Geolocation";
    InfoPackage = "Info-Package";
    RecvInfo = "Recv-Info";
    SecurityClient = "Security-Client";
    SecurityServer = "Security-Server";
    SecurityVerify = "Security-Verify";
    SessionId = "Session-ID";
    UserToUser = "User-to-User";
    PAccessNetworkInfo = "P-Access-Network-Info";
    PAssociatedUri = "P-Associated-URI";
    PCalledPartyId = "P-Called-Party-ID";
    PChargingVector = "P-Charging-Vector";
    PEarlyMedia = "P-Early-Media";
    PAssertedService = "P-Asserted-Service";
    PPreferredService = "P-Preferred-Service";
    PVisitedNetworkId = "P-Visited-Network-ID";
}

impl HeaderId {
    /// Number of ids, `Other` included: the length of a table indexed by id.
    pub const COUNT: usize = Self::ALL.len() + 1;

    /// Looks a name up, whatever its case, long or compact.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Self {
        let mut slot = hash(name);
        while let Some(&entry) = SLOTS.get(slot) {
            let Some(&(known, id)) = usize::from(entry).checked_sub(1).and_then(|i| NAMES.get(i))
            else {
                return Self::Other;
            };
            // Most names come in their usual spelling, which is quickly compared.
            let known = known.as_bytes();
            if known.len() == name.len() && (known == name || known.eq_ignore_ascii_case(name)) {
                return id;
            }
            slot = (slot + 1) % SLOT_COUNT;
        }
        Self::Other
    }

    /// Whether RFC 3261's grammar lets the field appear only once, so that a
    /// second one makes a message ambiguous (RFC 4475 3.3.8).
    #[must_use]
    pub const fn is_single(self) -> bool {
        matches!(
            self,
            Self::From
                | Self::To
                | Self::CallId
                | Self::CSeq
                | Self::MaxForwards
                | Self::ContentLength
                | Self::ContentType
                | Self::Expires
                | Self::MinExpires
                | Self::MaxBreadth
                | Self::SessionExpires
                | Self::MinSe
                | Self::Event
                | Self::ReferTo
                | Self::RAck
                | Self::RSeq
        )
    }
}

impl fmt::Display for HeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Other) {
            "extension header"
        } else {
            self.name()
        })
    }
}

/// A header field's name as an argument: a well-known id or any token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderName<'a> {
    /// A well-known name, written in its canonical spelling.
    Id(HeaderId),
    /// Any other name, written as given (it must be a token).
    Raw(&'a [u8]),
}

impl<'a> HeaderName<'a> {
    /// The bytes to write.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Id(id) => id.name().as_bytes(),
            Self::Raw(name) => name,
        }
    }

    /// The id that the name stands for.
    #[must_use]
    pub fn id(self) -> HeaderId {
        match self {
            Self::Id(id) => id,
            Self::Raw(name) => HeaderId::from_name(name),
        }
    }
}

impl From<HeaderId> for HeaderName<'_> {
    fn from(id: HeaderId) -> Self {
        Self::Id(id)
    }
}

impl<'a> From<&'a [u8]> for HeaderName<'a> {
    fn from(name: &'a [u8]) -> Self {
        Self::Raw(name)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for HeaderName<'a> {
    fn from(name: &'a [u8; N]) -> Self {
        Self::Raw(name)
    }
}

impl<'a> From<&'a str> for HeaderName<'a> {
    fn from(name: &'a str) -> Self {
        Self::Raw(name.as_bytes())
    }
}

const SLOT_COUNT: usize = 512;

// A table made at compile time: one hash of length, first and last byte, then
// almost always one comparison. A chain of comparisons per length was slower.
static SLOTS: [u8; SLOT_COUNT] = slots();

const fn hash(name: &[u8]) -> usize {
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return 0;
    };
    let first = (*first | 0x20) as usize;
    let last = (*last | 0x20) as usize;
    (name.len().wrapping_mul(31) ^ first.wrapping_mul(7) ^ last.wrapping_mul(67)) % SLOT_COUNT
}

#[allow(
    clippy::indexing_slicing,
    reason = "runs at compile time, where a bad index is an error"
)]
const fn slots() -> [u8; SLOT_COUNT] {
    assert!(NAMES.len() < 255, "an entry is one byte");
    let mut slots = [0u8; SLOT_COUNT];
    let mut i = 0;
    while i < NAMES.len() {
        let mut slot = hash(NAMES[i].0.as_bytes());
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOT_COUNT;
        }
        slots[slot] = (i + 1) as u8;
        i += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_compact_form_is_found_in_any_case() {
        for &(name, id) in NAMES {
            assert_eq!(HeaderId::from_name(name.as_bytes()), id, "{name}");
            assert_eq!(
                HeaderId::from_name(name.to_uppercase().as_bytes()),
                id,
                "{name}"
            );
            assert_eq!(
                HeaderId::from_name(name.to_lowercase().as_bytes()),
                id,
                "{name}"
            );
        }
        assert_eq!(HeaderId::from_name(b"v").name(), "Via");
        assert_eq!(HeaderId::from_name(b"X-Other"), HeaderId::Other);
        assert_eq!(HeaderId::from_name(b""), HeaderId::Other);
        assert_eq!(HeaderId::from_name(b"C%6Fntact"), HeaderId::Other);
    }

    #[test]
    fn compact_forms_are_those_of_the_registry() {
        let forms: Vec<_> = HeaderId::ALL
            .iter()
            .filter_map(|id| Some((id.compact()?, id.name())))
            .collect();
        assert_eq!(forms.len(), 20);
        for (compact, name) in forms {
            assert_eq!(HeaderId::from_name(compact.as_bytes()).name(), name);
        }
    }
}
