//! The interface `nat`: messages from behind address translation, mended. The texts are
//! made by [`sipbox_sip::nat`]; here they become edits of the call, each made of what the
//! earlier ones left.

use std::net::IpAddr;

use bytes::Bytes;
use sipbox_core::policy::{BindingFlags, Body, CallError, Edit, Hook};
use sipbox_sip::nat::{self, Facts, SdpFixes};
use sipbox_sip::{HeaderId, Method, ValueError, lex};

use crate::bindings::wit::call::SourceClass;
use crate::bindings::wit::nat as wit;
use crate::bindings::wit::types::Error;
use crate::cx::CallCx;
use crate::edit;

type Outcome = wasmtime::Result<Result<(), Error>>;

const CONTACT: &str = "Contact";

impl wit::Host for CallCx {
    fn force_rport(&mut self) -> Outcome {
        self.enter()?;
        self.stage(0)?;
        let placed = self.only_in("force-rport", &[Hook::Request]);
        if placed.is_ok() {
            self.call.edits.push(Edit::ForceRport);
            self.call.state_mut().nat.force_rport = true;
        }
        Ok(placed.map_err(Error::from))
    }

    fn fix_nated_contact(&mut self, params: String, preserve_uri: bool) -> Outcome {
        self.enter()?;
        let hooks = [Hook::Request, Hook::Branch, Hook::Reply];
        let (peer, transport) = self.sender();
        let fixed = self
            .only_in("fix-nated-contact", &hooks)
            .and_then(|()| nat::check_params(params.as_bytes()).map_err(malformed))
            .and_then(|()| {
                self.contacts(|value| {
                    nat::fix_contacts(value, peer, transport, params.as_bytes(), preserve_uri)
                })
            });
        self.set_contacts(fixed)
    }

    fn restore_nated_ruri(&mut self) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        if let Err(error) = self.only_in("restore-nated-ruri", &[Hook::Request, Hook::Branch]) {
            return Ok(Err(Error::from(error)));
        }
        let uri = self.request_uri_now();
        let Some(restored) = restored(&uri) else {
            return Ok(Ok(false));
        };
        self.stage(restored.len())?;
        self.call.edits.push(Edit::SetRequestUri(restored));
        if self.message().field(HeaderId::Route).is_none() {
            self.call.state_mut().nat.next_hop = Some(uri.into());
        }
        Ok(Ok(true))
    }

    fn fix_nated_register(&mut self) -> Outcome {
        self.enter()?;
        let placed = self.of_register("fix-nated-register");
        if placed.is_ok() {
            let nat = &mut self.call.state_mut().nat;
            nat.register = true;
            nat.flags = nat.flags.with(BindingFlags::NATTED);
        }
        Ok(placed.map_err(Error::from))
    }

    fn set_binding_flags(&mut self, marks: wit::BindingFlags) -> Outcome {
        self.enter()?;
        let placed = self.of_register("set-binding-flags");
        if placed.is_ok() {
            let nat = &mut self.call.state_mut().nat;
            nat.flags = nat.flags.with(flags_in(marks));
        }
        Ok(placed.map_err(Error::from))
    }

    fn fix_nated_sdp(&mut self, fixes: wit::SdpFixes, address: String, fields: String) -> Outcome {
        self.enter()?;
        let hooks = [Hook::Request, Hook::Branch, Hook::Reply, Hook::Failure];
        let fixed = self
            .only_in("fix-nated-sdp", &hooks)
            .and_then(|()| self.fixed_body(sdp_fixes(fixes), &address, &fields));
        match fixed {
            Ok(Some(body)) => {
                self.stage(body.content_type.len() + body.bytes.len())?;
                self.call.edits.push(Edit::SetBody(body));
                Ok(Ok(()))
            }
            Ok(None) => Ok(Ok(())),
            Err(error) => Ok(Err(Error::from(error))),
        }
    }

    fn add_rcv_param(&mut self, in_uri: bool) -> Outcome {
        self.enter()?;
        let (peer, transport) = self.sender();
        let added = self
            .only_in("add-rcv-param", &[Hook::Request])
            .and_then(|()| {
                self.contacts(|value| nat::add_received(value, peer, transport, in_uri))
            });
        self.set_contacts(added)
    }
}

fn malformed(error: ValueError) -> CallError {
    CallError::Malformed(error.to_string())
}

fn restored(uri: &str) -> Option<String> {
    String::from_utf8(nat::restore_uri(uri.as_bytes())?).ok()
}

/// Lines for a session description, with one kind of line end.
fn sdp_lines(fields: &str) -> Result<String, CallError> {
    let is_line = |line: &str| {
        let mut bytes = line.bytes();
        bytes.next().is_some_and(|kind| kind.is_ascii_lowercase())
            && bytes.next() == Some(b'=')
            && lex::is_field_value(line.as_bytes())
    };
    let lines: Vec<&str> = fields.lines().collect();
    if lines.iter().all(|line| is_line(line)) {
        Ok(lines.join("\r\n"))
    } else {
        Err(CallError::Malformed(format!(
            "session description lines `{}`",
            edit::shown(fields)
        )))
    }
}

impl CallCx {
    fn sender(&self) -> (std::net::SocketAddr, sipbox_sip::Transport) {
        let flow = &self.call.facts.flow;
        (flow.peer, flow.transport)
    }

    fn of_register(&self, what: &str) -> Result<(), CallError> {
        self.only_in(what, &[Hook::Request])?;
        if self.request_method() == Method::Register {
            Ok(())
        } else {
            Err(CallError::OutOfPlace(format!(
                "{what} of a request that is no REGISTER"
            )))
        }
    }

