//! The ids of the view's index: the table of `wit/README.md`, written down once
//! for guests and the test kit.

/// Method of a request.
pub const METHOD: u32 = 1;
/// Request-URI.
pub const REQUEST_URI: u32 = 2;
/// Status code of a response.
pub const STATUS: u32 = 3;
/// Reason phrase of a response.
pub const REASON: u32 = 4;

/// Request-URI: scheme.
pub const URI_SCHEME: u32 = 8;
/// Request-URI: user part, or the number of a `tel` URI.
pub const URI_USER: u32 = 9;
/// Request-URI: host.
pub const URI_HOST: u32 = 10;
/// Request-URI: port.
pub const URI_PORT: u32 = 11;
/// Request-URI: parameters without the first `;`.
pub const URI_PARAMS: u32 = 12;

/// First id of the From block.
pub const FROM: u32 = 16;
/// First id of the To block.
pub const TO: u32 = 24;
/// First id of the block of the first Contact.
pub const CONTACT: u32 = 40;

/// Call-ID.
pub const CALL_ID: u32 = 32;
/// CSeq number.
pub const CSEQ_NUMBER: u32 = 33;
/// CSeq method.
pub const CSEQ_METHOD: u32 = 34;

/// Name of the tenant.
pub const TENANT: u32 = 64;
/// Name of the listener.
pub const LISTENER: u32 = 65;
/// Address of the source.
pub const SOURCE: u32 = 66;
/// The user that `auth.check` confirmed earlier in this transaction.
pub const AUTHENTICATED_USER: u32 = 67;
/// Parameters of the Route value that was ours, without the first `;`.
pub const ROUTE_PARAMS: u32 = 68;

/// Immediate: seconds, milliseconds.
pub const NOW: u32 = 96;
/// Immediate: source port, transport.
pub const SOURCE_PORT: u32 = 97;
/// Immediate: route outcome, direction.
pub const ROUTING: u32 = 98;
/// Immediate: flags, length of the body.
pub const FLAGS: u32 = 99;

/// Bit of [`FLAGS`]: To has a tag.
pub const FLAG_IN_DIALOG: u32 = 1;
/// Bit of [`FLAGS`]: the message is a response.
pub const FLAG_RESPONSE: u32 = 2;
/// Bit of [`FLAGS`]: what our Route value says is what we wrote for this dialog.
pub const FLAG_ROUTE_SIGNED: u32 = 4;
/// Bit of [`FLAGS`]: somebody else wrote or changed it.
pub const FLAG_ROUTE_FORGED: u32 = 8;
/// Bit of [`FLAGS`]: we wrote it for this dialog, but longer ago than that counts.
pub const FLAG_ROUTE_EXPIRED: u32 = 16;
/// Bit of [`FLAGS`]: the request belongs to a dialog that the host keeps.
pub const FLAG_KNOWN_DIALOG: u32 = 32;
/// Bit of [`FLAGS`]: `create-dialog` was called for this request, in this hook.
pub const FLAG_DIALOG_CREATED: u32 = 64;

/// Name of a header field that [`FIELDS`] does not list; its value is the next triple.
pub const OTHER_NAME: u32 = 128;
/// Value of a header field that [`FIELDS`] does not list.
pub const OTHER_VALUE: u32 = 129;
/// Id of the first of [`FIELDS`].
pub const FIRST_FIELD: u32 = 256;

/// The id of a block's part: add it to [`FROM`] or [`TO`].
pub mod party {
    /// URI.
    pub const URI: u32 = 0;
    /// User part.
    pub const USER: u32 = 1;
    /// Host.
    pub const HOST: u32 = 2;
    /// Tag.
    pub const TAG: u32 = 3;
    /// Display name.
    pub const DISPLAY: u32 = 4;
    /// Port.
    pub const PORT: u32 = 5;
}

/// The id of a part of the first Contact: add it to [`CONTACT`].
pub mod contact {
    /// URI.
    pub const URI: u32 = 0;
    /// User part.
    pub const USER: u32 = 1;
    /// Host.
    pub const HOST: u32 = 2;
    /// Port.
    pub const PORT: u32 = 3;
}

/// Whether there is a part or fact of this id.
#[must_use]
pub const fn is_part(id: u32) -> bool {
    const FROM_PORT: u32 = FROM + party::PORT;
    const TO_PORT: u32 = TO + party::PORT;
    const CONTACT_PORT: u32 = CONTACT + contact::PORT;
    matches!(
        id,
        METHOD..=REASON
            | URI_SCHEME..=URI_PARAMS
            | FROM..=FROM_PORT
            | TO..=TO_PORT
            | CALL_ID..=CSEQ_METHOD
            | CONTACT..=CONTACT_PORT
            | TENANT..=ROUTE_PARAMS
            | NOW..=FLAGS
    )
}

/// Header fields with an id of their own, [`FIRST_FIELD`] upwards.
pub const FIELDS: [&str; 64] = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Content-Type",
    "Content-Length",
    "Route",
    "Record-Route",
    "Expires",
    "Authorization",
    "Proxy-Authorization",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Allow",
    "Supported",
    "Require",
    "Proxy-Require",
    "Unsupported",
    "User-Agent",
    "Server",
    "Path",
    "Service-Route",
    "Min-Expires",
    "Event",
    "Subject",
    "Date",
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Content-Encoding",
    "Content-Disposition",
    "Content-Language",
    "MIME-Version",
    "Organization",
    "Priority",
    "Timestamp",
    "Warning",
    "Retry-After",
    "Refer-To",
    "Referred-By",
    "Replaces",
    "Session-Expires",
    "Min-SE",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Privacy",
    "Diversion",
    "History-Info",
    "Remote-Party-ID",
    "Reason",
    "RSeq",
    "RAck",
    "Subscription-State",
    "Allow-Events",
    "Identity",
    "Authentication-Info",
    "Alert-Info",
    "Call-Info",
    "Error-Info",
    "In-Reply-To",
    "Reply-To",
];

/// Compact forms (RFC 3261 section 7.3.3 and the registrations since).
const COMPACT: [(u8, &str); 17] = [
    (b'v', "Via"),
    (b'f', "From"),
    (b't', "To"),
    (b'i', "Call-ID"),
    (b'm', "Contact"),
    (b'c', "Content-Type"),
    (b'l', "Content-Length"),
    (b'e', "Content-Encoding"),
    (b'k', "Supported"),
    (b's', "Subject"),
    (b'o', "Event"),
    (b'u', "Allow-Events"),
    (b'r', "Refer-To"),
    (b'b', "Referred-By"),
    (b'x', "Session-Expires"),
    (b'y', "Identity"),
    (b'n', "Identity-Info"),
];

/// The long form of a header field's name; a name that is no compact form is
/// returned as it is.
#[must_use]
pub fn long_form(name: &str) -> &str {
    if let [letter] = name.as_bytes() {
        for (compact, long) in COMPACT {
            if compact == letter.to_ascii_lowercase() {
                return long;
            }
        }
    }
    name
}

/// The id of a header field, in long form; `None`: it is sent under
/// [`OTHER_NAME`] and [`OTHER_VALUE`].
#[must_use]
pub fn field(name: &str) -> Option<u32> {
    (FIRST_FIELD..)
        .zip(FIELDS)
        .find(|(_, field)| field.eq_ignore_ascii_case(name))
        .map(|(id, _)| id)
}

/// The name of the header field with this id.
#[must_use]
pub fn field_name(id: u32) -> Option<&'static str> {
    let position = usize::try_from(id.checked_sub(FIRST_FIELD)?).ok()?;
    FIELDS.get(position).copied()
}
