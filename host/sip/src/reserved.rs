//! What is the host's in a message, whatever a policy says: one list for the host, which
//! refuses it, and for the test kit, in which a policy has to meet the same refusal. The
//! table for those who write policies is in `wit/README.md`.

use crate::header::HeaderId;

/// Fields that keep transactions, dialogs and routes right.
const FIELDS: [HeaderId; 11] = [
    HeaderId::Via,
    HeaderId::MaxForwards,
    HeaderId::MaxBreadth,
    HeaderId::ContentLength,
    HeaderId::ContentType,
    HeaderId::CSeq,
    HeaderId::CallId,
    HeaderId::From,
    HeaderId::To,
    HeaderId::Route,
    HeaderId::RecordRoute,
];

/// URI parameters of our Record-Route that are the host's, and those that say how the URI is
/// reached (RFC 3261 19.1.1).
const ROUTE_PARAMS: [&str; 11] = [
    "lr",
    "r2",
    "tn",
    "ftag",
    "did",
    "sig",
    "transport",
    "maddr",
    "ttl",
    "method",
    "user",
];

/// The name of a Record-Route parameter as it is reserved, if it is.
#[must_use]
pub fn route_param(name: &str) -> Option<&'static str> {
    ROUTE_PARAMS
        .into_iter()
        .find(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// The name of a field as it is reserved, if it is: in long or compact form.
#[must_use]
pub fn field(name: &str) -> Option<&'static str> {
    let id = HeaderId::from_name(name.as_bytes());
    FIELDS.contains(&id).then(|| id.name())
}