    fn request_uri_now(&self) -> String {
        let edited = self.call.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetRequestUri(uri) => Some(uri.clone()),
            _ => None,
        });
        edited.unwrap_or_else(|| crate::message::text(self.message().request_uri()))
    }

    /// The Contact fields as the edits of this call leave them.
    fn contacts_now(&self) -> Result<Vec<String>, CallError> {
        let message = self.message();
        let mut values = Vec::new();
        for field in message.all(HeaderId::Contact) {
            let value = lex::unfold(message.get(field.value)).into_owned();
            let value = String::from_utf8(value)
                .map_err(|_| CallError::Malformed("Contact is no text".to_owned()))?;
            values.push(value);
        }
        let is_contact = |name: &str| HeaderId::from_name(name.as_bytes()) == HeaderId::Contact;
        for edit in &self.call.edits {
            match edit {
                Edit::SetHeader(name, value) if is_contact(name) => values = vec![value.clone()],
                Edit::AddHeader(name, value) if is_contact(name) => values.push(value.clone()),
                Edit::RemoveHeader(name) if is_contact(name) => values.clear(),
                _ => {}
            }
        }
        Ok(values)
    }

    /// The one Contact field that takes the place of all; `None`: nothing changes.
    fn contacts(
        &self,
        mend: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, ValueError>,
    ) -> Result<Option<String>, CallError> {
        let mut values = self.contacts_now()?;
        let mut changed = false;
        for value in &mut values {
            if let Some(mended) = mend(value.as_bytes()).map_err(malformed)? {
                *value = crate::message::text(&mended);
                changed = true;
            }
        }
        Ok(changed.then(|| values.join(", ")))
    }

    fn set_contacts(&mut self, value: Result<Option<String>, CallError>) -> Outcome {
        match value {
            Ok(Some(value)) => {
                self.stage(value.len())?;
                let edit = Edit::SetHeader(CONTACT.to_owned(), value);
                self.call.edits.push(edit);
                Ok(Ok(()))
            }
            Ok(None) => Ok(Ok(())),
            Err(error) => Ok(Err(Error::from(error))),
        }
    }

    fn fixed_body(
        &self,
        fixes: SdpFixes,
        address: &str,
        fields: &str,
    ) -> Result<Option<Body>, CallError> {
        let fields = sdp_lines(fields)?;
        let address: IpAddr = match address {
            "" => self.sender().0.ip(),
            text => text
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| CallError::Malformed(format!("address `{}`", edit::shown(text))))?,
        };
        let edited = self.call.edits.iter().rev().find_map(|edit| match edit {
            Edit::SetBody(body) => Some(body.clone()),
            _ => None,
        });
        let message = self.message();
        let body = edited.unwrap_or_else(|| Body {
            content_type: crate::message::text(&lex::unfold(
                message.header(HeaderId::ContentType).unwrap_or_default(),
            )),
            bytes: Bytes::copy_from_slice(message.body()),
        });
        let content_type = body.content_type.as_bytes();
        let fixed = nat::fix_body(content_type, &body.bytes, fixes, address, fields.as_bytes());
        Ok(fixed.map(|bytes| Body {
            content_type: body.content_type,
            bytes: Bytes::from(bytes),
        }))
    }

    /// Which of the facts that are asked for hold of the message.
    pub(crate) fn classify(&self, asked: SourceClass) -> SourceClass {
        let mut wanted = Facts::empty();
        for (flag, fact) in FACTS {
            if asked.contains(flag) {
                wanted = wanted.with(fact);
            }
        }
        let (peer, transport) = self.sender();
        let found = nat::classify(
            self.message(),
            self.owned().parts(),
            peer,
            transport,
            wanted,
        );
        let mut class = SourceClass::empty();
        for (flag, fact) in FACTS {
            if found.contains(fact) {
                class |= flag;
            }
        }
        class
    }
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

const FIXES: [(wit::SdpFixes, SdpFixes); 6] = [
    (wit::SdpFixes::ADD_DIR_ACTIVE, SdpFixes::ADD_DIR_ACTIVE),
    (wit::SdpFixes::REWRITE_MEDIA_IP, SdpFixes::REWRITE_MEDIA_IP),
    (wit::SdpFixes::ADD_NO_RTPPROXY, SdpFixes::ADD_NO_RTPPROXY),
    (
        wit::SdpFixes::REWRITE_ORIGIN_IP,
        SdpFixes::REWRITE_ORIGIN_IP,
    ),
    (wit::SdpFixes::REWRITE_NULL_IPS, SdpFixes::REWRITE_NULL_IPS),
    (wit::SdpFixes::OLDIP_SKIP, SdpFixes::OLDIP_SKIP),
];

fn sdp_fixes(fixes: wit::SdpFixes) -> SdpFixes {
    FIXES
        .into_iter()
        .filter(|(flag, _)| fixes.contains(*flag))
        .fold(SdpFixes::empty(), |all, (_, fix)| all.with(fix))
}

const MARKS: [(wit::BindingFlags, BindingFlags); 3] = [
    (wit::BindingFlags::NATTED, BindingFlags::NATTED),
    (wit::BindingFlags::SIPPING, BindingFlags::SIPPING),
    (
        wit::BindingFlags::REMOVE_ON_TIMEOUT,
        BindingFlags::REMOVE_ON_TIMEOUT,
    ),
];

fn flags_in(marks: wit::BindingFlags) -> BindingFlags {
    MARKS
        .into_iter()
        .filter(|(mark, _)| marks.contains(*mark))
        .fold(BindingFlags::default(), |all, (_, flag)| all.with(flag))
}

/// Marks as the contract has them.
pub(crate) fn flags_out(flags: BindingFlags) -> wit::BindingFlags {
    MARKS
        .into_iter()
        .filter(|(_, flag)| flags.contains(*flag))
        .fold(wit::BindingFlags::empty(), |all, (mark, _)| all | mark)
}
