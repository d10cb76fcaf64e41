//! The interface `nat`, and facts about the source, by the same texts as the host's.

use std::net::{IpAddr, SocketAddr};

use sipbox_guest::nat::{BindingFlags, SdpFixes};
use sipbox_guest::{Body, Edit, Error, SourceClass, Transport, ids};
use sipbox_sip::nat::{self as text, Facts};
use sipbox_sip::{Index, Message, Parts, ValueError};

use crate::call::Call;
use crate::checks::edit_header;
use crate::live::{Hook, Live};

/// What the transaction remembers of `nat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatState {
    /// `force-rport` was called.
    pub force_rport: bool,
    /// `fix-nated-register` was called.
    pub register: bool,
    /// The marks of `set-binding-flags`, and of `fix-nated-register`.
    pub flags: BindingFlags,
    /// Where `restore-nated-ruri` sends the request.
    pub next_hop: Option<String>,
}

impl Default for NatState {
    fn default() -> Self {
        Self {
            force_rport: false,
            register: false,
            flags: BindingFlags::empty(),
            next_hop: None,
        }
    }
}

fn source(call: &Call) -> (SocketAddr, sipbox_sip::Transport) {
    use sipbox_sip::Transport as T;
    let (address, port, transport) = &call.source;
    let Ok(ip) = address.parse::<IpAddr>() else {
        panic!("the source `{address}` is no address");
    };
    let transport = match transport {
        Transport::Udp => T::Udp,
        Transport::Tcp => T::Tcp,
        Transport::Tls => T::Tls,
        Transport::Ws => T::Ws,
        Transport::Wss => T::Wss,
    };
    (SocketAddr::new(ip, *port), transport)
}

fn malformed(error: ValueError) -> Error {
    Error::Malformed(error.to_string())
}

const FACTS: [(SourceClass, Facts); 11] = [
    (SourceClass::DIFF_PORT_SRC_VIA, Facts::DIFF_PORT_SRC_VIA),
    (SourceClass::DIFF_IP_SRC_VIA, Facts::DIFF_IP_SRC_VIA),
    (SourceClass::PRIVATE_CONTACT, Facts::PRIVATE_CONTACT),
    (SourceClass::PRIVATE_SDP, Facts::PRIVATE_SDP),
    (SourceClass::PRIVATE_VIA, Facts::PRIVATE_VIA),
    (SourceClass::DIFF_IP_SRC_CONTACT, Facts::DIFF_IP_SRC_CONTACT),
    (
        SourceClass::DIFF_PORT_SRC_CONTACT,
        Facts::DIFF_PORT_SRC_CONTACT,
    ),
    (SourceClass::CARRIER_GRADE_NAT, Facts::CARRIER_GRADE_NAT),
    (SourceClass::PRIVATE_SOURCE, Facts::PRIVATE_SOURCE),
    (SourceClass::LOOPBACK, Facts::LOOPBACK),
    (SourceClass::IPV6, Facts::IPV6),
];

/// The facts about a call, as the host would find them.
pub(crate) fn classify(call: &Call, asked: SourceClass) -> SourceClass {
    let mut bytes = format!("{}\r\n", call.start_line).into_bytes();
    for (name, value) in &call.headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(format!("Content-Length: {}\r\n\r\n", call.body.len()).bytes());
    bytes.extend(&call.body);
    let mut index = Index::new();
    let message = match Message::parse(&bytes, &mut index) {
        Ok(message) => message,
        Err(error) => panic!("the call is no message: {error}"),
    };
    let (source, transport) = source(call);
    let found = text::classify(
        message,
        &Parts::of(message),
        source,
        transport,
        Facts::all(),
    );
    FACTS
        .into_iter()
        .filter(|(_, fact)| found.contains(*fact))
        .fold(SourceClass::empty(), |all, (flag, _)| all | flag)
        & asked
}

const FIXES: [(SdpFixes, text::SdpFixes); 6] = [
    (SdpFixes::ADD_DIR_ACTIVE, text::SdpFixes::ADD_DIR_ACTIVE),
    (SdpFixes::REWRITE_MEDIA_IP, text::SdpFixes::REWRITE_MEDIA_IP),
    (SdpFixes::ADD_NO_RTPPROXY, text::SdpFixes::ADD_NO_RTPPROXY),
    (
        SdpFixes::REWRITE_ORIGIN_IP,
        text::SdpFixes::REWRITE_ORIGIN_IP,
    ),
    (SdpFixes::REWRITE_NULL_IPS, text::SdpFixes::REWRITE_NULL_IPS),
    (SdpFixes::OLDIP_SKIP, text::SdpFixes::OLDIP_SKIP),
];

