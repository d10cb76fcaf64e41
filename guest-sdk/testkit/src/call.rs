//! One hook call: a message, and the facts about it that are not in its bytes.

use sipbox_guest::{Direction, RouteOutcome, RouteSignature, SourceClass, Transport};

use crate::dialogs::{HeldLease, TestDialog};
use crate::nat::NatState;

/// What the request proves about its sender. The digest itself is the host's;
/// here a password is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) proxy: bool,
    pub(crate) realm: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) stale: bool,
}

/// A hook call, built step by step.
#[derive(Clone, Debug)]
pub struct Call {
    pub(crate) start_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) source: (String, u16, Transport),
    pub(crate) listener: String,
    pub(crate) tenant: String,
    pub(crate) seconds: u32,
    pub(crate) route_outcome: RouteOutcome,
    pub(crate) route_params: String,
    pub(crate) route_signature: RouteSignature,
    pub(crate) direction: Direction,
    pub(crate) source_class: Option<SourceClass>,
    pub(crate) nat: NatState,
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) authenticated_user: Option<String>,
    pub(crate) vars: Vec<(String, String)>,
    pub(crate) dialog: Option<TestDialog>,
    pub(crate) leases: Vec<HeldLease>,
}

impl Call {
    /// An initial request with the header fields that RFC 3261 section 8.1.1
    /// demands, from alice@example.com to its Request-URI.
    #[must_use]
    pub fn request(method: &str, uri: &str) -> Self {
        Self::new(
            format!("{method} {uri} SIP/2.0"),
            vec![
                (
                    "Via".into(),
                    "SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK776asdhds".into(),
                ),
                ("Max-Forwards".into(), "70".into()),
                (
                    "From".into(),
                    "<sip:alice@example.com>;tag=1928301774".into(),
                ),
                ("To".into(), format!("<{uri}>")),
                ("Call-ID".into(), "a84b4c76e66710@192.0.2.10".into()),
                ("CSeq".into(), format!("314159 {method}")),
                ("Contact".into(), "<sip:alice@192.0.2.10:5060>".into()),
            ],
        )
    }

    /// A REGISTER of `contact` for an address of record, to its own domain.
    #[must_use]
    pub fn register(user: &str, domain: &str, contact: &str) -> Self {
        Self::request("REGISTER", &format!("sip:{domain}"))
            .from(&format!("<sip:{user}@{domain}>"))
            .to(&format!("<sip:{user}@{domain}>"))
            .set("Contact", contact)
    }

