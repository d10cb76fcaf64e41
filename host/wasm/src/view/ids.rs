//! The ids of the view's index and their order: the table of `wit/README.md`, whose only home
//! in the host this is.

use sipbox_sip::HeaderId;

/// Ids of the triples.
pub(super) mod id {
    pub(in crate::view) const METHOD: u32 = 1;
    pub(in crate::view) const REQUEST_URI: u32 = 2;
    pub(in crate::view) const STATUS: u32 = 3;
    pub(in crate::view) const REASON: u32 = 4;
    pub(in crate::view) const URI_SCHEME: u32 = 8;
    pub(in crate::view) const URI_USER: u32 = 9;
    pub(in crate::view) const URI_HOST: u32 = 10;
    pub(in crate::view) const URI_PORT: u32 = 11;
    pub(in crate::view) const URI_PARAMS: u32 = 12;
    pub(in crate::view) const FROM: u32 = 16;
    pub(in crate::view) const TO: u32 = 24;
    pub(in crate::view) const CALL_ID: u32 = 32;
    pub(in crate::view) const CSEQ_NUMBER: u32 = 33;
    pub(in crate::view) const CSEQ_METHOD: u32 = 34;
    pub(in crate::view) const CONTACT_URI: u32 = 40;
    pub(in crate::view) const CONTACT_USER: u32 = 41;
    pub(in crate::view) const CONTACT_HOST: u32 = 42;
    pub(in crate::view) const CONTACT_PORT: u32 = 43;
    pub(in crate::view) const TENANT: u32 = 64;
    pub(in crate::view) const LISTENER: u32 = 65;
    pub(in crate::view) const SOURCE_ADDRESS: u32 = 66;
    pub(in crate::view) const AUTHENTICATED_USER: u32 = 67;
    pub(in crate::view) const ROUTE_PARAMS: u32 = 68;
    pub(in crate::view) const NOW: u32 = 96;
    pub(in crate::view) const SOURCE: u32 = 97;
    pub(in crate::view) const ROUTING: u32 = 98;
    pub(in crate::view) const FLAGS: u32 = 99;
    pub(in crate::view) const NAME: u32 = 128;
    pub(in crate::view) const VALUE: u32 = 129;
    pub(in crate::view) const FIELDS: u32 = 256;
    // Behind the id of From and To.
    pub(in crate::view) const ADDRESS_USER: u32 = 1;
    pub(in crate::view) const ADDRESS_HOST: u32 = 2;
    pub(in crate::view) const ADDRESS_TAG: u32 = 3;
    pub(in crate::view) const ADDRESS_DISPLAY: u32 = 4;
    pub(in crate::view) const ADDRESS_PORT: u32 = 5;
}

/// The ids of what is no header field, each of which has a triple in every view.
pub(super) const PARTS: [u32; 37] = {
    let mut parts = [0; 37];
    let (mut id, mut place) = (0, 0);
    while id < id::NAME {
        if matches!(id, 1..=4 | 8..=12 | 16..=21 | 24..=29 | 32..=34 | 40..=43 | 64..=68 | 96..=99)
        {
            #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
            {
                parts[place] = id;
            }
            place += 1;
        }
        id += 1;
    }
    assert!(place == parts.len());
    parts
};

/// Their places, by id.
pub(super) const PLACES: [u8; id::NAME as usize] = {
    let mut places = [0; id::NAME as usize];
    let mut place = 0;
    while place < PARTS.len() {
        #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
        {
            places[PARTS[place] as usize] = place as u8;
        }
        place += 1;
    }
    places
};

/// Their triples where nothing is known.
pub(super) const MISSING: [[u32; 3]; PARTS.len()] = {
    let mut triples = [[0; 3]; PARTS.len()];
    let mut place = 0;
    while place < PARTS.len() {
        #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
        {
            triples[place][0] = PARTS[place];
        }
        place += 1;
    }
    triples
};

/// Where the flags stand in the index.
#[allow(clippy::indexing_slicing, reason = "runs at compile time")]
pub(super) const FLAGS_AT: usize = 3 * PLACES[id::FLAGS as usize] as usize + 1;

/// The fields of the table, in the order of their ids from 256 on.
pub(super) const FIELDS: [HeaderId; 64] = {
    use HeaderId as H;
    [
        H::Via,
        H::From,
        H::To,
        H::CallId,
        H::CSeq,
        H::Contact,
        H::MaxForwards,
        H::ContentType,
        H::ContentLength,
        H::Route,
        H::RecordRoute,
        H::Expires,
        H::Authorization,
        H::ProxyAuthorization,
        H::WwwAuthenticate,
        H::ProxyAuthenticate,
        H::Allow,
        H::Supported,
        H::Require,
        H::ProxyRequire,
        H::Unsupported,
        H::UserAgent,
        H::Server,
        H::Path,
        H::ServiceRoute,
        H::MinExpires,
        H::Event,
        H::Subject,
        H::Date,
        H::Accept,
        H::AcceptEncoding,
        H::AcceptLanguage,
        H::ContentEncoding,
        H::ContentDisposition,
        H::ContentLanguage,
        H::MimeVersion,
        H::Organization,
        H::Priority,
        H::Timestamp,
        H::Warning,
        H::RetryAfter,
        H::ReferTo,
        H::ReferredBy,
        H::Replaces,
        H::SessionExpires,
        H::MinSe,
        H::PAssertedIdentity,
        H::PPreferredIdentity,
        H::Privacy,
        H::Diversion,
        H::HistoryInfo,
        // Remote-Party-ID has id 307; the parser has no name for it.
        H::Other,
        H::Reason,
        H::RSeq,
        H::RAck,
        H::SubscriptionState,
        H::AllowEvents,
        H::Identity,
        H::AuthenticationInfo,
        H::AlertInfo,
        H::CallInfo,
        H::ErrorInfo,
        H::InReplyTo,
        H::ReplyTo,
    ]
};

pub(super) const REMOTE_PARTY_ID: u32 = 307;

/// The id of each field by the parser's number; 0 for those not in the table.
pub(super) const IDS: [u16; HeaderId::COUNT] = {
    let mut ids = [0u16; HeaderId::COUNT];
    let mut i = 0;
    while i < FIELDS.len() {
        #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
        let field = FIELDS[i];
        if !matches!(field, HeaderId::Other) {
            #[allow(clippy::indexing_slicing, reason = "runs at compile time")]
            {
                ids[field as usize] = id::FIELDS as u16 + i as u16;
            }
        }
        i += 1;
    }
    ids
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_table() {
        let table = include_str!("../../../../wit/README.md");
        for id in PARTS {
            assert!(table.contains(&format!("| {id} |")), "{id}");
        }
    }

    #[test]
    fn ids_are_those_of_the_table() {
        let table = include_str!("../../../../wit/README.md");
        for (at, field) in FIELDS.iter().enumerate() {
            let name = if *field == HeaderId::Other {
                "Remote-Party-ID"
            } else {
                field.name()
            };
            let row = format!("| {} | {name} ", 256 + at);
            assert!(table.contains(&row), "{row}");
        }
    }
}