fn is_contact(name: &str) -> bool {
    ids::long_form(name).eq_ignore_ascii_case("Contact")
}

impl Live {
    /// The Contact fields as the edits of this call leave them.
    fn contacts(&self) -> Vec<String> {
        let mut values: Vec<String> = self.call.values("Contact").map(str::to_owned).collect();
        for edit in &self.edits {
            match edit {
                Edit::SetHeader(field) if is_contact(&field.name) => {
                    values = vec![field.value.clone()];
                }
                Edit::AddHeader(field) if is_contact(&field.name) => {
                    values.push(field.value.clone());
                }
                Edit::RemoveHeader(name) if is_contact(name) => values.clear(),
                _ => {}
            }
        }
        values
    }

    pub(crate) fn mend_contacts(
        &mut self,
        mend: impl Fn(&[u8], (SocketAddr, sipbox_sip::Transport)) -> Result<Option<Vec<u8>>, ValueError>,
    ) -> Result<(), Error> {
        let mut values = self.contacts();
        let mut changed = false;
        for value in &mut values {
            if let Some(mended) = mend(value.as_bytes(), source(&self.call)).map_err(malformed)? {
                *value = String::from_utf8_lossy(&mended).into_owned();
                changed = true;
            }
        }
        if changed {
            let field = edit_header("Contact", &values.join(", "));
            self.edits.push(Edit::SetHeader(field));
        }
        Ok(())
    }

    pub(crate) fn mend_contact(&mut self, params: &str, preserve: bool) -> Result<(), Error> {
        let hooks = [Hook::Request, Hook::Branch, Hook::Reply];
        self.only_in(&hooks, "fix-nated-contact")?;
        text::check_params(params.as_bytes()).map_err(malformed)?;
        self.mend_contacts(|value, (source, transport)| {
            text::fix_contacts(value, source, transport, params.as_bytes(), preserve)
        })
    }

    pub(crate) fn restore_uri(&mut self) -> Result<bool, Error> {
        self.only_in(&[Hook::Request, Hook::Branch], "restore-nated-ruri")?;
        let edited = self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetRequestUri(uri) => Some(uri.clone()),
            _ => None,
        });
        let received = self.call.start_line.split(' ').nth(1).unwrap_or_default();
        let uri = edited.unwrap_or_else(|| received.to_owned());
        let Some(restored) = text::restore_uri(uri.as_bytes()) else {
            return Ok(false);
        };
        let restored = String::from_utf8_lossy(&restored).into_owned();
        self.edits.push(Edit::SetRequestUri(restored));
        if self.call.values("Route").next().is_none() {
            self.nat.next_hop = Some(uri);
        }
        Ok(true)
    }

    pub(crate) fn mend_sdp(
        &mut self,
        fixes: SdpFixes,
        address: &str,
        fields: &str,
    ) -> Result<(), Error> {
        let is_line = |line: &str| {
            line.starts_with(|kind: char| kind.is_ascii_lowercase())
                && line.get(1..2) == Some("=")
                && !line.contains(char::is_control)
        };
        if !fields.lines().all(is_line) {
            return Err(Error::Malformed(format!(
                "session description lines `{fields}`"
            )));
        }
        let fields = fields.lines().collect::<Vec<_>>().join("\r\n");
        let address = match address {
            "" => source(&self.call).0.ip(),
            text => text
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| Error::Malformed(format!("address `{text}`")))?,
        };
        let edited = self.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetBody(body) => Some(body.clone()),
            _ => None,
        });
        let body = edited.unwrap_or_else(|| Body {
            content_type: self.call.values("Content-Type").next().unwrap_or("").into(),
            bytes: self.call.body.clone(),
        });
        let fixes = FIXES
            .into_iter()
            .filter(|(flag, _)| fixes.contains(*flag))
            .fold(text::SdpFixes::empty(), |all, (_, fix)| all.with(fix));
        let fixed = text::fix_body(
            body.content_type.as_bytes(),
            &body.bytes,
            fixes,
            address,
            fields.as_bytes(),
        );
        if let Some(bytes) = fixed {
            let content_type = body.content_type;
            self.edits.push(Edit::SetBody(Body {
                content_type,
                bytes,
            }));
        }
        Ok(())
    }

    pub(crate) fn of_register(&self, what: &str) -> Result<(), Error> {
        self.only_in(&[Hook::Request], what)?;
        if self.call.method() == "REGISTER" {
            Ok(())
        } else {
            Err(Error::OutOfPlace(format!("{what} outside REGISTER")))
        }
    }
}