    /// A message as text, with CRLF or plain line ends.
    ///
    /// # Panics
    /// When a line is no header field.
    #[must_use]
    pub fn text(message: &str) -> Self {
        let message = message.replace("\r\n", "\n");
        let (head, body) = message
            .split_once("\n\n")
            .unwrap_or((message.trim_end(), ""));
        let mut lines = head.lines();
        let start_line = lines.next().unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push_str("\r\n");
                    value.push_str(line);
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                panic!("`{line}` is no header field");
            };
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut call = Self::new(start_line, headers);
        call.body = body.as_bytes().to_vec();
        call
    }

    fn new(start_line: String, headers: Vec<(String, String)>) -> Self {
        Self {
            start_line,
            headers,
            body: Vec::new(),
            source: ("192.0.2.10".into(), 5060, Transport::Udp),
            listener: "udp".into(),
            tenant: "default".into(),
            seconds: 1_800_000_000,
            route_outcome: RouteOutcome::None,
            route_params: String::new(),
            route_signature: RouteSignature::None,
            direction: Direction::Unknown,
            source_class: None,
            nat: NatState::default(),
            credentials: Vec::new(),
            authenticated_user: None,
            vars: Vec::new(),
            dialog: None,
            leases: Vec::new(),
        }
    }

    /// Makes it a response; the header fields stay.
    #[must_use]
    pub fn response(mut self, status: u16, reason: &str) -> Self {
        self.start_line = format!("SIP/2.0 {status} {reason}");
        self
    }

    /// Replaces From; the value without the tag, as `<sip:bob@example.org>`.
    #[must_use]
    pub fn from(self, value: &str) -> Self {
        self.set("From", &format!("{value};tag=1928301774"))
    }

    /// Replaces To.
    #[must_use]
    pub fn to(self, value: &str) -> Self {
        self.set("To", value)
    }

    /// Gives To a tag, and says what Route processing found.
    #[must_use]
    pub fn in_dialog(mut self, outcome: RouteOutcome) -> Self {
        for (name, value) in &mut self.headers {
            if same_field(name, "To") {
                value.push_str(";tag=a6c85cf");
            }
        }
        self.route_outcome = outcome;
        self
    }

    /// Replaces every header field of that name by one.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.header(name, value)
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Removes every header field of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Gives it a body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.set("Content-Type", content_type)
    }

    /// Where the message came from.
    #[must_use]
    pub fn source(mut self, address: &str, port: u16, transport: Transport) -> Self {
        self.source = (address.into(), port, transport);
        self
    }

    /// The listener that received it.
    #[must_use]
    pub fn listener(mut self, name: &str) -> Self {
        self.listener = name.into();
        self
    }

    /// The tenant that it belongs to.
    #[must_use]
    pub fn tenant(mut self, name: &str) -> Self {
        self.tenant = name.into();
        self
    }

    /// The time of the call, in seconds since 1970.
    #[must_use]
    pub fn at(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// What Route processing found.
    #[must_use]
    pub fn route(mut self, outcome: RouteOutcome) -> Self {
        self.route_outcome = outcome;
        self
    }

    /// The parameters of the Route value that was ours: `lr;nat=yes`.
    #[must_use]
    pub fn route_params(mut self, params: &str) -> Self {
        self.route_params = params.into();
        self
    }

    /// What the signature of that value says.
    #[must_use]
    pub fn route_signature(mut self, signature: RouteSignature) -> Self {
        self.route_signature = signature;
        self
    }

    /// Where an in-dialog request goes.
    #[must_use]
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// The facts about the source, instead of those that the message tells.
    #[must_use]
    pub fn source_class(mut self, class: SourceClass) -> Self {
        self.source_class = Some(class);
        self
    }

    /// Credentials in Authorization, for a realm that asks with 401.
    #[must_use]
    pub fn authorization(self, realm: &str, user: &str, password: &str) -> Self {
        self.credentials(false, realm, user, password)
    }

    /// Credentials in Proxy-Authorization, for a realm that asks with 407.
    #[must_use]
    pub fn proxy_authorization(self, realm: &str, user: &str, password: &str) -> Self {
        self.credentials(true, realm, user, password)
    }

    fn credentials(mut self, proxy: bool, realm: &str, user: &str, password: &str) -> Self {
        self.credentials.push(Credentials {
            proxy,
            realm: realm.into(),
            user: user.into(),
            password: password.into(),
            stale: false,
        });
        let name = if proxy {
            "Proxy-Authorization"
        } else {
            "Authorization"
        };
        self.header(
            name,
            &format!("Digest username=\"{user}\", realm=\"{realm}\""),
        )
    }

    /// The nonces of its credentials are too old.
    #[must_use]
    pub fn stale(mut self) -> Self {
        for credentials in &mut self.credentials {
            credentials.stale = true;
        }
        self
    }

    /// A user that an earlier policy of the chain confirmed.
    #[must_use]
    pub fn authenticated_user(mut self, user: &str) -> Self {
        self.authenticated_user = Some(user.into());
        self
    }

    /// A variable that an earlier hook or policy set.
    #[must_use]
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.into(), value.into()));
        self
    }

    /// The dialog that the host knows it to belong to.
    #[must_use]
    pub fn dialog(mut self, dialog: TestDialog) -> Self {
        self.dialog = Some(dialog);
        self
    }

    pub(crate) fn is_in_dialog(&self) -> bool {
        self.values("To").any(|value| value.contains(";tag="))
    }

    pub(crate) fn is_response(&self) -> bool {
        self.start_line.starts_with("SIP/2.0 ")
    }

    pub(crate) fn method(&self) -> &str {
        self.start_line.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(other, _)| same_field(other, name))
            .map(|(_, value)| value.as_str())
    }
}

/// Whether two names, long or compact, mean the same header field.
fn same_field(one: &str, other: &str) -> bool {
    use sipbox_guest::ids::long_form;
    long_form(one).eq_ignore_ascii_case(long_form(other))
}
